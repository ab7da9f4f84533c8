//! The models on the platform's own machines, and whether they can be asked right now.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_adapters::config::OllamaConfig;
use calos_commands::complete_chat::CircuitState;
use calos_commands::provider::ModelListing;
use calos_domain::pricing::Provider;
use calos_domain::routing::makes_vectors;
use calos_domain::routing::personas::Persona;

use crate::wiring::App;

/// What the server is called that every model without a host of its own runs on.
const PRIMARY: &str = "primary";

/// The endpoint.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(ollama_models))
}

/// What a model is for.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Purpose {
    /// Words.
    Chat,
    /// Vectors.
    Embeddings,
}

/// A model on the platform's own machines.
#[derive(Serialize, ToSchema)]
#[schema(as = OllamaModel)]
struct LocalModel {
    /// Its name, as it is called with.
    name: String,
    /// The persona it is the voice of.
    #[serde(skip_serializing_if = "Option::is_none")]
    persona: Option<&'static str>,
    /// What it is for.
    purpose: Purpose,
    /// The room it takes, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// When it was installed or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_at: Option<String>,
    /// What it is built on.
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<String>,
    /// How large it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter_size: Option<String>,
    /// `primary`, or the persona whose own host it runs on.
    host: String,
    /// Whether it is installed, and answers as far as is known.
    available: bool,
    /// `closed` while calls go through, `open` while it is left alone because it fails, `half_open` in between.
    circuit: &'static str,
}

/// The models on the platform's own machines.
#[derive(Serialize, ToSchema)]
#[schema(as = OllamaModels)]
struct LocalModels {
    /// The models, the personas among them whether they are installed or not.
    models: Vec<LocalModel>,
    /// Whether any of them can be asked.
    available: bool,
}

/// The models on the platform's own machines, as they were found when last looked for.
#[utoipa::path(get, path = "/api/ollama/models", tag = "operations", responses((status = 200, body = LocalModels)))]
async fn ollama_models(State(app): State<App>) -> Json<LocalModels> {
    let states = app.gateway.provider_states();
    let answers = states.iter().any(|state| state.provider == Provider::Ollama && state.answers == Some(true));
    let circuits = app.gateway.circuits();
    let circuit = |name: &str| {
        let found = circuits.iter().find(|circuit| circuit.provider == Provider::Ollama && circuit.model == name);
        found.map_or(CircuitState::Closed, |circuit| circuit.state)
    };
    let settings = &app.config.providers.ollama;
    let listed = app.gateway.local_models();
    let mut models: Vec<LocalModel> =
        listed.iter().map(|model| installed(model, settings, answers, circuit(&model.id))).collect();
    for persona in Persona::ALL {
        if !models.iter().any(|model| model.persona == Some(persona.as_str())) {
            models.push(missing(persona, settings, circuit(persona.as_str())));
        }
    }
    let available = models.iter().any(|model| model.available);
    Json(LocalModels { models, available })
}

fn installed(model: &ModelListing, settings: &OllamaConfig, answers: bool, circuit: CircuitState) -> LocalModel {
    let local = model.local.clone().unwrap_or_default();
    LocalModel {
        name: model.id.clone(),
        persona: Persona::of_model(&model.id).map(Persona::as_str),
        purpose: if makes_vectors(&model.id) { Purpose::Embeddings } else { Purpose::Chat },
        size: local.size_bytes,
        modified_at: local.modified_at,
        family: local.family,
        parameter_size: local.parameter_size,
        host: host_of(&model.id, settings),
        available: answers && circuit != CircuitState::Open,
        circuit: circuit.as_str(),
    }
}

fn missing(persona: Persona, settings: &OllamaConfig, circuit: CircuitState) -> LocalModel {
    LocalModel {
        name: persona.as_str().to_owned(),
        persona: Some(persona.as_str()),
        purpose: Purpose::Chat,
        size: None,
        modified_at: None,
        family: None,
        parameter_size: None,
        host: host_of(persona.as_str(), settings),
        available: false,
        circuit: circuit.as_str(),
    }
}

/// The host by its name alone: where the platform's machines stand is nobody's business outside.
fn host_of(model: &str, settings: &OllamaConfig) -> String {
    let bare = model.split_once(':').map_or(model, |(bare, _)| bare);
    let own = settings.personas.iter().find(|(persona, _)| persona == bare);
    own.map_or_else(|| PRIMARY.to_owned(), |(persona, _)| persona.clone())
}
