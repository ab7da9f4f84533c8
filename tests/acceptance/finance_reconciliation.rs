//! The books against Stripe's balance transactions, over HTTP.

use calos_api::cli::Role;
use calos_tests::app::{Answer, Registered, TestApp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::finance::read;

async fn run(app: &TestApp, by: &Registered, body: &Value) -> Answer {
    Answer::of(app.post("/api/finance/reconciliation", body).bearer_auth(&by.token)).await
}

/// A balance transaction of the middle of January 2026.
fn transaction(n: u32, amount: i64, fee: i64) -> Value {
    json!({"id": format!("txn_{n}"), "object": "balance_transaction", "amount": amount, "fee": fee,
        "net": amount - fee, "currency": "usd", "created": 1_768_500_000_i64 + i64::from(n), "type": "charge",
        "source": format!("ch_{n}")})
}

fn statement(transactions: &[Value]) -> Value {
    json!({"from": "2026-01-01", "to": "2026-01-31",
        "transactions": {"object": "list", "data": transactions, "has_more": false}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_has_and_the_books_do_not_becomes_an_exception_with_an_owner_and_an_end() {
    let app = TestApp::start().await;
    let (operator, finance) = (app.staff(Role::Operator).await, app.staff(Role::Finance).await);
    let stranger = app.register().await;
    let ran =
        run(&app, &operator, &statement(&[transaction(1, 2_900, 114), transaction(2, 500, 45)])).await.expect(201);
    let id = ran.body["reconciliationId"].as_str().expect("an id").to_owned();
    let path = format!("/api/finance/reconciliation/{id}");
    let found = read(&app, &finance, &path, ran.header("calos-position")).await.expect(200);
    assert_eq!(
        (&found.body["matched"], &found.body["found"], &found.body["open"], &found.body["source"]),
        (&json!(0), &json!(2), &json!(2), &json!("stripe")),
        "{}",
        found.text
    );
    let first = &found.body["exceptions"][0];
    assert_eq!((&first["number"], &first["kind"], &first["ours"]), (&json!(1), &json!("missing_here"), &json!(null)));
    assert_eq!(
        (&first["theirs"]["amountMicros"], &first["theirs"]["feeMicros"]),
        (&json!(29_000_000), &json!(1_140_000))
    );

    let act = async |what: &str, body: Value| {
        Answer::of(app.post(&format!("{path}/exceptions/1/{what}"), &body).bearer_auth(&operator.token)).await
    };
    assert_eq!(act("assign", json!({"owner": stranger.user_id})).await.expect(400).body["param"], "owner");
    let assigned = act("assign", json!({"owner": finance.user_id})).await.expect(200);
    assert_eq!(assigned.body["owner"], json!(finance.user_id));
    assert_eq!(
        act("resolve", json!({"resolution": "magic", "note": "x"})).await.expect(400).body["param"],
        "resolution"
    );
    assert_eq!(act("resolve", json!({"resolution": "timing", "note": ""})).await.expect(400).body["param"], "note");
    let resolved = act("resolve", json!({"resolution": "not_ours", "note": "another shop's"})).await.expect(200);
    let again = act("resolve", json!({"resolution": "timing", "note": "no"})).await.expect(409);
    assert!(again.body["resolvedAt"].is_string(), "{}", again.text);
    let unknown = app.post(&format!("{path}/exceptions/9/resolve"), &json!({"resolution": "timing", "note": "x"}));
    Answer::of(unknown.bearer_auth(&operator.token)).await.expect(404);

    let found = read(&app, &finance, &path, resolved.header("calos-position")).await.expect(200);
    let first = &found.body["exceptions"][0];
    assert_eq!(found.body["open"], 1, "{}", found.text);
    assert_eq!(
        (&first["owner"], &first["resolution"]),
        (&json!(finance.user_id), &json!("not_ours")),
        "{}",
        found.text
    );
    assert_eq!(first["resolvedBy"], json!(operator.user_id));
    let page = read(&app, &finance, &format!("{path}?limit=1"), "").await.expect(200);
    let next = page.body["nextCursor"].as_str().expect("there is a second page");
    let page = read(&app, &finance, &format!("{path}?limit=1&cursor={next}"), "").await.expect(200);
    assert_eq!((&page.body["exceptions"][0]["number"], &page.body["nextCursor"]), (&json!(2), &json!(null)));
    let list = read(&app, &finance, "/api/finance/reconciliation", "").await.expect(200);
    assert_eq!(list.body["reconciliations"][0]["reconciliationId"], json!(id), "{}", list.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_cannot_be_read_says_where() {
    let app = TestApp::start().await;
    let operator = app.staff(Role::Operator).await;
    let before = app.event_count().await;
    let mut euros = transaction(1, 5, 0);
    euros["currency"] = json!("eur");
    let mut more = statement(&[transaction(1, 5, 0)]);
    more["transactions"]["has_more"] = json!(true);
    for (body, field) in [
        (json!({"from": "2026-01-01", "to": "2026-01-31", "transactions": "x"}), "transactions"),
        (statement(&[json!({"id": 7})]), "transactions"),
        (statement(&[euros]), "transactions"),
        (more, "transactions"),
        (json!({"from": "x", "to": "2026-01-31", "transactions": []}), "from"),
        (json!({"from": "2026-02-01", "to": "2026-01-31", "transactions": []}), "to"),
        (json!({"from": "2026-01-01", "to": "2999-01-31", "transactions": []}), "to"),
        (json!({"from": "2026-01-01", "to": "2026-01-31"}), "transactions"),
    ] {
        let refused = run(&app, &operator, &body).await.expect(400);
        assert_eq!((&refused.body["code"], &refused.body["param"]), (&json!("invalid_field"), &json!(field)), "{body}");
    }
    assert_eq!(app.event_count().await, before, "what was refused changed nothing");
    let empty = json!({"from": "2026-01-01", "to": "2026-01-31", "transactions": []});
    run(&app, &operator, &empty).await.expect(201);
    let large = statement(&(0..5_000).map(|n| transaction(n, 100, 3)).collect::<Vec<_>>());
    assert!(large.to_string().len() > 500_000, "larger than what is parsed at once");
    let ran = run(&app, &operator, &large).await.expect(201);
    let id = Uuid::parse_str(ran.body["reconciliationId"].as_str().expect("an id")).expect("an id");
    let found = read(&app, &operator, &format!("/api/finance/reconciliation/{id}"), ran.header("calos-position")).await;
    assert_eq!(found.expect(200).body["found"], 5_000);
    app.stop().await;
}
