//! URLs that lead inside, in every way of writing them that is known. None may cause a connection.

use calos_commands::web::{FetchRefusal, WebFetcher as _};

use super::super::{FetchSettings, SafeFetcher};
use super::site::{Names, Site, allowing};

/// The ways to loopback: `PORT` is where a trap listens on every address of this machine.
const LOOPBACK: [&str; 32] = [
    "http://127.0.0.1:PORT/",
    "http://127.0.0.2:PORT/",
    "http://127.255.255.254:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://2130706433:PORT/",
    "http://017700000001:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://00000177.0.0.1:PORT/",
    "http://0x7f.0.0.1:PORT/",
    "http://0x7f.1:PORT/",
    "http://0x7f000001:PORT/",
    "http://127.1:PORT/",
    "http://127.0.1:PORT/",
    "http://0:PORT/",
    "http://0.0.0.0:PORT/",
    "http://[::1]:PORT/",
    "http://[::]:PORT/",
    "http://[0000::1]:PORT/",
    "http://[::127.0.0.1]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[::ffff:0:127.0.0.1]:PORT/",
    "http://[64:ff9b::127.0.0.1]:PORT/",
    "http://[64:ff9b:1::127.0.0.1]:PORT/",
    "http://[2002:7f00:1::]:PORT/",
    "http://[2001:0:7f00:1::]:PORT/",
    "http://%31%32%37.0.0.1:PORT/",
    "http://１２７.0.0.1:PORT/",
    "http://①②⑦.⓪.⓪.①:PORT/",
    "http://127。0。0。1:PORT/",
    "http://127.0.0.1:PORT#@example.com/",
    "http://127.0.0.1:PORT?@example.com/",
];

/// Other places that are not the public web.
const INSIDE: [&str; 20] = [
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://168.63.129.16/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[ff02::1]/",
    "http://localhost:PORT/",
    "http://localhost.:PORT/",
    "http://a.localhost:PORT/",
    "http://metadata.google.internal/",
    "http://intranet/",
];

/// What is refused for another reason, and as what.
fn malformed() -> [(&'static str, FetchRefusal); 15] {
    use FetchRefusal::{BadUrl, Port, Scheme, Userinfo};
    [
        ("http://example.com@127.0.0.1:PORT/", Userinfo),
        ("http://example.com:80@127.0.0.1:PORT/", Userinfo),
        ("http://127.0.0.1:PORT\\@example.com/", BadUrl),
        ("http:\\\\127.0.0.1:PORT/", BadUrl),
        ("http://127.0.0.1:PORT\t/", BadUrl),
        ("http://127.0.0.1:PORT/\r\nx: y", BadUrl),
        ("ht\ntp://127.0.0.1:PORT/", BadUrl),
        ("127.0.0.1:PORT", BadUrl),
        ("//127.0.0.1:PORT/", BadUrl),
        ("file:///etc/passwd", Scheme),
        ("ftp://127.0.0.1:PORT/", Scheme),
        ("gopher://127.0.0.1:PORT/_INFO", Scheme),
        ("http://127.0.0.1:22/", Port { port: 22 }),
        ("http://127.0.0.1:25/", Port { port: 25 }),
        ("http://127.0.0.1:6379/", Port { port: 6379 }),
    ]
}

#[tokio::test]
async fn nothing_that_leads_inside_is_connected_to() {
    let trap = Site::trap().await;
    let names = Names::say([]);
    // The trap's port is allowed, so that the address alone decides.
    let settings = FetchSettings { extra_ports: vec![trap.port()], ..FetchSettings::default() };
    let fetcher = SafeFetcher::with_lookup(settings, names.clone()).unwrap();
    let inside = LOOPBACK.iter().chain(&INSIDE).map(|url| (*url, FetchRefusal::ForbiddenAddress));
    let mut wrong = Vec::new();
    for (url, refusal) in inside.chain(malformed()) {
        let url = url.replace("PORT", &trap.port().to_string());
        let answer = fetcher.fetch(&url).await;
        if answer != Err(refusal) {
            wrong.push(format!("{url:?}: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(trap.visitors().await, 0);
    assert_eq!(names.asked(), Vec::<String>::new(), "no resolver hears of them");
}

#[tokio::test]
async fn the_trap_would_have_seen_them() {
    let trap = Site::trap().await;
    let mut settings = allowing(&[&trap]);
    let reachable = std::net::SocketAddr::from(([127, 0, 0, 1], trap.port()));
    settings.allow = super::super::address::AddressPolicy::PublicAndNonPublic(vec![reachable]);
    let fetcher = SafeFetcher::with_lookup(settings, Names::say([])).unwrap();
    for url in ["http://127.0.0.1:PORT/", "http://2130706433:PORT/", "http://①②⑦.⓪.⓪.①:PORT/"] {
        let page = fetcher.fetch(&url.replace("PORT", &trap.port().to_string())).await.unwrap();
        assert_eq!(page.text, "the secret");
    }
    assert_eq!(trap.visitors().await, 3);
}

#[tokio::test]
async fn an_exception_for_one_socket_opens_no_other() {
    let open = Site::start(|_| super::site::page("text/plain", "open")).await;
    let trap = Site::trap().await;
    let mut settings = allowing(&[&open]);
    settings.extra_ports.push(trap.port());
    let fetcher = SafeFetcher::with_lookup(settings, Names::say([])).unwrap();
    assert_eq!(fetcher.fetch(&open.url("/")).await.unwrap().text, "open");
    assert_eq!(fetcher.fetch(&trap.url("/")).await, Err(FetchRefusal::ForbiddenAddress));
    let neighbour = format!("http://127.0.0.2:{}/", open.port());
    assert_eq!(fetcher.fetch(&neighbour).await, Err(FetchRefusal::ForbiddenAddress));
    assert_eq!(trap.visitors().await, 0);
}

#[test]
fn a_refusal_tells_nothing_of_the_network() {
    assert_eq!(FetchRefusal::ForbiddenAddress.to_string(), "that address is not public");
    assert_eq!(FetchRefusal::Unreachable.to_string(), "the site cannot be reached");
}

#[test]
fn what_no_test_asked_for_is_the_public_web_alone() {
    let settings = FetchSettings::default();
    assert_eq!(settings.allow, super::super::address::AddressPolicy::PublicOnly);
    assert!(settings.extra_ports.is_empty());
}
