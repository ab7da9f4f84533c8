-- Anchors are evidence: what was noted once is neither changed nor removed, as the log's own events are not.

CREATE TRIGGER anchors_refuse_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON anchors
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE anchors ENABLE ALWAYS TRIGGER anchors_refuse_statement;
