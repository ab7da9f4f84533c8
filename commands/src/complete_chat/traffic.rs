//! What is under way at each provider: the circuits of its models, and how many calls it may have at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use calos_domain::pricing::Provider;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::breaker::{Breaker, CircuitState};
use crate::provider::ProviderError;

/// Calls under way at a paid provider.
const PAID_MAX_CALLS: usize = 1_024;

/// Calls under way at the platform's own Ollama, which works on a few at a time and lets the others wait.
const LOCAL_MAX_CALLS: usize = 256;

/// How long a call waits for another to end.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// One model's circuit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Circuit {
    /// Who.
    pub provider: Provider,
    /// With which model.
    pub model: String,
    /// What it lets through.
    pub state: CircuitState,
}

type Circuits = BTreeMap<Provider, BTreeMap<String, Breaker>>;

/// What is under way.
#[derive(Debug)]
pub(super) struct Traffic {
    circuits: Arc<Mutex<Circuits>>,
    slots: BTreeMap<Provider, Arc<Semaphore>>,
    wait: Duration,
}

const fn most_calls(provider: Provider) -> usize {
    match provider {
        Provider::OpenAi | Provider::Anthropic | Provider::DeepSeek => PAID_MAX_CALLS,
        Provider::Ollama => LOCAL_MAX_CALLS,
    }
}

impl Default for Traffic {
    fn default() -> Self {
        let slot = |provider: &Provider| (*provider, Arc::new(Semaphore::new(most_calls(*provider))));
        Self { circuits: Arc::default(), slots: Provider::ALL.iter().map(slot).collect(), wait: WAIT_MAX }
    }
}

impl Traffic {
    /// Waits for a slot, and for leave to call.
    ///
    /// # Errors
    /// [`ProviderError::CircuitOpen`] and [`ProviderError::Busy`]; nothing was sent then.
    pub(super) async fn enter(&self, provider: Provider, model: &str) -> Result<Turn, ProviderError> {
        let busy = || ProviderError::Busy { provider: provider.as_str(), limit: most_calls(provider) };
        let slots = self.slots.get(&provider).ok_or_else(busy)?;
        let slot = match Arc::clone(slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => match timeout(self.wait, Arc::clone(slots).acquire_owned()).await {
                Ok(Ok(slot)) => slot,
                Ok(Err(_)) | Err(_) => return Err(busy()),
            },
        };
        let entered = with(&self.circuits, provider, model, |breaker| breaker.enter(Instant::now()));
        entered.map_err(|retry_after| ProviderError::CircuitOpen {
            provider: provider.as_str(),
            model: model.to_owned(),
            retry_after,
        })?;
        let circuits = Arc::clone(&self.circuits);
        Ok(Turn { circuits, provider, model: model.to_owned(), told: false, _slot: slot })
    }

    /// The circuits that have been used.
    pub(super) fn circuits(&self) -> Vec<Circuit> {
        let now = Instant::now();
        let circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        let all = circuits.iter().flat_map(|(provider, models)| {
            models.iter().map(|(model, breaker)| Circuit {
                provider: *provider,
                model: model.clone(),
                state: breaker.state(now),
            })
        });
        all.collect()
    }
}

fn with<T>(circuits: &Mutex<Circuits>, provider: Provider, model: &str, ask: impl FnOnce(&mut Breaker) -> T) -> T {
    let mut circuits = circuits.lock().unwrap_or_else(PoisonError::into_inner);
    let models = circuits.entry(provider).or_default();
    // Models come from the price book and from what Ollama has installed, so there are never many.
    if !models.contains_key(model) {
        models.insert(model.to_owned(), Breaker::default());
    }
    match models.get_mut(model) {
        Some(breaker) => ask(breaker),
        None => ask(&mut Breaker::default()),
    }
}

/// A call under way. It keeps its slot until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    circuits: Arc<Mutex<Circuits>>,
    provider: Provider,
    model: String,
    told: bool,
    _slot: OwnedSemaphorePermit,
}

impl Turn {
    /// The provider has answered, or refused for a reason of the caller's.
    pub(super) fn answered(&mut self) {
        self.told = true;
        with(&self.circuits, self.provider, &self.model, Breaker::succeeded);
    }

    /// The provider has failed.
    pub(super) fn failed(&mut self) {
        self.told = true;
        with(&self.circuits, self.provider, &self.model, |breaker| breaker.failed(Instant::now()));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.told {
            with(&self.circuits, self.provider, &self.model, |breaker| breaker.given_up(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::OPEN_AFTER_FAILURES;
    use super::*;

    #[tokio::test]
    async fn a_broken_model_leaves_the_others_alone() {
        let traffic = Traffic::default();
        for _ in 0..OPEN_AFTER_FAILURES {
            traffic.enter(Provider::OpenAi, "gpt-4").await.unwrap().failed();
        }
        let refused = traffic.enter(Provider::OpenAi, "gpt-4").await.unwrap_err();
        assert!(matches!(refused, ProviderError::CircuitOpen { .. }), "{refused}");
        traffic.enter(Provider::OpenAi, "gpt-4o").await.unwrap().answered();
        let states: Vec<_> = traffic.circuits().into_iter().map(|circuit| (circuit.model, circuit.state)).collect();
        assert_eq!(states, [("gpt-4".to_owned(), CircuitState::Open), ("gpt-4o".to_owned(), CircuitState::Closed)]);
    }

    #[tokio::test]
    async fn who_finds_no_slot_in_time_is_told_so() {
        let traffic = Traffic { wait: Duration::from_millis(1), ..Traffic::default() };
        let mut turns = Vec::new();
        for _ in 0..LOCAL_MAX_CALLS {
            turns.push(traffic.enter(Provider::Ollama, "llama3.2:3b").await.unwrap());
        }
        let refused = traffic.enter(Provider::Ollama, "llama3.2:3b").await.unwrap_err();
        assert_eq!(refused, ProviderError::Busy { provider: "ollama", limit: LOCAL_MAX_CALLS });
        turns.pop();
        assert!(traffic.enter(Provider::Ollama, "llama3.2:3b").await.is_ok());
    }
}
