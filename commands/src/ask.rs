//! `/api/chat/complete`: a question in a person's words, answered by whoever its task, its asker's wishes and the
//! wallet lead to.
//!
//! [`Asking`] is the question as it came, [`Ask`] the same question read: what the task router is asked, and the
//! `chat.completions` request behind it. [`Asker`] makes one round of it, messages in, answer out, held for and charged
//! by itself: it is asked once for a plain answer, and once a round by [`crate::tool_loop`].

use std::borrow::Cow;

use calos_domain::TenantId;
use calos_domain::routing::task::TaskAsked;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::complete_chat::{
    BadRequest, ChatAnswer, ChatCall, ChatCaller, ChatFailure, ChatStream, ClaimAnswer, Gateway, MESSAGES_MAX, Routing,
    is_model_name,
};
use crate::log::{Boxed, EventLog};
use crate::raw_object::RawObject;
use crate::tool_loop::{ClaimRound, FETCH_WEB, Rounds};

/// The most tools one question may offer.
pub const TOOLS_MAX: usize = 64;

/// What a tool without parameters of its own takes.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

/// A question as it came.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// The question; or else `messages`.
    pub prompt: Option<String>,
    /// The conversation so far, as `chat.completions` has it; or else `prompt`.
    pub messages: Option<Vec<Box<RawValue>>>,
    /// How to behave; comes before everything else.
    pub system_prompt: Option<String>,
    /// What the router goes by.
    pub wish: TaskAsked,
    /// The most tokens of the answer.
    pub max_tokens: Option<u64>,
    /// How freely the model chooses its words, 0 to 2.
    pub temperature: Option<f64>,
    /// Tools the model may call: `{name, description, parameters}`, or as `chat.completions` has them.
    pub tools: Vec<Box<RawValue>>,
    /// Whether the answer is to come in pieces.
    pub streaming: bool,
}

/// A question, read.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What the router goes by.
    pub wish: TaskAsked,
    /// The request behind it: what [`crate::tool_loop::WebReader::converse`] takes.
    pub body: RawObject,
    /// Whether the answer is to come in pieces.
    pub streaming: bool,
    /// Whether the model may read web pages on the way.
    pub reads_web: bool,
}

impl Asking {
    /// Reads and checks a question.
    ///
    /// # Errors
    /// [`BadRequest`], naming the field as the question has it.
    pub fn read(self) -> Result<Ask, BadRequest> {
        let mut messages = match (self.prompt, self.messages) {
            (Some(prompt), None) if prompt.trim().is_empty() => return Err(wrong("prompt", "is empty: ask something")),
            (Some(prompt), None) => vec![message("user", &prompt)?],
            (None, Some(messages)) => messages,
            (Some(_), Some(_)) => {
                return Err(wrong("prompt", "cannot be sent together with messages: send one of them"));
            }
            (None, None) => return Err(wrong("prompt", "is missing: send a prompt, or a conversation as messages")),
        };
        if self.wish.model.as_deref().is_some_and(|model| !is_model_name(model)) {
            return Err(wrong("model", "must be the name of a model; GET /v1/models lists them"));
        }
        if messages.len() > MESSAGES_MAX {
            return Err(wrong("messages", &format!("has {MESSAGES_MAX} messages at most")));
        }
        if let Some(system) = self.system_prompt.filter(|system| !system.trim().is_empty()) {
            messages.insert(0, message("system", &system)?);
        }
        if self.tools.len() > TOOLS_MAX {
            return Err(wrong("tools", &format!("has {TOOLS_MAX} tools at most")));
        }
        let tools = self.tools.iter().enumerate().map(|(index, tool)| read_tool(index, tool));
        let tools = tools.collect::<Result<Vec<Tool>, BadRequest>>()?;
        let reads_web = tools.iter().any(|tool| tool.name == FETCH_WEB);
        let mut body = RawObject::default();
        set(&mut body, "messages", &messages)?;
        if let Some(temperature) = self.temperature {
            set(&mut body, "temperature", &temperature)?;
        }
        if let Some(limit) = self.max_tokens {
            set(&mut body, "max_tokens", &limit)?;
        }
        if !tools.is_empty() {
            let definitions: Vec<_> = tools.into_iter().map(|tool| tool.definition).collect();
            set(&mut body, "tools", &definitions)?;
        }
        if self.streaming {
            set(&mut body, "stream", &true)?;
            set(&mut body, "stream_options", &json!({"include_usage": true}))?;
        }
        Ok(Ask { wish: self.wish, body, streaming: self.streaming, reads_web })
    }
}

impl Ask {
    /// The question as one call, for an answer in one round.
    ///
    /// # Errors
    /// [`BadRequest`], naming the field as the question has it.
    pub fn call(&self) -> Result<ChatCall, BadRequest> {
        ChatCall::read(self.body.clone()).map_err(in_own_words)
    }
}

/// The fields a question calls otherwise than `chat.completions` does.
#[must_use]
pub fn in_own_words(refusal: BadRequest) -> BadRequest {
    if refusal.param == "max_tokens" {
        let problem = refusal.problem.replace("max_tokens", "maxTokens");
        return BadRequest { param: Cow::Borrowed("maxTokens"), problem, ..refusal };
    }
    refusal
}

/// One who asks, with what the router goes by.
#[derive(Clone, Debug)]
pub struct Asker<L> {
    gateway: Gateway<L>,
    caller: ChatCaller,
    wish: TaskAsked,
}

impl<L: EventLog> Asker<L> {
    /// Asks in the name of `caller`.
    #[must_use]
    pub fn new(gateway: Gateway<L>, caller: ChatCaller, wish: TaskAsked) -> Self {
        Self { gateway, caller, wish }
    }

    /// One round: an answer, charged.
    ///
    /// # Errors
    /// [`ChatFailure`]; nothing is charged then.
    pub async fn round(&self, call: ChatCall, claim: ClaimAnswer) -> Result<ChatAnswer, ChatFailure> {
        self.gateway.complete(self.caller.clone(), self.routed(call), claim).await
    }

    /// One round in pieces.
    ///
    /// # Errors
    /// [`ChatFailure`] for whatever happens before the first piece; nothing is charged then.
    pub async fn stream(&self, call: ChatCall) -> Result<ChatStream, ChatFailure> {
        self.gateway.stream(self.caller.clone(), self.routed(call)).await
    }

    fn routed(&self, call: ChatCall) -> ChatCall {
        ChatCall { routing: Routing::ByTask(self.wish.clone()), model: None, ..call }
    }
}

impl<L: EventLog> Rounds for Asker<L> {
    type Answer = ChatAnswer;
    type Failure = ChatFailure;

    fn tenant(&self) -> TenantId {
        self.caller.tenant_id
    }

    fn ask(&self, call: ChatCall, claim: ClaimRound<ChatAnswer>) -> Boxed<'_, Result<ChatAnswer, ChatFailure>> {
        Box::pin(self.round(call, claim))
    }
}

/// A tool, as models are offered it.
struct Tool {
    name: String,
    definition: Value,
}

/// Reads a tool in the question's own short form, or in that of `chat.completions`.
fn read_tool(index: usize, tool: &RawValue) -> Result<Tool, BadRequest> {
    #[derive(Deserialize)]
    struct Short {
        name: String,
        #[serde(default)]
        description: Option<String>,
        #[serde(default)]
        parameters: Option<Map<String, Value>>,
    }
    #[derive(Deserialize)]
    struct Long {
        function: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let at = |problem: &str| {
        let param = format!("tools[{index}]");
        let problem = format!("{param} {problem}");
        BadRequest { param: param.into(), problem, unsupported: false }
    };
    if let Ok(long) = serde_json::from_str::<Long>(tool.get()) {
        let definition = serde_json::from_str(tool.get()).map_err(|error| at(&format!("cannot be read: {error}")))?;
        return Ok(Tool { name: long.function.name, definition });
    }
    let short: Short = serde_json::from_str(tool.get())
        .map_err(|_| at("is no tool: it is {\"name\", \"description\", \"parameters\"}, all but the name optional"))?;
    let mut function = json!({"name": short.name, "parameters": schema(short.parameters).ok_or_else(|| {
        at("has parameters that cannot be read: name each with its type, such as {\"url\": \"string\"}, or send a JSON schema")
    })?});
    if let Some(description) = short.description {
        function["description"] = json!(description);
    }
    Ok(Tool { name: short.name, definition: json!({"type": "function", "function": function}) })
}

/// The JSON schema of parameters: as it came, or of the short form, which names the type of each. None for neither.
fn schema(parameters: Option<Map<String, Value>>) -> Option<Value> {
    let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) else {
        return serde_json::from_str(NO_PARAMETERS).ok();
    };
    if parameters.contains_key("properties") || parameters.contains_key("$ref") {
        return Some(Value::Object(parameters));
    }
    let property = |(name, kind): (&String, &Value)| match kind {
        Value::String(kind) => Some((name.clone(), json!({"type": kind}))),
        Value::Object(schema) => Some((name.clone(), Value::Object(schema.clone()))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    };
    let properties = parameters.iter().map(property).collect::<Option<Map<String, Value>>>()?;
    let required: Vec<&String> = parameters.keys().collect();
    Some(json!({"type": "object", "properties": properties, "required": required}))
}

fn message(role: &str, content: &str) -> Result<Box<RawValue>, BadRequest> {
    to_raw_value(&json!({"role": role, "content": content}))
        .map_err(|error| wrong("messages", &format!("cannot be written: {error}")))
}

fn set<T: Serialize + ?Sized>(body: &mut RawObject, name: &'static str, value: &T) -> Result<(), BadRequest> {
    body.set(name, value).map_err(|error| wrong(name, &format!("cannot be written: {error}")))
}

fn wrong(param: &'static str, problem: &str) -> BadRequest {
    BadRequest { param: Cow::Borrowed(param), problem: format!("{param} {problem}"), unsupported: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        to_raw_value(value).unwrap()
    }

    fn asking(prompt: &str) -> Asking {
        Asking { prompt: Some(prompt.to_owned()), ..Asking::default() }
    }

    fn body(asking: Asking) -> Value {
        serde_json::to_value(asking.read().unwrap().body).unwrap()
    }

    #[test]
    fn a_question_becomes_a_request() {
        let whole = Asking {
            system_prompt: Some("Be brief.".to_owned()),
            max_tokens: Some(500),
            temperature: Some(0.5),
            ..asking("Hello")
        };
        let expected = json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
            "temperature": 0.5, "max_tokens": 500});
        assert_eq!(body(whole.clone()), expected);
        assert_eq!(whole.read().unwrap().call().unwrap().max_tokens.map(|(limit, _)| limit), Some(500));
        let messages = vec![raw(&json!({"role": "user", "content": "Hello"}))];
        let streamed = Asking { messages: Some(messages), streaming: true, ..Asking::default() };
        assert!(streamed.read().unwrap().call().unwrap().include_usage);
    }

    #[test]
    fn what_cannot_be_asked_is_named_in_the_questions_own_terms() {
        let refused = |asking: Asking| asking.read().and_then(|ask| ask.call()).unwrap_err();
        assert_eq!(refused(Asking::default()).param, "prompt");
        assert_eq!(refused(asking(" \n")).param, "prompt");
        assert_eq!(refused(Asking { messages: Some(Vec::new()), ..asking("Hello") }).param, "prompt");
        assert_eq!(refused(Asking { messages: Some(Vec::new()), ..Asking::default() }).param, "messages");
        let zero = refused(Asking { max_tokens: Some(0), ..asking("Hello") });
        assert_eq!((zero.param.as_ref(), zero.problem.starts_with("maxTokens must")), ("maxTokens", true));
        assert_eq!(refused(Asking { temperature: Some(3.0), ..asking("Hello") }).param, "temperature");
        for tool in [json!(7), json!({}), json!({"name": "f", "parameters": {"url": 7}})] {
            assert_eq!(refused(Asking { tools: vec![raw(&tool)], ..asking("Hello") }).param, "tools[0]", "{tool}");
        }
    }

    #[test]
    fn tools_are_taken_in_the_short_form_and_in_that_of_the_models() {
        let short =
            json!({"name": "fetch_web", "description": "Fetch content from a URL", "parameters": {"url": "string"}});
        let long =
            json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}});
        let asking = Asking { tools: vec![raw(&short), raw(&long), raw(&json!({"name": "g"}))], ..asking("Hello") };
        assert!(asking.clone().read().unwrap().reads_web);
        let body = body(asking);
        let schema = json!({"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]});
        assert_eq!(body["tools"][0]["function"]["parameters"], schema);
        assert_eq!(body["tools"][0]["function"]["description"], "Fetch content from a URL");
        assert_eq!(body["tools"][1], long);
        assert_eq!(
            body["tools"][2]["function"],
            json!({"name": "g", "parameters": {"type": "object", "properties": {}}})
        );
    }
}
