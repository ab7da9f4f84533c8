//! PostgreSQL for tests: one cluster that every test process of this checkout shares, and clusters of a single test.
//!
//! The shared one is started by the first test that needs it and stopped by a small detached script once no test has held a
//! lease for some seconds: tests run a process each, and a start and a stop per test would be most of their time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use calos_adapters::embedded::{Cluster, ClusterOptions, Durability};
use sqlx::Executor as _;
use tokio::sync::OnceCell;

const WATCHER: &str = include_str!("watcher.sh");
/// How long the shared cluster outlives its last user, in seconds.
const SHARED_IDLE_SECONDS: u32 = 12;
/// How long the cluster of a killed test outlives it, in seconds.
const PRIVATE_IDLE_SECONDS: u32 = 4;
const CLOSING_TIMEOUT: Duration = Duration::from_secs(60);

/// The cluster every test of this checkout shares. It does without `fsync`: use [`TestCluster::private`] where it matters.
///
/// # Panics
/// When there is no PostgreSQL, with the reason.
pub async fn shared() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER
        .get_or_init(|| async {
            let options = ClusterOptions {
                durability: Durability::None,
                keep_running: true,
                ..ClusterOptions::new(target_dir().join("test-cluster"))
            };
            let cluster = Cluster::join(options).await.expect("the tests' PostgreSQL starts");
            watch(&cluster, SHARED_IDLE_SECONDS, None).await;
            cluster
        })
        .await
}

/// A cluster of one test, with the settings of the product: a commit it answered survives `kill -9`.
pub struct TestCluster {
    /// The lease of the test.
    pub cluster: Cluster,
    /// Where it lives; removed with it.
    pub folder: tempfile::TempDir,
}

impl TestCluster {
    /// Makes and starts one; a second or two.
    ///
    /// # Panics
    /// When there is no PostgreSQL, with the reason.
    pub async fn private() -> Self {
        let folder = open_folder();
        let options = ClusterOptions::new(folder.path().join("data"));
        let cluster = Cluster::join(options).await.expect("a private PostgreSQL starts");
        watch(&cluster, PRIVATE_IDLE_SECONDS, Some(folder.path())).await;
        Self { cluster, folder }
    }

    /// The data folder, as another process would be given it in `CALOS_DATA_DIR`.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Kills PostgreSQL as a crash would. The supervisor starts it again within a second or two.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_postgres(&self) -> i32 {
        let pid = self.cluster.postmaster_pid().expect("PostgreSQL runs");
        kill(pid);
        pid
    }

    /// A new migrated database; its address has the owner's rights.
    ///
    /// # Panics
    /// When the name is taken or the migrations fail.
    pub async fn database(&self, name: &str) -> String {
        let mut connection =
            calos_adapters::postgres::connect_one(&self.cluster.url("postgres")).await.expect("the cluster answers");
        connection.execute(format!("CREATE DATABASE \"{name}\"").as_str()).await.expect("it is created");
        let url = self.cluster.url(name);
        calos_adapters::postgres::migrate(&url, None).await.expect("it is migrated");
        url
    }
}

/// A temporary folder that PostgreSQL's user may pass through when the tests run as root.
///
/// # Panics
/// When no temporary folder can be made.
pub fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("its mode is set");
    folder
}

/// `kill -9`.
///
/// # Panics
/// When there is no such process.
pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id is positive");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the process is there");
}

/// Waits, for `seconds` at most, until `holds`.
///
/// # Panics
/// When it does not hold in time, with `what`.
pub async fn until(what: &str, seconds: u64, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sees to it that a watcher runs that stops the cluster later, and that it is not stopping it just now. The caller holds a
/// lease already: see the script for why that order is safe.
async fn watch(cluster: &Cluster, idle_seconds: u32, temporary: Option<&Path>) {
    let folder = cluster.folder();
    let path = folder.join("watcher");
    let closing = folder.join("closing");
    let deadline = Instant::now() + CLOSING_TIMEOUT;
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).expect("the watcher's file");
        match file.try_lock() {
            Ok(()) => {
                let _ = fs::remove_file(&closing);
                cluster.ensure_running().await.expect("the tests' PostgreSQL starts");
                return spawn_watcher(file, folder, idle_seconds, temporary);
            }
            Err(TryLockError::WouldBlock) if !closing.exists() => return,
            Err(TryLockError::WouldBlock) => {
                assert!(Instant::now() < deadline, "the tests' PostgreSQL has been stopping for too long");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(TryLockError::Error(error)) => panic!("the watcher's file cannot be locked: {error}"),
        }
    }
}

fn spawn_watcher(locked: File, folder: &Path, idle_seconds: u32, temporary: Option<&Path>) {
    let mut watcher = Command::new("/bin/sh")
        .args(["-c", WATCHER, "calos-test-watcher"])
        .arg(folder)
        .arg(idle_seconds.to_string())
        .arg(temporary.unwrap_or(Path::new("")))
        .current_dir("/")
        .stdin(Stdio::from(locked))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("the watcher starts");
    // It outlives this process; should it end before, it must not stay a zombie.
    std::thread::spawn(move || watcher.wait());
}

fn target_dir() -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the checkout");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), |folder| checkout.join(folder))
}
