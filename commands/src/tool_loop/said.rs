//! What a model said in one round.

use serde::Serialize;
use serde_json::{Value, json};

use super::{FETCH_WEB, words};
use crate::raw_object::RawObject;

/// A call of a tool, in the words of `/api/chat/complete`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ToolCall {
    /// The call's id at the provider.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments; what the model wrote as it is when that is no JSON.
    pub parameters: Value,
}

impl ToolCall {
    /// The URL a call of `fetch_web` names, if it names one.
    pub(super) fn url(&self) -> Option<&str> {
        self.parameters.get("url").and_then(Value::as_str).map(str::trim).filter(|url| !url.is_empty())
    }
}

/// What a model thought in one answer, as it goes back to it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Thoughts {
    /// The text of it, in `reasoning_content`.
    pub text: Option<String>,
    /// What proves it to its provider, in `thinking_blocks`.
    pub blocks: Vec<Value>,
}

impl Thoughts {
    fn of(message: &Value) -> Self {
        let text = message["reasoning_content"].as_str().filter(|text| !text.is_empty());
        let blocks = message["thinking_blocks"].as_array();
        Self { text: text.map(str::to_owned), blocks: blocks.cloned().unwrap_or_default() }
    }

    /// Writes them into the message they belong to.
    pub(super) fn write_into(&self, message: &mut Value) {
        if let Some(text) = &self.text {
            message["reasoning_content"] = json!(text);
        }
        if !self.blocks.is_empty() {
            message["thinking_blocks"] = json!(self.blocks);
        }
    }
}

/// The words and the calls of one answer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Said {
    /// The text; empty when there is none.
    pub text: String,
    /// The calls.
    pub tool_calls: Vec<ToolCall>,
    /// What it thought beside, for a model that has to read it again before it goes on.
    pub thoughts: Thoughts,
    /// Why the answer ended there: `stop`, `length`, `tool_calls`, `content_filter`; none when the provider did not say.
    pub finish_reason: Option<String>,
}

impl Said {
    /// Reads the first choice of a `chat.completion`. What is not there, or of another type, counts as not said: the
    /// answer is charged by then, and whatever is readable in it is the caller's.
    #[must_use]
    pub fn read(body: &RawObject) -> Self {
        let choices: Vec<Value> = body.lenient("choices").unwrap_or_default();
        let Some(choice) = choices.first() else { return Self::default() };
        let message = &choice["message"];
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            text: text_of(&message["content"]),
            tool_calls: calls.iter().filter_map(tool_call).collect(),
            thoughts: Thoughts::of(message),
            finish_reason: choice["finish_reason"].as_str().map(str::to_owned),
        }
    }

    /// The same, with a page that was asked for in words as a call like any other.
    pub(super) fn with_asked_in_words(self) -> Self {
        match words::asked_url(&self.text) {
            Some(url) if self.tool_calls.is_empty() => {
                let parameters = json!({"url": url});
                let call = ToolCall { id: String::new(), name: FETCH_WEB.to_owned(), parameters };
                Self { tool_calls: vec![call], ..self }
            }
            Some(_) | None => self,
        }
    }

    /// The same without its calls.
    pub(super) fn in_words_alone(self) -> Self {
        Self { tool_calls: Vec::new(), ..self }
    }
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

fn tool_call(call: &Value) -> Option<ToolCall> {
    // OpenAI's tools of the type `custom` take any text in the place of JSON.
    let (called, written) =
        if call["type"] == "custom" { (&call["custom"], "input") } else { (&call["function"], "arguments") };
    let name = called["name"].as_str()?.to_owned();
    let id = call["id"].as_str().unwrap_or_default().to_owned();
    let parameters = match &called[written] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
        other => other.clone(),
    };
    Some(ToolCall { id, name, parameters })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &Value) -> Said {
        let body = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
        Said::read(&serde_json::from_value(body).unwrap())
    }

    #[test]
    fn words_and_calls_are_read_and_whatever_else_is_not_there() {
        let call = |arguments: Value| json!({"id": "c", "function": {"name": "f", "arguments": arguments}});
        let read = said(&json!({"content": null, "tool_calls": [
            call(json!("{\"a\":1}")), call(json!("{\"a\":")), call(json!({"a": 2})), {"type": "custom"}, 7,
            {"id": "d", "type": "custom", "custom": {"name": "g", "input": "free words"}}]}));
        let parameters: Vec<Value> = read.tool_calls.into_iter().map(|call| call.parameters).collect();
        assert_eq!(parameters, [json!({"a": 1}), json!("{\"a\":"), json!({"a": 2}), json!("free words")]);
        assert_eq!(said(&json!({"content": [{"type": "text", "text": "a"}, {"text": "b"}]})).text, "ab");
        assert_eq!(said(&json!([])).text, "");
        assert_eq!(Said::read(&RawObject::default()), Said::default());
    }

    #[test]
    fn thoughts_are_read_and_written_back_as_they_were() {
        let message = json!({"content": "x", "reasoning_content": "hm",
            "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]});
        let mut written = json!({"content": "x"});
        said(&message).thoughts.write_into(&mut written);
        assert_eq!(written, message);
        let plain = json!({"content": "x"});
        assert_eq!(said(&plain).thoughts, Thoughts::default());
        let mut written = plain.clone();
        Thoughts::default().write_into(&mut written);
        assert_eq!(written, plain);
    }

    #[test]
    fn a_url_is_text_that_is_not_empty() {
        let call = |parameters| ToolCall { id: String::new(), name: FETCH_WEB.to_owned(), parameters };
        assert_eq!(call(json!({"url": " http://a.example/ "})).url(), Some("http://a.example/"));
        for parameters in [json!({}), json!({"url": ""}), json!({"url": 7}), json!("http://a.example/"), Value::Null] {
            assert_eq!(call(parameters.clone()).url(), None, "{parameters}");
        }
    }
}
