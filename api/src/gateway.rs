//! The gateway over the configured providers, and what keeps its catalogue of models fresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use calos_adapters::config::ProvidersConfig;
use calos_adapters::postgres::PgLog;
use calos_adapters::providers::{HttpSettings, ProvidersError, configured};
use calos_adapters::secrets::Secrets;
use calos_adapters::tokenizer::Bpe;
use calos_commands::complete_chat::Gateway;
use calos_commands::ports::World;
use calos_commands::tokens::TokenCounter;

/// How often the providers are asked for their models.
pub const CATALOGUE_SECONDS: u64 = 60;

/// How soon they are asked again while one of them does not answer.
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

/// Keeps the catalogue of models fresh until `stop`; begins at once.
#[must_use]
pub fn spawn_catalogue(gateway: Gateway<PgLog>, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = gateway.refresh_models() => {}
            }
            let all_answer = gateway.provider_states().iter().all(|state| state.answers == Some(true));
            let pause = if all_answer { CATALOGUE_SECONDS } else { CATALOGUE_RETRY_SECONDS };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(pause)) => {}
            }
        }
    })
}

/// Breaks off what is left of the calls in flight and charges it, but not for ever: what is left then expires by itself.
pub async fn stop(gateway: &Gateway<PgLog>) {
    if tokio::time::timeout(Duration::from_secs(STOP_MAX_SECONDS), gateway.stop()).await.is_err() {
        tracing::error!("calls were still unsettled after {STOP_MAX_SECONDS} s; their holds expire by themselves");
    }
}
