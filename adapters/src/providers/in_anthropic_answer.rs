//! Tells answers that came in OpenAI's words as Anthropic's messages.
//!
//! Reasoning becomes a block of thinking. Only Anthropic can sign one, so its signature is empty.

use calos_commands::provider::{ChatRequest, Completion, ProviderError, TokenUsage};
use calos_commands::raw_object::RawObject;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::chunks::set;

/// A message or delta in OpenAI's words; both have the same fields.
#[derive(Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) reasoning_content: Option<String>,
    #[serde(default)]
    pub(super) refusal: Option<String>,
    #[serde(default)]
    pub(super) tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
pub(super) struct Call {
    /// Only the deltas of a stream are numbered.
    #[serde(default)]
    pub(super) index: u64,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) function: Option<Function>,
}

#[derive(Default, Deserialize)]
pub(super) struct Function {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) arguments: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Choice {
    #[serde(default, alias = "message")]
    pub(super) delta: Option<Said>,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
}

/// Why an answer ended, in Anthropic's words.
pub(super) fn stop_reason(finish_reason: Option<&str>) -> &'static str {
    match finish_reason {
        Some("length") => "max_tokens",
        Some("tool_calls" | "function_call") => "tool_use",
        Some("content_filter") => "refusal",
        Some(_) | None => "end_turn",
    }
}

/// The name of an answer in Anthropic's style.
pub(super) fn message_id(request: &ChatRequest) -> String {
    format!("msg_{}", request.answer_id.trim_start_matches("chatcmpl-"))
}

/// Usage in Anthropic's words: what was read from the cache or written to it is no part of the input.
pub(super) fn told_usage(usage: TokenUsage) -> Value {
    let written = usage.cache_write_tokens + usage.cache_write_hour_tokens;
    json!({
        "input_tokens": usage.prompt_tokens - usage.cached_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    })
}

/// The input of a tool: an object, whatever text the model wrote for it.
fn input(arguments: Option<&str>) -> Value {
    let text = arguments.map(str::trim).unwrap_or_default();
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Value::Object(fields),
        Ok(Value::Null) => json!({}),
        Err(_) if text.is_empty() => json!({}),
        Ok(_) | Err(_) => json!({ "arguments": text }),
    }
}

/// A whole answer, told as a `message`.
///
/// # Errors
/// `BadAnswer` when there is no choice in it.
pub(super) fn told_whole(
    provider: &'static str,
    request: &ChatRequest,
    completion: Completion,
) -> Result<Completion, ProviderError> {
    let bad = |detail: String| ProviderError::BadAnswer { provider, detail };
    let choices: Option<Vec<&RawValue>> = completion.body.parse("choices").map_err(|error| bad(error.to_string()))?;
    let Some(first) = choices.and_then(|choices| choices.first().copied()) else {
        return Err(bad("an answer without choices".to_owned()));
    };
    let choice: Choice = serde_json::from_str(first.get()).map_err(|error| bad(error.to_string()))?;
    let said = choice.delta.unwrap_or_default();
    let mut content = Vec::new();
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(thinking) = given(said.reasoning_content) {
        content.push(json!({"type": "thinking", "thinking": thinking, "signature": ""}));
    }
    for text in [said.content, said.refusal].into_iter().filter_map(given) {
        content.push(json!({"type": "text", "text": text}));
    }
    for call in said.tool_calls.unwrap_or_default() {
        let function = call.function.unwrap_or_default();
        let input = input(function.arguments.as_deref());
        content.push(json!({"type": "tool_use", "id": call.id, "name": function.name, "input": input}));
    }
    let usage = completion.usage.unwrap_or_else(|| TokenUsage {
        prompt_tokens: request.prompt_estimate_tokens,
        completion_tokens: completion.produced.tokens(),
        ..TokenUsage::default()
    });
    let mut body = RawObject::default();
    set(provider, &mut body, "id", &message_id(request))?;
    set(provider, &mut body, "type", "message")?;
    set(provider, &mut body, "role", "assistant")?;
    set(provider, &mut body, "model", &completion.model)?;
    set(provider, &mut body, "content", &content)?;
    set(provider, &mut body, "stop_reason", stop_reason(choice.finish_reason.as_deref()))?;
    set(provider, &mut body, "stop_sequence", &())?;
    set(provider, &mut body, "usage", &told_usage(usage))?;
    Ok(Completion { body, ..completion })
}

#[cfg(test)]
#[path = "in_anthropic_answer_tests.rs"]
mod tests;
