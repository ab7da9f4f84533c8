//! Model providers, one wire format per module.
//!
//! [`http`] sends and bounds, [`lines`] and [`sse`] cut a body into events, [`chunks`] reads OpenAI's answers wherever
//! they come from. [`openai`], [`deepseek`] and [`ollama`] are the vendors.

pub mod chunks;
pub mod deepseek;
pub mod discreet;
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

pub use discreet::Discreet;
pub use http::{HttpSettings, NoHttpClient, ProviderHttp};
pub use ollama::Ollama;
pub use openai::{BadKey, OpenAi};

use crate::config::{ProviderConfig, ProvidersConfig};

/// Why the configured providers cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum ProvidersError {
    /// No HTTP client.
    #[error(transparent)]
    Http(#[from] NoHttpClient),
    /// A key from the settings cannot be sent.
    #[error("{name} cannot be used: {cause}")]
    Key {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        cause: BadKey,
    },
}

/// An adapter for every provider, each held to say no key: those without a key in the settings serve tenants that bring their own.
///
/// # Errors
/// See [`ProvidersError`].
pub fn configured(config: &ProvidersConfig, settings: HttpSettings) -> Result<Providers, ProvidersError> {
    let http = ProviderHttp::new(settings)?;
    let openai = OpenAi::new(http.clone(), config.openai.base_url.as_str(), key(&config.openai))
        .map_err(|cause| ProvidersError::Key { name: "OPENAI_API_KEY", cause })?;
    let deepseek = deepseek::account(http.clone(), config.deepseek.base_url.as_str(), key(&config.deepseek))
        .map_err(|cause| ProvidersError::Key { name: "DEEPSEEK_API_KEY", cause })?;
    let ollama = Ollama::new(http, config.ollama.base_url.as_str());
    let mut providers = Providers::new();
    providers.insert(Provider::OpenAi, Arc::new(Discreet::new(openai, key(&config.openai))));
    providers.insert(Provider::DeepSeek, Arc::new(Discreet::new(deepseek, key(&config.deepseek))));
    providers.insert(Provider::Ollama, Arc::new(ollama));
    Ok(providers)
}

/// The platform's own key.
fn key(config: &ProviderConfig) -> Option<&str> {
    config.api_key.as_ref().map(crate::config::Secret::expose)
}
