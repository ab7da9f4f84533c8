//! One process: what is acknowledged is there, once, in order, sealed.

use calos_adapters::postgres::LogOptions;
use calos_commands::log::{EventLog, Failed, IdempotencyClaim, LogError, Plan, Request};
use calos_domain::StreamId;
use calos_tests::database::TestDatabase;
use futures_util::future::join_all;

use crate::tally::{Add, LIMIT, Tally, TooMuch, add, assert_sealed, open, open_with, request, stored};

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_command_is_stored_at_the_position_it_was_told() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    let first = add(&log, "a", 1, 5).await.expect("it is taken");
    let second = add(&log, "a", 2, 7).await.expect("it is taken");
    assert_eq!((first.answer, second.answer), (5, 12));
    let partition = log.partition_of("a");
    assert_eq!(first.positions.to_string(), format!("{partition}:1"));
    assert_eq!(second.positions.to_string(), format!("{partition}:2"));
    assert_eq!(stored(&database, "a").await, (12, 2));
    assert_sealed(&database).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_on_one_stream_share_commits_and_lose_nothing() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    let calls = (0..1_000u64).map(|id| {
        let log = log.clone();
        tokio::spawn(async move { add(&log, "hot", id, 1).await })
    });
    for call in join_all(calls).await {
        call.expect("no panic").expect("it is taken");
    }
    assert_eq!(stored(&database, "hot").await, (1_000, 1_000));
    assert!(log.counters().batches.get() < 500, "{} commits", log.counters().batches.get());
    assert_sealed(&database).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_yields_nothing_and_a_refused_one_changes_nothing() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    add(&log, "a", 1, LIMIT).await.expect("it is taken");
    let again = add(&log, "a", 1, LIMIT).await.expect("it is known");
    assert_eq!(again.answer, LIMIT);
    assert_eq!(again.positions.to_string(), "");
    let refused = add(&log, "a", 2, 1).await;
    assert!(matches!(refused, Err(Failed::Refused(TooMuch))), "{refused:?}");
    assert_eq!(stored(&database, "a").await, (LIMIT, 1));
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_over_several_partitions_goes_in_whole_or_not_at_all() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    let names: Vec<String> = (0..8).map(|index| format!("part-{index}")).collect();
    add(&log, &names[7], 100, LIMIT).await.expect("it is taken");
    let mut plan = Plan::default();
    let tallies: Vec<_> = names.iter().map(|name| plan.stream::<Tally>(StreamId::key(name))).collect();
    // The last tally is full: the seven before it must not keep what was decided on them.
    let refused = log
        .execute(&plan, request(), |unit| {
            for tally in &tallies {
                unit.decide(*tally, Add { id: 1, amount: 3 })?;
            }
            Ok(())
        })
        .await;
    assert!(matches!(refused, Err(Failed::Refused(TooMuch))), "{refused:?}");
    for name in &names[..7] {
        assert_eq!(stored(&database, name).await, (0, 0));
        assert_eq!(add(&log, name, 2, 1).await.expect("it is taken").answer, 1, "{name} kept a refused decision");
    }
    let taken = log
        .execute(&plan, request(), |unit| {
            for tally in &tallies[..7] {
                unit.decide(*tally, Add { id: 3, amount: 3 })?;
            }
            Ok::<_, TooMuch>(())
        })
        .await
        .expect("it is taken");
    assert!(taken.positions.0.len() > 1, "the names share one partition: {}", taken.positions);
    for name in &names[..7] {
        assert_eq!(stored(&database, name).await, (4, 2));
    }
    assert_sealed(&database).await;
    log.close().await;
}

fn claimed(key: &str) -> Request {
    Request {
        idempotency: Some(IdempotencyClaim {
            caller: "tenant".to_owned(),
            key: key.to_owned(),
            request_hash: [7; 32],
            sealed_answer: vec![1, 2, 3],
            partition_key: "a".to_owned(),
        }),
        ..request()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_claimed_by_one_command_whoever_else_tries() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    let calls = (0..50u64).map(|id| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut plan = Plan::default();
            let tally = plan.stream::<Tally>(StreamId::key("a"));
            log.execute(&plan, claimed("one"), |unit| unit.decide(tally, Add { id, amount: 1 })).await
        })
    });
    let mut taken = 0;
    for call in join_all(calls).await {
        match call.expect("no panic") {
            Ok(_) => taken += 1,
            Err(Failed::Log(LogError::Claimed)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(taken, 1);
    assert_eq!(stored(&database, "a").await, (1, 1));
    // What was decided on top of the losers was decided again.
    assert_eq!(add(&log, "a", 1_000, 1).await.expect("it is taken").answer, 2);
    assert_sealed(&database).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_turns_callers_away_without_deciding() {
    let database = TestDatabase::create().await;
    let log = open_with(&database, LogOptions { queue_max_commands: 2, ..LogOptions::default() }).await;
    add(&log, "a", 0, 0).await.expect("it is taken");
    let calls = (1..=300u64).map(|id| {
        let log = log.clone();
        tokio::spawn(async move { add(&log, "a", id, 1).await })
    });
    let (mut taken, mut turned_away) = (0, 0);
    for call in join_all(calls).await {
        match call.expect("no panic") {
            Ok(_) => taken += 1,
            Err(Failed::Log(LogError::Overloaded)) => turned_away += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(turned_away > 0, "the bound was never met");
    assert_eq!(stored(&database, "a").await, (taken, taken + 1));
    assert_sealed(&database).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_the_same_with_its_snapshot_and_without() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    for round in 0..3u64 {
        let calls = (0..400u64).map(|id| {
            let log = log.clone();
            tokio::spawn(async move { add(&log, "a", round * 400 + id, 1).await })
        });
        for call in join_all(calls).await {
            call.expect("no panic").expect("it is taken");
        }
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    }
    add(&log, "a", 9_999, 1).await.expect("it is taken");
    log.close().await;
    let snapshots = || async {
        let row: (i64,) =
            sqlx::query_as("SELECT count(*) FROM snapshots").fetch_one(&database.pool).await.expect("it counts");
        row.0
    };
    assert_eq!(snapshots().await, 1, "no snapshot was written");
    let with = open(&database).await;
    assert_eq!(add(&with, "a", 10_000, 0).await.expect("it is taken").answer, 1_201);
    with.close().await;
    sqlx::query("DELETE FROM snapshots").execute(&database.pool).await.expect("snapshots may be deleted");
    let without = open(&database).await;
    assert_eq!(add(&without, "a", 10_001, 0).await.expect("it is taken").answer, 1_201);
    assert!(
        matches!(add(&without, "a", 9_999, 1).await, Ok(done) if done.positions.0.is_empty()),
        "an id was forgotten"
    );
    without.close().await;
}
