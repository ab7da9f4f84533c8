//! Whose model a name must be that the price book does not have, by how providers name theirs.
//!
//! Such a model has no price, so it is never asked on the platform's account. A tenant's own key pays for itself, and
//! may ask for whatever its account has.

use crate::pricing::Provider::{self, Anthropic, DeepSeek, OpenAi};

/// How the names of the providers' models begin.
const BEGINNINGS: [(&str, Provider); 5] =
    [("gpt-", OpenAi), ("chatgpt-", OpenAi), (OPENAI_VECTORS, OpenAi), ("claude-", Anthropic), ("deepseek-", DeepSeek)];

/// How the names of OpenAI's models of vectors begin.
const OPENAI_VECTORS: &str = "text-embedding-";

/// What stands before the name of the model that was tuned; its owner follows behind a colon.
const OPENAI_TUNED: &str = "ft:";

/// Open weights: OpenAI's by name, but only ever run locally.
const OPEN_WEIGHTS: &str = "gpt-oss";

/// Whose model a name must be; none for what could be a local model's, such as any with a tag.
#[must_use]
pub fn unlisted_provider(name: &str) -> Option<Provider> {
    if let Some(tuned) = name.strip_prefix(OPENAI_TUNED) {
        let base = tuned.split_once(':').map_or(tuned, |(base, _)| base);
        return paid_provider(base).filter(|provider| *provider == OpenAi);
    }
    if name.contains([':', '/']) { None } else { paid_provider(name) }
}

fn paid_provider(name: &str) -> Option<Provider> {
    if name.starts_with(OPEN_WEIGHTS) {
        return None;
    }
    let after_o = name.strip_prefix('o').and_then(|rest| rest.bytes().next());
    if after_o.is_some_and(|byte| byte.is_ascii_digit()) {
        return Some(OpenAi);
    }
    let known = |(beginning, _): &&(&str, Provider)| name.len() > beginning.len() && name.starts_with(beginning);
    BEGINNINGS.iter().find(known).map(|(_, provider)| *provider)
}

/// Whether such a model makes vectors.
pub(super) fn makes_vectors(name: &str) -> bool {
    name.starts_with(OPENAI_VECTORS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_whose_model_it_is() {
        for (name, provider) in [
            ("gpt-99", Some(OpenAi)),
            ("gpt-6-pro-2027-01-01", Some(OpenAi)),
            ("o1-pro", Some(OpenAi)),
            ("o9", Some(OpenAi)),
            ("chatgpt-5o-latest", Some(OpenAi)),
            ("text-embedding-4", Some(OpenAi)),
            ("ft:gpt-4.1-2025-04-14:acme::a1", Some(OpenAi)),
            ("ft:o4-mini:acme::a1", Some(OpenAi)),
            ("claude-opus-9", Some(Anthropic)),
            ("deepseek-v9", Some(DeepSeek)),
        ] {
            assert_eq!(unlisted_provider(name), provider, "{name}");
        }
    }

    #[test]
    fn what_may_be_a_local_model_is_nobodys() {
        for name in [
            "",
            "gpt-",
            "o",
            "ollama",
            "orca-mini",
            "olmo2:7b",
            "gpt",
            "gpt2",
            "claude",
            "deepseek-r1:8b",
            "gpt-oss",
            "gpt-oss:20b",
            "acme/gpt-99",
            "ft:claude-x:acme",
            "ft:7b",
            "llama3.2:3b",
            "my-gpt-4",
        ] {
            assert_eq!(unlisted_provider(name), None, "{name}");
        }
    }
}
