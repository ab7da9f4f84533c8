//! Fetches pages of the public web for somebody who may have been told to fetch something else.
//!
//! [`target`] looks at the URL, [`resolver`] at every address behind it, [`client`] connects to those addresses and reads
//! within bounds, hop by hop; [`media`] and [`text`] make it readable. No proxy, cookie, credential or referer is sent.

pub mod address;
pub mod client;
pub mod media;
pub mod resolver;
pub mod target;
#[cfg(test)]
mod tests;
pub mod text;
mod writer;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calos_commands::log::Boxed;
use calos_commands::web::{FetchRefusal, FetchedPage, WebFetcher};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use address::{AddressPolicy, own_addresses};
use client::{Document, Hops, NoFetcher, tls};
use resolver::{NameLookup, SystemLookup};

/// How long a name, and then a connection, may take to stand.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a site may be silent: before the head of its answer, and between two pieces of the body.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a fetch may take with all its redirects.
pub const WHOLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long making text of a page may take; what is not read by then is cut off.
pub const READING_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest body.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;
/// The longest text of a page.
pub const TEXT_MAX_CHARACTERS: usize = 40_000;
/// How many redirects are followed.
pub const REDIRECTS_MAX: usize = 5;
/// How many fetches run at a time; one more is refused, not queued.
pub const FETCHES_MAX: usize = 64;

/// Where a fetch may go, and how far. The default is the public web's usual ports.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Which addresses may be connected to.
    pub allow: AddressPolicy,
    /// This machine's own addresses, asked for anew at every hop: they are not fetched from however public they are.
    pub own: fn() -> io::Result<Vec<IpAddr>>,
    /// Ports besides 80 and 443.
    pub extra_ports: Vec<u16>,
    /// See [`CONNECT_TIMEOUT`].
    pub connect: Duration,
    /// See [`IDLE_TIMEOUT`].
    pub idle: Duration,
    /// See [`WHOLE_TIMEOUT`].
    pub whole: Duration,
    /// See [`BODY_MAX_BYTES`].
    pub body_max_bytes: usize,
    /// See [`TEXT_MAX_CHARACTERS`].
    pub text_max_characters: usize,
    /// See [`REDIRECTS_MAX`].
    pub redirects_max: usize,
    /// See [`FETCHES_MAX`].
    pub fetches_max: usize,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            allow: AddressPolicy::PublicOnly,
            own: own_addresses,
            extra_ports: Vec::new(),
            connect: CONNECT_TIMEOUT,
            idle: IDLE_TIMEOUT,
            whole: WHOLE_TIMEOUT,
            body_max_bytes: BODY_MAX_BYTES,
            text_max_characters: TEXT_MAX_CHARACTERS,
            redirects_max: REDIRECTS_MAX,
            fetches_max: FETCHES_MAX,
        }
    }
}

/// The fetcher. A clone shares its bounds.
#[derive(Clone)]
pub struct SafeFetcher {
    settings: Arc<FetchSettings>,
    lookup: Arc<dyn NameLookup>,
    tls: Arc<rustls::ClientConfig>,
    running: Arc<Semaphore>,
}

impl fmt::Debug for SafeFetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SafeFetcher").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl SafeFetcher {
    /// A fetcher that asks the system's resolver and trusts the system's certificates.
    ///
    /// # Errors
    /// [`NoFetcher`].
    pub fn new(settings: FetchSettings) -> Result<Self, NoFetcher> {
        Self::with_lookup(settings, Arc::new(SystemLookup::default()))
    }

    /// A fetcher that asks `lookup` for names. What it answers is checked like any other answer.
    ///
    /// # Errors
    /// [`NoFetcher`].
    pub fn with_lookup(settings: FetchSettings, lookup: Arc<dyn NameLookup>) -> Result<Self, NoFetcher> {
        let running = Arc::new(Semaphore::new(settings.fetches_max));
        Ok(Self { settings: Arc::new(settings), lookup, tls: Arc::new(tls()?), running })
    }

    /// A document, and the permit it was fetched under.
    async fn permitted(&self, url: &str) -> Result<(Document, OwnedSemaphorePermit), FetchRefusal> {
        let permit = Arc::clone(&self.running).try_acquire_owned().map_err(|_| FetchRefusal::Busy)?;
        let hops = Hops { settings: &self.settings, lookup: self.lookup.as_ref(), tls: &self.tls };
        let document = timeout(self.settings.whole, hops.document(url)).await.map_err(|_| FetchRefusal::Timeout)??;
        Ok((document, permit))
    }

    async fn page(&self, url: &str) -> Result<FetchedPage, FetchRefusal> {
        let (document, permit) = self.permitted(url).await?;
        let limit = self.settings.text_max_characters;
        let deadline = Instant::now() + READING_TIMEOUT;
        apart(permit, move || page_of(&document, limit, deadline)).await
    }
}

/// Does work that other calls on this thread should not wait for. It goes on when nobody waits for it any more, and its
/// permit is held until it ends, so that whoever leaves early starts no more of it than whoever stays.
async fn apart<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FetchRefusal> {
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.map_err(|error| {
        tracing::error!(%error, "a fetched page could not be read");
        FetchRefusal::Unreachable
    })
}

impl WebFetcher for SafeFetcher {
    fn fetch<'a>(&'a self, url: &'a str) -> Boxed<'a, Result<FetchedPage, FetchRefusal>> {
        Box::pin(self.page(url))
    }
}

fn page_of(document: &Document, limit: usize, deadline: Instant) -> FetchedPage {
    let body = document.media.decode(&document.body);
    let readable = text::readable(&body, document.media.form, &document.url, limit, deadline);
    FetchedPage {
        final_url: document.url.to_string(),
        status: document.status,
        content_type: document.media.essence.to_owned(),
        title: readable.title,
        text: readable.text,
        truncated: readable.truncated,
    }
}
