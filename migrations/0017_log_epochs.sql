-- When the log was put back to an earlier point, from where it went on, and who signed for that: without it the anchors of
-- what was abandoned call the log a cut one. As anchors are, this is evidence: it is neither changed nor removed.

CREATE TABLE log_epochs (
    epoch            integer PRIMARY KEY CHECK (epoch > 0),
    started_at       timestamptz NOT NULL,
    signed           json NOT NULL
);

CREATE TRIGGER log_epochs_refuse_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON log_epochs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE log_epochs ENABLE ALWAYS TRIGGER log_epochs_refuse_statement;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'calos_app') THEN
        GRANT SELECT ON log_epochs TO calos_app;
    END IF;
END
$$;
