-- Heads and checkpoints are found by the position they stand at. Both are few rows that change many times a second, and
-- while some transaction still looks at an old snapshot (a copy of the log, an index being built, a long report), no version
-- that it might see can be removed: found by the partition alone, each append and each round then walks past all of them,
-- and slows down by the second. With the position in the key it goes to the one that counts.
ALTER TABLE partitions DROP CONSTRAINT partitions_pkey;
ALTER TABLE partitions ADD CONSTRAINT partitions_pkey PRIMARY KEY (partition, last_position);
ALTER TABLE checkpoints DROP CONSTRAINT checkpoints_pkey;
ALTER TABLE checkpoints ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (projection, version, partition, position);

-- The head of each partition, found from the end of the key where it is.
CREATE VIEW heads AS
SELECT numbered.partition, head.last_position, head.last_recorded_at, head.head_hash
FROM generate_series(0, (SELECT partitions FROM log) - 1) AS numbered (partition)
CROSS JOIN LATERAL (
    SELECT last_position, last_recorded_at, head_hash FROM partitions
    WHERE partitions.partition = numbered.partition ORDER BY last_position DESC LIMIT 1
) AS head;

-- Every move is a new entry of the key, so room beside the row is no help any more.
ALTER TABLE partitions RESET (fillfactor);
ALTER TABLE checkpoints RESET (fillfactor);

-- One head for each partition is no longer for the key to see to: whoever may only append cannot make another.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'calos_app') THEN
        REVOKE UPDATE ON partitions FROM calos_app;
        GRANT SELECT ON heads TO calos_app;
        GRANT UPDATE (last_position, last_recorded_at, head_hash) ON partitions TO calos_app;
    END IF;
END
$$;
