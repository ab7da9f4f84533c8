//! From OpenAI's chat.completions request to Ollama's `/api/chat`.
//!
//! What Ollama cannot do is refused with the field's name rather than left out in silence: a client that asked for two
//! answers must not take one for both.

use std::collections::HashMap;

use calos_commands::provider::{ChatRequest, ProviderError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::ollama::NAME;

/// The context Ollama gives a model when nothing is said; a longer prompt would lose its beginning in silence.
const DEFAULT_CONTEXT_TOKENS: u64 = 4_096;
/// The largest context asked for: each takes memory beside the model, whoever asks.
const CONTEXT_MAX_TOKENS: u64 = 32_768;
/// How far the prompt's measure may be below what the model counts: digits and other scripts than Latin take twice as
/// many tokens for their bytes as English does.
const PROMPT_MARGIN: u64 = 2;
/// The least room for an answer a prompt may leave in the largest context.
const ANSWER_MIN_TOKENS: u64 = 64;

/// How much a model may think, in Ollama's words.
const THINKING_LEVELS: [&str; 3] = ["low", "medium", "high"];

/// What is said to a model that has to call a tool. Ollama cannot make it.
const CALL_A_TOOL: &str = "Answer by calling one of the tools.";

/// The body of `/api/chat`.
#[derive(Debug, Serialize)]
pub(super) struct OllamaRequest<'a> {
    model: &'a str,
    messages: Vec<OllamaMessage>,
    stream: bool,
    options: OllamaOptions,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    think: Option<Value>,
}

impl OllamaRequest<'_> {
    /// The model it is for.
    pub(super) fn model(&self) -> &str {
        self.model
    }

    /// Leaves it to the model whether it thinks; tells whether that changes anything.
    pub(super) fn leave_thinking_out(&mut self) -> bool {
        self.think.take().is_some()
    }
}

#[derive(Debug, Serialize)]
struct OllamaMessage {
    role: String,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<OllamaToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<String>,
}

#[derive(Debug, Serialize)]
struct OllamaToolCall {
    function: OllamaFunction,
}

#[derive(Debug, Serialize)]
struct OllamaFunction {
    name: String,
    arguments: Value,
}

#[derive(Debug, Serialize)]
struct OllamaOptions {
    num_predict: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_ctx: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop: Vec<String>,
}

#[derive(Deserialize)]
struct InMessage {
    role: String,
    #[serde(default)]
    content: Option<InContent>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<InToolCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum InContent {
    Text(String),
    Parts(Vec<InPart>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum InPart {
    Text {
        text: String,
    },
    Refusal {
        refusal: String,
    },
    ImageUrl {
        image_url: InImage,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct InImage {
    url: String,
}

#[derive(Deserialize)]
struct InToolCall {
    #[serde(default)]
    id: Option<String>,
    function: InFunction,
}

#[derive(Deserialize)]
struct InFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct ResponseFormat {
    r#type: String,
    #[serde(default)]
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Value,
}

/// Translates a request.
///
/// # Errors
/// `Unsupported`, naming the field.
pub(super) fn translate(request: &ChatRequest, stream: bool) -> Result<OllamaRequest<'_>, ProviderError> {
    refuse_what_ollama_lacks(request)?;
    let (tools, urging) = tools(request)?;
    let mut messages = messages(request)?;
    if let Some(urging) = urging {
        urge(&mut messages, urging);
    }
    Ok(OllamaRequest {
        model: &request.model,
        messages,
        stream,
        options: options(request)?,
        tools,
        format: format(request)?,
        think: think(request)?,
    })
}

/// Whether, or how much, a model is to think. Levels are for the models that have them. To the others, most of which
/// refuse to think at all, only what was said of thinking in so many words is passed on: `reasoning_effort` comes along
/// with requests that were meant for another model, and those that can think do so by themselves.
fn think(request: &ChatRequest) -> Result<Option<Value>, ProviderError> {
    let level = match field::<String>(request, "reasoning_effort")?.as_deref() {
        None => None,
        Some("none") => Some("none"),
        Some("minimal" | "low") => Some("low"),
        Some("medium") => Some("medium"),
        Some("high" | "xhigh" | "max") => Some("high"),
        Some(_) => {
            return Err(unsupported(
                "reasoning_effort",
                "reasoning_effort is none, low, medium or high for this model",
            ));
        }
    };
    let asked = asked_to_think(request)?;
    if has_levels(&request.model) {
        // It always thinks, the least of it at the lowest level.
        let level = level.map(|level| if level == "none" { "low" } else { level });
        return Ok(match asked {
            Some(Value::String(level)) => Some(Value::String(level)),
            Some(Value::Bool(false)) => Some(Value::from("low")),
            Some(_) | None => level.map(Value::from),
        });
    }
    Ok(match asked {
        Some(Value::Bool(asked)) => Some(Value::Bool(asked)),
        // A level of Ollama's own wording asks to think, whatever the model makes of levels.
        Some(_) => Some(Value::Bool(true)),
        None => (level == Some("none")).then_some(Value::Bool(false)),
    })
}

/// What was said of thinking in Ollama's words, `think`, or in Anthropic's, `thinking`.
fn asked_to_think(request: &ChatRequest) -> Result<Option<Value>, ProviderError> {
    match field::<Value>(request, "think")? {
        Some(Value::Bool(asked)) => return Ok(Some(Value::Bool(asked))),
        Some(Value::String(level)) if THINKING_LEVELS.contains(&level.as_str()) => {
            return Ok(Some(Value::String(level)));
        }
        Some(_) => return Err(unsupported("think", "think is true, false, low, medium or high")),
        None => {}
    }
    let thinking = field::<Value>(request, "thinking")?;
    Ok(match thinking.as_ref().and_then(|thinking| thinking["type"].as_str()) {
        Some("enabled" | "adaptive") => Some(Value::Bool(true)),
        Some("disabled") => Some(Value::Bool(false)),
        Some(_) | None => None,
    })
}

/// Whether a model thinks in levels, and always.
fn has_levels(model: &str) -> bool {
    model.rsplit('/').next().is_some_and(|name| name.starts_with("gpt-oss"))
}

fn refuse_what_ollama_lacks(request: &ChatRequest) -> Result<(), ProviderError> {
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
            return Err(unsupported(
                if param == "functions" { "functions" } else { "function_call" },
                "functions are the older form of tools: send tools and tool_choice instead",
            ));
        }
    }
    Ok(())
}

/// The tools that are offered, and what is said where one of them has to be called: Ollama leaves the choice to the
/// model, so a tool that was named is offered alone.
fn tools(request: &ChatRequest) -> Result<(Vec<&RawValue>, Option<&'static str>), ProviderError> {
    #[derive(Deserialize)]
    struct Offered {
        function: InNamed,
    }
    #[derive(Deserialize)]
    struct InNamed {
        name: String,
    }
    let mut tools = field::<Vec<&RawValue>>(request, "tools")?.unwrap_or_default();
    let choice = field::<Value>(request, "tool_choice")?;
    let named = match choice.as_ref() {
        None => return Ok((tools, None)),
        Some(Value::String(choice)) if choice == "auto" => return Ok((tools, None)),
        Some(Value::String(choice)) if choice == "none" => return Ok((Vec::new(), None)),
        Some(Value::String(choice)) if choice == "required" => None,
        Some(choice) => match choice.pointer("/function/name").and_then(Value::as_str) {
            Some(name) => Some(name),
            None => {
                return Err(unsupported(
                    "tool_choice",
                    "tool_choice is auto, none, required, or one function by its name",
                ));
            }
        },
    };
    if let Some(name) = named {
        let is_named = |tool: &&RawValue| {
            serde_json::from_str::<Offered>(tool.get()).is_ok_and(|offered| offered.function.name == name)
        };
        tools.retain(is_named);
    }
    if tools.is_empty() {
        return Err(unsupported(
            "tool_choice",
            "tool_choice asks for a tool that is not among the tools: send it there",
        ));
    }
    Ok((tools, Some(CALL_A_TOOL)))
}

/// Says something in the system's name: behind what stands there already, else at the end, for a first message of the
/// system would take the place of the one a model was built with.
fn urge(messages: &mut Vec<OllamaMessage>, urging: &str) {
    match messages.first_mut().filter(|first| first.role == "system") {
        Some(system) => system.content = format!("{}\n\n{urging}", system.content),
        None => messages.push(OllamaMessage {
            role: "system".to_owned(),
            content: urging.to_owned(),
            thinking: None,
            images: Vec::new(),
            tool_calls: Vec::new(),
            tool_name: None,
        }),
    }
}

fn options(request: &ChatRequest) -> Result<OllamaOptions, ProviderError> {
    let room = CONTEXT_MAX_TOKENS.saturating_sub(request.prompt_estimate_tokens);
    if room < ANSWER_MIN_TOKENS {
        let message = format!(
            "the prompt has about {} tokens, and this model takes {CONTEXT_MAX_TOKENS} with its answer: send less",
            request.prompt_estimate_tokens
        );
        return Err(unsupported("messages", &message));
    }
    let num_predict = request.max_tokens.min(room);
    let needed = request.prompt_estimate_tokens.saturating_mul(PROMPT_MARGIN).saturating_add(num_predict);
    let stop = match field::<OneOrMany>(request, "stop")? {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    };
    Ok(OllamaOptions {
        num_predict,
        num_ctx: (needed > DEFAULT_CONTEXT_TOKENS)
            .then(|| needed.min(CONTEXT_MAX_TOKENS).next_power_of_two().min(CONTEXT_MAX_TOKENS)),
        temperature: field(request, "temperature")?,
        top_p: field(request, "top_p")?,
        seed: field(request, "seed")?,
        presence_penalty: field(request, "presence_penalty")?,
        frequency_penalty: field(request, "frequency_penalty")?,
        stop,
    })
}

fn format(request: &ChatRequest) -> Result<Option<Value>, ProviderError> {
    let Some(format) = field::<ResponseFormat>(request, "response_format")? else { return Ok(None) };
    match (format.r#type.as_str(), format.json_schema) {
        ("text", _) => Ok(None),
        ("json_object", _) => Ok(Some(Value::from("json"))),
        ("json_schema", Some(schema)) => Ok(Some(schema.schema)),
        _ => Err(unsupported("response_format", "response_format is text, json_object, or json_schema with a schema")),
    }
}

fn messages(request: &ChatRequest) -> Result<Vec<OllamaMessage>, ProviderError> {
    let messages: Vec<InMessage> = field(request, "messages")?.unwrap_or_default();
    // Ollama wants the name of the tool whose result it gets; OpenAI sends the id of the call.
    let mut names: HashMap<String, String> = HashMap::new();
    let mut translated = Vec::with_capacity(messages.len());
    for message in messages {
        let (content, images) = content(message.content)?;
        let calls = message.tool_calls.unwrap_or_default();
        let mut tool_calls = Vec::with_capacity(calls.len());
        for call in calls {
            if let Some(id) = call.id {
                names.insert(id, call.function.name.clone());
            }
            tool_calls.push(OllamaToolCall { function: function(call.function)? });
        }
        let role = if message.role == "developer" { "system".to_owned() } else { message.role };
        let tool_name = message.tool_call_id.and_then(|id| names.get(&id).cloned());
        let thinking = message.reasoning_content.filter(|text| !text.is_empty());
        translated.push(OllamaMessage { role, content, thinking, images, tool_calls, tool_name });
    }
    Ok(translated)
}

fn function(function: InFunction) -> Result<OllamaFunction, ProviderError> {
    let arguments = if function.arguments.trim().is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        serde_json::from_str(&function.arguments)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| unsupported("messages", "the arguments of a tool call are a JSON object, as text"))?
    };
    Ok(OllamaFunction { name: function.name, arguments })
}

fn content(content: Option<InContent>) -> Result<(String, Vec<String>), ProviderError> {
    let parts = match content {
        None => return Ok((String::new(), Vec::new())),
        Some(InContent::Text(text)) => return Ok((text, Vec::new())),
        Some(InContent::Parts(parts)) => parts,
    };
    let (mut text, mut images) = (String::new(), Vec::new());
    for part in parts {
        match part {
            InPart::Text { text: piece } | InPart::Refusal { refusal: piece } => text.push_str(&piece),
            InPart::ImageUrl { image_url } => images.push(image(&image_url.url)?),
            InPart::Other => {
                return Err(unsupported("messages", "this model reads text and pictures; other parts cannot be sent"));
            }
        }
    }
    Ok((text, images))
}

/// The base64 text of a picture that came inside the request. A picture elsewhere would have to be fetched, and the
/// gateway fetches nothing on a client's word.
fn image(url: &str) -> Result<String, ProviderError> {
    url.strip_prefix("data:image/")
        .and_then(|rest| rest.split_once(";base64,"))
        .map(|(_, data)| data.to_owned())
        .ok_or_else(|| unsupported("messages", "send pictures to this model as data:image/…;base64,… addresses"))
}

fn field<'a, T: Deserialize<'a>>(request: &'a ChatRequest, name: &'static str) -> Result<Option<T>, ProviderError> {
    request.fields.parse(name).map_err(|error| unsupported(name, &format!("{name} cannot be read: {error}")))
}

fn unsupported(param: &'static str, message: &str) -> ProviderError {
    ProviderError::Unsupported { provider: NAME, param, message: message.to_owned() }
}

#[cfg(test)]
#[path = "ollama_request_tests.rs"]
mod tests;
