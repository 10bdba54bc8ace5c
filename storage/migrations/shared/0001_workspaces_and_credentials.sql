-- What all workspaces share: the list of them and the credentials that lead into them.
CREATE TABLE ledgerdesk.workspaces (
    name       text COLLATE "C" PRIMARY KEY,
    -- Keyed with the root key: a desk started with another root key is refused before it writes anything.
    key_check  bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ledgerdesk.credentials (
    id         uuid PRIMARY KEY,
    workspace  text COLLATE "C" NOT NULL REFERENCES ledgerdesk.workspaces (name) ON DELETE CASCADE,
    -- SHA-256 of the token: tokens are 256 random bits, so that a slow hash would add nothing.
    token_hash bytea NOT NULL UNIQUE,
    role       text NOT NULL,
    actor_id   uuid NOT NULL,
    team_ids   uuid[] NOT NULL DEFAULT '{}',
    label      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

GRANT USAGE ON SCHEMA ledgerdesk TO @application@, @reader@;
GRANT SELECT ON ledgerdesk.workspaces, ledgerdesk.migrations TO @application@, @reader@;
GRANT SELECT, INSERT, UPDATE ON ledgerdesk.credentials TO @application@;
