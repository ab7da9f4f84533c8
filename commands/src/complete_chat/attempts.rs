//! Asks the candidates of an admission one after the other until one answers.
//!
//! Nothing has gone to the client yet, so a failure that may pass is tried again after a jittered pause, and one that
//! stays leads to the next candidate. A provider's own mistakes count against its circuit, once a call; the caller's do
//! not. A client that leaves meanwhile ends it all, the request that is under way included.

use std::sync::Arc;
use std::time::Duration;

use calos_domain::TenantId;
use calos_domain::pricing::Provider;
use calos_domain::wallet::FailedAttempt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admit::{Admission, Candidate};
use super::betas::passed_on;
use super::blame::weigh;
use super::circuits::Line;
use super::toolless::refuses_tools;
use super::traffic::Turn;
use super::{ChatCall, Gateway};
use crate::byok::{KeyringEntry, KeyringError};
use crate::in_request::may_act;
use crate::log::{Boxed, EventLog};
use crate::ports::SecretText;
use crate::provider::{ChatProvider, ChatRequest, ProviderError, Transcript};

/// How often one candidate is asked again.
const RETRIES_MAX: u32 = 2;

/// The pause before the first repetition, before jitter; it doubles.
const RETRY_FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest a provider's own `retry-after` is waited for; beyond it the next candidate is asked.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3);

/// How long after the admission another attempt may begin: the hold has to outlast the answer to it.
const ATTEMPTS_MAX: Duration = Duration::from_secs(180);

/// An answer that has begun, and the turn it takes at its provider.
pub(super) struct Answering<T> {
    pub(super) value: T,
    pub(super) turn: Turn,
    /// What the provider writes, to be counted should it report nothing.
    pub(super) transcript: Transcript,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The provider has failed, or CALOS on the way to it.
    Failed(ProviderError),
    /// Whoever asked has left.
    Left {
        /// Whether a request was under way then that nobody had refused. It was broken off.
        sent: bool,
    },
}

impl From<ProviderError> for NoAnswer {
    fn from(error: ProviderError) -> Self {
        Self::Failed(error)
    }
}

/// What came of asking.
pub(super) struct Attempted<T> {
    /// Which candidate's answer, or last failure, this is.
    pub(super) used: usize,
    /// What was tried in vain before.
    pub(super) failed: Vec<FailedAttempt>,
    pub(super) answer: Result<Answering<T>, NoAnswer>,
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) tenant_id: TenantId,
    /// Cancelled once nobody waits any more, where that is to end the call.
    pub(super) left: CancellationToken,
}

/// Begins an answer at a provider.
pub(super) trait Start<T>:
    Fn(Arc<dyn ChatProvider>, ChatRequest) -> Boxed<'static, Result<T, ProviderError>> + Clone + Send + Sync + 'static
{
}

impl<T, F> Start<T> for F where
    F: Fn(Arc<dyn ChatProvider>, ChatRequest) -> Boxed<'static, Result<T, ProviderError>>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A call on its way through its candidates.
struct Inquiry<'a, S> {
    admission: &'a Admission,
    call: &'a ChatCall,
    waiting: &'a Waiting,
    start: S,
    begun: Instant,
    /// What was tried in vain.
    failed: Vec<FailedAttempt>,
}

impl<S> Inquiry<'_, S> {
    /// Waits for this, unless nobody waits any more.
    async fn wait_for<T>(&self, awaited: impl Future<Output = T>) -> Result<T, NoAnswer> {
        tokio::select! {
            biased;
            () = self.waiting.left.cancelled() => Err(NoAnswer::Left { sent: false }),
            awaited = awaited => Ok(awaited),
        }
    }

    /// Whether the next candidate is asked after this failure.
    fn goes_on_after(&self, used: usize, error: &ProviderError) -> bool {
        used + 1 < self.admission.chain.len()
            && self.begun.elapsed() < ATTEMPTS_MAX
            && another_may_help(error)
            && self.call.routing.leads_on(error)
            && !self.admission.chain[used].is_own_mistake(error)
    }
}

impl<L: EventLog> Gateway<L> {
    /// Asks until somebody answers, nobody is left to ask or to answer to, or CALOS stops.
    pub(super) fn attempt<T: Send + 'static>(
        &self,
        admission: &Admission,
        call: &ChatCall,
        waiting: &Waiting,
        start: &impl Start<T>,
    ) -> Boxed<'static, Attempted<T>> {
        let (gateway, admission, call) = (self.clone(), admission.clone(), call.clone());
        let (waiting, start) = (waiting.clone(), start.clone());
        Box::pin(async move {
            let stopping = gateway.0.stopping.clone();
            let provider = admission.chain.first().map_or(Provider::Ollama, |first| first.route.provider);
            let unasked = || Attempted { used: 0, failed: Vec::new(), answer: Err(stopped(provider).into()) };
            // A call without a hold has handed nothing to the log so far, and may have been given up meanwhile.
            if !may_act() {
                return unasked();
            }
            let (admission, call, waiting, failed) = (&admission, &call, &waiting, Vec::new());
            let inquiry = Inquiry { admission, call, waiting, start, begun: Instant::now(), failed };
            tokio::select! {
                biased;
                attempted = gateway.ask_in_turn(inquiry) => attempted,
                () = stopping.cancelled() => unasked(),
            }
        })
    }

    async fn ask_in_turn<T: Send + 'static>(&self, mut inquiry: Inquiry<'_, impl Start<T>>) -> Attempted<T> {
        let mut used = 0;
        loop {
            let answer = match inquiry.admission.chain.get(used) {
                Some(candidate) => self.ask_one(&mut inquiry, candidate).await,
                // A chain is never empty, so this is never reached.
                None => Err(stopped(Provider::Ollama).into()),
            };
            if let (Err(NoAnswer::Failed(error)), Some(candidate)) = (&answer, inquiry.admission.chain.get(used)) {
                self.0.figures.turned_away(candidate.route.provider, error);
            }
            match answer {
                Err(NoAnswer::Failed(error)) if inquiry.goes_on_after(used, &error) => {
                    let candidate = &inquiry.admission.chain[used];
                    tracing::info!(provider = %candidate.route.provider, model = %candidate.route.model, %error, "falling back");
                    inquiry.failed.push(in_vain(candidate, &error));
                    used += 1;
                }
                answer => return Attempted { used, failed: inquiry.failed, answer },
            }
        }
    }

    async fn ask_one<T: Send + 'static>(
        &self,
        inquiry: &mut Inquiry<'_, impl Start<T>>,
        candidate: &Candidate,
    ) -> Result<Answering<T>, NoAnswer> {
        let provider = candidate.route.provider;
        let Some(adapter) = self.0.providers.get(&provider) else {
            // The route only ever names providers that are there.
            let detail = "no adapter is configured".to_owned();
            return Err(ProviderError::Unreachable { provider: provider.as_str(), detail }.into());
        };
        let mut request = request_for(inquiry.admission, candidate, inquiry.call);
        if let Some(entry) = candidate.own_key {
            request.key = Some(inquiry.wait_for(self.open_own_key(entry)).await??);
        }
        let mut words = inquiry.call.in_words.as_ref();
        if words.is_some()
            && self.0.toolless.knows(provider, &candidate.route.model, std::time::Instant::now())
            && let Some(words) = words.take()
        {
            request.fields = candidate.spoken(words);
        }
        let left = &inquiry.waiting.left;
        let reads_on = self.writes_unseen(inquiry.call, candidate);
        let entering = self.0.traffic.enter(Line::of(candidate), inquiry.waiting.tenant_id);
        let mut turn = inquiry.wait_for(entering).await??;
        let mut tries = 0;
        loop {
            let asked = Instant::now();
            let answer = tokio::select! {
                biased;
                answer = (inquiry.start)(Arc::clone(adapter), request.clone()) => answer,
                () = left.cancelled(), if !reads_on => return Err(NoAnswer::Left { sent: true }),
            };
            let error = match answer {
                Ok(value) => {
                    turn.answered();
                    self.0.figures.answered(provider, asked.elapsed());
                    return Ok(Answering { value, turn, transcript: request.transcript });
                }
                Err(error) => error,
            };
            turn.rest();
            self.0.figures.failed(provider, &error);
            weigh(&mut turn, &error);
            if refuses_tools(&error)
                && let Some(words) = words.take()
            {
                self.0.toolless.remember(provider, &candidate.route.model, std::time::Instant::now());
                request.fields = candidate.spoken(words);
                inquiry.wait_for(turn.resume()).await??;
                continue;
            }
            let pause = pause_before_retry(&error, tries, || self.0.randomness.id().as_u128());
            match pause {
                Some(pause) if tries < RETRIES_MAX && inquiry.begun.elapsed() + pause < ATTEMPTS_MAX => {
                    tracing::debug!(%provider, model = %candidate.route.model, %error, tries, "asking again");
                    inquiry.failed.push(in_vain(candidate, &error));
                    inquiry.wait_for(tokio::time::sleep(pause)).await?;
                    inquiry.wait_for(turn.resume()).await??;
                    tries += 1;
                }
                Some(_) | None => return Err(error.into()),
            }
        }
    }
}

impl<L: EventLog> Gateway<L> {
    /// The tenant's own key. It was there when the call was admitted; removed since, it is not used any more.
    async fn open_own_key(&self, entry: KeyringEntry) -> Result<SecretText, ProviderError> {
        self.0.own_keys.open(entry).await.map_err(|error| {
            match &error {
                // It was removed, or replaced, after this call was admitted; the next one knows.
                KeyringError::NotThere(_) => tracing::info!(tenant = %entry.tenant_id, %error, "an own key is gone"),
                KeyringError::Tampered(_) | KeyringError::AnotherMasterKey(_) | KeyringError::Unavailable(_) => {
                    tracing::error!(tenant = %entry.tenant_id, provider = %entry.provider, %error, "an own key does not open");
                }
            }
            ProviderError::KeyUnavailable { provider: entry.provider.as_str(), detail: error.to_string() }
        })
    }
}

impl Candidate {
    /// Whether the tenant's own account is at fault: its key is refused or does not open, or it has nothing left there.
    /// Nobody else is asked then, at the platform's price: the tenant has to hear of it.
    fn is_own_mistake(&self, error: &ProviderError) -> bool {
        let at_fault = match error {
            ProviderError::Status { status: 401..=403, .. } | ProviderError::KeyUnavailable { .. } => true,
            ProviderError::Status { status: 429, retry_after, .. } => retry_after.is_none(),
            ProviderError::Status { .. }
            | ProviderError::Unreachable { .. }
            | ProviderError::CircuitOpen { .. }
            | ProviderError::Busy { .. }
            | ProviderError::Timeout { .. }
            | ProviderError::BadAnswer { .. }
            | ProviderError::Unsupported { .. } => false,
        };
        self.own_key.is_some() && at_fault
    }
}

fn request_for(admission: &Admission, candidate: &Candidate, call: &ChatCall) -> ChatRequest {
    ChatRequest {
        answer_id: format!("chatcmpl-{}", admission.usage_id.0.simple()),
        dialect: call.dialect,
        // Opened once for all tries, right before the first.
        key: None,
        model: candidate.route.model.clone(),
        fields: candidate.spoken(&call.fields),
        betas: passed_on(call.betas.as_deref(), candidate.own_key.is_some()),
        max_tokens: candidate.max_tokens,
        max_tokens_field: call.max_tokens_field(&candidate.route.model),
        show_usage: call.include_usage,
        prompt_estimate_tokens: call.prompt_about_tokens.saturating_add(candidate.voice_about_tokens()),
        transcript: Transcript::default(),
    }
}

/// What a call ends with when CALOS itself is stopping.
pub(super) fn stopped(provider: Provider) -> ProviderError {
    let detail = "CALOS is stopping".to_owned();
    ProviderError::Unreachable { provider: provider.as_str(), detail }
}

pub(super) fn in_vain(candidate: &Candidate, error: &ProviderError) -> FailedAttempt {
    FailedAttempt {
        provider: candidate.route.provider.as_str().to_owned(),
        model: candidate.route.model.clone(),
        failure: name_of(error),
    }
}

/// A failure as the usage record names it; none of the provider's own words.
fn name_of(error: &ProviderError) -> String {
    match error {
        ProviderError::Unreachable { .. } => "unreachable".to_owned(),
        ProviderError::CircuitOpen { .. } => "circuit_open".to_owned(),
        ProviderError::Busy { .. } => "busy".to_owned(),
        ProviderError::Timeout { .. } => "timeout".to_owned(),
        ProviderError::Status { status, .. } => format!("status_{status}"),
        ProviderError::BadAnswer { .. } => "bad_answer".to_owned(),
        ProviderError::KeyUnavailable { .. } => "key_unavailable".to_owned(),
        ProviderError::Unsupported { .. } => "unsupported".to_owned(),
    }
}

/// Whether somebody else may answer what this one did not: anything but a mistake in the request.
fn another_may_help(error: &ProviderError) -> bool {
    match error {
        ProviderError::Status { status, .. } => !matches!(status, 400 | 413 | 415 | 422),
        ProviderError::Unreachable { .. }
        | ProviderError::CircuitOpen { .. }
        | ProviderError::Busy { .. }
        | ProviderError::Timeout { .. }
        | ProviderError::BadAnswer { .. }
        | ProviderError::KeyUnavailable { .. }
        | ProviderError::Unsupported { .. } => true,
    }
}

/// How long to wait before the same candidate is asked again; none when that would not help. What timed out or came
/// garbled has taken its time, and its money, already.
fn pause_before_retry(error: &ProviderError, tries: u32, random: impl FnOnce() -> u128) -> Option<Duration> {
    let named = match error {
        ProviderError::Unreachable { .. } => None,
        ProviderError::Status { status: 500 | 502 | 503 | 504 | 529, retry_after, .. } => *retry_after,
        // Without a time to come back it is a cap on spending, which waiting does not lift.
        ProviderError::Status { status: 429, retry_after, .. } => Some((*retry_after)?),
        ProviderError::Status { .. }
        | ProviderError::CircuitOpen { .. }
        | ProviderError::Busy { .. }
        | ProviderError::Timeout { .. }
        | ProviderError::BadAnswer { .. }
        | ProviderError::KeyUnavailable { .. }
        | ProviderError::Unsupported { .. } => return None,
    };
    match named {
        Some(named) => (named <= RETRY_AFTER_MAX).then_some(named),
        None => {
            let most = RETRY_FIRST_PAUSE.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX));
            let thousandths = u32::try_from(random() % 1_000).unwrap_or(0);
            Some(most.saturating_mul(500 + thousandths / 2) / 1_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, retry_after_seconds: Option<u64>) -> ProviderError {
        ProviderError::Status {
            provider: "openai",
            status,
            message: "x".to_owned(),
            code: None,
            param: None,
            retry_after: retry_after_seconds.map(Duration::from_secs),
        }
    }

    #[test]
    fn pauses_double_and_are_jittered_by_half() {
        let pause = |tries, random| pause_before_retry(&status(503, None), tries, || random).unwrap();
        assert_eq!(pause(0, 0), RETRY_FIRST_PAUSE / 2);
        assert!(pause(0, 999) < RETRY_FIRST_PAUSE);
        assert_eq!(pause(1, 0), RETRY_FIRST_PAUSE);
        assert_eq!(pause(2, 0), RETRY_FIRST_PAUSE * 2);
    }

    #[test]
    fn a_providers_own_time_is_kept_unless_it_is_long() {
        let pause = |error: &ProviderError| pause_before_retry(error, 0, || 0);
        assert_eq!(pause(&status(429, Some(2))), Some(Duration::from_secs(2)));
        assert_eq!(pause(&status(503, Some(2))), Some(Duration::from_secs(2)));
        assert_eq!(pause(&status(429, Some(60))), None);
        assert_eq!(pause(&status(429, None)), None, "a cap on spending");
    }

    #[test]
    fn the_callers_mistakes_are_not_repeated() {
        for code in [400, 401, 403, 404, 413, 422] {
            let error = status(code, None);
            assert!(pause_before_retry(&error, 0, || 0).is_none(), "{code}");
        }
        assert!(!another_may_help(&status(400, None)) && another_may_help(&status(401, None)));
        assert!(another_may_help(&status(500, None)));
    }
}
