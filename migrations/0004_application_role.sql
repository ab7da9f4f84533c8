-- The role the server works as. Where the migrating role may not create roles, the triggers alone protect the log and
-- /readyz says so.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'calos_app') THEN
        CREATE ROLE calos_app NOLOGIN;
    END IF;
    IF NOT pg_has_role(current_user, 'calos_app', 'MEMBER') THEN
        EXECUTE format('GRANT calos_app TO %I', current_user);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'no right to create the role calos_app; the append-only triggers carry the log alone';
    WHEN duplicate_object OR unique_violation THEN
        NULL;
END
$$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'calos_app') THEN
        GRANT USAGE ON SCHEMA public, read, read_next, read_old TO calos_app;
        GRANT SELECT, INSERT ON events, anchors TO calos_app;
        GRANT SELECT, UPDATE ON partitions TO calos_app;
        GRANT SELECT ON log TO calos_app;
        GRANT SELECT, INSERT, UPDATE, DELETE
            ON snapshots, idempotency, subject_keys, projections, checkpoints, dead_letters TO calos_app;
        ALTER DEFAULT PRIVILEGES IN SCHEMA read GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO calos_app;
        ALTER DEFAULT PRIVILEGES IN SCHEMA read_next GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO calos_app;
        ALTER DEFAULT PRIVILEGES IN SCHEMA read_old GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO calos_app;
    END IF;
END
$$;
