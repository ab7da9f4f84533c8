//! The OpenAPI 3.1 document: collected from the handlers that exist, so it cannot promise what is not served.

use serde::Serialize;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa::{PartialSchema, ToSchema};

use crate::routes;

/// An error outside `/v1`. Facts such as `needed_micros` stand beside these fields.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// What happened and what to do about it.
    error: String,
    /// A stable `snake_case` name to branch on.
    code: String,
    /// The field or header it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
}

/// An error under `/v1`, as OpenAI clients read it.
#[derive(Serialize, ToSchema)]
pub struct OpenAiErrorBody {
    /// The error object.
    error: OpenAiErrorObject,
}

/// The error object of [`OpenAiErrorBody`].
#[derive(Serialize, ToSchema)]
pub struct OpenAiErrorObject {
    /// What happened and what to do about it.
    message: String,
    /// The class of error: `invalid_request_error`, `authentication_error`, `insufficient_quota`, ….
    r#type: String,
    /// The field it is about.
    param: Option<String>,
    /// A stable `snake_case` name to branch on.
    code: Option<String>,
}

/// An error, as Anthropic's clients read it.
#[derive(Serialize, ToSchema)]
pub struct AnthropicErrorBody {
    /// `error`.
    r#type: String,
    /// The error object.
    error: AnthropicErrorObject,
    /// The request's name, as in `request-id`.
    request_id: Option<String>,
}

/// The error object of `AnthropicErrorBody`.
#[derive(Serialize, ToSchema)]
pub struct AnthropicErrorObject {
    /// The class of error: `invalid_request_error`, `authentication_error`, `rate_limit_error`, ….
    r#type: String,
    /// What happened and what to do about it.
    message: String,
}

/// The name of the scheme for people: a session token, as a bearer token or in the session cookie.
pub const SESSION: &str = "session";

/// The name of the scheme for programs: a tenant key as a bearer token.
pub const TENANT_KEY: &str = "tenantKey";

/// What the document says before any handler has added its path.
pub fn base() -> OpenApi {
    let session = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("The token that register and login answer; also accepted as the session cookie."))
        .build();
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A tenant key, sk-tenant-…; also accepted in the header x-api-key."))
        .build();
    let cookie = ApiKeyValue::with_description(
        "__Host-calos_session",
        "The session cookie; calos_session over plain http on localhost.",
    );
    let components = ComponentsBuilder::new()
        .security_scheme(SESSION, SecurityScheme::Http(session))
        .security_scheme("sessionCookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)))
        .security_scheme(TENANT_KEY, SecurityScheme::Http(key))
        .schema("ErrorBody", ErrorBody::schema())
        .schema("OpenAiErrorObject", OpenAiErrorObject::schema())
        .schema("OpenAiErrorBody", OpenAiErrorBody::schema())
        .schema("AnthropicErrorObject", AnthropicErrorObject::schema())
        .schema("AnthropicErrorBody", AnthropicErrorBody::schema())
        .build();
    let info = InfoBuilder::new()
        .title("CALOS")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "A multi-tenant AI gateway with a prepaid, event-sourced ledger. Errors outside /v1 are \
             {error, code, …facts}; under /v1 they are OpenAI's error object. Every answer carries x-request-id; a write \
             answers with calos-position, which a read takes as calos-after; a POST that changes something takes \
             Idempotency-Key.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// The whole document.
#[must_use]
pub fn document() -> OpenApi {
    routes::all().into_openapi()
}

/// The whole document as indented JSON.
///
/// # Errors
/// Why it cannot be written as JSON.
pub fn document_json() -> Result<String, String> {
    document().to_pretty_json().map_err(|error| error.to_string())
}
