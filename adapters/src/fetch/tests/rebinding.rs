//! Names that mean something else the second time, or several things at once.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calos_commands::log::Boxed;
use calos_commands::web::{FetchRefusal, WebFetcher as _};
use reqwest::dns::Resolve as _;

use super::super::SafeFetcher;
use super::super::resolver::{NameLookup, Pinned, SystemLookup};
use super::super::target::Target;
use super::site::{Names, Site, allowing, page, redirect};

/// An open site and a trap on the same port of another address, and a URL whose name may mean either.
async fn twins() -> (Site, Site, String) {
    for _attempt in 0..20 {
        let open = Site::start(|path| match path {
            "/again" => redirect(302, "/"),
            _ => page("text/plain", "open"),
        })
        .await;
        let address = format!("127.0.0.2:{}", open.port());
        if let Ok(listener) = tokio::net::TcpListener::bind(&address).await {
            drop(listener);
            let trap = Site::start_at(address.parse().unwrap(), |_| page("text/plain", "the secret")).await;
            let url = format!("http://pages.example.com:{}", open.port());
            return (open, trap, url);
        }
    }
    panic!("no port is free on both addresses");
}

#[tokio::test]
async fn a_name_that_means_an_inner_address_is_refused() {
    let (open, trap, url) = twins().await;
    let inner: [&[&str]; 4] = [&["127.0.0.2"], &["::ffff:127.0.0.2"], &["10.0.0.1"], &["fe80::1"]];
    for answer in inner {
        // What a name nobody knows is refused with too: which names mean something inside is told to nobody.
        let fetcher = SafeFetcher::with_lookup(allowing(&[&open]), Names::say([answer])).unwrap();
        assert_eq!(fetcher.fetch(&url).await, Err(FetchRefusal::Unreachable), "{answer:?}");
    }
    assert_eq!(trap.visitors().await, 0);
}

#[tokio::test]
async fn one_inner_address_among_public_ones_is_enough() {
    let (open, trap, url) = twins().await;
    let mixed: [&[&str]; 3] = [
        &["127.0.0.1", "127.0.0.2"],
        &["127.0.0.2", "127.0.0.1"],
        // More than are ever tried.
        &[
            "127.0.0.1",
            "1.1.1.1",
            "1.1.1.2",
            "1.1.1.3",
            "1.1.1.4",
            "1.1.1.5",
            "1.1.1.6",
            "1.1.1.7",
            "1.1.1.8",
            "10.0.0.1",
        ],
    ];
    for answer in mixed {
        let fetcher = SafeFetcher::with_lookup(allowing(&[&open]), Names::say([answer])).unwrap();
        assert_eq!(fetcher.fetch(&url).await, Err(FetchRefusal::Unreachable), "{answer:?}");
    }
    assert_eq!((open.visitors().await, trap.visitors().await), (0, 0));
}

#[tokio::test]
async fn what_a_name_means_between_check_and_connection_does_not_matter() {
    let (open, trap, url) = twins().await;
    let names = Names::say([&["127.0.0.1"], &["127.0.0.2"]]);
    let fetcher = SafeFetcher::with_lookup(allowing(&[&open]), names.clone()).unwrap();
    assert_eq!(fetcher.fetch(&url).await.unwrap().text, "open");
    assert_eq!(names.asked(), ["pages.example.com"]);
    assert_eq!((open.visitors().await, trap.visitors().await), (1, 0));
}

#[tokio::test]
async fn a_name_is_checked_again_at_every_hop() {
    let (open, trap, url) = twins().await;
    let names = Names::say([&["127.0.0.1"], &["127.0.0.2"]]);
    let fetcher = SafeFetcher::with_lookup(allowing(&[&open]), names.clone()).unwrap();
    assert_eq!(fetcher.fetch(&format!("{url}/again")).await, Err(FetchRefusal::Unreachable));
    assert_eq!(names.asked().len(), 2);
    assert_eq!((open.visitors().await, trap.visitors().await), (1, 0));
}

#[tokio::test]
async fn a_name_without_addresses_cannot_be_reached() {
    let (open, _trap, url) = twins().await;
    let fetcher = SafeFetcher::with_lookup(allowing(&[&open]), Names::say([&[]])).unwrap();
    assert_eq!(fetcher.fetch(&url).await, Err(FetchRefusal::Unreachable));
    assert_eq!(fetcher.fetch(&url).await, Err(FetchRefusal::Unreachable), "a name nobody knows");
}

#[tokio::test]
async fn a_public_address_of_this_machine_is_not_fetched_from() {
    let mut settings = allowing(&[]);
    settings.own = || Ok(vec![IpAddr::from([1, 1, 1, 1])]);
    let names = Names::say([&["1.1.1.1"]]);
    let fetcher = SafeFetcher::with_lookup(settings.clone(), names).unwrap();
    assert_eq!(fetcher.fetch("http://1.1.1.1/").await, Err(FetchRefusal::ForbiddenAddress));
    assert_eq!(fetcher.fetch("http://pages.example.com/").await, Err(FetchRefusal::Unreachable));
    settings.own = || Err(io::ErrorKind::PermissionDenied.into());
    let fetcher = SafeFetcher::with_lookup(settings, Names::say([])).unwrap();
    assert_eq!(fetcher.fetch("http://1.1.1.1/").await, Err(FetchRefusal::Unreachable), "in doubt it is not");
}

/// A resolver that never hears from the servers of one domain.
fn tarpit(name: &str) -> io::Result<Vec<IpAddr>> {
    if name.ends_with("tarpit.example.") {
        std::thread::sleep(Duration::from_secs(3));
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(vec![IpAddr::from([127, 0, 0, 1])])
}

#[tokio::test]
async fn look_ups_that_were_given_up_keep_nobody_else_waiting() {
    let site = Site::start(|_| page("text/plain", "open")).await;
    let mut settings = allowing(&[&site]);
    settings.connect = Duration::from_millis(300);
    let fetcher = SafeFetcher::with_lookup(settings.clone(), Arc::new(SystemLookup::asking(tarpit))).unwrap();
    let lost = (0..settings.fetches_max).map(|number| {
        let fetcher = fetcher.clone();
        async move { fetcher.fetch(&format!("http://n{number}.tarpit.example/")).await }
    });
    let lost = futures_util::future::join_all(lost).await;
    assert!(lost.iter().all(|lost| *lost == Err(FetchRefusal::Timeout)), "{lost:?}");
    let url = format!("http://pages.example.com:{}/", site.port());
    assert_eq!(fetcher.fetch(&url).await.unwrap().text, "open");
}

struct Silent;

impl NameLookup for Silent {
    fn lookup<'a>(&'a self, _name: &'a str) -> Boxed<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_silent_resolver_is_waited_for_only_so_long() {
    let mut settings = allowing(&[]);
    settings.connect = Duration::from_millis(200);
    let fetcher = SafeFetcher::with_lookup(settings, Arc::new(Silent)).unwrap();
    let begun = Instant::now();
    assert_eq!(fetcher.fetch("http://pages.example.com/").await, Err(FetchRefusal::Timeout));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_connection_knows_no_name_but_the_one_that_was_checked() {
    let target = Target::parse("https://pages.example.com/", &[]).unwrap();
    let sockets = vec!["1.1.1.1:443".parse().unwrap()];
    let pinned = Pinned::new(&target, sockets.clone());
    let known: Vec<_> = pinned.resolve("pages.example.com".parse().unwrap()).await.unwrap().collect();
    assert_eq!(known, sockets);
    assert!(pinned.resolve("other.example.com".parse().unwrap()).await.is_err());
    let literal = Pinned::new(&Target::parse("https://1.1.1.1/", &[]).unwrap(), sockets);
    assert!(literal.resolve("1.1.1.1".parse().unwrap()).await.is_err());
}
