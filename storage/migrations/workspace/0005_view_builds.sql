-- The tables of views beside those that are read: docs/adr/0009-rebuild-beside-live.md. Apart from the live views' own
-- bookkeeping, so that a build's checkpoints never wait for theirs, nor they for a build's.

CREATE TABLE @schema@.view_builds (
    name         text COLLATE "C" NOT NULL,
    version      integer NOT NULL,
    -- build: to be put in the live table's place. check: to be compared with it only. kept: what was live before. live:
    -- of that, only which code made it is noted here.
    place        text COLLATE "C" NOT NULL CHECK (place IN ('build', 'check', 'kept', 'live')),
    owner        text,
    leased_until timestamptz,
    -- How far each of those that fill the table has come. NULL: there is no such table.
    positions    bigint[],
    -- Which code the rows were folded by: a build begun by other code is not gone on with.
    recipe       text,
    -- The last run, or the one under way, for those who watch it.
    phase        text CHECK (phase IN ('reading', 'indexing', 'catching up', 'comparing', 'swapping', 'done', 'failed',
                                       'refused')),
    done         bigint NOT NULL DEFAULT 0,
    target       bigint NOT NULL DEFAULT 0,
    rate         float8 NOT NULL DEFAULT 0,
    started_at   timestamptz,
    updated_at   timestamptz,
    finished_at  timestamptz,
    error        text,
    report       jsonb,
    PRIMARY KEY (name, version, place)
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE, DELETE ON @schema@.view_builds TO @application@;
GRANT SELECT ON @schema@.view_builds TO @reader@;
