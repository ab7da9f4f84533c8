//! The gateway over the configured providers, and what keeps its catalogue of models fresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use calos_adapters::config::ProvidersConfig;
use calos_adapters::postgres::PgLog;
use calos_adapters::providers::{HttpSettings, ProvidersError, configured};
use calos_adapters::secrets::Secrets;
use calos_adapters::tokenizer::Bpe;
use calos_commands::complete_chat::Gateway;
use calos_commands::ports::World;
use calos_commands::tokens::TokenCounter;
use calos_domain::pricing::Provider;

/// How often the providers are asked for their models.
pub const CATALOGUE_SECONDS: u64 = 60;

/// How soon one that was expected to answer and did not is asked again.
pub const CATALOGUE_RETRY_SECONDS: u64 = 5;

/// How long calls that were broken off may take to be charged.
pub const STOP_MAX_SECONDS: u64 = 30;

/// The gateway over the configured providers; tenants' own keys come from the keyring.
///
/// # Errors
/// [`ProvidersError`].
pub fn open(
    providers: &ProvidersConfig,
    log: &PgLog,
    secrets: &Secrets,
    world: &World,
) -> Result<Gateway<PgLog>, ProvidersError> {
    let counter: Arc<dyn TokenCounter> = Arc::new(Bpe);
    let providers = configured(providers, HttpSettings::default(), &counter)?;
    Ok(Gateway::new(log.clone(), providers, Arc::clone(secrets.keyring()) as _, counter, world))
}

/// Keeps the catalogue of models fresh until `stop`; begins at once. In between, only those are asked that did not answer
/// the last time. An Ollama that nobody has configured need not be there, so it is not waited for.
#[must_use]
pub fn spawn_catalogue(
    gateway: Gateway<PgLog>,
    providers: &ProvidersConfig,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let expects_ollama = providers.ollama.configured;
    tokio::spawn(async move {
        let mut round = Round::begun(Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = gateway.refresh_models(&round.whom) => {}
            }
            let mut silent = gateway.silent_providers();
            silent.retain(|provider| expects_ollama || *provider != Provider::Ollama);
            round = round.next(silent, Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(round.at) => {}
            }
        }
    })
}

/// Who is asked for their models, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Round {
    at: Instant,
    whom: Vec<Provider>,
    /// When all are asked the next time.
    all_at: Instant,
}

impl Round {
    /// The first: everybody, now.
    fn begun(now: Instant) -> Self {
        Self { at: now, whom: Provider::ALL.to_vec(), all_at: now + Duration::from_secs(CATALOGUE_SECONDS) }
    }

    /// The one after this one, which left these unheard.
    fn next(self, silent: Vec<Provider>, now: Instant) -> Self {
        let soon = now + Duration::from_secs(CATALOGUE_RETRY_SECONDS);
        if silent.is_empty() || soon >= self.all_at {
            let at = self.all_at.max(soon);
            return Self { at, ..Self::begun(at) };
        }
        Self { at: soon, whom: silent, ..self }
    }
}

/// Breaks off what is left of the calls in flight and charges it, but not for ever: what is left then expires by itself.
pub async fn stop(gateway: &Gateway<PgLog>) {
    if tokio::time::timeout(Duration::from_secs(STOP_MAX_SECONDS), gateway.stop()).await.is_err() {
        tracing::error!("calls were still unsettled after {STOP_MAX_SECONDS} s; their holds expire by themselves");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_asked_again_soon_and_everybody_once_a_minute() {
        let (begun, mut round) = (Instant::now(), Round::begun(Instant::now()));
        let begun = begun.max(round.at);
        let after = |round: &Round| (round.at - begun).as_secs();
        let mut asked = Vec::new();
        while after(&round) < 2 * CATALOGUE_SECONDS {
            asked.push((after(&round), round.whom.len()));
            // Ollama answers from the second minute on.
            let silent = if after(&round) < CATALOGUE_SECONDS { vec![Provider::Ollama] } else { Vec::new() };
            let at = round.at;
            round = round.next(silent, at);
        }
        let again = (1..12).map(|time| (time * CATALOGUE_RETRY_SECONDS, 1));
        let expected: Vec<(u64, usize)> =
            std::iter::once((0, Provider::ALL.len())).chain(again).chain([(60, Provider::ALL.len())]).collect();
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_round_that_took_longer_than_a_minute_is_not_followed_at_once() {
        let begun = Instant::now();
        let late = begun + Duration::from_secs(2 * CATALOGUE_SECONDS);
        let next = Round::begun(begun).next(vec![Provider::OpenAi], late);
        assert_eq!((next.at - late).as_secs(), CATALOGUE_RETRY_SECONDS);
        assert_eq!(next.whom, Provider::ALL);
    }
}
