//! Receipts: signed, checkable with the published key, found when tampered with, and nobody else's.

use calos_adapters::receipt::{Receipt, verifying_key};
use calos_api::cli::{Role, TierName};
use calos_tests::app::{Answer, TestApp};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_holds_under_the_published_key_and_any_change_is_found() {
    let app = TestApp::start().await;
    let who = app.register().await;
    app.admin_tier(who.tenant_id, TierName::Pro).await;
    let key = app.issue_key(&who).await;
    let chat = app.chat(&key, "gpt-4").await.expect(200);
    let ledger = app.get("/api/credits/ledger").bearer_auth(&who.token);
    let ledger = Answer::of(ledger.header("calos-after", chat.header("calos-position"))).await.expect(200);
    let published = Answer::of(app.get("/.well-known/calos-ledger-key")).await.expect(200);
    assert_eq!(published.body["algorithm"], "Ed25519");
    let published = verifying_key(published.body["publicKey"].as_str().expect("a key")).expect("a key");
    for entry in ledger.body["entries"].as_array().expect("entries") {
        let path = format!("/api/credits/receipts/{}/{}", entry["partition"], entry["position"]);
        for token in [&who.token, &key] {
            let answer = Answer::of(app.get(&path).bearer_auth(token)).await.expect(200);
            let receipt: Receipt = serde_json::from_value(answer.body.clone()).expect("a receipt");
            receipt.check(Some(&published)).expect("it holds");
            assert_eq!(receipt.aggregate_id, who.tenant_id.to_string());
            let payload: Value = serde_json::from_str(&receipt.payload).expect("JSON");
            let kind = entry["type"].as_str().expect("a type");
            let amount = payload[kind]["amount"].as_i64().expect("an amount");
            assert_eq!(Some(amount), entry["amount"].as_i64().map(i64::abs), "{payload}");

            let mut more = receipt.clone();
            more.payload = receipt.payload.replacen(&amount.to_string(), &(amount + 1).to_string(), 1);
            assert_ne!(more.payload, receipt.payload);
            assert!(more.check(Some(&published)).is_err(), "another amount is found");
            let mut elsewhere = receipt.clone();
            elsewhere.position += 1;
            assert!(elsewhere.check(Some(&published)).is_err(), "another place is found");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_a_receipt_of_anothers_entry_or_of_what_is_no_entry() {
    let app = TestApp::start().await;
    let (who, other) = (app.register().await, app.register().await);
    let finance = app.staff(Role::Finance).await;
    let ledger = app.get("/api/credits/ledger").bearer_auth(&who.token).header("calos-after", &who.position);
    let entry = Answer::of(ledger).await.expect(200).body["entries"][0].clone();
    let place = format!("{}/{}", entry["partition"], entry["position"]);
    let read = |path: String, token: &str| Answer::of(app.get(&path).bearer_auth(token));
    let path = format!("/api/credits/receipts/{place}");
    read(path.clone(), &who.token).await.expect(200);
    let foreign = read(path.clone(), &other.token).await.expect(404);
    let missing = read("/api/credits/receipts/0/999999".to_owned(), &other.token).await.expect(404);
    assert_eq!(foreign.body["error"], missing.body["error"], "another's entry looks like none");
    // Staff sees others' receipts by another path, where it is recorded.
    read(path, &finance.token).await.expect(404);
    let staff = format!("/api/finance/tenants/{}/receipts/{place}", who.tenant_id);
    read(staff, &finance.token).await.expect(200);
    let crossed = format!("/api/finance/tenants/{}/receipts/{place}", other.tenant_id);
    read(crossed, &finance.token).await.expect(404);
    for odd in ["-1/1", "0/0", "0/-1", "x/1", "99999999999/1"] {
        read(format!("/api/credits/receipts/{odd}"), &who.token).await.expect(404);
    }
    // Every event of the tenant's partition that is not of its ledger is none of its receipts.
    let partition = entry["partition"].as_i64().expect("a partition");
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "SELECT position, aggregate_type FROM events WHERE partition = $1 AND aggregate_type <> 'wallet'",
    )
    .bind(i32::try_from(partition).expect("a partition"))
    .fetch_all(&app.database.pool)
    .await
    .expect("the log can be read");
    assert!(rows.iter().any(|(_, kind)| kind == "tenant"), "{rows:?}");
    for (position, kind) in rows {
        let answer = read(format!("/api/credits/receipts/{partition}/{position}"), &who.token).await;
        assert_eq!((answer.status.as_u16(), &answer.body["code"]), (404, &json!("not_found")), "{kind}");
    }
    app.stop().await;
}
