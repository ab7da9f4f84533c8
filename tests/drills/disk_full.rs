//! The database's disk is full: nothing is acknowledged that is not durable, and room is all it takes to go on.
//!
//! Where this may mount, PostgreSQL lives on a small file system of its own that is filled up. Elsewhere (containers) the
//! size of its files is limited instead: what it writes beyond fails the same way.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use calos_adapters::embedded::{Cluster, ClusterOptions};
use serde_json::{Value, json};
use sqlx::{Executor as _, PgPool};

use crate::extent::lasting;
use crate::server::{Place, Server, Tenant, bill, client, pro_tenant};

/// Room for a cluster with its journal, and little else.
const DISK_MEGABYTES: u64 = 160;

/// More than a segment of the journal, so that the limit meets tables alone.
const FILE_MAX_BYTES: u64 = 20 * 1024 * 1024;

/// How long a caller waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The first refusal comes within this: what is left in the files' last pages is used up first.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

/// How long the disk stays full.
const FULL: Duration = Duration::from_secs(3);

/// With room again calls are answered within this, a start of PostgreSQL and its recovery included.
const RECOVERED_WITHIN: Duration = Duration::from_secs(20);

/// How the disk is filled.
enum Disk {
    /// A file system of its own, unmounted in the end.
    Mounted(PathBuf),
    /// Limits on what PostgreSQL's processes write.
    Limited,
}

impl Disk {
    /// A file system at `folder` if this may mount one.
    fn at(folder: &Path) -> Self {
        let wanted = std::env::var("CALOS_DRILL_DISK").ok();
        let size = format!("size={DISK_MEGABYTES}m,mode=0711");
        let mount = || Command::new("mount").args(["-t", "tmpfs", "-o", &size, "calos-drill"]).arg(folder).output();
        if wanted.as_deref() != Some("limit") && mount().is_ok_and(|mounted| mounted.status.success()) {
            Self::Mounted(folder.to_owned())
        } else {
            Self::Limited
        }
    }

    async fn fill(&self, cluster: &Cluster) {
        match self {
            Self::Mounted(folder) => {
                let mut filler = std::fs::File::create(folder.join("filler")).expect("a file on the disk");
                let piece = vec![7_u8; 64 * 1024];
                while filler.write_all(&piece).is_ok() {}
                // The last bytes too.
                while filler.write_all(&piece[..512]).is_ok() {}
            }
            Self::Limited => {
                inflate(cluster).await;
                limit(cluster, &FILE_MAX_BYTES.to_string());
            }
        }
    }

    fn make_room(&self, cluster: &Cluster) {
        match self {
            Self::Mounted(folder) => std::fs::remove_file(folder.join("filler")).expect("the filler is there"),
            Self::Limited => limit(cluster, "unlimited"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Mounted(folder) = self {
            // Lazily: PostgreSQL may be ending still.
            drop(Command::new("umount").arg("-l").arg(folder).output());
        }
    }
}

/// Makes the table of events as large as a file may be, by events that are rolled back.
async fn inflate(cluster: &Cluster) {
    let pool = PgPool::connect(&cluster.url("calos")).await.expect("the database answers");
    // What was rolled back would be cleared away and given back to the disk.
    pool.execute("ALTER TABLE events SET (autovacuum_enabled = off)").await.expect("the table's owner asks");
    loop {
        let bytes: i64 =
            sqlx::query_scalar("SELECT pg_relation_size('events')").fetch_one(&pool).await.expect("a size");
        if u64::try_from(bytes).expect("a size") + 16 * 1024 > FILE_MAX_BYTES {
            break;
        }
        // Of one page each, so that it ends just below the limit.
        let left = (FILE_MAX_BYTES - u64::try_from(bytes).expect("a size")) / 8_192;
        let mut transaction = pool.begin().await.expect("a transaction");
        let rows = format!(
            "INSERT INTO events (partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version,
                 payload, metadata, recorded_at, hash)
             SELECT 0, 1000000 + n, 'filler', 'filler', 1000000 + n, 'filler', '1',
                 json_build_object('filler', (SELECT string_agg(md5(n::text || m::text), '') FROM generate_series(1, 50) m)),
                 '{{}}', now(), '\\x00' FROM generate_series(1, {left}) n"
        );
        sqlx::raw_sql(&rows).execute(&mut *transaction).await.expect("they go in");
        transaction.rollback().await.expect("they are rolled back");
    }
    pool.close().await;
}

/// Limits what PostgreSQL's processes write, as PostgreSQL's user: nobody else may without being asked.
fn limit(cluster: &Cluster, bytes: &str) {
    let main = cluster.postmaster_pid().expect("PostgreSQL runs");
    let children = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).expect("the kernel tells");
    let owner = std::fs::metadata(format!("/proc/{main}")).expect("it runs");
    for pid in std::iter::once(main.to_string()).chain(children.split_whitespace().map(str::to_owned)) {
        let mut prlimit = Command::new("prlimit");
        if rustix::process::geteuid().is_root() {
            prlimit.uid(owner.uid()).gid(owner.gid());
        }
        let limited = prlimit.args(["--pid", &pid, &format!("--fsize={bytes}:")]).stdin(Stdio::null()).output();
        let limited = limited.expect("prlimit is installed");
        // A process that has ended meanwhile writes nothing.
        assert!(limited.status.success() || !Path::new(&format!("/proc/{pid}")).exists(), "{limited:?}");
    }
}

/// A call: what it cost, or how it was refused; nothing when it got no answer in time. A call whose answer is there and whose
/// charge finds no room waits for room, for most of a minute.
async fn call(server: &Server, tenant: &Tenant) -> Option<Result<(uuid::Uuid, i64), (u16, Value)>> {
    let body = json!({"model": "gpt-4", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]});
    let request = client().post(format!("{}/v1/chat/completions", server.url)).bearer_auth(&tenant.key).json(&body);
    let answer = match request.timeout(CALL_TIMEOUT).send().await {
        Err(error) if error.is_timeout() => return None,
        answer => answer.expect("the server answers"),
    };
    let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a body"));
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Some(if status == 200 { Ok(bill(&body)) } else { Err((status, body)) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_it_cannot_keep_loses_nothing_and_needs_only_room() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let folder = calos_tests::cluster::open_folder();
    let place_of_data = folder.path().join("disk");
    std::fs::create_dir(&place_of_data).expect("a folder");
    let disk = Disk::at(&place_of_data);
    let cluster = Cluster::join(ClusterOptions::new(place_of_data.join("data"))).await.expect("PostgreSQL starts");
    let mut maintenance =
        calos_adapters::postgres::connect_one(&cluster.url("postgres")).await.expect("the cluster answers");
    maintenance.execute("CREATE DATABASE calos").await.expect("it is created");
    drop(maintenance);
    let data = calos_tests::cluster::open_folder();
    let place = Place { data_dir: data.path().to_owned(), database_url: Some(cluster.url("calos")) };
    let mut server = Server::start(&place).await;
    let tenant = pro_tenant(&place, &server.url).await;
    let mut acknowledged = vec![call(&server, &tenant).await.expect("in time").expect("it is answered")];

    disk.fill(&cluster).await;
    let filled = Instant::now();
    let mut refusals = 0;
    let mut first_refused = None;
    while first_refused.is_none_or(|at: Instant| at.elapsed() < lasting(FULL)) {
        match call(&server, &tenant).await {
            None => {}
            Some(Ok(bill)) => acknowledged.push(bill),
            Some(Err((status, body))) => {
                assert_eq!((status, &body["error"]["code"]), (503, &json!("database_unavailable")), "{body}");
                assert!(body["error"]["message"].as_str().is_some_and(|message| !message.contains('/')), "{body}");
                (refusals, first_refused) = (refusals + 1, first_refused.or(Some(Instant::now())));
            }
        }
        assert!(first_refused.is_some() || filled.elapsed() < REFUSED_WITHIN, "the disk is not full");
    }
    let health = client().get(format!("{}/health", server.url)).send().await.expect("it is answered");
    assert_eq!((health.status().as_u16(), refusals > 0), (200, true));

    disk.make_room(&cluster);
    let room = Instant::now();
    loop {
        match call(&server, &tenant).await {
            Some(Ok(bill)) => break acknowledged.push(bill),
            Some(Err((status, body))) => assert_eq!(status, 503, "{body}"),
            None => {}
        }
        assert!(room.elapsed() < RECOVERED_WITHIN, "not answered {:?} after there was room", room.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pool = PgPool::connect(&cluster.url("calos")).await.expect("the database answers");
    let recorded: Vec<(String, i64)> = sqlx::query_as(
        "SELECT payload #>> '{usage_recorded,usage_id}', (payload #>> '{usage_recorded,total}')::bigint
         FROM events WHERE event_type = 'usage_recorded'",
    )
    .fetch_all(&pool)
    .await
    .expect("the log is read");
    pool.close().await;
    for (usage, micros) in &acknowledged {
        let found: Vec<i64> =
            recorded.iter().filter(|(id, _)| *id == usage.to_string()).map(|(_, micros)| *micros).collect();
        assert_eq!(found, vec![*micros], "{usage} was acknowledged");
    }
    place.must("calos-replay", &["anchor"]);
    place.must("calos-replay", &["verify"]);
    assert!(server.terminate().success(), "the server did not stop cleanly");
    cluster.leave().await.expect("PostgreSQL stops");
}
