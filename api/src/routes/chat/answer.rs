//! What an answer of `/api/chat/complete` looks like.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use calos_commands::complete_chat::{ChatAnswer, Found, Served};
use calos_commands::provider::TokenUsage;
use calos_commands::tool_loop::{Finished, RoundReport, Said, ToolCall, total_micros};
use calos_domain::MicroUsd;
use calos_domain::routing::personas::Persona;
use calos_domain::routing::task::shown_model;

/// An answer, who gave it, why they were asked, and what it cost.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChatText)]
pub(super) struct ChatText {
    /// The answer.
    text: String,
    /// Everything about it.
    #[serde(flatten)]
    about: About,
}

/// Everything about an answer but its text; also the last event of a stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChatAbout)]
pub(super) struct About {
    /// Who answered.
    provider: &'static str,
    /// With which model.
    model: String,
    /// In whose voice.
    #[serde(skip_serializing_if = "Option::is_none")]
    persona: Option<&'static str>,
    /// Tokens; of all rounds together.
    usage: Tokens,
    /// What was charged, in cents, rounded half up.
    cost_cents: i64,
    /// What was charged, in micro-dollars.
    cost_micros: i64,
    /// From admission to the answer.
    latency_ms: u64,
    /// The use, as it stands in `/api/credits/usage`; of the last round.
    usage_id: Uuid,
    /// Why the answer ended there: `stop`, `length`, `tool_calls` or `content_filter`.
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<String>,
    /// How the model was found.
    route: RouteText,
    /// Calls of tools that are not executed here.
    #[serde(rename = "toolCalls", skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<ToolCallText>)]
    tool_calls: Vec<ToolCall>,
    /// The rounds of an answer that read the web, each with its use, its cost and its pages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    rounds: Vec<RoundReport>,
    /// What kept the model from reading another page: `rounds`, `time` or `characters`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    limit: Option<calos_commands::tool_loop::Limit>,
}

/// The shape of a tool call.
#[derive(ToSchema)]
#[schema(as = ChatToolCall)]
#[expect(dead_code, reason = "the shape for the document")]
struct ToolCallText {
    /// The call's id at the provider.
    id: String,
    /// The tool.
    name: String,
    /// Its arguments.
    #[schema(value_type = Object)]
    parameters: Value,
}

/// Tokens of an answer.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = ChatTokens)]
struct Tokens {
    /// In.
    prompt_tokens: u64,
    /// Out.
    completion_tokens: u64,
    /// Together.
    total_tokens: u64,
    /// There when the provider reported none and they were counted here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
}

/// How a model was found.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChatRoute)]
struct RouteText {
    /// Why this one.
    reason: String,
    /// Who was asked in vain before.
    tried: Vec<Tried>,
    /// Who would have come before, and why they were not asked.
    considered: Vec<Considered>,
}

/// One who was asked in vain.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChatTried)]
struct Tried {
    /// Who.
    provider: String,
    /// With which model.
    model: String,
    /// Why there was no answer: `unreachable`, `timeout`, `status_503`, `circuit_open`, ….
    failure: String,
}

/// One who was not asked.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChatConsidered)]
struct Considered {
    /// Who.
    provider: &'static str,
    /// With which model.
    model: String,
    /// Why not.
    reason: String,
}

impl Tokens {
    fn new(prompt_tokens: u64, completion_tokens: u64, estimated: bool) -> Self {
        let total_tokens = prompt_tokens.saturating_add(completion_tokens);
        Self { prompt_tokens, completion_tokens, total_tokens, estimated }
    }
}

impl From<&Found> for RouteText {
    fn from(found: &Found) -> Self {
        let tried = found.tried.iter().map(|attempt| Tried {
            provider: attempt.provider.clone(),
            model: attempt.model.clone(),
            failure: attempt.failure.clone(),
        });
        let considered = found.considered.iter().map(|over| Considered {
            provider: over.provider.as_str(),
            model: over.model.clone(),
            reason: over.reason.clone(),
        });
        Self { reason: found.reason.clone(), tried: tried.collect(), considered: considered.collect() }
    }
}

impl About {
    /// An answer of one round.
    pub(super) fn new(served: &Served, usage: TokenUsage, cost: MicroUsd, latency_ms: u64, said: Said) -> Self {
        Self {
            provider: served.provider.as_str(),
            model: shown_model(&served.model).to_owned(),
            persona: served.persona.map(Persona::as_str),
            usage: Tokens::new(usage.prompt_tokens, usage.completion_tokens, usage.estimated),
            cost_cents: cost.cents_half_up(),
            cost_micros: cost.get(),
            latency_ms,
            usage_id: served.usage_id.0,
            finish_reason: said.finish_reason,
            route: RouteText::from(&served.found),
            tool_calls: said.tool_calls,
            rounds: Vec::new(),
            limit: None,
        }
    }
}

impl ChatText {
    /// An answer of one round.
    pub(super) fn of(answer: &ChatAnswer) -> Self {
        let mut said = Said::read(&answer.body);
        let text = std::mem::take(&mut said.text);
        let about = About::new(&answer.served, answer.usage, answer.cost.total, answer.latency_ms, said);
        Self { text, about }
    }

    /// The end of a conversation, with what all its rounds used and cost.
    pub(super) fn of_conversation(answer: &ChatAnswer, finished: &Finished, latency_ms: u64) -> Self {
        let mut said = finished.said.clone();
        let text = std::mem::take(&mut said.text);
        let cost = MicroUsd::new(total_micros(&finished.rounds));
        let sum = |tokens: fn(&RoundReport) -> u64| finished.rounds.iter().map(tokens).fold(0, u64::saturating_add);
        let (prompt, completion) = (sum(|round| round.prompt_tokens), sum(|round| round.completion_tokens));
        let last = About::new(&answer.served, answer.usage, cost, latency_ms, said);
        let usage = Tokens::new(prompt, completion, finished.rounds.iter().any(|round| round.estimated));
        Self { text, about: About { usage, rounds: finished.rounds.clone(), limit: finished.limit, ..last } }
    }
}
