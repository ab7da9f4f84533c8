//! Backups, and what comes back of them: everything, or everything up to a moment, and nobody who was erased since.

use std::path::Path;
use std::time::Duration;

use calos_adapters::anchors::ANCHOR_FILE;
use calos_adapters::epochs::{EPOCH_FILE, Epoch, EpochFacts};
use calos_adapters::erasures::{self, Erasure};
use calos_adapters::postgres::{LogOptions, PgLog};
use calos_adapters::{anchors, epochs};
use calos_domain::{SubjectId, Timestamp};
use calos_projections::as_of::AsOf;
use calos_projections::{Runner, RunnerOptions};
use calos_replay::ToolError;
use calos_replay::backup::{BackedUp, Place as To, backup, record_backup};
use calos_replay::place::Place;
use calos_replay::progress::Show;
use calos_replay::restore::{RestoreOptions, Restored, Target, record_restore, restore};
use calos_replay::trial_balance::trial_balance;
use calos_replay::verify::VerifyReport;
use calos_replay::write_guard::{Assent, confirm};
use calos_tests::database::TestDatabase;
use ed25519_dalek::SigningKey;
use uuid::Uuid;

use crate::history::{History, now, operator, spend};
use crate::log_files::{events, is_untouched, verify_of};

pub async fn back_up(history: &History, to: To<'_>) -> Result<BackedUp, ToolError> {
    backup(&history.database.owner_pool, &history.key, to, &operator(), Show::Silent).await
}

pub async fn put_back(
    database: &TestDatabase,
    folder: &Path,
    history: &History,
    target: Target,
) -> Result<Restored, ToolError> {
    let confirmed = confirm(Assent::Given, "restore").expect("it is confirmed");
    let run = operator();
    let directory = history.anchors.path();
    let options = RestoreOptions { target, key: &history.key, directory, run: &run, show: Show::Silent };
    let restored = restore(&database.owner_pool, folder, &options, &confirmed).await?;
    let log = PgLog::open(database.pool.clone(), LogOptions::default()).await.expect("the log opens");
    record_restore(&log, &run, folder, &restored).await.expect("it is recorded");
    log.close().await;
    Ok(restored)
}

async fn number(database: &TestDatabase, query: &str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&database.owner_pool).await.expect("the query answers")
}

/// A use for every wallet.
async fn go_on(history: &History) {
    for &tenant in &history.tenants {
        spend(&history.log, tenant).await;
    }
    history.catch_up().await;
}

fn passed(report: &VerifyReport) {
    assert!(report.passed, "{:?}", report.first());
}

fn anchors_check(report: &VerifyReport) -> String {
    report.checks.iter().find(|check| check.name == "anchors").expect("there is such a check").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_its_tail_bring_everything_back() {
    let history = History::of(5, 3).await;
    history
        .run(
            "INSERT INTO keyring_keys VALUES (1, '\\x01', 7); INSERT INTO keyring VALUES \
         ('0192a5c8-0000-7000-8000-000000000001', '0192a5c8-0000-7000-8000-000000000002', 'openai', 1, '\\x02'); \
         INSERT INTO idempotency VALUES (0, 'me', 'k', decode(repeat('ab', 32), 'hex'), '0:1', '\\x03')",
        )
        .await;
    let folder = tempfile::tempdir().expect("a folder");
    let base = back_up(&history, To::New(folder.path())).await.expect("a backup");
    record_backup(&history.log, &operator(), &base).await.expect("it is recorded");
    go_on(&history).await;
    history.anchor().await;
    let tail = back_up(&history, To::Since(folder.path())).await.expect("its tail");
    assert_eq!((base.number, tail.number), (0, 1));
    // A use is three events, and the backup itself was recorded.
    assert_eq!(tail.events, 5 * 3 + 1);
    let nothing = back_up(&history, To::Since(folder.path())).await.expect("nothing more");
    assert_eq!((nothing.number, nothing.events), (2, 0));

    let database = TestDatabase::create().await;
    let restored = put_back(&database, folder.path(), &history, Target::Whole).await.expect("it is restored");
    assert_eq!((restored.events, &restored.heads), (base.events + tail.events, &tail.heads));
    assert_eq!((&restored.epoch, restored.epoch_number, restored.left_out), (&None, 0, 0));
    assert_eq!(events(&database.owner_pool).await, events(&history.database.owner_pool).await);
    for table in ["keyring", "keyring_keys", "idempotency", "anchors"] {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(number(&database, &count).await, 1, "{table}");
    }
    let now = AsOf { effective: None, recorded: None };
    let theirs = trial_balance(&history.database.pool, now, None).await.expect("a trial balance");
    assert_eq!(trial_balance(&database.pool, now, None).await.expect("a trial balance"), theirs);
    passed(&verify_of(&database, history.anchors()).await);
    assert_eq!(number(&database, "SELECT count(*) FROM events WHERE event_type = 'log_restored'").await, 1);
    // Nobody was left behind, so that no epoch begins and a cut tail is still called one.
    assert!(!history.anchors.path().join(EPOCH_FILE).exists());
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_moment_begins_an_epoch_without_which_its_anchors_call_the_tail_cut() {
    let history = History::of(4, 3).await;
    history.anchor().await;
    let until = now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    go_on(&history).await;
    history.anchor().await;
    passed(&history.verify().await);
    let folder = tempfile::tempdir().expect("a folder");
    back_up(&history, To::New(folder.path())).await.expect("a backup");

    let database = TestDatabase::create().await;
    let restored = put_back(&database, folder.path(), &history, Target::Time(until)).await.expect("it is restored");
    assert_eq!((restored.left_out, restored.epoch_number), (4 * 3, 1));
    let epoch = restored.epoch.expect("an epoch");
    epoch.verify(&history.key.verifying_key()).expect("it is signed");
    assert_eq!((epoch.by.as_str(), epoch.reason.as_str()), ("olga", "the balance looked wrong"));
    let known = AsOf { effective: None, recorded: Some(until) };
    let before = trial_balance(&history.database.pool, known, None).await.expect("a trial balance");
    let here = trial_balance(&database.pool, AsOf { effective: None, recorded: None }, None).await;
    assert_eq!(here.expect("a trial balance").lines, before.lines);

    let report = verify_of(&database, history.anchors()).await;
    passed(&report);
    assert!(anchors_check(&report).contains("heads were abandoned"), "{}", anchors_check(&report));
    // The file alone is enough, and so is the table; with neither it is a cut tail.
    let file = history.anchors.path().join(EPOCH_FILE);
    let line = std::fs::read(&file).expect("the file is read");
    std::fs::remove_file(&file).expect("it goes");
    passed(&verify_of(&database, history.anchors()).await);
    forget_epochs(&database).await;
    let report = verify_of(&database, history.anchors()).await;
    assert!(!report.passed && anchors_check(&report).contains("tail was cut"), "{}", anchors_check(&report));
    let facts = EpochFacts {
        log_id: epoch.log_id,
        epoch: 1,
        started_at: epoch.started_at,
        from: epoch.from.clone(),
        abandoned: Vec::new(),
        by: "mallory".to_owned(),
        reason: "none".to_owned(),
    };
    epochs::keep(history.anchors.path(), &Epoch::sign(&SigningKey::from_bytes(&[9; 32]), facts)).expect("it is kept");
    let report = verify_of(&database, history.anchors()).await;
    assert!(!report.passed && anchors_check(&report).contains("not signed"), "{}", anchors_check(&report));
    std::fs::write(&file, line).expect("the file is back");
    passed(&verify_of(&database, history.anchors()).await);
    what_is_cut_off_in_the_new_epoch_is_named(&database, &history).await;
    history.log.close().await;
}

/// What was anchored since an epoch began is as safe as before: the epoch excuses nothing of it.
async fn what_is_cut_off_in_the_new_epoch_is_named(database: &TestDatabase, history: &History) {
    let log = PgLog::open(database.pool.clone(), LogOptions::default()).await.expect("the log opens");
    spend(&log, history.tenants[0]).await;
    log.close().await;
    Runner::catch_up(database.pool.clone(), RunnerOptions::default()).await.expect("the projections catch up");
    let anchor = anchors::take(&database.pool, &history.key).await.expect("the heads are read");
    anchors::keep(&database.owner_pool, history.anchors.path(), &anchor).await.expect("it is kept");
    passed(&verify_of(database, history.anchors()).await);
    let (partition, head): (i32, i64) =
        sqlx::query_as("SELECT partition, max(position) FROM events WHERE aggregate_id = $1 GROUP BY partition")
            .bind(history.tenants[0].to_string())
            .fetch_one(&database.owner_pool)
            .await
            .expect("the wallet has events");
    let cut = format!(
        "ALTER TABLE events DISABLE TRIGGER ALL; \
         DELETE FROM events WHERE partition = {partition} AND position > {0}; \
         UPDATE partitions SET last_position = {0}, head_hash = e.hash, last_recorded_at = e.recorded_at FROM events e \
         WHERE partitions.partition = {partition} AND e.partition = {partition} AND e.position = {0}; \
         ALTER TABLE events ENABLE TRIGGER ALL",
        head - 2
    );
    sqlx::raw_sql(&cut).execute(&database.owner_pool).await.expect("the tail is cut");
    let report = verify_of(database, history.anchors()).await;
    assert!(anchors_check(&report).contains("tail was cut"), "{}", anchors_check(&report));
}

async fn forget_epochs(database: &TestDatabase) {
    let forget = "ALTER TABLE log_epochs DISABLE TRIGGER ALL; DELETE FROM log_epochs; \
                  ALTER TABLE log_epochs ENABLE TRIGGER ALL";
    sqlx::raw_sql(forget).execute(&database.owner_pool).await.expect("they are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_older_than_the_last_anchor_goes_on_in_an_epoch_too_and_is_backed_up_anew() {
    let history = History::of(3, 2).await;
    let folder = tempfile::tempdir().expect("a folder");
    back_up(&history, To::New(folder.path())).await.expect("a backup");
    go_on(&history).await;
    history.anchor().await;

    let database = TestDatabase::create().await;
    let restored = put_back(&database, folder.path(), &history, Target::Whole).await.expect("it is restored");
    let epoch = restored.epoch.expect("an epoch: the anchors know of more");
    assert_eq!(
        (restored.left_out, epoch.abandoned.len()),
        (0, epoch.from.iter().filter(|head| head.position > 0).count())
    );
    passed(&verify_of(&database, history.anchors()).await);
    let forked = backup(&database.owner_pool, &history.key, To::Since(folder.path()), &operator(), Show::Silent).await;
    assert_eq!(forked.expect("the log still holds the backup").events, 2);

    // A third life: the second one's backup brings the epoch along, and another one is counted on from it.
    let whole = tempfile::tempdir().expect("a folder");
    backup(&database.owner_pool, &history.key, To::New(whole.path()), &operator(), Show::Silent)
        .await
        .expect("a backup");
    std::fs::remove_file(history.anchors.path().join(EPOCH_FILE)).expect("it goes");
    let third = TestDatabase::create().await;
    let restored =
        put_back(&third, whole.path(), &history, Target::Time(epoch.started_at)).await.expect("it is restored");
    assert_eq!((restored.epoch_number, restored.left_out), (2, 2));
    assert_eq!(number(&third, "SELECT count(*) FROM log_epochs").await, 2);
    passed(&verify_of(&third, history.anchors()).await);
    let gone = backup(&third.owner_pool, &history.key, To::Since(whole.path()), &operator(), Show::Silent).await;
    assert!(matches!(gone, Err(ToolError::Refused(_))), "{gone:?}");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_position_takes_that_event_and_what_was_there_by_then() {
    let history = History::of(4, 3).await;
    let (partition, head) = history.longest().await;
    let folder = tempfile::tempdir().expect("a folder");
    back_up(&history, To::New(folder.path())).await.expect("a backup");
    let at = |position| Target::Position(Place { partition, position });

    let database = TestDatabase::create().await;
    let nowhere = put_back(&database, folder.path(), &history, at(head + 1)).await;
    assert!(matches!(nowhere, Err(ToolError::Usage(_))), "{nowhere:?}");
    let restored = put_back(&database, folder.path(), &history, at(head - 2)).await.expect("it is restored");
    assert_eq!(restored.heads[&partition], head - 2);
    let later = format!(
        "SELECT count(*) FROM events WHERE partition <> {partition} AND recorded_at > \
         (SELECT recorded_at FROM events WHERE partition = {partition} AND position = {})",
        head - 2
    );
    assert_eq!(restored.left_out, 2 + u64::try_from(history.number(&later).await).expect("a count"));
    passed(&verify_of(&database, history.anchors()).await);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_erased_since_the_backup_stays_erased() {
    let history = History::of(1, 1).await;
    let (gone, stays) = (Uuid::from_u128(1), Uuid::from_u128(2));
    history.run(&format!("INSERT INTO subject_keys VALUES ('{gone}', '\\x01', 7), ('{stays}', '\\x02', 7)")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let taken = back_up(&history, To::New(folder.path())).await.expect("a backup");
    let erasure =
        |subject, log_id| Erasure { subject: SubjectId(subject), log_id, erased_at: Timestamp::from_micros(1) };
    erasures::keep(history.anchors.path(), &erasure(gone, taken.log_id)).expect("it is kept");
    erasures::keep(history.anchors.path(), &erasure(stays, Uuid::nil())).expect("it is kept");

    let database = TestDatabase::create().await;
    let restored = put_back(&database, folder.path(), &history, Target::Whole).await.expect("it is restored");
    assert_eq!(restored.erased, 1);
    let left: Vec<Uuid> =
        sqlx::query_scalar("SELECT subject FROM subject_keys").fetch_all(&database.owner_pool).await.expect("keys");
    assert_eq!(left, [stays]);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_not_whole_or_not_ours_is_refused_and_leaves_nothing_behind() {
    let history = History::of(2, 2).await;
    let folder = tempfile::tempdir().expect("a folder");
    let taken = back_up(&history, To::New(folder.path())).await.expect("a backup");
    for _ in 0..2 {
        go_on(&history).await;
        back_up(&history, To::Since(folder.path())).await.expect("its tail");
    }
    let occupied = back_up(&history, To::New(folder.path())).await;
    assert!(matches!(occupied, Err(ToolError::Usage(_))), "{occupied:?}");
    let name = |number: u32| folder.path().join(format!("log-{number:06}.jsonl.zst"));
    let database = TestDatabase::with_partitions(5).await;
    let refused = async |what: &str| {
        let refused = put_back(&database, folder.path(), &history, Target::Whole).await.expect_err(what);
        assert!(matches!(refused, ToolError::Corrupt(_)), "{what}: {refused}");
        assert!(is_untouched(&database, taken.log_id).await, "{what}");
    };
    let aside = folder.path().join("aside");
    std::fs::rename(name(1), &aside).expect("it is moved");
    refused("a gap").await;
    std::fs::copy(name(2), name(1)).expect("it is copied");
    refused("a file twice").await;
    std::fs::rename(&aside, name(1)).expect("it is moved back");
    let bytes = std::fs::read(name(2)).expect("it is read");
    std::fs::write(name(2), &bytes[..bytes.len() - 5]).expect("it is cut");
    refused("a cut last file").await;
    std::fs::write(name(2), &bytes).expect("it is whole again");
    std::fs::write(history.anchors.path().join(erasures::ERASURE_FILE), "{}\n").expect("it is written");
    refused("a list of erasures nobody can read").await;
    std::fs::remove_file(history.anchors.path().join(erasures::ERASURE_FILE)).expect("it goes");

    let mut operator = history.database.owner_pool.acquire().await.expect("a connection");
    sqlx::query("SELECT pg_advisory_lock(hashtext('calos-replay log'), hashtext('log'))")
        .execute(&mut *operator)
        .await
        .expect("the turn is taken");
    let busy = back_up(&history, To::Since(folder.path())).await.expect_err("another operator is at it");
    assert!(matches!(busy, ToolError::Busy(_)), "{busy}");
    drop(operator);
    put_back(&database, folder.path(), &history, Target::Whole).await.expect("it is restored");
    assert!(!history.anchors.path().join(ANCHOR_FILE).exists());
    history.log.close().await;
}
