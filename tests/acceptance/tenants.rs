//! Tenants and their keys, as a client meets them.

use std::time::Duration;

use calos_tests::app::{Answer, TestApp};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::identity::{ok, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_created_listed_and_closed_to_strangers() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let stranger = app.register().await;
    let create = app.post("/api/tenants", &json!({"name": " Acme "})).bearer_auth(&who.token);
    let created = ok(create, 201).await;
    let tenant_id = created.body["tenantId"].as_str().expect("an id").to_owned();
    assert_eq!(created.body, json!({"tenantId": tenant_id, "name": "Acme", "role": "owner"}));

    let list = app.get("/api/tenants").bearer_auth(&who.token).header("calos-after", created.header("calos-position"));
    let listed = ok(list, 200).await.body;
    let names: Vec<_> = listed["tenants"].as_array().expect("a list").iter().map(|line| line["name"].clone()).collect();
    assert_eq!(names, ["Personal", "Acme"]);

    let keys = format!("/api/tenants/{tenant_id}/keys");
    refused(app.post(&keys, &json!({})).bearer_auth(&stranger.token), 404, "not_found").await;
    refused(app.get(&keys).bearer_auth(&stranger.token), 404, "not_found").await;
    refused(
        app.get("/api/credits/balance").bearer_auth(&stranger.token).header("x-calos-tenant", &tenant_id),
        404,
        "not_found",
    )
    .await;
    let own = app.get("/api/credits/balance").bearer_auth(&who.token).header("x-calos-tenant", &tenant_id);
    assert_eq!(ok(own, 200).await.body["balance_micros"], 0, "the free start comes with a person, once");
    for name in ["", "   ", &*"x".repeat(201)] {
        refused(app.post("/api/tenants", &json!({"name": name})).bearer_auth(&who.token), 400, "invalid_field").await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_tenant_is_refused_by_tier_where_another_is_answered_by_another_model() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let key = app.issue_key(&who).await;
    let path = format!("/api/tenants/{}", who.tenant_id);
    let patch = |token: &str, body: Value| app.client.patch(app.url(&path)).json(&body).bearer_auth(token);
    let substituted = app.chat(&key, "gpt-4").await.expect(200);
    assert_eq!(substituted.header("x-calos-substituted-for"), "gpt-4");

    let changed = ok(patch(&who.token, json!({"strictModels": true})), 200).await;
    assert_eq!((&changed.body["strictModels"], &changed.body["role"]), (&json!(true), &json!("owner")));
    let strict = app.chat(&key, "gpt-4").await.expect(403);
    assert_eq!(strict.body["error"]["code"], "model_not_allowed");
    assert!(strict.body["error"]["message"].as_str().is_some_and(|text| text.contains("pro")), "{}", strict.text);
    let list = app.get("/api/tenants").bearer_auth(&who.token).header("calos-after", changed.header("calos-position"));
    assert_eq!(ok(list, 200).await.body["tenants"][0]["strictModels"], true);

    app.admin_tier(who.tenant_id, calos_api::cli::TierName::Pro).await;
    assert_eq!(app.chat(&key, "gpt-4").await.expect(200).body["model"], "gpt-4");

    let stranger = app.register().await;
    refused(patch(&stranger.token, json!({"strictModels": false})), 404, "not_found").await;
    for body in [json!({}), json!({"strictModels": "yes"}), json!({"strict": true}), json!({"name": "Ada's"})] {
        refused(patch(&who.token, body), 400, "invalid_field").await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_renamed_by_its_owner() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let created = ok(app.post("/api/tenants", &json!({"name": "Acme"})).bearer_auth(&who.token), 201).await;
    let path = format!("/api/tenants/{}", created.body["tenantId"].as_str().expect("an id"));
    let rename = |name: &str| app.client.patch(app.url(&path)).json(&json!({"name": name})).bearer_auth(&who.token);
    let renamed = ok(rename(" Acme & Sons "), 200).await;
    assert_eq!(renamed.body["name"], "Acme & Sons");
    let list = app.get("/api/tenants").bearer_auth(&who.token).header("calos-after", renamed.header("calos-position"));
    assert_eq!(ok(list, 200).await.body["tenants"][1]["name"], "Acme & Sons");
    refused(rename(" "), 400, "invalid_field").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_listed_without_its_secret_and_revoked_for_ever() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let keys = format!("/api/tenants/{}/keys", who.tenant_id);
    let issued = ok(app.post(&keys, &json!({"name": "ci"})).bearer_auth(&who.token), 201).await;
    let fields: Vec<_> = issued.body.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(fields, ["createdAt", "key", "keyId", "lastFour", "prefix"]);
    let key = issued.body["key"].as_str().expect("a key").to_owned();
    let key_id = issued.body["keyId"].as_str().expect("an id");
    assert!(key.starts_with(&format!("sk-tenant-{}-{key_id}", who.tenant_id)));
    assert!(key.starts_with(issued.body["prefix"].as_str().expect("a prefix")));
    assert!(key.ends_with(issued.body["lastFour"].as_str().expect("four characters")));

    let list = app.get(&keys).bearer_auth(&who.token).header("calos-after", issued.header("calos-position"));
    let listed = ok(list, 200).await;
    let secret = &key[key.len() - 32..];
    assert!(!listed.text.contains(secret) && !listed.text.contains("$2b$"));
    assert_eq!(listed.body["keys"][0]["limits"], json!({"perMinute": 60, "perHour": 1_000, "perDay": 10_000}));

    let call = || app.get("/api/credits/balance").bearer_auth(&key);
    ok(call(), 200).await;
    ok(app.get("/api/credits/balance").header("x-api-key", &key), 200).await;
    let revoke = || app.client.delete(app.url(&format!("{keys}/{key_id}"))).bearer_auth(&who.token);
    ok(revoke(), 204).await;
    refused(call(), 401, "invalid_api_key").await;
    ok(revoke(), 204).await;
    for unknown in ["abcd1234", "garbage"] {
        let request = app.client.delete(app.url(&format!("{keys}/{unknown}"))).bearer_auth(&who.token);
        refused(request, 404, "not_found").await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_key_is_refused_where_it_may_not_go() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let keys = format!("/api/tenants/{}/keys", who.tenant_id);
    let issue = |body: Value| app.post(&keys, &body).bearer_auth(&who.token);
    let call = |key: &str| app.get("/api/credits/balance").bearer_auth(key);
    let key_of = |answer: Answer| answer.body["key"].as_str().expect("a key").to_owned();

    let elsewhere = key_of(ok(issue(json!({"endpoints": ["/v1/models"]})), 201).await);
    refused(call(&elsewhere), 403, "endpoint_not_allowed").await;
    let far = key_of(ok(issue(json!({"ipAllowlist": ["203.0.113.0/24"]})), 201).await);
    refused(call(&far), 403, "address_not_allowed").await;
    let near = key_of(ok(issue(json!({"ipAllowlist": ["127.0.0.0/8", "::1"]})), 201).await);
    ok(call(&near), 200).await;

    for (body, param) in [
        (json!({"endpoints": []}), "endpoints"),
        (json!({"endpoints": ["v1/models"]}), "endpoints"),
        (json!({"ipAllowlist": ["localhost"]}), "ipAllowlist"),
        (json!({"limits": {"perMinute": 0}}), "limits"),
        (json!({"limits": {"perMinute": -1}}), "limits.perMinute"),
        (json!({"expiresAt": "yesterday"}), "expiresAt"),
        (json!({"expiresAt": "2020-01-01T00:00:00Z"}), "expiresAt"),
        (json!({"name": ""}), "name"),
    ] {
        let answer = refused(issue(body.clone()), 400, "invalid_field").await;
        assert_eq!(answer.body["param"], param, "{body}");
    }
    refused(issue(json!({"ipAllowList": ["203.0.113.0/24"]})), 400, "invalid_field").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_expires_stops_working_even_while_it_is_remembered() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let now = time::OffsetDateTime::now_utc() + time::Duration::milliseconds(1_500);
    let until = now.format(&time::format_description::well_known::Rfc3339).expect("a moment");
    let keys = format!("/api/tenants/{}/keys", who.tenant_id);
    let issued = ok(app.post(&keys, &json!({"expiresAt": until})).bearer_auth(&who.token), 201).await;
    let key = issued.body["key"].as_str().expect("a key").to_owned();
    let call = || app.get("/api/credits/balance").bearer_auth(&key);
    ok(call(), 200).await;
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    refused(call(), 401, "invalid_api_key").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_refused_and_then_not_even_looked_at() {
    let app = TestApp::start().await;
    let who = app.register().await;
    let key = app.issue_key(&who).await;
    let wrong = |number: usize| format!("{}{number:032}", &key[..key.len() - 32]);
    let call = |key: &str| app.get("/api/credits/balance").bearer_auth(key);
    refused(call(&wrong(0)), 401, "invalid_api_key").await;
    // Twenty at once; while they are compared a few more become allowed.
    let flood = join_all((1..40).map(|number| Answer::of(call(&wrong(number))))).await;
    let limited: Vec<_> = flood.iter().filter(|answer| answer.status == 429).collect();
    assert!(limited.len() >= 10, "{} of 39 were limited", limited.len());
    assert!(flood.iter().all(|answer| matches!(answer.status.as_u16(), 401 | 429)));
    assert_eq!(limited[0].body["code"], "too_many_attempts");
    assert!(!limited[0].header("retry-after").is_empty());
    refused(call(&wrong(0)), 401, "invalid_api_key").await;
    app.stop().await;
}
