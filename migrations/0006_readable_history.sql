-- Readiness asks whether the schema is the one the running program knows, and the program does not work as the owner.

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'calos_app') THEN
        GRANT SELECT ON _sqlx_migrations TO calos_app;
    END IF;
END
$$;
