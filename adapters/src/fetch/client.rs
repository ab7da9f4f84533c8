//! One hop after the other: check, connect to what was checked, read within bounds.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use calos_commands::web::FetchRefusal;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, LOCATION};
use reqwest::{Response, StatusCode};
use rustls::client::Resumption;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::time::timeout;

use super::FetchSettings;
use super::media::MediaType;
use super::resolver::{NameLookup, Pinned, checked_sockets};
use super::target::Target;

/// Who is asking. A site that does not want CALOS can say so.
const USER_AGENT: &str = concat!("CALOS/", env!("CARGO_PKG_VERSION"));
/// What is asked for; what comes is checked.
const ACCEPTED: HeaderValue = HeaderValue::from_static(
    "text/html,application/xhtml+xml,application/rss+xml,application/atom+xml,application/feed+json,\
     application/json;q=0.9,application/xml;q=0.9,text/xml;q=0.9,text/markdown;q=0.9,text/plain;q=0.8",
);
/// The most header lines an answer may have.
const HEADERS_MAX: usize = 100;

/// What was found at a URL, not yet read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// Where it was found after all redirects.
    pub url: url::Url,
    /// The HTTP status, 200 to 299.
    pub status: u16,
    /// What it says it is, one of the types that are accepted.
    pub media: MediaType,
    /// The body, whole.
    pub body: Bytes,
}

/// The fetcher cannot be built: no certificates of the system can be read, as a rule.
#[derive(Debug, thiserror::Error)]
#[error("the client that fetches pages cannot be built: {0}")]
pub struct NoFetcher(#[from] rustls::Error);

/// Certificates as the system trusts them. Sessions are not resumed: two fetches have nothing to do with each other.
pub(super) fn tls() -> Result<rustls::ClientConfig, NoFetcher> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What every hop needs.
pub(super) struct Hops<'a> {
    pub(super) settings: &'a FetchSettings,
    pub(super) lookup: &'a dyn NameLookup,
    pub(super) tls: &'a rustls::ClientConfig,
}

impl Hops<'_> {
    /// Follows `url` to a document, each hop under the same rules as the first.
    pub(super) async fn document(&self, url: &str) -> Result<Document, FetchRefusal> {
        let ports = &self.settings.extra_ports;
        let mut target = Target::parse(url, ports)?;
        for _hop in 0..=self.settings.redirects_max {
            let response = self.answer(&target).await?;
            match redirect(&response)? {
                Some(location) => target = target.join(location, ports)?,
                None => return self.read(&target, response).await,
            }
        }
        Err(FetchRefusal::TooManyRedirects { limit: self.settings.redirects_max })
    }

    /// Asks for `target` over a connection of its own, to an address that was checked.
    async fn answer(&self, target: &Target) -> Result<Response, FetchRefusal> {
        let settings = self.settings;
        let sockets = checked_sockets(target, settings, self.lookup).await?;
        // A client per hop costs microseconds, and leaves no pool in which a connection could outlive its check.
        let client = reqwest::Client::builder()
            .dns_resolver(Pinned::new(target, sockets))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .http1_only()
            .http1_max_headers(HEADERS_MAX)
            .pool_max_idle_per_host(0)
            .connect_timeout(settings.connect)
            .user_agent(USER_AGENT)
            .tls_backend_preconfigured(self.tls.clone())
            .build()
            .map_err(unreachable)?;
        let request = client
            .get(target.url().clone())
            .header(ACCEPT, ACCEPTED)
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let answer = timeout(settings.connect + settings.idle, request.send()).await;
        answer.map_err(|_| FetchRefusal::Timeout)?.map_err(unreachable)
    }

    /// Reads an answer that is no redirect: its status and type first, its body only when both will do.
    async fn read(&self, target: &Target, response: Response) -> Result<Document, FetchRefusal> {
        let status = response.status();
        if !status.is_success() {
            return Err(FetchRefusal::Status(status.as_u16()));
        }
        let encodings = response.headers().get_all(CONTENT_ENCODING);
        if encodings.iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(FetchRefusal::Encoded);
        }
        let media = MediaType::of(response.headers())?;
        let body = self.body(response).await?;
        Ok(Document { url: target.url().clone(), status: status.as_u16(), media, body })
    }

    /// Counts what arrives, whatever the answer said its length was.
    async fn body(&self, mut response: Response) -> Result<Bytes, FetchRefusal> {
        let limit_bytes = self.settings.body_max_bytes;
        let mut body = BytesMut::new();
        loop {
            let piece = timeout(self.settings.idle, response.chunk()).await.map_err(|_| FetchRefusal::Timeout)?;
            let Some(piece) = piece.map_err(unreachable)? else { return Ok(body.freeze()) };
            if body.len() + piece.len() > limit_bytes {
                return Err(FetchRefusal::TooLarge { limit_bytes });
            }
            body.extend_from_slice(&piece);
        }
    }
}

/// Where an answer points, when it is a redirect.
fn redirect(response: &Response) -> Result<Option<&str>, FetchRefusal> {
    let status = response.status();
    if !matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    ) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).ok_or(FetchRefusal::Status(status.as_u16()))?;
    std::str::from_utf8(location.as_bytes()).map(Some).map_err(|_| FetchRefusal::BadUrl)
}

/// What went wrong stays in the log of the operator; who asked learns only that it did.
fn unreachable(error: reqwest::Error) -> FetchRefusal {
    let late = error.is_timeout();
    tracing::debug!(error = ?error.without_url(), "a fetch failed");
    if late { FetchRefusal::Timeout } else { FetchRefusal::Unreachable }
}
