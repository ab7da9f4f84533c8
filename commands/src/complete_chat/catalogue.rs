//! What models there are: the price book's, and whatever the providers have now.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use calos_domain::api_key::{ApiKey, lists_model};
use calos_domain::licence::Licence;
use calos_domain::pricing::Provider;
use calos_domain::routing::{LOCAL_DEFAULT_MODEL, unlisted_provider};
use calos_domain::tenant::Tenant;
use calos_domain::{StreamId, Timestamp};

use super::{ChatCaller, ChatFailure, Gateway, Providers};
use crate::log::{EventLog, Failed, Plan};
use crate::provider::ModelListing;

/// How soon after the last time Ollama may be asked again because of an unknown name.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The providers' models, as last heard.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    heard: RwLock<BTreeMap<Provider, Arc<[ModelListing]>>>,
    installed: RwLock<Arc<[String]>>,
    /// When Ollama was, the one whose models come and go.
    asked_at: tokio::sync::Mutex<Option<Instant>>,
    /// What became of the last question to each; none for those that answered.
    failures: RwLock<BTreeMap<Provider, Option<String>>>,
}

/// How a provider was found when it was last asked for its models.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProviderState {
    /// Who.
    pub provider: Provider,
    /// Whether it answered; none when it was not asked yet.
    pub answers: Option<bool>,
    /// Why it did not, in the adapter's words.
    pub problem: Option<String>,
    /// How many models it has, as last heard.
    pub models: usize,
    /// Its models that are left alone because they fail.
    pub open_circuits: Vec<String>,
}

/// A model a caller may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedModel {
    /// Its name.
    pub id: String,
    /// Seconds since the Unix epoch; 0 when nobody says.
    pub created: i64,
    /// Whose it is, as its provider says, else the provider's name.
    pub owned_by: String,
}

impl Catalogue {
    fn of(&self, provider: Provider) -> Option<Arc<[ModelListing]>> {
        self.heard.read().unwrap_or_else(PoisonError::into_inner).get(&provider).cloned()
    }

    fn hear(&self, provider: Provider, models: Vec<ModelListing>) {
        if provider == Provider::Ollama {
            let names: Arc<[String]> = models.iter().map(|model| model.id.clone()).collect();
            *self.installed.write().unwrap_or_else(PoisonError::into_inner) = names;
        }
        self.heard.write().unwrap_or_else(PoisonError::into_inner).insert(provider, models.into());
    }

    fn reached(&self, provider: Provider, problem: Option<String>) {
        self.failures.write().unwrap_or_else(PoisonError::into_inner).insert(provider, problem);
    }

    /// Those that did not answer when last asked.
    fn silent(&self) -> Vec<Provider> {
        let failures = self.failures.read().unwrap_or_else(PoisonError::into_inner);
        failures.iter().filter(|(_, problem)| problem.is_some()).map(|(provider, _)| *provider).collect()
    }

    /// Asks these of the providers, all at once.
    async fn ask(&self, providers: &Providers, whom: &[Provider]) {
        let asked = providers.iter().filter(|(provider, _)| whom.contains(provider));
        let asking = asked.map(|(provider, adapter)| async move {
            match adapter.models().await {
                Ok(models) => {
                    self.hear(*provider, models);
                    self.reached(*provider, None);
                }
                Err(error) => {
                    tracing::debug!(%provider, %error, "a provider's models are not known anew");
                    self.reached(*provider, Some(error.to_string()));
                }
            }
        });
        futures_util::future::join_all(asking).await;
    }
}

impl<L: EventLog> Gateway<L> {
    /// Asks these providers for their models, as far as the platform has an account there. What cannot be reached keeps
    /// what was heard last.
    pub async fn refresh_models(&self, whom: &[Provider]) {
        let whom: Vec<Provider> = whom.iter().copied().filter(|provider| self.0.platform.contains(provider)).collect();
        // Not under the lock: a provider that keeps us waiting must not keep calls waiting that go elsewhere.
        self.0.catalogue.ask(&self.0.providers, &whom).await;
        if whom.contains(&Provider::Ollama) {
            *self.0.catalogue.asked_at.lock().await = Some(Instant::now());
        }
    }

    /// The providers that did not answer when they were last asked for their models.
    #[must_use]
    pub fn silent_providers(&self) -> Vec<Provider> {
        self.0.catalogue.silent()
    }

    /// Whether a provider has been asked for its models, whatever came of it.
    pub(super) fn was_asked(&self, provider: Provider) -> bool {
        self.0.catalogue.failures.read().unwrap_or_else(PoisonError::into_inner).contains_key(&provider)
    }

    /// How the providers with an account of the platform's were found when last asked.
    #[must_use]
    pub fn provider_states(&self) -> Vec<ProviderState> {
        let open = self.0.traffic.open_circuits();
        let failures = self.0.catalogue.failures.read().unwrap_or_else(PoisonError::into_inner);
        let state = |provider: &Provider| ProviderState {
            provider: *provider,
            answers: failures.get(provider).map(Option::is_none),
            problem: failures.get(provider).cloned().flatten(),
            models: self.0.catalogue.of(*provider).map_or(0, |models| models.len()),
            open_circuits: open
                .iter()
                .filter(|circuit| circuit.provider == *provider && circuit.account.is_none())
                .map(|circuit| circuit.model.clone())
                .collect(),
        };
        self.0.platform.iter().map(state).collect()
    }

    /// What Ollama has installed, as last heard.
    #[must_use]
    pub fn local_models(&self) -> Arc<[ModelListing]> {
        self.0.catalogue.of(Provider::Ollama).unwrap_or_default()
    }

    /// The names Ollama has installed, as last heard.
    pub(super) fn installed_locally(&self) -> Arc<[String]> {
        Arc::clone(&self.0.catalogue.installed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Before a name is called unknown, Ollama is asked once more: a model may have been pulled just now. A name that is
    /// one of OpenAI's or Anthropic's models by its form, which tenants use with keys of their own all the time, waits
    /// for the next regular question.
    pub(super) async fn make_known(&self, named: Option<&str>) {
        let Some(named) = named else { return };
        let bare = named.strip_suffix(":latest").unwrap_or(named);
        let is_known =
            |installed: &[String]| installed.iter().any(|model| model.strip_suffix(":latest").unwrap_or(model) == bare);
        let promised = named == LOCAL_DEFAULT_MODEL;
        let is_remote = matches!(unlisted_provider(named), Some(Provider::OpenAi | Provider::Anthropic));
        if promised || is_remote || self.0.book.model(named).is_some() || is_known(&self.installed_locally()) {
            return;
        }
        let mut asked_at = self.0.catalogue.asked_at.lock().await;
        if asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN_AFTER) {
            self.0.catalogue.ask(&self.0.providers, &[Provider::Ollama]).await;
            *asked_at = Some(Instant::now());
        }
    }

    /// The models a caller may use: what its licence's tier or its tenant's own keys reach, and its key allows.
    ///
    /// # Errors
    /// A key or a licence that opens nothing, and the log's.
    pub async fn models(&self, caller: &ChatCaller) -> Result<Vec<ListedModel>, ChatFailure> {
        let now = self.0.clock.now();
        let mut plan = Plan::default();
        let licence = plan.stream::<Licence>(StreamId::key(caller.tenant_id));
        let tenant = plan.stream::<Tenant>(StreamId::key(caller.tenant_id));
        let key = caller.key_id.as_ref().map(|key| plan.stream::<ApiKey>(StreamId::under(caller.tenant_id, key)));
        let looked = self.0.log.execute(&plan, caller.metadata.clone().into(), |unit| {
            let paid = unit.with(licence, |licence| reaches_paid_models(licence, now))?;
            let allowed = key.map(|key| unit.with(key, |key| key.standing(now).map(|issued| issued.models.clone())));
            let allowed = allowed.transpose()?.flatten();
            let own = unit.with(tenant, |tenant| tenant.provider_keys.keys().copied().collect::<Vec<_>>());
            Ok::<_, ChatFailure>((paid, own, allowed))
        });
        let (paid, own, allowed) = match looked.await {
            Ok(done) => done.answer,
            Err(Failed::Refused(refusal)) => return Err(refusal),
            Err(Failed::Log(error)) => return Err(error.into()),
        };
        let mut models = self.listed(paid, &own);
        let is_listed =
            |allowed: &Vec<String>, id: &str| self.0.book.names_of(id).any(|name| lists_model(allowed, name));
        models.retain(|model| allowed.as_ref().is_none_or(|allowed| is_listed(allowed, &model.id)));
        Ok(models)
    }

    fn listed(&self, paid: bool, own: &[Provider]) -> Vec<ListedModel> {
        let mut listed = Vec::new();
        for provider in Provider::ALL {
            let brought = own.contains(&provider);
            let ours = self.0.platform.contains(&provider);
            let heard = self.0.catalogue.of(provider);
            if provider == Provider::Ollama {
                let installed = heard.iter().filter(|_| ours).flat_map(|models| models.iter());
                listed.extend(installed.map(|model| named(model, provider)));
            } else if brought || ours && paid {
                // Of the models with a price, those the platform's account really has, as far as it has said, each once
                // whatever names it has; what a tenant's own account has is not known.
                for entry in self.0.book.models().iter().filter(|entry| entry.provider == provider) {
                    let found = heard
                        .as_deref()
                        .and_then(|models| entry.names().find_map(|name| models.iter().find(|model| model.id == name)));
                    match found {
                        Some(model) => listed.push(named(model, provider)),
                        None if brought || heard.is_none() => listed.push(ListedModel {
                            id: entry.name.to_owned(),
                            created: 0,
                            owned_by: provider.as_str().to_owned(),
                        }),
                        None => {}
                    }
                }
            }
        }
        listed
    }
}

fn named(model: &ModelListing, provider: Provider) -> ListedModel {
    let owned_by = if model.owned_by.is_empty() { provider.as_str().to_owned() } else { model.owned_by.clone() };
    ListedModel { id: model.id.clone(), created: model.created, owned_by }
}

fn reaches_paid_models(licence: &Licence, now: Timestamp) -> Result<bool, ChatFailure> {
    // Used-up tokens do not hide the models.
    use calos_domain::licence::LicenceRefusal::TokensUsedUp;
    match licence.may_use(now) {
        Ok(()) | Err(TokensUsedUp { .. }) => {
            Ok(licence.tier().is_some_and(calos_domain::tiers::Tier::reaches_paid_models))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::log::Boxed;
    use crate::provider::{ChatProvider, ChatRequest, ChunkStream, Completion, ProviderError};

    /// Lists one model when it is up, and counts how often it is asked.
    #[derive(Default)]
    struct Lister {
        is_up: bool,
        asked: AtomicU32,
    }

    fn away() -> ProviderError {
        ProviderError::Unreachable { provider: "test", detail: "away".to_owned() }
    }

    impl ChatProvider for Lister {
        fn name(&self) -> &'static str {
            "test"
        }

        fn complete<'a>(&'a self, _: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
            Box::pin(async { Err(away()) })
        }

        fn stream<'a>(&'a self, _: &'a ChatRequest) -> Boxed<'a, Result<ChunkStream, ProviderError>> {
            Box::pin(async { Err(away()) })
        }

        fn models(&self) -> Boxed<'_, Result<Vec<ModelListing>, ProviderError>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let listing = ModelListing { id: "m".to_owned(), created: 0, owned_by: "test".to_owned(), local: None };
            Box::pin(async move { if self.is_up { Ok(vec![listing]) } else { Err(away()) } })
        }
    }

    #[tokio::test]
    async fn who_has_answered_is_not_asked_with_those_who_have_not() {
        let (up, down) = (Arc::new(Lister { is_up: true, ..Lister::default() }), Arc::new(Lister::default()));
        let mut providers = Providers::new();
        providers.insert(Provider::OpenAi, Arc::clone(&up) as _);
        providers.insert(Provider::Ollama, Arc::clone(&down) as _);
        let catalogue = Catalogue::default();
        catalogue.ask(&providers, &Provider::ALL).await;
        assert_eq!(catalogue.silent(), [Provider::Ollama]);
        assert_eq!(catalogue.of(Provider::OpenAi).map(|models| models.len()), Some(1));
        for _ in 0..3 {
            catalogue.ask(&providers, &catalogue.silent()).await;
        }
        assert_eq!((up.asked.load(Ordering::Relaxed), down.asked.load(Ordering::Relaxed)), (1, 4));
    }
}
