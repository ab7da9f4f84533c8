//! `kill -9` of the server in the middle of 256 callers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use calos_tests::cluster::TestCluster;
use sqlx::PgPool;
use uuid::Uuid;

use crate::server::{Place, Server, Tenant, bill, chat, client, pro_tenant};

const CALLERS: usize = 256;
const TENANTS: usize = 4;
/// Rounds in the everyday run; `CALOS_CRASH_ROUNDS` asks for more.
const ROUNDS: usize = 20;
/// A wallet's trial pays for many more rounds than this, the holds that a kill leaves open included.
const ROUNDS_PER_WALLET: usize = 10;
/// The kill comes when this many calls have been answered, and a little later each round, to hit other moments.
const ANSWERED_BEFORE_KILL: usize = 64;

/// Usage id → micro-dollars of every call that was answered.
pub type Acknowledged = HashMap<Uuid, i64>;

/// What the callers of one round and whoever ends it share.
#[derive(Default)]
pub struct Round {
    /// Set when the callers shall stop.
    pub over: AtomicBool,
    /// Calls answered so far.
    pub answered: AtomicUsize,
}

impl Round {
    /// Waits until so many calls have been answered.
    pub async fn until_answered(&self, calls: usize) {
        let began = Instant::now();
        while self.answered.load(Ordering::Relaxed) < calls {
            assert!(began.elapsed() < Duration::from_secs(30), "too few calls are answered");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Calls from many callers until the round is over.
pub async fn call_until(url: &str, tenants: &[Tenant], round: Arc<Round>) -> Acknowledged {
    let client = client();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (client, url, round) = (client.clone(), url.to_owned(), Arc::clone(&round));
            let key = tenants[caller % tenants.len()].key.clone();
            tokio::spawn(async move {
                let mut bills = Vec::new();
                while !round.over.load(Ordering::Relaxed) {
                    match chat(&client, &url, &key).await {
                        Some(answer) => {
                            bills.push(bill(&answer));
                            round.answered.fetch_add(1, Ordering::Relaxed);
                        }
                        None => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
                bills
            })
        })
        .collect();
    let mut acknowledged = Acknowledged::new();
    for caller in callers {
        for (usage, cost) in caller.await.expect("no panic") {
            assert!(acknowledged.insert(usage, cost).is_none(), "two answers share the usage {usage}");
        }
    }
    acknowledged
}

/// Every acknowledged use is in the log once, with its price, and no wallet was ever below zero.
pub async fn assert_recorded(pool: &PgPool, acknowledged: &Acknowledged) {
    let rows: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "SELECT (payload #>> '{credits_deducted,usage_id}')::uuid AS usage, count(*),
            sum((payload #>> '{credits_deducted,amount}')::bigint)::bigint
         FROM events WHERE event_type = 'credits_deducted' GROUP BY usage",
    )
    .fetch_all(pool)
    .await
    .expect("the deductions read");
    let recorded: HashMap<Uuid, (i64, i64)> =
        rows.into_iter().map(|(usage, count, amount)| (usage, (count, amount))).collect();
    for (usage, (count, _)) in &recorded {
        assert_eq!(*count, 1, "{usage} was deducted {count} times");
    }
    for (usage, cost) in acknowledged {
        assert_eq!(recorded.get(usage), Some(&(1, *cost)), "the acknowledged use {usage}");
    }
    let (negative,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM events, json_each(payload) AS body
         WHERE aggregate_type = 'wallet' AND (body.value ->> 'available_after')::bigint < 0",
    )
    .fetch_one(pool)
    .await
    .expect("the balances read");
    assert_eq!(negative, 0, "a wallet went below zero");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_call_survives_the_servers_death_and_is_charged_once() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let rounds = std::env::var("CALOS_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let cluster = TestCluster::private().await;
    let database_url = cluster.database("calos").await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database_url.clone()) };
    let pool = PgPool::connect(&database_url).await.expect("the database answers");
    let mut server = Server::start(&place).await;
    let mut tenants = Vec::new();
    let mut acknowledged = Acknowledged::new();
    for round in 0..rounds {
        // Fresh wallets now and then, so that there is always something to spend.
        if round % ROUNDS_PER_WALLET == 0 {
            tenants.clear();
            for _ in 0..TENANTS {
                tenants.push(pro_tenant(&place, &server.url).await);
            }
        }
        let calling = Arc::new(Round::default());
        let calls = tokio::spawn({
            let (url, tenants, calling) = (server.url.clone(), tenants.clone(), Arc::clone(&calling));
            async move { call_until(&url, &tenants, calling).await }
        });
        calling.until_answered(ANSWERED_BEFORE_KILL).await;
        let jitter = u64::try_from(round).unwrap_or_default() * 37 % 150;
        tokio::time::sleep(Duration::from_millis(jitter)).await;
        server.kill();
        calling.over.store(true, Ordering::Relaxed);
        let answered = calls.await.expect("no panic");
        assert!(!answered.is_empty(), "round {round}: nothing was answered before the kill");
        acknowledged.extend(answered);
        server = Server::start(&place).await;
        assert_recorded(&pool, &acknowledged).await;
        place.must("calos-replay", &["verify"]);
    }
    assert!(server.terminate().success(), "the server did not stop cleanly");
    pool.close().await;
}
