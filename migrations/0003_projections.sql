-- How far each projection has read, what it could not read, and where its rows live. A version is built in read_next
-- beside the live one in read and takes its place in one transaction; the one before rests in read_old.

CREATE SCHEMA read;
CREATE SCHEMA read_next;
CREATE SCHEMA read_old;

CREATE TABLE projections (
    name             text PRIMARY KEY,
    live_version     integer NOT NULL CHECK (live_version > 0),
    building_version integer CHECK (building_version > live_version)
);

CREATE TABLE checkpoints (
    projection       text NOT NULL,
    version          integer NOT NULL,
    partition        integer NOT NULL,
    position         bigint NOT NULL CHECK (position >= 0),
    recorded_at      timestamptz,
    halted           text,
    PRIMARY KEY (projection, version, partition)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- An event a projection could not take, and every later event of the same stream, in order.
CREATE TABLE dead_letters (
    projection       text NOT NULL,
    version          integer NOT NULL,
    partition        integer NOT NULL,
    position         bigint NOT NULL,
    aggregate_type   text NOT NULL,
    aggregate_id     text NOT NULL,
    parked           boolean NOT NULL,
    error            text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, version, partition, position)
);
CREATE INDEX dead_letters_stream ON dead_letters (projection, version, aggregate_type, aggregate_id);
