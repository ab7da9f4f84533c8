//! Requests another site made a browser send: refused, as far as a browser says so.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, header};

use crate::error::{ApiError, Code};
use crate::wiring::App;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Proof that a request did not come from another site, for handlers that work without a session.
pub struct SameSite;

impl FromRequestParts<App> for SameSite {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        check(&parts.method, &parts.headers, app).map(|()| Self)
    }
}

/// Refuses a changing request that a browser sent for another site.
///
/// # Errors
/// 403 `cross_site_request`.
pub(super) fn check(method: &Method, headers: &HeaderMap, app: &App) -> Result<(), ApiError> {
    let reading = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if reading || is_same_site(headers, app.config.server.public_url.as_str()) {
        return Ok(());
    }
    Err(ApiError::new(Code::CrossSite, "this request came from another site; open CALOS itself and try again there"))
}

/// Whether a request comes from our own pages or from no browser at all.
fn is_same_site(headers: &HeaderMap, public_url: &str) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    // Browsers set it themselves and let no script change it. `none` is the person's own doing.
    if let Some(site) = text(SEC_FETCH_SITE) {
        return matches!(site, "same-origin" | "none");
    }
    // Older browsers say only where the page came from.
    let Some(origin) = text(header::ORIGIN) else { return true };
    let ours = origin.eq_ignore_ascii_case(public_url);
    let hosts = [text(header::HOST), origin.split_once("://").map(|(_, host)| host)];
    ours || matches!(hosts, [Some(host), Some(origin)] if host.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn same(headers: &[(HeaderName, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        is_same_site(&headers, "https://calos.example.com")
    }

    #[test]
    fn our_own_pages_and_programs_pass() {
        assert!(same(&[]));
        assert!(same(&[(SEC_FETCH_SITE, "same-origin"), (header::ORIGIN, "https://calos.example.com")]));
        assert!(same(&[(SEC_FETCH_SITE, "none")]));
        assert!(same(&[(header::ORIGIN, "https://calos.example.com")]));
        assert!(same(&[(header::ORIGIN, "http://localhost:5001"), (header::HOST, "localhost:5001")]));
    }

    #[test]
    fn other_sites_do_not() {
        for site in ["cross-site", "same-site", "garbage"] {
            assert!(!same(&[(SEC_FETCH_SITE, site)]), "{site}");
        }
        assert!(!same(&[(header::ORIGIN, "https://evil.example"), (header::HOST, "calos.example.com")]));
        assert!(!same(&[(header::ORIGIN, "null"), (header::HOST, "calos.example.com")]));
        assert!(!same(&[(header::ORIGIN, "https://calos.example.com.evil.example")]));
    }
}
