//! What messages are made of, from OpenAI's words to Anthropic's: text, pictures, thoughts and calls of tools.

use calos_commands::provider::ProviderError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::anthropic::NAME;

/// A thought as it is shown to clients of OpenAI's dialect in `thinking_blocks`, which is what other gateways call them, and
/// as they give it back. Only with its signature does Anthropic take it for the model's own.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ThinkingBlock {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) thinking: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<String>,
}

#[derive(Deserialize)]
struct InPart<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    image_url: Option<InImage>,
    #[serde(borrow, default)]
    cache_control: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct InImage {
    url: String,
}

#[derive(Deserialize)]
pub(super) struct InToolCall<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow, default)]
    function: Option<InFunction<'a>>,
}

#[derive(Deserialize)]
pub(super) struct InFunction<'a> {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(borrow, default)]
    pub(super) parameters: Option<&'a RawValue>,
    #[serde(default)]
    arguments: String,
}

/// A block of a message.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Thinking {
        thinking: String,
        signature: String,
    },
    RedactedThinking {
        data: String,
    },
    Text {
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    Image {
        source: Source,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    ToolUse {
        id: String,
        name: String,
        input: Value,
    },
    ToolResult {
        tool_use_id: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<Block<'a>>,
    },
}

impl Block<'_> {
    /// Whether a tool is called in it.
    pub(super) fn is_call(&self) -> bool {
        matches!(self, Self::ToolUse { .. })
    }

    /// Whether it is a thought.
    pub(super) fn is_thought(&self) -> bool {
        matches!(self, Self::Thinking { .. } | Self::RedactedThinking { .. })
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Source {
    Base64 { media_type: String, data: String },
    Url { url: String },
}

/// The blocks of a message's content: text alone, or parts.
pub(super) fn blocks(content: Option<&RawValue>) -> Result<Vec<Block<'_>>, ProviderError> {
    let unreadable = |error| unsupported("messages", &format!("messages cannot be read: {error}"));
    let json = match content.map(RawValue::get) {
        None | Some("null") => return Ok(Vec::new()),
        Some(json) => json,
    };
    if json.starts_with('"') {
        let text = serde_json::from_str(json).map_err(unreadable)?;
        return Ok(text_block(text, None).into_iter().collect());
    }
    let parts: Vec<InPart<'_>> = serde_json::from_str(json).map_err(unreadable)?;
    let mut blocks = Vec::with_capacity(parts.len());
    for part in parts {
        let cache_control = part.cache_control;
        match (part.kind.as_str(), part.text.or(part.refusal), part.image_url) {
            ("text" | "refusal", Some(text), _) => blocks.extend(text_block(text, cache_control)),
            ("image_url", _, Some(image)) => blocks.push(Block::Image { source: source(image.url)?, cache_control }),
            _ => {
                return Err(unsupported("messages", "this model reads text and pictures; other parts cannot be sent"));
            }
        }
    }
    Ok(blocks)
}

fn text_block(text: String, cache_control: Option<&RawValue>) -> Option<Block<'_>> {
    (!text.is_empty()).then_some(Block::Text { text, cache_control })
}

/// A picture that came inside the request goes on inside it; one elsewhere is fetched by Anthropic, never by CALOS.
fn source(url: String) -> Result<Source, ProviderError> {
    if let Some(inside) = url.strip_prefix("data:") {
        let parts = inside.split_once(";base64,");
        let (media_type, data) = parts
            .ok_or_else(|| unsupported("messages", "send pictures as data:image/…;base64,… or https addresses"))?;
        return Ok(Source::Base64 { media_type: media_type_of(media_type), data: data.to_owned() });
    }
    Ok(Source::Url { url })
}

/// Anthropic knows a picture's type by its registered name alone, without parameters.
fn media_type_of(given: &str) -> String {
    let bare = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if bare == "image/jpg" { "image/jpeg".to_owned() } else { bare }
}

/// A thought as it goes back to whoever had it; one that nobody signed cannot be proven, and is left out.
pub(super) fn thought<'a>(block: ThinkingBlock) -> Option<Block<'a>> {
    match block {
        ThinkingBlock { kind, thinking, signature: Some(signature), .. }
            if kind == "thinking" && !signature.is_empty() =>
        {
            Some(Block::Thinking { thinking: thinking.unwrap_or_default(), signature })
        }
        ThinkingBlock { kind, data: Some(data), .. } if kind == "redacted_thinking" => {
            Some(Block::RedactedThinking { data })
        }
        ThinkingBlock { .. } => None,
    }
}

/// A call of a tool in an earlier answer.
pub(super) fn tool_use<'a>(call: InToolCall<'_>) -> Result<Block<'a>, ProviderError> {
    let (Some(function), Some(id)) = (call.function, call.id) else {
        return Err(unsupported("messages", "a tool call has an id and a function"));
    };
    let input = if function.arguments.trim().is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        serde_json::from_str(&function.arguments)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| unsupported("messages", "the arguments of a tool call are a JSON object, as text"))?
    };
    Ok(Block::ToolUse { id: call_id(&id), name: function.name, input })
}

/// Anthropic takes letters, digits, `_` and `-` alone; a call and its result are renamed alike.
pub(super) fn call_id(id: &str) -> String {
    id.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' }).collect()
}

/// A request that cannot be said to Anthropic, and the field that cannot.
pub(super) fn unsupported(param: &'static str, message: &str) -> ProviderError {
    ProviderError::Unsupported { provider: NAME, param, message: message.to_owned() }
}
