-- How far adoptions of calendars and policies have been carried to tickets that were open: docs/adr/0016-the-timer.md.
-- What falls due when is in the views, and what was done about it in the log; nothing else of the timer is kept.

CREATE TABLE @schema@.sla_rollout (
    -- One row.
    single       boolean PRIMARY KEY DEFAULT true CHECK (single),
    -- Every version of the stream of service levels up to this one has been carried to the tickets open then.
    done_upto    bigint NOT NULL DEFAULT 0,
    -- The walk under way: up to which version, past which ticket number, of how many tickets, who was moved.
    upto         bigint,
    after_number bigint NOT NULL DEFAULT 0,
    total        bigint NOT NULL DEFAULT 0,
    looked_at    bigint NOT NULL DEFAULT 0,
    moved        bigint NOT NULL DEFAULT 0,
    started_at   timestamptz,
    updated_at   timestamptz,
    finished_at  timestamptz
) WITH (fillfactor = 50);
INSERT INTO @schema@.sla_rollout DEFAULT VALUES;

GRANT SELECT, UPDATE ON @schema@.sla_rollout TO @application@;
GRANT SELECT ON @schema@.sla_rollout TO @reader@;
