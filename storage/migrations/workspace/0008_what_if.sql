-- Questions of the kind "what would have become of these tickets under other policies": docs/adr/0017-what-if.md. They change
-- nothing, so that a row is of no more worth than its answer, and is thrown away after a week.

CREATE TABLE @schema@.what_ifs (
    id           uuid PRIMARY KEY,
    asked        jsonb NOT NULL,
    asked_by     uuid NOT NULL,
    asked_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    phase        text COLLATE "C" NOT NULL DEFAULT 'waiting'
                 CHECK (phase IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    -- Which process works on it. One that is gone leaves a lease that runs out, and another may begin again.
    owner        text,
    leased_until timestamptz,
    attempts     integer NOT NULL DEFAULT 0,
    done         bigint NOT NULL DEFAULT 0,
    total        bigint NOT NULL DEFAULT 0,
    started_at   timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    error        text,
    report       jsonb
) WITH (fillfactor = 50);

CREATE INDEX ON @schema@.what_ifs (asked_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON @schema@.what_ifs TO @application@;
GRANT SELECT ON @schema@.what_ifs TO @reader@;
