//! What a simulated Anthropic is asked, how strictly it looks at it, and what of it it has seen before.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::story::{Content, SaidMessage};

/// The most beginnings of prompts that are remembered; beyond it all are forgotten.
const CACHED_MAX_PROMPTS: usize = 1_024;

/// A request; a field that is not named here is refused, as the real one does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) model: String,
    pub(crate) max_tokens: u64,
    messages: Vec<Message>,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(default)]
    system: Value,
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default)]
    tool_choice: Value,
    #[serde(default)]
    thinking: Value,
    #[serde(default, rename = "temperature")]
    _temperature: Option<f64>,
    #[serde(default, rename = "top_p")]
    _top_p: Option<f64>,
    #[serde(default, rename = "top_k")]
    _top_k: Option<u64>,
    #[serde(default, rename = "stop_sequences")]
    _stop_sequences: Vec<String>,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    #[serde(default, rename = "output_config")]
    _output_config: Value,
    #[serde(default, rename = "service_tier")]
    _service_tier: Value,
    #[serde(default, rename = "cache_control")]
    _cache_control: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: String,
    content: Value,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
}

/// A prompt as the story reads it.
pub(crate) struct Prompt {
    pub(crate) messages: Vec<SaidMessage>,
    /// What stands before the last mark of the cache, and for how long it is kept.
    marked: Option<Marked>,
}

struct Marked {
    words: u64,
    hash: u64,
    for_an_hour: bool,
}

/// Tokens of a prompt that were read from the cache or written to it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cached {
    pub(crate) read: u64,
    pub(crate) written_minutes: u64,
    pub(crate) written_hour: u64,
}

/// The beginnings of prompts that were marked and seen.
#[derive(Debug, Default)]
pub(crate) struct PromptCache(Mutex<HashSet<u64>>);

impl PromptCache {
    pub(crate) fn look_up(&self, model: &str, prompt: &Prompt) -> Cached {
        let Some(marked) = &prompt.marked else { return Cached::default() };
        let mut hasher = DefaultHasher::new();
        (model, marked.hash).hash(&mut hasher);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CACHED_MAX_PROMPTS {
            seen.clear();
        }
        match (seen.insert(hasher.finish()), marked.for_an_hour) {
            (false, _) => Cached { read: marked.words, ..Cached::default() },
            (true, true) => Cached { written_hour: marked.words, ..Cached::default() },
            (true, false) => Cached { written_minutes: marked.words, ..Cached::default() },
        }
    }
}

impl Asked {
    /// Reads and checks a request, or says what is wrong in the real one's manner.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        let asked: Self = serde_json::from_slice(body).map_err(|error| {
            let text = error.to_string();
            match text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
                Some((field, _)) => format!("{field}: Extra inputs are not permitted"),
                None => text,
            }
        })?;
        if asked.messages.is_empty() {
            return Err("messages: at least one message is required".to_owned());
        }
        asked.check_blocks()?;
        Ok(asked)
    }

    fn check_blocks(&self) -> Result<(), String> {
        let mut called = HashSet::new();
        for (place, message) in self.messages.iter().enumerate() {
            if !matches!(message.role.as_str(), "user" | "assistant") {
                return Err(format!("messages.{place}.role: Input should be 'user' or 'assistant'"));
            }
            for block in blocks(&message.content) {
                match block["type"].as_str() {
                    Some("text") if block["text"].as_str().is_none_or(str::is_empty) => {
                        return Err("messages: text content blocks must be non-empty".to_owned());
                    }
                    Some("tool_use") => {
                        called.insert(block["id"].as_str().unwrap_or_default());
                    }
                    Some("tool_result") if !called.contains(block["tool_use_id"].as_str().unwrap_or_default()) => {
                        return Err(format!(
                            "messages.{place}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {}",
                            block["tool_use_id"]
                        ));
                    }
                    Some("image") if !matches!(block["source"]["type"].as_str(), Some("base64" | "url")) => {
                        return Err(format!("messages.{place}.content.0.image.source: Input tag is not expected"));
                    }
                    Some(_) => {}
                    None => return Err(format!("messages.{place}.content.0.type: Field required")),
                }
            }
        }
        Ok(())
    }

    /// The tool it calls if it calls one.
    pub(crate) fn tool(&self) -> Option<String> {
        match self.tool_choice["type"].as_str() {
            Some("none") => None,
            Some("tool") => self.tool_choice["name"].as_str().map(str::to_owned),
            Some(_) | None => self.tools.first().map(|tool| tool.name.clone()),
        }
    }

    pub(crate) fn must_call_tool(&self) -> bool {
        matches!(self.tool_choice["type"].as_str(), Some("tool" | "any"))
    }

    pub(crate) fn thinks(&self) -> bool {
        matches!(self.thinking["type"].as_str(), Some("enabled" | "adaptive"))
    }

    pub(crate) fn prompt(&self) -> Prompt {
        let system = (!self.system.is_null()).then_some(("system", &self.system));
        let said = self.messages.iter().map(|message| (message.role.as_str(), &message.content));
        let (mut messages, mut marked) = (Vec::new(), None);
        let (mut words, mut hasher) = (0, DefaultHasher::new());
        for (role, content) in system.into_iter().chain(said) {
            let mut text = content.as_str().unwrap_or_default().to_owned();
            for block in blocks(content) {
                let before = text.len();
                add_text(block, &mut text);
                words += text[before..].split_whitespace().count() as u64;
                (role, &text).hash(&mut hasher);
                if !block["cache_control"].is_null() {
                    let for_an_hour = block["cache_control"]["ttl"] == "1h";
                    marked = Some(Marked { words, hash: hasher.finish(), for_an_hour });
                }
            }
            if content.is_string() {
                words += text.split_whitespace().count() as u64;
                (role, &text).hash(&mut hasher);
            }
            messages.push(SaidMessage { role: role.to_owned(), content: Some(Content::Text(text)) });
        }
        Prompt { messages, marked }
    }
}

fn blocks(content: &Value) -> impl Iterator<Item = &Value> {
    content.as_array().into_iter().flatten()
}

/// The words of a block: its own, or what a tool gave back.
fn add_text(block: &Value, text: &mut String) {
    let content = &block["content"];
    let own = block["text"].as_str().or(content.as_str());
    let given = blocks(content).filter_map(|block| block["text"].as_str());
    for words in own.into_iter().chain(given) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(words);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<Asked, String> {
        Asked::read(body.to_string().as_bytes())
    }

    #[test]
    fn what_the_real_one_refuses_is_refused() {
        let with = |messages: Value| json!({"model": "m", "max_tokens": 5, "messages": messages});
        for (body, problem) in [
            (json!({"model": "m", "messages": []}), "max_tokens"),
            (json!({"model": "m", "max_tokens": 5, "messages": [], "n": 1}), "n: Extra inputs are not permitted"),
            (with(json!([])), "at least one message"),
            (with(json!([{"role": "developer", "content": "x"}])), "messages.0.role"),
            (with(json!([{"role": "user", "content": [{"type": "text", "text": ""}]}])), "non-empty"),
            (with(json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}])), "tool_use_id"),
        ] {
            let Err(told) = read(&body) else { panic!("{body}") };
            assert!(told.contains(problem), "{told}");
        }
    }

    #[test]
    fn a_marked_beginning_is_written_once_and_then_read() {
        let asked = |question: &str, ttl: &str| {
            let system = json!([{"type": "text", "text": "three long words", "cache_control": {"type": "ephemeral", "ttl": ttl}}]);
            let messages = json!([{"role": "user", "content": question}]);
            read(&json!({"model": "m", "max_tokens": 5, "system": system, "messages": messages})).unwrap().prompt()
        };
        let cache = PromptCache::default();
        let first = cache.look_up("m", &asked("one", "1h"));
        assert_eq!((first.read, first.written_minutes, first.written_hour), (0, 0, 3));
        let second = cache.look_up("m", &asked("two", "5m"));
        assert_eq!((second.read, second.written_minutes, second.written_hour), (3, 0, 0));
        let elsewhere = cache.look_up("other", &asked("two", "5m"));
        assert_eq!((elsewhere.read, elsewhere.written_minutes), (0, 3));
    }
}
