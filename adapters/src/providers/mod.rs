//! Model providers, one wire format per module.
//!
//! [`http`] sends and bounds, [`lines`] and [`sse`] cut a body into events, [`chunks`] reads OpenAI's answers wherever
//! they come from. [`openai`] and [`ollama`] are the vendors.

pub mod chunks;
pub mod http;
pub mod lines;
pub mod ollama;
mod ollama_answer;
mod ollama_request;
pub mod openai;
pub mod sse;

use std::sync::Arc;

use calos_commands::complete_chat::Providers;
use calos_domain::pricing::Provider;

pub use http::{HttpSettings, NoHttpClient, ProviderHttp};
pub use ollama::Ollama;
pub use openai::{BadKey, OpenAi};

use crate::config::ProvidersConfig;

/// Why the configured providers cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum ProvidersError {
    /// No HTTP client.
    #[error(transparent)]
    Http(#[from] NoHttpClient),
    /// `OPENAI_API_KEY` cannot be sent.
    #[error("OPENAI_API_KEY cannot be used: {0}")]
    OpenAiKey(#[from] BadKey),
}

/// The providers the settings lead to: Ollama always, the others when there is a key for them.
///
/// # Errors
/// See [`ProvidersError`].
pub fn configured(config: &ProvidersConfig, settings: HttpSettings) -> Result<Providers, ProvidersError> {
    let http = ProviderHttp::new(settings)?;
    let mut providers = Providers::new();
    let ollama = Ollama::new(http.clone(), config.ollama.base_url.as_str());
    providers.insert(Provider::Ollama, Arc::new(ollama));
    if let Some(key) = &config.openai.api_key {
        let openai = OpenAi::new(http, config.openai.base_url.as_str(), key.expose())?;
        providers.insert(Provider::OpenAi, Arc::new(openai));
    }
    Ok(providers)
}
