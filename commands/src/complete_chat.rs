//! The gateway's use case: hold, call, settle or release.
//!
//! Every call runs in a task of its own, so that whoever asked may leave without taking the bill along: [`admit`]
//! decides on the key, the licence, the route and the hold; [`dispatch`] calls while the hold commits, and [`attempts`]
//! asks one provider after the other, within what [`traffic`] allows, [`route`] having said whom; [`whole`] and
//! [`streamed`] bring the answer home; [`settle`] charges what was used. A [`hold::HoldGuard`] ends the hold whatever
//! else goes wrong, and `processes::expire_holds` ends it when the whole process does.

mod admit;
mod attempts;
mod betas;
mod blame;
mod breaker;
mod catalogue;
mod circuits;
mod count;
mod dispatch;
mod embeddings;
mod failure;
mod figures;
mod hold;
mod limits;
mod messages;
mod metering;
mod request;
mod route;
mod settle;
mod streamed;
mod toolless;
mod traffic;
mod whole;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use calos_domain::pricing::{Cost, PriceBook, Provider};
use calos_domain::routing::personas::Persona;
use calos_domain::wallet::FailedAttempt;
use calos_domain::{KeyId, TenantId, UsageId};

pub use admit::{ANSWER_MIN_TOKENS, HOLD_MAX_SECONDS};
pub use breaker::{CircuitState, OPEN_AFTER_FAILURES, PAUSE_FIRST};
pub use catalogue::{ListedModel, ProviderState};
pub use circuits::Circuit;
pub use embeddings::{INPUT_MAX_TOKENS, INPUTS_MAX, VectorEncoding, VectorSizes};
pub use failure::ChatFailure;
pub use figures::{FailureKind, GatewayFigures, ProviderFigures};
pub use limits::{LimitStatus, TokenStatus};
pub(crate) use request::is_model_name;
pub use request::{BadRequest, CHOICES_MAX, CallKind, ChatCall, MESSAGES_MAX};
pub use route::{Found, Routing};
pub use streamed::{ChatStream, Piece};
pub use traffic::{CallSlots, LOCAL_MAX_CALLS, PAID_MAX_CALLS, SLOT_WAIT_MAX};
pub use whole::{ChatAnswer, ClaimAnswer};

use crate::byok::ProviderKeys;
use crate::in_request::carried;
use crate::log::EventLog;
use crate::metadata::Metadata;
use crate::ports::{Clock, Randomness, World};
use crate::provider::ChatProvider;
use crate::tokens::TokenCounter;
use admit::{Admission, Candidate};
use catalogue::Catalogue;
use toolless::Toolless;
use traffic::Traffic;

/// The providers this installation can reach, with its own keys or its tenants'.
pub type Providers = BTreeMap<Provider, Arc<dyn ChatProvider>>;

/// Who calls, in whose name.
#[derive(Clone, Debug)]
pub struct ChatCaller {
    /// Whose wallet pays.
    pub tenant_id: TenantId,
    /// The key that called, when a key called; it is looked at again on its aggregate.
    pub key_id: Option<KeyId>,
    /// The envelope of everything that follows.
    pub metadata: Metadata,
}

/// What a call cost, as the client reads it. `total = provider cost + markup` holds in micro-dollars; each figure in
/// cents is rounded half up by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Billing {
    /// What the provider charges, in cents.
    pub provider_cost_cents: i64,
    /// What CALOS adds, in cents.
    pub markup_cost_cents: i64,
    /// What the tenant pays, in cents.
    pub total_cost_cents: i64,
    /// What the tenant pays, exactly.
    pub total_cost_micros: i64,
    /// The use, as it stands in the usage log.
    pub usage_id: UsageId,
}

impl Billing {
    /// The figures of a cost.
    #[must_use]
    pub const fn new(cost: Cost, usage_id: UsageId) -> Self {
        Self {
            provider_cost_cents: cost.provider_cost.cents_half_up(),
            markup_cost_cents: cost.markup.cents_half_up(),
            total_cost_cents: cost.total.cents_half_up(),
            total_cost_micros: cost.total.get(),
            usage_id,
        }
    }
}

/// Which provider and model answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    /// The provider's name.
    pub provider: Provider,
    /// The model, by the provider's name for it.
    pub model: String,
    /// The model the client named, when another took its place.
    pub substituted_for: Option<String>,
    /// In whose voice, when a persona's was lent.
    pub persona: Option<Persona>,
    /// How it was found.
    pub found: Found,
    /// The use, as it will stand in the usage log.
    pub usage_id: UsageId,
    /// Where the caller stands with its limits, this call counted.
    pub limits: LimitStatus,
}

impl Served {
    fn new(admission: &Admission, used: &Candidate, failed: &[FailedAttempt]) -> Self {
        Self {
            provider: used.route.provider,
            model: used.route.model.clone(),
            substituted_for: used.route.substituted_for.clone(),
            persona: used.persona,
            found: admission.found(used, failed),
            usage_id: admission.usage_id,
            limits: admission.limits,
        }
    }
}

/// The gateway: one per process, shared by every request.
pub struct Gateway<L>(Arc<Inner<L>>);

struct Inner<L> {
    log: L,
    providers: Providers,
    platform: Vec<Provider>,
    book: &'static PriceBook,
    catalogue: Catalogue,
    traffic: Traffic,
    toolless: Toolless,
    figures: GatewayFigures,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
    own_keys: Arc<dyn ProviderKeys>,
    counter: Arc<dyn TokenCounter>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl<L> Clone for Gateway<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<L> fmt::Debug for Gateway<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("platform", &self.0.platform).finish_non_exhaustive()
    }
}

impl<L: EventLog> Gateway<L> {
    /// A gateway over these providers, with the price book in force; tenants' own keys come from `own_keys`,
    /// and `counter` counts what providers do not report.
    #[must_use]
    pub fn new(
        log: L,
        providers: Providers,
        own_keys: Arc<dyn ProviderKeys>,
        counter: Arc<dyn TokenCounter>,
        world: &World,
    ) -> Self {
        Self::with_slots(log, providers, own_keys, counter, world, CallSlots::default())
    }

    /// The same, with so many calls under way at each provider as `slots` says.
    #[must_use]
    pub fn with_slots(
        log: L,
        providers: Providers,
        own_keys: Arc<dyn ProviderKeys>,
        counter: Arc<dyn TokenCounter>,
        world: &World,
        slots: CallSlots,
    ) -> Self {
        let ours = providers.iter().filter(|(_, adapter)| adapter.has_platform_account());
        let platform = ours.map(|(provider, _)| *provider).collect();
        Self(Arc::new(Inner {
            log,
            providers,
            platform,
            book: PriceBook::current(),
            catalogue: Catalogue::default(),
            traffic: Traffic::new(slots),
            toolless: Toolless::default(),
            figures: GatewayFigures::default(),
            clock: Arc::clone(&world.clock),
            randomness: Arc::clone(&world.randomness),
            own_keys,
            counter,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }))
    }

    /// How a provider is reached, with the platform's own key or a tenant's; none when nothing is configured for it.
    #[must_use]
    pub fn provider(&self, provider: Provider) -> Option<&dyn ChatProvider> {
        self.0.providers.get(&provider).map(AsRef::as_ref)
    }

    /// The providers it can reach with the platform's own keys.
    #[must_use]
    pub fn platform(&self) -> &[Provider] {
        &self.0.platform
    }

    /// The circuits of the platform's own accounts that are, or were of late, in trouble; all others are closed.
    #[must_use]
    pub fn circuits(&self) -> Vec<Circuit> {
        self.0.traffic.platform_circuits()
    }

    /// Does work to its end, though whoever waits for it may go away; [`Self::stop`] waits for it. None when its task broke
    /// off.
    pub async fn to_the_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.tasks.spawn(carried(async move {
            let done = work.await;
            if reply.send(done).is_err() {
                tracing::debug!("done, but nobody waits for it");
            }
        }));
        answer.await.ok()
    }

    /// Breaks off what providers are still writing, charges what they wrote, and waits until every hold has ended.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calos_domain::MicroUsd;

    #[test]
    fn a_bill_rounds_each_figure_half_up_and_keeps_the_exact_one() {
        let cost =
            Cost { provider_cost: MicroUsd::new(34_999), markup: MicroUsd::new(5_000), total: MicroUsd::new(39_999) };
        let billing = Billing::new(cost, UsageId(uuid::Uuid::nil()));
        assert_eq!((billing.provider_cost_cents, billing.markup_cost_cents, billing.total_cost_cents), (3, 1, 4));
        assert_eq!(billing.total_cost_micros, 39_999);
    }
}
