-- The log: every fact CALOS knows, cut into a fixed number of partitions, each gapless and in commit order.
-- The column names and types that postgres-es knows are kept, so that a tool built on it reads this table.
-- Stream names are compared byte by byte (COLLATE "C"): an index over them must not depend on the version of the C
-- library's collation, which an upgrade of the system changes under a database that stays.

CREATE TABLE log (
    singleton        boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    log_id           uuid NOT NULL DEFAULT gen_random_uuid(),
    partitions       integer NOT NULL CHECK (partitions BETWEEN 1 AND 256),
    created_at       timestamptz NOT NULL DEFAULT now()
);

-- One row per partition: its head. Small and hot, so rows keep room for in-place updates.
CREATE TABLE partitions (
    partition        integer PRIMARY KEY,
    last_position    bigint NOT NULL,
    last_recorded_at timestamptz NOT NULL,
    head_hash        bytea NOT NULL CHECK (octet_length(head_hash) = 32)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE events (
    partition        integer NOT NULL,
    position         bigint NOT NULL CHECK (position > 0),
    aggregate_type   text COLLATE "C" NOT NULL,
    aggregate_id     text COLLATE "C" NOT NULL,
    sequence         bigint NOT NULL CHECK (sequence > 0),
    event_type       text NOT NULL,
    event_version    text NOT NULL,
    payload          json NOT NULL,
    metadata         json NOT NULL,
    recorded_at      timestamptz NOT NULL,
    hash             bytea NOT NULL,
    PRIMARY KEY (partition, position),
    -- In this order: postgres-es finds a stream without knowing its partition, and a distributed table accepts it.
    CONSTRAINT events_stream_key UNIQUE (aggregate_type, aggregate_id, sequence, partition)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.2);

-- Speed only: with any row deleted every answer stays the same.
CREATE TABLE snapshots (
    aggregate_type   text COLLATE "C" NOT NULL,
    aggregate_id     text COLLATE "C" NOT NULL,
    partition        integer NOT NULL,
    last_sequence    bigint NOT NULL CHECK (last_sequence > 0),
    snapshot_version integer NOT NULL,
    payload          text NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, partition)
);
-- Out of line and as it is: compressing large states cost PostgreSQL more than the disk they would have saved.
ALTER TABLE snapshots ALTER COLUMN payload SET STORAGE EXTERNAL;

-- A caller's repeated request: claimed in the append that answers it, sealed, short-lived.
CREATE TABLE idempotency (
    partition        integer NOT NULL,
    caller           text NOT NULL,
    key              text NOT NULL,
    request_hash     bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    positions        text NOT NULL,
    sealed_answer    bytea NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, caller, key)
);
CREATE INDEX idempotency_created_at ON idempotency (created_at);

-- Data keys of subjects, wrapped by the master key. Destroying a row is what an erasure is.
CREATE TABLE subject_keys (
    subject          uuid PRIMARY KEY,
    wrapped_key      bytea NOT NULL,
    master_version   integer NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);

-- Signed heads, the copy inside the database; the one that counts is written outside it.
CREATE TABLE anchors (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    anchored_at      timestamptz NOT NULL,
    anchor           json NOT NULL
);
