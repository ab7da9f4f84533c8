//! Charges what a call used: the usage, the deduction and the licence's tokens in one append.

use calos_domain::licence::{Licence, LicenceCommand};
use calos_domain::pricing::{Cost, TokenCounts};
use calos_domain::wallet::{FailedAttempt, UsageOutcome, UsageRecorded, Wallet, WalletCommand};
use calos_domain::{StreamId, Timestamp};

use super::admit::{Admission, Candidate, HOLD_MAX_SECONDS};
use super::hold::{PERSISTENCE_MAX_ATTEMPTS, follow_up, may_pass, pause_after};
use super::{ChatCall, ChatCaller, ChatFailure, Gateway};
use crate::log::{EventLog, Failed, IdempotencyClaim, LogError, Plan, Positions, Request};
use crate::provider::TokenUsage;

/// The longest name of a model a usage record keeps.
const MODEL_MAX_CHARACTERS: usize = 200;

/// How long after its hold's own end a charge is still tried: past the grace within which nobody expires the hold.
const AFTER_EXPIRY_SECONDS: i64 = 60;

/// How long a charge is tried while the log does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// As long as somebody waits for the answer, who gets none unless it is charged.
    ForAnAnswer,
    /// Until the hold is gone for good: the answer was given as it came.
    UntilExpired,
}

impl Patience {
    /// Whether to try once more, after so many attempts.
    fn goes_on(self, attempts: u32, admitted_at: Timestamp, now: Timestamp, stopping: bool) -> bool {
        let given_up_at = admitted_at.plus_seconds(HOLD_MAX_SECONDS + AFTER_EXPIRY_SECONDS);
        attempts < PERSISTENCE_MAX_ATTEMPTS || self == Self::UntilExpired && !stopping && now < given_up_at
    }
}

/// How a call ended, as far as the bill goes.
#[derive(Clone, Debug)]
pub(super) struct Metered {
    pub(super) outcome: UsageOutcome,
    pub(super) usage: TokenUsage,
    /// The model that answered, when the provider said so.
    pub(super) model: Option<String>,
    /// What was tried in vain before.
    pub(super) failed: Vec<FailedAttempt>,
}

/// A charge that is durable.
pub(super) struct Settled {
    pub(super) cost: Cost,
    pub(super) positions: Positions,
}

impl<L: EventLog> Gateway<L> {
    /// Settles the hold; it answers once that is durable.
    ///
    /// # Errors
    /// The log's, once patience is over, and refusals a consistent wallet never gives.
    #[expect(clippy::too_many_arguments, reason = "everything a charge is made of")]
    pub(super) async fn settle(
        &self,
        caller: &ChatCaller,
        call: &ChatCall,
        admission: &Admission,
        used: &Candidate,
        metered: Metered,
        claim: Option<IdempotencyClaim>,
        patience: Patience,
    ) -> Result<Settled, ChatFailure> {
        let cost = self.cost(used, metered.usage)?;
        let usage = self.usage_record(caller, call, admission, used, metered, cost);
        let tokens = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        let tenant = StreamId::key(caller.tenant_id);
        let mut plan = Plan::default();
        let wallet = plan.stream::<Wallet>(tenant.clone());
        let licence = plan.stream::<Licence>(tenant);
        let request = Request { metadata: follow_up(&caller.metadata), idempotency: claim };
        let mut attempts = 0;
        while patience.goes_on(attempts, admission.at, self.0.clock.now(), self.0.stopping.is_cancelled()) {
            let at = self.0.clock.now();
            let settled = self.0.log.execute(&plan, request.clone(), |unit| {
                let hold_id = admission.hold_id;
                let amount = cost.total.into();
                unit.decide(wallet, WalletCommand::SettleHold { hold_id, usage: usage.clone(), amount, at })?;
                let counted =
                    unit.decide(licence, LicenceCommand::RecordTokens { usage_id: usage.usage_id, tokens, at });
                // The money has been spent whatever the licence counts.
                if let Err(refusal) = counted {
                    tracing::error!(tenant = %caller.tenant_id, usage = %usage.usage_id, %refusal, "tokens are not counted");
                }
                Ok::<_, ChatFailure>(())
            });
            match settled.await {
                Ok(done) => {
                    let figures = &self.0.figures;
                    figures.charged(used.route.provider, cost, usage.prompt_tokens, usage.completion_tokens);
                    return Ok(Settled { cost, positions: done.positions });
                }
                Err(Failed::Refused(refusal)) => return Err(refusal),
                Err(Failed::Log(error)) if may_pass(&error) => {
                    tracing::warn!(usage = %usage.usage_id, %error, attempts, "a charge has to be tried again");
                    tokio::time::sleep(pause_after(attempts)).await;
                    attempts = attempts.saturating_add(1);
                }
                Err(Failed::Log(error)) => return Err(error.into()),
            }
        }
        tracing::error!(
            tenant = %caller.tenant_id, usage = %usage.usage_id, total_micros = %cost.total,
            "a charge is lost unless it is entered by hand: the log does not answer"
        );
        Err(LogError::Unavailable("the charge could not be recorded in time".to_owned()).into())
    }

    /// What a use costs by the price book.
    pub(super) fn cost(&self, used: &Candidate, usage: TokenUsage) -> Result<Cost, ChatFailure> {
        let counts = TokenCounts {
            prompt: usage.prompt_tokens,
            completion: usage.completion_tokens,
            cached: usage.cached_tokens,
            cache_write: usage.cache_write_tokens,
            cache_write_hour: usage.cache_write_hour_tokens,
        };
        Ok(self.0.book.cost(used.route.provider, &used.route.model, counts, used.payer)?)
    }

    fn usage_record(
        &self,
        caller: &ChatCaller,
        call: &ChatCall,
        admission: &Admission,
        used: &Candidate,
        metered: Metered,
        cost: Cost,
    ) -> UsageRecorded {
        let elapsed = self.0.clock.now().micros().saturating_sub(admission.at.micros());
        let model = metered.model.as_deref().map(recorded_model).filter(|model| !model.is_empty());
        let model = model.unwrap_or_else(|| recorded_model(&used.route.model));
        UsageRecorded {
            usage_id: admission.usage_id,
            meter: call.kind.meter(),
            api_key_id: caller.key_id.clone(),
            provider: used.route.provider.as_str().to_owned(),
            model,
            prompt_tokens: metered.usage.prompt_tokens,
            completion_tokens: metered.usage.completion_tokens,
            cached_tokens: metered.usage.cached_tokens,
            cache_write_tokens: metered.usage.cache_write_tokens,
            cache_write_hour_tokens: metered.usage.cache_write_hour_tokens,
            reasoning_tokens: metered.usage.reasoning_tokens,
            provider_cost: cost.provider_cost,
            markup: cost.markup,
            total: cost.total,
            byok: used.route.byok,
            estimated: metered.usage.estimated,
            price_book_version: self.0.book.version().to_owned(),
            latency_ms: u64::try_from(elapsed / 1_000).unwrap_or(0),
            task_type: call.routing.task().as_str().to_owned(),
            outcome: metered.outcome,
            failed_attempts: metered.failed,
        }
    }
}

/// A model's name as a usage record keeps it: a provider may call itself anything, but no text that breaks a line or a
/// store.
fn recorded_model(name: &str) -> String {
    name.trim().chars().filter(|character| !character.is_control()).take(MODEL_MAX_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_name_for_its_model_is_held_to_what_can_be_stored() {
        assert_eq!(recorded_model("gpt-4\u{0}\u{1b}[31m\n"), "gpt-4[31m");
        assert_eq!(recorded_model("\u{0}"), "");
        assert_eq!(recorded_model(&"x".repeat(1_000)).len(), MODEL_MAX_CHARACTERS);
    }

    #[test]
    fn what_was_given_away_piece_by_piece_is_charged_with_more_patience() {
        let admitted_at = Timestamp::from_micros(0);
        let after = |seconds| admitted_at.plus_seconds(seconds);
        let goes_on =
            |patience: Patience, attempts, now, stopping| patience.goes_on(attempts, admitted_at, now, stopping);
        assert!(goes_on(Patience::ForAnAnswer, 0, after(5_000), true));
        assert!(!goes_on(Patience::ForAnAnswer, PERSISTENCE_MAX_ATTEMPTS, after(1), false));
        assert!(goes_on(Patience::UntilExpired, PERSISTENCE_MAX_ATTEMPTS, after(HOLD_MAX_SECONDS), false));
        assert!(!goes_on(Patience::UntilExpired, PERSISTENCE_MAX_ATTEMPTS, after(HOLD_MAX_SECONDS), true));
        assert!(!goes_on(Patience::UntilExpired, 1_000, after(HOLD_MAX_SECONDS + AFTER_EXPIRY_SECONDS), false));
    }
}
