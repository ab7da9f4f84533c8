//! Which models call no tools, as far as they have said so lately.
//!
//! Nobody lists it: a model says so by refusing the request that offers one. Remembering it saves the next conversation
//! that refusal; forgetting it after a while lets a model that was exchanged under its name be offered tools again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use calos_domain::pricing::Provider;

use crate::provider::ProviderError;

/// How long a model is taken at its word.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How many models are remembered; beyond them the oldest is forgotten first.
const REMEMBERED_MAX_MODELS: usize = 1_000;

/// The models that call no tools.
#[derive(Debug, Default)]
pub(super) struct Toolless(Mutex<BTreeMap<(Provider, String), Instant>>);

impl Toolless {
    /// The model has refused to be offered a tool.
    pub(super) fn remember(&self, provider: Provider, model: &str, now: Instant) {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|_, since| now.duration_since(*since) < REMEMBERED);
        if models.len() >= REMEMBERED_MAX_MODELS {
            let oldest = models.iter().min_by_key(|(_, since)| **since).map(|(model, _)| model.clone());
            oldest.and_then(|oldest| models.remove(&oldest));
        }
        models.insert((provider, model.to_owned()), now);
    }

    /// Whether it has done so lately.
    pub(super) fn knows(&self, provider: Provider, model: &str, now: Instant) -> bool {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.get(&(provider, model.to_owned())).is_some_and(|since| now.duration_since(*since) < REMEMBERED)
    }
}

/// Whether a model was refused for the tools it was offered, and for nothing else.
pub(super) fn refuses_tools(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Unsupported { param: "tools", .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_taken_at_its_word_for_a_while() {
        let (models, now) = (Toolless::default(), Instant::now());
        models.remember(Provider::Ollama, "soulfra:latest", now);
        let knows = |provider, model, after| models.knows(provider, model, now + after);
        assert!(knows(Provider::Ollama, "soulfra:latest", REMEMBERED / 2));
        assert!(!knows(Provider::Ollama, "soulfra:latest", REMEMBERED));
        assert!(!knows(Provider::OpenAi, "soulfra:latest", Duration::ZERO));
        assert!(!knows(Provider::Ollama, "llama3.2:3b", Duration::ZERO));
    }

    #[test]
    fn only_so_many_are_remembered_and_the_oldest_goes_first() {
        let (models, now) = (Toolless::default(), Instant::now());
        for index in 0..=REMEMBERED_MAX_MODELS {
            let later = now + Duration::from_millis(u64::try_from(index).unwrap());
            models.remember(Provider::Ollama, &index.to_string(), later);
        }
        let later = now + Duration::from_secs(2);
        assert!(!models.knows(Provider::Ollama, "0", later) && models.knows(Provider::Ollama, "1", later));
        assert_eq!(models.0.lock().unwrap().len(), REMEMBERED_MAX_MODELS);
    }
}
