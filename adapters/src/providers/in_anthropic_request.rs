//! From Anthropic's request for a message to OpenAI's chat.completions.
//!
//! Text, pictures, thoughts, tools and their results keep their order and their words. Left out is what has no counterpart
//! and only nudges or speeds the model: `thinking` (which Ollama alone understands), `top_k`, `cache_control`. A failed
//! result says so in its text. Tools that Anthropic describes are refused by name.

use std::borrow::Cow;

use calos_commands::provider::{ChatRequest, ProviderError};
use calos_commands::raw_object::RawObject;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::chunks::set;
use super::{ollama, openai};

/// The longest name of a user OpenAI takes, which is what a SHA-256 hash has in hexadecimal.
const USER_MAX_CHARACTERS: usize = 64;

/// What the text of a failed result begins with.
const FAILED: &str = "Error: ";

#[derive(Deserialize)]
struct InMessage<'a> {
    role: String,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    is_error: Option<bool>,
    #[serde(borrow, default)]
    source: Option<Source<'a>>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    context: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(default)]
    tool_use_id: Option<String>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct InTool<'a> {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(borrow, default)]
    input_schema: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
    ImageUrl { image_url: Image },
}

#[derive(Serialize)]
struct Image {
    url: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Serialize)]
struct OutMessage {
    role: &'static str,
    content: Option<Content>,
    /// What the model thought. A model that thinks in calls of tools has to read it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

/// One text is said as text. OpenAI takes several as they are; other backends take only one, in which they stand in lines
/// of their own.
fn content(provider: &str, mut parts: Vec<Part>) -> Content {
    let only_text = parts.iter().all(|part| matches!(part, Part::Text { .. }));
    if !only_text || provider == openai::NAME && parts.len() > 1 {
        return Content::Parts(parts);
    }
    let texts = parts.drain(..).filter_map(|part| match part {
        Part::Text { text } => Some(text),
        Part::ImageUrl { .. } => None,
    });
    Content::Text(texts.collect::<Vec<_>>().join("\n"))
}

/// A failed result has no field for it in OpenAI's words, so it says it itself.
fn say_failed(text: &mut Vec<Part>) {
    match text.first_mut() {
        Some(Part::Text { text }) => text.insert_str(0, FAILED),
        Some(Part::ImageUrl { .. }) | None => text.insert(0, Part::Text { text: FAILED.trim_end().to_owned() }),
    }
}

/// The name of a user as providers take it: letters, digits, `_` and `-`, [`USER_MAX_CHARACTERS`] of them. Another one is
/// told by its hash, which is the same for the same user and names nobody.
fn user_name(given: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if given.len() <= USER_MAX_CHARACTERS && given.bytes().all(is_plain) {
        Cow::Borrowed(given)
    } else {
        Cow::Owned(hex::encode(Sha256::digest(given.as_bytes())))
    }
}

/// Translates a request; its model, limit and streaming are the caller's to set.
///
/// # Errors
/// `Unsupported`, naming the field.
pub(super) fn translate(provider: &'static str, request: &ChatRequest) -> Result<RawObject, ProviderError> {
    let this = Translation { provider, request };
    let mut body = RawObject::default();
    set(provider, &mut body, "messages", &this.messages()?)?;
    this.tools(&mut body)?;
    for (theirs, ours) in [("temperature", "temperature"), ("top_p", "top_p"), ("stop_sequences", "stop")] {
        if let Some(value) = this.field::<&RawValue>(theirs)?.filter(|value| value.get() != "[]") {
            set(provider, &mut body, ours, value)?;
        }
    }
    let metadata: Option<Value> = this.field("metadata")?;
    if let Some(user) = metadata.as_ref().and_then(|metadata| metadata["user_id"].as_str()) {
        set(provider, &mut body, "user", user_name(user).as_ref())?;
    }
    if provider == ollama::NAME
        && let Some(thinking) = this.field::<&RawValue>("thinking")?
    {
        set(provider, &mut body, "thinking", thinking)?;
    }
    let config: Option<Value> = this.field("output_config")?;
    let format = match config {
        Some(mut config) => config.get_mut("format").map(Value::take),
        None => this.field("output_format")?,
    };
    if let Some(schema) = format.filter(|format| !format.is_null()).map(|mut format| format["schema"].take()) {
        let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
        set(provider, &mut body, "response_format", &format)?;
    }
    Ok(body)
}

struct Translation<'r> {
    provider: &'static str,
    request: &'r ChatRequest,
}

impl Translation<'_> {
    fn message(&self, role: &'static str, parts: Vec<Part>) -> OutMessage {
        let content = Some(content(self.provider, parts));
        OutMessage { role, content, reasoning_content: None, tool_calls: Vec::new(), tool_call_id: None }
    }

    fn messages(&self) -> Result<Vec<OutMessage>, ProviderError> {
        let mut told = Vec::new();
        let system = self.request.fields.given("system");
        if let Some(parts) = system.map(|system| self.parts(system, "system")).transpose()? {
            told.push(self.message("system", parts));
        }
        for message in self.field::<Vec<InMessage<'_>>>("messages")?.unwrap_or_default() {
            let blocks = self.blocks(message.content.map_or("null", RawValue::get), "messages")?;
            match message.role.as_str() {
                "assistant" => told.extend(self.spoken(blocks)?),
                "system" => told.push(self.message("system", self.parts_of(blocks, "messages")?)),
                _ => self.asked(blocks, &mut told)?,
            }
        }
        Ok(told)
    }

    /// What the model thought and said, and which tools it called.
    fn spoken(&self, blocks: Vec<Block<'_>>) -> Result<Option<OutMessage>, ProviderError> {
        let (mut text, mut thoughts, mut tool_calls) = (None::<String>, String::new(), Vec::new());
        for block in blocks {
            match block.kind.as_str() {
                "text" => text.get_or_insert_default().push_str(&block.text.unwrap_or_default()),
                "tool_use" => {
                    let arguments = block.input.map_or("{}", RawValue::get);
                    tool_calls.push(json!({"id": block.id, "type": "function",
                        "function": {"name": block.name, "arguments": arguments}}));
                }
                "thinking" => thoughts.push_str(&block.thinking.unwrap_or_default()),
                // Only Anthropic can read it.
                "redacted_thinking" => {}
                other => return Err(self.unsaid(other, "messages")),
            }
        }
        let is_silent = text.is_none() && tool_calls.is_empty();
        let content = text.map(Content::Text);
        let reasoning_content = Some(thoughts).filter(|thoughts| !thoughts.is_empty());
        let message = OutMessage { role: "assistant", content, reasoning_content, tool_calls, tool_call_id: None };
        Ok((!is_silent).then_some(message))
    }

    /// What tools gave back stands first, each in a message of its own, as the answer to the calls before it. Pictures
    /// among it are shown by the user: a tool's message is text.
    fn asked(&self, blocks: Vec<Block<'_>>, told: &mut Vec<OutMessage>) -> Result<(), ProviderError> {
        let mut parts = Vec::new();
        for block in blocks {
            if block.kind != "tool_result" {
                self.push_part(block, &mut parts, "messages")?;
                continue;
            }
            let given = self.parts(block.content.map_or("null", RawValue::get), "messages")?;
            let (mut text, pictures): (Vec<Part>, Vec<Part>) =
                given.into_iter().partition(|part| matches!(part, Part::Text { .. }));
            if block.is_error == Some(true) {
                say_failed(&mut text);
            }
            let result = OutMessage { tool_call_id: block.tool_use_id, ..self.message("tool", text) };
            told.push(result);
            parts.extend(pictures);
        }
        if !parts.is_empty() {
            told.push(self.message("user", parts));
        }
        Ok(())
    }

    fn parts(&self, json: &str, param: &'static str) -> Result<Vec<Part>, ProviderError> {
        self.parts_of(self.blocks(json, param)?, param)
    }

    fn parts_of(&self, blocks: Vec<Block<'_>>, param: &'static str) -> Result<Vec<Part>, ProviderError> {
        let mut parts = Vec::with_capacity(blocks.len());
        for block in blocks {
            self.push_part(block, &mut parts, param)?;
        }
        Ok(parts)
    }

    fn push_part(&self, block: Block<'_>, parts: &mut Vec<Part>, param: &'static str) -> Result<(), ProviderError> {
        match (block.kind.as_str(), block.source) {
            ("text", _) => parts.push(Part::Text { text: block.text.unwrap_or_default() }),
            ("image", Some(source)) => parts.push(Part::ImageUrl { image_url: Image { url: self.address(source)? } }),
            ("document", Some(source)) => {
                let headings = [block.title, block.context].into_iter().flatten();
                parts.extend(headings.map(|text| Part::Text { text }));
                match (source.data, source.content) {
                    (Some(text), _) if source.kind == "text" => parts.push(Part::Text { text }),
                    (_, Some(content)) if source.kind == "content" => parts.extend(self.parts(content.get(), param)?),
                    _ => return Err(self.unsaid("document", param)),
                }
            }
            (other, _) => return Err(self.unsaid(other, param)),
        }
        Ok(())
    }

    fn address(&self, source: Source<'_>) -> Result<String, ProviderError> {
        match (source.kind.as_str(), source.media_type, source.data, source.url) {
            ("base64", Some(media_type), Some(data), _) => Ok(format!("data:{media_type};base64,{data}")),
            ("url", _, _, Some(url)) => Ok(url),
            _ => Err(self.unsupported("messages", "a picture's source is base64, with its media_type, or a url")),
        }
    }

    fn blocks<'a>(&self, json: &'a str, param: &'static str) -> Result<Vec<Block<'a>>, ProviderError> {
        let unreadable =
            |error: serde_json::Error| self.unsupported(param, &format!("{param} cannot be read: {error}"));
        if json == "null" {
            return Ok(Vec::new());
        }
        if json.starts_with('"') {
            let text = serde_json::from_str(json).map_err(unreadable)?;
            return Ok(vec![Block {
                kind: "text".to_owned(),
                text: Some(text),
                thinking: None,
                is_error: None,
                source: None,
                title: None,
                context: None,
                id: None,
                name: None,
                input: None,
                tool_use_id: None,
                content: None,
            }]);
        }
        serde_json::from_str(json).map_err(unreadable)
    }

    fn tools(&self, body: &mut RawObject) -> Result<(), ProviderError> {
        let mut tools = Vec::new();
        for tool in self.field::<Vec<InTool<'_>>>("tools")?.unwrap_or_default() {
            if tool.kind.is_some_and(|kind| kind != "custom") {
                let message =
                    format!("this model does not know the tool {}: describe it in an input_schema", tool.name);
                return Err(self.unsupported("tools", &message));
            }
            tools.push(json!({"type": "function", "function": {
            "name": tool.name, "description": tool.description.unwrap_or_default(),
            "parameters": tool.input_schema.map_or_else(|| json!({"type": "object"}), |schema| {
                serde_json::from_str(schema.get()).unwrap_or(Value::Null)
            })}}));
        }
        if tools.is_empty() {
            return Ok(());
        }
        set(self.provider, body, "tools", &tools)?;
        let Some(choice) = self.field::<Value>("tool_choice")? else { return Ok(()) };
        let told = match choice["type"].as_str() {
            Some("auto") => json!("auto"),
            Some("any") => json!("required"),
            Some("none") => json!("none"),
            Some("tool") => json!({"type": "function", "function": {"name": choice["name"]}}),
            Some(_) | None => return Err(self.unsupported("tool_choice", "its type is auto, any, tool or none")),
        };
        set(self.provider, body, "tool_choice", &told)?;
        if choice["disable_parallel_tool_use"] == json!(true) {
            set(self.provider, body, "parallel_tool_calls", &false)?;
        }
        Ok(())
    }

    fn field<'a, T: Deserialize<'a>>(&'a self, name: &'static str) -> Result<Option<T>, ProviderError> {
        let unreadable = |error| self.unsupported(name, &format!("{name} cannot be read: {error}"));
        self.request.fields.parse(name).map_err(unreadable)
    }

    fn unsaid(&self, kind: &str, param: &'static str) -> ProviderError {
        self.unsupported(param, &format!("this model cannot be given a block of type {kind} there"))
    }

    fn unsupported(&self, param: &'static str, message: &str) -> ProviderError {
        ProviderError::Unsupported { provider: self.provider, param, message: message.to_owned() }
    }
}

#[cfg(test)]
#[path = "in_anthropic_request_tests.rs"]
mod tests;
