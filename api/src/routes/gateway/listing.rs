//! The models a key may use, for the SDKs of both dialects: neither minds the other's fields.

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_commands::complete_chat::ListedModel;
use calos_domain::Timestamp;
use calos_domain::api_key::lists_model;
use calos_domain::pricing::PriceBook;

use super::caller;
use crate::auth::KeyCaller;
use crate::error::{ApiError, Code};
use crate::moment::rfc3339;
use crate::openapi::OpenAiErrorBody;
use crate::request::{Path, RequestContext};
use crate::wiring::App;

/// When a model was made that nobody knows that of.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// The endpoints. A name may have slashes in it, which some clients send as they are.
pub(super) fn router() -> OpenApiRouter<App> {
    let named = OpenApiRouter::new().routes(routes!(models)).routes(routes!(model));
    named.route("/v1/models/{id}/{*rest}", get(model_in_folder))
}

/// One model, as OpenAI's clients read it and as Anthropic's do.
#[derive(Serialize, ToSchema)]
struct Model {
    /// Its name.
    id: String,
    /// `model`.
    object: &'static str,
    /// Seconds since 1970; 0 when nobody says.
    created: i64,
    /// Whose it is.
    owned_by: String,
    /// `model`, as Anthropic says it.
    r#type: &'static str,
    /// Its name once more.
    display_name: String,
    /// The same moment as `created`, RFC 3339.
    created_at: String,
}

impl From<ListedModel> for Model {
    fn from(model: ListedModel) -> Self {
        let created = Timestamp::from_micros(model.created.saturating_mul(1_000_000));
        Self {
            display_name: model.id.clone(),
            id: model.id,
            object: "model",
            r#type: "model",
            created: model.created,
            // A provider may say anything; a moment beyond the calendar is one nobody knows.
            created_at: rfc3339(created).unwrap_or_else(|_| EPOCH.to_owned()),
            owned_by: model.owned_by,
        }
    }
}

/// The models a key may use.
#[derive(Serialize, ToSchema)]
struct Models {
    /// `list`.
    object: &'static str,
    /// The models.
    data: Vec<Model>,
    /// Never: all of them are here.
    has_more: bool,
    /// The first one's name.
    first_id: Option<String>,
    /// The last one's name.
    last_id: Option<String>,
}

/// The models the tenant's licence reaches and the key allows.
#[utoipa::path(get, path = "/v1/models", tag = "gateway",
    responses((status = 200, body = Models), (status = 401, body = OpenAiErrorBody), (status = 403, body = OpenAiErrorBody),
        (status = 429, body = OpenAiErrorBody)),
    security(("tenantKey" = [])))]
async fn models(State(app): State<App>, key: KeyCaller, context: RequestContext) -> Result<Json<Models>, ApiError> {
    app.auth.unmetered.spend(&key)?;
    let models = app.gateway.models(&caller(&key, &context)).await?;
    let data: Vec<Model> = models.into_iter().map(Model::from).collect();
    let id = |model: Option<&Model>| model.map(|model| model.id.clone());
    let (first_id, last_id) = (id(data.first()), id(data.last()));
    Ok(Json(Models { object: "list", data, has_more: false, first_id, last_id }))
}

/// One of the models the tenant's licence reaches and the key allows; an alias is answered with the model it means.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "gateway",
    params(("id" = String, Path, description = "the model's name; slashes may stand in it as they are")),
    responses((status = 200, body = Model), (status = 401, body = OpenAiErrorBody), (status = 403, body = OpenAiErrorBody),
        (status = 404, body = OpenAiErrorBody), (status = 429, body = OpenAiErrorBody)),
    security(("tenantKey" = [])))]
async fn model(
    State(app): State<App>,
    key: KeyCaller,
    context: RequestContext,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    found(&app, &key, &context, &id).await
}

async fn model_in_folder(
    State(app): State<App>,
    key: KeyCaller,
    context: RequestContext,
    Path((folder, rest)): Path<(String, String)>,
) -> Result<Json<Model>, ApiError> {
    found(&app, &key, &context, &format!("{folder}/{rest}")).await
}

async fn found(app: &App, key: &KeyCaller, context: &RequestContext, id: &str) -> Result<Json<Model>, ApiError> {
    app.auth.unmetered.spend(key)?;
    let models = app.gateway.models(&caller(key, context)).await?;
    let asked: Vec<String> = PriceBook::current().names_of(id).map(str::to_owned).collect();
    let named = models.into_iter().find(|model| lists_model(&asked, &model.id));
    let named = named.ok_or_else(|| {
        let text = "there is no such model, or this key does not reach it; GET /v1/models lists those you can use";
        ApiError::new(Code::ModelNotFound, text).with_param("model")
    })?;
    Ok(Json(named.into()))
}
