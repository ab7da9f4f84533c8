//! Alive, ready, signed.

use std::time::Duration;

use calos_tests::app::{Answer, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn a_started_server_is_alive_and_ready_and_says_what_it_simulates() {
    let app = TestApp::start().await;
    let health = Answer::of(app.get("/health")).await.expect(200);
    assert_eq!((&health.body["status"], &health.body["database"]), (&"ok".into(), &"connected".into()));
    assert!(health.body["uptime"].as_u64().is_some_and(|seconds| seconds < 60), "{}", health.text);

    let database = Answer::of(app.get("/api/health/database")).await.expect(200);
    assert_eq!(database.body["connected"], true);
    assert!(database.body["tables"].as_u64().is_some_and(|tables| tables >= 10), "{}", database.text);

    let ready = Answer::of(app.get("/readyz")).await.expect(200);
    assert_eq!(ready.body["ready"], true);
    for check in ["database", "migrations", "projections", "providers", "embedded"] {
        assert_eq!(ready.body["checks"][check]["ok"], true, "{check}: {}", ready.text);
    }
    assert!(ready.body["notes"].to_string().contains("simulated"), "{}", ready.text);
    assert!(!ready.body["notes"].to_string().contains("append-only"), "{}", ready.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_protected_by_triggers_alone_is_ready_but_says_so() {
    let app = TestApp::start().await;
    let grant = sqlx::query("GRANT UPDATE ON events TO calos_app").execute(&app.database.owner_pool).await;
    grant.expect("the owner may grant");
    let ready = Answer::of(app.get("/readyz")).await.expect(200);
    assert!(ready.body["notes"].to_string().contains("triggers alone"), "{}", ready.text);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_key_is_the_one_its_anchors_are_signed_with() {
    let app = TestApp::start().await;
    let key = Answer::of(app.get("/.well-known/calos-ledger-key")).await.expect(200);
    assert_eq!(key.body["algorithm"], "Ed25519");
    const NEWEST: &str = "SELECT anchor ->> 'public_key' FROM anchors ORDER BY id DESC LIMIT 1";
    let mut found = None;
    for _ in 0..100 {
        found = sqlx::query_scalar::<_, String>(NEWEST)
            .fetch_optional(&app.database.pool)
            .await
            .expect("the anchors can be read");
        if found.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(found.as_deref(), key.body["publicKey"].as_str());
    app.stop().await;
}
