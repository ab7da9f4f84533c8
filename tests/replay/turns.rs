//! Two operators cannot collide: the second is told who the first is, and a turn ends with whoever had it.

use std::time::{Duration, Instant};

use calos_domain::operation::RunBy;
use calos_replay::dead_letters::retry;
use calos_replay::operation::run_by;
use calos_replay::snapshots::drop_snapshots;
use calos_replay::turn::{Busy, Deed, Holder, Part, Reach, Turn};
use calos_replay::write_guard::{Assent, confirm};
use calos_replay::{APPLICATION_NAME, ToolError};

use crate::history::{History, model, now, operator};

fn ada() -> RunBy {
    run_by(Some("ada".to_owned()), Some("a drill".to_owned()))
}

/// Who is in the way, from a refusal.
fn holder<T: std::fmt::Debug>(refused: Result<T, ToolError>, wanted: &str) -> Holder {
    match refused {
        Err(ToolError::Busy(busy)) => {
            let Busy { wanted: found, holder } = *busy;
            assert_eq!(found, wanted);
            holder.expect("it is known who")
        }
        other => panic!("expected a refusal: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_a_read_model_taken_is_told_by_whom_and_since_when() {
    let history = History::of(2, 1).await;
    let pool = &history.database.owner_pool;
    let before = now();
    let models = [model("wallet_balance"), model("usage_log")];
    let turn = Turn::take(pool, Deed::Rebuild, &ada(), Reach::Models(&models)).await.expect("it is free");

    let found = holder(history.rebuild("wallet_balance").await, "wallet_balance");
    assert_eq!((found.operator.as_str(), found.deed.as_str()), ("ada", "rebuild"));
    let since = found.since.micros() - before.micros();
    assert!((-2_000_000..10_000_000).contains(&since), "{since} microseconds after it was taken");
    let confirmed = confirm(Assent::Given, "retry").expect("it is confirmed");
    let retried = retry(pool, &history.log, model("usage_log"), &operator(), &confirmed).await;
    assert_eq!(holder(retried, "usage_log").operator, "ada");
    history.rebuild("wallet_ledger").await.expect("another one is free");

    turn.end().await.expect("it is given back");
    history.rebuild("wallet_balance").await.expect("it is free");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_the_log_alone_waits_for_everybody_and_everybody_waits_for_it() {
    let history = History::of(1, 1).await;
    let pool = &history.database.owner_pool;
    let confirmed = confirm(Assent::Given, "drop").expect("it is confirmed");
    let dropped = async || drop_snapshots(pool, &history.log, None, &operator(), &confirmed).await;

    let backup = Turn::take(pool, Deed::Backup, &ada(), Reach::Part(Part::Backups)).await.expect("it is free");
    let refused = Turn::take(pool, Deed::Restore, &operator(), Reach::WholeLog).await;
    let found = holder(refused, "the log");
    assert_eq!((found.operator.as_str(), found.deed.as_str()), ("ada", "backup"));
    let second = Turn::take(pool, Deed::Backup, &operator(), Reach::Part(Part::Backups)).await;
    assert_eq!(holder(second, "the backups").operator, "ada");
    dropped().await.expect("snapshots are nothing to a backup");
    backup.end().await.expect("it is given back");

    let erasing = Turn::take(pool, Deed::Erase, &ada(), Reach::WholeLog).await.expect("it is free");
    assert_eq!(holder(dropped().await, "the log").deed, "erase");
    assert_eq!(holder(history.rebuild("usage_log").await, "the log").operator, "ada");
    erasing.end().await.expect("it is given back");
    dropped().await.expect("it is free");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_turn_of_an_operator_who_was_killed_is_free_and_nothing_is_left_of_it() {
    let history = History::of(1, 1).await;
    let pool = &history.database.owner_pool;
    let models = [model("wallet_balance")];
    let turn = Turn::take(pool, Deed::Rebuild, &ada(), Reach::Models(&models)).await.expect("it is free");
    let killed = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
                  WHERE application_name = $1 AND datname = current_database()";
    let killed: i64 = sqlx::query_scalar(killed)
        .bind(format!("{APPLICATION_NAME} rebuild ada"))
        .fetch_one(pool)
        .await
        .expect("the backend is named");
    assert_eq!(killed, 1);
    let asked = Instant::now();
    Turn::take(pool, Deed::Rebuild, &operator(), Reach::WholeLog).await.expect("nothing is held").end().await.ok();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert!(turn.end().await.is_err(), "it had ended before");

    // Dropped without a word, as when a future is cancelled.
    drop(Turn::take(pool, Deed::Rebuild, &ada(), Reach::Models(&models)).await.expect("it is free"));
    history.rebuild("wallet_balance").await.expect("it is free");
    history.log.close().await;
}
