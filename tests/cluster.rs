//! The embedded PostgreSQL and the tests' own databases, with real processes and real kills.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use calos_adapters::config::{Config, Vars};
use calos_adapters::database::Database;
use calos_adapters::embedded::{Cluster, ClusterOptions};
use calos_adapters::postgres;
use calos_tests::cluster::{TestCluster, kill, open_folder, shared, until};
use calos_tests::database::TestDatabase;

const HOLDER_VARIABLE: &str = "CALOS_TEST_HOLD_A_LEASE_IN";

/// Another process that holds a lease until its standard input ends.
struct Holder {
    process: Child,
    postmaster: i32,
    // Kept open: the test harness of the process writes to it once more at its end.
    _output: BufReader<ChildStdout>,
}

impl Holder {
    fn spawn(data_dir: &Path) -> Child {
        Self::spawn_by(Command::new(std::env::current_exe().expect("this program")), data_dir)
    }

    /// As root in a container: without the right to look into another user's processes.
    fn spawn_as_in_a_container(data_dir: &Path) -> Child {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-all"]);
        command.arg(std::env::current_exe().expect("this program"));
        Self::spawn_by(command, data_dir)
    }

    fn spawn_by(mut command: Command, data_dir: &Path) -> Child {
        command
            .args(["--exact", "hold_a_lease_for_another_test", "--ignored", "--nocapture"])
            .env(HOLDER_VARIABLE, data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the holder starts")
    }

    fn wait_until_it_holds(mut process: Child) -> Self {
        let mut output = BufReader::new(process.stdout.take().expect("its output"));
        let postmaster = output
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("postmaster ").and_then(|(_, pid)| pid.parse().ok()))
            .expect("it says which PostgreSQL it found");
        Self { process, postmaster, _output: output }
    }

    fn leave(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().expect("it ends").success());
    }

    fn kill(mut self) {
        self.process.kill().expect("it is killed");
        self.process.wait().expect("it ends");
    }
}

#[tokio::test]
#[ignore = "a process of its own for the other tests"]
async fn hold_a_lease_for_another_test() {
    let Some(data_dir) = std::env::var_os(HOLDER_VARIABLE) else { return };
    let cluster = Cluster::join(ClusterOptions::new(data_dir)).await.unwrap();
    println!("\npostmaster {}", cluster.postmaster_pid().unwrap());
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
    cluster.leave().await.unwrap();
}

/// Whether it runs; one that is dead and not yet asked for does not.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

#[tokio::test]
async fn two_processes_that_start_at_once_share_one_postgres_and_the_last_one_stops_it() {
    let folder = open_folder();
    let children = [Holder::spawn(&folder.path().join("data")), Holder::spawn(&folder.path().join("data"))];
    let [one, other] = children.map(Holder::wait_until_it_holds);
    assert_eq!(one.postmaster, other.postmaster);
    let pid = one.postmaster;
    one.leave();
    assert!(is_alive(pid));
    other.leave();
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_killed_process_leaves_postgres_running_for_the_next_one() {
    let folder = open_folder();
    let killed = Holder::wait_until_it_holds(Holder::spawn(&folder.path().join("data")));
    let pid = killed.postmaster;
    killed.kill();
    assert!(is_alive(pid));
    let next = Holder::wait_until_it_holds(Holder::spawn(&folder.path().join("data")));
    assert_eq!(next.postmaster, pid);
    next.leave();
    assert!(!is_alive(pid), "the lease of the killed process counts no more");
}

#[tokio::test]
async fn root_without_the_right_to_look_into_other_users_processes_starts_finds_and_stops_postgres() {
    let may_drop_rights = Command::new("setpriv").args(["--bounding-set", "-sys_ptrace", "true"]).output();
    if !may_drop_rights.is_ok_and(|output| output.status.success()) {
        // Only root can, and only where there is setpriv.
        return;
    }
    let folder = open_folder();
    let data_dir = folder.path().join("data");
    let first = Holder::wait_until_it_holds(Holder::spawn_as_in_a_container(&data_dir));
    let second = Holder::wait_until_it_holds(Holder::spawn_as_in_a_container(&data_dir));
    assert_eq!(first.postmaster, second.postmaster);
    let pid = first.postmaster;
    first.kill();
    second.kill();
    // Its backends outlive it for a moment: they have to be found and ended too.
    kill(pid);
    let next = Holder::wait_until_it_holds(Holder::spawn_as_in_a_container(&data_dir));
    let pid = next.postmaster;
    assert!(is_alive(pid));
    next.leave();
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_killed_postgres_comes_back_for_every_process_that_uses_it() {
    let test = TestCluster::private().await;
    let holder = Holder::wait_until_it_holds(Holder::spawn(&test.data_dir()));
    let before = test.kill_postgres();
    assert_eq!(before, holder.postmaster);
    until("it runs again", 5, async || test.cluster.is_ready() && test.cluster.postmaster_pid() != Some(before)).await;
    postgres::connect_one(&test.cluster.url("postgres")).await.unwrap();
    holder.leave();
}

#[tokio::test]
async fn what_was_committed_survives_the_kill_of_postgres() {
    let test = TestCluster::private().await;
    let url = test.database("kept").await;
    let pool = postgres::connect_owner(&url, 2).await.unwrap();
    sqlx::raw_sql("CREATE TABLE kept (number integer)").execute(&pool).await.unwrap();
    for number in 0..20 {
        sqlx::query("INSERT INTO kept VALUES ($1)").bind(number).execute(&pool).await.unwrap();
    }
    let before = test.kill_postgres();
    let again = async || test.cluster.is_ready() && test.cluster.postmaster_pid() != Some(before);
    until("it runs again", 10, again).await;
    let count = async || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM kept").fetch_one(&pool).await;
    until("the same pool answers again", 10, async || count().await.is_ok()).await;
    assert_eq!(count().await.unwrap(), 20);
}

#[tokio::test]
async fn a_database_opens_twice_migrates_once_and_keeps_its_partitions() {
    let test = TestCluster::private().await;
    let data_dir = test.data_dir();
    let config = |extra: &[(&str, &str)]| {
        let base = [("CALOS_DATA_DIR", data_dir.to_str().unwrap())];
        Config::from_vars(&Vars::from_pairs(base.iter().chain(extra).copied())).unwrap()
    };
    let (first_config, second_config) = (config(&[("CALOS_PARTITIONS", "8")]), config(&[]));
    // At once: one migrates, the other waits. Who comes first may be the one without a wish, so it is opened after.
    // Spawned, so that the compiler sees it may move between threads.
    let first = tokio::spawn(async move { Database::open(&first_config).await }).await.unwrap().unwrap();
    let (second, third) = tokio::join!(Database::open(&second_config), Database::open(&second_config));
    let (second, third) = (second.unwrap(), third.unwrap());
    assert_eq!((first.partitions, second.partitions, third.partitions), (8, 8, 8));
    let heads: Vec<(i32, i64, Vec<u8>)> =
        sqlx::query_as("SELECT partition, last_position, head_hash FROM partitions ORDER BY partition")
            .fetch_all(&second.pool)
            .await
            .unwrap();
    assert_eq!(heads, (0..8).map(|partition| (partition, 0, vec![0; 32])).collect::<Vec<_>>());

    let refused = Database::open(&config(&[("CALOS_PARTITIONS", "16")])).await.unwrap_err().to_string();
    assert!(refused.contains("this log has 8 partitions and CALOS_PARTITIONS asks for 16"), "{refused}");
    for database in [first, second, third] {
        database.close().await.unwrap();
    }
    assert!(test.cluster.is_ready(), "the test's own lease keeps it");
}

#[tokio::test]
async fn two_migrations_at_once_of_a_new_database_both_succeed() {
    let test = TestCluster::private().await;
    sqlx::raw_sql("CREATE DATABASE fresh")
        .execute(&mut postgres::connect_one(&test.cluster.url("postgres")).await.unwrap())
        .await
        .unwrap();
    let url = test.cluster.url("fresh");
    let (one, other) = tokio::join!(postgres::migrate(&url, None), postgres::migrate(&url, None));
    assert_eq!((one.unwrap(), other.unwrap()), (16, 16));
}

#[tokio::test]
async fn the_working_pool_may_append_to_the_log_and_never_change_it() {
    let database = TestDatabase::create().await;
    let role: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(&database.pool).await.unwrap();
    assert_eq!(role, "calos_app");
    for statement in ["UPDATE events SET payload = '{}'", "DELETE FROM events", "TRUNCATE events", "CREATE TABLE x ()"]
    {
        let error = sqlx::raw_sql(statement).execute(&database.pool).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
    let timeout: String =
        sqlx::query_scalar("SELECT current_setting('statement_timeout')").fetch_one(&database.pool).await.unwrap();
    assert_eq!(timeout, "30s");
}

async fn databases(like: &str) -> i64 {
    let mut connection = postgres::connect_one(&shared().await.url("postgres")).await.expect("the cluster answers");
    sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE starts_with(datname, $1)")
        .bind(like)
        .fetch_one(&mut connection)
        .await
        .expect("the databases are counted")
}

#[tokio::test]
async fn every_test_has_a_database_of_its_own_and_it_is_gone_afterwards() {
    let one = TestDatabase::create().await;
    let other = TestDatabase::with_partitions(3).await;
    sqlx::raw_sql("CREATE TABLE mine ()").execute(&one.owner_pool).await.unwrap();
    assert!(sqlx::raw_sql("SELECT FROM mine").execute(&other.owner_pool).await.is_err());
    let heads: i64 = sqlx::query_scalar("SELECT count(*) FROM partitions").fetch_one(&other.pool).await.unwrap();
    assert_eq!(heads, 3);
    let name = one.name().to_owned();
    assert_eq!(databases(&name).await, 1);
    drop(one);
    assert_eq!(databases(&name).await, 0);
}

#[tokio::test]
async fn a_test_that_panics_leaves_no_database_behind() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let panicked = tokio::spawn(async move {
        let database = TestDatabase::create().await;
        sender.send(database.name().to_owned()).unwrap();
        panic!("on purpose");
    })
    .await;
    assert!(panicked.is_err());
    assert_eq!(databases(&receiver.recv().unwrap()).await, 0);
}

#[tokio::test]
async fn the_database_of_a_killed_test_is_swept_by_the_next_process() {
    let mut connection = postgres::connect_one(&shared().await.url("postgres")).await.unwrap();
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let name = format!("calos_test_{}_0_leftover", dead.id());
    sqlx::raw_sql(&format!("CREATE DATABASE {name}")).execute(&mut connection).await.unwrap();
    calos_tests::database::sweep(&mut connection).await;
    assert_eq!(databases(&name).await, 0);
}
