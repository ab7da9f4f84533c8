//! `/api/chat/complete`: a question, answered by whoever its task, its asker's wishes and the wallet lead to. For a
//! session or a tenant key.

mod answer;
mod stream;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use calos_commands::ask::{Ask, Asker, Asking, in_own_words};
use calos_commands::complete_chat::{ChatAnswer, ChatCall, ChatCaller, ChatFailure};
use calos_commands::log::IdempotencyClaim;
use calos_commands::tool_loop::{Broken, Cause, Finished, KeepAnswer, total_micros};
use calos_domain::MicroUsd;
use calos_domain::routing::task::TaskAsked;

use crate::auth::{Caller, TenantCaller};
use crate::body::Room;
use crate::error::{ApiError, Code};
use crate::idempotency::{Answer, Claimer};
use crate::openapi::ErrorBody;
use crate::request::{ModelPost, RequestContext, off_the_loop};
use crate::routes::gateway::{Charged, limits, told};
use crate::wiring::App;
use answer::ChatText;

/// The endpoints.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(complete))
}

/// A question.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ChatQuestion)]
struct ChatBody {
    /// The question; or else `messages`.
    prompt: Option<String>,
    /// The conversation so far, each message with `role` and `content`; or else `prompt`.
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Vec<Box<RawValue>>>,
    /// How to behave; comes before everything else.
    system_prompt: Option<String>,
    /// `chat` (or `general`), `code`, `creative`, `reasoning`, `analytics`, `fact`, `summarization`, `moderation` or
    /// `triage`; left out, the persona's, else `chat`.
    task_type: Option<String>,
    /// `openai`, `anthropic`, `deepseek` or `ollama`. `ollama` is free, with any balance.
    preferred_provider: Option<String>,
    /// The model that should answer.
    model: Option<String>,
    /// `soulfra`, `deathtodata`, `saveorsink`, `roughsparks` or `codellama`.
    persona: Option<String>,
    /// `smart` (the default) or `cheapest`.
    strategy: Option<String>,
    /// The most tokens of the answer.
    max_tokens: Option<u64>,
    /// 0 to 2.
    temperature: Option<f64>,
    /// Whether the answer comes in pieces, as server-sent events.
    stream: Option<bool>,
    /// Tools the model may call: `{name, description?, parameters?}`. `fetch_web` is executed here; calls of any other
    /// are answered as `toolCalls`.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Box<RawValue>>>,
}

/// Answers a question with the model its task, its asker's wishes and the balance lead to, and charges the wallet for
/// it: with $5.00 available any model, with less DeepSeek or Ollama, with less than $1.00 Ollama alone; with less than
/// ten cents only what is free by choice. Behind the first choice stand at most two others, Ollama last.
#[utoipa::path(post, path = "/api/chat/complete", tag = "gateway", request_body = ChatBody,
    responses((status = 200, body = ChatText, description = "the answer; with stream: true server-sent events of \
        {\"delta\"}, the last with everything but the text"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 402, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 502, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("tenantKey" = [])))]
async fn complete(
    State(app): State<App>,
    caller: TenantCaller,
    context: RequestContext,
    post: ModelPost<ChatBody>,
) -> Result<Response, ApiError> {
    let ModelPost { body, size_bytes, attempt, room } = post;
    let read = move || -> Result<(Ask, ChatCall), ApiError> {
        let ask = body.asking()?.read()?;
        let call = ask.call()?;
        Ok((ask, call))
    };
    let (ask, call) = off_the_loop(size_bytes, read).await??;
    let asker = Asker::new(app.gateway.clone(), chat_caller(&caller, &context), ask.wish.clone());
    if ask.streaming {
        if attempt.is_keyed() {
            return Err(ApiError::header(
                "idempotency-key",
                "cannot be kept for a stream; leave it out, or set stream to false",
            ));
        }
        if ask.reads_web {
            return Err(ApiError::field(
                "stream",
                "is not for answers that read the web; leave fetch_web out, or stream",
            ));
        }
        let begun = Instant::now();
        return Ok(stream::respond(asker.stream(call).await.map_err(refused)?, begun, room));
    }
    let (actor, tenant) = (caller.actor().to_string(), caller.tenant_id().to_string());
    let worker = app.clone();
    attempt
        .once(&app, &actor, &tenant, |claimer| async move {
            let keeping = Keeping { claimer, _room: room };
            if ask.reads_web {
                converse(&worker, &asker, ask, keeping).await
            } else {
                once(&asker, call, keeping).await
            }
        })
        .await
}

/// What a question needs until its last call has ended: the claim on its answer, and the room its body takes up.
struct Keeping {
    claimer: Claimer,
    _room: Arc<Room>,
}

impl Keeping {
    /// The claim on an answer that is about to be charged.
    fn claim(&self, answer: &ChatAnswer, text: impl FnOnce() -> ChatText) -> Option<IdempotencyClaim> {
        self.claimer.keep(answer.served.usage_id, || Answer::json(StatusCode::OK, &text()))
    }
}

/// An answer in one round.
async fn once(
    asker: &Asker<calos_adapters::postgres::PgLog>,
    call: ChatCall,
    keeping: Keeping,
) -> Result<Response, ApiError> {
    let claim = Box::new(move |answer: &ChatAnswer| keeping.claim(answer, || ChatText::of(answer)));
    let answer = asker.round(call, claim).await.map_err(refused)?;
    respond(&answer, &ChatText::of(&answer))
}

/// An answer with the help of web pages.
async fn converse(
    app: &App,
    asker: &Asker<calos_adapters::postgres::PgLog>,
    ask: Ask,
    keeping: Keeping,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    // Measured once, so that a repetition is answered with the figure of the first answer.
    let latency_ms = Arc::new(OnceLock::new());
    let measured = {
        let latency_ms = Arc::clone(&latency_ms);
        move || *latency_ms.get_or_init(|| u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    };
    let keep: KeepAnswer<ChatAnswer> = {
        let measured = measured.clone();
        Arc::new(move |answer: &ChatAnswer, finished: &Finished| {
            keeping.claim(answer, || ChatText::of_conversation(answer, finished, measured()))
        })
    };
    // Whoever hangs up between two rounds has paid for the first: the others are made all the same, so that the whole
    // answer is there when the request is repeated.
    let (web, asker) = (app.web.clone(), asker.clone());
    let conversation = async move { web.converse(&asker, ask.body, keep).await };
    let conversation = app.gateway.to_the_end(conversation).await;
    let conversation = conversation.ok_or_else(|| ApiError::internal("a conversation's task broke off"))?;
    let (answer, finished) = conversation.map_err(broken)?;
    respond(&answer, &ChatText::of_conversation(&answer, &finished, measured()))
}

fn respond(answer: &ChatAnswer, text: &ChatText) -> Result<Response, ApiError> {
    let mut response = Answer::json(StatusCode::OK, text)?.respond(&answer.positions);
    limits::tell(response.headers_mut(), &answer.served.limits);
    Ok(response)
}

fn chat_caller(caller: &TenantCaller, context: &RequestContext) -> ChatCaller {
    let key_id = match &caller.caller {
        Caller::Key(key) => Some(key.key.key_id.clone()),
        Caller::Session(_) => None,
    };
    ChatCaller { tenant_id: caller.tenant_id(), key_id, metadata: context.metadata(caller.actor()) }
}

impl ChatBody {
    fn asking(self) -> Result<Asking, ApiError> {
        let wish = TaskAsked {
            task: named("taskType", self.task_type)?,
            strategy: named("strategy", self.strategy)?.unwrap_or_default(),
            preferred: named("preferredProvider", self.preferred_provider)?,
            model: self.model,
            persona: named("persona", self.persona)?,
        };
        Ok(Asking {
            prompt: self.prompt,
            messages: self.messages,
            system_prompt: self.system_prompt,
            wish,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            tools: self.tools.unwrap_or_default(),
            streaming: self.stream.unwrap_or(false),
        })
    }
}

fn named<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    text: Option<String>,
) -> Result<Option<T>, ApiError> {
    text.map(|text| text.parse().map_err(|error| ApiError::field(field, error))).transpose()
}

/// A call without an answer; nothing was charged.
fn refused(failure: ChatFailure) -> ApiError {
    failed(failure, Charged::Nothing)
}

/// A call without an answer, in this endpoint's words: what the wallet lacks is told as a balance.
fn failed(failure: ChatFailure, charged: Charged) -> ApiError {
    match failure {
        ChatFailure::CannotPay { needed, available, held } if !failure.waits_for_holds() => {
            insufficient(needed, available, held)
        }
        other => told(other, charged),
    }
}

fn insufficient(needed: MicroUsd, available: MicroUsd, held: MicroUsd) -> ApiError {
    ApiError::new(Code::InsufficientCredits, "Insufficient credits")
        .with_fact("balance", available.cents_down())
        .with_fact("message", "Purchase more credits to continue")
        .with_fact("hint", "preferredProvider ollama answers free of charge, with any balance")
        .with_fact("needed_micros", needed.get())
        .with_fact("available_micros", available.get())
        .with_fact("held_micros", held.get())
}

/// A conversation without an answer. The rounds before it are charged, and told.
fn broken(broken: Broken<ChatAnswer, ChatFailure>) -> ApiError {
    let Broken { cause, rounds, last } = broken;
    let charged = if rounds.is_empty() { Charged::Nothing } else { Charged::WhatWasGiven };
    let error = match cause {
        Cause::Request(refusal) => ApiError::from(in_own_words(refusal)),
        Cause::Round(failure) => failed(failure, charged),
    };
    if rounds.is_empty() {
        return error;
    }
    let error = error.with_fact("charged_micros", total_micros(&rounds)).with_fact("rounds", serde_json::json!(rounds));
    match last {
        Some(last) => error.at(&last.positions),
        None => error,
    }
}
