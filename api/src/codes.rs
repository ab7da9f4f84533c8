//! The one table: what a caller can be refused for, under which status, and what an OpenAI client calls it.
//!
//! A use case's refusal names a [`Code`]; nothing else in the product decides a status.

use axum::http::StatusCode;

/// The `type` of an error object under `/v1`, as OpenAI clients know it.
pub mod kind {
    /// The request itself is wrong.
    pub const INVALID_REQUEST: &str = "invalid_request_error";
    /// Nobody known is calling.
    pub const AUTHENTICATION: &str = "authentication_error";
    /// Somebody known is calling who may not.
    pub const PERMISSION: &str = "permission_error";
    /// There is no credit for it.
    pub const QUOTA: &str = "insufficient_quota";
    /// Too many calls in a window; OpenAI names what there were too many of.
    pub const REQUESTS: &str = "requests";
    /// Too many attempts, or too much in flight.
    pub const RATE_LIMIT: &str = "rate_limit_error";
    /// Our side, or the provider's.
    pub const SERVER: &str = "server_error";
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident => $code:literal, $status:ident, $kind:ident;)+) => {
        /// Why a request was refused or failed.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code {
            $($(#[$doc])* $variant,)+
        }

        impl Code {
            /// Every code there is, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable `snake_case` name a client can branch on.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The HTTP status it is answered with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),+ }
            }

            /// The `type` shown under `/v1`.
            #[must_use]
            pub const fn kind(self) -> &'static str {
                match self { $(Self::$variant => kind::$kind),+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    InvalidJson => "invalid_json", BAD_REQUEST, INVALID_REQUEST;
    /// A field is missing, of the wrong type or out of range; `param` names it.
    InvalidField => "invalid_field", BAD_REQUEST, INVALID_REQUEST;
    /// The request contradicts itself or asks for what cannot be.
    InvalidRequest => "invalid_request", BAD_REQUEST, INVALID_REQUEST;
    /// A header cannot be read; `param` names it.
    InvalidHeader => "invalid_header", BAD_REQUEST, INVALID_REQUEST;
    /// A parameter that is known but not offered, because its price is not known.
    UnsupportedParameter => "unsupported_parameter", BAD_REQUEST, INVALID_REQUEST;
    /// The prompt and the answer asked for do not fit into the model.
    ContextLengthExceeded => "context_length_exceeded", BAD_REQUEST, INVALID_REQUEST;
    /// The address is no email address.
    InvalidEmail => "invalid_email", BAD_REQUEST, INVALID_REQUEST;
    /// The provider does not take the tenant's own key for it.
    ProviderKeyRejected => "provider_key_rejected", BAD_REQUEST, AUTHENTICATION;
    /// The password is too short, too long or too well known.
    WeakPassword => "weak_password", BAD_REQUEST, INVALID_REQUEST;

    /// No session and no key, or one that cannot be read.
    Unauthenticated => "unauthenticated", UNAUTHORIZED, AUTHENTICATION;
    /// Unknown email or wrong password; which of the two is not said.
    InvalidCredentials => "invalid_credentials", UNAUTHORIZED, AUTHENTICATION;
    /// The session ended or was revoked.
    SessionEnded => "session_ended", UNAUTHORIZED, AUTHENTICATION;
    /// No such key, or it was revoked.
    InvalidApiKey => "invalid_api_key", UNAUTHORIZED, AUTHENTICATION;

    /// The wallet cannot pay; SDKs do not retry it.
    InsufficientQuota => "insufficient_quota", PAYMENT_REQUIRED, QUOTA;
    /// The key's budget for the day or month cannot pay; SDKs do not retry it.
    BudgetExceeded => "budget_exceeded", PAYMENT_REQUIRED, QUOTA;
    /// The wallet has less than a call outside `/v1` needs.
    InsufficientCredits => "insufficient_credits", PAYMENT_REQUIRED, QUOTA;
    /// The licence's tokens for this period are used up.
    TokenLimitReached => "token_limit_reached", PAYMENT_REQUIRED, QUOTA;

    /// Known, but not allowed.
    Forbidden => "forbidden", FORBIDDEN, PERMISSION;
    /// The tenant's licence is not active.
    LicenceInactive => "licence_inactive", FORBIDDEN, PERMISSION;
    /// The wallet is frozen.
    WalletFrozen => "wallet_frozen", FORBIDDEN, PERMISSION;
    /// The key may not call this endpoint.
    EndpointNotAllowed => "endpoint_not_allowed", FORBIDDEN, PERMISSION;
    /// The key, or the tenant's tier, may not use this model.
    ModelNotAllowed => "model_not_allowed", FORBIDDEN, PERMISSION;
    /// The key may not be used from this address.
    AddressNotAllowed => "address_not_allowed", FORBIDDEN, PERMISSION;
    /// A browser sent this from another site.
    CrossSite => "cross_site_request", FORBIDDEN, PERMISSION;
    /// The person has created as many tenants as one person may.
    TooManyTenants => "too_many_tenants", FORBIDDEN, PERMISSION;
    /// Whoever proposed something cannot approve it.
    OwnProposal => "own_proposal", FORBIDDEN, PERMISSION;
    /// The device has to be paired first.
    DeviceNotTrusted => "device_not_trusted", FORBIDDEN, PERMISSION;

    /// No such thing, or not the caller's.
    NotFound => "not_found", NOT_FOUND, INVALID_REQUEST;
    /// No such path.
    UnknownPath => "unknown_path", NOT_FOUND, INVALID_REQUEST;
    /// No such model.
    ModelNotFound => "model_not_found", NOT_FOUND, INVALID_REQUEST;
    /// The path exists, the method does not.
    MethodNotAllowed => "method_not_allowed", METHOD_NOT_ALLOWED, INVALID_REQUEST;
    /// The request did not arrive in time.
    RequestTimeout => "request_timeout", REQUEST_TIMEOUT, INVALID_REQUEST;

    /// It contradicts what already is.
    Conflict => "conflict", CONFLICT, INVALID_REQUEST;
    /// The email already has an account.
    EmailTaken => "email_taken", CONFLICT, INVALID_REQUEST;
    /// The idempotency key was used for another request.
    IdempotencyKeyReused => "idempotency_key_reused", CONFLICT, INVALID_REQUEST;
    /// The first request with this idempotency key has not been answered yet.
    IdempotencyInProgress => "idempotency_in_progress", CONFLICT, INVALID_REQUEST;

    /// The body is larger than a request may be.
    BodyTooLarge => "body_too_large", PAYLOAD_TOO_LARGE, INVALID_REQUEST;
    /// The body is not announced as JSON.
    UnsupportedMediaType => "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST;

    /// Too many requests in a window.
    RateLimitExceeded => "rate_limit_exceeded", TOO_MANY_REQUESTS, REQUESTS;
    /// Open holds stand in the way; they end.
    InFlightBudgetExhausted => "in_flight_budget_exhausted", TOO_MANY_REQUESTS, RATE_LIMIT;
    /// Too many failed tries from this account or address.
    TooManyAttempts => "too_many_attempts", TOO_MANY_REQUESTS, RATE_LIMIT;

    /// Our fault; the log has the cause under the request id.
    Internal => "internal", INTERNAL_SERVER_ERROR, SERVER;
    /// The model provider answered with an error.
    ProviderError => "provider_error", BAD_GATEWAY, SERVER;
    /// No provider can take the call now.
    ProviderUnavailable => "provider_unavailable", SERVICE_UNAVAILABLE, SERVER;
    /// The provider took too long.
    ProviderTimeout => "provider_timeout", GATEWAY_TIMEOUT, SERVER;
    /// More is waiting than can be taken.
    Overloaded => "overloaded", SERVICE_UNAVAILABLE, SERVER;
    /// The database cannot be reached.
    DatabaseUnavailable => "database_unavailable", SERVICE_UNAVAILABLE, SERVER;
    /// The commit's answer was lost and the database has not come back to tell.
    OutcomeUnknown => "outcome_unknown", SERVICE_UNAVAILABLE, SERVER;
    /// Others wrote the same streams faster than the bounded number of retries.
    Contended => "contended", SERVICE_UNAVAILABLE, SERVER;
    /// The read model has not reached the position in `calos-after` yet.
    ProjectionBehind => "projection_behind", SERVICE_UNAVAILABLE, SERVER;
    /// The server is stopping.
    ShuttingDown => "shutting_down", SERVICE_UNAVAILABLE, SERVER;
}

#[cfg(test)]
mod tests {
    use super::Code;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_its_own_snake_case_name() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for name in names {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }

    #[test]
    fn every_code_is_an_error_status() {
        for code in Code::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
        }
    }
}
