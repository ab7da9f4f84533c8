//! Answers that are too large, too slow, or not what they should be.

use std::time::{Duration, Instant};

use calos_commands::web::{FetchRefusal, WebFetcher as _};

use super::super::{BODY_MAX_BYTES, SafeFetcher};
use super::site::{Answer, IDLE, Names, Site, WHOLE, allowing, fetcher, page, raw};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n";
const ENDLESS_PIECES: usize = 1_024;

/// 64 MiB behind a head: more than any buffer between the two ends.
fn endless(head: &str) -> Answer {
    let mut answer = raw(head);
    answer.extend((0..ENDLESS_PIECES).map(|_| (Duration::ZERO, vec![b'a'; 64 * 1024])));
    answer
}

#[tokio::test]
async fn a_body_is_read_to_its_limit_and_no_byte_further() {
    let site = Site::start(|path| match path {
        "/fits" => page("text/plain", vec![b'a'; BODY_MAX_BYTES]),
        "/more" => page("text/plain", vec![b'a'; BODY_MAX_BYTES + 1]),
        "/chunked" => {
            let mut body = format!("{:x}\r\n", BODY_MAX_BYTES + 1).into_bytes();
            body.extend(vec![b'a'; BODY_MAX_BYTES + 1]);
            body.extend_from_slice(b"\r\n0\r\n\r\n");
            let mut answer =
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            answer.extend(body);
            raw(answer)
        }
        _ => endless(HEAD),
    })
    .await;
    let fetcher = fetcher(&[&site]);
    assert!(fetcher.fetch(&site.url("/fits")).await.unwrap().truncated);
    for path in ["/more", "/chunked", "/endless"] {
        let limit_bytes = BODY_MAX_BYTES;
        assert_eq!(fetcher.fetch(&site.url(path)).await, Err(FetchRefusal::TooLarge { limit_bytes }), "{path}");
    }
}

#[tokio::test]
async fn a_site_that_falls_silent_is_left() {
    let site = Site::start(|path| match path {
        "/head" => vec![(IDLE * 20, HEAD.into())],
        _ => vec![(Duration::ZERO, HEAD.into()), (Duration::ZERO, b"a".to_vec()), (IDLE * 20, b"b".to_vec())],
    })
    .await;
    let mut settings = allowing(&[&site]);
    (settings.connect, settings.whole) = (IDLE, IDLE * 20);
    let fetcher = SafeFetcher::with_lookup(settings, Names::say([])).unwrap();
    for path in ["/head", "/body"] {
        let begun = Instant::now();
        assert_eq!(fetcher.fetch(&site.url(path)).await, Err(FetchRefusal::Timeout), "{path}");
        assert!(begun.elapsed() < IDLE * 10, "{path}: the idle limit, not the whole one");
    }
}

#[tokio::test]
async fn a_site_that_drips_is_left_too() {
    let site = Site::start(|_| {
        let mut answer = raw(HEAD);
        answer.extend((0..100).map(|_| (IDLE / 4, b"a".to_vec())));
        answer
    })
    .await;
    let begun = Instant::now();
    assert_eq!(fetcher(&[&site]).fetch(&site.url("/")).await, Err(FetchRefusal::Timeout));
    assert!(begun.elapsed() >= WHOLE && begun.elapsed() < WHOLE * 3);
}

#[tokio::test]
async fn a_compressed_page_is_not_unpacked() {
    let site = Site::start(|path| {
        let encoding = path.trim_start_matches('/');
        endless(&format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-encoding: {encoding}\r\n\r\n"))
    })
    .await;
    for encoding in ["gzip", "br", "zstd", "deflate", "GZIP"] {
        let answer = fetcher(&[&site]).fetch(&site.url(&format!("/{encoding}"))).await;
        assert_eq!(answer, Err(FetchRefusal::Encoded), "{encoding}");
    }
    let site =
        Site::start(|_| raw("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-encoding: identity\r\n\r\nplain"))
            .await;
    assert_eq!(fetcher(&[&site]).fetch(&site.url("/")).await.unwrap().text, "plain");
}

#[tokio::test]
async fn a_picture_is_refused_before_it_is_read() {
    let site = Site::start(|_| endless("HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n")).await;
    let found = "image/png".to_owned();
    assert_eq!(fetcher(&[&site]).fetch(&site.url("/")).await, Err(FetchRefusal::ContentType { found }));
}

#[tokio::test]
async fn an_error_page_is_no_page() {
    let site = Site::start(|path| {
        let status = path.trim_start_matches('/');
        endless(&format!("HTTP/1.1 {status} No\r\ncontent-type: text/html\r\n\r\n"))
    })
    .await;
    for status in [401, 403, 404, 429, 500, 503] {
        let answer = fetcher(&[&site]).fetch(&site.url(&format!("/{status}"))).await;
        assert_eq!(answer, Err(FetchRefusal::Status(status)));
    }
}

#[tokio::test]
async fn a_broken_answer_is_no_page() {
    let headers: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let site = Site::start(move |path| match path {
        "/cut" => raw("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nhalf"),
        "/other" => raw("220 mail.example.com ESMTP\r\n"),
        "/headers" => raw(format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n{headers}\r\n")),
        _ => Vec::new(),
    })
    .await;
    for path in ["/cut", "/other", "/headers", "/nothing"] {
        assert_eq!(fetcher(&[&site]).fetch(&site.url(path)).await, Err(FetchRefusal::Unreachable), "{path}");
    }
    let gone = site.url("/");
    let fetcher = fetcher(&[&site]);
    drop(site);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fetcher.fetch(&gone).await, Err(FetchRefusal::Unreachable));
}

#[tokio::test]
async fn one_fetch_too_many_is_refused_and_the_next_is_not() {
    let site = Site::start(|_| vec![(IDLE / 2, format!("{HEAD}slow").into_bytes())]).await;
    let mut settings = allowing(&[&site]);
    settings.fetches_max = 1;
    let fetcher = SafeFetcher::with_lookup(settings, Names::say([])).unwrap();
    let url = site.url("/");
    let (first, second) = tokio::join!(fetcher.fetch(&url), fetcher.fetch(&url));
    assert_eq!((first.unwrap().text.as_str(), second), ("slow", Err(FetchRefusal::Busy)));
    assert!(fetcher.fetch(&url).await.is_ok());
}
