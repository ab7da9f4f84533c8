//! A small aggregate to try the log with: it adds, and refuses what would go beyond its limit.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use calos_adapters::postgres::{LogOptions, PgLog};
use calos_commands::log::{Done, EventLog, Failed, Plan, Request};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::{Decider, StreamId};
use calos_tests::database::TestDatabase;

/// The most a tally takes.
pub const LIMIT: i64 = 1_000_000;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TallyEvent {
    Added(Added),
}

calos_domain::facts!(TallyEvent { Added => "added" v "1" });

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Added {
    pub id: u64,
    pub amount: i64,
    pub total_after: i64,
}

#[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    pub total: i64,
    pub ids: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
pub struct Add {
    pub id: u64,
    pub amount: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too much")
    }
}

impl std::error::Error for TooMuch {}

impl Decider for Tally {
    const KIND: &'static str = "tally";
    const SNAPSHOT_VERSION: i32 = 1;
    type Command = Add;
    type Event = TallyEvent;
    type Refusal = TooMuch;

    fn decide(&self, command: Add) -> Result<Vec<TallyEvent>, TooMuch> {
        if self.ids.contains(&command.id) {
            return Ok(Vec::new());
        }
        let total_after = self.total + command.amount;
        if total_after > LIMIT {
            return Err(TooMuch);
        }
        Ok(vec![TallyEvent::Added(Added { id: command.id, amount: command.amount, total_after })])
    }

    fn evolve(&mut self, event: &TallyEvent) {
        let TallyEvent::Added(added) = event;
        self.total += added.amount;
        self.ids.insert(added.id);
    }
}

pub async fn open(database: &TestDatabase) -> PgLog {
    open_with(database, LogOptions::default()).await
}

pub async fn open_with(database: &TestDatabase, options: LogOptions) -> PgLog {
    PgLog::open(database.pool.clone(), options).await.expect("the log opens")
}

pub fn request() -> Request {
    Metadata::new(Actor::System("test")).into()
}

/// Adds to one tally and answers its total afterwards.
pub async fn add(log: &PgLog, stream: &str, id: u64, amount: i64) -> Result<Done<i64>, Failed<TooMuch>> {
    let mut plan = Plan::default();
    let tally = plan.stream::<Tally>(StreamId::key(stream));
    log.execute(&plan, request(), |unit| {
        unit.decide(tally, Add { id, amount })?;
        Ok(unit.with(tally, |tally| tally.total))
    })
    .await
}

/// The total as the stored events say it, and how many there are.
pub async fn stored(database: &TestDatabase, stream: &str) -> (i64, i64) {
    sqlx::query_as(
        "SELECT coalesce(sum((payload -> 'added' ->> 'amount')::bigint), 0)::bigint, count(*) FROM events
         WHERE aggregate_type = 'tally' AND aggregate_id = $1",
    )
    .bind(stream)
    .fetch_one(&database.pool)
    .await
    .expect("the events can be summed")
}

/// Checks that every partition is gapless and chained, and its head is its last event.
pub async fn assert_sealed(database: &TestDatabase) {
    assert_sealed_in(&database.pool).await;
}

/// The same, of the log behind a pool.
pub async fn assert_sealed_in(pool: &PgPool) {
    use calos_adapters::postgres::Timestamptz;
    use calos_adapters::seal::{GENESIS_HASH, chain};
    use calos_domain::Record;
    type Row = (i32, i64, String, String, i64, String, String, String, String, Timestamptz, Vec<u8>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text,
            metadata::text, recorded_at, hash
         FROM events ORDER BY partition, position",
    )
    .fetch_all(pool)
    .await
    .expect("the log reads");
    let heads: Vec<(i32, i64, Vec<u8>)> =
        sqlx::query_as("SELECT partition, last_position, head_hash FROM partitions ORDER BY partition")
            .fetch_all(pool)
            .await
            .expect("the heads read");
    for (partition, last_position, head_hash) in heads {
        let (mut position, mut hash, mut time) = (0, GENESIS_HASH, i64::MIN);
        for row in rows.iter().filter(|row| row.0 == partition) {
            position += 1;
            assert_eq!(row.1, position, "partition {partition} has a gap");
            assert!(row.9.0.micros() >= time, "time goes backwards at {partition}:{position}");
            time = row.9.0.micros();
            let record = Record {
                partition,
                position,
                aggregate_type: &row.2,
                aggregate_id: &row.3,
                sequence: row.4,
                event_type: &row.5,
                event_version: &row.6,
                payload: &row.7,
                metadata: &row.8,
                recorded_at: row.9.0,
            };
            hash = chain(&hash, &record);
            assert_eq!(row.10, hash, "the seal of {partition}:{position} does not hold");
        }
        assert_eq!(last_position, position, "the head of {partition} is not its last event");
        assert_eq!(head_hash, hash, "the head hash of {partition} is not its last event's");
    }
}
