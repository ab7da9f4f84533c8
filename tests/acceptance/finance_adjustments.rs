//! Adjustments with four eyes, from the proposal to the balance.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

use calos_api::cli::Role;
use calos_tests::app::{Answer, Registered, TestApp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::finance::read;

/// Proposes an adjustment of a tenant's wallet.
pub async fn propose(app: &TestApp, by: &Registered, tenant: Uuid, amount: i64, more: Value) -> Answer {
    let mut body = json!({"tenantId": tenant, "asset": "USD", "amount": amount, "reason": "billing_error",
        "evidence": "ticket 17"});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    Answer::of(app.post("/api/finance/adjustments", &body).bearer_auth(&by.token)).await
}

/// Approves what a proposal's answer names.
pub async fn approve(app: &TestApp, by: &Registered, proposed: &Answer) -> Answer {
    let id = proposed.body["adjustmentId"].as_str().expect("an id");
    let request = app.client.post(app.url(&format!("/api/finance/adjustments/{id}/approve")));
    Answer::of(request.bearer_auth(&by.token).header("calos-after", proposed.header("calos-position"))).await
}

async fn available(app: &TestApp, who: &Registered, after: &str) -> i64 {
    let balance = read(app, who, "/api/credits/balance", after).await.expect(200);
    balance.body["balance_micros"].as_i64().expect("a balance")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adjustment_takes_a_second_person_and_moves_the_balance_by_exactly_that_once() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let (author, second) = (app.staff(Role::Operator).await, app.staff(Role::Operator).await);
    let proposed = propose(&app, &author, who.tenant_id, 1_234_567, json!({})).await.expect(201);
    assert_eq!(
        (&proposed.body["status"], &proposed.body["approvalsNeeded"], &proposed.body["proposedBy"]),
        (&json!("open"), &json!(1), &json!(author.user_id)),
        "{}",
        proposed.text
    );
    assert_eq!(available(&app, &who, proposed.header("calos-position")).await, 10_000_000, "nothing moves before");

    let own = approve(&app, &author, &proposed).await.expect(403);
    assert_eq!(own.body["code"], "own_proposal", "{}", own.text);
    let done = approve(&app, &second, &proposed).await.expect(200);
    assert_eq!((&done.body["decision"], &done.body["by"]), (&json!("approved"), &json!(second.user_id)));
    let after = done.header("calos-position").to_owned();
    assert_eq!(available(&app, &who, &after).await, 11_234_567);
    for again in [&second, &author] {
        let refused = approve(&app, again, &proposed).await.expect(409);
        assert_eq!(refused.body["code"], "conflict", "{}", refused.text);
        assert!(refused.body["appliedAt"].is_string(), "{}", refused.text);
    }
    assert_eq!(available(&app, &who, &after).await, 11_234_567, "it is applied once");

    let id = proposed.body["adjustmentId"].as_str().expect("an id");
    let shown = read(&app, &second, &format!("/api/finance/adjustments/{id}"), &after).await.expect(200);
    assert_eq!(shown.body["status"], "applied", "{}", shown.text);
    assert_eq!(shown.body["grantId"], json!(id), "{}", shown.text);
    assert_eq!(shown.body["approvals"][0]["by"], json!(second.user_id), "{}", shown.text);
    for (name, value) in proposed.body.as_object().expect("an object") {
        if !["status", "approvals"].contains(&name.as_str()) {
            assert_eq!(&shown.body[name], value, "{name}: what was answered is what is recorded");
        }
    }
    // The tenant sees it with its reason, the book on an account of its own.
    let ledger = read(&app, &who, "/api/credits/ledger?limit=1", &after).await.expect(200);
    assert_eq!(ledger.body["entries"][0]["amount"], 1_234_567, "{}", ledger.text);
    let account = "/api/finance/accounts/Equity:Adjustment:billing_error";
    assert_eq!(read(&app, &author, account, &after).await.expect(200).body["balance"], 1_234_567);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn larger_ones_take_two_others_and_beyond_the_limit_there_is_none() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let (author, second, third) =
        (app.staff(Role::Operator).await, app.staff(Role::Operator).await, app.staff(Role::Operator).await);
    for (amount, asset, needed) in [
        (50_000_000, "USD", Some(1)),
        (50_000_001, "USD", Some(2)),
        (-50_000_001, "USD", Some(2)),
        (1_000_000_000, "USD", Some(2)),
        (1_000_000_001, "USD", None),
        (-1_000_000_001, "USD", None),
        (i64::MIN, "USD", None),
        (500, "CREDIT", Some(1)),
        (10_000, "CREDIT", Some(2)),
        (10_001, "CREDIT", None),
    ] {
        let answer = propose(&app, &author, who.tenant_id, amount, json!({"asset": asset})).await;
        match needed {
            Some(needed) => assert_eq!(answer.expect(201).body["approvalsNeeded"], needed, "{amount} {asset}"),
            None => {
                let refused = answer.expect(400);
                assert_eq!(refused.body["param"], "amount", "{amount} {asset}: {}", refused.text);
                assert!(refused.body["limit"].is_i64(), "{}", refused.text);
            }
        }
    }
    let proposed = propose(&app, &author, who.tenant_id, 60_000_000, json!({})).await.expect(201);
    let first = approve(&app, &second, &proposed).await.expect(200);
    assert_eq!(available(&app, &who, first.header("calos-position")).await, 10_000_000, "one of two is not enough");
    let twice = approve(&app, &second, &proposed).await.expect(409);
    assert_eq!((&twice.body["approvals"], &twice.body["approvalsNeeded"]), (&json!(1), &json!(2)), "{}", twice.text);
    let last = approve(&app, &third, &proposed).await.expect(200);
    assert_eq!(available(&app, &who, last.header("calos-position")).await, 70_000_000);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_is_taken_only_as_far_as_it_is_there_and_a_rejected_one_moves_nothing() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let (author, second) = (app.staff(Role::Operator).await, app.staff(Role::Operator).await);
    let much = propose(&app, &author, who.tenant_id, -10_000_001, json!({"reason": "fraud"})).await.expect(201);
    let refused = approve(&app, &second, &much).await.expect(409);
    assert!(refused.body["error"].as_str().expect("words").contains("needs 10000001"), "{}", refused.text);
    let id = much.body["adjustmentId"].as_str().expect("an id");
    let path = format!("/api/finance/adjustments/{id}");
    let open = read(&app, &author, &path, "").await.expect(200);
    assert_eq!((&open.body["status"], &open.body["approvals"]), (&json!("open"), &json!([])), "{}", open.text);

    let all = propose(&app, &author, who.tenant_id, -10_000_000, json!({"reason": "fraud"})).await.expect(201);
    let taken = approve(&app, &second, &all).await.expect(200);
    assert_eq!(available(&app, &who, taken.header("calos-position")).await, 0);

    let reject = |by: &Registered, reason: &str| {
        let request = app.post(&format!("{path}/reject"), &json!({"reason": reason}));
        Answer::of(request.bearer_auth(by.token.clone()))
    };
    assert_eq!(reject(&second, "").await.expect(400).body["param"], "reason");
    assert_eq!(reject(&second, &"x".repeat(501)).await.expect(400).body["param"], "reason");
    let rejected = reject(&second, "no evidence").await.expect(200);
    let after = rejected.header("calos-position").to_owned();
    assert!(reject(&second, "again").await.expect(409).body["rejectedAt"].is_string());
    assert!(approve(&app, &second, &much).await.expect(409).body["rejectedAt"].is_string());
    let shown = read(&app, &author, &path, &after).await.expect(200);
    assert_eq!(
        (&shown.body["status"], &shown.body["rejection"], &shown.body["rejectedBy"]),
        (&json!("rejected"), &json!("no evidence"), &json!(second.user_id)),
        "{}",
        shown.text
    );
    let list = read(&app, &author, "/api/finance/adjustments?status=rejected", &after).await.expect(200);
    assert_eq!(list.body["adjustments"].as_array().map(Vec::len), Some(1), "{}", list.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_answered_with_the_first_answer_and_does_nothing_more() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let (author, second) = (app.staff(Role::Operator).await, app.staff(Role::Operator).await);
    let body =
        json!({"tenantId": who.tenant_id, "asset": "CREDIT", "amount": 5, "reason": "goodwill", "evidence": "x"});
    let propose = |body: &Value| {
        let request = app.post("/api/finance/adjustments", body).bearer_auth(&author.token);
        Answer::of(request.header("idempotency-key", "one"))
    };
    let first = propose(&body).await.expect(201);
    let again = propose(&body).await.expect(201);
    assert_eq!((&again.body, again.header("idempotent-replayed")), (&first.body, "true"));
    let mut other = body.clone();
    other["amount"] = json!(6);
    assert_eq!(propose(&other).await.expect(409).body["code"], "idempotency_key_reused");

    let id = first.body["adjustmentId"].as_str().expect("an id");
    let approve = || {
        let request = app.client.post(app.url(&format!("/api/finance/adjustments/{id}/approve")));
        let request = request.bearer_auth(&second.token).header("idempotency-key", "two");
        Answer::of(request.header("calos-after", first.header("calos-position")))
    };
    let done = approve().await.expect(200);
    let events = app.event_count().await;
    let again = approve().await.expect(200);
    assert_eq!((&again.body, again.header("calos-position")), (&done.body, done.header("calos-position")));
    assert_eq!(app.event_count().await, events);
    let balance = read(&app, &who, "/api/credits/balance", done.header("calos-position")).await.expect(200);
    assert_eq!(balance.body["credits_remaining"], 105);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proposed_is_refused_by_the_fields_name() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let author = app.staff(Role::Operator).await;
    let before = app.event_count().await;
    for (more, field) in [
        (json!({"amount": 0}), "amount"),
        (json!({"amount": "5"}), "amount"),
        (json!({"amount": 1.5}), "amount"),
        (json!({"asset": "EUR"}), "asset"),
        (json!({"reason": "because"}), "reason"),
        (json!({"evidence": ""}), "evidence"),
        (json!({"evidence": "x".repeat(1_001)}), "evidence"),
        (json!({"evidence": "a\u{0}b"}), "evidence"),
        (json!({"effectiveAt": "yesterday"}), "effectiveAt"),
        (json!({"effectiveAt": "2100-01-01T00:00:00Z"}), "effectiveAt"),
        (json!({"tenantId": "x"}), "tenantId"),
    ] {
        let refused = propose(&app, &author, who.tenant_id, 1, more.clone()).await.expect(400);
        assert_eq!((&refused.body["code"], &refused.body["param"]), (&json!("invalid_field"), &json!(field)), "{more}");
    }
    propose(&app, &author, who.tenant_id, 1, json!({"surprise": 1})).await.expect(400);
    propose(&app, &author, Uuid::now_v7(), 1, json!({})).await.expect(404);
    let unknown = app.client.post(app.url(&format!("/api/finance/adjustments/{}/approve", Uuid::now_v7())));
    Answer::of(unknown.bearer_auth(&author.token)).await.expect(404);
    assert_eq!(app.event_count().await, before, "what was refused changed nothing");
    app.stop().await;
}
