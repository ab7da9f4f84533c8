//! A restore to a point in time: a backup, more events, and a database that is put back to a moment before some of them.

use calos_tests::cluster::TestCluster;
use serde_json::Value;
use sqlx::{Executor as _, PgPool};

use crate::extent::factor;
use crate::server::{Place, Server, Tenant, bill, chat, client, pro_tenant};

async fn calls(server: &Server, tenant: &Tenant, count: u32) -> Vec<uuid::Uuid> {
    let mut made = Vec::new();
    for _ in 0..count {
        made.push(bill(&chat(&client(), &server.url, &tenant.key).await.expect("it is answered")).0);
    }
    made
}

/// Which of these uses stand in the log of a database.
async fn standing(url: &str, uses: &[uuid::Uuid]) -> Vec<uuid::Uuid> {
    let pool = PgPool::connect(url).await.expect("the database answers");
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT payload #>> '{usage_recorded,usage_id}' FROM events WHERE event_type = 'usage_recorded'",
    )
    .fetch_all(&pool)
    .await
    .expect("the log is read");
    pool.close().await;
    uses.iter().copied().filter(|usage| found.contains(&usage.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_put_back_to_a_moment_proved_and_served_again() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let cluster = TestCluster::private().await;
    let damaged = cluster.database("calos").await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(damaged.clone()) };
    let mut server = Server::start(&place).await;
    let tenant = pro_tenant(&place, &server.url).await;
    let few = 2 * factor();
    let mut kept = calls(&server, &tenant, few).await;
    let backup = folder.path().join("backup");
    let backup = backup.to_str().expect("a path of text");
    place.must("calos-replay", &["backup", "--output", backup, "--reason", "the daily base"]);
    kept.extend(calls(&server, &tenant, few).await);
    // The anchors know of the whole log, also of what is about to be taken back.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let moment = time::OffsetDateTime::now_utc();
    let moment = moment.format(&time::format_description::well_known::Rfc3339).expect("a moment");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let lost = calls(&server, &tenant, few).await;
    place.must("calos-replay", &["anchor"]);
    place.must("calos-replay", &["backup", "--since", backup, "--reason", "the tail"]);
    assert!(server.terminate().success(), "the server did not stop cleanly");

    let mut maintenance =
        calos_adapters::postgres::connect_one(&cluster.cluster.url("postgres")).await.expect("the cluster answers");
    maintenance.execute("CREATE DATABASE restored").await.expect("an empty database");
    drop(maintenance);
    let restored = cluster.cluster.url("restored");
    let place = Place { database_url: Some(restored.clone()), ..place };
    let restore = ["restore", backup, "--until", &moment, "--reason", "an intruder since then", "--yes"];
    place.must("calos-replay", &restore);
    assert_eq!(standing(&restored, &kept).await, kept, "what was recorded before is there");
    assert_eq!(standing(&restored, &lost).await, Vec::<uuid::Uuid>::new(), "what came after is not");
    assert_eq!(standing(&damaged, &lost).await, lost, "the damaged database is as it was: it is evidence");

    // A cut log verifies only because the epoch says, under the ledger's signature, where it was cut.
    place.must("calos-replay", &["verify"]);
    let epochs = std::fs::read_to_string(place.data_dir.join("anchors").join("epochs.jsonl")).expect("the epochs");
    let epoch: Value = serde_json::from_str(epochs.lines().last().expect("an epoch")).expect("a line of JSON");
    assert!(epoch["signature"].as_str().is_some_and(|signature| signature.len() == 128), "{epoch}");
    place.must("calos-replay", &["trial-balance"]);
    place.must("calos-replay", &["anchor"]);

    // The same server goes on upon it, with the same people, keys and sessions.
    let mut server = Server::start(&place).await;
    let later = calls(&server, &tenant, few).await;
    assert_eq!(standing(&restored, &later).await, later);
    place.must("calos-replay", &["verify"]);
    place.must("calos-replay", &["backup", "--output", &format!("{backup}-after"), "--reason", "a new base"]);
    assert!(server.terminate().success(), "the server did not stop cleanly");
    place.must("calos-replay", &["verify"]);
}
