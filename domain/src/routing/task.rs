//! Which models answer a call to `/api/chat/complete`, and in which order: what the caller prefers, else what the task
//! is best done by, as far as the wallet reaches; behind it at most two others, Ollama last.
//!
//! A pure function of what is asked, what is there and what the wallet has. The licence's tier plays no part: this
//! router is for people with a balance, and the balance decides.

mod table;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::personas::Persona;
use super::{LOCAL_DEFAULT_MODEL, Offer, Route, RouteRefusal};
use crate::MicroUsd;
use crate::pricing::Provider;

/// With this much available any model may be asked; with less, DeepSeek and Ollama.
pub const ANY_MODEL_MIN: MicroUsd = MicroUsd::new(5_000_000);

/// With this much available DeepSeek may be asked; with less, Ollama alone.
pub const CHEAP_MODEL_MIN: MicroUsd = MicroUsd::new(1_000_000);

/// With less than this only a route is open that is free by the caller's own choice.
pub const ANY_CALL_MIN: MicroUsd = MicroUsd::new(100_000);

/// The most models one call is tried with: the first choice and two fallbacks.
pub const CHAIN_MAX_ROUTES: usize = 3;

/// What a call is to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Nothing in particular.
    #[default]
    Chat,
    /// Write or change programs.
    Code,
    /// Write to please.
    Creative,
    /// Think.
    Reasoning,
    /// Read figures.
    Analytics,
    /// Answer a plain question.
    Fact,
    /// Make it shorter.
    Summarization,
    /// Find spam and abuse.
    Moderation,
    /// Decide what matters.
    Triage,
}

/// Why a text names no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task is chat, code, creative, reasoning, analytics, fact, summarization, moderation or triage")]
pub struct NoTask;

impl Task {
    /// Every task.
    pub const ALL: [Self; 9] = [
        Self::Chat,
        Self::Code,
        Self::Creative,
        Self::Reasoning,
        Self::Analytics,
        Self::Fact,
        Self::Summarization,
        Self::Moderation,
        Self::Triage,
    ];

    /// The name in requests and in the usage log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Code => "code",
            Self::Creative => "creative",
            Self::Reasoning => "reasoning",
            Self::Analytics => "analytics",
            Self::Fact => "fact",
            Self::Summarization => "summarization",
            Self::Moderation => "moderation",
            Self::Triage => "triage",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Task {
    type Err = NoTask;
    /// `general` is another word for `chat`.
    fn from_str(text: &str) -> Result<Self, NoTask> {
        if text == "general" {
            return Ok(Self::Chat);
        }
        Self::ALL.into_iter().find(|task| task.as_str() == text).ok_or(NoTask)
    }
}

/// What the choice goes by where the caller names nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Who does the task best, as far as the wallet reaches.
    #[default]
    Smart,
    /// Who does it for the lowest list price: Ollama first.
    Cheapest,
}

/// Why a text names no strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a strategy is smart or cheapest")]
pub struct NoStrategy;

impl FromStr for Strategy {
    type Err = NoStrategy;
    fn from_str(text: &str) -> Result<Self, NoStrategy> {
        match text {
            "smart" => Ok(Self::Smart),
            "cheapest" => Ok(Self::Cheapest),
            _ => Err(NoStrategy),
        }
    }
}

/// What is asked of the task router.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TaskAsked {
    /// What is to be done; none leaves it to the persona, else it is a chat.
    pub task: Option<Task>,
    /// What the choice goes by.
    pub strategy: Strategy,
    /// Who should answer, if the caller says so.
    pub preferred: Option<Provider>,
    /// Which model should answer, if the caller says so.
    pub model: Option<String>,
    /// In whose voice, if the caller says so.
    pub persona: Option<Persona>,
}

impl TaskAsked {
    /// Whose voice was asked for: a persona's, or that of a persona's own model.
    #[must_use]
    pub fn voice(&self) -> Option<Persona> {
        self.persona.or_else(|| self.model.as_deref().and_then(Persona::of_model))
    }

    /// What is to be done.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task.or_else(|| self.voice().map(Persona::task)).unwrap_or_default()
    }
}

/// What the moment adds to an offer.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// What the wallet has available.
    pub available: MicroUsd,
    /// Models that have failed so often of late that calls to them are held back.
    pub broken: &'a [(Provider, String)],
}

/// One who may answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskRoute {
    /// Who.
    pub route: Route,
    /// In whose voice. A model other than the persona's own has to be told how.
    pub persona: Option<Persona>,
    /// Why, for a person to read.
    pub reason: String,
}

/// One who may not, or not before others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PassedOver {
    /// Who.
    pub provider: Provider,
    /// With which model.
    pub model: String,
    /// Why, for a person to read.
    pub reason: String,
}

/// Who is asked, one after the other until one answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskChain {
    /// At least one, at most [`CHAIN_MAX_ROUTES`]; the last is Ollama wherever there is one.
    pub routes: Vec<TaskRoute>,
    /// Who would have come before, and why they do not.
    pub passed_over: Vec<PassedOver>,
}

/// Why nobody is asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TaskRefusal {
    /// What was asked for is not there.
    #[error(transparent)]
    Route(#[from] RouteRefusal),
    /// The wallet does not reach anybody who is there.
    #[error("needs {needed} micro-dollars available, has {available}")]
    TooLittle {
        /// From how much on there is somebody.
        needed: MicroUsd,
        /// How much there is.
        available: MicroUsd,
    },
}

/// Decides who answers a call to `/api/chat/complete`.
///
/// # Errors
/// See [`TaskRefusal`].
pub fn task_route(asked: &TaskAsked, offer: &Offer<'_>, standing: Standing<'_>) -> Result<TaskChain, TaskRefusal> {
    let wish = asked.wish(offer)?;
    let free_by_choice = wish.as_ref().is_some_and(|pick| offer.is_free(pick.provider));
    if !free_by_choice && standing.available < ANY_CALL_MIN {
        return Err(TaskRefusal::TooLittle { needed: ANY_CALL_MIN, available: standing.available });
    }
    // Whoever asks for what is free is never sent on to what costs.
    let stays_local = wish.as_ref().is_some_and(|pick| pick.provider == Provider::Ollama);
    let mut picks: Vec<Pick> = wish.into_iter().collect();
    if !stays_local {
        picks.extend(table::picks(asked, offer));
    }
    let mut choice = Choice { offer, standing, passed_over: Vec::new(), needed: None };
    picks.retain(|pick| choice.is_open_to(pick));
    let picks = choice.healthy_first(picks);
    let routes = choice.chain(asked, picks);
    if !routes.is_empty() {
        return Ok(TaskChain { routes, passed_over: choice.passed_over });
    }
    match choice.needed {
        Some(needed) => Err(TaskRefusal::TooLittle { needed, available: standing.available }),
        None => {
            Err(RouteRefusal::NotConfigured { provider: Provider::Ollama, model: LOCAL_DEFAULT_MODEL.to_owned() }
                .into())
        }
    }
}

/// How much has to be available before a provider is asked on the platform's account.
#[must_use]
pub const fn needed_for(provider: Provider) -> MicroUsd {
    match provider {
        Provider::OpenAi | Provider::Anthropic => ANY_MODEL_MIN,
        Provider::DeepSeek => CHEAP_MODEL_MIN,
        Provider::Ollama => MicroUsd::ZERO,
    }
}

/// A model's name as answers show it: without the tag that Ollama means anyway.
#[must_use]
pub fn shown_model(model: &str) -> &str {
    model.strip_suffix(super::OLLAMA_DEFAULT_TAG).unwrap_or(model)
}

/// One who comes into question.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pick {
    provider: Provider,
    model: String,
    persona: Option<Persona>,
    why: String,
}

impl Pick {
    fn is(&self, other: &Self) -> bool {
        (self.provider, &self.model) == (other.provider, &other.model)
    }
}

impl TaskAsked {
    /// Whom the caller names. A voice or a local model without a provider means Ollama.
    fn wish(&self, offer: &Offer<'_>) -> Result<Option<Pick>, RouteRefusal> {
        if let Some(named) = self.model.as_deref() {
            let (provider, model) = self.find(named, offer)?;
            if let Some(asked) = self.preferred.filter(|asked| *asked != provider) {
                let model = named.to_owned();
                return Err(RouteRefusal::AnotherProvider { model, provider, asked });
            }
            let why = format!("the model {named} was asked for");
            return Ok(Some(Pick { provider, model, persona: self.voice(), why }));
        }
        let why = match (self.preferred, self.persona) {
            (Some(provider), _) => format!("preferredProvider {provider} was asked for"),
            (None, Some(persona)) => format!("the persona {persona} was asked for"),
            (None, None) => return Ok(None),
        };
        let provider = self.preferred.unwrap_or(Provider::Ollama);
        Ok(Some(table::pick(self, provider, offer, why)))
    }

    fn find(&self, named: &str, offer: &Offer<'_>) -> Result<(Provider, String), RouteRefusal> {
        let found = offer.find_words(named);
        // A persona's model that is not installed is played by another; with a tag of its own it is just unknown.
        let played = Persona::of_model(named).filter(|persona| persona.as_str() == shown_model(named));
        match (found, played) {
            (Err(RouteRefusal::UnknownModel { .. }), Some(persona)) => {
                Ok((Provider::Ollama, table::local_model(Some(persona), offer)))
            }
            (found, _) => found,
        }
    }
}

impl Offer<'_> {
    fn has_own_key(&self, provider: Provider) -> bool {
        provider != Provider::Ollama && self.byok.contains(&provider)
    }

    fn has(&self, provider: Provider) -> bool {
        self.has_own_key(provider) || self.platform.contains(&provider)
    }

    /// Whether the wallet pays nothing for the model's work.
    fn is_free(&self, provider: Provider) -> bool {
        provider == Provider::Ollama || self.has_own_key(provider)
    }
}

/// The choice as it is being made.
struct Choice<'a> {
    offer: &'a Offer<'a>,
    standing: Standing<'a>,
    passed_over: Vec<PassedOver>,
    /// The least that would have opened somebody to the wallet.
    needed: Option<MicroUsd>,
}

impl Choice<'_> {
    /// Whether a pick is there and the wallet reaches it.
    fn is_open_to(&mut self, pick: &Pick) -> bool {
        if !self.offer.has(pick.provider) {
            self.pass_over(pick, format!("{} is not configured here", pick.provider));
            return false;
        }
        let needed = needed_for(pick.provider);
        if self.offer.is_free(pick.provider) || self.standing.available >= needed {
            return true;
        }
        self.needed = Some(self.needed.map_or(needed, |least| least.min(needed)));
        let (needs, has) = (dollars(needed), dollars(self.standing.available));
        self.pass_over(pick, format!("{} needs {needs} available, the wallet has {has}", pick.provider));
        false
    }

    fn pass_over(&mut self, pick: &Pick, reason: String) {
        let known = self.passed_over.iter().any(|over| over.provider == pick.provider && over.model == pick.model);
        if !known {
            let (provider, model) = (pick.provider, shown_model(&pick.model).to_owned());
            self.passed_over.push(PassedOver { provider, model, reason });
        }
    }

    fn is_broken(&self, pick: &Pick) -> bool {
        self.standing.broken.iter().any(|(provider, model)| *provider == pick.provider && *model == pick.model)
    }

    /// The same picks in the same order, but those that have failed of late behind the others.
    fn healthy_first(&mut self, picks: Vec<Pick>) -> Vec<Pick> {
        let (broken, mut healthy): (Vec<_>, Vec<_>) = picks.into_iter().partition(|pick| self.is_broken(pick));
        if !healthy.is_empty() {
            for pick in &broken {
                self.pass_over(pick, format!("{} has failed too often of late with this model", pick.provider));
            }
        }
        healthy.extend(broken);
        healthy
    }

    /// The first, somebody else who is paid, and what is local.
    fn chain(&self, asked: &TaskAsked, picks: Vec<Pick>) -> Vec<TaskRoute> {
        let mut local = table::local_picks(asked, self.offer);
        local.sort_by_key(|pick| self.is_broken(pick));
        let mut rest = picks.into_iter();
        let Some(first) = rest.next() else { return Vec::new() };
        let second = rest.find(|pick| ![first.provider, Provider::Ollama].contains(&pick.provider));
        let mut chain = vec![first];
        chain.extend(second);
        if self.offer.has(Provider::Ollama) {
            let fresh: Vec<_> =
                local.iter().filter(|pick| !chain.iter().any(|known| known.is(pick))).cloned().collect();
            chain.extend(fresh);
            chain.truncate(CHAIN_MAX_ROUTES);
            // What was asked first may be back by the time everybody else has failed.
            if chain.last().is_some_and(|last| last.provider != Provider::Ollama) {
                chain.extend(local.into_iter().next());
            }
        }
        let first = chain.first().map(|pick| (pick.provider, shown_model(&pick.model).to_owned()));
        let after = first.map(|(provider, model)| format!("a fallback should {provider} {model} not answer"));
        let entry = |(place, pick): (usize, Pick)| {
            let reason = after.as_ref().filter(|_| place > 0);
            TaskRoute { reason: reason.cloned().unwrap_or_else(|| self.reason(&pick)), ..self.open(pick) }
        };
        chain.into_iter().enumerate().map(entry).collect()
    }

    fn open(&self, pick: Pick) -> TaskRoute {
        let byok = self.offer.has_own_key(pick.provider);
        let route = Route { provider: pick.provider, model: pick.model, substituted_for: None, byok };
        TaskRoute { route, persona: pick.persona, reason: pick.why }
    }

    /// Why the first is the first, with what the wallet had to say.
    fn reason(&self, pick: &Pick) -> String {
        let has = dollars(self.standing.available);
        if self.offer.has_own_key(pick.provider) {
            format!("{}; it is paid by the tenant's own {} key", pick.why, pick.provider)
        } else if pick.provider == Provider::Ollama {
            format!("{}; it is free, and the wallet has {has}", pick.why)
        } else {
            format!("{}; it needs {} available, the wallet has {has}", pick.why, dollars(needed_for(pick.provider)))
        }
    }
}

/// Money as a person reads it, rounded down to cents: what is a hair below a threshold must not look like it.
fn dollars(amount: MicroUsd) -> String {
    let cents = amount.cents_down();
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}${}.{:02}", cents.unsigned_abs() / 100, cents.unsigned_abs() % 100)
}
