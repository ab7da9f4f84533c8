//! The port to the public web: one page, read as text, for somebody who may not be trusted with its address.
//!
//! Who asks is a model, and a model repeats what the last page told it to. So the port refuses whatever does not lead
//! to the public web, and a refusal says nothing about the network CALOS stands in.

use crate::log::Boxed;

/// A page as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedPage {
    /// Where the page was found after all redirects, without a fragment.
    pub final_url: String,
    /// The HTTP status, always 200 to 299.
    pub status: u16,
    /// The media type without parameters, in lower case: `text/html`.
    pub content_type: String,
    /// The title of an HTML page that has one.
    pub title: Option<String>,
    /// What can be read there: HTML without its markup, anything else as it is. Bounded in characters.
    pub text: String,
    /// Whether the page goes on after `text`.
    pub truncated: bool,
}

/// Why a page was not fetched. Fit to be shown to a model: it names what was asked for, never what was found inside.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FetchRefusal {
    /// No URL, too long a one, or one with characters that two readers would read differently.
    #[error("that is not a URL that can be fetched: a plain absolute http or https URL is needed")]
    BadUrl,
    /// Neither http nor https.
    #[error("only http and https URLs are fetched")]
    Scheme,
    /// A user name or a password in the URL.
    #[error("a URL with a user name or a password is not fetched")]
    Userinfo,
    /// A port that is not one of the web's.
    #[error("port {port} is not fetched, only the usual ports of http and https are")]
    Port {
        /// The port of the URL.
        port: u16,
    },
    /// The host is not on the public internet, as far as the URL alone says. A name that turns out to stand for an
    /// address inside is [`Self::Unreachable`], lest refusals tell which names the network inside knows.
    #[error("that address is not public")]
    ForbiddenAddress,
    /// The page pointed on and on.
    #[error("gave up after {limit} redirects")]
    TooManyRedirects {
        /// How many redirects are followed.
        limit: usize,
    },
    /// The answer's body is larger than may be read.
    #[error("the page is larger than {limit_bytes} bytes")]
    TooLarge {
        /// How many bytes of a body are read at most.
        limit_bytes: usize,
    },
    /// Something that is not text.
    #[error("what stands there is of the type {found}, which is not read as text")]
    ContentType {
        /// The media type found, or `unknown`.
        found: String,
    },
    /// A compressed answer, though none was asked for.
    #[error("the site sent a compressed page although it was asked for a plain one")]
    Encoded,
    /// The name, the connection, the answer or the next piece of it took too long.
    #[error("the site took too long to answer")]
    Timeout,
    /// The name is not known or stands for an address that is not public, nobody listens, or the connection broke.
    #[error("the site cannot be reached")]
    Unreachable,
    /// The site's answer was not a page.
    #[error("the site answered with status {0}")]
    Status(u16),
    /// Too many pages are being fetched for others right now.
    #[error("too many pages are being fetched right now, try again in a moment")]
    Busy,
}

/// Reads pages of the public web.
pub trait WebFetcher: Send + Sync {
    /// Fetches one page and reads it as text, within bounded time and size. Nothing of the caller travels along.
    ///
    /// # Errors
    /// Any [`FetchRefusal`]; one that is about the URL comes before anything is connected to.
    fn fetch<'a>(&'a self, url: &'a str) -> Boxed<'a, Result<FetchedPage, FetchRefusal>>;
}
