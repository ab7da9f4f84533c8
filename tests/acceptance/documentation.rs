//! `/openapi.json` documents what is served.

use calos_tests::app::{Answer, TestApp};
use reqwest::Method;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn the_document_lists_every_path_of_the_spine_and_each_of_them_is_served() {
    let app = TestApp::start().await;
    let document = Answer::of(app.get("/openapi.json")).await.expect(200);
    assert_eq!(document.header("content-type"), "application/json");
    assert!(document.body["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document.text);
    for (path, method) in [
        ("/health", "get"),
        ("/readyz", "get"),
        ("/api/health/database", "get"),
        ("/.well-known/calos-ledger-key", "get"),
        ("/api/auth/register", "post"),
        ("/api/auth/login", "post"),
        ("/api/auth/logout", "post"),
        ("/api/auth/session", "get"),
        ("/api/tenants", "post"),
        ("/api/tenants/{id}/keys", "post"),
        ("/v1/chat/completions", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{id}", "get"),
        ("/api/tenants/{id}", "patch"),
        ("/api/chat/complete", "post"),
        ("/api/credits/balance", "get"),
        ("/api/credits/ledger", "get"),
        ("/api/credits/usage", "get"),
        ("/api/credits/statement", "get"),
        ("/api/credits/receipts/{partition}/{position}", "get"),
        ("/api/finance/trial-balance", "get"),
        ("/api/finance/accounts", "get"),
        ("/api/finance/journal", "get"),
        ("/api/finance/verify", "post"),
        ("/api/finance/export", "get"),
        ("/api/finance/adjustments", "post"),
        ("/api/finance/adjustments/{id}/approve", "post"),
        ("/api/finance/adjustments/{id}/reject", "post"),
        ("/api/finance/periods/{month}/close", "post"),
        ("/api/finance/reconciliation", "post"),
    ] {
        assert!(!document.body["paths"][path][method].is_null(), "{method} {path} is not documented");
    }
    let paths = document.body["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        for method in operations.as_object().expect("operations").keys() {
            let Ok(verb) = method.to_uppercase().parse::<Method>() else { continue };
            let real = path.replace("{id}", "x").replace("{keyId}", "x");
            let answer = Answer::of(app.client.request(verb, app.url(&real))).await;
            let code = answer.body["code"].as_str().or(answer.body["error"]["code"].as_str()).unwrap_or_default();
            assert!(!["unknown_path", "method_not_allowed"].contains(&code), "{method} {path} is not served");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reference_within_the_document_leads_somewhere() {
    let document = serde_json::to_value(calos_api::openapi::document()).expect("the document is JSON");
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("references stay within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                references.push(reference.clone());
            }
            fields.values().for_each(|field| collect(field, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}
