-- The one secret that a database's lasting keys are derived from, wrapped by the master key: changing the master key
-- means wrapping this row anew. Losing it locks everybody out, so the working role may not delete it.

CREATE TABLE secrets_root (
    singleton        boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    wrapped          bytea NOT NULL,
    master_version   integer NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'calos_app') THEN
        GRANT SELECT, INSERT, UPDATE ON secrets_root TO calos_app;
    END IF;
END
$$;
