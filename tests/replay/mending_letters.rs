//! Dead letters are shown, taken up again, or left out one by one; and what tools do to the rest is recorded too.

use calos_adapters::postgres::partitioning::partition_of;
use calos_projections::dead_letters::list;
use calos_replay::ToolError;
use calos_replay::anchor::anchor;
use calos_replay::dead_letters::{retry, show_letter, skip};
use calos_replay::diff::diff;
use calos_replay::place::Place;
use calos_replay::progress::Show;
use calos_replay::snapshots::drop_snapshots;
use calos_replay::write_guard::{Assent, Confirmed, confirm};

use crate::history::{History, model, operator, spend};

/// A read model with a row per use, so that one event more or less shows.
const NAME: &str = "usage_log";

fn confirmed() -> Confirmed {
    confirm(Assent::Given, "dead-letters").expect("it is confirmed")
}

/// Appends a use to a tenant's wallet behind the log's back, with this payload; answers where it stands.
async fn append_use(history: &History, tenant: &str, payload: &str) -> Place {
    let partitions = history.number("SELECT partitions::bigint FROM log").await;
    let partition = partition_of(tenant, u16::try_from(partitions).expect("few"));
    let append = format!(
        "WITH head AS (UPDATE partitions SET last_position = last_position + 1 WHERE partition = {partition} \
             RETURNING last_position, last_recorded_at) \
         INSERT INTO events (partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, \
             payload, metadata, recorded_at, hash) \
         SELECT {partition}, last_position, 'wallet', '{tenant}', \
             (SELECT max(sequence) + 1 FROM events WHERE aggregate_type = 'wallet' AND aggregate_id = '{tenant}'), \
             'usage_recorded', '1', {payload}, '{{}}', last_recorded_at, '\\x00' FROM head"
    );
    history.run(&append).await;
    let position = history.number(&format!("SELECT last_position FROM partitions WHERE partition = {partition}")).await;
    Place { partition, position }
}

/// A history whose last wallet got a use that no program can read, and then three good ones.
async fn poisoned() -> (History, Place) {
    let history = History::of(3, 2).await;
    let tenant = history.tenants[2].to_string();
    let place = append_use(&history, &tenant, "'{\"usage_recorded\": 7}'").await;
    let good = format!(
        "(SELECT payload FROM events WHERE aggregate_type = 'wallet' AND aggregate_id = '{tenant}' \
             AND event_type = 'usage_recorded' ORDER BY sequence LIMIT 1)"
    );
    for _ in 0..3 {
        append_use(&history, &tenant, &good).await;
    }
    history.catch_up().await;
    (history, place)
}

async fn uses(history: &History) -> i64 {
    history.number("SELECT count(*) FROM read.usage_log").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_shows_its_event_its_error_and_what_waits_behind_it() {
    let (history, place) = poisoned().await;
    let shown = show_letter(&history.database.owner_pool, model(NAME), place).await.expect("it is set aside");
    assert!(!shown.letter.parked && shown.letter.error.contains("invalid type: integer `7`"), "{:?}", shown.letter);
    assert_eq!((shown.event.partition, shown.event.position), (place.partition, place.position));
    assert_eq!(shown.event.payload.get(), "{\"usage_recorded\": 7}");
    assert_eq!(shown.parked_events, 3);
    assert_eq!(shown.parked_positions.len(), 3);
    let nowhere = Place { partition: place.partition, position: 1 };
    let refused = show_letter(&history.database.owner_pool, model(NAME), nowhere).await;
    assert!(matches!(refused, Err(ToolError::Refused(_))), "{refused:?}");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_event_is_left_out_alone_by_the_live_version_and_by_those_built_later() {
    let (history, place) = poisoned().await;
    let pool = &history.database.owner_pool;
    assert_eq!(uses(&history).await, 6);
    let letters = list(pool, NAME, 10).await.expect("the letters");
    let waiting = Place { partition: place.partition, position: letters[1].position };
    let refused = skip(pool, &history.log, model(NAME), waiting, &operator(), &confirmed()).await;
    assert!(matches!(&refused, Err(ToolError::Refused(why)) if why.contains("waits behind")), "{refused:?}");
    assert_eq!(list(pool, NAME, 10).await.expect("the letters"), letters, "what is refused changes nothing");

    let report = skip(pool, &history.log, model(NAME), place, &operator(), &confirmed()).await.expect("it is skipped");
    assert_eq!((report.resumed, report.stream_failing), (3, false));
    assert_eq!(uses(&history).await, 9, "those that waited are there, the poisoned one is not");
    assert_eq!(list(pool, NAME, 10).await.expect("the letters"), []);
    let said: (String, String, i64, i64) = sqlx::query_as(
        "SELECT payload #>> '{dead_letter_skipped,operator}', metadata ->> 'reason', \
             (payload #>> '{dead_letter_skipped,partition}')::bigint, (payload #>> '{dead_letter_skipped,position}')::bigint \
         FROM events WHERE event_type = 'dead_letter_skipped'",
    )
    .fetch_one(pool)
    .await
    .expect("it is recorded");
    let expected =
        ("olga".to_owned(), "the balance looked wrong".to_owned(), i64::from(place.partition), place.position);
    assert_eq!(said, expected);
    let again = skip(pool, &history.log, model(NAME), place, &operator(), &confirmed()).await;
    assert!(matches!(again, Err(ToolError::Refused(_))), "{again:?}");

    // A fresh fold leaves the same one out, and so does the version that is built from it.
    history.catch_up().await;
    assert_eq!(diff(pool, model(NAME), 10, Show::Silent).await.expect("a diff").differences.count, 0);
    let rebuilt = history.rebuild(NAME).await.expect("it is rebuilt");
    assert_eq!((rebuilt.dead_letters, rebuilt.parity.differences.expect("compared").count), (0, 0));
    assert_eq!(uses(&history).await, 9);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_recorded_with_what_came_of_it_and_not_when_there_was_nothing_to_do() {
    let (history, _) = poisoned().await;
    let pool = &history.database.owner_pool;
    let report = retry(pool, &history.log, model(NAME), &operator(), &confirmed()).await.expect("it is tried");
    assert_eq!((report.resumed, report.streams_failing), (0, 1));
    let nothing = retry(pool, &history.log, model("tenants"), &operator(), &confirmed()).await.expect("it is tried");
    assert_eq!((nothing.resumed, nothing.streams_failing), (0, 0));
    let facts = "SELECT count(*) FROM events WHERE event_type = 'dead_letters_retried' \
                 AND payload #>> '{dead_letters_retried,projection}' = 'usage_log'";
    assert_eq!(history.number(facts).await, 1);
    assert_eq!(history.number("SELECT count(*) FROM events WHERE event_type = 'dead_letters_retried'").await, 1);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_snapshots_are_recorded_and_no_answer_changes() {
    let history = History::of(2, 1).await;
    let insert = |kind: &str| {
        format!(
            "INSERT INTO snapshots (aggregate_type, aggregate_id, partition, last_sequence, snapshot_version, payload) \
             VALUES ('{kind}', 'nobody', 0, 1, -1, '{{}}')"
        )
    };
    history.run(&insert("wallet")).await;
    history.run(&insert("tenant")).await;
    let (pool, kind) = (&history.database.owner_pool, Some("tenant".to_owned()));
    let dropped = drop_snapshots(pool, &history.log, kind, &operator(), &confirmed()).await.expect("they go");
    assert_eq!((dropped.kind.as_deref(), dropped.snapshots), (Some("tenant"), 1));
    let all = drop_snapshots(pool, &history.log, None, &operator(), &confirmed()).await;
    // The run recorded one drop of another kind already; everything at once is another subject.
    assert!(all.expect("they go").snapshots >= 1);
    assert_eq!(history.number("SELECT count(*) FROM snapshots").await, 0);
    spend(&history.log, history.tenants[0]).await;
    history.catch_up().await;
    let report = history.verify().await;
    assert!(report.passed, "{:?}", report.first());
    assert_eq!(history.number("SELECT count(*) FROM events WHERE event_type = 'snapshots_dropped'").await, 2);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_taken_by_hand_finds_a_tail_that_is_cut_off_afterwards() {
    let history = History::of(2, 2).await;
    let pool = &history.database.owner_pool;
    let anchored = anchor(pool, &history.key, history.anchors.path()).await.expect("the heads are signed");
    assert_eq!(anchored.events, history.number("SELECT sum(last_position)::bigint FROM partitions").await);
    assert!(history.verify().await.passed);
    let (partition, head) = history.longest().await;
    let cut = format!(
        "DELETE FROM events WHERE partition = {partition} AND position = {head}; \
         UPDATE partitions SET last_position = {head} - 1, head_hash = (SELECT hash FROM events \
             WHERE partition = {partition} AND position = {head} - 1) WHERE partition = {partition}"
    );
    history.tamper(&cut).await;
    assert!(!history.verify().await.passed, "the anchor tells");
    history.log.close().await;
}
