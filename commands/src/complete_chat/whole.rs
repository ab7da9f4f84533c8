//! Brings a whole answer home.

use std::sync::Arc;

use calos_domain::pricing::Cost;
use calos_domain::wallet::{ReleaseCause, UsageOutcome};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::attempts::{Answering, NoAnswer};
use super::dispatch::Dispatched;
use super::settle::{Metered, Patience};
use super::{Billing, CallKind, ChatCall, ChatCaller, ChatFailure, Gateway, Served};
use crate::in_request::carried;
use crate::log::{Boxed, EventLog, IdempotencyClaim, Positions};
use crate::provider::{ChatProvider, ChatRequest, Completion, ProviderError, TokenUsage};
use crate::raw_object::RawObject;

/// An answer, charged.
#[derive(Clone, Debug)]
pub struct ChatAnswer {
    /// The `chat.completion` object with `provider` and `billing` in it.
    pub body: RawObject,
    /// Who answered.
    pub served: Served,
    /// What it is charged for.
    pub usage: TokenUsage,
    /// What it costs.
    pub cost: Cost,
    /// From admission to the answer.
    pub latency_ms: u64,
    /// Where the charge stands in the log; empty until it does.
    pub positions: Positions,
}

/// Makes the claim that lets a repeated request be answered again; asked right before the answer is charged. None when
/// the caller gave no idempotency key. It is dropped once the call has ended, its charge included, and not before: what
/// keeps a repetition out meanwhile belongs inside it.
pub type ClaimAnswer = Box<dyn Fn(&ChatAnswer) -> Option<IdempotencyClaim> + Send + Sync>;

impl<L: EventLog> Gateway<L> {
    /// Answers a call in one piece. It is charged, and the charge durable, when this returns.
    ///
    /// The call goes on when this future is dropped: a provider bills a whole answer whether it is read or not, so it
    /// is charged whether it is read or not.
    ///
    /// # Errors
    /// [`ChatFailure`]; nothing is charged then.
    pub async fn complete(
        &self,
        caller: ChatCaller,
        call: ChatCall,
        claim: ClaimAnswer,
    ) -> Result<ChatAnswer, ChatFailure> {
        let (mut reply, answer) = oneshot::channel();
        let gateway = self.clone();
        self.0.tasks.spawn(carried(async move {
            let outcome = gateway.answer(&caller, &call, &claim, &mut reply).await;
            drop(claim);
            if let Err(unread) = reply.send(outcome) {
                match unread {
                    Ok(answer) => tracing::debug!(usage = %answer.served.usage_id, "charged, but nobody waits for it"),
                    Err(failure) => tracing::debug!(%failure, "failed, but nobody waits for it"),
                }
            }
        }));
        answer.await.unwrap_or(Err(ChatFailure::Lost("its task broke off")))
    }

    async fn answer(
        &self,
        caller: &ChatCaller,
        call: &ChatCall,
        claim: &ClaimAnswer,
        reply: &mut oneshot::Sender<Result<ChatAnswer, ChatFailure>>,
    ) -> Result<ChatAnswer, ChatFailure> {
        // Never cancelled: who leaves is charged all the same.
        let left = CancellationToken::new();
        let dispatched = match call.kind {
            CallKind::Chat => self.dispatch(caller, call, left, complete).await?,
            CallKind::Embeddings => self.dispatch(caller, call, left, embed).await?,
        };
        let Dispatched { admission, guard, used, failed, answer } = dispatched;
        let (completion, transcript) = match answer {
            Ok(Answering { value, mut turn, transcript }) => {
                turn.succeeded();
                (value, transcript)
            }
            Err(NoAnswer::Failed(error)) => {
                self.release(caller, admission.hold_id, ReleaseCause::ProviderFailed).await;
                guard.disarm();
                return Err(ChatFailure::of_chain(call, &used, failed, error));
            }
            Err(NoAnswer::Left { .. }) => {
                self.release(caller, admission.hold_id, ReleaseCause::ClientGone).await;
                guard.disarm();
                return Err(ChatFailure::Lost("nobody waited for it"));
            }
        };
        let usage = self.metered_usage(completion.usage, completion.produced, &transcript, call, &used).await;
        let outcome = if reply.is_closed() { UsageOutcome::ClientGone } else { UsageOutcome::Completed };
        let served = Served::new(&admission, &used, &failed);
        let metered = Metered { outcome, usage, model: Some(completion.model), failed };
        let mut body = completion.body;
        let cost = self.cost(&used, usage)?;
        with_bill(&mut body, &served, cost, admission.usage_id)?;
        let elapsed = self.0.clock.now().micros().saturating_sub(admission.at.micros());
        let latency_ms = u64::try_from(elapsed / 1_000).unwrap_or(0);
        let mut answer = ChatAnswer { body, served, usage, cost, latency_ms, positions: Positions::default() };
        let claimed = claim(&answer);
        let settled = self.settle(caller, call, &admission, &used, metered, claimed, Patience::ForAnAnswer).await?;
        guard.disarm();
        answer.positions = settled.positions;
        Ok(answer)
    }
}

fn complete(
    provider: Arc<dyn ChatProvider>,
    request: ChatRequest,
) -> Boxed<'static, Result<Completion, ProviderError>> {
    Box::pin(async move { provider.complete(&request).await })
}

fn embed(provider: Arc<dyn ChatProvider>, request: ChatRequest) -> Boxed<'static, Result<Completion, ProviderError>> {
    Box::pin(async move { provider.embed(&request).await })
}

/// Puts who answered, and the bill, into an answer or a stream's last chunk.
pub(super) fn with_bill(
    body: &mut RawObject,
    served: &Served,
    cost: Cost,
    usage_id: calos_domain::UsageId,
) -> Result<(), ChatFailure> {
    let unwritable = |_| ChatFailure::Lost("its bill could not be written");
    body.set("provider", served.provider.as_str()).map_err(unwritable)?;
    body.set("billing", &Billing::new(cost, usage_id)).map_err(unwritable)
}
