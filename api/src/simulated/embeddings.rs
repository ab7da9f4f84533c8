//! Simulated embeddings: the same text always gives the same vector, in OpenAI's form and in Ollama's.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use calos_domain::pricing::{ModelKind, PriceBook, Provider};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Stage;
use super::openai::{account, failure};
use super::produced::Counted;
use super::switches::Switches;

/// The most texts of one request.
const INPUTS_MAX: usize = 2_048;

/// The most tokens of one text.
const INPUT_MAX_TOKENS: u64 = 8_192;

/// What the simulated local model's vectors have.
const LOCAL_DIMENSIONS: u64 = 768;

/// Text or tokens, one or many.
#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

impl Input {
    /// Each input as text to make a vector of, and its tokens: its words, or as many as were sent.
    fn inputs(self) -> Vec<(String, u64)> {
        let text = |text: String| {
            let tokens = text.split_whitespace().count() as u64;
            (text, tokens)
        };
        let tokens = |tokens: Vec<u32>| (format!("{tokens:?}"), tokens.len() as u64);
        match self {
            Self::Text(one) => vec![text(one)],
            Self::Tokens(one) => vec![tokens(one)],
            Self::Texts(many) => many.into_iter().map(text).collect(),
            Self::TokenLists(many) => many.into_iter().map(tokens).collect(),
        }
    }
}

#[derive(Deserialize)]
struct Asked {
    model: String,
    input: Input,
    #[serde(default)]
    dimensions: Option<u64>,
    #[serde(default)]
    encoding_format: Option<String>,
}

fn switches(stage: &Stage, inputs: &[(String, u64)]) -> Switches {
    inputs.last().map_or_else(|| stage.switches(), |(text, _)| stage.switches().overridden_by(text))
}

pub(super) async fn openai(State(stage): State<Arc<Stage>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = match account(&stage, &headers) {
        Ok(key) => key,
        Err(refusal) => return *refusal,
    };
    stage.accounts.count(key);
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &format!("'$.input' is invalid: {error}"), None),
    };
    let entry = PriceBook::current().model(&asked.model).filter(|entry| entry.provider == Provider::OpenAi);
    let Some(ModelKind::Embedding { dimensions: whole }) = entry.map(|entry| entry.kind) else {
        let message = format!("The model `{}` does not exist or you do not have access to it.", asked.model);
        return failure(StatusCode::NOT_FOUND, &message, Some("model_not_found"));
    };
    let dimensions = asked.dimensions.unwrap_or(whole);
    if dimensions > whole {
        let message = format!("Invalid value for 'dimensions' = {dimensions}. Must be less than or equal to {whole}.");
        return failure(StatusCode::BAD_REQUEST, &message, None);
    }
    let inputs = asked.input.inputs();
    if inputs.is_empty() || inputs.len() > INPUTS_MAX || inputs.iter().any(|(_, tokens)| *tokens > INPUT_MAX_TOKENS) {
        return failure(StatusCode::BAD_REQUEST, "This model's maximum context length is 8192 tokens.", None);
    }
    let switches = switches(&stage, &inputs);
    switches.before_first_byte().await;
    if let Some(status) = stage.failure(&switches) {
        return failure(status, "[simulated] The switch fail_with is set.", Some("simulated_failure"));
    }
    let tokens: u64 = inputs.iter().map(|(_, tokens)| tokens).sum();
    let mut counted = Counted::new(&stage, "openai", &asked.model, tokens);
    let packed = asked.encoding_format.as_deref() == Some("base64");
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, (text, _))| {
            let numbers = vector(text, dimensions);
            let embedding = if packed {
                let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
                json!(BASE64_STANDARD.encode(bytes))
            } else {
                json!(numbers)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let mut answer = json!({"object": "list", "data": data, "model": asked.model});
    if !switches.omit_usage {
        answer["usage"] = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    }
    counted.complete();
    Json(answer).into_response()
}

/// A model of the simulated Ollama that makes vectors.
pub(super) const LOCAL_MODEL: &str = "nomic-embed-text:latest";

pub(super) async fn ollama(State(stage): State<Arc<Stage>>, body: Bytes) -> Response {
    let refused = |status: StatusCode, message: &str| (status, Json(json!({"error": message}))).into_response();
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(_) => return refused(StatusCode::BAD_REQUEST, "invalid input type"),
    };
    let model = if asked.model.contains(':') { asked.model.clone() } else { format!("{}:latest", asked.model) };
    if !super::ollama::MODELS.contains(&model.as_str()) {
        return refused(StatusCode::NOT_FOUND, &format!("model \"{}\" not found, try pulling it first", asked.model));
    }
    if model != LOCAL_MODEL {
        return refused(StatusCode::BAD_REQUEST, "this model does not support embeddings");
    }
    let inputs = match asked.input {
        input @ (Input::Text(_) | Input::Texts(_)) => input.inputs(),
        Input::Tokens(_) | Input::TokenLists(_) => return refused(StatusCode::BAD_REQUEST, "invalid input type"),
    };
    let switches = switches(&stage, &inputs);
    switches.before_first_byte().await;
    if let Some(status) = stage.failure(&switches) {
        return refused(status, "[simulated] The switch fail_with is set.");
    }
    let tokens: u64 = inputs.iter().map(|(_, tokens)| tokens).sum();
    let mut counted = Counted::new(&stage, "ollama", &asked.model, tokens);
    let dimensions = asked.dimensions.unwrap_or(LOCAL_DIMENSIONS).min(LOCAL_DIMENSIONS);
    let vectors: Vec<Vec<f32>> = inputs.iter().map(|(text, _)| vector(text, dimensions)).collect();
    let mut answer = json!({"model": asked.model, "embeddings": vectors, "total_duration": 0, "load_duration": 0});
    if !switches.omit_usage {
        answer["prompt_eval_count"] = json!(tokens);
    }
    counted.complete();
    Json(answer).into_response()
}

/// A vector of length one that only the text decides.
fn vector(text: &str, dimensions: u64) -> Vec<f32> {
    let mut state = text
        .bytes()
        .fold(0x9e37_79b9_u32, |state, byte| (state ^ u32::from(byte)).wrapping_mul(0x0100_0193).rotate_left(5));
    let numbers: Vec<f32> = (0..dimensions)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let upper = u16::try_from(state >> 16).unwrap_or(u16::MAX);
            f32::from(upper) / f32::from(u16::MAX) - 0.5
        })
        .collect();
    let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    numbers.into_iter().map(|number| number / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_gives_the_same_vector_of_length_one() {
        let one = vector("hello", 256);
        assert_eq!((one.len(), &one), (256, &vector("hello", 256)));
        assert_ne!(one, vector("hullo", 256));
        let length: f32 = one.iter().map(|number| number * number).sum();
        assert!((length - 1.0).abs() < 1e-3, "{length}");
    }
}
