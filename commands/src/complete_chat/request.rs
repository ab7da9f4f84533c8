//! Reads a chat.completions request: what CALOS must know is checked, the rest is kept as it came.
//!
//! A field that changes the price is priced (`n`, the limits, the prompt's size) or refused; it never passes unpriced.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use calos_domain::wallet::Meter;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Routing;
use crate::provider::{Dialect, MaxTokensField};
use crate::raw_object::RawObject;
use crate::tokens::{ANSWER_FRAME_TOKENS, IMAGE_ABOUT_TOKENS, MESSAGE_FRAME_TOKENS, about, at_most};

/// The most messages of one prompt.
pub const MESSAGES_MAX: usize = 4_096;
/// The most answers to one call, as at OpenAI.
pub const CHOICES_MAX: u64 = 128;
/// The longest name of a model.
pub const MODEL_MAX_BYTES: usize = 200;
/// More than any model can write, so that sums of it stay far from overflow.
pub(super) const MAX_TOKENS_LIMIT: u64 = 10_000_000;
/// The most stop sequences, as at OpenAI.
const STOP_MAX: usize = 4;

/// Who may speak in a prompt.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// What costs extra at the provider and has no price here.
const UNPRICED: [(&str, &str); 4] = [
    ("web_search_options", "the provider's own web search has no price here: leave web_search_options out"),
    ("audio", "audio has no price here: leave audio out"),
    ("prediction", "predicted output is billed beyond max_tokens and has no price here: leave prediction out"),
    ("best_of", "chat calls have no best_of: ask for several answers with n"),
];

/// What is wrong with a request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct BadRequest {
    /// The field, by OpenAI's name for it, with the path inside it.
    pub param: Cow<'static, str>,
    /// What is wrong and what would be right.
    pub problem: String,
    /// Whether the field is right but not offered, because it has no price.
    pub unsupported: bool,
}

/// What is asked of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CallKind {
    /// Words.
    #[default]
    Chat,
    /// Vectors.
    Embeddings,
}

impl CallKind {
    /// What the use is metered as.
    pub(super) const fn meter(self) -> Meter {
        match self {
            Self::Chat => Meter::Chat,
            Self::Embeddings => Meter::Embeddings,
        }
    }
}

/// A request, read.
#[derive(Clone, Debug)]
pub struct ChatCall {
    /// What is asked for.
    pub kind: CallKind,
    /// In whose words the request came, and the answer goes.
    pub dialect: Dialect,
    /// Which router decides who answers.
    pub routing: Routing,
    /// The model, as the client named it; none leaves the choice to the tier.
    pub model: Option<String>,
    /// Whether the answer is to come in pieces.
    pub streaming: bool,
    /// Whether a stream is to end with its usage.
    pub include_usage: bool,
    /// The most tokens of each answer, if the client said so, and in which field.
    pub max_tokens: Option<(u64, MaxTokensField)>,
    /// How many answers.
    pub choices: u64,
    /// Everything else, as it came: what goes to a provider of the same dialect.
    pub fields: Arc<RawObject>,
    /// The same request said without tools, for a model that calls none.
    pub in_words: Option<Arc<RawObject>>,
    /// Anthropic's betas, as the client named them: comma-separated, printable ASCII.
    pub betas: Option<String>,
    /// No tokenizer counts more for the prompt, its pictures apart.
    pub prompt_max_tokens: u64,
    /// How many pictures the prompt has; what each counts at most depends on the model.
    pub images: u64,
    /// What the prompt most likely has, its pictures included.
    pub prompt_about_tokens: u64,
}

impl ChatCall {
    /// Reads and checks a request.
    ///
    /// # Errors
    /// [`BadRequest`], naming the field.
    pub fn read(mut body: RawObject) -> Result<Self, BadRequest> {
        let model = read_model(&body)?;
        let max_tokens = read_max_tokens(&body)?;
        let choices = whole(&body, "n", 1, CHOICES_MAX)?.unwrap_or(1);
        let streaming = typed::<bool>(&body, "stream", "true or false")?.unwrap_or(false);
        let include_usage = read_stream_options(&body, streaming)?;
        refuse_unpriced(&body)?;
        check_sampling(&body)?;
        let mut prompt = measure_messages(&body)?;
        check_tools(&body)?;
        for field in ["tools", "functions", "response_format"] {
            let text = body.given(field).unwrap_or_default();
            prompt.add_text(text, text.len());
        }
        for field in ["model", "stream", "max_tokens", "max_completion_tokens"] {
            body.remove(field);
        }
        Ok(Self {
            kind: CallKind::Chat,
            dialect: Dialect::OpenAi,
            routing: Routing::default(),
            model,
            streaming,
            include_usage,
            max_tokens,
            choices,
            fields: Arc::new(body),
            in_words: None,
            betas: None,
            prompt_max_tokens: prompt.most + ANSWER_FRAME_TOKENS,
            images: prompt.images,
            prompt_about_tokens: prompt.likely + ANSWER_FRAME_TOKENS,
        })
    }

    /// The same call, which a model that calls no tools gets as `words`. What is held covers either.
    #[must_use]
    pub fn or_in_words(self, words: Self) -> Self {
        Self {
            prompt_max_tokens: self.prompt_max_tokens.max(words.prompt_max_tokens),
            images: self.images.max(words.images),
            prompt_about_tokens: self.prompt_about_tokens.max(words.prompt_about_tokens),
            in_words: Some(words.fields),
            ..self
        }
    }

    /// Whether the model is told about tools, or held to a schema.
    pub(super) fn offers_tools(&self) -> bool {
        ["tools", "functions", "response_format"].iter().any(|field| self.fields.given(field).is_some())
    }

    /// The field the answer's limit goes upstream in: what a client of OpenAI's dialect called it, else what the model
    /// takes.
    #[must_use]
    pub fn max_tokens_field(&self, model: &str) -> MaxTokensField {
        match (self.dialect, &self.routing, self.max_tokens) {
            (Dialect::OpenAi, Routing::ByLicence, Some((_, field))) => field,
            (Dialect::OpenAi | Dialect::Anthropic, _, _) => default_field(model),
        }
    }
}

/// Reasoning models refuse the older name; compatible backends may not know the newer one.
fn default_field(model: &str) -> MaxTokensField {
    let model = model.strip_prefix("ft:").unwrap_or(model);
    let digit_after = |beginning: &str| {
        let next = model.strip_prefix(beginning).and_then(|rest| rest.bytes().next());
        next.filter(u8::is_ascii_digit)
    };
    let reasoning = digit_after("gpt-").is_some_and(|digit| digit >= b'5') || digit_after("o").is_some();
    if reasoning { MaxTokensField::MaxCompletionTokens } else { MaxTokensField::MaxTokens }
}

/// Whether this can be a model's name: short, and of printable characters, because it is recorded.
pub(crate) fn is_model_name(model: &str) -> bool {
    !model.is_empty() && model.len() <= MODEL_MAX_BYTES && !model.chars().any(char::is_control)
}

pub(super) fn read_model(body: &RawObject) -> Result<Option<String>, BadRequest> {
    let Some(model) = typed::<String>(body, "model", "the name of a model")? else { return Ok(None) };
    if is_model_name(&model) {
        Ok(Some(model))
    } else {
        Err(wrong("model", "must be the name of a model; GET /v1/models lists them"))
    }
}

fn read_max_tokens(body: &RawObject) -> Result<Option<(u64, MaxTokensField)>, BadRequest> {
    let older = whole(body, "max_tokens", 1, MAX_TOKENS_LIMIT)?;
    let newer = whole(body, "max_completion_tokens", 1, MAX_TOKENS_LIMIT)?;
    match (older, newer) {
        (Some(_), Some(_)) => {
            Err(wrong("max_tokens", "cannot be sent together with max_completion_tokens: send one of them"))
        }
        (Some(limit), None) => Ok(Some((limit, MaxTokensField::MaxTokens))),
        (None, Some(limit)) => Ok(Some((limit, MaxTokensField::MaxCompletionTokens))),
        (None, None) => Ok(None),
    }
}

fn read_stream_options(body: &RawObject, streaming: bool) -> Result<bool, BadRequest> {
    #[derive(Default, Deserialize)]
    struct StreamOptions {
        #[serde(default)]
        include_usage: Option<bool>,
    }
    let options: Option<StreamOptions> = typed(body, "stream_options", "an object such as {\"include_usage\": true}")?;
    match options {
        Some(_) if !streaming => {
            Err(wrong("stream_options", "is only for streams: set stream to true or leave it out"))
        }
        options => Ok(options.and_then(|options| options.include_usage).unwrap_or(false)),
    }
}

fn refuse_unpriced(body: &RawObject) -> Result<(), BadRequest> {
    for (param, problem) in UNPRICED {
        if body.given(param).is_some() {
            return Err(unsupported(param, problem));
        }
    }
    if let Some(tier) = typed::<String>(body, "service_tier", "text")?
        && !matches!(tier.as_str(), "auto" | "default")
    {
        return Err(unsupported(
            "service_tier",
            "only the default service tier has a price here: leave service_tier out",
        ));
    }
    let modalities: Vec<String> = typed(body, "modalities", "a list such as [\"text\"]")?.unwrap_or_default();
    if modalities.iter().any(|modality| modality != "text") {
        return Err(unsupported("modalities", "only text has a price here: leave modalities out"));
    }
    Ok(())
}

fn check_sampling(body: &RawObject) -> Result<(), BadRequest> {
    within(body, "temperature", 0.0, 2.0)?;
    within(body, "top_p", 0.0, 1.0)?;
    within(body, "presence_penalty", -2.0, 2.0)?;
    within(body, "frequency_penalty", -2.0, 2.0)?;
    typed::<i64>(body, "seed", "a whole number")?;
    typed::<bool>(body, "logprobs", "true or false")?;
    whole(body, "top_logprobs", 0, 20)?;
    typed::<HashMap<Cow<'_, str>, f64>>(body, "logit_bias", "an object of token ids and biases")?;
    typed::<Cow<'_, str>>(body, "user", "text")?;
    typed::<HashMap<Cow<'_, str>, &RawValue>>(body, "response_format", "an object")?;
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stop {
        One(#[expect(dead_code, reason = "only its type is checked")] String),
        Many(Vec<String>),
    }
    match typed::<Stop>(body, "stop", "text or a list of texts")? {
        Some(Stop::Many(stops)) if stops.len() > STOP_MAX => {
            Err(wrong("stop", &format!("has {STOP_MAX} texts at most")))
        }
        Some(Stop::One(_) | Stop::Many(_)) | None => Ok(()),
    }
}

fn check_tools(body: &RawObject) -> Result<(), BadRequest> {
    #[derive(Deserialize)]
    struct Tool<'a> {
        #[serde(borrow, default)]
        r#type: Option<Cow<'a, str>>,
    }
    let tools: Vec<Tool<'_>> = typed(body, "tools", "a list of tools")?.unwrap_or_default();
    for (index, tool) in tools.iter().enumerate() {
        match tool.r#type.as_deref() {
            Some("function" | "custom") => {}
            Some(other) => {
                let problem = format!("the tool {other} runs at the provider and has no price here: send functions");
                return Err(unsupported(format!("tools[{index}].type"), &problem));
            }
            None => return Err(wrong(format!("tools[{index}].type"), "is missing: it is \"function\"")),
        }
    }
    Ok(())
}

type MessageFields<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// How large a prompt is.
#[derive(Default)]
pub(super) struct Measured {
    /// The most tokens its text can have.
    pub(super) most: u64,
    /// The likely number of tokens, pictures included.
    pub(super) likely: u64,
    /// Pictures.
    pub(super) images: u64,
}

impl Measured {
    /// `shown_bytes` is what of the JSON text the model gets to see.
    pub(super) fn add_text(&mut self, json: &str, shown_bytes: usize) {
        self.most += at_most(json.as_bytes());
        self.likely += about(shown_bytes as u64);
    }

    /// A JSON string, which its quotes are no part of.
    pub(super) fn add_string(&mut self, json: &str) {
        self.add_text(json, json.len().saturating_sub(2));
    }

    pub(super) fn add_image(&mut self) {
        self.images += 1;
        self.likely += IMAGE_ABOUT_TOKENS;
    }
}

/// Checks the messages and measures them.
fn measure_messages(body: &RawObject) -> Result<Measured, BadRequest> {
    let Some(messages) = typed::<Vec<&RawValue>>(body, "messages", "a list of messages")? else {
        return Err(wrong("messages", "is missing: it is a list of messages, each with a role and its content"));
    };
    if messages.is_empty() {
        return Err(wrong("messages", "is empty: send at least one message"));
    }
    if messages.len() > MESSAGES_MAX {
        return Err(wrong("messages", &format!("has {MESSAGES_MAX} messages at most")));
    }
    let mut prompt = Measured::default();
    for (index, message) in messages.into_iter().enumerate() {
        measure_message(index, message, &mut prompt)?;
    }
    Ok(prompt)
}

fn measure_message(index: usize, message: &RawValue, prompt: &mut Measured) -> Result<(), BadRequest> {
    let at = |field: &str| format!("messages[{index}]{field}");
    let fields: MessageFields<'_> = serde_json::from_str(message.get())
        .map_err(|_| wrong(at(""), "is no message: it is an object with a role and its content"))?;
    let role = fields.get("role").and_then(|role| serde_json::from_str::<Cow<'_, str>>(role.get()).ok());
    let Some(role) = role.filter(|role| ROLES.contains(&role.as_ref())) else {
        return Err(wrong(at(".role"), &format!("must be one of {}", ROLES.join(", "))));
    };
    prompt.most += MESSAGE_FRAME_TOKENS;
    prompt.likely += MESSAGE_FRAME_TOKENS;
    for (name, value) in &fields {
        let text = value.get();
        match name.as_ref() {
            "role" => {}
            "content" if text.starts_with('[') => measure_parts(index, text, prompt)?,
            "content" if text.starts_with('"') || text == "null" && role == "assistant" => prompt.add_string(text),
            "content" => return Err(wrong(at(".content"), "must be text or a list of parts")),
            "audio" if text != "null" => return Err(unsupported(at(".audio"), "audio has no price here")),
            _ => prompt.add_text(text, text.len()),
        }
    }
    if !fields.contains_key("content") && role != "assistant" {
        return Err(wrong(at(".content"), "is missing: it is text or a list of parts"));
    }
    Ok(())
}

fn measure_parts(index: usize, text: &str, prompt: &mut Measured) -> Result<(), BadRequest> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
        #[serde(borrow, default)]
        text: Option<&'a RawValue>,
        #[serde(borrow, default)]
        refusal: Option<&'a RawValue>,
    }
    let at = |part: &str| format!("messages[{index}].content{part}");
    let parts: Vec<Part<'_>> = serde_json::from_str(text)
        .map_err(|_| wrong(at(""), "is no list of parts: each is an object with a type, such as text"))?;
    for (place, part) in parts.iter().enumerate() {
        let kind = part.r#type.as_ref();
        let words = match kind {
            "text" => part.text,
            "refusal" => part.refusal,
            "image_url" => {
                prompt.add_image();
                continue;
            }
            other => {
                let problem = format!("a part of type {other} has no price here: send text or image_url");
                return Err(unsupported(at(&format!("[{place}].type")), &problem));
            }
        };
        match words {
            Some(words) if words.get().starts_with('"') => prompt.add_string(words.get()),
            Some(_) | None => return Err(wrong(at(&format!("[{place}].{kind}")), "must be text")),
        }
    }
    Ok(())
}

pub(super) fn typed<'a, T: Deserialize<'a>>(
    body: &'a RawObject,
    name: &'static str,
    right: &str,
) -> Result<Option<T>, BadRequest> {
    body.parse(name).map_err(|_| wrong(name, &format!("must be {right}")))
}

pub(super) fn whole(body: &RawObject, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, BadRequest> {
    let right = || wrong(name, &format!("must be a whole number from {least} to {most}"));
    let number: Option<u64> = body.parse(name).map_err(|_| right())?;
    match number {
        Some(number) if !(least..=most).contains(&number) => Err(right()),
        number => Ok(number),
    }
}

pub(super) fn within(body: &RawObject, name: &'static str, least: f64, most: f64) -> Result<(), BadRequest> {
    let right = || wrong(name, &format!("must be a number from {least} to {most}"));
    let number: Option<f64> = body.parse(name).map_err(|_| right())?;
    if number.is_none_or(|number| (least..=most).contains(&number)) { Ok(()) } else { Err(right()) }
}

pub(super) fn wrong(param: impl Into<Cow<'static, str>>, problem: &str) -> BadRequest {
    let param = param.into();
    let problem = format!("{param} {problem}");
    BadRequest { param, problem, unsupported: false }
}

pub(super) fn unsupported(param: impl Into<Cow<'static, str>>, problem: &str) -> BadRequest {
    BadRequest { param: param.into(), problem: problem.to_owned(), unsupported: true }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
