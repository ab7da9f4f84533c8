//! The command line's rebuild, stopped in every way a process can be: in order it says so in the log or leaves nothing behind;
//! killed it is gone on with.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use calos_tests::cluster;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};

use crate::binaries::built;
use crate::history::History;

/// Longer than anything here takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn tool(history: &History, home: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(built("calos-replay"));
    command.env_clear().current_dir(home).env("CALOS_DATA_DIR", home).env("DATABASE_URL", &history.database.url);
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the tool starts")
}

/// Makes the checkpoint of one partition, the last one that has events now, wait while a version is built. The event that says
/// a rebuild has begun may come to lie in a later one.
async fn barrier(history: &History) -> PgConnection {
    let mut holder = PgConnection::connect(&history.database.url).await.expect("a connection");
    let last = history.number("SELECT max(partition)::bigint FROM partitions WHERE last_position > 0").await;
    let statements = format!(
        "CREATE OR REPLACE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.version = 2 AND NEW.partition = {last} THEN \
         PERFORM pg_advisory_xact_lock(4711); END IF; RETURN NEW; END $$; \
         CREATE OR REPLACE TRIGGER wait_for_the_test BEFORE UPDATE ON checkpoints \
         FOR EACH ROW EXECUTE FUNCTION wait_for_the_test(); \
         SELECT pg_advisory_lock(4711)"
    );
    sqlx::raw_sql(&statements).execute(&mut holder).await.expect("the barrier stands");
    holder
}

/// Starts the tool and waits until it waits at the barrier.
async fn stuck(history: &History, home: &Path, arguments: &[&str]) -> Child {
    let child = tool(history, home, arguments);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'calos-replay%' \
                   AND wait_event_type = 'Lock' AND datname = current_database()";
    cluster::until("the rebuild is at the barrier", PATIENCE.as_secs(), async || history.number(waiting).await > 0)
        .await;
    child
}

fn ended(mut child: Child, by: Signal) -> Output {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("it is positive");
    kill_process(pid, by).expect("it runs");
    let asked = Instant::now();
    while child.try_wait().expect("it is a child").is_none() {
        assert!(asked.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("its output is read")
}

async fn facts(history: &History) -> Vec<(String, String, String)> {
    sqlx::query_as(
        "SELECT event_type, payload -> event_type ->> 'operator', payload -> event_type ->> 'reason' FROM events \
         WHERE aggregate_type = 'operation' ORDER BY recorded_at, position",
    )
    .fetch_all(&history.database.owner_pool)
    .await
    .expect("the facts are read")
}

const REBUILD: &[&str] = &[
    "rebuild",
    "wallet_balance",
    "--yes",
    "--workers",
    "1",
    "--operator",
    "ada",
    "--reason",
    "it looked wrong",
    "--json",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_stopped_from_the_keyboard_says_so_in_the_log_and_is_gone_on_with() {
    let history = History::of(24, 1).await;
    let home = tempfile::tempdir().expect("a folder");
    let gate = barrier(&history).await;
    let child = stuck(&history, home.path(), REBUILD).await;
    let output = ended(child, Signal::INT);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the same command goes on where it stopped"), "{said}");
    let fact = |name: &str| (name.to_owned(), "ada".to_owned(), "it looked wrong".to_owned());
    assert_eq!(facts(&history).await, [fact("rebuild_started"), fact("rebuild_cancelled")]);
    assert_eq!(history.number("SELECT live_version::bigint FROM projections WHERE name = 'wallet_balance'").await, 1);

    drop(gate);
    let again = tool(&history, home.path(), REBUILD).wait_with_output().expect("it runs to its end");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let report: serde_json::Value = serde_json::from_slice(&again.stdout).expect("one document");
    assert!(report["rebuilt"][0]["resumedPartitions"].as_u64() > Some(0), "{report}");
    assert_eq!(report["rebuilt"][0]["parity"]["differences"]["count"], 0, "{report}");
    let names: Vec<String> = facts(&history).await.into_iter().map(|fact| fact.0).collect();
    assert_eq!(names[2..], ["rebuild_started", "projection_rebuilt", "projection_switched"]);
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_asked_to_end_leaves_nothing_behind_and_records_nothing() {
    let history = History::of(24, 1).await;
    let home = tempfile::tempdir().expect("a folder");
    let gate = barrier(&history).await;
    let child = stuck(&history, home.path(), &["rebuild", "wallet_balance", "--dry-run", "--workers", "1"]).await;
    let output = ended(child, Signal::TERM);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    let left = "SELECT (SELECT count(*) FROM information_schema.tables WHERE table_schema = 'read_next') \
                + (SELECT count(*) FROM checkpoints WHERE version = 2) \
                + (SELECT count(*) FROM projections WHERE building_version IS NOT NULL)";
    assert_eq!((history.number(left).await, facts(&history).await), (0, Vec::new()));

    drop(gate);
    let whole = tool(&history, home.path(), &["rebuild", "wallet_balance", "--dry-run", "--json"]);
    let whole = whole.wait_with_output().expect("it runs to its end");
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let report: serde_json::Value = serde_json::from_slice(&whole.stdout).expect("one document");
    assert_eq!(report["built"][0]["parity"]["differences"]["count"], 0, "{report}");
    assert_eq!((history.number(left).await, facts(&history).await), (0, Vec::new()));
    history.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rebuild_frees_its_turn_and_its_finished_partitions_are_kept() {
    let history = History::of(24, 1).await;
    let home = tempfile::tempdir().expect("a folder");
    let gate = barrier(&history).await;
    let child = stuck(&history, home.path(), REBUILD).await;
    // Meanwhile nobody else can, and is told whom to ask.
    let refused = tool(&history, home.path(), REBUILD).wait_with_output().expect("it runs to its end");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("wallet_balance is taken: ada has been at `rebuild` since 20"), "{said}");

    assert!(!ended(child, Signal::KILL).status.success());
    drop(gate);
    let report = history.rebuild("wallet_balance").await.expect("the turn is free");
    assert!(report.resumed_partitions > 0);
    assert_eq!(report.parity.differences.expect("compared").count, 0);
    history.log.close().await;
}
