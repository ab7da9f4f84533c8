//! From the gateway's failures to answers: one table, in OpenAI's terms.

use axum::http::StatusCode;

use calos_commands::complete_chat::{BadRequest, ChatFailure};
use calos_commands::provider::ProviderError;
use calos_domain::api_key::KeyDenial;
use calos_domain::licence::LicenceRefusal;
use calos_domain::pricing::PriceRefusal;
use calos_domain::routing::RouteRefusal;
use calos_domain::wallet::{FailedAttempt, WalletRefusal};
use serde_json::json;

use super::own_account::own_account;
use super::{field_refusal, limits};
use crate::error::{ApiError, Code, kind};

/// When to come back while open holds stand in the way.
const HOLDS_RETRY_AFTER_SECONDS: u64 = 2;

/// When to come back while a provider is away.
pub(crate) const PROVIDER_RETRY_AFTER_SECONDS: u64 = 5;

/// A provider's code for: the platform has no credit there.
pub(super) const NO_CREDIT: &str = "insufficient_quota";

/// A provider's code for: the platform calls it too often.
pub(super) const RATE_LIMITED: &str = "rate_limit_exceeded";

impl From<BadRequest> for ApiError {
    fn from(refusal: BadRequest) -> Self {
        field_refusal(refusal)
    }
}

impl From<ChatFailure> for ApiError {
    fn from(failure: ChatFailure) -> Self {
        told(failure, Charged::Nothing)
    }
}

/// What the client has been charged for a call that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Charged {
    /// Nothing.
    Nothing,
    /// What had been given before the failure; the bill stands beside it.
    WhatWasGiven,
}

/// The answer to a failure.
pub(crate) fn told(failure: ChatFailure, charged: Charged) -> ApiError {
    let waits = failure.waits_for_holds();
    let message = failure.to_string();
    match failure {
        ChatFailure::Key(denial) => match denial {
            KeyDenial::Unknown | KeyDenial::Revoked | KeyDenial::Expired { .. } => {
                ApiError::new(Code::InvalidApiKey, message)
            }
            KeyDenial::Endpoint { .. } => ApiError::new(Code::EndpointNotAllowed, message),
            KeyDenial::Address { .. } => ApiError::new(Code::AddressNotAllowed, message),
        },
        ChatFailure::ModelNotAllowed { .. } => {
            ApiError::new(Code::ModelNotAllowed, format!("{message}; GET /v1/models lists those it may"))
                .with_param("model")
        }
        ChatFailure::Licence(refusal) => licence(refusal),
        ChatFailure::Route(refusal) => route(&refusal),
        ChatFailure::Price(refusal) => price(&refusal),
        ChatFailure::CannotPay { needed, available, held } => {
            let error = if waits {
                let message = format!("{message}; calls in flight keep the rest, so try again in a moment");
                ApiError::new(Code::InFlightBudgetExhausted, message).retry_after(HOLDS_RETRY_AFTER_SECONDS)
            } else {
                let message = format!("{message}; top the wallet up, or ask for a shorter answer with max_tokens");
                ApiError::new(Code::InsufficientQuota, message)
            };
            error
                .with_fact("needed_micros", needed.get())
                .with_fact("available_micros", available.get())
                .with_fact("held_micros", held.get())
        }
        ChatFailure::RateLimited(status) => limits::too_many(&status, &message),
        ChatFailure::BudgetExceeded { period, budget, spent, held, needed, ends_at } => {
            let error = if waits {
                let message = format!("{message}; calls in flight keep the rest, so try again in a moment");
                ApiError::new(Code::InFlightBudgetExhausted, message).retry_after(HOLDS_RETRY_AFTER_SECONDS)
            } else {
                let message = format!("{message}; raise the key's budget, or wait for the next {}", period.as_str());
                ApiError::new(Code::BudgetExceeded, message)
            };
            error
                .with_fact("budget_micros", budget.get())
                .with_fact("spent_micros", spent.get())
                .with_fact("held_micros", held.get())
                .with_fact("needed_micros", needed.get())
                .with_fact("ends_at_micros", ends_at.micros())
        }
        ChatFailure::Wallet(refusal) => wallet(&refusal, waits),
        ChatFailure::Log(error) => error.into(),
        ChatFailure::Provider(error) => provider(error, charged),
        ChatFailure::OwnAccount(error) => own_account(error, charged),
        ChatFailure::NobodyAnswered { tried, last } => nobody_answered(&tried, *last, message, charged),
        ChatFailure::Lost(why) => ApiError::internal(why),
    }
}

/// A chain that ended without an answer: the last one's own failure where only that one was asked, or where the request
/// or the tenant's own account is at fault; else that nobody is there.
fn nobody_answered(tried: &[FailedAttempt], last: ChatFailure, message: String, charged: Charged) -> ApiError {
    let mut asked: Vec<_> = tried.iter().map(|attempt| (&attempt.provider, &attempt.model)).collect();
    asked.dedup();
    let at_fault = match &last {
        ChatFailure::Provider(ProviderError::Status { status, .. }) => matches!(status, 400 | 413 | 415 | 422),
        ChatFailure::Provider(ProviderError::Unsupported { .. }) | ChatFailure::OwnAccount(_) => true,
        _ => false,
    };
    let error = if asked.len() < 2 || at_fault {
        told(last, charged)
    } else {
        let names = asked.iter().map(|(provider, model)| format!("{provider} {model}")).collect::<Vec<_>>();
        let bill = match charged {
            Charged::Nothing => "nothing was charged",
            Charged::WhatWasGiven => "what was given before is charged",
        };
        let text = format!("no model answered: {}; {bill}, try again in a moment", names.join(", "));
        ApiError::new(Code::ProviderUnavailable, text).retry_after(PROVIDER_RETRY_AFTER_SECONDS).because(message)
    };
    error.with_fact("tried", json!(tried))
}

fn licence(refusal: LicenceRefusal) -> ApiError {
    match refusal {
        LicenceRefusal::NotIssued => ApiError::new(Code::LicenceInactive, "this tenant has no licence; ask its owner"),
        other => other.into(),
    }
}

fn route(refusal: &RouteRefusal) -> ApiError {
    let message = refusal.to_string();
    match refusal {
        RouteRefusal::UnknownModel { .. } => {
            ApiError::new(Code::ModelNotFound, format!("{message}; GET /v1/models lists those you can use"))
                .with_param("model")
        }
        RouteRefusal::TierTooLow { needs, .. } => {
            ApiError::new(Code::ModelNotAllowed, message).with_param("model").with_fact("needs_tier", needs.as_str())
        }
        RouteRefusal::AnotherProvider { .. } => {
            ApiError::new(Code::InvalidField, format!("{message}; leave one of the two out")).with_param("model")
        }
        RouteRefusal::NoWords { .. } | RouteRefusal::NoVectors { .. } => {
            ApiError::new(Code::InvalidField, message).with_param("model")
        }
        RouteRefusal::NotConfigured { .. } => ApiError::new(Code::ProviderUnavailable, message).with_param("model"),
    }
}

fn price(refusal: &PriceRefusal) -> ApiError {
    let message = refusal.to_string();
    match refusal {
        PriceRefusal::NoPrice { .. } => ApiError::new(Code::ModelNotFound, message).with_param("model"),
        PriceRefusal::OutOfRange(_) => {
            ApiError::new(Code::InvalidField, "max_tokens times n is beyond what can be paid; ask for less")
                .with_param("max_tokens")
        }
    }
}

fn wallet(refusal: &WalletRefusal, waits: bool) -> ApiError {
    match refusal {
        WalletRefusal::Frozen => {
            ApiError::new(Code::WalletFrozen, "this tenant's wallet is frozen; ask its owner or our support")
        }
        _ if waits => {
            ApiError::new(Code::InFlightBudgetExhausted, refusal.to_string()).retry_after(HOLDS_RETRY_AFTER_SECONDS)
        }
        other => ApiError::internal(other),
    }
}

/// What a provider's failure means to the client: its own mistakes are its own, ours and the provider's are ours.
pub(super) fn provider(error: ProviderError, charged: Charged) -> ApiError {
    let message = error.to_string();
    match error {
        ProviderError::Unreachable { provider, .. } => {
            let text = match charged {
                Charged::Nothing => {
                    format!("{provider} cannot be reached right now; nothing was charged, try again in a moment")
                }
                Charged::WhatWasGiven => {
                    format!(
                        "{provider} broke off; what it gave until then is charged as billing says, try again in a moment"
                    )
                }
            };
            ApiError::new(Code::ProviderUnavailable, text).retry_after(PROVIDER_RETRY_AFTER_SECONDS).because(message)
        }
        ProviderError::CircuitOpen { retry_after, .. } => {
            ApiError::new(Code::ProviderUnavailable, message).retry_after(retry_after.as_secs().max(1))
        }
        ProviderError::Busy { .. } => {
            ApiError::new(Code::ProviderUnavailable, message).retry_after(PROVIDER_RETRY_AFTER_SECONDS)
        }
        ProviderError::KeyUnavailable { provider, .. } => {
            let text = format!("your own key for {provider} cannot be read right now; nothing was charged, try again");
            ApiError::new(Code::ProviderUnavailable, text).because(message)
        }
        ProviderError::Timeout { .. } => ApiError::new(Code::ProviderTimeout, message),
        ProviderError::BadAnswer { provider, .. } => {
            ApiError::new(Code::ProviderError, format!("{provider} gave an answer that cannot be used; try again"))
                .because(message)
        }
        ProviderError::Unsupported { param, message, .. } => {
            ApiError::new(Code::UnsupportedParameter, message).with_param(param)
        }
        ProviderError::Status { provider, status, message, code, param, retry_after } => {
            status_error(provider, status, message, code, param, retry_after.map(|wait| wait.as_secs().max(1)))
        }
    }
}

fn status_error(
    provider: &'static str,
    status: u16,
    message: String,
    code: Option<String>,
    param: Option<String>,
    retry_after_seconds: Option<u64>,
) -> ApiError {
    match (status, code.as_deref()) {
        // The platform's own key or credit there: nothing the client can mend, and nothing it should read.
        (401..=403, _) | (_, Some(NO_CREDIT)) => ApiError::new(
            Code::ProviderUnavailable,
            format!("{provider} does not take calls from this installation right now; the operators have been told"),
        )
        .retry_after(PROVIDER_RETRY_AFTER_SECONDS)
        .because(format_args!("{provider} answered {status}: {message}")),
        (404, _) => ApiError::new(Code::ModelNotFound, format!("{provider}: {message}")).with_param("model"),
        // Its own words name the platform's account and limits.
        (429, _) | (_, Some(RATE_LIMITED)) => {
            let text = format!("{provider} takes no more calls from this installation for now; try again later");
            let error = ApiError::provider(StatusCode::TOO_MANY_REQUESTS, kind::RATE_LIMIT, code, text)
                .because(format_args!("{provider} answered {status}: {message}"));
            // Without a time to come back it is a cap on spending there, which waiting does not lift.
            match retry_after_seconds {
                Some(seconds) => error.retry_after(seconds),
                None => error.without_retry(),
            }
        }
        (400..=499, _) => {
            let error = ApiError::provider(StatusCode::BAD_REQUEST, kind::INVALID_REQUEST, code, message);
            match param {
                Some(param) => error.with_param(param),
                None => error,
            }
        }
        (503 | 529, _) => ApiError::new(Code::ProviderUnavailable, format!("{provider} is overloaded: {message}"))
            .retry_after(retry_after_seconds.unwrap_or(PROVIDER_RETRY_AFTER_SECONDS)),
        (_, _) => ApiError::provider(StatusCode::BAD_GATEWAY, kind::SERVER, code, format!("{provider}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use calos_domain::MicroUsd;

    use super::*;

    fn status(status: u16, retry_after: Option<u64>) -> ApiError {
        coded(status, "x", retry_after)
    }

    fn coded(status: u16, code: &str, retry_after: Option<u64>) -> ApiError {
        ChatFailure::Provider(ProviderError::Status {
            provider: "openai",
            status,
            message: "Incorrect API key provided: sk-abc".to_owned(),
            code: Some(code.to_owned()),
            param: Some("temperature".to_owned()),
            retry_after: retry_after.map(Duration::from_secs),
        })
        .into()
    }

    #[test]
    fn our_own_key_is_never_the_clients_business() {
        for code in [401, 402, 403] {
            let error = status(code, None);
            assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(!error.message().contains("sk-abc"), "{}", error.message());
        }
    }

    #[test]
    fn a_clients_mistake_comes_back_in_the_providers_words() {
        let error = status(400, None);
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        let body = error.body(crate::error::Dialect::OpenAi);
        assert_eq!(body["error"]["param"], "temperature");
        assert_eq!(body["error"]["code"], "x");
    }

    #[test]
    fn a_rate_limit_says_when_to_come_back_and_a_spend_cap_does_not() {
        use axum::response::IntoResponse;
        let limited = status(429, Some(7)).into_response();
        assert_eq!(limited.headers()["retry-after"], "7");
        let capped = status(429, None).into_response();
        assert!(!capped.headers().contains_key("retry-after"));
    }

    #[test]
    fn our_limits_and_our_credit_there_are_never_the_clients_business() {
        for (status, code, shown) in [
            (429, "x", StatusCode::TOO_MANY_REQUESTS),
            (500, "rate_limit_exceeded", StatusCode::TOO_MANY_REQUESTS),
            (429, "insufficient_quota", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let error = coded(status, code, Some(7));
            assert_eq!(error.status(), shown, "{status} {code}");
            assert!(!error.message().contains("sk-abc"), "{}", error.message());
        }
    }

    #[test]
    fn nothing_is_called_free_beside_a_bill() {
        let away =
            || ChatFailure::Provider(ProviderError::Unreachable { provider: "openai", detail: "reset".to_owned() });
        assert!(ApiError::from(away()).message().contains("nothing was charged"));
        let billed = told(away(), Charged::WhatWasGiven);
        assert!(!billed.message().contains("nothing") && billed.message().contains("billing"), "{}", billed.message());
    }

    #[test]
    fn a_provider_that_fails_is_a_server_error_sdks_retry() {
        assert_eq!(status(500, None).status(), StatusCode::BAD_GATEWAY);
        assert_eq!(status(529, None).status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn holds_in_the_way_are_told_from_an_empty_wallet() {
        let short = |held| {
            ApiError::from(ChatFailure::CannotPay {
                needed: MicroUsd::new(10),
                available: MicroUsd::new(4),
                held: MicroUsd::new(held),
            })
        };
        assert_eq!(short(6).code(), Code::InFlightBudgetExhausted);
        assert_eq!(short(6).status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(short(5).code(), Code::InsufficientQuota);
        assert_eq!(short(5).status(), StatusCode::PAYMENT_REQUIRED);
    }
}
