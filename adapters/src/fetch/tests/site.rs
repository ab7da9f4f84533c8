//! A server on loopback that says exactly what it is told to, and knows who connected.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::super::address::AddressPolicy;
use super::super::resolver::NameLookup;
use super::super::{FetchSettings, SafeFetcher};
use calos_commands::log::Boxed;

/// How long the tests' fetchers wait for a silent site.
pub(super) const IDLE: Duration = Duration::from_millis(400);
/// How long the tests' fetchers wait for a whole page.
pub(super) const WHOLE: Duration = Duration::from_millis(1_500);

/// Pieces of an answer, each after a pause. The connection is closed behind the last.
pub(super) type Answer = Vec<(Duration, Vec<u8>)>;

/// An answer in one piece.
pub(super) fn raw(bytes: impl Into<Vec<u8>>) -> Answer {
    vec![(Duration::ZERO, bytes.into())]
}

/// A page in one piece, its end marked by the end of the connection.
pub(super) fn page(content_type: &str, body: impl AsRef<[u8]>) -> Answer {
    let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body.as_ref());
    raw(bytes)
}

/// A redirect.
pub(super) fn redirect(status: u16, location: &str) -> Answer {
    raw(format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"))
}

#[derive(Default)]
struct Seen {
    peers: Vec<SocketAddr>,
    heads: Vec<String>,
}

pub(super) struct Site {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    serving: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Site {
    pub(super) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), answer).await
    }

    pub(super) async fn start_at(address: SocketAddr, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::serve(TcpListener::bind(address).await.unwrap(), answer)
    }

    /// What no fetch may reach, on every address of this machine.
    pub(super) async fn trap() -> Self {
        let listener = match TcpListener::bind("[::]:0").await {
            Ok(listener) => listener,
            Err(_no_ipv6) => TcpListener::bind("0.0.0.0:0").await.unwrap(),
        };
        Self::serve(listener, |_| page("text/plain", "the secret"))
    }

    fn serve(listener: TcpListener, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let answer = Arc::new(answer);
        let noted = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                noted.lock().unwrap().peers.push(peer);
                tokio::spawn(answered(stream, Arc::clone(&noted), Arc::clone(&answer)));
            }
        });
        Self { address, seen, serving }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// What the requests so far began with.
    pub(super) fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().heads.clone()
    }

    /// How many connected. Connects itself and waits until that is seen: whoever came earlier was seen before it.
    pub(super) async fn visitors(&self) -> usize {
        let host: IpAddr = if self.address.ip().is_unspecified() { [127, 0, 0, 1].into() } else { self.address.ip() };
        let probe = TcpStream::connect((host, self.port())).await.unwrap();
        let port = probe.local_addr().unwrap().port();
        for _attempt in 0..500 {
            let peers = self.seen.lock().unwrap().peers.clone();
            if let Some(place) = peers.iter().position(|peer| peer.port() == port) {
                self.seen.lock().unwrap().peers.remove(place);
                return place;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the probe was not seen");
    }
}

async fn answered(mut stream: TcpStream, seen: Arc<Mutex<Seen>>, answer: Arc<impl Fn(&str) -> Answer>) {
    let mut head = Vec::new();
    let mut piece = [0; 4_096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(read) => head.extend_from_slice(&piece[..read]),
        }
        // A TLS handshake has no end of a head; its first record is enough.
        if head[0] == 0x16 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().heads.push(head);
    for (pause, bytes) in answer(&path) {
        tokio::time::sleep(pause).await;
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Settings under which exactly these sites may be reached besides the public web.
pub(super) fn allowing(sites: &[&Site]) -> FetchSettings {
    FetchSettings {
        allow: AddressPolicy::PublicAndNonPublic(sites.iter().map(|site| site.address).collect()),
        extra_ports: sites.iter().map(|site| site.port()).collect(),
        connect: Duration::from_secs(5),
        idle: IDLE,
        whole: WHOLE,
        ..FetchSettings::default()
    }
}

/// A fetcher that may reach exactly these sites besides the public web, and knows no names.
pub(super) fn fetcher(sites: &[&Site]) -> SafeFetcher {
    SafeFetcher::with_lookup(allowing(sites), Names::say([])).unwrap()
}

/// A resolver that answers what it was told to, one answer per question.
#[derive(Default)]
pub(super) struct Names {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    pub(super) fn say<const N: usize>(answers: [&[&str]; N]) -> Arc<Self> {
        let read = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(read).collect()), asked: Mutex::default() })
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl NameLookup for Names {
    fn lookup<'a>(&'a self, name: &'a str) -> Boxed<'a, io::Result<Vec<IpAddr>>> {
        self.asked.lock().unwrap().push(name.to_owned());
        let answer = self.answers.lock().unwrap().pop_front();
        Box::pin(std::future::ready(answer.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))))
    }
}
