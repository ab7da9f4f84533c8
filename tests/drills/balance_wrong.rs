//! E.4: somebody wrote to a balance. Found by `check` and `diff`, cured by `rebuild`, proved by `verify`.

use calos_tests::cluster::TestCluster;
use serde_json::Value;
use sqlx::PgPool;

use crate::server::{Place, Server, chat, client, pro_tenant};

/// The checklist, and how it ended.
fn check(place: &Place, server: &Server) -> (Option<i32>, Value) {
    let output = place.run("calos-replay", &["check", "daily", "--json", "--url", &server.url]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"));
    (output.status.code(), report)
}

fn level(report: &Value, name: &str) -> String {
    let lines = report["checks"].as_array().expect("lines");
    let line = lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"));
    line["level"].as_str().expect("a level").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_that_was_edited_by_hand_is_found_cured_and_proved() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let cluster = TestCluster::private().await;
    let database_url = cluster.database("calos").await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database_url.clone()) };
    let mut server = Server::start(&place).await;
    let tenant = pro_tenant(&place, &server.url).await;
    for _ in 0..3 {
        chat(&client(), &server.url, &tenant.key).await.expect("it is answered");
    }
    place.must("calos-replay", &["anchor"]);
    let (code, healthy) = check(&place, &server);
    assert_eq!(code, Some(0), "{healthy}");
    assert_eq!((level(&healthy, "server"), level(&healthy, "wallets")), ("ok".to_owned(), "ok".to_owned()));
    assert_eq!(level(&healthy, "backup"), "warn", "none was ever taken");

    let pool = PgPool::connect(&database_url).await.expect("the database answers");
    let wrong =
        format!("UPDATE read.wallet_balance SET available = -7 WHERE tenant_id = '{}' AND asset = 'USD'", tenant.id);
    sqlx::raw_sql(&wrong).execute(&pool).await.expect("somebody writes by hand");
    let (code, found) = check(&place, &server);
    assert_eq!((code, level(&found, "wallets")), (Some(1), "fail".to_owned()), "{found}");
    let diff = place.run("calos-replay", &["diff", "wallet_balance"]);
    let said = String::from_utf8_lossy(&diff.stdout).into_owned();
    assert_eq!(diff.status.code(), Some(1), "{said}");
    assert!(said.contains(&tenant.id) && said.contains("available is -7"), "{said}");

    let rebuild = ["rebuild", "wallet_balance", "--reason", "a balance was edited by hand", "--yes", "--quiet"];
    let said = place.must("calos-replay", &rebuild);
    assert!(said.contains("1 rows differed"), "{said}");
    place.must("calos-replay", &["diff", "wallet_balance"]);
    place.must("calos-replay", &["verify"]);
    let (code, cured) = check(&place, &server);
    assert_eq!((code, level(&cured, "wallets")), (Some(0), "ok".to_owned()), "{cured}");

    // A server that is gone is a failure of the list, not of the tool.
    assert!(server.terminate().success(), "the server did not stop cleanly");
    let (code, gone) = check(&place, &server);
    assert_eq!((code, level(&gone, "server")), (Some(1), "fail".to_owned()), "{gone}");
    pool.close().await;
}
