-- Tenants' own provider keys, sealed. They stand in no event, so that a removed key is gone for good: its row is deleted.
-- Each entry is sealed under a keyring key, and that is wrapped by the master key: changing the master key wraps a row
-- anew, and touches no entry. A keyring key cannot go while an entry still needs it.

CREATE TABLE keyring_keys (
    version          integer PRIMARY KEY CHECK (version > 0),
    wrapped          bytea NOT NULL,
    master_version   integer NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE keyring (
    id               uuid PRIMARY KEY,
    tenant_id        uuid NOT NULL,
    provider         text NOT NULL,
    key_version      integer NOT NULL REFERENCES keyring_keys (version),
    sealed           bytea NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX keyring_key_version ON keyring (key_version, id);
CREATE INDEX keyring_created_at ON keyring (created_at);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'calos_app') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON keyring_keys, keyring TO calos_app;
    END IF;
END
$$;
