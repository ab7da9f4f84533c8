//! From Ollama's `/api/chat` answers to OpenAI's chat.completions.

use std::time::{SystemTime, UNIX_EPOCH};

use calos_commands::provider::{
    ChatRequest, Chunk, ChunkKind, Completion, Produced, ProviderError, TokenUsage, Transcript,
};
use calos_commands::raw_object::RawObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chunks::{set, written};
use super::http::status_error;
use super::ollama::NAME;

/// An error inside a stream carries no status of its own.
const STREAM_ERROR_STATUS: u16 = 500;

#[derive(Deserialize)]
pub(super) struct WireAnswer {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    message: Option<WireMessage>,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    done_reason: Option<String>,
    #[serde(default)]
    prompt_eval_count: Option<u64>,
    #[serde(default)]
    eval_count: Option<u64>,
    #[serde(default)]
    error: Option<Value>,
}

impl WireAnswer {
    /// Whether it is the end of an answer whose prompt Ollama had in its cache.
    pub(super) const fn lacks_prompt_count(&self) -> bool {
        self.done && self.prompt_eval_count.is_none()
    }
}

#[derive(Default, Deserialize)]
struct WireMessage {
    #[serde(default)]
    content: String,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<WireToolCall>>,
}

#[derive(Deserialize)]
struct WireToolCall {
    function: WireFunction,
}

#[derive(Deserialize)]
struct WireFunction {
    name: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize, Default)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Serialize)]
struct ToolCall {
    /// Only the deltas of a stream are numbered.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    name: String,
    arguments: String,
}

/// What the answer so far has been, which every next line builds on.
pub(super) struct Telling {
    answer_id: String,
    created: u64,
    /// What the prompt has where Ollama does not say.
    pub(super) prompt_estimate_tokens: u64,
    show_usage: bool,
    produced: Produced,
    transcript: Transcript,
    tool_calls: usize,
    begun: bool,
}

impl Telling {
    pub(super) fn new(request: &ChatRequest) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            answer_id: request.answer_id.clone(),
            created,
            prompt_estimate_tokens: request.prompt_estimate_tokens,
            show_usage: request.show_usage,
            produced: Produced::default(),
            transcript: request.transcript.clone(),
            tool_calls: 0,
            begun: false,
        }
    }

    /// A whole answer, from the one object Ollama sends for it.
    pub(super) fn whole(mut self, answer: WireAnswer) -> Result<Completion, ProviderError> {
        let (mut message, produced) = self.message(answer.message.unwrap_or_default(), false);
        message.role = Some("assistant");
        if message.content.is_none() && message.tool_calls.is_empty() {
            message.content = Some(String::new());
        }
        self.produced.add(produced);
        let usage = self.usage(answer.prompt_eval_count, answer.eval_count);
        let model = answer.model.unwrap_or_default();
        let finish = self.finish_reason(answer.done_reason.as_deref());
        let mut body = self.envelope("chat.completion", &model)?;
        let choice = Choice { index: 0, message: Some(message), delta: None, finish_reason: Some(finish) };
        set(NAME, &mut body, "choices", &[choice])?;
        set(NAME, &mut body, "usage", &wire_usage(usage))?;
        Ok(Completion { body, model, usage: Some(usage), produced: self.produced })
    }

    /// The chunks one line of a stream stands for, and whether it is the last.
    pub(super) fn line(&mut self, answer: WireAnswer) -> Result<(Vec<Chunk>, bool), ProviderError> {
        let model = answer.model.unwrap_or_default();
        let (mut message, produced) = self.message(answer.message.unwrap_or_default(), true);
        let mut chunks = Vec::with_capacity(3);
        let empty = message.content.is_none() && message.reasoning_content.is_none() && message.tool_calls.is_empty();
        if !empty || !self.begun {
            if !std::mem::replace(&mut self.begun, true) {
                message.role = Some("assistant");
                message.content.get_or_insert_default();
            }
            self.produced.add(produced);
            chunks.push(self.chunk(ChunkKind::Content, &model, Some(message), None, produced)?);
        }
        if answer.done {
            let usage = self.usage(answer.prompt_eval_count, answer.eval_count);
            let finish = self.finish_reason(answer.done_reason.as_deref());
            let nothing = Some(Message::default());
            chunks.push(self.chunk(ChunkKind::Finish, &model, nothing, Some(finish), Produced::default())?);
            chunks.push(self.usage_chunk(&model, usage)?);
        }
        Ok((chunks, answer.done))
    }

    fn message(&mut self, message: WireMessage, numbered: bool) -> (Message, Produced) {
        let thinking = message.thinking.as_deref().unwrap_or_default();
        let mut bytes = (message.content.len() + thinking.len()) as u64;
        self.transcript.add(&message.content);
        self.transcript.add(thinking);
        let mut tool_calls = Vec::new();
        for call in message.tool_calls.unwrap_or_default() {
            // Ollama gives objects where OpenAI's clients expect the text of one.
            let arguments =
                if call.function.arguments.is_null() { "{}".to_owned() } else { call.function.arguments.to_string() };
            bytes += (call.function.name.len() + arguments.len()) as u64;
            self.transcript.add(&call.function.name);
            self.transcript.add(&arguments);
            tool_calls.push(ToolCall {
                index: numbered.then_some(self.tool_calls),
                id: format!("call_{}_{}", self.answer_id.trim_start_matches("chatcmpl-"), self.tool_calls),
                r#type: "function",
                function: Function { name: call.function.name, arguments },
            });
            self.tool_calls += 1;
        }
        let text = |text: String| (!text.is_empty()).then_some(text);
        let reasoning_content = message.thinking.and_then(text);
        let said = Message { role: None, content: text(message.content), reasoning_content, tool_calls };
        (said, Produced::piece(bytes))
    }

    /// Ollama leaves the prompt's count out when it had the prompt in its cache.
    fn usage(&self, prompt: Option<u64>, completion: Option<u64>) -> TokenUsage {
        let estimated = prompt.is_none() || completion.is_none();
        let prompt = prompt.unwrap_or(self.prompt_estimate_tokens);
        let completion = completion.unwrap_or_else(|| self.produced.tokens());
        let usage = TokenUsage::reported(prompt, completion, 0, 0).unwrap_or(TokenUsage {
            prompt_tokens: self.prompt_estimate_tokens,
            completion_tokens: self.produced.tokens(),
            estimated: true,
            ..TokenUsage::default()
        });
        TokenUsage { estimated: usage.estimated || estimated, ..usage }
    }

    fn finish_reason(&self, done_reason: Option<&str>) -> &'static str {
        match done_reason {
            _ if self.tool_calls > 0 => "tool_calls",
            Some("length") => "length",
            _ => "stop",
        }
    }

    fn envelope(&self, object: &str, model: &str) -> Result<RawObject, ProviderError> {
        let mut body = RawObject::default();
        set(NAME, &mut body, "id", &self.answer_id)?;
        set(NAME, &mut body, "object", object)?;
        set(NAME, &mut body, "created", &self.created)?;
        set(NAME, &mut body, "model", model)?;
        Ok(body)
    }

    fn chunk(
        &self,
        kind: ChunkKind,
        model: &str,
        delta: Option<Message>,
        finish_reason: Option<&'static str>,
        produced: Produced,
    ) -> Result<Chunk, ProviderError> {
        let mut body = self.envelope("chat.completion.chunk", model)?;
        set(NAME, &mut body, "choices", &[Choice { index: 0, message: None, delta, finish_reason }])?;
        if self.show_usage {
            set(NAME, &mut body, "usage", &())?;
        }
        let json = Some(written(NAME, &body)?);
        Ok(Chunk { kind, json, model: Some(model.to_owned()), usage: None, produced })
    }

    fn usage_chunk(&self, model: &str, usage: TokenUsage) -> Result<Chunk, ProviderError> {
        let json = if self.show_usage {
            let mut body = self.envelope("chat.completion.chunk", model)?;
            set(NAME, &mut body, "choices", &[(); 0])?;
            set(NAME, &mut body, "usage", &wire_usage(usage))?;
            Some(written(NAME, &body)?)
        } else {
            None
        };
        let model = Some(model.to_owned());
        Ok(Chunk { kind: ChunkKind::Usage, json, model, usage: Some(usage), produced: Produced::default() })
    }
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Message>,
    finish_reason: Option<&'static str>,
}

fn wire_usage(usage: TokenUsage) -> Usage {
    Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
    }
}

pub(super) fn read(text: &[u8]) -> Result<WireAnswer, ProviderError> {
    let answer: WireAnswer = serde_json::from_slice(text)
        .map_err(|error| ProviderError::BadAnswer { provider: NAME, detail: error.to_string() })?;
    if answer.error.as_ref().is_some_and(|error| !error.is_null()) {
        return Err(status_error(NAME, STREAM_ERROR_STATUS, None, text));
    }
    if answer.message.is_none() && !answer.done {
        return Err(ProviderError::BadAnswer { provider: NAME, detail: "an answer without a message".to_owned() });
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use calos_commands::provider::MaxTokensField;
    use serde_json::json;

    use super::*;

    fn telling(show_usage: bool) -> Telling {
        Telling::new(&ChatRequest {
            answer_id: "chatcmpl-7".to_owned(),
            dialect: calos_commands::provider::Dialect::OpenAi,
            key: None,
            model: "llama3.2:3b".to_owned(),
            fields: Arc::default(),
            betas: None,
            max_tokens: 64,
            max_tokens_field: MaxTokensField::MaxTokens,
            show_usage,
            prompt_estimate_tokens: 12,
            transcript: calos_commands::provider::Transcript::default(),
        })
    }

    fn value(body: &RawObject) -> Value {
        serde_json::to_value(body).unwrap()
    }

    fn chunk_value(chunk: &Chunk) -> Value {
        serde_json::from_slice(chunk.json.as_ref().unwrap()).unwrap()
    }

    const WHOLE: &str = r#"{"model":"llama3.2:3b","created_at":"2023-12-12T14:13:43.416799Z",
        "message":{"role":"assistant","content":"Hello! How are you today?"},"done_reason":"stop","done":true,
        "total_duration":5191566416,"load_duration":2154458,"prompt_eval_count":26,"prompt_eval_duration":383809000,
        "eval_count":298,"eval_duration":4799921000}"#;

    #[test]
    fn a_whole_answer_is_told_in_openais_words() {
        let completion = telling(false).whole(read(WHOLE.as_bytes()).unwrap()).unwrap();
        assert_eq!(completion.usage, TokenUsage::reported(26, 298, 0, 0));
        let body = value(&completion.body);
        assert_eq!(body["object"], "chat.completion");
        assert_eq!(body["id"], "chatcmpl-7");
        assert_eq!(
            body["choices"],
            json!([{"index": 0, "message": {"role": "assistant", "content": "Hello! How are you today?"},
                "finish_reason": "stop"}])
        );
        assert_eq!(body["usage"], json!({"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324}));
    }

    #[test]
    fn a_prompt_from_the_cache_is_counted_by_us_and_marked() {
        let text = WHOLE.replace(r#""prompt_eval_count":26,"#, "");
        let usage = telling(false).whole(read(text.as_bytes()).unwrap()).unwrap().usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.estimated), (12, 298, true));
    }

    #[test]
    fn tool_arguments_become_text_and_each_call_its_own_id() {
        let text = r#"{"model":"m","message":{"role":"assistant","content":"","tool_calls":[
            {"function":{"name":"weather","arguments":{"city":"Oslo"}}},{"function":{"name":"time"}}]},
            "done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":1}"#;
        let body = value(&telling(false).whole(read(text.as_bytes()).unwrap()).unwrap().body);
        assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(
            body["choices"][0]["message"]["tool_calls"],
            json!([
                {"id": "call_7_0", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}},
                {"id": "call_7_1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
            ])
        );
    }

    #[test]
    fn a_stream_opens_with_the_role_and_closes_with_finish_and_usage() {
        let mut telling = telling(true);
        let (first, done) = telling
            .line(read(br#"{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}"#).unwrap())
            .unwrap();
        assert!(!done);
        assert_eq!(chunk_value(&first[0])["choices"][0]["delta"], json!({"role": "assistant", "content": "Hel"}));
        assert_eq!(chunk_value(&first[0])["usage"], Value::Null);
        let (second, _) = telling
            .line(read(br#"{"model":"m","message":{"role":"assistant","content":"lo"},"done":false}"#).unwrap())
            .unwrap();
        assert_eq!(chunk_value(&second[0])["choices"][0]["delta"], json!({"content": "lo"}));
        let last = br#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"length","prompt_eval_count":5,"eval_count":2}"#;
        let (end, done) = telling.line(read(last).unwrap()).unwrap();
        assert!(done);
        assert_eq!(end.iter().map(|chunk| chunk.kind).collect::<Vec<_>>(), [ChunkKind::Finish, ChunkKind::Usage]);
        assert_eq!(chunk_value(&end[0])["choices"][0]["finish_reason"], "length");
        assert_eq!(chunk_value(&end[1])["usage"]["total_tokens"], 7);
        assert_eq!(end[1].usage, TokenUsage::reported(5, 2, 0, 0));
    }

    #[test]
    fn a_stream_that_does_not_count_is_counted_here() {
        let mut telling = telling(false);
        telling.line(read(br#"{"message":{"content":"one"},"done":false}"#).unwrap()).unwrap();
        telling.line(read(br#"{"message":{"content":"two"},"done":false}"#).unwrap()).unwrap();
        let (end, _) = telling.line(read(br#"{"done":true}"#).unwrap()).unwrap();
        let usage = end[1].usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.estimated), (12, 2, true));
        assert!(end[1].json.is_none());
    }

    #[test]
    fn what_is_no_answer_is_named() {
        assert!(matches!(read(b"{}"), Err(ProviderError::BadAnswer { .. })));
        assert!(matches!(read(b"<html>"), Err(ProviderError::BadAnswer { .. })));
        let Err(ProviderError::Status { message, .. }) = read(br#"{"error":"model runner has unexpectedly stopped"}"#)
        else {
            panic!("an error line is an error");
        };
        assert_eq!(message, "model runner has unexpectedly stopped");
    }
}
