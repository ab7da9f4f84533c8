//! The harness measures what it says: against a provider whose delays are known, through the floor, in both loops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::connection::Goal;
use super::load::{Arrival, Seen, Span, generate};
use super::provider::{self, SWITCHES_PATH, Switches};
use super::set_up::KEY;
use super::{floor, http_client};

async fn started() -> (SocketAddr, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = listener.local_addr().unwrap();
    tokio::spawn(provider::serve(listener));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let floor = listener.local_addr().unwrap();
    tokio::spawn(async move { floor::serve(listener, &format!("http://{provider}"), KEY).await });
    (provider, floor)
}

async fn switch(provider: SocketAddr, switches: Switches) {
    let url = format!("http://{provider}{SWITCHES_PATH}");
    let answered = http_client().unwrap().put(url).json(&switches).send().await.unwrap();
    assert!(answered.status().is_success());
}

async fn load(address: SocketAddr, tokens: Option<u64>, arrival: Arrival) -> Seen {
    let goal = Goal::new(address, &[KEY.to_owned()], tokens).unwrap();
    let begin = Instant::now() + Duration::from_millis(200);
    let span = Span { begin, end: begin + Duration::from_millis(500) };
    let goal = Arc::clone(&goal);
    tokio::task::spawn_blocking(move || generate(&goal, arrival, span)).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_delay_is_measured_as_it_is() {
    let (provider, floor) = started().await;
    switch(provider, Switches { first_byte_delay_ms: 20, token_delay_ms: 5, answer_tokens: 4 }).await;
    for address in [provider, floor] {
        let seen = load(address, None, Arrival::Closed(4)).await;
        assert_eq!((seen.failed, &seen.first_failure), (0, &None));
        assert!(seen.whole.quantile_micros(0.0).unwrap() >= 20_000.0);

        let seen = load(address, None, Arrival::Open(100.0)).await;
        assert_eq!(seen.failed, 0, "{:?}", seen.first_failure);
        assert!((20..100).contains(&seen.calls), "{}", seen.calls);
        assert!(seen.whole.quantile_micros(0.0).unwrap() >= 20_000.0);

        let seen = load(address, Some(4), Arrival::Closed(2)).await;
        assert_eq!(seen.failed, 0, "{:?}", seen.first_failure);
        assert!(seen.first_token.quantile_micros(0.0).unwrap() >= 25_000.0);
        assert!(seen.whole.quantile_micros(0.0).unwrap() >= 40_000.0);
        assert!(seen.gaps.quantile_micros(0.5).unwrap() >= 3_000.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_another_length_counts_as_failed() {
    let (provider, _) = started().await;
    switch(provider, Switches { answer_tokens: 4, ..Switches::default() }).await;
    let goal = Goal::new(provider, &[KEY.to_owned()], Some(5)).unwrap();
    let begin = Instant::now();
    let span = Span { begin, end: begin + Duration::from_millis(100) };
    let failed = tokio::task::spawn_blocking(move || generate(&goal, Arrival::Closed(1), span)).await.unwrap();
    assert!(failed.err().unwrap().to_string().contains("4 tokens instead of 5"));
}
