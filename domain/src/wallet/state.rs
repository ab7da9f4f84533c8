//! What a wallet's decisions remember, folded from its events.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{Asset, Decider, GrantId, HoldId, TenantId, Timestamp, Units, UsageId};

use super::callers::Callers;
use super::takings::Takings;
use super::uses::Uses;
use super::{EndedUse, FreezeCause, Grant, OpenHold, WalletCommand, WalletEvent, WalletRefusal, prints};

/// A tenant's wallet: one purse per asset, the open holds, and a bounded memory of what ended.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Wallet {
    pub(super) tenant: Option<TenantId>,
    pub(super) frozen: Vec<Freeze>,
    pub(super) usd: Purse,
    pub(super) credit: Purse,
    pub(super) uses: Uses,
    /// Who called of late, and what each key has spent.
    pub(super) callers: Callers,
    /// Grants with nothing left, oldest closed first.
    pub(super) closed: VecDeque<Grant>,
    /// The latest effective date among closed grants that are forgotten.
    pub(super) forgotten_grants: Option<Timestamp>,
    /// Grants ever.
    pub(super) granted_count: u32,
    /// The adjustments that took credit of late.
    pub(super) takings: Takings,
    /// What a following `DebtIncurred` belongs to.
    pub(super) last: Option<DebtOf>,
}

/// One asset's side of a wallet.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Purse {
    /// The sum of what the grants have free.
    pub available: Units,
    /// The sum of open holds.
    pub held: Units,
    /// What is owed.
    pub debt: Units,
    /// All that was ever granted; kept so that no running sum anywhere can leave its range.
    pub granted: Units,
    /// Grants with something free or held, in burn order.
    pub grants: Vec<Grant>,
}

/// Reasons to freeze that are told apart.
pub(super) const FREEZES_REMEMBERED_MAX_COUNT: usize = 1_024;

/// One reason to freeze: its cause, and the fingerprint of the dispute or case behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct Freeze(pub(super) FreezeCause, Option<u64>);

impl Freeze {
    pub(super) fn new(cause: FreezeCause, source_ref: Option<&str>) -> Self {
        Self(cause, source_ref.map(prints::of_reference))
    }

    /// Whether a thaw for this reason ends that one: a cause as such ends with all that stands behind it.
    pub(super) fn ends(&self, other: &Self) -> bool {
        self.0 == other.0 && (self.1.is_none() || self.1 == other.1)
    }
}

/// What was recorded right before a debt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum DebtOf {
    /// A metered use, with the fingerprint of its record.
    #[serde(rename = "u")]
    Use(UsageId, u64),
    /// A claim on a grant.
    #[serde(rename = "g")]
    Claim(GrantId),
}

impl Decider for Wallet {
    const KIND: &'static str = "wallet";
    const SNAPSHOT_VERSION: i32 = 6;

    type Command = WalletCommand;
    type Event = WalletEvent;
    type Refusal = WalletRefusal;

    fn decide(&self, command: WalletCommand) -> Result<Vec<WalletEvent>, WalletRefusal> {
        super::decide::decide(self, command)
    }

    fn evolve(&mut self, event: &WalletEvent) {
        self.fold(event);
    }

    fn weight_bytes(&self) -> usize {
        let grants = self.usd.grants.len() + self.credit.grants.len() + self.closed.len();
        std::mem::size_of::<Self>()
            + grants * std::mem::size_of::<Grant>()
            + self.uses.weight_bytes()
            + self.callers.weight_bytes()
            + self.takings.weight_bytes()
            + self.frozen.len() * std::mem::size_of::<Freeze>()
    }
}

/// What others may ask a wallet's state.
impl Wallet {
    /// Whose wallet it is, once it is open.
    #[must_use]
    pub const fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// Whether the wallet exists.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.tenant.is_some()
    }

    /// Whether spending is stopped.
    #[must_use]
    pub const fn is_frozen(&self) -> bool {
        !self.frozen.is_empty()
    }

    /// Why it is frozen, each cause once; empty when it is not.
    #[must_use]
    pub fn freeze_causes(&self) -> Vec<FreezeCause> {
        let mut causes: Vec<_> = self.frozen.iter().map(|freeze| freeze.0).collect();
        causes.dedup();
        causes
    }

    /// The asset's side.
    #[must_use]
    pub const fn purse(&self, asset: Asset) -> &Purse {
        match asset {
            Asset::Usd => &self.usd,
            Asset::Credit => &self.credit,
        }
    }

    /// Free to be spent, as recorded: a grant whose time ran out counts until that is recorded.
    #[must_use]
    pub const fn available(&self, asset: Asset) -> Units {
        self.purse(asset).available
    }

    /// What a command at `at` could spend: without the grants whose time has run out by then.
    #[must_use]
    pub fn available_at(&self, asset: Asset, at: Timestamp) -> Units {
        let purse = self.purse(asset);
        purse.grants.iter().fold(purse.available, |left, grant| left.saturating_minus(grant.lapsing(at)))
    }

    /// Kept by open holds.
    #[must_use]
    pub const fn held(&self, asset: Asset) -> Units {
        self.purse(asset).held
    }

    /// Owed.
    #[must_use]
    pub const fn debt(&self, asset: Asset) -> Units {
        self.purse(asset).debt
    }

    /// The open holds, by id, with their expiry.
    pub fn open_holds(&self) -> impl Iterator<Item = (HoldId, &OpenHold)> {
        self.uses.open().iter().map(|(id, hold)| (*id, hold))
    }

    /// An open hold.
    #[must_use]
    pub fn hold(&self, hold_id: &HoldId) -> Option<&OpenHold> {
        self.uses.hold(*hold_id)
    }

    /// A hold that ended, as long as it is remembered.
    #[must_use]
    pub fn ended(&self, hold_id: &HoldId) -> Option<&EndedUse> {
        self.uses.ended_hold(*hold_id)
    }

    /// A use that ended, with or without a hold, as long as it is remembered.
    #[must_use]
    pub fn ended_use(&self, usage_id: &UsageId) -> Option<&EndedUse> {
        self.uses.ended_use(*usage_id)
    }

    /// Grants with something free or held, in burn order.
    #[must_use]
    pub fn grants(&self, asset: Asset) -> &[Grant] {
        &self.purse(asset).grants
    }

    /// A grant, open or closed, as long as it is remembered.
    #[must_use]
    pub fn grant(&self, grant_id: &GrantId) -> Option<&Grant> {
        let open = self.usd.grants.iter().chain(&self.credit.grants);
        open.chain(&self.closed).find(|grant| grant.grant_id == *grant_id)
    }

    pub(super) fn grant_numbered(&self, number: u32) -> Option<&Grant> {
        let open = self.usd.grants.iter().chain(&self.credit.grants);
        open.chain(&self.closed).find(|grant| grant.number == number)
    }
}
