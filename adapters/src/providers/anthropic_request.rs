//! From OpenAI's chat.completions request to Anthropic's messages.
//!
//! What Anthropic cannot do and the client would miss is refused with the field's name: several answers, log
//! probabilities, token biases, JSON without a schema. What only nudges the model and has no counterpart is left out, as
//! Anthropic's own compatibility layer leaves it out: penalties, `seed`, `reasoning_effort`, `strict` of a function,
//! `store`, `metadata`, `verbosity`, and what sets the sampling of models whose sampling cannot be set. Anthropic's own
//! `thinking`, `top_k` and `cache_control` may stand in the request and go upstream as they came, and so do the
//! `thinking_blocks` of an earlier answer. What messages are made of is in [`super::anthropic_parts`].

use std::borrow::Cow;
use std::collections::HashMap;

use calos_commands::provider::{ChatRequest, ProviderError};
use calos_commands::raw_object::RawObject;
use calos_domain::pricing::PriceBook;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::anthropic::NAME;
use super::anthropic_parts::{
    Block, InFunction, InToolCall, ThinkingBlock, blocks, call_id, thought, tool_use, unsupported,
};
use super::chunks::set;

/// The hottest Anthropic knows; OpenAI's scale goes on to 2.
const TEMPERATURE_MAX: f64 = 1.0;

/// The models whose sampling can be set, by what their names begin with; to later ones even the temperature everybody
/// sends is a mistake.
const SAMPLED_MODELS: [&str; 10] = [
    "claude-3-",
    "claude-opus-4-1-",
    "claude-opus-4-2",
    "claude-opus-4-5-",
    "claude-opus-4-6",
    "claude-sonnet-4-2",
    "claude-sonnet-4-5-",
    "claude-sonnet-4-6",
    "claude-haiku-4-5-",
    "claude-haiku-4-6",
];

/// The longest name of a user Anthropic takes.
const USER_MAX_CHARACTERS: usize = 256;

#[derive(Deserialize)]
struct InMessage<'a> {
    role: String,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<InToolCall<'a>>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    thinking_blocks: Option<Vec<ThinkingBlock>>,
}

#[derive(Deserialize)]
struct InTool<'a> {
    #[serde(borrow, default)]
    function: Option<InFunction<'a>>,
    #[serde(borrow, default)]
    cache_control: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct OutMessage<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    input_schema: RawObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct ToolChoice {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Translates a request; its model, limit and streaming are the caller's to set.
///
/// # Errors
/// `Unsupported`, naming the field.
pub(super) fn translate(request: &ChatRequest) -> Result<RawObject, ProviderError> {
    refuse_what_anthropic_lacks(request)?;
    let (system, messages) = messages(request)?;
    let mut body = RawObject::default();
    if !system.is_empty() {
        set(NAME, &mut body, "system", &system)?;
    }
    set(NAME, &mut body, "messages", &messages)?;
    tools(request, &mut body)?;
    sampling(request, &mut body)?;
    if let Some(format) = output_format(request)? {
        set(NAME, &mut body, "output_config", &format)?;
    }
    if let Some(thinking) = field::<&RawValue>(request, "thinking")?
        && may_think(thinking, &messages)
    {
        set(NAME, &mut body, "thinking", thinking)?;
    }
    Ok(body)
}

/// Whether the model may be asked to think. A turn that calls tools goes on with the thoughts it began with, and is refused
/// without them: where the client gave them not back, the turn is finished without thinking. Who thinks as it sees fit is
/// not held to it.
fn may_think(thinking: &RawValue, messages: &[OutMessage<'_>]) -> bool {
    #[derive(Deserialize)]
    struct Thinking<'a> {
        #[serde(rename = "type", borrow, default)]
        kind: Option<Cow<'a, str>>,
    }
    let kind = serde_json::from_str::<Thinking<'_>>(thinking.get()).ok().and_then(|thinking| thinking.kind);
    let last = messages.iter().rev().find(|message| message.role == "assistant");
    let lost = last.is_some_and(|turn| {
        turn.content.iter().any(Block::is_call) && !turn.content.first().is_some_and(Block::is_thought)
    });
    kind.as_deref() != Some("enabled") || !lost
}

fn refuse_what_anthropic_lacks(request: &ChatRequest) -> Result<(), ProviderError> {
    if field::<u64>(request, "n")?.is_some_and(|n| n != 1) {
        return Err(unsupported("n", "this model gives one answer per call: leave n out or set it to 1"));
    }
    if field::<bool>(request, "logprobs")? == Some(true) {
        return Err(unsupported("logprobs", "this model reports no log probabilities: leave logprobs out"));
    }
    if field::<HashMap<String, f64>>(request, "logit_bias")?.is_some_and(|bias| !bias.is_empty()) {
        return Err(unsupported("logit_bias", "this model takes no token biases: leave logit_bias out"));
    }
    for param in ["functions", "function_call"] {
        if request.fields.given(param).is_some() {
            let message = "functions are the older form of tools: send tools and tool_choice instead";
            return Err(unsupported(param, message));
        }
    }
    Ok(())
}

/// What stands above the conversation, and the conversation: roles alternate there, so messages of the same one are
/// joined, and what tools gave back is said by the user.
fn messages(request: &ChatRequest) -> Result<(Vec<Block<'_>>, Vec<OutMessage<'_>>), ProviderError> {
    let given: Vec<InMessage<'_>> = field(request, "messages")?.unwrap_or_default();
    let mut system = Vec::new();
    let mut said: Vec<OutMessage<'_>> = Vec::with_capacity(given.len());
    for message in given {
        let (role, blocks) = match message.role.as_str() {
            "system" | "developer" => {
                system.extend(blocks(message.content)?);
                continue;
            }
            "user" => ("user", blocks(message.content)?),
            "assistant" => {
                // Thoughts stand first: Anthropic refuses a call of a tool in their place.
                let mut spoken: Vec<Block<'_>> =
                    message.thinking_blocks.into_iter().flatten().filter_map(thought).collect();
                spoken.extend(blocks(message.content)?);
                for call in message.tool_calls.unwrap_or_default() {
                    spoken.push(tool_use(call)?);
                }
                // Thoughts alone are no answer there.
                if spoken.iter().all(Block::is_thought) {
                    spoken.clear();
                }
                ("assistant", spoken)
            }
            "tool" => {
                let id = message.tool_call_id.ok_or_else(|| {
                    unsupported("messages", "a message of the role tool names its call in tool_call_id")
                })?;
                let content = blocks(message.content)?;
                ("user", vec![Block::ToolResult { tool_use_id: call_id(&id), content }])
            }
            other => {
                let text = format!("this model knows no role {other}: send system, user, assistant or tool");
                return Err(unsupported("messages", &text));
            }
        };
        match said.last_mut() {
            // An empty text is refused there, and says nothing.
            _ if blocks.is_empty() => {}
            Some(last) if last.role == role => last.content.extend(blocks),
            Some(_) | None => said.push(OutMessage { role, content: blocks }),
        }
    }
    if said.is_empty() {
        return Err(unsupported("messages", "this model needs a message of the user with something in it"));
    }
    Ok((system, said))
}

fn tools(request: &ChatRequest, body: &mut RawObject) -> Result<(), ProviderError> {
    let given: Vec<InTool<'_>> = field(request, "tools")?.unwrap_or_default();
    let mut tools = Vec::with_capacity(given.len());
    for tool in given {
        let Some(function) = tool.function else {
            return Err(unsupported("tools", "this model calls tools of the type function alone"));
        };
        let input_schema = input_schema(function.parameters)?;
        let InFunction { name, description, .. } = function;
        tools.push(Tool { name, description, input_schema, cache_control: tool.cache_control });
    }
    if tools.is_empty() {
        return Ok(());
    }
    set(NAME, body, "tools", &tools)?;
    let parallel = field::<bool>(request, "parallel_tool_calls")?;
    if let Some(choice) = tool_choice(request, parallel)? {
        set(NAME, body, "tool_choice", &choice)?;
    }
    Ok(())
}

/// Anthropic wants the schema of an object, also where there is nothing in it.
fn input_schema(parameters: Option<&RawValue>) -> Result<RawObject, ProviderError> {
    let mut schema = match parameters.filter(|schema| schema.get() != "null") {
        None => RawObject::default(),
        Some(schema) => serde_json::from_str(schema.get())
            .map_err(|_| unsupported("tools", "the parameters of a function are a JSON schema"))?,
    };
    if schema.given("type").is_none() {
        set(NAME, &mut schema, "type", "object")?;
    }
    Ok(schema)
}

fn tool_choice(request: &ChatRequest, parallel: Option<bool>) -> Result<Option<ToolChoice>, ProviderError> {
    let refused = || unsupported("tool_choice", "tool_choice is auto, none, required, or one function by its name");
    let alone = (parallel == Some(false)).then_some(true);
    let choice = |kind, name| Some(ToolChoice { kind, name, disable_parallel_tool_use: alone });
    match field::<Value>(request, "tool_choice")? {
        None => Ok(if alone.is_some() { choice("auto", None) } else { None }),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Ok(choice("auto", None)),
            "none" => Ok(Some(ToolChoice { kind: "none", name: None, disable_parallel_tool_use: None })),
            "required" => Ok(choice("any", None)),
            _ => Err(refused()),
        },
        Some(named) => match named.pointer("/function/name").and_then(Value::as_str) {
            Some(name) => Ok(choice("tool", Some(name.to_owned()))),
            None => Err(refused()),
        },
    }
}

fn takes_sampling(model: &str) -> bool {
    // An alias is the model it stands for.
    let model = PriceBook::current().model(model).map_or(model, |entry| entry.name);
    SAMPLED_MODELS.iter().any(|beginning| model.starts_with(beginning))
}

fn sampling(request: &ChatRequest, body: &mut RawObject) -> Result<(), ProviderError> {
    if takes_sampling(&request.model) {
        let temperature: Option<f64> = field(request, "temperature")?;
        if let Some(temperature) = temperature {
            set(NAME, body, "temperature", &temperature.min(TEMPERATURE_MAX))?;
        }
        if let Some(top_k) = field::<&RawValue>(request, "top_k")? {
            set(NAME, body, "top_k", top_k)?;
        }
        // Both at once are refused by most models; the temperature says more.
        if let Some(top_p) = field::<&RawValue>(request, "top_p")?.filter(|_| temperature.is_none()) {
            set(NAME, body, "top_p", top_p)?;
        }
    }
    let mut stops = match field::<OneOrMany>(request, "stop")? {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    };
    // Anthropic refuses a stop of nothing but white space.
    stops.retain(|stop| !stop.trim().is_empty());
    if !stops.is_empty() {
        set(NAME, body, "stop_sequences", &stops)?;
    }
    if let Some(user) = field::<String>(request, "user")?.filter(|user| !user.is_empty()) {
        let user_id: String = user.chars().take(USER_MAX_CHARACTERS).collect();
        set(NAME, body, "metadata", &serde_json::json!({ "user_id": user_id }))?;
    }
    Ok(())
}

/// Structured outputs: a schema is held to; JSON of any shape is nothing Anthropic offers.
fn output_format(request: &ChatRequest) -> Result<Option<Value>, ProviderError> {
    #[derive(Deserialize)]
    struct ResponseFormat {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        json_schema: Option<JsonSchema>,
    }
    #[derive(Deserialize)]
    struct JsonSchema {
        #[serde(default)]
        schema: Option<Value>,
    }
    let Some(format) = field::<ResponseFormat>(request, "response_format")? else { return Ok(None) };
    match (format.kind.as_str(), format.json_schema.and_then(|given| given.schema)) {
        ("text", _) => Ok(None),
        ("json_schema", Some(schema)) => {
            Ok(Some(serde_json::json!({"format": {"type": "json_schema", "schema": schema}})))
        }
        _ => Err(unsupported(
            "response_format",
            "this model gives JSON to a schema alone: send response_format of the type json_schema, with its schema",
        )),
    }
}

fn field<'a, T: Deserialize<'a>>(request: &'a ChatRequest, name: &'static str) -> Result<Option<T>, ProviderError> {
    request.fields.parse(name).map_err(|error| unsupported(name, &format!("{name} cannot be read: {error}")))
}

#[cfg(test)]
#[path = "anthropic_request_tests.rs"]
mod tests;
