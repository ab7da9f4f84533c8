//! OpenAI's embeddings: the request as it goes out, the answer as it comes in, and the answer's shape for vectors from
//! elsewhere.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use calos_commands::complete_chat::{VectorEncoding, VectorSizes};
use calos_commands::provider::{ChatRequest, Completion, Produced, ProviderError, TokenUsage};
use calos_commands::raw_object::RawObject;
use serde::Serialize;
use serde_json::value::RawValue;

use super::chunks::{read_object, read_usage, set, written};

/// The largest answer with vectors.
pub const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Where there are no embedding models.
pub(super) fn lacking(provider: &'static str) -> ProviderError {
    let message = format!("{provider} has no embedding models: name one of OpenAI's or Ollama's");
    ProviderError::Unsupported { provider, param: "model", message }
}

/// Refuses a request whose answer would be too large to be taken in: it would be paid for and thrown away. For a provider
/// that writes vectors as it is asked to.
pub(super) fn fits(provider: &'static str, request: &ChatRequest) -> Result<(), ProviderError> {
    fits_in(provider, request, VectorEncoding::asked_for(&request.fields), ", or set encoding_format to base64")
}

/// The same for a provider that writes numbers, whatever the client wants to read.
pub(super) fn fits_as_numbers(provider: &'static str, request: &ChatRequest) -> Result<(), ProviderError> {
    fits_in(provider, request, VectorEncoding::Float, "")
}

fn fits_in(
    provider: &'static str,
    request: &ChatRequest,
    encoding: VectorEncoding,
    way_out: &str,
) -> Result<(), ProviderError> {
    let sizes = VectorSizes::of(&request.fields, &request.model, encoding);
    let most = sizes.most_within(ANSWER_MAX_BYTES as u64);
    let VectorSizes { vectors, dimensions, .. } = sizes;
    if vectors <= most {
        return Ok(());
    }
    let message = format!(
        "{vectors} vectors of {dimensions} numbers are more than one answer holds: send {most} texts at a time{way_out}"
    );
    Err(ProviderError::Unsupported { provider, param: "input", message })
}

/// The client's fields with the model.
pub(super) fn body(provider: &'static str, request: &ChatRequest) -> Result<Vec<u8>, ProviderError> {
    let mut body = RawObject::clone(&request.fields);
    set(provider, &mut body, "model", &request.model)?;
    written(provider, &body).map(Into::into)
}

/// Reads a list of embeddings.
///
/// # Errors
/// `BadAnswer` when it is none, `Status` when it is an error in the clothes of an answer.
pub(super) fn read(provider: &'static str, text: &[u8]) -> Result<Completion, ProviderError> {
    let mut body = read_object(provider, text)?;
    let count = body.parse::<Vec<&RawValue>>("data").ok().flatten().map(|data| data.len());
    if count.is_none_or(|count| count == 0) {
        return Err(ProviderError::BadAnswer { provider, detail: "an answer without vectors".to_owned() });
    }
    // A bill comes from CALOS alone.
    body.remove("billing");
    body.remove("provider");
    let usage = read_usage(&body);
    let model = body.lenient("model").unwrap_or_default();
    Ok(Completion { body, model, usage, produced: Produced::default() })
}

#[derive(Serialize)]
struct Listed {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Packed(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Vectors from elsewhere as OpenAI lists them.
pub(super) fn listed(
    provider: &'static str,
    model: String,
    vectors: Vec<Vec<f32>>,
    usage: TokenUsage,
    encoding: VectorEncoding,
) -> Result<Completion, ProviderError> {
    let data: Vec<Listed> = vectors
        .into_iter()
        .enumerate()
        .map(|(index, numbers)| Listed { object: "embedding", index, embedding: packed(numbers, encoding) })
        .collect();
    let mut body = RawObject::default();
    set(provider, &mut body, "object", "list")?;
    set(provider, &mut body, "data", &data)?;
    set(provider, &mut body, "model", &model)?;
    let tokens = Usage { prompt_tokens: usage.prompt_tokens, total_tokens: usage.prompt_tokens };
    set(provider, &mut body, "usage", &tokens)?;
    Ok(Completion { body, model, usage: Some(usage), produced: Produced::default() })
}

fn packed(numbers: Vec<f32>, encoding: VectorEncoding) -> Vector {
    match encoding {
        VectorEncoding::Float => Vector::Numbers(numbers),
        VectorEncoding::Base64 => {
            let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
            Vector::Packed(BASE64_STANDARD.encode(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use calos_commands::provider::{Dialect, MaxTokensField, Transcript};

    use super::*;

    fn request(fields: &str) -> ChatRequest {
        ChatRequest {
            answer_id: "embd-test".to_owned(),
            dialect: Dialect::OpenAi,
            key: None,
            model: "text-embedding-3-small".to_owned(),
            fields: Arc::new(serde_json::from_str(fields).unwrap()),
            betas: None,
            max_tokens: 0,
            max_tokens_field: MaxTokensField::MaxTokens,
            show_usage: false,
            prompt_estimate_tokens: 3,
            transcript: Transcript::default(),
        }
    }

    #[test]
    fn the_request_goes_out_as_it_came_with_the_model() {
        let body = body("openai", &request(r#"{"input":["a"],"dimensions":2,"user":"u"}"#)).unwrap();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"input":["a"],"dimensions":2,"user":"u","model":"text-embedding-3-small"}"#
        );
    }

    #[test]
    fn openais_list_is_read_and_kept() {
        // As OpenAI's reference shows it.
        let text = r#"{"object":"list","data":[{"object":"embedding","embedding":[0.0023064255,-0.009327292],"index":0}],
            "model":"text-embedding-ada-002","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
        let completion = read("openai", text.as_bytes()).unwrap();
        assert_eq!(completion.usage, TokenUsage::reported(8, 0, 0, 0));
        assert_eq!(completion.model, "text-embedding-ada-002");
        assert!(completion.body.get("data").unwrap().contains("0.0023064255"));
        for none in ["{}", r#"{"data":[]}"#, r#"{"data":7}"#, "[]"] {
            assert!(matches!(read("openai", none.as_bytes()), Err(ProviderError::BadAnswer { .. })), "{none}");
        }
    }

    #[test]
    fn vectors_are_written_as_they_are_asked_for() {
        let usage = TokenUsage::reported(8, 0, 0, 0).unwrap();
        let list = |encoding| {
            let completion = listed("ollama", "m".to_owned(), vec![vec![0.25, -1.0]], usage, encoding).unwrap();
            serde_json::to_value(&completion.body).unwrap()
        };
        assert_eq!(
            list(VectorEncoding::Float),
            serde_json::json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -1.0]}],
                "model": "m", "usage": {"prompt_tokens": 8, "total_tokens": 8}})
        );
        assert_eq!(list(VectorEncoding::Base64)["data"][0]["embedding"], "AACAPgAAgL8=");
    }

    #[test]
    fn more_vectors_than_an_answer_holds_are_refused_before_they_are_paid_for() {
        let many = |count: usize, more: &str| {
            let request = request(&format!(r#"{{"input":[{}]{more}}}"#, vec!["\"a\""; count].join(",")));
            fits("openai", &request)
        };
        // 1,536 numbers of 32 bytes, and what stands around them.
        assert!(many(1_337, "").is_ok());
        let refused = many(1_338, "").unwrap_err();
        assert!(matches!(refused, ProviderError::Unsupported { param: "input", .. }), "{refused}");
        assert!(many(2_048, r#","encoding_format":"base64""#).is_ok());
        assert!(many(2_048, r#","dimensions":512"#).is_ok());
        // A list of tokens is one text.
        let tokens = format!(r#"{{"input":[{}]}}"#, vec!["1"; 8_192].join(","));
        assert!(fits("openai", &request(&tokens)).is_ok());
        // Whoever writes numbers is not measured by what the client reads.
        let packed = format!(r#"{{"input":[{}],"encoding_format":"base64"}}"#, vec!["\"a\""; 1_338].join(","));
        let (packed, refused) = (request(&packed), fits_as_numbers("ollama", &request(&packed)).unwrap_err());
        assert!(fits("openai", &packed).is_ok() && !refused.to_string().contains("base64"), "{refused}");
    }
}
