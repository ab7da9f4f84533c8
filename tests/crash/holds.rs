//! `kill -9` of the server in the middle of one slow call.

use std::time::{Duration, Instant};

use calos_adapters::postgres::{LogOptions, PgLog};
use calos_commands::complete_chat::HOLD_MAX_SECONDS;
use calos_commands::processes::expire_holds::{DueHold, GRACE_SECONDS, due_until, expire_holds};
use calos_projections::open_holds;
use calos_tests::database::TestDatabase;
use serde_json::{Value, json};

use crate::server::{Place, Server, Tenant, client, pro_tenant, send};

/// How long the read models may take to show what is in the log.
const SHOWN_WITHIN: Duration = Duration::from_secs(20);

async fn balance(url: &str, tenant: &Tenant) -> Value {
    send(client().get(format!("{url}/api/credits/balance")).bearer_auth(&tenant.token), 200).await
}

/// Waits until something is held, or nothing any more.
async fn until_held(url: &str, tenant: &Tenant, held: bool) -> Value {
    let began = Instant::now();
    loop {
        let balance = balance(url, tenant).await;
        if (balance["held_micros"] != 0) == held {
            return balance;
        }
        assert!(began.elapsed() < SHOWN_WITHIN, "it stays {balance}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_died_with_its_server_gives_its_hold_back_when_its_time_is_up() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let database = TestDatabase::create().await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database.url.clone()) };
    let mut server = Server::start(&place).await;
    let tenant = pro_tenant(&place, &server.url).await;
    let before = balance(&server.url, &tenant).await;
    let slow = [json!({"role": "user", "content": "[[first_byte_delay_ms=60000]] hello"})];
    let body = json!({"model": "gpt-4", "max_tokens": 50, "messages": slow});
    let call = client().post(format!("{}/v1/chat/completions", server.url)).bearer_auth(&tenant.key).json(&body);
    let call = tokio::spawn(call.send());
    until_held(&server.url, &tenant, true).await;
    server.kill();
    assert!(call.await.expect("no panic").is_err(), "it was answered");

    // Another server finds the hold, and leaves it alone as long as its owner might be alive.
    let server = Server::start(&place).await;
    let log = PgLog::open(database.pool.clone(), LogOptions::default()).await.expect("the log opens");
    let expire_after = async |seconds: i64| {
        let now = calos_api::request::now().plus_seconds(seconds);
        let found = open_holds::expired(&database.pool, due_until(now), 10).await.expect("the holds read");
        let due = found.iter().map(|hold| DueHold { tenant_id: hold.tenant_id, hold_id: hold.hold_id });
        expire_holds(&log, &due.collect::<Vec<_>>(), now).await.expect("the log answers")
    };
    assert_eq!(expire_after(0).await, 0);
    until_held(&server.url, &tenant, true).await;
    assert_eq!(expire_after(HOLD_MAX_SECONDS + GRACE_SECONDS).await, 1);
    let after = until_held(&server.url, &tenant, false).await;
    assert_eq!(after["balance_micros"], before["balance_micros"]);
    place.must("calos-replay", &["verify"]);
}
