//! Lets a model read web pages on the way to its answer: the tool `fetch_web`.
//!
//! A round is an ordinary call with a hold and a charge of its own ([`Rounds`]); between two rounds the pages the model
//! asked for are fetched through [`WebFetcher`] alone and told to it as untrusted data ([`untrusted`]). A model that
//! calls tools is offered one; to a model that does not, the same conversation goes in words ([`words`]).
//!
//! A page can tell a model to carry what it knows out in an address, so once one was told, only addresses are read that
//! were written before ([`known`]). What one tenant may read at a time and in a minute is bounded too ([`shares`]).
//!
//! Everything is bounded, and the last round is made without the tool, so that a conversation ends in words. A page that
//! cannot be had is told to the model, which may know another; it is no error.

mod known;
mod pages;
mod said;
pub mod shares;
#[cfg(test)]
mod tests;
mod transcript;
pub mod untrusted;
pub mod words;

use std::sync::Arc;
use std::time::Duration;

use calos_domain::routing::task::shown_model;
use calos_domain::{TenantId, UsageId};
use serde::Serialize;

use crate::complete_chat::{BadRequest, ChatAnswer, ChatCall};
use crate::log::{Boxed, IdempotencyClaim};
use crate::ports::Randomness;
use crate::raw_object::RawObject;
use crate::web::WebFetcher;
use pages::Reading;
pub use said::{Said, Thoughts, ToolCall};
use shares::Shares;
use transcript::Transcript;

/// The tool's name, in requests and answers.
pub const FETCH_WEB: &str = "fetch_web";

/// How often a model is asked in one conversation, the last time without the tool.
pub const CONVERSATION_MAX_ROUNDS: usize = 4;

/// How many pages one round may ask for; what it asks for beyond them is not called.
pub const ROUND_MAX_PAGES: usize = 3;

/// How long pages are fetched for in one conversation. The rounds have their own limits at their providers.
pub const FETCHING_MAX: Duration = Duration::from_secs(30);

/// How much of one page is told.
pub const PAGE_MAX_CHARACTERS: usize = 40_000;

/// How much of all pages is told in one conversation.
pub const PAGES_MAX_CHARACTERS: usize = 100_000;

/// The longest URL. What a page talks a model into carrying out of the conversation goes out in one.
pub const URL_MAX_CHARACTERS: usize = 2_000;

/// A charged answer to one round.
pub trait RoundAnswer: Send {
    /// The `chat.completion` object.
    fn body(&self) -> &RawObject;

    /// What it was charged, with no pages yet.
    fn report(&self) -> RoundReport;
}

impl RoundAnswer for ChatAnswer {
    fn body(&self) -> &RawObject {
        &self.body
    }

    fn report(&self) -> RoundReport {
        RoundReport {
            usage_id: self.served.usage_id,
            provider: self.served.provider.to_string(),
            model: shown_model(&self.served.model).to_owned(),
            cost_micros: self.cost.total.get(),
            prompt_tokens: self.usage.prompt_tokens,
            completion_tokens: self.usage.completion_tokens,
            estimated: self.usage.estimated,
            fetched: Vec::new(),
        }
    }
}

/// Makes the claim for a round's answer, right before the round is charged.
pub type ClaimRound<A> = Box<dyn Fn(&A) -> Option<IdempotencyClaim> + Send + Sync>;

/// Asks a model once, holds for it and charges it.
pub trait Rounds: Send + Sync {
    /// An answer, charged.
    type Answer: RoundAnswer + 'static;
    /// Why there is none; nothing is charged for the round then.
    type Failure: Send;

    /// Who pays for the rounds, and reads the pages.
    fn tenant(&self) -> TenantId;

    /// One round. `claim` is asked right before the answer is charged.
    ///
    /// # Errors
    /// The round's.
    fn ask(&self, call: ChatCall, claim: ClaimRound<Self::Answer>) -> Boxed<'_, Result<Self::Answer, Self::Failure>>;
}

/// One page that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchedReport {
    /// The URL as the model gave it, [`URL_MAX_CHARACTERS`] of it at most.
    pub url: String,
    /// Where the page was found after all redirects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_url: Option<String>,
    /// The site's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How many characters of the page the model was told.
    pub characters: usize,
    /// Why the page was not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// One round, as it was charged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoundReport {
    /// The use, as it stands in the usage log.
    pub usage_id: UsageId,
    /// Who answered it; another model may answer the next one.
    pub provider: String,
    /// With which model.
    pub model: String,
    /// What the tenant paid for it, in micro-dollars.
    pub cost_micros: i64,
    /// The prompt's tokens.
    pub prompt_tokens: u64,
    /// The answer's tokens.
    pub completion_tokens: u64,
    /// Whether any of them were counted here because the provider reported none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// The pages it asked for.
    pub fetched: Vec<FetchedReport>,
}

/// What kept a model from reading another page it asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// [`CONVERSATION_MAX_ROUNDS`].
    Rounds,
    /// [`FETCHING_MAX`].
    Time,
    /// [`PAGES_MAX_CHARACTERS`].
    Characters,
}

/// How a conversation ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Finished {
    /// The last round's words, and the calls of the caller's own tools in it, which nobody executed.
    pub said: Said,
    /// Every round in order; never empty.
    pub rounds: Vec<RoundReport>,
    /// Why the model was asked for its answer although it might have read on.
    pub limit: Option<Limit>,
}

/// What some rounds cost together, in micro-dollars.
#[must_use]
pub fn total_micros(rounds: &[RoundReport]) -> i64 {
    rounds.iter().fold(0, |sum, round| sum.saturating_add(round.cost_micros))
}

/// Why a conversation has no answer.
#[derive(Debug)]
pub enum Cause<F> {
    /// The request cannot be read, or has grown beyond what one may be.
    Request(BadRequest),
    /// A round had no answer.
    Round(F),
}

/// A conversation without an answer, and what it had cost by then.
#[derive(Debug)]
pub struct Broken<A, F> {
    /// Why.
    pub cause: Cause<F>,
    /// The rounds that were answered, and charged.
    pub rounds: Vec<RoundReport>,
    /// The answer of the last of them.
    pub last: Option<A>,
}

/// Makes the claim that lets the whole conversation be answered again; asked right before its last round is charged.
pub type KeepAnswer<A> = Arc<dyn Fn(&A, &Finished) -> Option<IdempotencyClaim> + Send + Sync>;

/// Answers with the help of web pages. A clone shares what each tenant may read.
#[derive(Clone)]
pub struct WebReader {
    fetcher: Arc<dyn WebFetcher>,
    randomness: Arc<dyn Randomness>,
    shares: Arc<Shares>,
    fetching_max: Duration,
}

impl std::fmt::Debug for WebReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebReader").finish_non_exhaustive()
    }
}

impl WebReader {
    /// Reads pages through `fetcher`.
    #[must_use]
    pub fn new(fetcher: Arc<dyn WebFetcher>, randomness: Arc<dyn Randomness>) -> Self {
        Self { fetcher, randomness, shares: Arc::default(), fetching_max: FETCHING_MAX }
    }

    /// Holds a conversation: `body` is a `chat.completions` request, whose `tools` are the caller's own and are offered
    /// beside `fetch_web`. A round that calls one of those ends the conversation: nothing of it is executed, and all its
    /// calls are the caller's to answer, for a model wants every call of a round answered at once.
    ///
    /// # Errors
    /// [`Broken`]: rounds that were answered before stay charged, as the providers' bills for them stay.
    pub async fn converse<R: Rounds>(
        &self,
        rounds: &R,
        body: RawObject,
        keep: KeepAnswer<R::Answer>,
    ) -> Result<(R::Answer, Finished), Broken<R::Answer, R::Failure>> {
        let mut reports: Vec<RoundReport> = Vec::with_capacity(CONVERSATION_MAX_ROUNDS);
        let mut last: Option<R::Answer> = None;
        let mut transcript = match Transcript::of(body) {
            Ok(transcript) => transcript,
            Err(error) => return Err(Broken { cause: Cause::Request(error), rounds: reports, last }),
        };
        let mut reading = Reading::new(rounds.tenant(), self.fetching_max);
        loop {
            let limit = reading.spent().or((reports.len() + 1 >= CONVERSATION_MAX_ROUNDS).then_some(Limit::Rounds));
            let asked = match transcript.call(limit.is_some()) {
                Ok(call) => {
                    let (earlier, keep) = (reports.clone(), Arc::clone(&keep));
                    let claim = move |answer: &R::Answer| match judge(answer, earlier.clone(), limit) {
                        Judged::Ends(finished) => keep(answer, &finished),
                        Judged::Reads(..) => None,
                    };
                    rounds.ask(call, Box::new(claim)).await.map_err(Cause::Round)
                }
                Err(error) => Err(Cause::Request(error)),
            };
            let answer = match asked {
                Ok(answer) => answer,
                Err(cause) => return Err(Broken { cause, rounds: reports, last }),
            };
            match judge(&answer, reports, limit) {
                Judged::Ends(finished) => return Ok((answer, finished)),
                Judged::Reads(said, mut charged) => {
                    let (turn, fetched) = self.read(said, &mut reading, transcript.messages()).await;
                    if let Some(round) = charged.last_mut() {
                        round.fetched = fetched;
                    }
                    transcript.add(turn);
                    reports = charged;
                    last = Some(answer);
                }
            }
        }
    }
}

/// What a round's answer means.
enum Judged {
    /// It is the conversation's.
    Ends(Finished),
    /// It asks for pages; with the rounds so far, this one included.
    Reads(Said, Vec<RoundReport>),
}

fn judge(answer: &impl RoundAnswer, mut rounds: Vec<RoundReport>, limit: Option<Limit>) -> Judged {
    let said = Said::read(answer.body());
    rounds.push(answer.report());
    let own_tools = said.tool_calls.iter().any(|call| call.name != FETCH_WEB);
    if own_tools {
        return Judged::Ends(Finished { said, rounds, limit: None });
    }
    let said = said.with_asked_in_words();
    match (said.tool_calls.is_empty(), limit) {
        (true, _) => Judged::Ends(Finished { said, rounds, limit }),
        (false, None) => Judged::Reads(said, rounds),
        // It was told that no more pages are read. What it calls all the same is nobody's to execute.
        (false, Some(_)) => Judged::Ends(Finished { said: said.in_words_alone(), rounds, limit }),
    }
}
