//! Reads answers in OpenAI's chat.completions shape: whole ones and the chunks of a stream.
//!
//! What the client will see stays the text the provider sent; only what CALOS must know is looked at.

use std::borrow::Cow;

use bytes::Bytes;
use calos_commands::provider::{Chunk, ChunkKind, Completion, Produced, ProviderError, TokenUsage, Transcript};
use calos_commands::raw_object::RawObject;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::http::status_error;

/// The data of the event that ends a stream.
pub const DONE: &[u8] = b"[DONE]";

/// An error inside a stream carries no status of its own.
const STREAM_ERROR_STATUS: u16 = 500;

#[derive(Debug, Deserialize)]
struct WireChoice<'a> {
    #[serde(borrow, default, alias = "message")]
    delta: Option<WireDelta<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct WireDelta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<WireToolCall<'a>>>,
    #[serde(borrow, default)]
    function_call: Option<WireFunction<'a>>,
}

#[derive(Debug, Deserialize)]
struct WireToolCall<'a> {
    #[serde(borrow, default)]
    function: Option<WireFunction<'a>>,
    #[serde(borrow, default)]
    custom: Option<WireCustom<'a>>,
}

/// A call of a tool that takes text in place of arguments.
#[derive(Debug, Deserialize)]
struct WireCustom<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct WireFunction<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct WireUsage {
    prompt_tokens: u64,
    /// There is none for vectors.
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    /// DeepSeek's name for the tokens read from its cache.
    #[serde(default)]
    prompt_cache_hit_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Debug, Default, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

/// DeepSeek's reason for an answer it had no room to finish. OpenAI's clients know no such reason and fail on it.
const OUT_OF_RESOURCES: &str = "\"insufficient_system_resource\"";

/// What they know for an answer that was cut off.
const CUT_OFF: &str = "length";

/// Reads a `chat.completion` object; what it says goes into the transcript when it reports no usage.
///
/// # Errors
/// `BadAnswer` when it is none, `Status` when it is an error in the clothes of an answer.
pub fn read_completion(
    provider: &'static str,
    text: &[u8],
    transcript: &Transcript,
) -> Result<Completion, ProviderError> {
    let mut body = read_object(provider, text)?;
    let choices = read_choices(provider, &body)?;
    if choices.is_empty() {
        return Err(ProviderError::BadAnswer { provider, detail: "an answer without choices".to_owned() });
    }
    let usage = read_usage(&body);
    let produced = produced_by(&choices, usage.is_none().then_some(transcript));
    let cut_off = choices.iter().any(WireChoice::ran_out);
    let model = body.lenient("model").unwrap_or_default();
    drop(choices);
    if cut_off && produced.pieces == 0 {
        let message = "it had no room for an answer".to_owned();
        let (code, param, retry_after) = (Some("insufficient_system_resource".to_owned()), None, None);
        return Err(ProviderError::Status { provider, status: 503, message, code, param, retry_after });
    }
    if cut_off {
        say_cut_off(provider, &mut body)?;
    }
    // Whoever reads the answer must not find a bill in it that the provider wrote.
    body.remove("billing");
    body.remove("provider");
    Ok(Completion { usage, model, produced, body })
}

/// Reads the data of one event of a stream; [`DONE`] is not one of them. What it says goes into the transcript.
///
/// # Errors
/// `BadAnswer` when it is no chunk, `Status` when it is an error event.
pub fn read_chunk(
    provider: &'static str,
    data: Vec<u8>,
    show_usage: bool,
    transcript: &Transcript,
) -> Result<Chunk, ProviderError> {
    let mut body = read_object(provider, &data)?;
    let choices = read_choices(provider, &body)?;
    let usage = read_usage(&body);
    let produced = produced_by(&choices, Some(transcript));
    let cut_off = choices.iter().any(WireChoice::ran_out);
    let kind = if choices.iter().any(|choice| choice.finish_reason.is_some()) {
        ChunkKind::Finish
    } else if choices.is_empty() && usage.is_some() {
        ChunkKind::Usage
    } else {
        ChunkKind::Content
    };
    drop(choices);
    let model = body.lenient("model");
    let hidden = !show_usage && body.remove("usage").is_some();
    // Some backends send `choices: null` where OpenAI's SDKs expect a list.
    let mended = body.given("choices").is_none() || cut_off;
    if cut_off {
        say_cut_off(provider, &mut body)?;
    } else if mended {
        set(provider, &mut body, "choices", &[(); 0])?;
    }
    // A bill comes from CALOS alone.
    let foreign = body.remove("billing").is_some() | body.remove("provider").is_some();
    // An event of several data lines would need several lines again on its way out.
    let many_lines = data.contains(&b'\n');
    let json = if kind == ChunkKind::Usage && !show_usage {
        None
    } else if many_lines {
        Some(one_line(provider, &body)?)
    } else if hidden || mended || foreign {
        Some(written(provider, &body)?)
    } else {
        Some(Bytes::from(data))
    };
    Ok(Chunk { kind, json, model, usage, produced })
}

impl WireChoice<'_> {
    fn ran_out(&self) -> bool {
        self.finish_reason.is_some_and(|reason| reason.get() == OUT_OF_RESOURCES)
    }
}

/// Puts a reason clients know in the place of one they do not.
fn say_cut_off(provider: &'static str, body: &mut RawObject) -> Result<(), ProviderError> {
    let mut choices: Vec<RawObject> = body.lenient("choices").unwrap_or_default();
    for choice in &mut choices {
        if choice.get("finish_reason") == Some(OUT_OF_RESOURCES) {
            set(provider, choice, "finish_reason", CUT_OFF)?;
        }
    }
    set(provider, body, "choices", &choices)
}

/// Writes an object, as one line where its values are.
///
/// # Errors
/// `BadAnswer`, which an object that was read never leads to.
pub fn written(provider: &'static str, body: &RawObject) -> Result<Bytes, ProviderError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| bad(provider, &error))
}

/// Puts a field into an object on its way to the client.
///
/// # Errors
/// `BadAnswer`, which a plain value never leads to.
pub fn set<T: serde::Serialize + ?Sized>(
    provider: &'static str,
    body: &mut RawObject,
    name: &str,
    value: &T,
) -> Result<(), ProviderError> {
    body.set(name, value).map_err(|error| bad(provider, &error))
}

pub(super) fn one_line(provider: &'static str, body: &RawObject) -> Result<Bytes, ProviderError> {
    let text = written(provider, body)?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| bad(provider, &error))?;
    serde_json::to_vec(&value).map(Bytes::from).map_err(|error| bad(provider, &error))
}

pub(super) fn read_object(provider: &'static str, text: &[u8]) -> Result<RawObject, ProviderError> {
    let body: RawObject = serde_json::from_slice(text).map_err(|error| bad(provider, &error))?;
    if body.given("error").is_some() {
        return Err(status_error(provider, STREAM_ERROR_STATUS, None, text));
    }
    Ok(body)
}

fn read_choices<'a>(provider: &'static str, body: &'a RawObject) -> Result<Vec<WireChoice<'a>>, ProviderError> {
    body.parse("choices").map(Option::unwrap_or_default).map_err(|error| bad(provider, &error))
}

pub(super) fn read_usage(body: &RawObject) -> Option<TokenUsage> {
    let usage: WireUsage = body.lenient("usage")?;
    let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
    TokenUsage::reported(
        usage.prompt_tokens,
        usage.completion_tokens,
        cached.or(usage.prompt_cache_hit_tokens).unwrap_or(0),
        usage.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0),
    )
}

fn produced_by(choices: &[WireChoice<'_>], transcript: Option<&Transcript>) -> Produced {
    let mut produced = Produced::default();
    for delta in choices.iter().filter_map(|choice| choice.delta.as_ref()) {
        let texts = [delta.content, delta.reasoning_content, delta.refusal];
        let calls = delta.tool_calls.iter().flatten();
        let functions = calls.clone().filter_map(|call| call.function.as_ref()).chain(delta.function_call.as_ref());
        let functions = functions.flat_map(|function| [function.name, function.arguments]);
        let customs = calls.filter_map(|call| call.custom.as_ref()).flat_map(|custom| [custom.name, custom.input]);
        let all = texts.into_iter().chain(functions).chain(customs);
        let bytes = all.map(|text| said(text, transcript)).sum::<u64>();
        produced.add(Produced::piece(bytes));
    }
    produced
}

/// The length of a JSON string once its escapes are gone; of anything else, the length of its text.
fn said(value: Option<&RawValue>, transcript: Option<&Transcript>) -> u64 {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    value.map_or(0, |value| {
        let text = serde_json::from_str::<Text<'_>>(value.get()).map_or(Cow::Borrowed(value.get()), |Text(text)| text);
        if let Some(transcript) = transcript {
            transcript.add(&text);
        }
        text.len() as u64
    })
}

fn bad(provider: &'static str, error: &serde_json::Error) -> ProviderError {
    ProviderError::BadAnswer { provider, detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETION: &str = r#"{
  "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "object": "chat.completion", "created": 1741569952,
  "model": "gpt-4.1-2025-04-14",
  "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello! How can I assist you today?",
    "refusal": null, "annotations": []}, "logprobs": null, "finish_reason": "stop"}],
  "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0,
      "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}},
  "service_tier": "default"}"#;

    fn completion(text: &str) -> Result<Completion, ProviderError> {
        read_completion("openai", text.as_bytes(), &Transcript::default())
    }

    fn chunk(data: &str, show_usage: bool) -> Chunk {
        read_chunk("openai", data.as_bytes().to_vec(), show_usage, &Transcript::default()).unwrap()
    }

    fn json(chunk: &Chunk) -> &str {
        std::str::from_utf8(chunk.json.as_ref().unwrap()).unwrap()
    }

    #[test]
    fn a_whole_answer_is_read_and_its_unknown_fields_are_kept() {
        let completion = completion(COMPLETION).unwrap();
        assert_eq!(completion.model, "gpt-4.1-2025-04-14");
        assert_eq!(completion.usage, TokenUsage::reported(19, 10, 4, 2));
        assert_eq!(completion.produced.bytes, 34);
        assert_eq!(completion.body.get("service_tier"), Some("\"default\""));
    }

    #[test]
    fn an_answer_without_a_believable_usage_has_none() {
        for usage in [r#""usage":null"#, r#""usage":{"prompt_tokens":-1,"completion_tokens":2}"#, r#""x":0"#] {
            let text = format!(r#"{{"choices":[{{"message":{{"content":"hi"}}}}],{usage}}}"#);
            assert_eq!(completion(&text).unwrap().usage, None, "{usage}");
        }
    }

    #[test]
    fn deepseeks_answer_is_read() {
        // As its documentation shows it.
        let text = r#"{"id":"930c60df-bf64-41c9-a88e-3ec75f81e00e","choices":[{"finish_reason":"stop","index":0,
            "message":{"content":"Hello! How can I help you today?","reasoning_content":"A greeting.","role":"assistant"}}],
            "created":1705651092,"model":"deepseek-reasoner","object":"chat.completion","usage":{"completion_tokens":10,
            "prompt_tokens":16,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":10,"total_tokens":26,
            "completion_tokens_details":{"reasoning_tokens":4}}}"#;
        let completion = completion(text).unwrap();
        assert_eq!(completion.usage, TokenUsage::reported(16, 10, 6, 4));
        assert_eq!(completion.produced.bytes, 32 + 11);
        assert!(completion.body.get("choices").unwrap().contains("reasoning_content"));
    }

    #[test]
    fn an_answer_without_room_is_cut_off_or_none_at_all() {
        let cut =
            r#"{"choices":[{"index":0,"message":{"content":"Hel"},"finish_reason":"insufficient_system_resource"}]}"#;
        let whole = completion(cut).unwrap();
        assert_eq!(
            whole.body.get("choices"),
            Some(r#"[{"index":0,"message":{"content":"Hel"},"finish_reason":"length"}]"#)
        );
        let error = completion(&cut.replace("Hel", "")).unwrap_err();
        assert!(matches!(error, ProviderError::Status { status: 503, .. }), "{error}");
        let streamed =
            chunk(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"insufficient_system_resource"}]}"#, true);
        assert_eq!(streamed.kind, ChunkKind::Finish);
        assert_eq!(json(&streamed), r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#);
    }

    #[test]
    fn what_nobody_counts_is_written_down() {
        let transcript = Transcript::default();
        let text = r#"{"choices":[{"message":{"content":"h\u00e9","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}"#;
        read_completion("openai", text.as_bytes(), &transcript).unwrap();
        assert_eq!(transcript.take(), ("h\u{e9}f{}".to_owned(), 0));
        read_completion("openai", COMPLETION.as_bytes(), &transcript).unwrap();
        assert_eq!(transcript.take(), (String::new(), 0), "a reported answer is not counted");
        let piece = br#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#;
        read_chunk("openai", piece.to_vec(), true, &transcript).unwrap();
        assert_eq!(transcript.take(), ("hi".to_owned(), 0));
    }

    #[test]
    fn an_answer_that_is_none_is_named() {
        for text in ["", "[]", "{}", r#"{"choices":[]}"#, r#"{"choices":7}"#, "not json"] {
            let error = completion(text).unwrap_err();
            assert!(matches!(error, ProviderError::BadAnswer { .. }), "{text}: {error}");
        }
        let error = completion(r#"{"error":{"message":"overloaded"}}"#).unwrap_err();
        assert!(matches!(error, ProviderError::Status { status: 500, .. }), "{error}");
    }

    #[test]
    fn a_chunk_passes_through_byte_for_byte_when_usage_is_shown() {
        let text = r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null,"obfuscation":"x"}"#;
        let first = chunk(text, true);
        assert_eq!(json(&first), text);
        assert_eq!((first.kind, first.produced.tokens()), (ChunkKind::Content, 0));
    }

    #[test]
    fn usage_is_hidden_from_who_did_not_ask() {
        let text =
            r#"{"id":"c","choices":[{"index":0,"delta":{"content":"a\u00e9"},"finish_reason":null}],"usage":null}"#;
        let content = chunk(text, false);
        assert_eq!(
            json(&content),
            r#"{"id":"c","choices":[{"index":0,"delta":{"content":"a\u00e9"},"finish_reason":null}]}"#
        );
        assert_eq!(content.produced, Produced::piece(3));

        let last = r#"{"id":"c","model":"gpt-4","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
        let hidden = chunk(last, false);
        assert_eq!(
            (hidden.kind, hidden.json.is_none(), hidden.usage),
            (ChunkKind::Usage, true, TokenUsage::reported(7, 3, 0, 0))
        );
        assert_eq!(json(&chunk(last, true)), last);
    }

    #[test]
    fn a_backend_that_puts_usage_beside_the_finish_is_understood() {
        let text = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
        let finish = chunk(text, false);
        assert_eq!((finish.kind, finish.usage.is_some()), (ChunkKind::Finish, true));
        assert_eq!(json(&finish), r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    }

    #[test]
    fn null_choices_become_an_empty_list() {
        assert_eq!(json(&chunk(r#"{"id":"c","choices":null}"#, true)), r#"{"id":"c","choices":[]}"#);
        let usage = chunk(r#"{"choices":null,"usage":{"prompt_tokens":1,"completion_tokens":1}}"#, true);
        assert_eq!(usage.kind, ChunkKind::Usage);
    }

    #[test]
    fn tool_arguments_count_as_produced() {
        let text =
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":1}"}}]}}]}"#;
        assert_eq!(chunk(text, true).produced, Produced::piece(7));
        let custom = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"type":"custom","custom":{"input":"a\nb"}}]}}]}"#;
        assert_eq!(chunk(custom, true).produced, Produced::piece(3));
    }

    #[test]
    fn an_event_of_several_lines_goes_out_as_one() {
        let whole = chunk("{\"choices\":[{\n\"index\":0}]}", true);
        assert_eq!(json(&whole), r#"{"choices":[{"index":0}]}"#);
    }

    #[test]
    fn an_error_event_is_an_error() {
        let error = read_chunk(
            "openai",
            br#"{"error":{"message":"The server had an error","code":null}}"#.to_vec(),
            true,
            &Transcript::default(),
        );
        assert!(matches!(error, Err(ProviderError::Status { .. })), "{error:?}");
    }
}
