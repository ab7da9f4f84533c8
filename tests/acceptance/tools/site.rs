//! A site on loopback that counts who comes.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The largest head of a request.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// What stands at a path.
pub enum Page {
    Html(String),
    Redirect(String),
}

impl Page {
    pub fn html(text: &str) -> Self {
        Self::Html(text.to_owned())
    }

    pub fn redirect(to: &str) -> Self {
        Self::Redirect(to.to_owned())
    }

    fn response(&self) -> String {
        match self {
            Self::Html(text) => format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                text.len()
            ),
            Self::Redirect(to) => {
                format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            }
        }
    }
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
}

/// The site; it ends with the test.
pub struct Site {
    pub address: SocketAddr,
    counts: Arc<Counts>,
    server: JoinHandle<()>,
}

impl Site {
    pub async fn start(pages: &[(&str, Page)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let pages: HashMap<String, String> =
            pages.iter().map(|(path, page)| ((*path).to_owned(), page.response())).collect();
        let (counts, pages) = (Arc::new(Counts::default()), Arc::new(pages));
        let counting = Arc::clone(&counts);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counting.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer(stream, Arc::clone(&pages), Arc::clone(&counting)));
            }
        });
        Self { address, counts, server }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often somebody connected.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// How often a page was asked for.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(mut stream: TcpStream, pages: Arc<HashMap<String, String>>, counts: Arc<Counts>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_MAX_BYTES {
        let mut piece = [0; 1_024];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&piece[..read]),
        }
    }
    counts.requests.fetch_add(1, Ordering::SeqCst);
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let response = pages.get(path).map_or(missing, String::as_str);
    // A reader that has gone is no failure of the site's.
    let _gone = stream.write_all(response.as_bytes()).await;
}
