//! Against a real PostgreSQL: started, shared, killed, started again.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};

use super::*;

/// A data folder that PostgreSQL's user may enter, or may not.
fn data_dir(mode: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    folder
}

fn options(folder: &Path) -> ClusterOptions {
    ClusterOptions { durability: Durability::None, ..ClusterOptions::new(folder.join("data")) }
}

async fn select_one(cluster: &Cluster) -> Result<i32, sqlx::Error> {
    let mut connection = PgConnection::connect(&cluster.url("postgres")).await?;
    let one = sqlx::query_scalar("SELECT 1").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(one)
}

async fn until(what: &str, seconds: u64, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_new_cluster_is_durable_by_default_and_stops_with_its_last_user() {
    let folder = data_dir(0o711);
    let begun = Instant::now();
    let first = Cluster::join(ClusterOptions::new(folder.path().join("data"))).await.unwrap();
    assert_eq!(select_one(&first).await.unwrap(), 1);
    eprintln!("the first start took {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(15));

    let mut connection = PgConnection::connect(&first.url("postgres")).await.unwrap();
    for (setting, value) in
        [("fsync", "on"), ("synchronous_commit", "on"), ("data_checksums", "on"), ("listen_addresses", "")]
    {
        let found: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&mut connection).await.unwrap();
        assert_eq!(found, value, "{setting}");
    }
    let (compression, possible): (String, bool) = sqlx::query_as(
        "SELECT setting, coalesce('lz4' = ANY (enumvals), false) FROM pg_settings WHERE name = 'wal_compression'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(compression, if possible { "lz4" } else { "off" });
    let encoding: String =
        sqlx::query_scalar("SELECT current_setting('server_encoding')").fetch_one(&mut connection).await.unwrap();
    assert_eq!(encoding, "UTF8");
    connection.close().await.unwrap();

    let second = Cluster::join(ClusterOptions::new(folder.path().join("data"))).await.unwrap();
    let pid = first.postmaster_pid().unwrap();
    assert_eq!(second.postmaster_pid(), Some(pid));
    first.leave().await.unwrap();
    assert_eq!(select_one(&second).await.unwrap(), 1, "the second still uses it");
    let (data, account) = (second.shared.location.data_dir(), second.shared.location.account.clone());
    second.leave().await.unwrap();
    assert!(!processes::works_in(pid, &data, &account), "the last one out stops it");

    let begun = Instant::now();
    let again = Cluster::join(ClusterOptions::new(folder.path().join("data"))).await.unwrap();
    eprintln!("a later start took {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(2));
    again.leave().await.unwrap();
}

#[tokio::test]
async fn users_that_come_at_once_share_one_cluster() {
    let folder = data_dir(0o711);
    let joining: Vec<_> = (0..4).map(|_| tokio::spawn(Cluster::join(options(folder.path())))).collect();
    let mut clusters = Vec::new();
    for join in joining {
        clusters.push(join.await.unwrap().unwrap());
    }
    let pid = clusters[0].postmaster_pid();
    assert!(pid.is_some());
    for cluster in clusters {
        assert_eq!(cluster.postmaster_pid(), pid);
        cluster.leave().await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_postgres_runs_again_within_seconds_even_with_a_busy_orphan() {
    let folder = data_dir(0o711);
    let cluster = Cluster::join(options(folder.path())).await.unwrap();
    let before = cluster.postmaster_pid().unwrap();
    // A backend in the middle of a statement does not notice that the postmaster is gone and keeps its memory.
    let mut busy = PgConnection::connect(&cluster.url("postgres")).await.unwrap();
    let busy = tokio::spawn(async move {
        sqlx::query("SELECT count(*) FROM generate_series(1, 4000000000::bigint)").execute(&mut busy).await.map(|_| ())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    processes::signal(before, Signal::KILL);
    let begun = Instant::now();
    until("it runs again", 10, async || {
        cluster.postmaster_pid().is_some_and(|pid| pid != before) && select_one(&cluster).await.is_ok()
    })
    .await;
    eprintln!("it ran again after {:?}", begun.elapsed());
    assert!(busy.await.unwrap().is_err(), "the orphan was ended");
    cluster.leave().await.unwrap();
}

#[tokio::test]
async fn a_database_left_running_by_a_killed_process_is_found_and_used() {
    let folder = data_dir(0o711);
    let mut killed = Cluster::join(options(folder.path())).await.unwrap();
    let pid = killed.postmaster_pid();
    // What a kill does to a process: its lock is gone, its lease file and PostgreSQL stay.
    drop(killed.supervisor.take());
    let lease = killed.lease.take().unwrap();
    drop(lease);
    drop(killed);

    let next = Cluster::join(options(folder.path())).await.unwrap();
    assert_eq!(next.postmaster_pid(), pid);
    let (data, account) = (next.shared.location.data_dir(), next.shared.location.account.clone());
    next.leave().await.unwrap();
    assert!(!processes::works_in(pid.unwrap(), &data, &account), "the dead process's lease does not keep it running");
}

#[tokio::test]
async fn a_stale_pid_file_that_names_another_process_is_not_believed() {
    let folder = data_dir(0o711);
    let cluster = Cluster::join(options(folder.path())).await.unwrap();
    let file = cluster.shared.location.data_dir().join("postmaster.pid");
    let text = std::fs::read_to_string(&file).unwrap();
    cluster.leave().await.unwrap();
    // The number went to a process that lives and is no PostgreSQL: this one.
    let rest = text.split_once('\n').unwrap().1;
    std::fs::write(&file, format!("{}\n{rest}", std::process::id())).unwrap();
    let cluster = Cluster::join(options(folder.path())).await.unwrap();
    assert_eq!(select_one(&cluster).await.unwrap(), 1);
    cluster.leave().await.unwrap();
}

#[tokio::test]
async fn postgres_runs_in_a_process_group_of_its_own_and_without_our_environment() {
    let folder = data_dir(0o711);
    let cluster = Cluster::join(options(folder.path())).await.unwrap();
    let pid = cluster.postmaster_pid().unwrap();
    let group = rustix::process::getpgid(rustix::process::Pid::from_raw(pid)).unwrap();
    assert_eq!(group.as_raw_nonzero().get(), pid);
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("CARGO_"));
    cluster.leave().await.unwrap();
}

#[tokio::test]
async fn a_closed_data_folder_sends_the_cluster_where_postgres_can_reach_it() {
    if !rustix::process::geteuid().is_root() {
        // Only root drops to another user; for anybody else every folder of their own is open.
        return;
    }
    let folder = data_dir(0o700);
    let cluster = Cluster::join(options(folder.path())).await.unwrap();
    let elsewhere = cluster.folder().to_owned();
    assert!(elsewhere.starts_with("/var/lib/calos"), "{}", elsewhere.display());
    assert_eq!(select_one(&cluster).await.unwrap(), 1);
    cluster.leave().await.unwrap();
    let again = Cluster::join(options(folder.path())).await.unwrap();
    assert_eq!(again.folder(), elsewhere, "the next start finds it");
    again.leave().await.unwrap();
    std::fs::remove_dir_all(elsewhere).unwrap();
}

#[tokio::test]
async fn half_a_cluster_left_by_a_killed_start_is_removed() {
    let folder = data_dir(0o711);
    let half = folder.path().join("data/postgres/data.draft-1");
    std::fs::create_dir_all(half.join("base")).unwrap();
    for path in [folder.path().join("data"), folder.path().join("data/postgres")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711)).unwrap();
    }
    let cluster = Cluster::join(options(folder.path())).await.unwrap();
    assert_eq!(select_one(&cluster).await.unwrap(), 1);
    assert!(!half.exists());
    cluster.leave().await.unwrap();
}

#[tokio::test]
async fn a_postgres_that_cannot_be_seen_but_answers_is_not_started_over() {
    let folder = data_dir(0o711);
    let cluster = Cluster::join(options(folder.path())).await.unwrap();
    let socket = cluster.shared.location.socket_file();
    cluster.leave().await.unwrap();
    let _answers = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = Cluster::join(options(folder.path())).await.unwrap_err().to_string();
    assert!(refused.contains("another container"), "{refused}");
    std::fs::remove_file(socket).unwrap();
}

#[tokio::test]
async fn a_long_data_folder_gets_a_short_socket() {
    let folder = data_dir(0o711);
    let long = folder.path().join("a".repeat(60)).join("b".repeat(60));
    let cluster = Cluster::join(options(&long)).await.unwrap();
    assert_eq!(select_one(&cluster).await.unwrap(), 1);
    let socket_dir = cluster.shared.location.socket_dir().to_owned();
    assert!(socket_dir.starts_with("/tmp"), "{}", socket_dir.display());
    cluster.leave().await.unwrap();
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_data_folder_behind_a_symbolic_link_is_recognised_as_the_same() {
    let folder = data_dir(0o711);
    let kept = folder.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::set_permissions(folder.path().join("data"), std::fs::Permissions::from_mode(0o711)).unwrap();
    std::os::unix::fs::symlink(&kept, folder.path().join("data/postgres")).unwrap();
    let joining = Cluster::join(options(folder.path()));
    let cluster = tokio::time::timeout(Duration::from_secs(30), joining).await.unwrap().unwrap();
    assert!(cluster.is_ready());
    cluster.leave().await.unwrap();
}

#[tokio::test]
async fn other_system_users_are_not_let_in() {
    let psql = Path::new("/usr/bin/psql");
    if !rustix::process::geteuid().is_root() || !psql.exists() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let folder = data_dir(0o711);
    let cluster = Cluster::join(options(folder.path())).await.unwrap();
    // Even with the folder and the socket thrown open, the system user decides.
    for path in
        [cluster.shared.location.socket_dir().to_owned(), cluster.shared.location.socket_dir().join(".s.PGSQL.5432")]
    {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let ask = |user: u32| {
        let mut command = std::process::Command::new(psql);
        command.args([&cluster.url("postgres"), "-Atc", "SELECT 1"]).current_dir("/").uid(user).output().unwrap()
    };
    assert!(ask(0).status.success());
    let refused = ask(65_534);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Peer authentication failed"));
    cluster.leave().await.unwrap();
}
