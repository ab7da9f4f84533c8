//! Model providers, one wire format per module.
//!
//! [`http`] sends and bounds, [`lines`] and [`sse`] cut a body into events, [`chunks`] reads OpenAI's answers wherever
//! they come from. [`openai`], [`anthropic`], [`deepseek`] and [`ollama`] are the vendors;
//! [`in_anthropic`] teaches Anthropic's dialect to those that do not speak it.

pub mod anthropic;
mod anthropic_answer;
mod anthropic_parts;
mod anthropic_request;
mod anthropic_stream;
pub mod chunks;
pub mod deepseek;
pub mod discreet;
pub mod embeddings;
pub mod http;
pub mod in_anthropic;
mod in_anthropic_answer;
mod in_anthropic_calls;
mod in_anthropic_request;
mod in_anthropic_stream;
pub mod lines;
pub mod ollama;
mod ollama_answer;
mod ollama_count;
mod ollama_embed;
mod ollama_request;
pub mod openai;
mod retry_after;
pub mod sse;
mod teller;

use std::sync::Arc;

use calos_commands::complete_chat::Providers;
use calos_commands::tokens::TokenCounter;
use calos_domain::pricing::Provider;

pub use anthropic::Anthropic;
pub use discreet::Discreet;
pub use http::{HttpSettings, NoHttpClient, ProviderHttp};
pub use in_anthropic::InAnthropic;
pub use ollama::Ollama;
pub use openai::{BadKey, OpenAi};

use crate::config::{ProviderConfig, ProvidersConfig};
use http::{HOSTED_FIRST_BYTE_TIMEOUT, QUEUED_FIRST_BYTE_TIMEOUT};

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

/// An adapter for every provider, each held to say no key: those without a key in the settings serve tenants that bring
/// their own. `settings` are the longest anybody may take; providers that need less are given up sooner.
///
/// # Errors
/// See [`ProvidersError`].
pub fn configured(
    config: &ProvidersConfig,
    settings: HttpSettings,
    counter: &Arc<dyn TokenCounter>,
) -> Result<Providers, ProvidersError> {
    let http = ProviderHttp::new(settings)?;
    let hosted = http.with_settings(settings.first_byte_within(HOSTED_FIRST_BYTE_TIMEOUT));
    let queued = http.with_settings(settings.first_byte_within(QUEUED_FIRST_BYTE_TIMEOUT));
    let openai = OpenAi::new(hosted.clone(), config.openai.base_url.as_str(), key(&config.openai))
        .map_err(|cause| ProvidersError::Key { name: "OPENAI_API_KEY", cause })?;
    let anthropic = Anthropic::new(hosted, config.anthropic.base_url.as_str(), key(&config.anthropic))
        .map_err(|cause| ProvidersError::Key { name: "ANTHROPIC_API_KEY", cause })?;
    let deepseek = deepseek::account(queued, config.deepseek.base_url.as_str(), key(&config.deepseek))
        .map_err(|cause| ProvidersError::Key { name: "DEEPSEEK_API_KEY", cause })?;
    let personas = config.ollama.personas.iter().map(|(name, base)| (name.as_str(), base.as_str()));
    let ollama =
        Ollama::new(http, config.ollama.base_url.as_str()).with_hosts(personas).counting_with(Arc::clone(counter));
    let mut providers = Providers::new();
    providers.insert(Provider::OpenAi, Arc::new(InAnthropic(Discreet::new(openai, key(&config.openai)))));
    providers.insert(Provider::Anthropic, Arc::new(Discreet::new(anthropic, key(&config.anthropic))));
    providers.insert(Provider::DeepSeek, Arc::new(InAnthropic(Discreet::new(deepseek, key(&config.deepseek)))));
    providers.insert(Provider::Ollama, Arc::new(InAnthropic(ollama)));
    Ok(providers)
}

/// The platform's own key.
fn key(config: &ProviderConfig) -> Option<&str> {
    config.api_key.as_ref().map(crate::config::Secret::expose)
}
