-- What a credential may do beyond its role, such as saying when something occurred (`backdate`).
ALTER TABLE ledgerdesk.credentials ADD COLUMN scopes text[] NOT NULL DEFAULT '{}';
