//! Charges what a call used: the usage, the deduction and the licence's tokens in one append.

use calos_domain::StreamId;
use calos_domain::licence::{Licence, LicenceCommand};
use calos_domain::pricing::{Cost, TokenCounts};
use calos_domain::wallet::{Meter, UsageOutcome, UsageRecorded, Wallet, WalletCommand};

use super::admit::Admission;
use super::hold::{PERSISTENCE_MAX_ATTEMPTS, follow_up, may_pass, pause_after};
use super::{ChatCall, ChatCaller, ChatFailure, Gateway};
use crate::log::{EventLog, Failed, IdempotencyClaim, LogError, Plan, Positions, Request};
use crate::provider::{Produced, TokenUsage};

/// What the usage log calls a plain chat call.
const TASK_TYPE: &str = "chat";

/// The longest name of a model a usage record keeps.
const MODEL_MAX_CHARACTERS: usize = 200;

/// How a call ended, as far as the bill goes.
#[derive(Clone, Debug)]
pub(super) struct Metered {
    pub(super) outcome: UsageOutcome,
    pub(super) usage: TokenUsage,
    /// The model that answered, when the provider said so.
    pub(super) model: Option<String>,
}

/// A charge that is durable.
pub(super) struct Settled {
    pub(super) cost: Cost,
    pub(super) positions: Positions,
}

/// What is charged: the provider's report, or our own count where there is none. Our count never goes beyond what the
/// call was admitted for.
pub(super) fn metered_usage(
    reported: Option<TokenUsage>,
    produced: Produced,
    call: &ChatCall,
    admission: &Admission,
) -> TokenUsage {
    reported.unwrap_or_else(|| TokenUsage {
        prompt_tokens: call.prompt_about_tokens.min(call.prompt_max_tokens),
        completion_tokens: produced.tokens().min(admission.max_tokens.saturating_mul(call.choices)),
        cached_tokens: 0,
        reasoning_tokens: 0,
        estimated: true,
    })
}

impl<L: EventLog> Gateway<L> {
    /// Settles the hold; it answers once that is durable.
    ///
    /// # Errors
    /// The log's, once patience is over, and refusals a consistent wallet never gives.
    pub(super) async fn settle(
        &self,
        caller: &ChatCaller,
        admission: &Admission,
        metered: Metered,
        claim: Option<IdempotencyClaim>,
    ) -> Result<Settled, ChatFailure> {
        let cost = self.cost(admission, metered.usage)?;
        let usage = self.usage_record(caller, admission, metered, cost);
        let tokens = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        let tenant = StreamId::key(caller.tenant_id);
        let mut plan = Plan::default();
        let wallet = plan.stream::<Wallet>(tenant.clone());
        let licence = plan.stream::<Licence>(tenant);
        let request = Request { metadata: follow_up(&caller.metadata), idempotency: claim };
        for attempt in 0..PERSISTENCE_MAX_ATTEMPTS {
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
                Ok(done) => return Ok(Settled { cost, positions: done.positions }),
                Err(Failed::Refused(refusal)) => return Err(refusal),
                Err(Failed::Log(error)) if may_pass(&error) => {
                    tracing::warn!(usage = %usage.usage_id, %error, attempt, "a charge has to be tried again");
                    tokio::time::sleep(pause_after(attempt)).await;
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
    pub(super) fn cost(&self, admission: &Admission, usage: TokenUsage) -> Result<Cost, ChatFailure> {
        let counts = TokenCounts {
            prompt: usage.prompt_tokens,
            completion: usage.completion_tokens,
            cached: usage.cached_tokens,
            cache_write: 0,
        };
        Ok(self.0.book.cost(admission.route.provider, &admission.route.model, counts, admission.payer)?)
    }

    fn usage_record(&self, caller: &ChatCaller, admission: &Admission, metered: Metered, cost: Cost) -> UsageRecorded {
        let elapsed = self.0.clock.now().micros().saturating_sub(admission.at.micros());
        let model = metered.model.filter(|model| !model.is_empty());
        let model = model.unwrap_or_else(|| admission.route.model.clone());
        UsageRecorded {
            usage_id: admission.usage_id,
            meter: Meter::Chat,
            api_key_id: caller.key_id.clone(),
            provider: admission.route.provider.as_str().to_owned(),
            model: model.chars().take(MODEL_MAX_CHARACTERS).collect(),
            prompt_tokens: metered.usage.prompt_tokens,
            completion_tokens: metered.usage.completion_tokens,
            cached_tokens: metered.usage.cached_tokens,
            cache_write_tokens: 0,
            reasoning_tokens: metered.usage.reasoning_tokens,
            provider_cost: cost.provider_cost,
            markup: cost.markup,
            total: cost.total,
            byok: admission.route.byok,
            estimated: metered.usage.estimated,
            price_book_version: self.0.book.version().to_owned(),
            latency_ms: u64::try_from(elapsed / 1_000).unwrap_or(0),
            task_type: TASK_TYPE.to_owned(),
            outcome: metered.outcome,
        }
    }
}
