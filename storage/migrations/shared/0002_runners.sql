-- The processes that keep views up, and until when each is to be believed alive: one row a process, renewed several times
-- a second, however many workspaces there are. Unlogged: after a crash or a failover nobody is alive until he says so.
CREATE UNLOGGED TABLE ledgerdesk.runners (
    name         text COLLATE "C" PRIMARY KEY,
    -- Which views, by name and version, the process has the code of.
    views        text[] NOT NULL,
    leased_until timestamptz NOT NULL
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE, DELETE ON ledgerdesk.runners TO @application@;
