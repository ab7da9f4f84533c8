//! Which model answers a call to `/v1`: the tenant's own key first, then what the licence's tier reaches.
//!
//! A pure function of what is asked and what is there. The router of `/api/chat/complete`, which chooses by task and
//! balance, is another function over the same [`Offer`]: [`task::task_route`].

pub mod personas;
pub mod task;

mod embeddings;
mod unlisted;

use crate::pricing::{PriceBook, Provider};
use crate::tiers::Tier;

pub use embeddings::{LOCAL_EMBEDDING_MODEL, PAID_EMBEDDING_MODEL, embedding_route, makes_vectors};
pub use unlisted::unlisted_provider;

/// What free and starter tenants get.
pub const LOCAL_DEFAULT_MODEL: &str = "llama3.2:3b";

/// What pro and enterprise tenants get when they name no model.
pub const PAID_DEFAULT_MODEL: &str = "gpt-4";

/// Who takes over from [`PAID_DEFAULT_MODEL`] where its provider does not have it any more.
pub const PAID_DEFAULT_SUCCESSOR: &str = "gpt-4o";

/// The tag Ollama means when a name has none.
const OLLAMA_DEFAULT_TAG: &str = ":latest";

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The licence's tier.
    pub tier: Tier,
    /// The model the client named, if any.
    pub model: Option<&'a str>,
    /// Whether the tenant wants a refusal instead of another model than the one named.
    pub strict: bool,
}

/// What is there.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Knows the paid providers' models.
    pub book: &'a PriceBook,
    /// What Ollama has installed, by its own names.
    pub ollama_models: &'a [String],
    /// Providers the platform can reach with its own keys; Ollama when it has an address.
    pub platform: &'a [Provider],
    /// Providers the tenant brought a key for.
    pub byok: &'a [Provider],
}

/// Who answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The provider.
    pub provider: Provider,
    /// The model, by the provider's name for it; an alias stays as the client named it.
    pub model: String,
    /// The model the client named, when the tier's own takes its place.
    pub substituted_for: Option<String>,
    /// Whether the tenant's own key is used.
    pub byok: bool,
}

/// Why nobody answers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RouteRefusal {
    /// Nobody knows the model.
    #[error("the model {model} does not exist")]
    UnknownModel {
        /// As named.
        model: String,
    },
    /// The tier does not reach the model, and the tenant wants no other.
    #[error("the model {model} needs the tier {needs}; the licence is {tier}")]
    TierTooLow {
        /// As named.
        model: String,
        /// The tenant's tier.
        tier: Tier,
        /// The lowest tier that reaches it.
        needs: Tier,
    },
    /// The model gives vectors, and words are asked for.
    #[error("the model {model} makes vectors, not words: send it to /v1/embeddings, or name a chat model here")]
    NoWords {
        /// The model.
        model: String,
    },
    /// The model gives words, and vectors are asked for.
    #[error("the model {model} makes words, not vectors: name an embedding model such as text-embedding-3-small")]
    NoVectors {
        /// The model.
        model: String,
    },
    /// The provider of the model has no key or address here.
    #[error("the model {model} is served by {provider}, which is not configured here")]
    NotConfigured {
        /// The provider.
        provider: Provider,
        /// The model.
        model: String,
    },
    /// The model is one provider's and another provider was asked for.
    #[error("the model {model} is served by {provider}, not by {asked}")]
    AnotherProvider {
        /// The model, as named.
        model: String,
        /// Whose it is.
        provider: Provider,
        /// Who was asked for.
        asked: Provider,
    },
}

/// Decides who answers a call to `/v1`.
///
/// # Errors
/// See [`RouteRefusal`].
pub fn route(asked: Asked<'_>, offer: &Offer<'_>) -> Result<Route, RouteRefusal> {
    let named = asked.model.unwrap_or(default_model(asked.tier));
    let (provider, model) = offer.find_words(named)?;
    if provider != Provider::Ollama && offer.byok.contains(&provider) {
        return Ok(Route { provider, model, substituted_for: None, byok: true });
    }
    if provider == Provider::Ollama || asked.tier.reaches_paid_models() {
        return offer.on_platform(provider, model, None);
    }
    if asked.strict {
        return Err(RouteRefusal::TierTooLow { model, tier: asked.tier, needs: Tier::Pro });
    }
    offer.on_platform(Provider::Ollama, LOCAL_DEFAULT_MODEL.to_owned(), Some(named.to_owned()))
}

/// Who takes over should the provider of `first` not have its model any more: the default's successor, for calls that
/// named none. A model that was named has no successor.
#[must_use]
pub fn successor(asked: Asked<'_>, first: &Route) -> Option<Route> {
    let is_default = asked.model.is_none() && first.model == PAID_DEFAULT_MODEL;
    is_default.then(|| Route { model: PAID_DEFAULT_SUCCESSOR.to_owned(), ..first.clone() })
}

/// The model of a call that names none.
#[must_use]
pub const fn default_model(tier: Tier) -> &'static str {
    if tier.reaches_paid_models() { PAID_DEFAULT_MODEL } else { LOCAL_DEFAULT_MODEL }
}

impl Offer<'_> {
    /// Who runs a model of that name, and what they call it; a model of words.
    fn find_words(&self, named: &str) -> Result<(Provider, String), RouteRefusal> {
        let Some((provider, model)) = self.find(named) else {
            return Err(RouteRefusal::UnknownModel { model: named.to_owned() });
        };
        if self.makes_vectors(provider, &model) { Err(RouteRefusal::NoWords { model }) } else { Ok((provider, model)) }
    }

    /// Whether a model makes vectors, as far as the book, or else its name, tells.
    fn makes_vectors(&self, provider: Provider, model: &str) -> bool {
        match provider {
            Provider::Ollama => makes_vectors(model),
            Provider::OpenAi | Provider::Anthropic | Provider::DeepSeek => {
                let entry = self.book.model(model);
                entry.map_or_else(|| unlisted::makes_vectors(model), |entry| entry.kind.is_embedding())
            }
        }
    }

    /// Who runs a model of that name, and what they call it. One without a price is known to who has a key of their own
    /// for its provider: there it costs the fee like any other.
    fn find(&self, named: &str) -> Option<(Provider, String)> {
        if let Some(entry) = self.book.model(named) {
            return Some((entry.provider, named.to_owned()));
        }
        let installed = self.ollama_models.iter().find(|model| same_ollama_model(model, named));
        // The local default is promised to everybody, so it is known even while Ollama cannot be asked.
        let promised = (named == LOCAL_DEFAULT_MODEL).then(|| LOCAL_DEFAULT_MODEL.to_owned());
        let local = installed.cloned().or(promised).map(|model| (Provider::Ollama, model));
        local.or_else(|| {
            let provider = unlisted_provider(named).filter(|provider| self.byok.contains(provider))?;
            Some((provider, named.to_owned()))
        })
    }

    fn on_platform(
        &self,
        provider: Provider,
        model: String,
        substituted_for: Option<String>,
    ) -> Result<Route, RouteRefusal> {
        if self.platform.contains(&provider) {
            Ok(Route { provider, model, substituted_for, byok: false })
        } else {
            Err(RouteRefusal::NotConfigured { provider, model })
        }
    }
}

/// Ollama's names default to the tag `latest`.
fn same_ollama_model(installed: &str, named: &str) -> bool {
    installed == named
        || (!named.contains(':') && installed.strip_suffix(OLLAMA_DEFAULT_TAG) == Some(named))
        || named.strip_suffix(OLLAMA_DEFAULT_TAG) == Some(installed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Provider::{Anthropic, DeepSeek, Ollama, OpenAi};
    use Tier::{Enterprise, Free, Pro, Starter};

    const ALL: &[Provider] = &[OpenAi, Anthropic, DeepSeek, Ollama];
    const OPUS: &str = "claude-3-opus-20240229";

    /// tier, model, strict, platform, byok → provider, model, substituted for, byok; or a refusal.
    type Case<'a> = (Tier, Option<&'a str>, bool, &'a [Provider], &'a [Provider], Expected<'a>);

    enum Expected<'a> {
        Goes(Provider, &'a str),
        Instead(&'a str),
        OwnKey(Provider, &'a str),
        Unknown(&'a str),
        TooLow(&'a str),
        Unconfigured(Provider, &'a str),
    }
    use Expected::{Goes, Instead, OwnKey, TooLow, Unconfigured, Unknown};

    fn check((tier, model, strict, platform, byok, expected): Case<'_>) {
        let installed = ["llama3.2:3b", "codellama:latest", "mistral"].map(str::to_owned);
        let offer = Offer { book: PriceBook::current(), ollama_models: &installed, platform, byok };
        let route_to = |provider, model: &str, substituted_for: Option<&str>, byok| {
            let substituted_for = substituted_for.map(str::to_owned);
            Ok(Route { provider, model: model.to_owned(), substituted_for, byok })
        };
        let expected = match expected {
            Goes(provider, model) => route_to(provider, model, None, false),
            Instead(named) => route_to(Ollama, LOCAL_DEFAULT_MODEL, Some(named), false),
            OwnKey(provider, model) => route_to(provider, model, None, true),
            Unknown(model) => Err(RouteRefusal::UnknownModel { model: model.to_owned() }),
            TooLow(model) => Err(RouteRefusal::TierTooLow { model: model.to_owned(), tier, needs: Pro }),
            Unconfigured(provider, model) => Err(RouteRefusal::NotConfigured { provider, model: model.to_owned() }),
        };
        assert_eq!(route(Asked { tier, model, strict }, &offer), expected, "{tier} {model:?} strict {strict} {byok:?}");
    }

    #[test]
    fn tiers_without_paid_models_get_the_local_one() {
        for tier in [Free, Starter] {
            check((tier, None, false, ALL, &[], Goes(Ollama, "llama3.2:3b")));
            check((tier, None, true, ALL, &[], Goes(Ollama, "llama3.2:3b")));
            check((tier, Some("gpt-4"), false, ALL, &[], Instead("gpt-4")));
            check((tier, Some(OPUS), false, ALL, &[], Instead(OPUS)));
            check((tier, Some("deepseek-chat"), false, ALL, &[], Instead("deepseek-chat")));
            check((tier, Some("gpt-4"), true, ALL, &[], TooLow("gpt-4")));
            check((tier, Some("codellama"), true, ALL, &[], Goes(Ollama, "codellama:latest")));
            check((tier, None, false, &[OpenAi], &[], Unconfigured(Ollama, "llama3.2:3b")));
            check((tier, Some("gpt-4"), false, &[OpenAi], &[], Unconfigured(Ollama, "llama3.2:3b")));
        }
    }

    #[test]
    fn tiers_with_paid_models_get_what_they_name() {
        for (tier, strict) in [(Pro, false), (Pro, true), (Enterprise, false), (Enterprise, true)] {
            check((tier, None, strict, ALL, &[], Goes(OpenAi, "gpt-4")));
            check((tier, Some("gpt-4o"), strict, ALL, &[], Goes(OpenAi, "gpt-4o")));
            check((tier, Some(OPUS), strict, ALL, &[], Goes(Anthropic, OPUS)));
            check((tier, Some("deepseek-chat"), strict, ALL, &[], Goes(DeepSeek, "deepseek-chat")));
            check((tier, Some("llama3.2:3b"), strict, ALL, &[], Goes(Ollama, "llama3.2:3b")));
            check((tier, Some("gpt-4"), strict, &[Ollama], &[], Unconfigured(OpenAi, "gpt-4")));
            check((tier, None, strict, &[Ollama], &[], Unconfigured(OpenAi, "gpt-4")));
        }
    }

    #[test]
    fn a_tenants_own_key_comes_first_whatever_the_tier() {
        for tier in Tier::ALL {
            for strict in [false, true] {
                check((tier, Some("gpt-4"), strict, ALL, &[OpenAi], OwnKey(OpenAi, "gpt-4")));
                check((tier, Some("gpt-4"), strict, &[], &[OpenAi], OwnKey(OpenAi, "gpt-4")));
                check((tier, Some(OPUS), strict, ALL, &[OpenAi, Anthropic], OwnKey(Anthropic, OPUS)));
                check((tier, Some("llama3.2:3b"), strict, ALL, &[Ollama], Goes(Ollama, "llama3.2:3b")));
            }
        }
        check((Free, Some(OPUS), false, ALL, &[OpenAi], Instead(OPUS)));
        check((Free, None, false, ALL, &[OpenAi], Goes(Ollama, "llama3.2:3b")));
        check((Pro, None, false, ALL, &[OpenAi], OwnKey(OpenAi, "gpt-4")));
    }

    #[test]
    fn a_model_nobody_knows_is_refused_for_everybody() {
        for tier in Tier::ALL {
            for strict in [false, true] {
                check((tier, Some("gpt-99"), strict, ALL, &[], Unknown("gpt-99")));
                check((tier, Some(""), strict, ALL, ALL, Unknown("")));
                check((tier, Some("llama2"), strict, ALL, ALL, Unknown("llama2")));
                check((tier, Some("gpt-oss:20b"), strict, ALL, ALL, Unknown("gpt-oss:20b")));
            }
        }
    }

    #[test]
    fn a_model_without_a_price_goes_by_ones_own_key_alone() {
        for tier in Tier::ALL {
            for strict in [false, true] {
                for (provider, named) in [
                    (OpenAi, "gpt-99"),
                    (OpenAi, "o7-preview"),
                    (OpenAi, "ft:gpt-4o-mini-2024-07-18:acme::x1"),
                    (Anthropic, "claude-next"),
                    (DeepSeek, "deepseek-v9"),
                ] {
                    check((tier, Some(named), strict, ALL, &[provider], OwnKey(provider, named)));
                    check((tier, Some(named), strict, &[], &[provider], OwnKey(provider, named)));
                    check((tier, Some(named), strict, ALL, &[], Unknown(named)));
                    let others: Vec<_> = ALL.iter().copied().filter(|other| *other != provider).collect();
                    check((tier, Some(named), strict, ALL, &others, Unknown(named)));
                }
            }
        }
    }

    #[test]
    fn an_alias_goes_where_its_model_goes_and_keeps_its_name() {
        for (provider, named) in [
            (Anthropic, "claude-sonnet-4-5"),
            (Anthropic, "claude-3-5-haiku-latest"),
            (OpenAi, "gpt-4.1-2025-04-14"),
            (OpenAi, "gpt-4o-2024-05-13"),
        ] {
            check((Pro, Some(named), true, ALL, &[], Goes(provider, named)));
            check((Free, Some(named), true, ALL, &[provider], OwnKey(provider, named)));
            check((Free, Some(named), false, ALL, &[], Instead(named)));
            check((Free, Some(named), true, ALL, &[], TooLow(named)));
        }
    }

    #[test]
    fn only_the_paid_default_of_a_call_that_names_none_has_a_successor() {
        let installed = ["llama3.2:3b".to_owned()];
        let succeeded = |tier, model, byok| {
            let offer = Offer { book: PriceBook::current(), ollama_models: &installed, platform: ALL, byok };
            let asked = Asked { tier, model, strict: false };
            successor(asked, &route(asked, &offer).unwrap()).map(|next| (next.provider, next.model, next.byok))
        };
        let next = |byok| Some((OpenAi, PAID_DEFAULT_SUCCESSOR.to_owned(), byok));
        assert_eq!(succeeded(Pro, None, &[]), next(false));
        assert_eq!(succeeded(Enterprise, None, &[OpenAi]), next(true));
        assert_eq!(succeeded(Pro, Some("gpt-4"), &[]), None);
        assert_eq!(succeeded(Free, None, &[]), None);
        assert!(PriceBook::current().model(PAID_DEFAULT_SUCCESSOR).is_some());
    }

    #[test]
    fn a_model_of_vectors_answers_no_chat() {
        let installed = ["nomic-embed-text:latest".to_owned()];
        let offer = Offer { book: PriceBook::current(), ollama_models: &installed, platform: ALL, byok: ALL };
        for (named, model) in [
            ("text-embedding-3-small", "text-embedding-3-small"),
            ("text-embedding-9", "text-embedding-9"),
            ("nomic-embed-text", "nomic-embed-text:latest"),
        ] {
            let refused = route(Asked { tier: Pro, model: Some(named), strict: false }, &offer);
            assert_eq!(refused, Err(RouteRefusal::NoWords { model: model.to_owned() }));
        }
    }

    #[test]
    fn an_ollama_name_without_a_tag_means_the_latest() {
        check((Pro, Some("codellama"), false, ALL, &[], Goes(Ollama, "codellama:latest")));
        check((Pro, Some("mistral:latest"), false, ALL, &[], Goes(Ollama, "mistral")));
        check((Pro, Some("codellama:7b"), false, ALL, &[], Unknown("codellama:7b")));
    }

    #[test]
    fn the_local_default_is_known_while_ollama_cannot_be_asked() {
        let offer = Offer { book: PriceBook::current(), ollama_models: &[], platform: &[Ollama], byok: &[] };
        let routed = route(Asked { tier: Free, model: None, strict: false }, &offer);
        assert_eq!(routed.map(|route| route.model), Ok(LOCAL_DEFAULT_MODEL.to_owned()));
    }
}
