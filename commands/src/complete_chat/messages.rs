//! Reads a request in Anthropic's dialect: what CALOS must know is checked, the rest is kept as it came.
//!
//! As in [`super::request`], what changes the price is priced or refused. Tools that run at the provider, files in the
//! platform's account and documents whose tokens nobody can bound are refused; caching, for minutes or an hour, has a
//! price.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Routing;
use super::request::{
    BadRequest, CallKind, ChatCall, MAX_TOKENS_LIMIT, MESSAGES_MAX, Measured, read_model, typed, unsupported, whole,
    within, wrong,
};
use crate::provider::{Dialect, MaxTokensField};
use crate::raw_object::RawObject;
use crate::tokens::{ANSWER_FRAME_TOKENS, MESSAGE_FRAME_TOKENS};

/// Who may speak in a prompt; what stands above the conversation has a field of its own, `system`.
const ROLES: [&str; 3] = ["user", "assistant", "system"];

/// The least thinking a model can be asked for.
const THINKING_MIN_TOKENS: u64 = 1_024;

/// What the provider itself says to a model with tools, or held to a schema, at most; Anthropic documents 313 to 804.
pub(super) const TOOLS_FRAME_MAX_TOKENS: u64 = 1_024;

/// What it most likely says.
pub(super) const TOOLS_FRAME_ABOUT_TOKENS: u64 = 346;

/// Tools that Anthropic describes and the client runs, by the beginning of their type. Their descriptions are within
/// [`TOOLS_FRAME_MAX_TOKENS`] each.
const DESCRIBED_TOOLS: [&str; 3] = ["bash_", "text_editor_", "memory_"];

/// Edits of a context that only take away from it, by the beginning of their type.
const CLEARING_EDITS: &str = "clear_";

/// What costs extra at the provider, or belongs to the account the platform has there.
const UNPRICED: [(&str, &str); 5] = [
    ("mcp_servers", "what the provider does with MCP servers has no price here: leave mcp_servers out"),
    ("container", "code that runs at the provider has no price here: leave container out"),
    ("inference_geo", "a region of one's own has no price here: leave inference_geo out"),
    ("diagnostics", "diagnostics compare with other calls of the account, which is shared: leave diagnostics out"),
    ("user_profile_id", "profiles belong to the account, which is shared: leave user_profile_id out"),
];

impl ChatCall {
    /// Reads and checks a request for a message.
    ///
    /// # Errors
    /// [`BadRequest`], naming the field.
    pub fn read_messages(mut body: RawObject) -> Result<Self, BadRequest> {
        let model = read_model(&body)?;
        let Some(max_tokens) = whole(&body, "max_tokens", 1, MAX_TOKENS_LIMIT)? else {
            return Err(wrong("max_tokens", "is missing: it is the most tokens the answer may have"));
        };
        let streaming = typed::<bool>(&body, "stream", "true or false")?.unwrap_or(false);
        check_sampling(&body)?;
        check_thinking(&body, max_tokens)?;
        let prompt = measure(&body)?;
        for field in ["model", "stream", "max_tokens"] {
            body.remove(field);
        }
        Ok(Self {
            kind: CallKind::Chat,
            dialect: Dialect::Anthropic,
            routing: Routing::default(),
            model,
            streaming,
            include_usage: false,
            max_tokens: Some((max_tokens, MaxTokensField::MaxTokens)),
            choices: 1,
            fields: Arc::new(body),
            in_words: None,
            betas: None,
            prompt_max_tokens: prompt.most + ANSWER_FRAME_TOKENS,
            images: prompt.images,
            prompt_about_tokens: prompt.likely + ANSWER_FRAME_TOKENS,
        })
    }
}

impl ChatCall {
    /// Whether Claude is asked to think: what it shows of that is a summary, or nothing, of what is charged.
    pub(super) fn asks_to_think(&self) -> bool {
        let thinking: Option<Thinking> = self.fields.lenient("thinking");
        thinking.is_some_and(|thinking| thinking.r#type != "disabled")
    }
}

/// The likely number of tokens of a request for a message, which needs no limit for its answer.
///
/// # Errors
/// [`BadRequest`], naming the field.
pub(super) fn about_message_tokens(body: &RawObject) -> Result<u64, BadRequest> {
    read_model(body)?;
    measure(body).map(|prompt| prompt.likely + ANSWER_FRAME_TOKENS)
}

fn measure(body: &RawObject) -> Result<Measured, BadRequest> {
    refuse_unpriced(body)?;
    let mut prompt = Measured::default();
    measure_tools(body, &mut prompt)?;
    measure_system(body, &mut prompt)?;
    measure_messages(body, &mut prompt)?;
    for field in ["output_config", "output_format"] {
        if let Some(format) = body.given(field) {
            prompt.add_text(format, format.len());
            frame(&mut prompt);
        }
    }
    Ok(prompt)
}

fn frame(prompt: &mut Measured) {
    prompt.most += TOOLS_FRAME_MAX_TOKENS;
    prompt.likely += TOOLS_FRAME_ABOUT_TOKENS;
}

fn refuse_unpriced(body: &RawObject) -> Result<(), BadRequest> {
    for (param, problem) in UNPRICED {
        if body.given(param).is_some() {
            return Err(unsupported(param, problem));
        }
    }
    check_context_management(body)?;
    let only = |param: &'static str, allowed: &[&str], problem: &str| {
        let given = typed::<Cow<'_, str>>(body, param, "text")?;
        let fits = given.is_none_or(|given| allowed.contains(&given.as_ref()));
        if fits { Ok(()) } else { Err(unsupported(param, problem)) }
    };
    let tier = "only the ordinary service tier has a price here: set service_tier to auto, or leave it out";
    only("service_tier", &["auto", "standard_only"], tier)?;
    only("speed", &["standard"], "only the standard speed has a price here: leave speed out")
}

/// Clearing what a model need not read again makes a call cheaper. Anything else the provider does to a context may take
/// tokens of its own, which its report does not count among the answer's.
fn check_context_management(body: &RawObject) -> Result<(), BadRequest> {
    #[derive(Deserialize)]
    struct Management {
        #[serde(default)]
        edits: Vec<Edit>,
    }
    #[derive(Deserialize)]
    struct Edit {
        r#type: String,
    }
    let right = "an object such as {\"edits\": [{\"type\": \"clear_tool_uses_20250919\"}]}";
    let Some(management) = typed::<Management>(body, "context_management", right)? else { return Ok(()) };
    for (index, edit) in management.edits.iter().enumerate() {
        if !edit.r#type.starts_with(CLEARING_EDITS) {
            let problem = format!("the edit {} has no price here: send edits that clear", edit.r#type);
            return Err(unsupported(format!("context_management.edits[{index}].type"), &problem));
        }
    }
    Ok(())
}

fn check_sampling(body: &RawObject) -> Result<(), BadRequest> {
    within(body, "temperature", 0.0, 1.0)?;
    within(body, "top_p", 0.0, 1.0)?;
    whole(body, "top_k", 0, MAX_TOKENS_LIMIT)?;
    typed::<Vec<Cow<'_, str>>>(body, "stop_sequences", "a list of texts")?;
    typed::<HashMap<Cow<'_, str>, &RawValue>>(body, "metadata", "an object such as {\"user_id\": \"…\"}")?;
    typed::<HashMap<Cow<'_, str>, &RawValue>>(body, "tool_choice", "an object such as {\"type\": \"auto\"}")?;
    Ok(())
}

#[derive(Deserialize)]
struct Thinking {
    r#type: String,
    #[serde(default)]
    budget_tokens: Option<u64>,
}

fn check_thinking(body: &RawObject, max_tokens: u64) -> Result<(), BadRequest> {
    let right = "an object such as {\"type\": \"enabled\", \"budget_tokens\": 1024}";
    let Some(thinking) = typed::<Thinking>(body, "thinking", right)? else { return Ok(()) };
    match (thinking.r#type.as_str(), thinking.budget_tokens) {
        ("enabled", None) => Err(wrong("thinking.budget_tokens", "is missing: say how much may be thought")),
        (_, Some(budget)) if budget < THINKING_MIN_TOKENS || budget >= max_tokens => Err(wrong(
            "thinking.budget_tokens",
            &format!("must be {THINKING_MIN_TOKENS} at least and less than max_tokens, which it is part of"),
        )),
        (_, _) => Ok(()),
    }
}

fn measure_tools(body: &RawObject, prompt: &mut Measured) -> Result<(), BadRequest> {
    #[derive(Deserialize)]
    struct Tool<'a> {
        #[serde(borrow, default)]
        r#type: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        name: Option<Cow<'a, str>>,
    }
    let tools: Vec<Tool<'_>> = typed(body, "tools", "a list of tools")?.unwrap_or_default();
    for (index, tool) in tools.iter().enumerate() {
        match tool.r#type.as_deref() {
            None | Some("custom") if tool.name.is_some() => {}
            None | Some("custom") => return Err(wrong(format!("tools[{index}].name"), "is missing")),
            Some(kind) if DESCRIBED_TOOLS.iter().any(|described| kind.starts_with(described)) => frame(prompt),
            Some(other) => {
                let problem = format!("the tool {other} has no price here: send tools that you run yourself");
                return Err(unsupported(format!("tools[{index}].type"), &problem));
            }
        }
    }
    if !tools.is_empty() {
        let text = body.given("tools").unwrap_or_default();
        prompt.add_text(text, text.len());
        frame(prompt);
    }
    Ok(())
}

fn measure_system(body: &RawObject, prompt: &mut Measured) -> Result<(), BadRequest> {
    match body.given("system") {
        None => Ok(()),
        Some(text) if text.starts_with('"') => {
            prompt.add_string(text);
            Ok(())
        }
        Some(text) if text.starts_with('[') => measure_blocks("system", text, &["text"], prompt),
        Some(_) => Err(wrong("system", "must be text or a list of text blocks")),
    }
}

fn measure_messages(body: &RawObject, prompt: &mut Measured) -> Result<(), BadRequest> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow, default)]
        role: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
    }
    let Some(messages) = typed::<Vec<&RawValue>>(body, "messages", "a list of messages")? else {
        return Err(wrong("messages", "is missing: it is a list of messages, each with a role and its content"));
    };
    if messages.is_empty() {
        return Err(wrong("messages", "is empty: send at least one message"));
    }
    if messages.len() > MESSAGES_MAX {
        return Err(wrong("messages", &format!("has {MESSAGES_MAX} messages at most")));
    }
    for (index, message) in messages.into_iter().enumerate() {
        let at = |field: &str| format!("messages[{index}]{field}");
        let message: Message<'_> = serde_json::from_str(message.get())
            .map_err(|_| wrong(at(""), "is no message: it is an object with a role and its content"))?;
        if !message.role.is_some_and(|role| ROLES.contains(&role.as_ref())) {
            return Err(wrong(at(".role"), "must be user or assistant; a system prompt stands in system"));
        }
        prompt.most += MESSAGE_FRAME_TOKENS;
        prompt.likely += MESSAGE_FRAME_TOKENS;
        match message.content.map(RawValue::get) {
            Some(text) if text.starts_with('"') => prompt.add_string(text),
            Some(text) if text.starts_with('[') => measure_blocks(&at(".content"), text, &BLOCKS, prompt)?,
            Some(_) => return Err(wrong(at(".content"), "must be text or a list of blocks")),
            None => return Err(wrong(at(".content"), "is missing: it is text or a list of blocks")),
        }
    }
    Ok(())
}

/// What a message is made of.
const BLOCKS: [&str; 7] = ["text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking"];

/// What a tool gives back is made of.
const RESULT_BLOCKS: [&str; 3] = ["text", "image", "document"];

/// What a document given in blocks is made of.
const DOCUMENT_BLOCKS: [&str; 2] = ["text", "image"];

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<Source<'a>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    title: Option<&'a RawValue>,
    #[serde(borrow, default)]
    context: Option<&'a RawValue>,
    #[serde(borrow, default)]
    citations: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

fn measure_blocks(at: &str, text: &str, allowed: &[&str], prompt: &mut Measured) -> Result<(), BadRequest> {
    let blocks: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|_| wrong(at.to_owned(), "must be a list of blocks"))?;
    for (place, raw) in blocks.into_iter().enumerate() {
        let at = format!("{at}[{place}]");
        let block: Block<'_> = serde_json::from_str(raw.get())
            .map_err(|_| wrong(at.clone(), "is no block: it is an object with a type, such as text"))?;
        if !allowed.contains(&block.r#type.as_ref()) {
            let problem = format!("a block of type {} is not offered here: send {}", block.r#type, allowed.join(", "));
            return Err(unsupported(format!("{at}.type"), &problem));
        }
        measure_block(&at, raw.get(), &block, prompt)?;
    }
    Ok(())
}

fn measure_block(at: &str, raw: &str, block: &Block<'_>, prompt: &mut Measured) -> Result<(), BadRequest> {
    match block.r#type.as_ref() {
        "text" => {
            let words = block.text.map(RawValue::get).filter(|words| words.starts_with('"'));
            prompt.add_string(words.ok_or_else(|| wrong(format!("{at}.text"), "must be text"))?);
            add_all(prompt, [block.citations]);
            Ok(())
        }
        "image" => match block.source.as_ref().map(|source| source.r#type.as_ref()) {
            Some("base64" | "url") => {
                prompt.add_image();
                Ok(())
            }
            Some("file") => Err(files_are_shared(at)),
            Some(_) | None => Err(wrong(format!("{at}.source"), "must be a source of the type base64 or url")),
        },
        "document" => measure_document(at, block, prompt),
        "tool_result" => {
            prompt.most += MESSAGE_FRAME_TOKENS;
            prompt.likely += MESSAGE_FRAME_TOKENS;
            measure_content(&format!("{at}.content"), block.content, &RESULT_BLOCKS, prompt)
        }
        // What a model called, or thought, goes back as it came, signatures included.
        _ => {
            prompt.add_text(raw, raw.len());
            Ok(())
        }
    }
}

/// Text has tokens that its bytes bound; pages have not.
fn measure_document(at: &str, block: &Block<'_>, prompt: &mut Measured) -> Result<(), BadRequest> {
    #[derive(Default, Deserialize)]
    struct Citations {
        #[serde(default)]
        enabled: Option<bool>,
    }
    let citations: Option<Citations> = block.citations.and_then(|given| serde_json::from_str(given.get()).ok());
    if citations.and_then(|citations| citations.enabled) == Some(true) {
        let problem = "documents that are cited count more tokens than can be told before: leave citations out";
        return Err(unsupported(format!("{at}.citations"), problem));
    }
    add_all(prompt, [block.title, block.context]);
    let source = block.source.as_ref();
    match source.map(|source| source.r#type.as_ref()) {
        Some("text") => {
            add_all(prompt, [source.and_then(|source| source.data)]);
            Ok(())
        }
        Some("content") => {
            let content = source.and_then(|source| source.content);
            measure_content(&format!("{at}.source.content"), content, &DOCUMENT_BLOCKS, prompt)
        }
        Some("file") => Err(files_are_shared(at)),
        Some(_) => {
            let problem = "the pages of a document count more tokens than can be told before: send its text, as a \
                           source of the type text";
            Err(unsupported(format!("{at}.source.type"), problem))
        }
        None => Err(wrong(format!("{at}.source"), "is missing")),
    }
}

fn files_are_shared(at: &str) -> BadRequest {
    let problem = "files belong to the provider's account, which is shared: send the data itself";
    unsupported(format!("{at}.source.type"), problem)
}

fn measure_content(
    at: &str,
    content: Option<&RawValue>,
    allowed: &[&str],
    prompt: &mut Measured,
) -> Result<(), BadRequest> {
    match content.map(RawValue::get) {
        None | Some("null") => Ok(()),
        Some(text) if text.starts_with('"') => {
            prompt.add_string(text);
            Ok(())
        }
        Some(text) => measure_blocks(at, text, allowed, prompt),
    }
}

fn add_all<const N: usize>(prompt: &mut Measured, texts: [Option<&RawValue>; N]) {
    for text in texts.into_iter().flatten().map(RawValue::get).filter(|text| *text != "null") {
        prompt.add_text(text, text.len());
    }
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
