//! A log that takes whatever a test puts into it, rightly numbered: also what the real one would never decide.

use calos_adapters::postgres::partitioning::partition_of;
use calos_domain::{Fact, Timestamp};
use calos_tests::database::TestDatabase;
use sqlx::{PgPool, Row as _};

/// One event to be appended.
#[derive(Clone, Debug)]
pub struct Raw {
    pub kind: &'static str,
    pub stream: String,
    pub event_type: String,
    pub event_version: String,
    pub payload: String,
}

impl Raw {
    /// As the real log would store it.
    pub fn of(kind: &'static str, stream: &impl ToString, event: &impl Fact) -> Self {
        Self {
            kind,
            stream: stream.to_string(),
            event_type: event.name().to_owned(),
            event_version: event.version().to_owned(),
            payload: serde_json::to_string(event).expect("an event can be written"),
        }
    }
}

/// Appends one event now and answers its partition and position.
pub async fn append(pool: &PgPool, event: &Raw) -> (i32, i64) {
    append_at(pool, event, None).await
}

/// Appends one event, recorded at a moment of the past if so wanted, and answers its partition and position.
pub async fn append_at(pool: &PgPool, event: &Raw, at: Option<Timestamp>) -> (i32, i64) {
    let count: i32 = sqlx::query_scalar("SELECT partitions FROM log").fetch_one(pool).await.expect("a log");
    let partition = partition_of(&event.stream, u16::try_from(count).expect("few partitions"));
    let mut transaction = pool.begin().await.expect("a transaction");
    let head = sqlx::query(
        "UPDATE partitions SET last_position = last_position + 1,
             last_recorded_at = CASE WHEN $2::int8 IS NULL THEN greatest(now(), last_recorded_at)
                 WHEN last_position = 0 THEN timestamptz 'epoch' + $2 * interval '1 microsecond'
                 ELSE greatest(timestamptz 'epoch' + $2 * interval '1 microsecond', last_recorded_at) END
         WHERE partition = $1 RETURNING last_position",
    );
    let row = head.bind(partition).bind(at.map(Timestamp::micros)).fetch_one(&mut *transaction).await.expect("a head");
    let position: i64 = row.get(0);
    sqlx::query(
        "INSERT INTO events (partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version,
             payload, metadata, recorded_at, hash)
         SELECT $1, $2, $3, $4, 1 + coalesce((SELECT max(sequence) FROM events
                 WHERE aggregate_type = $3 AND aggregate_id = $4), 0), $5, $6, $7::json, '{}', p.last_recorded_at, '\\x00'
         FROM partitions p WHERE p.partition = $1",
    )
    .bind(partition)
    .bind(position)
    .bind(event.kind)
    .bind(&event.stream)
    .bind(&event.event_type)
    .bind(&event.event_version)
    .bind(&event.payload)
    .execute(&mut *transaction)
    .await
    .expect("the event is stored");
    transaction.commit().await.expect("it is committed");
    (partition, position)
}

/// Deletes an event behind the log's back.
pub async fn tear_out(database: &TestDatabase, partition: i32, position: i64) {
    for statement in [
        "ALTER TABLE events DISABLE TRIGGER ALL".to_owned(),
        format!("DELETE FROM events WHERE partition = {partition} AND position = {position}"),
        "ALTER TABLE events ENABLE ALWAYS TRIGGER events_refuse_row".to_owned(),
        "ALTER TABLE events ENABLE ALWAYS TRIGGER events_refuse_statement".to_owned(),
    ] {
        sqlx::query(&statement).execute(&database.owner_pool).await.expect("the owner can do it");
    }
}
