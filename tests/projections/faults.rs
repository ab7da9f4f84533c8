//! What goes wrong: gaps in the log, events that cannot be taken, tables that are gone.

use std::sync::atomic::Ordering;

use calos_projections::dead_letters::{Retried, list, retry_dead_letters};
use calos_projections::runner::CatchUpError;
use calos_projections::status::{ProjectionStatus, State, projections};
use calos_projections::{AnyProjection, Runner, RunnerOptions, checkpoint, registry};
use calos_tests::database::TestDatabase;
use sqlx::{Executor as _, PgPool};
use uuid::Uuid;

use crate::equality::assert_equal_to_a_fold_from_zero;
use crate::fussy::{FUSSY, TAKES_ALL, TURN, create_table};
use crate::histories::{Dice, Story};
use crate::raw_log::{Raw, append, tear_out};

async fn catch_up(pool: &PgPool, projections: &[&'static dyn AnyProjection]) -> Result<(), CatchUpError> {
    let options = RunnerOptions { projections: projections.to_vec(), ..RunnerOptions::default() };
    Runner::catch_up(pool.clone(), options).await
}

async fn status(pool: &PgPool, name: &str) -> ProjectionStatus {
    let all = projections(pool).await.expect("a status");
    all.into_iter().find(|projection| projection.name == name).expect("it is registered")
}

/// An event of an aggregate every read model ignores, or one that [`FUSSY`] may refuse.
fn plain(stream: &str, event_type: &str) -> Raw {
    Raw {
        kind: "operation",
        stream: stream.to_owned(),
        event_type: event_type.to_owned(),
        event_version: "1".to_owned(),
        payload: "{}".to_owned(),
    }
}

async fn fussy_rows(pool: &PgPool, stream: &str) -> Vec<i64> {
    let rows = sqlx::query_scalar("SELECT sequence FROM read.fussy WHERE stream = $1 ORDER BY sequence");
    rows.bind(stream).fetch_all(pool).await.expect("the rows")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_halts_its_partition_loudly_and_no_other() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    create_table(&database.owner_pool).await;
    let mut positions = Vec::new();
    for _ in 0..6 {
        positions.push(append(pool, &plain("torn", "x")).await);
    }
    let (partition, torn) = positions[3];
    let mut whole = 0;
    while append(pool, &plain(&format!("whole-{whole}"), "x")).await.0 == partition {
        whole += 1;
    }
    tear_out(&database, partition, torn).await;
    catch_up(pool, &[FUSSY]).await.expect("the others go on");

    let halted = status(pool, "fussy").await;
    assert_eq!(halted.state, State::Halted);
    for at in &halted.partitions {
        if at.partition == partition {
            assert_eq!(at.position, torn - 1, "everything before the gap is taken");
            let text = at.halted.as_deref().expect("it is halted");
            assert!(text.contains(&format!("position {torn} is missing")), "{text}");
        } else {
            assert_eq!((at.lag_events, &at.halted), (0, &None));
        }
    }
    assert_eq!(fussy_rows(pool, "torn").await, [1, 2, 3]);
    assert_eq!(fussy_rows(pool, &format!("whole-{whole}")).await, [1]);

    assert!(checkpoint::clear_halt(pool, "fussy", partition).await.expect("it is cleared"));
    catch_up(pool, &[FUSSY]).await.expect("the others go on");
    assert_eq!(status(pool, "fussy").await.state, State::Halted, "what was missing is still missing");
    assert_eq!(fussy_rows(pool, "torn").await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_is_missing_below_the_head_halts_too() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    create_table(&database.owner_pool).await;
    for _ in 0..3 {
        append(pool, &plain("torn", "x")).await;
    }
    let (partition, last) = append(pool, &plain("torn", "x")).await;
    tear_out(&database, partition, last).await;
    catch_up(pool, &[FUSSY]).await.expect("the others go on");
    let halted = status(pool, "fussy").await;
    let at = halted.partitions.iter().find(|at| at.partition == partition).expect("the partition");
    assert_eq!(at.position, last - 1);
    assert!(at.halted.as_deref().is_some_and(|text| text.contains("the head is at")), "{:?}", at.halted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_event_is_set_aside_with_its_stream_and_a_retry_resumes_them_in_order() {
    let _turn = TURN.lock().await;
    TAKES_ALL.store(false, Ordering::SeqCst);
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    create_table(&database.owner_pool).await;
    for number in 0..10 {
        append(pool, &plain("sick", if number == 4 { "poison" } else { "x" })).await;
        append(pool, &plain("well", "x")).await;
    }
    catch_up(pool, &[FUSSY]).await.expect("it goes on");
    append(pool, &plain("sick", "x")).await;
    catch_up(pool, &[FUSSY]).await.expect("it goes on");

    assert_eq!(fussy_rows(pool, "sick").await, [1, 2, 3, 4]);
    assert_eq!(fussy_rows(pool, "well").await, (1..=10).collect::<Vec<_>>());
    let letters = list(pool, "fussy", 100).await.expect("the letters");
    assert_eq!(
        letters.iter().map(|letter| letter.parked).collect::<Vec<_>>(),
        [false, true, true, true, true, true, true]
    );
    assert!(letters[0].error.contains("it is poisoned"), "{}", letters[0].error);
    assert!(letters.iter().all(|letter| letter.aggregate_id == "sick"));
    let behind = status(pool, "fussy").await;
    assert_eq!((behind.dead_letters, behind.lag_events(), behind.state), (7, 0, State::Live));

    let again = retry_dead_letters(pool, FUSSY).await.expect("a retry");
    assert_eq!(again, Retried { resumed: 0, streams_failing: 1 });
    assert_eq!(list(pool, "fussy", 100).await.expect("the letters").len(), 7, "nothing was taken, nothing was lost");

    TAKES_ALL.store(true, Ordering::SeqCst);
    let healed = retry_dead_letters(pool, FUSSY).await.expect("a retry");
    assert_eq!(healed, Retried { resumed: 7, streams_failing: 0 });
    assert_eq!(fussy_rows(pool, "sick").await, (1..=11).collect::<Vec<_>>());
    assert_eq!(status(pool, "fussy").await.dead_letters, 0);
    append(pool, &plain("sick", "x")).await;
    catch_up(pool, &[FUSSY]).await.expect("it goes on");
    assert_eq!(fussy_rows(pool, "sick").await.len(), 12, "later events no longer wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_row_the_database_refuses_is_found_among_hundreds() {
    let _turn = TURN.lock().await;
    TAKES_ALL.store(false, Ordering::SeqCst);
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    create_table(&database.owner_pool).await;
    for number in 0..300 {
        let bitter = number == 17 || number == 218;
        append(pool, &plain(&format!("s{}", number % 23), if bitter { "bitter" } else { "x" })).await;
    }
    catch_up(pool, &[FUSSY]).await.expect("it goes on");
    let letters = list(pool, "fussy", 1_000).await.expect("the letters");
    let failed: Vec<_> =
        letters.iter().filter(|letter| !letter.parked).map(|letter| letter.aggregate_id.as_str()).collect();
    assert_eq!(failed.len(), 2, "{letters:?}");
    assert!(failed.contains(&"s17") && failed.contains(&format!("s{}", 218 % 23).as_str()), "{failed:?}");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM read.fussy").fetch_one(pool).await.expect("a count");
    assert_eq!(rows + letters.len() as i64, 300, "every event is in the table or set aside");
    assert_eq!(status(pool, "fussy").await.lag_events(), 0);

    TAKES_ALL.store(true, Ordering::SeqCst);
    retry_dead_letters(pool, FUSSY).await.expect("a retry");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM read.fussy").fetch_one(pool).await.expect("a count");
    assert_eq!(rows, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_nobody_knows_and_a_payload_that_lies_are_set_aside_by_those_who_read_them() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let mut dice = Dice::new(9);
    let mut events = Vec::new();
    let mut story = Story::begin(&mut dice, &mut events);
    for _ in 0..60 {
        story.go_on(&mut dice, &mut events);
    }
    let wallet = |event_type: &str, payload: &str| Raw {
        kind: "wallet",
        stream: Uuid::from_u128(7).to_string(),
        event_type: event_type.to_owned(),
        event_version: "1".to_owned(),
        payload: payload.to_owned(),
    };
    append(pool, &wallet("hold_placed", r#"{"hold_placed":{"amount":"much"}}"#)).await;
    append(pool, &wallet("hold_forgotten", r#"{"hold_forgotten":{}}"#)).await;
    for event in &events {
        append(pool, event).await;
    }
    catch_up(pool, registry::ALL).await.expect("they go on");
    for (name, expected) in [
        ("wallet_balance", 2),
        ("rate_limit_windows", 2),
        ("open_holds", 2),
        // These two do not read holds, so the lie is none of their business; the unknown event is.
        ("wallet_ledger", 1),
        ("usage_log", 1),
        ("tenants", 0),
        ("accounts", 0),
    ] {
        let status = status(pool, name).await;
        assert_eq!((status.dead_letters, status.lag_events()), (expected, 0), "{name}");
    }
    let granted: i64 = sqlx::query_scalar("SELECT count(*) FROM read.wallet_balance WHERE tenant_id = $1")
        .bind(story.tenant.0)
        .fetch_one(pool)
        .await
        .expect("a count");
    assert!(granted > 0, "other wallets are not held up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_without_its_table_holds_up_nobody_and_catches_up_once_it_has_one() {
    let database = TestDatabase::create().await;
    let pool = &database.pool;
    let mut dice = Dice::new(21);
    let mut events = Vec::new();
    let mut story = Story::begin(&mut dice, &mut events);
    for _ in 0..80 {
        story.go_on(&mut dice, &mut events);
    }
    database.owner_pool.execute("ALTER TABLE read.wallet_ledger RENAME TO elsewhere").await.expect("it is renamed");
    for event in &events {
        append(pool, event).await;
    }
    let failed = catch_up(pool, registry::ALL).await;
    assert!(matches!(failed, Err(CatchUpError::Store { projection: "wallet_ledger", .. })), "{failed:?}");
    assert_eq!(status(pool, "wallet_balance").await.lag_events(), 0);
    let behind = status(pool, "wallet_ledger").await;
    assert_eq!((behind.lag_events(), behind.dead_letters), (events.len() as i64, 0), "no event is to blame");

    database.owner_pool.execute("ALTER TABLE read.elsewhere RENAME TO wallet_ledger").await.expect("it is renamed");
    catch_up(pool, registry::ALL).await.expect("all catch up");
    assert_equal_to_a_fold_from_zero(&database).await;
}
