//! E.2: PostgreSQL is stopped under a running server, and comes back.

use std::time::{Duration, Instant};

use calos_adapters::embedded::{Cluster, ClusterOptions};
use serde_json::json;
use sqlx::{Executor as _, PgPool};

use crate::extent::lasting;
use crate::server::{Place, Server, bill, chat, client, pro_tenant};

/// A request that cannot be served says so within this.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// The server serves again within this, once the database does.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);

/// How long the database stays away.
const AWAY: Duration = Duration::from_secs(6);

async fn join(folder: &std::path::Path) -> Cluster {
    Cluster::join(ClusterOptions::new(folder.join("data"))).await.expect("PostgreSQL starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_said_at_once_and_its_return_needs_nobody() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let folder = calos_tests::cluster::open_folder();
    let cluster = join(folder.path()).await;
    let mut maintenance =
        calos_adapters::postgres::connect_one(&cluster.url("postgres")).await.expect("the cluster answers");
    maintenance.execute("CREATE DATABASE calos").await.expect("it is created");
    drop(maintenance);
    let url = cluster.url("calos");
    let data = calos_tests::cluster::open_folder();
    let place = Place { data_dir: data.path().to_owned(), database_url: Some(url.clone()) };
    let mut server = Server::start(&place).await;
    let tenant = pro_tenant(&place, &server.url).await;
    let client = client();
    let mut acknowledged = Vec::new();
    for _ in 0..8 {
        acknowledged.push(bill(&chat(&client, &server.url, &tenant.key).await.expect("it is answered")));
    }

    // Stopped as an administrator would: connections are ended, new ones are refused.
    cluster.leave().await.expect("PostgreSQL stops");
    let (stopped, mut asked) = (Instant::now(), 0);
    while stopped.elapsed() < lasting(AWAY) {
        let body = json!({"model": "gpt-4", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]});
        let requests = [
            client.post(format!("{}/v1/chat/completions", server.url)).bearer_auth(&tenant.key).json(&body),
            client.get(format!("{}/api/credits/balance", server.url)).bearer_auth(&tenant.token),
            client.get(format!("{}/readyz", server.url)),
        ];
        for request in requests {
            let began = Instant::now();
            let answer = request.send().await.expect("the server answers");
            let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a body"));
            let took = began.elapsed();
            assert_eq!(status, 503, "{text}");
            assert!(took < REFUSED_WITHIN, "it took {took:?} to say: {text}");
            asked += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(asked >= 9, "only {asked} requests were tried");

    let cluster = join(folder.path()).await;
    let returned = Instant::now();
    loop {
        if let Some(answer) = chat(&client, &server.url, &tenant.key).await {
            acknowledged.push(bill(&answer));
            break;
        }
        assert!(
            returned.elapsed() < RECOVERED_WITHIN,
            "not served {:?} after the database's return",
            returned.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pool = PgPool::connect(&url).await.expect("the database is back");
    for (usage, micros) in &acknowledged {
        let recorded: Option<i64> = sqlx::query_scalar(
            "SELECT (payload #>> '{usage_recorded,total}')::bigint FROM events
             WHERE event_type = 'usage_recorded' AND payload #>> '{usage_recorded,usage_id}' = $1",
        )
        .bind(usage.to_string())
        .fetch_optional(&pool)
        .await
        .expect("the log is read");
        assert_eq!(recorded, Some(*micros), "{usage} was acknowledged");
    }
    pool.close().await;
    place.must("calos-replay", &["verify"]);
    assert!(server.terminate().success(), "the server did not stop cleanly");
    cluster.leave().await.expect("PostgreSQL stops");
}
