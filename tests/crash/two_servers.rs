//! Two servers over one database: one wallet, one key, no surprises.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use calos_tests::database::TestDatabase;

use crate::kill_server::{Acknowledged, Round, assert_recorded, call_until};
use crate::server::{Place, Server, bill, chat, client, pro_tenant};

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_one_wallet_and_one_key() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let database = TestDatabase::create().await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database.url.clone()) };
    let mut left = Server::start(&place).await;
    let mut right = Server::start(&place).await;
    let tenant = pro_tenant(&place, &left.url).await;
    let client = client();
    let mut acknowledged = Acknowledged::new();

    // In turns: each sees what the other spent.
    for turn in 0..20 {
        let url = if turn % 2 == 0 { &left.url } else { &right.url };
        let answer = chat(&client, url, &tenant.key).await.expect("the call is answered");
        let (usage, cost) = bill(&answer);
        acknowledged.insert(usage, cost);
    }

    // At once.
    let round = Arc::new(Round::default());
    let calls: Vec<_> = [left.url.clone(), right.url.clone()]
        .into_iter()
        .map(|url| {
            let (tenants, round) = ([tenant.clone()], Arc::clone(&round));
            tokio::spawn(async move { call_until(&url, &tenants, round).await })
        })
        .collect();
    round.until_answered(100).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    round.over.store(true, Ordering::Relaxed);
    for call in calls {
        acknowledged.extend(call.await.expect("no panic"));
    }
    assert!(acknowledged.len() > 40, "only {} calls were answered", acknowledged.len());
    assert_recorded(&database.pool, &acknowledged).await;

    // A key revoked on one is refused on the other within a second.
    chat(&client, &right.url, &tenant.key).await.expect("the key still works on the right");
    let revoke = client
        .delete(format!("{}/api/tenants/{}/keys/{}", left.url, tenant.id, tenant.key_id))
        .bearer_auth(&tenant.token)
        .send()
        .await
        .expect("the left answers");
    assert_eq!(revoke.status(), 204);
    let began = Instant::now();
    assert!(chat(&client, &left.url, &tenant.key).await.is_none(), "the left still takes the key it revoked");
    while chat(&client, &right.url, &tenant.key).await.is_some() {
        assert!(began.elapsed() < Duration::from_secs(1), "the right still takes a key revoked on the left");
    }
    place.must("calos-replay", &["verify"]);
    assert!(left.terminate().success() && right.terminate().success(), "a server did not stop cleanly");
}
