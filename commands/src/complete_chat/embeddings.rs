//! Reads an embeddings request: what CALOS must know is checked, the rest is kept as it came.

use std::sync::Arc;

use calos_domain::pricing::{ModelKind, PriceBook};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::{BadRequest, CallKind, ChatCall, read_model, typed, whole, wrong};
use super::route::Routing;
use crate::provider::Dialect;
use crate::raw_object::RawObject;
use crate::tokens::{about, at_most};

/// The most texts of one request, as at OpenAI.
pub const INPUTS_MAX: usize = 2_048;
/// The most tokens of one text, as at OpenAI.
pub const INPUT_MAX_TOKENS: u64 = 8_192;
/// The most tokens of all texts of a request together, as at OpenAI.
pub const REQUEST_MAX_TOKENS: u64 = 300_000;
/// The most numbers one vector may be asked to have; no model makes as many.
pub const DIMENSIONS_MAX: u64 = 65_536;

/// How many numbers a vector of a model nobody here knows has at most.
const UNKNOWN_DIMENSIONS: u64 = 4_096;
/// The most bytes a number of a vector takes in an answer, as the providers write them, indented.
const NUMBER_MAX_BYTES: u64 = 32;
/// The same as base64 of its four bytes, rounded up.
const PACKED_NUMBER_MAX_BYTES: u64 = 6;
/// What stands around a vector, and around all of them.
const VECTOR_FRAME_MAX_BYTES: u64 = 1_024;

const RIGHT_INPUT: &str = "must be text, a list of texts, or a list of tokens or of lists of tokens";

/// How large the texts are.
#[derive(Default)]
struct Sizes {
    most: u64,
    likely: u64,
}

impl Sizes {
    /// A text in its JSON form. No provider takes one beyond its bound, so none can be charged for more.
    fn add_text(&mut self, index: Option<usize>, json: &str) -> Result<(), BadRequest> {
        if json == "\"\"" {
            return Err(wrong(at(index), "is empty: send text to make a vector of"));
        }
        self.most += at_most(json.as_bytes()).min(INPUT_MAX_TOKENS);
        self.likely += about(json.len().saturating_sub(2) as u64).min(INPUT_MAX_TOKENS);
        Ok(())
    }

    fn add_tokens(&mut self, index: Option<usize>, tokens: &[u32]) -> Result<(), BadRequest> {
        let count = tokens.len() as u64;
        if count == 0 {
            return Err(wrong(at(index), "is empty: send tokens to make a vector of"));
        }
        if count > INPUT_MAX_TOKENS {
            return Err(wrong(at(index), &format!("has {INPUT_MAX_TOKENS} tokens at most")));
        }
        self.most += count;
        self.likely += count;
        Ok(())
    }
}

fn at(index: Option<usize>) -> String {
    index.map_or_else(|| "input".to_owned(), |index| format!("input[{index}]"))
}

impl ChatCall {
    /// Reads and checks a request for vectors.
    ///
    /// # Errors
    /// [`BadRequest`], naming the field.
    pub fn read_embeddings(mut body: RawObject) -> Result<Self, BadRequest> {
        let model = read_model(&body)?;
        let sizes = measure(&body)?;
        whole(&body, "dimensions", 1, DIMENSIONS_MAX)?;
        check_encoding(&body)?;
        typed::<String>(&body, "user", "text")?;
        body.remove("model");
        Ok(Self {
            kind: CallKind::Embeddings,
            routing: Routing::default(),
            dialect: Dialect::OpenAi,
            model,
            streaming: false,
            include_usage: false,
            max_tokens: None,
            choices: 1,
            fields: Arc::new(body),
            in_words: None,
            betas: None,
            prompt_max_tokens: sizes.most.min(REQUEST_MAX_TOKENS),
            images: 0,
            prompt_about_tokens: sizes.likely.min(REQUEST_MAX_TOKENS),
        })
    }
}

impl ChatCall {
    /// How large the answer to a request for vectors is at most; nothing for any other request.
    #[must_use]
    pub fn vectors_max_bytes(&self) -> u64 {
        if self.kind != CallKind::Embeddings {
            return 0;
        }
        let encoding = VectorEncoding::asked_for(&self.fields);
        VectorSizes::of(&self.fields, self.model.as_deref().unwrap_or_default(), encoding).max_bytes()
    }
}

/// What vectors are written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VectorEncoding {
    /// A list of numbers.
    #[default]
    Float,
    /// Their four bytes each, in the order of little machines, as base64.
    Base64,
}

impl VectorEncoding {
    /// How the client wants its vectors written.
    #[must_use]
    pub fn asked_for(fields: &RawObject) -> Self {
        fields.lenient("encoding_format").unwrap_or_default()
    }

    const fn number_max_bytes(self) -> u64 {
        match self {
            Self::Float => NUMBER_MAX_BYTES,
            Self::Base64 => PACKED_NUMBER_MAX_BYTES,
        }
    }
}

/// How large an answer with vectors may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VectorSizes {
    /// How many vectors are asked for.
    pub vectors: u64,
    /// How many numbers each of them has.
    pub dimensions: u64,
    vector_max_bytes: u64,
}

impl VectorSizes {
    /// The sizes of the answer to a request for vectors of this model, when it is written like this.
    #[must_use]
    pub fn of(fields: &RawObject, model: &str, encoding: VectorEncoding) -> Self {
        let inputs: Vec<&RawValue> = fields.parse("input").ok().flatten().unwrap_or_default();
        // Alone, a text or a list of tokens makes one vector.
        let many = inputs.first().is_some_and(|first| first.get().starts_with(['"', '[']));
        let vectors = if many { inputs.len() as u64 } else { 1 };
        let whole = PriceBook::current().model(model).and_then(|entry| match entry.kind {
            ModelKind::Embedding { dimensions } => Some(dimensions),
            ModelKind::Chat { .. } => None,
        });
        let dimensions: u64 = fields.lenient("dimensions").or(whole).unwrap_or(UNKNOWN_DIMENSIONS);
        let numbers = dimensions.saturating_mul(encoding.number_max_bytes());
        Self { vectors, dimensions, vector_max_bytes: numbers.saturating_add(VECTOR_FRAME_MAX_BYTES) }
    }

    /// How large the answer is at most.
    #[must_use]
    pub fn max_bytes(self) -> u64 {
        self.vectors.saturating_mul(self.vector_max_bytes).saturating_add(VECTOR_FRAME_MAX_BYTES)
    }

    /// How many such vectors an answer of so many bytes holds for certain.
    #[must_use]
    pub fn most_within(self, bytes: u64) -> u64 {
        bytes.saturating_sub(VECTOR_FRAME_MAX_BYTES) / self.vector_max_bytes
    }
}

fn check_encoding(body: &RawObject) -> Result<(), BadRequest> {
    match typed::<String>(body, "encoding_format", "float or base64")?.as_deref() {
        None | Some("float" | "base64") => Ok(()),
        Some(_) => Err(wrong("encoding_format", "must be float or base64")),
    }
}

fn measure(body: &RawObject) -> Result<Sizes, BadRequest> {
    let Some(input) = body.given("input") else { return Err(wrong("input", "is missing: it is the text to embed")) };
    let mut sizes = Sizes::default();
    if input.starts_with('"') {
        sizes.add_text(None, input)?;
        return Ok(sizes);
    }
    let inputs: Vec<&RawValue> = parse(input)?;
    if inputs.first().is_some_and(|first| first.get().starts_with(|first: char| first.is_ascii_digit())) {
        sizes.add_tokens(None, &parse::<Vec<u32>>(input)?)?;
        return Ok(sizes);
    }
    if inputs.is_empty() {
        return Err(wrong("input", "is empty: send at least one text"));
    }
    if inputs.len() > INPUTS_MAX {
        return Err(wrong("input", &format!("has {INPUTS_MAX} texts at most: send the others in further requests")));
    }
    let texts = inputs[0].get().starts_with('"');
    for (index, input) in inputs.iter().enumerate() {
        let json = input.get();
        if texts && json.starts_with('"') {
            sizes.add_text(Some(index), json)?;
        } else if !texts && json.starts_with('[') {
            sizes.add_tokens(Some(index), &parse::<Vec<u32>>(json)?)?;
        } else {
            return Err(wrong("input", RIGHT_INPUT));
        }
    }
    Ok(sizes)
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, BadRequest> {
    serde_json::from_str(json).map_err(|_| wrong("input", RIGHT_INPUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ChatCall, BadRequest> {
        ChatCall::read_embeddings(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn every_form_of_input_is_measured() {
        for (input, most) in [
            (r#""hello""#, 7),
            (r#"["hello","you"]"#, 12),
            ("[1,2,3]", 3),
            ("[[1,2,3],[4]]", 4),
            (&format!(r#"["{}"]"#, "x".repeat(100_000)), INPUT_MAX_TOKENS),
        ] {
            let call = read(&format!(r#"{{"input":{input},"model":"m"}}"#)).unwrap();
            assert_eq!((call.prompt_max_tokens, call.kind), (most, CallKind::Embeddings), "{input}");
        }
    }

    #[test]
    fn what_calos_decides_is_taken_out_and_the_rest_is_kept() {
        let call = read(r#"{"input":"a","model":"m","dimensions":256,"encoding_format":"base64","new":[1]}"#).unwrap();
        assert_eq!(call.model.as_deref(), Some("m"));
        let kept = serde_json::to_string(&*call.fields).unwrap();
        assert_eq!(kept, r#"{"input":"a","dimensions":256,"encoding_format":"base64","new":[1]}"#);
    }

    #[test]
    fn the_largest_answer_is_known_before_it_is_paid_for() {
        let most = |fields: &str| read(&format!("{{{fields}}}")).unwrap().vectors_max_bytes();
        let one = most(r#""model":"text-embedding-3-small","input":"a""#);
        assert_eq!(one, 1_536 * NUMBER_MAX_BYTES + 2 * VECTOR_FRAME_MAX_BYTES);
        assert!(most(r#""model":"text-embedding-3-small","input":["a","b"]"#) > 2 * 1_536 * NUMBER_MAX_BYTES);
        let packed = most(r#""model":"text-embedding-3-small","input":"a","dimensions":8,"encoding_format":"base64""#);
        assert_eq!(packed, 8 * PACKED_NUMBER_MAX_BYTES + 2 * VECTOR_FRAME_MAX_BYTES);
        assert!(most(r#""model":"somebody/embeds","input":[[1,2],[3]]"#) > 2 * 4_096 * NUMBER_MAX_BYTES);
        let words = ChatCall::read(serde_json::from_str(r#"{"messages":[{"role":"user","content":"a"}]}"#).unwrap());
        assert_eq!(words.unwrap().vectors_max_bytes(), 0);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many = format!(r#"{{"input":[{}]}}"#, vec!["\"a\""; INPUTS_MAX + 1].join(","));
        let long = format!(r#"{{"input":[[{}]]}}"#, vec!["1"; 8_193].join(","));
        for (text, param) in [
            (r#"{}"#, "input"),
            (r#"{"input":""}"#, "input"),
            (r#"{"input":[]}"#, "input"),
            (r#"{"input":7}"#, "input"),
            (r#"{"input":{"a":1}}"#, "input"),
            (r#"{"input":["a",1]}"#, "input"),
            (r#"{"input":[1,"a"]}"#, "input"),
            (r#"{"input":[-1]}"#, "input"),
            (r#"{"input":["a",""]}"#, "input[1]"),
            (r#"{"input":[[]]}"#, "input[0]"),
            (r#"{"input":"a","dimensions":0}"#, "dimensions"),
            (r#"{"input":"a","encoding_format":"hex"}"#, "encoding_format"),
            (r#"{"input":"a","user":7}"#, "user"),
            (r#"{"input":"a","model":7}"#, "model"),
            (&many, "input"),
            (&long, "input[0]"),
        ] {
            assert_eq!(read(text).unwrap_err().param, param, "{}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn a_request_is_never_held_for_more_than_a_provider_takes() {
        let inputs = vec![format!("\"{}\"", "x".repeat(9_000)); 100].join(",");
        assert_eq!(read(&format!(r#"{{"input":[{inputs}]}}"#)).unwrap().prompt_max_tokens, REQUEST_MAX_TOKENS);
    }
}
