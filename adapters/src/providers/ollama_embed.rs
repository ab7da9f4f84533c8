//! From OpenAI's embeddings request to Ollama's `/api/embed`, and back.

use calos_commands::complete_chat::VectorEncoding;
use calos_commands::provider::{ChatRequest, Completion, ProviderError, TokenUsage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::embeddings::listed;
use super::http::status_error;
use super::ollama::NAME;

/// An error in the clothes of an answer carries no status of its own.
const ANSWER_ERROR_STATUS: u16 = 500;

/// The body of `/api/embed`.
#[derive(Debug, Serialize)]
pub(super) struct EmbedRequest<'a> {
    model: &'a str,
    input: &'a RawValue,
    /// Too long a text is refused, as at OpenAI, rather than cut in silence.
    truncate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u64>,
}

/// Its answer.
#[derive(Deserialize)]
pub(super) struct EmbedAnswer {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    embeddings: Vec<Vec<f32>>,
    #[serde(default)]
    pub(super) prompt_eval_count: Option<u64>,
    #[serde(default)]
    error: Option<Value>,
}

/// Translates a request.
///
/// # Errors
/// `Unsupported` for tokens in the place of text: Ollama's models have tokens of their own.
pub(super) fn translate(request: &ChatRequest) -> Result<EmbedRequest<'_>, ProviderError> {
    let unsupported =
        |param, message: &str| ProviderError::Unsupported { provider: NAME, param, message: message.to_owned() };
    let input = request.fields.parse::<&RawValue>("input").ok().flatten();
    let input = input.ok_or_else(|| unsupported("input", "input is missing: it is the text to embed"))?;
    let is_text = serde_json::from_str::<Value>(input.get()).is_ok_and(|input| match input {
        Value::String(_) => true,
        Value::Array(inputs) => inputs.iter().all(Value::is_string),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    });
    if !is_text {
        return Err(unsupported("input", "this model has tokens of its own: send text in place of token numbers"));
    }
    Ok(EmbedRequest { model: &request.model, input, truncate: false, dimensions: request.fields.lenient("dimensions") })
}

/// Reads an answer.
///
/// # Errors
/// `BadAnswer` when it is none, `Status` when it is an error.
pub(super) fn read(text: &[u8]) -> Result<EmbedAnswer, ProviderError> {
    let bad = |detail: String| ProviderError::BadAnswer { provider: NAME, detail };
    let answer: EmbedAnswer = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
    if answer.error.as_ref().is_some_and(|error| !error.is_null()) {
        return Err(status_error(NAME, ANSWER_ERROR_STATUS, None, text));
    }
    if answer.embeddings.is_empty() {
        return Err(bad("an answer without vectors".to_owned()));
    }
    Ok(answer)
}

/// Tells the answer in OpenAI's words. The tokens of the prompt are as reported, or else as counted here.
///
/// # Errors
/// `BadAnswer`, which vectors never lead to.
pub(super) fn tell(
    answer: EmbedAnswer,
    prompt_tokens: Result<u64, u64>,
    request: &ChatRequest,
) -> Result<Completion, ProviderError> {
    let estimated = prompt_tokens.is_err();
    let (Ok(tokens) | Err(tokens)) = prompt_tokens;
    let reported = TokenUsage::reported(tokens, 0, 0, 0).unwrap_or_default();
    let usage = TokenUsage { estimated, ..reported };
    let model = answer.model.unwrap_or_else(|| request.model.clone());
    listed(NAME, model, answer.embeddings, usage, VectorEncoding::asked_for(&request.fields))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use calos_commands::provider::{Dialect, MaxTokensField, Transcript};
    use serde_json::json;

    use super::*;

    fn request(fields: &Value) -> ChatRequest {
        ChatRequest {
            answer_id: "embd-test".to_owned(),
            dialect: Dialect::OpenAi,
            key: None,
            model: "nomic-embed-text".to_owned(),
            fields: Arc::new(serde_json::from_str(&fields.to_string()).unwrap()),
            betas: None,
            max_tokens: 0,
            max_tokens_field: MaxTokensField::MaxTokens,
            show_usage: false,
            prompt_estimate_tokens: 3,
            transcript: Transcript::default(),
        }
    }

    #[test]
    fn texts_are_asked_for_without_being_cut() {
        let request = request(&json!({"input": ["a", "b"], "dimensions": 2, "user": "u", "keep_alive": "24h"}));
        let body = serde_json::to_value(translate(&request).unwrap()).unwrap();
        let expected = json!({"model": "nomic-embed-text", "input": ["a", "b"], "truncate": false, "dimensions": 2});
        assert_eq!(body, expected);
    }

    #[test]
    fn tokens_of_another_model_are_refused() {
        for input in [json!([1, 2]), json!([[1, 2]]), json!(["a", 1])] {
            let refused = translate(&request(&json!({"input": input}))).unwrap_err();
            assert!(matches!(refused, ProviderError::Unsupported { param: "input", .. }), "{refused}");
        }
    }

    #[test]
    fn vectors_come_back_in_openais_list() {
        // As Ollama's documentation shows it.
        let text = r#"{"model":"all-minilm","embeddings":[[0.010071029,-0.0017594862],[-0.0098027075,0.06042469]],
            "total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}"#;
        let answer = read(text.as_bytes()).unwrap();
        let prompt = answer.prompt_eval_count.ok_or(0);
        let completion = tell(answer, prompt, &request(&json!({"input": "a"}))).unwrap();
        let body = serde_json::to_value(&completion.body).unwrap();
        assert_eq!(body["data"][1]["index"], 1);
        assert_eq!(body["data"][0]["embedding"], json!([0.010_071_029, -0.001_759_486_2]));
        assert_eq!(body["usage"], json!({"prompt_tokens": 8, "total_tokens": 8}));
        assert_eq!(completion.usage, TokenUsage::reported(8, 0, 0, 0));
        assert!(read(br#"{"error":"model does not support embeddings"}"#).is_err());
        assert!(read(br#"{"embeddings":[]}"#).is_err());
    }

    #[test]
    fn what_ollama_does_not_count_is_counted_and_marked() {
        let answer = read(br#"{"embeddings":[[1.0]]}"#).unwrap();
        let usage = tell(answer, Err(5), &request(&json!({"input": "a"}))).unwrap().usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.estimated), (5, true));
    }
}
