//! A restart nobody notices: the socket is held by whoever starts the servers, and one takes over from the other.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use calos_tests::database::TestDatabase;
use serde_json::json;

use crate::server::{Place, Server, client, pro_tenant};

/// Callers that send one request after the other, half of them over a connection they keep.
const CALLERS: usize = 16;

/// How often the server is replaced while they call.
const RESTARTS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_one_server_takes_over_from_another() {
    let database = TestDatabase::create().await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database.url.clone()) };
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let handed = || OwnedFd::from(socket.try_clone().expect("the socket can be shared"));
    let mut serving = Server::start_at(&place, &socket, handed()).await;
    let tenant = pro_tenant(&place, &serving.url).await;

    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let calls: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (url, key) = (serving.url.clone(), tenant.key.clone());
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
            tokio::spawn(async move {
                let kept = client();
                // A slow answer keeps calls in flight while the server is told to stop.
                let text = if caller % 4 == 0 { "[[first_byte_delay_ms=400]] hello" } else { "hello" };
                let body = json!({"model": "gpt-4", "max_tokens": 8, "messages": [{"role": "user", "content": text}]});
                while !over.load(Ordering::Relaxed) {
                    let client = if caller % 2 == 0 { kept.clone() } else { client() };
                    let call = client.post(format!("{url}/v1/chat/completions")).bearer_auth(&key).json(&body);
                    let answer = call.send().await.unwrap_or_else(|error| panic!("a call was dropped: {error:?}"));
                    let status = answer.status();
                    let text = answer.text().await.unwrap_or_else(|error| panic!("an answer broke off: {error:?}"));
                    assert_eq!(status, 200, "{text}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for _ in 0..RESTARTS {
        more_are_answered(&answered).await;
        let mut before = std::mem::replace(&mut serving, Server::start_at(&place, &socket, handed()).await);
        let ended = tokio::task::spawn_blocking(move || before.terminate()).await.expect("no panic");
        assert!(ended.success(), "the server before did not stop in order: {ended}");
    }
    more_are_answered(&answered).await;
    over.store(true, Ordering::Relaxed);
    for call in calls {
        call.await.expect("every call was answered");
    }
    let charged = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM events WHERE event_type = 'credits_deducted'");
    let charged = charged.fetch_one(&database.pool).await.expect("the log can be read");
    assert_eq!(u64::try_from(charged), Ok(answered.load(Ordering::Relaxed)), "each answer was charged once");
    let open = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FILTER (WHERE event_type = 'hold_placed') \
         - count(*) FILTER (WHERE event_type IN ('credits_deducted', 'hold_released')) FROM events",
    );
    assert_eq!(open.fetch_one(&database.pool).await.expect("the log can be read"), 0, "a hold was left behind");
    assert!(serving.terminate().success());
}

/// Waits until each caller has been answered a few times more.
async fn more_are_answered(answered: &AtomicU64) {
    let (begun, before) = (Instant::now(), answered.load(Ordering::Relaxed));
    while answered.load(Ordering::Relaxed) < before + 4 * CALLERS as u64 {
        assert!(begun.elapsed() < Duration::from_secs(30), "calls are no longer answered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
