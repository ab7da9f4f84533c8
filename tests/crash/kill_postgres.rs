//! `kill -9` of PostgreSQL under a running server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use calos_tests::cluster::TestCluster;
use sqlx::PgPool;

use crate::kill_server::{Acknowledged, Round, assert_recorded, call_until};
use crate::server::{Place, Server, chat, client, pro_tenant};

const ROUNDS: u64 = 3;
/// From the kill to the first answered call, the restart of PostgreSQL and its recovery included.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_call_survives_the_databases_death_and_the_server_goes_on() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let cluster = TestCluster::private().await;
    let database_url = cluster.database("calos").await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database_url.clone()) };
    let mut server = Server::start(&place).await;
    let tenants = [pro_tenant(&place, &server.url).await, pro_tenant(&place, &server.url).await];
    let mut acknowledged = Acknowledged::new();
    for round in 0..ROUNDS {
        let calling = Arc::new(Round::default());
        let calls = tokio::spawn({
            let (url, tenants, calling) = (server.url.clone(), tenants.clone(), Arc::clone(&calling));
            async move { call_until(&url, &tenants, calling).await }
        });
        calling.until_answered(32).await;
        tokio::time::sleep(Duration::from_millis(round * 70)).await;
        cluster.kill_postgres();
        tokio::time::sleep(Duration::from_millis(500)).await;
        calling.over.store(true, Ordering::Relaxed);
        acknowledged.extend(calls.await.expect("no panic"));
        let (client, began) = (client(), Instant::now());
        while chat(&client, &server.url, &tenants[0].key).await.is_none() {
            assert!(began.elapsed() < RECOVERY_TIMEOUT, "round {round}: the server did not recover");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let pool = PgPool::connect(&database_url).await.expect("the database is back");
        assert_recorded(&pool, &acknowledged).await;
        pool.close().await;
        place.must("calos-replay", &["verify"]);
    }
    assert!(!acknowledged.is_empty(), "nothing was ever answered");
    assert!(server.terminate().success(), "the server did not stop cleanly");
}
