//! Who is asked: the part of an admission that routes. Calls to `/v1` go by key and tier, calls to `/api/chat/complete`
//! by preference, task and balance.

use std::borrow::Cow;
use std::sync::Arc;

use calos_domain::MicroUsd;
use calos_domain::pricing::Provider;
use calos_domain::routing::personas::Persona;
use calos_domain::routing::task::{
    PassedOver, Standing, Task, TaskAsked, TaskRefusal, TaskRoute, shown_model, task_route,
};
use calos_domain::routing::{Asked, Offer, Route, embedding_route, route, successor};
use calos_domain::tiers::Tier;
use calos_domain::wallet::FailedAttempt;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::admit::{Admission, Candidate, Question};
use super::{CallKind, ChatCall, ChatFailure, Circuit, Gateway};
use crate::log::EventLog;
use crate::provider::ProviderError;
use crate::raw_object::RawObject;
use crate::tokens::{MESSAGE_FRAME_TOKENS, about, at_most};

/// The status of a provider that does not have a model.
const NO_SUCH_MODEL: u16 = 404;

/// Which router decides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Routing {
    /// By the tenant's own keys and its licence's tier, as under `/v1`.
    #[default]
    ByLicence,
    /// By preference, task and balance, as at `/api/chat/complete`.
    ByTask(TaskAsked),
}

impl Routing {
    /// What the usage log calls the call.
    pub(super) fn task(&self) -> Task {
        match self {
            Self::ByLicence => Task::Chat,
            Self::ByTask(asked) => asked.task(),
        }
    }

    /// Whether somebody else may answer for less than the first choice.
    pub(super) const fn has_fallbacks(&self) -> bool {
        match self {
            Self::ByLicence => false,
            Self::ByTask(_) => true,
        }
    }

    /// Whether a failure of one in the chain leads to the next. A default's successor takes over where the provider does
    /// not have the default any more; one that is slow, busy or broken is told of as one that was named would be.
    pub(super) const fn leads_on(&self, error: &ProviderError) -> bool {
        match self {
            Self::ByLicence => matches!(error, ProviderError::Status { status: NO_SUCH_MODEL, .. }),
            Self::ByTask(_) => true,
        }
    }
}

/// How the model that answered was found; for calls to `/v1` there is nothing to tell.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Found {
    /// Why this one, for a person to read.
    pub reason: String,
    /// Who was asked in vain before, repetitions included.
    pub tried: Vec<FailedAttempt>,
    /// Who would have come before, and why they were not asked.
    pub considered: Vec<PassedOver>,
}

/// What a tenant brings to the choice.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    pub(super) tier: Tier,
    pub(super) strict: bool,
    pub(super) available: MicroUsd,
    pub(super) held: MicroUsd,
}

/// One who may be asked.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) route: Route,
    pub(super) persona: Option<Persona>,
}

/// Who may be asked, the first choice first; never empty.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    pub(super) ways: Vec<Way>,
    pub(super) story: Story,
}

/// Why the chain is as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    /// The first choice, and why it is; none where there is nothing to tell.
    choice: Option<(String, String)>,
    /// Why the first candidate of the chain is the first; empty until there is one.
    reason: String,
    passed_over: Vec<PassedOver>,
}

impl Story {
    /// The story of a chain that begins with this choice.
    fn of(first: Option<&Way>, reason: String, passed_over: Vec<PassedOver>) -> Self {
        Self { choice: first.map(|way| (way.shown(), reason)), reason: String::new(), passed_over }
    }

    /// A way that has become the next candidate. Only the first one's reason is told: who comes behind it is told of
    /// when it takes over.
    pub(super) fn goes(&mut self, way: &Way) {
        let Some((first, reason)) = self.choice.as_ref().filter(|_| self.reason.is_empty()) else { return };
        let shown = way.shown();
        self.reason = if shown == *first {
            reason.clone()
        } else if self.passed_over.iter().any(|over| shown_as(over.provider, &over.model) == *first) {
            format!("{reason}; {shown} took its place, which the call may cost")
        } else {
            format!("{reason}; {shown} took its place, which the key may use")
        };
    }

    /// A way that has not, because what it may cost is more than may be spent on it.
    pub(super) fn costs_too_much(&mut self, way: &Way) {
        let reason = "its worst case is more than what the call may cost".to_owned();
        let model = shown_model(&way.route.model).to_owned();
        self.passed_over.push(PassedOver { provider: way.route.provider, model, reason });
    }
}

fn shown_as(provider: Provider, model: &str) -> String {
    format!("{provider} {}", shown_model(model))
}

impl Way {
    fn shown(&self) -> String {
        shown_as(self.route.provider, &self.route.model)
    }

    /// The call as this one gets it: longer by what it is told to speak like.
    pub(super) fn spoken<'a>(&self, call: &'a ChatCall) -> Cow<'a, ChatCall> {
        match told_voice(self.persona, &self.route.model) {
            None => Cow::Borrowed(call),
            Some(prompt) => {
                let most = at_most(prompt.as_bytes()) + MESSAGE_FRAME_TOKENS;
                Cow::Owned(ChatCall { prompt_max_tokens: call.prompt_max_tokens.saturating_add(most), ..call.clone() })
            }
        }
    }
}

/// How a model is told to speak, where it does not know by itself.
fn told_voice(persona: Option<Persona>, model: &str) -> Option<&'static str> {
    persona.filter(|persona| persona.has_to_be_played(model)).map(Persona::system_prompt)
}

impl Candidate {
    /// What its prompt most likely has beyond the call's own.
    pub(super) fn voice_about_tokens(&self) -> u64 {
        let prompt = told_voice(self.persona, &self.route.model);
        prompt.map_or(0, |prompt| about(prompt.len() as u64) + MESSAGE_FRAME_TOKENS)
    }

    /// The request's fields as this one gets them: with a first message that says how to speak, where it has to be told.
    pub(super) fn spoken(&self, fields: &Arc<RawObject>) -> Arc<RawObject> {
        let Some(prompt) = told_voice(self.persona, &self.route.model) else { return Arc::clone(fields) };
        with_system_message(fields, prompt).map_or_else(|_| Arc::clone(fields), Arc::new)
    }
}

fn with_system_message(fields: &RawObject, prompt: &str) -> Result<RawObject, serde_json::Error> {
    let mut messages: Vec<Box<RawValue>> = fields.parse("messages")?.unwrap_or_default();
    messages.insert(0, to_raw_value(&serde_json::json!({"role": "system", "content": prompt}))?);
    let mut spoken = fields.clone();
    spoken.set("messages", &messages)?;
    Ok(spoken)
}

impl Question<'_> {
    /// Who may be asked.
    pub(super) fn ways(
        &self,
        reach: Reach,
        offer: &Offer<'_>,
        broken: &[(Provider, String)],
    ) -> Result<Ways, ChatFailure> {
        let asked = match &self.call.routing {
            Routing::ByTask(asked) => asked,
            Routing::ByLicence => {
                let asked = Asked { tier: reach.tier, model: self.call.model.as_deref(), strict: reach.strict };
                let routes = match self.call.kind {
                    CallKind::Chat => {
                        let first = route(asked, offer)?;
                        let next = successor(asked, &first);
                        std::iter::once(first).chain(next).collect()
                    }
                    CallKind::Embeddings => vec![embedding_route(asked, offer)?],
                };
                let way = |route| Way { route, persona: None };
                return Ok(Ways { ways: routes.into_iter().map(way).collect(), story: Story::default() });
            }
        };
        let standing = Standing { available: reach.available, broken };
        let chain = task_route(asked, offer, standing).map_err(|refusal| match refusal {
            TaskRefusal::Route(refusal) => refusal.into(),
            TaskRefusal::TooLittle { needed, available } => {
                ChatFailure::CannotPay { needed, available, held: reach.held }
            }
        })?;
        let reason = chain.routes.first().map(|first| first.reason.clone()).unwrap_or_default();
        let way = |entry: TaskRoute| Way { route: entry.route, persona: entry.persona };
        let ways: Vec<Way> = chain.routes.into_iter().map(way).collect();
        let story = Story::of(ways.first(), reason, chain.passed_over);
        Ok(Ways { ways, story })
    }
}

impl Admission {
    /// How the candidate that was used was found.
    pub(super) fn found(&self, used: &Candidate, failed: &[FailedAttempt]) -> Found {
        let first = &self.story.reason;
        if first.is_empty() {
            return Found::default();
        }
        let tried = failed
            .iter()
            .map(|attempt| FailedAttempt { model: shown_model(&attempt.model).to_owned(), ..attempt.clone() });
        let tried: Vec<FailedAttempt> = tried.collect();
        let (provider, model) = (used.route.provider.as_str(), shown_model(&used.route.model));
        let another =
            tried.iter().rfind(|attempt| (attempt.provider.as_str(), attempt.model.as_str()) != (provider, model));
        let reason = match another {
            None => first.clone(),
            Some(another) => {
                let (before, failure) = (format!("{} {}", another.provider, another.model), &another.failure);
                format!("{first}; {provider} {model} took over when {before} did not answer ({failure})")
            }
        };
        Found { reason, tried, considered: self.story.passed_over.clone() }
    }
}

impl<L: EventLog> Gateway<L> {
    /// Makes the models known that a call may go to.
    pub(super) async fn make_known_for(&self, call: &ChatCall) {
        match &call.routing {
            Routing::ByLicence => self.make_known(call.model.as_deref()).await,
            Routing::ByTask(asked) if asked.model.is_some() => self.make_known(asked.model.as_deref()).await,
            // Which personas are installed is not known before Ollama was asked for the first time.
            Routing::ByTask(_) if !self.was_asked(Provider::Ollama) => {
                self.make_known(Some(Persona::Soulfra.as_str())).await;
            }
            Routing::ByTask(_) => {}
        }
    }

    /// The circuits that are open, for a call whose route goes by that.
    pub(super) fn broken_for(&self, call: &ChatCall) -> Vec<Circuit> {
        match &call.routing {
            Routing::ByLicence => Vec::new(),
            Routing::ByTask(_) => self.0.traffic.open_circuits(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(fields: &RawObject) -> Vec<serde_json::Value> {
        fields.parse("messages").unwrap().unwrap()
    }

    fn candidate(model: &str, persona: Option<Persona>) -> Candidate {
        let route = Route { provider: Provider::Ollama, model: model.to_owned(), substituted_for: None, byok: false };
        Candidate {
            route,
            payer: calos_domain::pricing::Payer::Platform { markup_percent: 0 },
            max_tokens: 1,
            prompt_max_tokens: 1,
            own_key: None,
            persona,
        }
    }

    #[test]
    fn only_who_does_not_know_its_voice_is_told_it() {
        let call = r#"{"messages":[{"role":"user","content":"hi"}],"temperature":0.5}"#;
        let fields: Arc<RawObject> = Arc::new(serde_json::from_str(call).unwrap());
        let own = candidate("soulfra:latest", Some(Persona::Soulfra)).spoken(&fields);
        let plain = candidate("llama3.2:3b", None).spoken(&fields);
        assert!(Arc::ptr_eq(&own, &fields) && Arc::ptr_eq(&plain, &fields));
        let player = candidate("llama3.2:3b", Some(Persona::Soulfra));
        let played = messages(&player.spoken(&fields));
        assert_eq!((played.len(), &played[0]["role"], &played[1]["content"]), (2, &"system".into(), &"hi".into()));
        assert_eq!(played[0]["content"], Persona::Soulfra.system_prompt());
        assert!(player.voice_about_tokens() > 20 && candidate("soulfra", None).voice_about_tokens() == 0);
    }

    #[test]
    fn who_takes_the_first_choices_place_is_told_with_the_reason_it_was_chosen_for() {
        let way = |model: &str| Way { route: candidate(model, None).route, persona: None };
        let told = |too_dear: &[&str], goes: &[&str]| {
            let mut story = Story::of(Some(&way("a")), "best for code".to_owned(), Vec::new());
            for model in too_dear {
                story.costs_too_much(&way(model));
            }
            for model in goes {
                story.goes(&way(model));
            }
            story.reason
        };
        assert_eq!(told(&[], &["a", "b"]), "best for code");
        assert_eq!(told(&["a"], &["b", "c"]), "best for code; ollama b took its place, which the call may cost");
        assert_eq!(told(&["b"], &["c"]), "best for code; ollama c took its place, which the key may use");
        let mut nothing = Story::default();
        nothing.goes(&way("a"));
        assert!(nothing.reason.is_empty());
    }

    #[test]
    fn what_a_voice_adds_is_held_for() {
        let call = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
        let call = ChatCall::read(serde_json::from_str(call).unwrap()).unwrap();
        let way = |model: &str| {
            let route = candidate(model, None).route;
            Way { route, persona: Some(Persona::CodeLlama) }.spoken(&call).prompt_max_tokens
        };
        let prompt = Persona::CodeLlama.system_prompt().len() as u64;
        assert_eq!(way("codellama:7b"), call.prompt_max_tokens);
        assert!(way("gpt-4") >= call.prompt_max_tokens + prompt);
    }
}
