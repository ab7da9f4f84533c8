//! The table: who does a task, best first, and with which model.

use super::super::personas::Persona;
use super::super::{LOCAL_DEFAULT_MODEL, Offer, PAID_DEFAULT_MODEL};
use super::{Pick, Strategy, Task, TaskAsked};
use crate::pricing::Provider::{self, Anthropic, DeepSeek, Ollama, OpenAi};

/// Anthropic's model for whatever it is asked to do.
const CLAUDE: &str = "claude-sonnet-5";

/// The cheapest models of the paid providers that do every task.
const SMALL_CLAUDE: &str = "claude-haiku-4-5-20251001";
const SMALL_GPT: &str = "gpt-4o-mini";

/// DeepSeek's models.
const DEEPSEEK: &str = "deepseek-chat";
const DEEPSEEK_REASONER: &str = "deepseek-reasoner";

impl Task {
    /// Who does it, best first. Whom the wallet does not reach is passed over, so what stands behind the expensive ones
    /// is what the task gets with less than [`super::ANY_MODEL_MIN`].
    const fn providers(self) -> &'static [Provider] {
        match self {
            Self::Chat => &[OpenAi, Anthropic, DeepSeek, Ollama],
            Self::Code | Self::Reasoning => &[OpenAi, Anthropic, Ollama, DeepSeek],
            Self::Creative | Self::Summarization => &[Anthropic, OpenAi, Ollama, DeepSeek],
            Self::Analytics | Self::Triage => &[Ollama, DeepSeek],
            Self::Fact | Self::Moderation => &[DeepSeek, Ollama],
        }
    }

    /// Whose voice, and whose own model, does it locally.
    const fn persona(self) -> Option<Persona> {
        match self {
            Self::Code => Some(Persona::CodeLlama),
            Self::Creative => Some(Persona::Soulfra),
            Self::Reasoning => Some(Persona::RoughSparks),
            Self::Analytics | Self::Summarization => Some(Persona::DeathToData),
            Self::Triage => Some(Persona::SaveOrSink),
            Self::Chat | Self::Fact | Self::Moderation => None,
        }
    }
}

/// Everybody who does the task, in the order of the strategy.
pub(super) fn picks(asked: &TaskAsked, offer: &Offer<'_>) -> Vec<Pick> {
    let task = asked.task();
    let why = match asked.strategy {
        Strategy::Smart => format!("the best open choice for the task {task}"),
        Strategy::Cheapest => format!("the cheapest open choice for the task {task}"),
    };
    let picks = task.providers().iter().map(|provider| pick(asked, *provider, offer, why.clone()));
    let mut picks: Vec<Pick> = picks.collect();
    if asked.strategy == Strategy::Cheapest {
        picks.sort_by_key(|pick| list_price(pick, offer));
    }
    picks
}

/// A provider with its model for what is asked.
pub(super) fn pick(asked: &TaskAsked, provider: Provider, offer: &Offer<'_>, why: String) -> Pick {
    let task = asked.task();
    let model = match (provider, asked.strategy) {
        (OpenAi, Strategy::Smart) => PAID_DEFAULT_MODEL,
        (OpenAi, Strategy::Cheapest) => SMALL_GPT,
        (Anthropic, Strategy::Smart) => CLAUDE,
        (Anthropic, Strategy::Cheapest) => SMALL_CLAUDE,
        (DeepSeek, Strategy::Smart) if matches!(task, Task::Reasoning) => DEEPSEEK_REASONER,
        (DeepSeek, Strategy::Smart | Strategy::Cheapest) => DEEPSEEK,
        (Ollama, Strategy::Smart | Strategy::Cheapest) => {
            let persona = asked.voice().or(task.persona());
            return Pick { provider, model: local_model(persona, offer), persona, why };
        }
    };
    Pick { provider, model: model.to_owned(), persona: asked.voice(), why }
}

/// What Ollama does it with, and what it always has.
pub(super) fn local_picks(asked: &TaskAsked, offer: &Offer<'_>) -> Vec<Pick> {
    let own = pick(asked, Ollama, offer, String::new());
    let always = Pick { model: LOCAL_DEFAULT_MODEL.to_owned(), ..own.clone() };
    if own.is(&always) { vec![own] } else { vec![own, always] }
}

/// The persona's own model where it is installed, the latest of it first; else the model that plays it.
pub(super) fn local_model(persona: Option<Persona>, offer: &Offer<'_>) -> String {
    let own = persona.and_then(|persona| {
        let latest = offer.ollama_models.iter().find(|model| super::shown_model(model) == persona.as_str());
        latest.or_else(|| offer.ollama_models.iter().find(|model| Persona::of_model(model) == Some(persona)))
    });
    own.cloned().unwrap_or_else(|| LOCAL_DEFAULT_MODEL.to_owned())
}

/// A million tokens in and a million out. What has no price is never the cheapest.
fn list_price(pick: &Pick, offer: &Offer<'_>) -> u64 {
    let price = offer.book.price(pick.provider, &pick.model);
    price.map_or(u64::MAX, |price| price.input.saturating_add(price.output))
}
