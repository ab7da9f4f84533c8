//! Sites that send the fetcher somewhere else.

use calos_commands::web::{FetchRefusal, WebFetcher as _};

use super::super::{REDIRECTS_MAX, SafeFetcher};
use super::site::{Names, Site, allowing, fetcher, page, raw, redirect};

#[tokio::test]
async fn a_redirect_is_followed_and_said() {
    let site = Site::start(|path| match path {
        "/old/page" => redirect(301, "../new?q=1#part"),
        _ => page("text/plain", "here"),
    })
    .await;
    let page = fetcher(&[&site]).fetch(&site.url("/old/page")).await.unwrap();
    assert_eq!((page.final_url, page.text.as_str()), (site.url("/new?q=1"), "here"));
}

#[tokio::test]
async fn no_redirect_leads_inside() {
    use FetchRefusal::{BadUrl, ForbiddenAddress, Port, Scheme, Unreachable, Userinfo};
    let trap = Site::trap().await;
    let port = trap.port();
    let places = [
        (format!("http://127.0.0.1:{port}/"), ForbiddenAddress),
        (format!("//127.0.0.1:{port}/"), ForbiddenAddress),
        (format!("http://[::1]:{port}/"), ForbiddenAddress),
        (format!("http://2130706433:{port}/"), ForbiddenAddress),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), ForbiddenAddress),
        (format!("http://localhost:{port}/"), ForbiddenAddress),
        (format!("http://pages.example.com:{port}/"), Unreachable),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), ForbiddenAddress),
        ("http://127.0.0.1:22/".to_owned(), Port { port: 22 }),
        (format!("http://example.com@127.0.0.1:{port}/"), Userinfo),
        (format!("/\\127.0.0.1:{port}/"), BadUrl),
        ("file:///etc/passwd".to_owned(), Scheme),
        (format!("ftp://127.0.0.1:{port}/"), Scheme),
        (format!("gopher://127.0.0.1:{port}/_INFO"), Scheme),
        ("javascript:alert(1)".to_owned(), Scheme),
        ("data:text/html,hello".to_owned(), Scheme),
    ];
    let locations = places.clone().map(|(location, _)| location);
    let site = Site::start(move |path| {
        let (status, place) = path[1..].split_once('/').unwrap();
        redirect(status.parse().unwrap(), &locations[place.parse::<usize>().unwrap()])
    })
    .await;
    let mut settings = allowing(&[&site]);
    settings.extra_ports.push(port);
    let names = Names::say([&["127.0.0.1"]; 5]);
    let fetcher = SafeFetcher::with_lookup(settings, names.clone()).unwrap();
    for status in [301, 302, 303, 307, 308] {
        for (index, (place, refusal)) in places.iter().enumerate() {
            let answer = fetcher.fetch(&site.url(&format!("/{status}/{index}"))).await;
            assert_eq!(answer, Err(refusal.clone()), "{status} {place}");
        }
    }
    assert_eq!(names.asked(), ["pages.example.com"; 5]);
    assert_eq!(trap.visitors().await, 0);
}

#[tokio::test]
async fn a_chain_is_followed_to_its_limit_and_a_loop_no_further() {
    let site = Site::start(|path| match path.trim_start_matches('/').parse::<usize>() {
        Ok(0) => page("text/plain", "the end"),
        Ok(left) => redirect(302, &format!("/{}", left - 1)),
        Err(_) => redirect(302, "/round"),
    })
    .await;
    let fetcher = fetcher(&[&site]);
    assert_eq!(fetcher.fetch(&site.url("/5")).await.unwrap().text, "the end");
    assert_eq!(site.visitors().await, REDIRECTS_MAX + 1);
    let limit = REDIRECTS_MAX;
    assert_eq!(fetcher.fetch(&site.url("/6")).await, Err(FetchRefusal::TooManyRedirects { limit }));
    assert_eq!(fetcher.fetch(&site.url("/round")).await, Err(FetchRefusal::TooManyRedirects { limit }));
    assert_eq!(site.visitors().await, 3 * (REDIRECTS_MAX + 1));
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_an_answer_without_a_page() {
    let site = Site::start(|path| match path {
        "/304" => raw("HTTP/1.1 304 Not Modified\r\nlocation: /\r\n\r\n"),
        "/300" => raw("HTTP/1.1 300 Choices\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"),
        _ => raw("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n"),
    })
    .await;
    for status in [300, 302, 304] {
        let answer = fetcher(&[&site]).fetch(&site.url(&format!("/{status}"))).await;
        assert_eq!(answer, Err(FetchRefusal::Status(status)));
    }
}
