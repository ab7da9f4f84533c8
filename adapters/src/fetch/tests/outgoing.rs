//! What a fetch tells the site, and which way it goes there.

use calos_commands::web::{FetchRefusal, WebFetcher as _};

use super::super::SafeFetcher;
use super::site::{Names, Site, allowing, fetcher, page, raw};

#[tokio::test]
async fn an_html_page_is_fetched_and_read() {
    let site = Site::start(|_| {
        page(
            "text/html; charset=iso-8859-1",
            b"<title>Caf\xe9</title><script>no()</script><h1>Menu</h1><p>Tea <a href=/t>here</a>",
        )
    })
    .await;
    let page = fetcher(&[&site]).fetch(&site.url("/a?b=c")).await.unwrap();
    assert_eq!(page.title.as_deref(), Some("Café"));
    assert_eq!(page.text, format!("# Menu\n\nTea here ({})", site.url("/t")));
    assert_eq!((page.status, page.content_type.as_str(), page.truncated), (200, "text/html", false));
    assert_eq!(page.final_url, site.url("/a?b=c"));
}

#[tokio::test]
async fn a_text_too_long_is_cut_and_said_to_be() {
    let site = Site::start(|_| page("text/html", "<p>ééééé ééééé")).await;
    let mut settings = allowing(&[&site]);
    settings.text_max_characters = 8;
    let page = SafeFetcher::with_lookup(settings, Names::say([])).unwrap().fetch(&site.url("/")).await.unwrap();
    assert_eq!((page.text.as_str(), page.truncated), ("ééééé éé", true));
}

#[tokio::test]
async fn a_feed_comes_as_its_bytes() {
    let site = Site::start(|_| page("application/rss+xml", "<rss><title>a</title></rss>")).await;
    let fetcher = fetcher(&[&site]);
    let (document, _permit) = fetcher.permitted(&site.url("/feed")).await.unwrap();
    assert_eq!(document.body, "<rss><title>a</title></rss>");
    let page = fetcher.fetch(&site.url("/feed")).await.unwrap();
    assert_eq!((page.text.as_str(), page.title), ("<rss><title>a</title></rss>", None));
}

#[tokio::test]
async fn nothing_of_the_caller_travels_along() {
    let site = Site::start(|path| match path {
        "/" => raw("HTTP/1.1 302 Found\r\nlocation: /next\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"),
        _ => page("text/plain", "here"),
    })
    .await;
    assert!(fetcher(&[&site]).fetch(&site.url("/#part")).await.is_ok());
    let heads = site.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        let mut names: Vec<&str> =
            head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "accept-encoding", "host", "user-agent"]);
        assert!(head.contains("accept-encoding: identity\r\n") && head.contains("user-agent: CALOS/"), "{head}");
        assert!(!head.contains("part"), "{head}");
    }
}

#[tokio::test]
async fn https_speaks_tls_and_names_the_host() {
    let site = Site::start(|_| raw("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nno")).await;
    let fetcher = SafeFetcher::with_lookup(allowing(&[&site]), Names::say([&["127.0.0.1"]])).unwrap();
    let url = format!("https://pages.example.com.:{}/", site.port());
    assert_eq!(fetcher.fetch(&url).await, Err(FetchRefusal::Unreachable));
    let hello = site.heads().pop().unwrap();
    assert!(hello.starts_with('\u{16}') && hello.contains("pages.example.com") && !hello.contains("com."));
}

/// The variables are set for a process of its own, which runs another test of this file.
#[tokio::test]
async fn no_proxy_is_taken_from_the_environment() {
    let trap = Site::trap().await;
    let proxy = format!("http://127.0.0.1:{}", trap.port());
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "fetch::tests::outgoing::an_html_page_is_fetched_and_read"]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        child.env(name, &proxy);
    }
    let ran = child.env_remove("NO_PROXY").env_remove("no_proxy").kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(trap.visitors().await, 0);
}
