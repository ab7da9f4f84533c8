-- The log only grows. Triggers refuse every other change, even to the owner of the table; a role without the rights is
-- the first line, this is the second.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the table % is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation', HINT = 'Correct a fact by appending another one.';
END
$$;

CREATE TRIGGER events_refuse_row BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_refuse_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER partitions_refuse_delete BEFORE DELETE OR TRUNCATE ON partitions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER log_refuse_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ALWAYS: session_replication_role cannot switch them off.
ALTER TABLE events ENABLE ALWAYS TRIGGER events_refuse_row;
ALTER TABLE events ENABLE ALWAYS TRIGGER events_refuse_statement;
ALTER TABLE partitions ENABLE ALWAYS TRIGGER partitions_refuse_delete;
ALTER TABLE log ENABLE ALWAYS TRIGGER log_refuse_statement;
