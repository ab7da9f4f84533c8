//! The log under `cqrs-es` and `postgres-es`: both directions of compatibility, and the faults of theirs that must not be ours.

use std::collections::HashMap;

use calos_adapters::postgres::PgEventStore;
use calos_commands::sourced::{Recorded, Sourced};
use calos_domain::Fact;
use calos_tests::database::TestDatabase;
use cqrs_es::persist::{PersistedEventRepository, PersistedEventStore, SerializedEvent};
use cqrs_es::{AggregateError, CqrsFramework, EventStore};
use postgres_es::PostgresEventRepository;

use crate::tally::{Add, Added, LIMIT, Tally, TallyEvent, TooMuch, add, assert_sealed, open, stored};

type Framework = CqrsFramework<Sourced<Tally>, PgEventStore<Tally>>;

#[tokio::test(flavor = "multi_thread")]
async fn the_framework_runs_on_the_log_beside_every_other_command() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    let framework: Framework = CqrsFramework::new(PgEventStore::new(log.clone()), vec![], ());
    framework.execute("a", Add { id: 1, amount: 4 }).await.expect("it is taken");
    assert_eq!(add(&log, "a", 2, 4).await.expect("it is taken").answer, 8);
    let metadata = HashMap::from([("reason".to_owned(), "because".to_owned())]);
    framework.execute_with_metadata("a", Add { id: 3, amount: 4 }, metadata).await.expect("it is taken");
    let refused = framework.execute("a", Add { id: 4, amount: LIMIT }).await;
    assert!(matches!(refused, Err(AggregateError::UserError(TooMuch))), "{refused:?}");
    assert_eq!(stored(&database, "a").await, (12, 3));
    assert_sealed(&database).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_on_a_state_that_has_moved_on_is_a_conflict() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    let store = PgEventStore::<Tally>::new(log.clone());
    let context = store.load_aggregate("a").await.expect("it loads");
    add(&log, "a", 1, 1).await.expect("it is taken");
    let event = Recorded(TallyEvent::Added(Added { id: 2, amount: 2, total_after: 2 }));
    let late = store.commit(vec![event], context, HashMap::new()).await;
    assert!(matches!(late, Err(AggregateError::AggregateConflict)), "{late:?}");
    assert_eq!(stored(&database, "a").await, (1, 1));
    assert_eq!(add(&log, "a", 3, 1).await.expect("it is taken").answer, 2);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_built_on_postgres_es_reads_the_log() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    for id in 1..=3 {
        add(&log, "a", id, 4).await.expect("it is taken");
    }
    log.close().await;
    let repository = PostgresEventRepository::new(database.pool.clone());
    let events = repository.get_events::<Sourced<Tally>>("a").await.expect("it reads");
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    let theirs = PersistedEventStore::<_, Sourced<Tally>>::new_event_store(repository);
    let envelopes = theirs.load_events("a").await.expect("metadata is a map of texts, payloads are events");
    assert_eq!(envelopes[2].payload.0, TallyEvent::Added(Added { id: 3, amount: 4, total_after: 12 }));
    assert_eq!(envelopes[2].metadata["actor"], "system:test");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_es_wrote_decodes_as_our_events() {
    let database = TestDatabase::create().await;
    sqlx::raw_sql(
        "CREATE TABLE theirs (aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint NOT NULL,
            event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL,
            PRIMARY KEY (aggregate_type, aggregate_id, sequence));
         GRANT ALL ON theirs TO calos_app",
    )
    .execute(&database.owner_pool)
    .await
    .expect("their table is made");
    let repository = PostgresEventRepository::new(database.pool.clone()).with_tables("theirs", "snapshots");
    let store = PersistedEventStore::<_, Sourced<Tally>>::new_event_store(repository);
    let framework = CqrsFramework::new(store, vec![], ());
    framework.execute("a", Add { id: 1, amount: 4 }).await.expect("it is taken");
    let (name, version, payload): (String, String, serde_json::Value) =
        sqlx::query_as("SELECT event_type, event_version, payload FROM theirs")
            .fetch_one(&database.pool)
            .await
            .expect("one event");
    let Recorded(event): Recorded<TallyEvent> = serde_json::from_value(payload).expect("it decodes");
    assert_eq!((name.as_str(), version.as_str()), (event.name(), event.version()));
    assert_eq!(event, TallyEvent::Added(Added { id: 1, amount: 4, total_after: 4 }));
}

// Their snapshot store applies each new event twice, and files the result under a sequence it does not have.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_holds_each_event_once_and_stands_at_its_own_sequence() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    let framework: Framework = CqrsFramework::new(PgEventStore::new(log.clone()), vec![], ());
    framework.execute("a", Add { id: 0, amount: 4 }).await.expect("it is taken");
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    for id in 1..=600 {
        framework.execute("a", Add { id, amount: 4 }).await.expect("it is taken");
    }
    log.close().await;
    let (sequence, payload): (i64, String) = sqlx::query_as("SELECT last_sequence, payload FROM snapshots")
        .fetch_one(&database.pool)
        .await
        .expect("there is a snapshot");
    let state: Tally = serde_json::from_str(&payload).expect("it decodes");
    assert_eq!(state.total, 4 * sequence);
    let warm = open(&database).await;
    assert_eq!(add(&warm, "a", 9_999, 0).await.expect("it is taken").answer, 4 * 601);
    warm.close().await;
}

// Their repository binds the sequence as an `i32`, so a stream wraps after two thousand million events.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_beyond_thirty_two_bits_is_kept_whole() {
    const FAR: i64 = 3_000_000_000;
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    sqlx::query("INSERT INTO snapshots VALUES ('tally', 'a', $1, $2, 1, '{\"total\":5,\"ids\":[]}')")
        .bind(log.partition_of("a"))
        .bind(FAR)
        .execute(&database.pool)
        .await
        .expect("a snapshot is put there");
    assert_eq!(add(&log, "a", 1, 1).await.expect("it is taken").answer, 6);
    log.close().await;
    let (sequence,): (i64,) =
        sqlx::query_as("SELECT sequence FROM events").fetch_one(&database.pool).await.expect("one event");
    assert_eq!(sequence, FAR + 1);
    let again = open(&database).await;
    assert_eq!(add(&again, "a", 2, 1).await.expect("it is taken").answer, 7);
    again.close().await;
}

// Their `get_last_events` writes the sequence into the SQL text: one statement in the cache for each.
#[tokio::test(flavor = "multi_thread")]
async fn reading_a_tail_keeps_one_statement_however_long_the_stream() {
    let database = TestDatabase::create().await;
    let repository = PostgresEventRepository::new(database.pool.clone());
    for sequence in 0..3 {
        let tail = repository.get_last_events::<Sourced<Tally>>("a", sequence).await.expect("it reads");
        assert_eq!(tail, Vec::<SerializedEvent>::new());
    }
    let source = include_str!("../../adapters/src/postgres/load.rs");
    let calls = source.lines().filter(|line| line.contains("get_last_events(") || line.contains("format!(\"SELECT"));
    assert_eq!(calls.count(), 0, "the tail is read with one text and a bound sequence");
}

// Their replay stream ends early on a lost connection and calls it success.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_whose_connection_is_cut_is_an_error_and_not_an_empty_stream() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    add(&log, "a", 1, 4).await.expect("it is taken");
    let store = PgEventStore::<Tally>::new(log.clone());
    database.pool.close().await;
    let loaded = store.load_events("a").await;
    assert!(
        matches!(loaded, Err(AggregateError::DatabaseConnectionError(_) | AggregateError::UnexpectedError(_))),
        "{loaded:?}"
    );
}
