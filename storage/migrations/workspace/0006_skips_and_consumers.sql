-- What was passed over on purpose, for ever, and who carries the log on to others: docs/operations.md.

-- Events that a version of a view does not fold. Nobody may take such a row back: a rebuild of the same version passes the
-- event over again.
CREATE TABLE @schema@.view_skips (
    view       text COLLATE "C" NOT NULL,
    version    integer NOT NULL,
    position   bigint NOT NULL,
    stream     uuid NOT NULL,
    topic      text COLLATE "C" NOT NULL,
    -- What the view said against the event.
    error      text NOT NULL,
    reason     text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    skipped_by text NOT NULL,
    skipped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (view, version, position)
);

-- How far each consumer has handed the log on. A consumer's events have effects outside, so that nothing here is ever set
-- back by the desk.
CREATE TABLE @schema@.consumers (
    name            text COLLATE "C" PRIMARY KEY,
    -- Every event up to here was handed over, or passed over on purpose.
    position        bigint NOT NULL,
    registered_from bigint NOT NULL,
    registered_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    state           text COLLATE "C" NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'failed')),
    owner           text,
    leased_until    timestamptz,
    -- How often the event after `position` was tried, and not before when it is tried again.
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    failed_position bigint,
    failed_topic    text,
    error           text,
    failed_at       timestamptz
) WITH (fillfactor = 50);

CREATE TABLE @schema@.consumer_skips (
    consumer   text COLLATE "C" NOT NULL,
    position   bigint NOT NULL,
    stream     uuid NOT NULL,
    topic      text COLLATE "C" NOT NULL,
    error      text NOT NULL,
    reason     text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    skipped_by text NOT NULL,
    skipped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- One that was registered again may meet the same event again.
    PRIMARY KEY (consumer, position, skipped_at)
);

GRANT SELECT, INSERT ON @schema@.view_skips, @schema@.consumer_skips TO @application@;
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema@.consumers TO @application@;
GRANT SELECT ON @schema@.view_skips, @schema@.consumer_skips, @schema@.consumers TO @reader@;
