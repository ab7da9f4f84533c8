//! E.2 over the network: the database refuses, then says nothing at all, and comes back each time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use calos_adapters::embedded::Cluster;
use calos_tests::cluster::TestCluster;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::extent::lasting;
use crate::server::{Place, Server, Tenant, bill, chat, client, pro_tenant};
use crate::wire::{Cable, Wire};

/// A request that cannot be served says so within this.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// The server serves again within this, once the database does.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);

/// How long the database stays away each time.
const AWAY: Duration = Duration::from_secs(4);

/// Until a silence of the database is known, a change may have been sent whose outcome nobody knows; this is told as such.
const KNOWN_AFTER: Duration = Duration::from_millis(1_800);

/// Callers who never stop calling, so that the cut comes in the middle of their calls.
const CALLERS: usize = 6;

struct Customer<'a> {
    client: &'a reqwest::Client,
    url: &'a str,
    tenant: &'a Tenant,
}

impl Customer<'_> {
    /// One of each kind: a model call, reads of read models, a change with and without a key, a sign-in, looks from outside.
    fn requests(&self) -> Vec<(&'static str, RequestBuilder)> {
        let Self { client, url, tenant } = self;
        let model = json!({"model": "gpt-4", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]});
        let keys = format!("{url}/api/tenants/{}/keys", tenant.id);
        let login = json!({"email": "nobody@example.com", "password": "correct horse battery staple"});
        vec![
            ("call", client.post(format!("{url}/v1/chat/completions")).bearer_auth(&tenant.key).json(&model)),
            ("balance", client.get(format!("{url}/api/credits/balance")).bearer_auth(&tenant.token)),
            ("usage", client.get(format!("{url}/api/credits/usage?limit=5")).bearer_auth(&tenant.token)),
            ("keys", client.get(&keys).bearer_auth(&tenant.token)),
            ("new key", client.post(&keys).bearer_auth(&tenant.token).json(&json!({}))),
            (
                "new key once",
                client
                    .post(&keys)
                    .bearer_auth(&tenant.token)
                    .header("idempotency-key", uuid::Uuid::now_v7().to_string())
                    .json(&json!({})),
            ),
            ("login", client.post(format!("{url}/api/auth/login")).json(&login)),
            ("ready", client.get(format!("{url}/readyz"))),
            ("database", client.get(format!("{url}/api/health/database"))),
        ]
    }

    /// All at once, again and again while the database is away: each says so in time.
    async fn is_told(&self, since: Instant) {
        let mut asked = 0;
        while since.elapsed() < lasting(AWAY) {
            let asking = self.requests().into_iter().map(|(what, request)| async move {
                let began = Instant::now();
                let unknowable = since.elapsed() < KNOWN_AFTER;
                let answer = request.send().await.expect("the server answers");
                let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a body"));
                let took = began.elapsed();
                if what == "ready" && unknowable && status == 200 {
                    // Told from the last look, which the database still answered.
                    return;
                }
                assert_eq!(status, 503, "{what}: {text}");
                assert!(took < REFUSED_WITHIN, "{what} took {took:?} to say: {text}");
                let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"));
                let code = body["code"].as_str().or(body["error"]["code"].as_str()).unwrap_or_default();
                let fits = code == "database_unavailable"
                    || (what == "ready" && body["ready"] == json!(false))
                    || (unknowable && code == "outcome_unknown");
                assert!(fits, "{what}, {:?} after the cut: {text}", since.elapsed());
            });
            asked += futures_util::future::join_all(asking).await.len();
            // Whether it lives, and its figures, are told from memory.
            for path in ["/health", "/metrics"] {
                let answer = self.client.get(format!("{}{path}", self.url)).timeout(REFUSED_WITHIN).send().await;
                assert_eq!(answer.expect("it is answered from memory").status().as_u16(), 200, "{path}");
            }
            // Not oftener when it goes on for longer: attempts are limited.
            tokio::time::sleep(lasting(Duration::from_millis(100))).await;
        }
        assert!(asked >= 18, "only {asked} requests were tried");
    }

    /// Calls and reads are answered again, the reads with what was called.
    async fn is_served_again(&self, since: Instant) -> (uuid::Uuid, i64) {
        let mut billed = None;
        loop {
            if billed.is_none() {
                billed = chat(self.client, self.url, &self.tenant.key).await.map(|answer| bill(&answer));
            }
            if let Some(billed) = billed {
                let usage = format!("{}/api/credits/usage?limit=50", self.url);
                let read = self.client.get(usage).bearer_auth(&self.tenant.token).send().await;
                let text = read.expect("the server answers").text().await.expect("a body");
                if text.contains(&billed.0.to_string()) {
                    return billed;
                }
            }
            assert!(since.elapsed() < RECOVERED_WITHIN, "billed {billed:?} {:?} after the return", since.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Callers who go on calling until they are told to stop.
struct Callers {
    over: CancellationToken,
    calling: Vec<JoinHandle<Vec<(uuid::Uuid, i64)>>>,
}

impl Callers {
    /// So many, each of whom has been answered and calls again.
    async fn in_full_flow(callers: usize, url: &str, tenant: &Tenant) -> Self {
        let (over, answered) = (CancellationToken::new(), Arc::new(Semaphore::new(0)));
        let call = || tokio::spawn(call_on(url.to_owned(), tenant.key.clone(), Arc::clone(&answered), over.clone()));
        let calling = std::iter::repeat_with(call).take(callers).collect();
        let each = answered.acquire_many(u32::try_from(callers).expect("few"));
        tokio::time::timeout(Duration::from_secs(30), each).await.expect("each is answered").expect("open").forget();
        Self { over, calling }
    }

    /// Ends them; what they were billed.
    async fn end(self) -> Vec<(uuid::Uuid, i64)> {
        self.over.cancel();
        let mut billed = Vec::new();
        for caller in self.calling {
            billed.extend(caller.await.expect("no panic"));
        }
        billed
    }
}

/// What a caller was billed until it was told to stop; says when it was answered for the first time.
async fn call_on(
    url: String,
    key: String,
    answered: Arc<Semaphore>,
    over: CancellationToken,
) -> Vec<(uuid::Uuid, i64)> {
    let (client, mut billed) = (client(), Vec::new());
    while !over.is_cancelled() {
        match chat(&client, &url, &key).await {
            Some(answer) => {
                if billed.is_empty() {
                    answered.add_permits(1);
                }
                billed.push(bill(&answer));
            }
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    billed
}

async fn assert_recorded(url: &str, acknowledged: &[(uuid::Uuid, i64)]) {
    let pool = PgPool::connect(url).await.expect("the database is back");
    for (usage, micros) in acknowledged {
        let recorded: Vec<i64> = sqlx::query_scalar(
            "SELECT (payload #>> '{usage_recorded,total}')::bigint FROM events
             WHERE event_type = 'usage_recorded' AND payload #>> '{usage_recorded,usage_id}' = $1",
        )
        .bind(usage.to_string())
        .fetch_all(&pool)
        .await
        .expect("the log is read");
        assert_eq!(recorded, vec![*micros], "{usage} was acknowledged");
    }
    pool.close().await;
}

/// A database behind a cable, and the server at its other end.
async fn set_up() -> (TestCluster, Cable, Place, tempfile::TempDir) {
    let cluster = TestCluster::private().await;
    cluster.database("calos").await;
    let cable = Cable::to(&cluster.cluster).await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(cable.url("calos")) };
    (cluster, cable, place, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_or_says_nothing_over_tcp_is_said_in_time_and_found_again() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let (cluster, cable, place, _folder) = set_up().await;
    let mut server = Server::start(&place).await;
    let tenant = pro_tenant(&place, &server.url).await;
    let client = client();
    let customer = Customer { client: &client, url: &server.url, tenant: &tenant };
    let mut acknowledged = Vec::new();
    for wire in [Wire::Refusing, Wire::Silent, Wire::Refusing, Wire::Silent] {
        let callers = Callers::in_full_flow(CALLERS, &server.url, &tenant).await;
        cable.set(wire);
        customer.is_told(Instant::now()).await;
        acknowledged.extend(callers.end().await);
        cable.set(Wire::Whole);
        acknowledged.push(customer.is_served_again(Instant::now()).await);
    }
    // Past the cable: what was answered is there, once.
    assert_recorded(&cluster.cluster.url("calos"), &acknowledged).await;
    place.must("calos-replay", &["verify"]);
    assert!(server.terminate().success(), "the server did not stop cleanly");
}

/// The processes of a cluster: PostgreSQL and those it started.
fn processes_of(cluster: &Cluster) -> Vec<rustix::process::Pid> {
    let main = cluster.postmaster_pid().expect("PostgreSQL runs");
    let children = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).expect("the kernel tells");
    let children = children.split_whitespace().map(|pid| pid.parse().expect("a process id"));
    std::iter::once(main).chain(children).filter_map(rustix::process::Pid::from_raw).collect()
}

fn signal_all(processes: &[rustix::process::Pid], signal: rustix::process::Signal) {
    for process in processes {
        // A process that has ended meanwhile needs no signal.
        let _ended = rustix::process::kill_process(*process, signal);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stands_still_holds_up_neither_health_nor_metrics_nor_its_own_return() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let (cluster, _cable, place, _folder) = set_up().await;
    // Over its socket, where a connection never breaks by itself.
    let place = Place { database_url: Some(cluster.cluster.url("calos")), ..place };
    let mut server = Server::start(&place).await;
    let tenant = pro_tenant(&place, &server.url).await;
    let client = client();
    let customer = Customer { client: &client, url: &server.url, tenant: &tenant };
    let callers = Callers::in_full_flow(1, &server.url, &tenant).await;
    let processes = processes_of(&cluster.cluster);
    signal_all(&processes, rustix::process::Signal::STOP);
    customer.is_told(Instant::now()).await;
    let metrics = client.get(format!("{}/metrics", server.url)).send().await.expect("it is answered");
    let metrics = metrics.text().await.expect("a page");
    assert!(metrics.lines().any(|line| line == "calos_database_up 0"), "{metrics}");
    let mut acknowledged = callers.end().await;
    signal_all(&processes, rustix::process::Signal::CONT);
    acknowledged.push(customer.is_served_again(Instant::now()).await);
    assert_recorded(&cluster.cluster.url("calos"), &acknowledged).await;
    place.must("calos-replay", &["verify"]);
    assert!(server.terminate().success(), "the server did not stop cleanly");
}
