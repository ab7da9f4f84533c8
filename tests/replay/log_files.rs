//! The log as a file: what goes out comes back byte for byte, and what was changed on the way is refused.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use calos_adapters::erasures::{self, Erasure};
use calos_adapters::postgres::{LogOptions, PgLog};
use calos_adapters::receipt::Receipt;
use calos_domain::{SubjectId, Timestamp};
use calos_projections::as_of::AsOf;
use calos_projections::registry;
use calos_replay::export_log::{LogExport, LogExported, export_log};
use calos_replay::import_log::{Imported, import_log, record_import};
use calos_replay::log_file::LogFormat;
use calos_replay::progress::Show;
use calos_replay::trial_balance::trial_balance;
use calos_replay::verify::{Anchors, VerifyOptions, VerifyReport, verify};
use calos_replay::write_guard::{Assent, confirm};
use calos_replay::{APPLICATION_NAME, ToolError};
use calos_tests::cluster;
use calos_tests::database::TestDatabase;
use ed25519_dalek::SigningKey;
use sqlx::PgPool;
use uuid::Uuid;

use crate::history::{History, now, operator};

const NOW: AsOf = AsOf { effective: None, recorded: None };

const JSONL: LogExport = LogExport { format: LogFormat::Jsonl, keys: false, force: false, show: Show::Silent };

async fn export(history: &History, file: &Path, export: LogExport) -> Result<LogExported, ToolError> {
    export_log(&history.database.owner_pool, &history.key, file, export).await
}

async fn import(database: &TestDatabase, file: &Path, history: &History) -> Result<Imported, ToolError> {
    let confirmed = confirm(Assent::Given, "import").expect("it is confirmed");
    let key = Some(history.key.verifying_key());
    import_log(&database.owner_pool, file, history.anchors.path(), key, &operator(), Show::Silent, &confirmed).await
}

/// Every column of every event that is no operation, as text, in order.
pub async fn events(pool: &PgPool) -> Vec<String> {
    let rows = sqlx::query_scalar(
        "SELECT concat_ws('|', partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, \
         payload::text, metadata::text, extract(epoch FROM recorded_at)::text, encode(hash, 'hex')) FROM events \
         WHERE aggregate_type <> 'operation' ORDER BY partition, position",
    );
    rows.fetch_all(pool).await.expect("the events are read")
}

/// Verifies everything of a database, with somebody's anchors.
pub async fn verify_of(database: &TestDatabase, anchors: Anchors) -> VerifyReport {
    let options =
        VerifyOptions { chain_only: false, anchors: Some(anchors), models: registry::ALL, show: Show::Silent };
    verify(&database.owner_pool, &options).await.expect("the verification ends")
}

/// Whether a database is as it was made: no events, no name of another log, heads at the beginning.
pub async fn is_untouched(database: &TestDatabase, log_id: uuid::Uuid) -> bool {
    let statement = "SELECT (SELECT count(*) FROM events) = 0 AND (SELECT max(last_position) FROM partitions) = 0 \
                     AND (SELECT log_id FROM log) <> $1 AND (SELECT count(*) FROM subject_keys) = 0";
    sqlx::query_scalar(statement).bind(log_id).fetch_one(&database.owner_pool).await.expect("it is read")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_goes_out_and_comes_back_is_the_same_log() {
    let history = History::of(6, 4).await;
    history.anchor().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (lines, columns) = (folder.path().join("log.jsonl.zst"), folder.path().join("log.parquet"));
    let exported = export(&history, &lines, JSONL).await.expect("it is exported");
    let parquet = LogExport { format: LogFormat::Parquet, ..JSONL };
    assert_eq!(export(&history, &columns, parquet).await.expect("it is exported"), exported);

    for (file, partitions) in [(lines, 16), (columns, 3)] {
        let database = TestDatabase::with_partitions(partitions).await;
        let imported = import(&database, &file, &history).await.expect("it is imported");
        assert_eq!((imported.log_id, &imported.heads), (exported.log_id, &exported.heads));
        assert_eq!((imported.events, imported.keys), (exported.events, false));
        assert_eq!(events(&database.owner_pool).await, events(&history.database.owner_pool).await);
        let theirs = trial_balance(&history.database.pool, NOW, None).await.expect("a trial balance");
        assert_eq!(trial_balance(&database.pool, NOW, None).await.expect("a trial balance"), theirs);
        assert!(theirs.lines.len() > 3, "{theirs:?}");

        let (partition, head) = history.longest().await;
        for position in 1..=head {
            let original = Receipt::issue(&history.database.pool, &history.key, partition, position).await;
            let copy = Receipt::issue(&database.pool, &history.key, partition, position).await;
            let text = |receipt: Receipt| serde_json::to_string(&receipt).expect("it is written");
            assert_eq!(copy.map(text).expect("a receipt"), original.map(text).expect("a receipt"));
        }

        let log = PgLog::open(database.pool.clone(), LogOptions::default()).await.expect("the log opens");
        record_import(&log, &operator(), &file, &imported, now()).await.expect("it is recorded");
        log.close().await;
        let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'log_imported'")
            .fetch_one(&database.owner_pool)
            .await
            .expect("the events are read");
        assert_eq!(recorded, 1);
        let report = verify_of(&database, history.anchors()).await;
        assert!(report.passed, "{:?}", report.first());
        let again = import(&database, &file, &history).await.expect_err("it is not empty any more");
        assert!(matches!(again, ToolError::Refused(_)), "{again}");
    }
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_only_with_an_export_that_asks_for_them() {
    let history = History::of(1, 1).await;
    history.run("INSERT INTO subject_keys VALUES ('0192a5c8-0000-7000-8000-000000000001', '\\x0102', 7)").await;
    let folder = tempfile::tempdir().expect("a folder");
    let (bare, whole) = (folder.path().join("bare"), folder.path().join("whole"));
    export(&history, &bare, JSONL).await.expect("it is exported");
    export(&history, &whole, LogExport { keys: true, ..JSONL }).await.expect("it is exported");
    let mode = std::fs::metadata(&whole).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "keys are for their owner alone");
    assert!(!text_of(&bare).contains("wrapped_key") && text_of(&whole).contains("wrapped_key"));
    let parquet = LogExport { format: LogFormat::Parquet, keys: true, ..JSONL };
    let refused = export(&history, &folder.path().join("never"), parquet).await.expect_err("it takes no keys");
    assert!(matches!(refused, ToolError::Usage(_)), "{refused}");
    let there = export(&history, &bare, JSONL).await.expect_err("the file is there");
    assert!(matches!(there, ToolError::Usage(_)), "{there}");

    let database = TestDatabase::create().await;
    assert!(import(&database, &whole, &history).await.expect("it is imported").keys);
    let kept =
        "SELECT concat_ws('|', subject, encode(wrapped_key, 'hex'), master_version, created_at) FROM subject_keys";
    let read = |pool: PgPool| async move {
        let text: String = sqlx::query_scalar(kept).fetch_one(&pool).await.expect("there is one key");
        text
    };
    assert_eq!(read(database.owner_pool.clone()).await, read(history.database.owner_pool.clone()).await);
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is listed").count(), 2, "no part is left behind");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_whoever_was_erased_since_do_not_come_back_with_an_import() {
    let history = History::of(1, 1).await;
    let (gone, stays) = (Uuid::from_u128(1), Uuid::from_u128(2));
    history.run(&format!("INSERT INTO subject_keys VALUES ('{gone}', '\\x01', 7), ('{stays}', '\\x02', 7)")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("log");
    let exported = export(&history, &file, LogExport { keys: true, ..JSONL }).await.expect("it is exported");
    let erased_at = Timestamp::from_micros(1);
    let erasure = Erasure { subject: SubjectId(gone), log_id: exported.log_id, erased_at };
    erasures::keep(history.anchors.path(), &erasure).expect("it is kept");

    let database = TestDatabase::create().await;
    assert_eq!(import(&database, &file, &history).await.expect("it is imported").erased, 1);
    let left: Vec<Uuid> =
        sqlx::query_scalar("SELECT subject FROM subject_keys").fetch_all(&database.owner_pool).await.expect("keys");
    assert_eq!(left, [stays]);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_changed_or_cut_is_refused_and_leaves_nothing_behind() {
    let history = History::of(3, 2).await;
    history.run("INSERT INTO subject_keys VALUES ('0192a5c8-0000-7000-8000-000000000001', '\\x0102', 7)").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("log");
    let exported = export(&history, &file, LogExport { keys: true, ..JSONL }).await.expect("it is exported");
    let (bytes, text) = (std::fs::read(&file).expect("it is read"), text_of(&file));
    let lines: Vec<&str> = text.lines().collect();
    let event = lines.iter().position(|line| line.contains("credits_deducted")).expect("there is a deduction");
    let without = |index: usize| [&lines[..index], &lines[index + 1..]].concat().join("\n") + "\n";
    let with = |index: usize, line: &str| [&lines[..index], &[line], &lines[index + 1..]].concat().join("\n") + "\n";
    let swapped = [&lines[..event], &[lines[event + 1], lines[event]], &lines[event + 2..]].concat().join("\n") + "\n";
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 0x10;
    let richer = lines[event].replacen("\\\"amount\\\":1500", "\\\"amount\\\":1501", 1);
    assert_ne!(richer, lines[event]);
    let key = lines.iter().position(|line| line.contains("wrapped_key")).expect("there is a key");

    let changed: Vec<(&str, Vec<u8>)> = vec![
        ("a flipped bit", flipped),
        ("a file cut short", bytes[..bytes.len() - 9].to_vec()),
        ("bytes behind the end", [&bytes[..], b"more"].concat()),
        ("no file of this kind", b"hello, world".to_vec()),
        ("a missing event", packed(&without(event))),
        ("a missing last line", packed(&without(lines.len() - 1))),
        ("an event that says something else", packed(&with(event, &richer))),
        ("events in another order", packed(&swapped)),
        ("a missing key", packed(&without(key))),
        ("another key", packed(&with(key, &lines[key].replace("0102", "0103")))),
        ("other heads", packed(&with(0, &lines[0].replacen("\"position\":", "\"position\":1", 40)))),
        ("an event twice", packed(&with(event, &format!("{}\n{}", lines[event], lines[event])))),
        ("a line that is none", packed(&with(event, "{\"event\":"))),
    ];
    let database = TestDatabase::with_partitions(5).await;
    for (what, bytes) in changed {
        let path = folder.path().join("changed");
        std::fs::write(&path, bytes).expect("it is written");
        let refused = import(&database, &path, &history).await.expect_err(what);
        assert!(matches!(refused, ToolError::Corrupt(_)), "{what}: {refused}");
        assert!(is_untouched(&database, exported.log_id).await, "{what}");
    }
    let confirmed = confirm(Assent::Given, "import").expect("it is confirmed");
    let other = Some(SigningKey::from_bytes(&[9; 32]).verifying_key());
    let anchors = history.anchors.path();
    let refused = import_log(&database.owner_pool, &file, anchors, other, &operator(), Show::Silent, &confirmed).await;
    assert!(matches!(refused, Err(ToolError::Corrupt(_))), "{refused:?}");
    // The file as it was is taken by the same database: nothing of the others stands in its way.
    import(&database, &file, &history).await.expect("it is imported");
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_tampered_with_is_not_written_down() {
    let history = History::of(2, 2).await;
    let (partition, _) = history.longest().await;
    history
        .tamper(&format!("UPDATE events SET event_version = '7' WHERE partition = {partition} AND position = 2"))
        .await;
    let folder = tempfile::tempdir().expect("a folder");
    for format in [LogFormat::Jsonl, LogFormat::Parquet] {
        let file = folder.path().join("log");
        let refused = export(&history, &file, LogExport { format, ..JSONL }).await.expect_err("it was changed");
        let said = refused.to_string();
        assert!(matches!(refused, ToolError::Corrupt(_)) && said.contains(&format!("{partition}:2")), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is listed").count(), 0);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_whose_connection_dies_says_so_and_leaves_nothing_behind() {
    let history = History::of(3, 2).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("log");
    let exported = export(&history, &file, JSONL).await.expect("it is exported");
    let database = Arc::new(TestDatabase::with_partitions(5).await);
    let wait = "CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                PERFORM pg_sleep(60); RETURN NULL; END $$; \
                CREATE TRIGGER wait_for_the_test AFTER INSERT ON events FOR EACH STATEMENT \
                EXECUTE FUNCTION wait_for_the_test()";
    sqlx::raw_sql(wait).execute(&database.owner_pool).await.expect("the barrier stands");
    let importing = {
        let (database, file) = (Arc::clone(&database), file.clone());
        let (key, anchors) = (history.key.verifying_key(), history.anchors.path().to_owned());
        tokio::spawn(async move {
            let confirmed = confirm(Assent::Given, "import").expect("it is confirmed");
            import_log(&database.owner_pool, &file, &anchors, Some(key), &operator(), Show::Silent, &confirmed).await
        })
    };
    kill_the_sleeper(&database).await;
    let ended = importing.await.expect("it ends").expect_err("its connection died");
    assert!(matches!(ended, ToolError::Database(_) | ToolError::Load(_)), "{ended}");
    assert!(is_untouched(&database, exported.log_id).await);
    sqlx::raw_sql("DROP TRIGGER wait_for_the_test ON events").execute(&database.owner_pool).await.expect("it goes");
    import(&database, &file, &history).await.expect("it is imported after all");
    history.log.close().await;
}

/// Ends the backend of the tools that sleeps in a trigger.
async fn kill_the_sleeper(database: &TestDatabase) {
    let statement = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
                     WHERE application_name LIKE $1 || '%' AND wait_event = 'PgSleep' AND datname = current_database()";
    cluster::until("somebody sleeps, and is killed", 30, async || {
        let killed: i64 = sqlx::query_scalar(statement)
            .bind(APPLICATION_NAME)
            .fetch_one(&database.owner_pool)
            .await
            .expect("the activity is read");
        killed > 0
    })
    .await;
}

fn text_of(file: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(file).expect("it opens");
    zstd::Decoder::new(file).expect("it is zstd").read_to_string(&mut text).expect("it is text");
    text
}

fn packed(text: &str) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.write_all(text.as_bytes()).expect("it is written");
    encoder.finish().expect("it ends")
}
