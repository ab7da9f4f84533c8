//! Reads Anthropic's messages, and tells them in OpenAI's words to clients that speak those.
//!
//! A client that speaks Anthropic's own words gets the object as it came. In OpenAI's words, thinking becomes
//! `reasoning_content`, and what proves the thinking (its signature, its redacted parts) stands in `thinking_blocks`, to be
//! given back when a turn goes on after a tool was called.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calos_commands::provider::{ChatRequest, Completion, Dialect, Produced, ProviderError, TokenUsage};
use calos_commands::raw_object::RawObject;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::anthropic::NAME;
use super::anthropic_parts::ThinkingBlock;
use super::chunks::set;
use super::http::status_error;

/// What a stop reason is called by Anthropic when the answer calls tools.
const TOOL_USE: &str = "tool_use";

/// Tokens as Anthropic reports them. Those read from its cache and written to it are no part of `input_tokens`.
#[derive(Clone, Copy, Default, Debug, Deserialize)]
pub(super) struct WireUsage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation: Option<CacheCreation>,
    #[serde(default)]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Clone, Copy, Default, Debug, Deserialize)]
struct CacheCreation {
    #[serde(default)]
    ephemeral_5m_input_tokens: u64,
    #[serde(default)]
    ephemeral_1h_input_tokens: u64,
}

#[derive(Clone, Copy, Default, Debug, Deserialize)]
struct OutputDetails {
    #[serde(default)]
    thinking_tokens: Option<u64>,
}

/// What has been reported so far. Every report is the whole so far: a figure replaces the one before and is never added.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Reported {
    input: Option<u64>,
    output: Option<u64>,
    read: u64,
    written: u64,
    written_hour: u64,
    thinking: u64,
}

impl Reported {
    /// Takes a report; figures it leaves out stay as they were.
    pub(super) fn take(&mut self, usage: WireUsage) {
        self.input = usage.input_tokens.or(self.input);
        self.output = usage.output_tokens.or(self.output);
        self.read = usage.cache_read_input_tokens.unwrap_or(self.read);
        self.thinking =
            usage.output_tokens_details.and_then(|details| details.thinking_tokens).unwrap_or(self.thinking);
        if let Some(kinds) = usage.cache_creation {
            self.written_hour = kinds.ephemeral_1h_input_tokens;
            self.written = kinds.ephemeral_5m_input_tokens.saturating_add(kinds.ephemeral_1h_input_tokens);
        }
        self.written = usage.cache_creation_input_tokens.unwrap_or(self.written);
    }

    /// Takes a report that may be anything; what cannot be read is no report.
    pub(super) fn take_raw(&mut self, usage: Option<&RawValue>) {
        if let Some(usage) = usage.and_then(|usage| serde_json::from_str(usage.get()).ok()) {
            self.take(usage);
        }
    }

    /// The report in the port's terms; none before both sides have been reported.
    pub(super) fn usage(self) -> Option<TokenUsage> {
        let hour = self.written_hour.min(self.written);
        let prompt = self.input?.saturating_add(self.read).saturating_add(self.written);
        let usage = TokenUsage::reported(prompt, self.output?, self.read, self.thinking)?;
        Some(usage.with_cache_writes(self.written - hour, hour))
    }

    /// What a call whose answer is still being written has used: the prompt as reported, and of the answer our own count
    /// where the report is behind.
    pub(super) fn so_far(self, produced: Produced, max_tokens: u64) -> Option<TokenUsage> {
        let mut usage = self.usage()?;
        let counted = produced.tokens().min(max_tokens);
        if counted > usage.completion_tokens {
            usage.completion_tokens = counted;
            usage.estimated = true;
        }
        Some(usage)
    }
}

/// A block of an answer, as far as it is looked at.
#[derive(Debug, Deserialize)]
pub(super) struct WireBlock<'a> {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) thinking: Option<String>,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(borrow, default)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) signature: Option<String>,
    #[serde(default)]
    pub(super) data: Option<String>,
}

impl WireBlock<'_> {
    /// The text of a tool's input, unless there is nothing in it.
    pub(super) fn arguments(&self) -> Option<&str> {
        self.input.map(RawValue::get).filter(|input| !is_empty_object(input) && *input != "null")
    }

    /// What was written in it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let given = [self.text.as_deref(), self.thinking.as_deref(), self.name.as_deref(), self.arguments()];
        given.into_iter().flatten()
    }
}

/// A thought that can be proven, as clients of OpenAI's dialect get it.
pub(super) fn proven(block: &WireBlock<'_>) -> Option<ThinkingBlock> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (signature, data) = (given(&block.signature), given(&block.data));
    let thinking = signature.as_ref().map(|_| block.thinking.clone().unwrap_or_default());
    let is_proven = signature.is_some() || data.is_some();
    is_proven.then(|| ThinkingBlock { kind: block.kind.clone(), thinking, signature, data })
}

fn is_empty_object(json: &str) -> bool {
    json.bytes().filter(|byte| !byte.is_ascii_whitespace()).eq(*b"{}")
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thinking_blocks: Vec<ThinkingBlock>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

/// A call of a tool in OpenAI's words; only the deltas of a stream are numbered.
#[derive(Serialize)]
pub(super) struct ToolCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    pub(super) function: Function,
}

#[derive(Serialize)]
pub(super) struct Function {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) arguments: String,
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    message: Message,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

/// Usage in OpenAI's words. What was written to the cache has a name of its own there, as other gateways have it.
#[derive(Serialize)]
pub(super) struct ToldUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: ToldPromptDetails,
    completion_tokens_details: ToldCompletionDetails,
}

#[derive(Serialize)]
struct ToldPromptDetails {
    cached_tokens: u64,
    cache_creation_tokens: u64,
}

#[derive(Serialize)]
struct ToldCompletionDetails {
    reasoning_tokens: u64,
}

impl From<TokenUsage> for ToldUsage {
    fn from(usage: TokenUsage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
            prompt_tokens_details: ToldPromptDetails {
                cached_tokens: usage.cached_tokens,
                cache_creation_tokens: usage.cache_write_tokens + usage.cache_write_hour_tokens,
            },
            completion_tokens_details: ToldCompletionDetails { reasoning_tokens: usage.reasoning_tokens },
        }
    }
}

/// Why an answer ended, in OpenAI's words.
pub(super) fn finish_reason(stop_reason: Option<&str>) -> &'static str {
    match stop_reason {
        Some("max_tokens" | "model_context_window_exceeded") => "length",
        Some(TOOL_USE) => "tool_calls",
        Some("refusal") => "content_filter",
        // end_turn, stop_sequence, pause_turn, and reasons that are not known yet.
        Some(_) | None => "stop",
    }
}

/// Seconds since 1970, for answers whose provider does not say when they were made.
pub(super) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Reads a whole `message`, and tells it in the request's dialect.
///
/// # Errors
/// `BadAnswer` when it is none, `Status` when it is an error in the clothes of an answer.
pub(super) fn read_message(request: &ChatRequest, text: &[u8]) -> Result<Completion, ProviderError> {
    let mut body: RawObject = serde_json::from_slice(text).map_err(|error| bad(&error))?;
    let kind: Option<String> = body.lenient("type");
    if kind.as_deref() == Some("error") {
        return Err(event_error(text));
    }
    let Some(blocks) = body.parse::<Vec<WireBlock<'_>>>("content").map_err(|error| bad(&error))? else {
        return Err(ProviderError::BadAnswer { provider: NAME, detail: "an answer without content".to_owned() });
    };
    let mut reported = Reported::default();
    reported.take_raw(body.parse("usage").ok().flatten());
    let usage = reported.usage();
    let mut produced = Produced::default();
    for block in &blocks {
        produced.add(Produced::piece(block.texts().map(|text| text.len() as u64).sum()));
        block.texts().for_each(|text| request.transcript.add(text));
    }
    let model: String = body.lenient("model").unwrap_or_default();
    if request.dialect == Dialect::OpenAi {
        let told = told_whole(request, &body, blocks, &model, usage)?;
        return Ok(Completion { body: told, model, usage, produced });
    }
    drop(blocks);
    // Whoever reads the answer must not find a bill in it that the provider wrote.
    body.remove("billing");
    body.remove("provider");
    Ok(Completion { body, model, usage, produced })
}

fn told_whole(
    request: &ChatRequest,
    body: &RawObject,
    blocks: Vec<WireBlock<'_>>,
    model: &str,
    usage: Option<TokenUsage>,
) -> Result<RawObject, ProviderError> {
    let (mut text, mut thinking, mut tool_calls) = (None::<String>, None::<String>, Vec::new());
    let mut thinking_blocks = Vec::new();
    for block in blocks {
        if block.kind.ends_with("thinking") {
            thinking_blocks.extend(proven(&block));
        }
        match block.kind.as_str() {
            "text" => text.get_or_insert_default().push_str(block.text.as_deref().unwrap_or_default()),
            "thinking" => thinking.get_or_insert_default().push_str(block.thinking.as_deref().unwrap_or_default()),
            TOOL_USE => tool_calls.push(ToolCall {
                index: None,
                id: block.id.clone(),
                kind: Some("function"),
                function: Function {
                    arguments: block.arguments().unwrap_or("{}").to_owned(),
                    name: block.name.clone(),
                },
            }),
            _ => {}
        }
    }
    if text.is_none() && tool_calls.is_empty() {
        text = Some(String::new());
    }
    let stop_reason: Option<String> = body.lenient("stop_reason");
    let message =
        Message { role: "assistant", content: text, reasoning_content: thinking, thinking_blocks, tool_calls };
    let finish_reason = finish_reason(stop_reason.as_deref());
    let mut told = RawObject::default();
    set(NAME, &mut told, "id", &body.lenient("id").unwrap_or_else(|| request.answer_id.clone()))?;
    set(NAME, &mut told, "object", "chat.completion")?;
    set(NAME, &mut told, "created", &now_seconds())?;
    set(NAME, &mut told, "model", model)?;
    set(NAME, &mut told, "choices", &[Choice { index: 0, message, logprobs: None, finish_reason }])?;
    if let Some(usage) = usage {
        set(NAME, &mut told, "usage", &ToldUsage::from(usage))?;
    }
    Ok(told)
}

/// An `error` object that came with status 200, or as an event of a stream. Its type says which status it stands for.
pub(super) fn event_error(text: &[u8]) -> ProviderError {
    #[derive(Deserialize)]
    struct Wire {
        error: WireError,
    }
    #[derive(Deserialize)]
    struct WireError {
        #[serde(rename = "type", default)]
        kind: Option<String>,
    }
    let kind = serde_json::from_slice::<Wire>(text).ok().and_then(|wire| wire.error.kind);
    let status = match kind.as_deref() {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("timeout_error") => 504,
        Some("overloaded_error") => 529,
        Some(_) | None => 500,
    };
    account_error(status_error(NAME, status, None, text))
}

/// An account without credit, or at the limit its owner set, is told by Anthropic as if the request were wrong.
pub(super) fn account_error(error: ProviderError) -> ProviderError {
    match error {
        ProviderError::Status { provider, status: 400, message, param, retry_after, .. }
            if ["credit balance is too low", "reached your specified API usage limits"]
                .iter()
                .any(|words| message.contains(words)) =>
        {
            let code = Some("billing_error".to_owned());
            // Waiting until a bill is paid helps nobody who waits for an answer.
            let _not_soon: Option<Duration> = retry_after;
            ProviderError::Status { provider, status: 402, message, code, param, retry_after: None }
        }
        error => error,
    }
}

pub(super) fn bad(error: &serde_json::Error) -> ProviderError {
    ProviderError::BadAnswer { provider: NAME, detail: error.to_string() }
}

#[cfg(test)]
#[path = "anthropic_answer_tests.rs"]
mod tests;
