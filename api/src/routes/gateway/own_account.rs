//! What a provider's failure means when it was called with the tenant's own key: its words are about the tenant's
//! account, and the tenant can do something about them.

use axum::http::StatusCode;

use calos_commands::provider::ProviderError;

use super::failure::{Charged, NO_CREDIT, RATE_LIMITED, provider};
use crate::error::{ApiError, Code, kind};

/// The answer to a failure with the tenant's own key.
pub(super) fn own_account(error: ProviderError, charged: Charged) -> ApiError {
    let ProviderError::Status { provider: name, status, message, code, param, retry_after } = error else {
        return provider(error, charged);
    };
    match (status, code.as_deref()) {
        (402, _) | (_, Some(NO_CREDIT)) => ApiError::new(
            Code::InsufficientQuota,
            format!("your own account at {name} cannot pay for this: {message}; CALOS charged nothing for it"),
        ),
        (401 | 403, _) => rejected(name, &message),
        (429, _) | (_, Some(RATE_LIMITED)) => {
            let text = format!("your own account at {name} is limited: {message}");
            let error = ApiError::provider(StatusCode::TOO_MANY_REQUESTS, kind::RATE_LIMIT, code, text);
            match retry_after {
                Some(wait) => error.retry_after(wait.as_secs().max(1)),
                None => error.without_retry(),
            }
        }
        (_, _) => {
            provider(ProviderError::Status { provider: name, status, message, code, param, retry_after }, charged)
        }
    }
}

/// The provider does not take the tenant's own key; `message` is the provider's words, without the key.
fn rejected(name: &str, message: &str) -> ApiError {
    let text = format!(
        "{name} does not take your own key for it: {message}; replace it with POST /api/byok/add, or go on without it \
         after DELETE /api/byok/{name}"
    );
    ApiError::new(Code::ProviderKeyRejected, text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::response::IntoResponse;

    use super::*;

    fn told(status: u16, code: Option<&str>, retry_after: Option<u64>) -> ApiError {
        let error = ProviderError::Status {
            provider: "openai",
            status,
            message: "their words".to_owned(),
            code: code.map(str::to_owned),
            param: None,
            retry_after: retry_after.map(Duration::from_secs),
        };
        own_account(error, Charged::Nothing)
    }

    #[test]
    fn a_refused_key_is_the_tenants_to_replace() {
        for status in [401, 403] {
            let error = told(status, Some("invalid_api_key"), None);
            assert_eq!((error.code(), error.status()), (Code::ProviderKeyRejected, StatusCode::BAD_REQUEST));
            assert!(error.message().contains("their words") && error.message().contains("/api/byok/"));
        }
    }

    #[test]
    fn an_empty_or_limited_account_is_told_in_the_providers_words() {
        for error in [told(402, None, None), told(429, Some(NO_CREDIT), None)] {
            assert_eq!(error.status(), StatusCode::PAYMENT_REQUIRED);
            assert!(error.message().contains("their words"));
        }
        let limited = told(429, None, Some(7));
        assert!(limited.message().contains("their words"));
        let limited = limited.into_response();
        assert_eq!(
            (limited.status(), &limited.headers()["retry-after"]),
            (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap())
        );
    }

    #[test]
    fn what_is_not_about_the_account_is_told_like_any_other_failure() {
        assert_eq!(told(500, None, None).status(), StatusCode::BAD_GATEWAY);
        assert_eq!(told(400, None, None).message(), "their words");
    }
}
