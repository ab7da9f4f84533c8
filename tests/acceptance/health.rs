//! Alive, ready, signed.

use std::time::Duration;

use calos_tests::app::{Answer, TestApp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// What one connection is answered.
#[expect(clippy::expect_used, reason = "a test fails where its server does")]
async fn said(stream: &mut tokio::net::TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("the connection is open");
    let (mut answer, mut piece) = (Vec::new(), [0_u8; 4096]);
    while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") || answer.ends_with(b"\r\n\r\n") {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut piece)).await;
        let read = read.expect("an answer in time").expect("an answer");
        assert!(read > 0, "the server hung up");
        answer.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The door serves who only watches, and must not change what anybody gets.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_answered_the_same_whatever_it_asks_for_first() {
    let app = TestApp::start().await;
    let ask = |method: &str, path: &str, body: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut watcher = tokio::net::TcpStream::connect(app.address).await.expect("a connection");
    let mut caller = tokio::net::TcpStream::connect(app.address).await.expect("a connection");
    assert!(said(&mut watcher, &ask("GET", "/health", "")).await.starts_with("HTTP/1.1 200"));
    for stream in [&mut watcher, &mut caller] {
        assert!(said(stream, &ask("GET", "/readyz", "")).await.starts_with("HTTP/1.1 200"));
        let refused = said(stream, &ask("POST", "/v1/chat/completions", "{\"model\":\"gpt-4\"}")).await;
        assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("authentication_error"), "{refused}");
        assert!(said(stream, &ask("GET", "/health", "")).await.contains("\"status\":\"ok\""));
        assert!(said(stream, &ask("POST", "/health", "")).await.starts_with("HTTP/1.1 405"));
    }
    let mut slow = tokio::net::TcpStream::connect(app.address).await.expect("a connection");
    slow.write_all(b"GET /hea").await.expect("the connection is open");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(said(&mut slow, "lth HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    app.stop().await;
}
