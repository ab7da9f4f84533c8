//! Which model makes the vectors of a call to `/v1/embeddings`: by key and tier as for words, among the models that
//! make vectors.

use super::{Asked, Offer, Route, RouteRefusal, same_ollama_model};
use crate::pricing::Provider;
use crate::tiers::Tier;

/// What free and starter tenants get where Ollama has it.
pub const LOCAL_EMBEDDING_MODEL: &str = "nomic-embed-text";

/// What pro and enterprise tenants get when they name no model.
pub const PAID_EMBEDDING_MODEL: &str = "text-embedding-3-small";

/// How the names of models that make vectors begin, where `embed` stands nowhere in them. Ollama's list of what it has
/// installed does not say what a model is for.
const EMBEDDING_NAMES: [&str; 4] = ["all-minilm", "bge-", "paraphrase-", "gte-"];

/// Decides who answers a call to `/v1/embeddings`.
///
/// # Errors
/// See [`RouteRefusal`].
pub fn embedding_route(asked: Asked<'_>, offer: &Offer<'_>) -> Result<Route, RouteRefusal> {
    let paid = asked.tier.reaches_paid_models();
    let Some(named) = asked.model else {
        if paid && (offer.platform.contains(&Provider::OpenAi) || offer.byok.contains(&Provider::OpenAi)) {
            return embedding_route(Asked { model: Some(PAID_EMBEDDING_MODEL), ..asked }, offer);
        }
        return offer.on_platform(Provider::Ollama, local_model(offer), None);
    };
    let Some((provider, model)) = offer.find(named) else {
        if same_ollama_model(LOCAL_EMBEDDING_MODEL, named) {
            return offer.on_platform(Provider::Ollama, LOCAL_EMBEDDING_MODEL.to_owned(), None);
        }
        return Err(RouteRefusal::UnknownModel { model: named.to_owned() });
    };
    if provider == Provider::Ollama {
        // Whether it makes vectors is for Ollama to say.
        return offer.on_platform(provider, model, None);
    }
    if !offer.makes_vectors(provider, &model) {
        return Err(RouteRefusal::NoVectors { model });
    }
    if offer.byok.contains(&provider) {
        return Ok(Route { provider, model, substituted_for: None, byok: true });
    }
    if paid {
        return offer.on_platform(provider, model, None);
    }
    if asked.strict {
        return Err(RouteRefusal::TierTooLow { model, tier: asked.tier, needs: Tier::Pro });
    }
    offer.on_platform(Provider::Ollama, local_model(offer), Some(named.to_owned()))
}

/// Whether a local model makes vectors, as far as its name tells.
#[must_use]
pub fn makes_vectors(local_model: &str) -> bool {
    let name = local_model.rsplit('/').next().unwrap_or(local_model).to_ascii_lowercase();
    name.contains("embed") || EMBEDDING_NAMES.iter().any(|beginning| name.starts_with(beginning))
}

/// The preferred one, else the first that is installed. Where none is, the preferred one all the same, so that Ollama's
/// own answer says what is missing.
fn local_model(offer: &Offer<'_>) -> String {
    let installed = |wanted: &dyn Fn(&str) -> bool| offer.ollama_models.iter().find(|model| wanted(model.as_str()));
    installed(&|model| same_ollama_model(model, LOCAL_EMBEDDING_MODEL))
        .or_else(|| installed(&makes_vectors))
        .map_or_else(|| LOCAL_EMBEDDING_MODEL.to_owned(), Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pricing::PriceBook;
    use Provider::{Ollama, OpenAi};

    fn routed(
        tier: Tier,
        model: Option<&str>,
        strict: bool,
        installed: &[&str],
        byok: &[Provider],
    ) -> Result<Route, RouteRefusal> {
        let installed: Vec<String> = installed.iter().map(|model| (*model).to_owned()).collect();
        let platform = [OpenAi, Ollama];
        let offer = Offer { book: PriceBook::current(), ollama_models: &installed, platform: &platform, byok };
        embedding_route(Asked { tier, model, strict }, &offer)
    }

    fn goes(provider: Provider, model: &str, substituted_for: Option<&str>, byok: bool) -> Result<Route, RouteRefusal> {
        Ok(Route { provider, model: model.to_owned(), substituted_for: substituted_for.map(str::to_owned), byok })
    }

    const INSTALLED: &[&str] = &["llama3.2:3b", "mxbai-embed-large:latest", "nomic-embed-text:latest"];

    #[test]
    fn each_tier_gets_what_it_reaches() {
        for tier in [Tier::Free, Tier::Starter] {
            assert_eq!(routed(tier, None, false, INSTALLED, &[]), goes(Ollama, "nomic-embed-text:latest", None, false));
            let other = &INSTALLED[..2];
            assert_eq!(routed(tier, None, false, other, &[]), goes(Ollama, "mxbai-embed-large:latest", None, false));
            assert_eq!(routed(tier, None, false, &["llama3.2:3b"], &[]), goes(Ollama, "nomic-embed-text", None, false));
            let named = Some("text-embedding-3-small");
            assert_eq!(
                routed(tier, named, false, INSTALLED, &[]),
                goes(Ollama, "nomic-embed-text:latest", named, false)
            );
            assert!(matches!(routed(tier, named, true, INSTALLED, &[]), Err(RouteRefusal::TierTooLow { .. })));
            assert_eq!(
                routed(tier, named, false, INSTALLED, &[OpenAi]),
                goes(OpenAi, "text-embedding-3-small", None, true)
            );
        }
        for tier in [Tier::Pro, Tier::Enterprise] {
            assert_eq!(routed(tier, None, false, INSTALLED, &[]), goes(OpenAi, PAID_EMBEDDING_MODEL, None, false));
            let large = Some("text-embedding-3-large");
            assert_eq!(routed(tier, large, true, &[], &[]), goes(OpenAi, "text-embedding-3-large", None, false));
            let local = Some("mxbai-embed-large");
            assert_eq!(
                routed(tier, local, true, INSTALLED, &[]),
                goes(Ollama, "mxbai-embed-large:latest", None, false)
            );
        }
    }

    #[test]
    fn models_of_words_make_no_vectors() {
        let refused = routed(Tier::Pro, Some("gpt-4"), false, INSTALLED, &[]);
        assert_eq!(refused, Err(RouteRefusal::NoVectors { model: "gpt-4".to_owned() }));
        for name in ["gpt-99", "text-embedding-9"] {
            let unknown = routed(Tier::Pro, Some(name), false, INSTALLED, &[]);
            assert_eq!(unknown, Err(RouteRefusal::UnknownModel { model: name.to_owned() }));
        }
    }

    #[test]
    fn vectors_without_a_price_are_made_by_ones_own_key() {
        let own = |named| routed(Tier::Free, Some(named), true, INSTALLED, &[OpenAi]);
        assert_eq!(own("text-embedding-9"), goes(OpenAi, "text-embedding-9", None, true));
        assert_eq!(own("gpt-99"), Err(RouteRefusal::NoVectors { model: "gpt-99".to_owned() }));
    }

    #[test]
    fn models_of_vectors_are_known_by_their_names() {
        for name in ["nomic-embed-text", "embeddinggemma:300m", "qwen3-embedding:8b", "bge-m3:latest", "x/all-minilm"] {
            assert!(makes_vectors(name), "{name}");
        }
        for name in ["llama3.2:3b", "soulfra:latest", "gpt-oss:20b", "mistral"] {
            assert!(!makes_vectors(name), "{name}");
        }
    }
}
