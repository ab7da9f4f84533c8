//! The door: connections are accepted on a thread of their own, and whoever only watches the server is served there. With
//! hundreds of calls at once the other threads' queues are long, and a server that is merely busy must not look like one
//! that is dead.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::http::{Method, Request};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{CONNECTIONS_MAX, HEADERS_MAX_SECONDS, Serving, serve_connection};

/// How long to wait before accepting again when the machine is out of file descriptors.
const ACCEPT_PAUSE_MILLISECONDS: u64 = 50;

/// Pages that are made of what is in memory, and that nobody but a watcher asks for.
const WATCHED: [&str; 2] = ["/health", "/metrics"];

/// Enough of a request to know what it asks for.
const BEGINNING_BYTES: usize = 16;

/// Begins to accept; `accepted` is cancelled once nothing is any more. Everything but the watchers goes to the runtime this is
/// called on.
pub(super) fn open(
    listener: std::net::TcpListener,
    serving: Serving,
    accepted: CancellationToken,
) -> io::Result<SocketAddr> {
    let office = Handle::current();
    let here = Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = here.enter();
        TcpListener::from_std(listener)?
    };
    let address = listener.local_addr()?;
    let watch = move || {
        here.block_on(async {
            let watchers = TaskTracker::new();
            accept(listener, &serving, &office, &watchers).await;
            accepted.cancel();
            watchers.close();
            watchers.wait().await;
        });
    };
    thread::Builder::new().name("calos-door".to_owned()).spawn(watch)?;
    Ok(address)
}

async fn accept(listener: TcpListener, serving: &Serving, office: &Handle, watchers: &TaskTracker) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let stop = &serving.ending.stop;
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => return,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let inside = (permit, serving.open.enter());
                let receiving = receive(stream, peer, serving.clone(), office.clone(), inside);
                watchers.spawn(serving.connections.track_future(receiving));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MILLISECONDS)).await;
            }
        }
    }
}

/// Serves a connection here or hands it on, by what it asks for first. `inside` is dropped when it ends.
async fn receive<T>(stream: TcpStream, peer: SocketAddr, serving: Serving, office: Handle, inside: T)
where
    T: Send + 'static,
{
    let Serving { router, ending, connections, .. } = serving;
    let mut beginning = [0_u8; BEGINNING_BYTES];
    let peeked = tokio::select! {
        peeked = tokio::time::timeout(Duration::from_secs(HEADERS_MAX_SECONDS), stream.peek(&mut beginning)) => peeked,
        () = ending.idle_may_close() => return,
    };
    // It said nothing in time, or has gone.
    let Ok(Ok(peeked)) = peeked else { return };
    if begins_watching(beginning.get(..peeked).unwrap_or_default()) {
        serve_connection(stream, peer, router, ending, Some(office)).await;
        drop(inside);
        return;
    }
    let handed = stream.into_std();
    let serve = async move {
        match handed.and_then(TcpStream::from_std) {
            Ok(stream) => serve_connection(stream, peer, router, ending, None).await,
            Err(error) => tracing::debug!(%peer, %error, "the connection ended before it began"),
        }
        drop(inside);
    };
    connections.spawn_on(serve, &office);
}

/// Whether what came so far is the beginning of a watcher's request. One that comes in pieces is taken for another.
fn begins_watching(bytes: &[u8]) -> bool {
    let path = bytes.strip_prefix(b"GET ").unwrap_or_default();
    WATCHED.iter().any(|watched| {
        let rest = path.strip_prefix(watched.as_bytes());
        rest.and_then(<[u8]>::first).is_some_and(|next| matches!(next, b' ' | b'?'))
    })
}

/// Whether a request is one of those that are answered here.
pub(super) fn is_watching<B>(request: &Request<B>) -> bool {
    *request.method() == Method::GET && WATCHED.contains(&request.uri().path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_is_known_by_the_beginning_of_its_first_request() {
        let watchers: [&[u8]; 3] = [b"GET /health HTTP", b"GET /metrics HTT", b"GET /health?x=1 "];
        assert!(watchers.iter().all(|bytes| begins_watching(bytes)));
        let others: [&[u8]; 7] = [
            b"",
            b"GET /hea",
            b"GET /health",
            b"GET /healthy HTT",
            b"POST /health HTT",
            b"GET /api/health/",
            b"POST /v1/chat/co",
        ];
        assert!(!others.iter().any(|bytes| begins_watching(bytes)));
        let request = |method: Method, uri: &str| Request::builder().method(method).uri(uri).body(()).unwrap();
        assert!(is_watching(&request(Method::GET, "/metrics?x=1")));
        assert!(!is_watching(&request(Method::POST, "/health")) && !is_watching(&request(Method::GET, "/readyz")));
    }
}
