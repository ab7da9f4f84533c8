//! Several processes and broken connections: nothing is lost, nothing is doubled, nothing stale is trusted.

use std::time::{Duration, Instant};

use calos_adapters::postgres::{ChangedStream, PgLog};
use calos_commands::log::{EventLog, Failed, LogError, Plan};
use calos_domain::StreamId;
use calos_tests::database::TestDatabase;
use futures_util::future::join_all;

use crate::tally::{Add, Tally, TooMuch, add, assert_sealed, open, request, stored};

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_take_turns_see_each_others_events() {
    let database = TestDatabase::create().await;
    let (left, right) = (open(&database).await, open(&database).await);
    for turn in 0..20u64 {
        let log = if turn % 2 == 0 { &left } else { &right };
        let total = add(log, "a", turn, 1).await.expect("it is taken").answer;
        assert_eq!(u64::try_from(total), Ok(turn + 1));
    }
    assert_eq!(stored(&database, "a").await, (20, 20));
    assert_sealed(&database).await;
    left.close().await;
    right.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_at_once_on_one_stream_lose_and_double_nothing() {
    let database = TestDatabase::create().await;
    let (left, right) = (open(&database).await, open(&database).await);
    let calls = (0..600u64).map(|index| {
        let log = if index % 2 == 0 { left.clone() } else { right.clone() };
        // Each id is sent twice, once through each process.
        tokio::spawn(async move { add(&log, "a", index / 2, 1).await })
    });
    for call in join_all(calls).await {
        call.expect("no panic").expect("it is taken");
    }
    assert_eq!(stored(&database, "a").await, (300, 300));
    assert_sealed(&database).await;
    left.close().await;
    right.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_only_read_another_stream_is_made_again_when_that_stream_moved() {
    let database = TestDatabase::create().await;
    let (left, right) = (open(&database).await, open(&database).await);
    // Both streams share the key, so they share the partition: as a key and a wallet do.
    let mut plan = Plan::default();
    let gate = plan.stream::<Tally>(StreamId::under("t", "gate"));
    let wallet = plan.stream::<Tally>(StreamId::under("t", "wallet"));
    let attempt = |id: u64| {
        let (left, plan) = (left.clone(), &plan);
        async move {
            left.execute(plan, request(), |unit| {
                if unit.with(gate, |gate| gate.total) > 0 {
                    return Err(TooMuch);
                }
                unit.decide(wallet, Add { id, amount: 1 }).map(drop)
            })
            .await
        }
    };
    attempt(1).await.expect("the gate is open");
    // The other process shuts the gate; this one still has it open in memory.
    add(&right, "t/gate", 1, 1).await.expect("it is taken");
    let refused = attempt(2).await;
    assert!(matches!(refused, Err(Failed::Refused(TooMuch))), "{refused:?}");
    assert_eq!(stored(&database, "t/wallet").await, (1, 1));
    left.close().await;
    right.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_is_stale_in_one_partition_leaves_nothing_behind_in_the_others() {
    let database = TestDatabase::create().await;
    let (left, right) = (open(&database).await, open(&database).await);
    let names: Vec<String> = (0..6).map(|index| format!("part-{index}")).collect();
    for name in &names {
        add(&left, name, 0, 1).await.expect("it is taken");
    }
    let mut plan = Plan::default();
    let tallies: Vec<_> = names.iter().map(|name| plan.stream::<Tally>(StreamId::key(name))).collect();
    for id in 1..=30u64 {
        // The other process has just moved one of the partitions the unit is about to write.
        let moved = &names[usize::try_from(id).expect("small") % names.len()];
        add(&right, moved, 1_000 + id, 1).await.expect("it is taken");
        left.execute(&plan, request(), |unit| {
            for tally in &tallies {
                unit.decide(*tally, Add { id, amount: 1 })?;
            }
            Ok::<_, TooMuch>(())
        })
        .await
        .expect("it is taken");
    }
    assert!(left.counters().redecided.get() > 10, "the processes were never in each other's way");
    // 30 units over all six, 30 single additions: every one of them stored, none of them twice.
    let mut total = 0;
    for name in &names {
        let (sum, count) = stored(&database, name).await;
        assert_eq!(sum, count, "{name}");
        total += sum;
    }
    assert_eq!(total, 6 + 30 * 6 + 30);
    assert_sealed(&database).await;
    left.close().await;
    right.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_wrote_is_announced_within_a_second() {
    let database = TestDatabase::create().await;
    let (left, right) = (open(&database).await, open(&database).await);
    let mut changes = left.foreign_changes();
    let mut heads = left.heads();
    let began = Instant::now();
    add(&right, "a", 1, 1).await.expect("it is taken");
    let change = tokio::time::timeout(Duration::from_secs(1), changes.recv()).await.expect("in time").expect("open");
    assert_eq!(change, ChangedStream::Stream { kind: "tally".to_owned(), id: "a".to_owned() });
    let partition = usize::try_from(left.partition_of("a")).expect("not negative");
    heads.wait_for(|heads| heads[partition] == 1).await.expect("open");
    assert!(began.elapsed() < Duration::from_secs(1));
    left.close().await;
    right.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_connection_is_cut_finds_out_what_became_of_its_commits() {
    let database = TestDatabase::create().await;
    let log = open(&database).await;
    add(&log, "a", 0, 0).await.expect("it is taken");
    let cutter = tokio::spawn({
        let owner = database.owner_pool.clone();
        async move {
            for _ in 0..40 {
                sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                .execute(&owner)
                .await
                .ok();
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        }
    });
    let calls = (0..64u64).map(|caller| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut taken = 0;
            for turn in 0..60u64 {
                let id = 1 + caller * 1_000 + turn;
                loop {
                    match add(&log, "a", id, 1).await {
                        Ok(_) => break,
                        Err(Failed::Log(LogError::Unavailable(_) | LogError::Unresolved)) => {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                taken += 1;
            }
            taken
        })
    });
    let taken: i64 = join_all(calls).await.into_iter().map(|call| call.expect("no panic")).sum();
    cutter.await.expect("no panic");
    assert_eq!(stored(&database, "a").await, (taken, taken + 1));
    assert_sealed(&database).await;
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_stale_elsewhere_does_not_hide_what_is_still_to_be_written() {
    let database = TestDatabase::create().await;
    let (left, right) = (open(&database).await, open(&database).await);
    let names: Vec<String> = (0..40).map(|index| format!("part-{index}")).collect();
    let written = names.iter().find(|name| left.partition_of(name) == 0).expect("a stream in partition 0");
    let beside = names.iter().rfind(|name| left.partition_of(name) == 0 && *name != written).expect("another");
    let read = names.iter().find(|name| left.partition_of(name) == 1).expect("a stream in partition 1");
    for name in [written, beside, read] {
        add(&left, name, 0, 1).await.expect("it is taken");
    }
    let mut plan = Plan::default();
    let here = plan.stream::<Tally>(StreamId::key(written));
    let there = plan.stream::<Tally>(StreamId::key(read));
    let looking = |log: PgLog, plan: std::sync::Arc<Plan<PgLog>>| {
        tokio::spawn(async move {
            let done = log.execute(&plan, request(), |unit| {
                unit.with(here, |_| ());
                unit.with(there, |_| ());
                Ok::<_, TooMuch>(())
            });
            done.await.map(drop)
        })
    };
    let plan = std::sync::Arc::new(plan);
    for id in 1..=60u64 {
        // The other process moves both partitions; this one writes one of them beside readers of both.
        add(&right, read, 1_000 + id, 1).await.expect("it is taken");
        let writers = (0..4u64).map(|part| {
            let (left, written) = (left.clone(), written.clone());
            tokio::spawn(async move { add(&left, &written, id * 10 + part, 1).await.map(drop) })
        });
        let readers = (0..4).map(|_| looking(left.clone(), std::sync::Arc::clone(&plan)));
        let calls: Vec<_> = writers.zip(readers).flat_map(|(writer, reader)| [writer, reader]).collect();
        add(&right, beside, 1_000 + id, 1).await.expect("it is taken");
        for call in join_all(calls).await {
            call.expect("no panic").expect("it is taken");
        }
    }
    assert_eq!(stored(&database, written).await, (1 + 240, 1 + 240));
    assert_sealed(&database).await;
    left.close().await;
    right.close().await;
}
