//! Listening: bounded connections, header limits, timeouts, and a graceful end.

mod door;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt;

use calos_commands::figures::Level;

use crate::boundary::LOG_TARGET;
use crate::listening::Listening;
use crate::request::Peer;

/// Connections held open at a time; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 8_192;

/// Headers of a request; more is answered 431.
pub const HEADERS_MAX: usize = 100;

/// Request line and headers together; more is answered 431.
pub const HEADERS_MAX_BYTES: usize = 64 * 1024;

/// How long a connection may take over its next request's headers, waiting between requests included.
pub const HEADERS_MAX_SECONDS: u64 = 75;

/// How long calls in flight may take to finish once the server is asked to stop.
pub const GRACE_MAX_SECONDS: u64 = 30;

/// With another process waiting at the same socket, a connection that is idle is closed only this long after the stop: whoever
/// uses it meanwhile is answered and told to connect anew, so that no request is sent into a connection that closes.
const LINGER: Duration = Duration::from_secs(1);

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    /// Cancelled once nothing is accepted any more.
    accepted: CancellationToken,
    connections: TaskTracker,
    /// Whoever drops a server without stopping it leaves no thread behind that accepts.
    _stops: DropGuard,
}

impl Server {
    /// Starts to accept what arrives at the socket, and counts the connections that are open. Called on the runtime that is to
    /// answer them.
    ///
    /// # Errors
    /// The operating system's, when the socket cannot be used or there is no thread for it.
    pub fn start(router: Router, listening: Listening, open: Level) -> std::io::Result<Self> {
        let Listening { listener, handed_over } = listening;
        let (stop, accepted, connections) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let ending = Ending { stop: stop.clone(), linger: if handed_over { LINGER } else { Duration::ZERO } };
        let serving = Serving { router, ending, open, connections: connections.clone() };
        let address = door::open(listener, serving, accepted.clone())?;
        let stops = stop.clone().drop_guard();
        Ok(Self { address, stop, accepted, connections, _stops: stops })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cancelled once the server is asked to stop.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Stops accepting, lets calls in flight finish for at most `grace`, and says whether all of them did.
    pub async fn stop(self, grace: Duration) -> bool {
        self.stop.cancel();
        self.accepted.cancelled().await;
        self.connections.close();
        tokio::time::timeout(grace, self.connections.wait()).await.is_ok()
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Serving {
    router: Router,
    ending: Ending,
    open: Level,
    connections: TaskTracker,
}

/// How a connection learns that the server stops.
#[derive(Clone)]
struct Ending {
    stop: CancellationToken,
    linger: Duration,
}

impl Ending {
    /// Once a connection that is idle may be closed.
    async fn idle_may_close(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(self.linger).await;
    }
}

/// Serves one connection on the runtime it is called on; with `office`, requests that take work are answered there.
async fn serve_connection(stream: TcpStream, peer: SocketAddr, router: Router, ending: Ending, office: Option<Handle>) {
    // A stream of small chunks would otherwise wait for the other side's acknowledgements, about 40 ms each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "the connection ended before it began");
        return;
    }
    let stop = ending.stop.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        let office = office.clone().filter(|_| !door::is_watching(&request));
        let (answering, stop) = (router.clone().oneshot(request.map(Body::new)), stop.clone());
        async move {
            let answered = match office {
                None => answering.await,
                // Given up with the connection, as it would be here.
                Some(office) => AbortOnDropHandle::new(office.spawn(answering)).await.map_err(std::io::Error::other)?,
            };
            let mut response = answered.unwrap_or_else(|never| match never {});
            // Said in time, so that the client sends its next request elsewhere instead of into a closing connection.
            if stop.is_cancelled() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::io::Error>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADERS_MAX_SECONDS))
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADERS_MAX_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = ending.idle_may_close() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // What is not HTTP at all never becomes a request: hyper answers 400 or 431 without a body, this is its one line.
        if error.is_parse() {
            tracing::warn!(target: LOG_TARGET, %peer, code = "not_http", "{error}");
        } else {
            tracing::debug!(%peer, %error, "a connection broke off");
        }
    }
}

/// Resolves when the process is asked to stop, by SIGINT or SIGTERM.
///
/// # Errors
/// When the operating system refuses to tell about signals.
pub async fn asked_to_stop() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}
