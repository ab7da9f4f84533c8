//! What can be asked of a wallet. Every moment, id and price is resolved before it comes here.

use crate::{AdjustmentId, Asset, GrantId, HoldId, MicroUsd, TenantId, Timestamp, Units, UsageId};

use super::{
    AdjustmentReason, CallTerms, Caller, DebtCause, FreezeCause, GrantKind, Meter, ReleaseCause, UsageRecorded,
};

/// What can be asked of a wallet. Repeating a command under the same id changes nothing and is no error; the same id
/// with other content is refused.
#[derive(Clone, PartialEq, Debug)]
pub enum WalletCommand {
    /// Opens the tenant's wallet.
    OpenWallet {
        /// Whose.
        tenant_id: TenantId,
        /// When.
        opened_at: Timestamp,
    },
    /// Brings credit in; standing debt is repaid from it first.
    GrantCredits {
        /// The grant's id.
        grant_id: GrantId,
        /// In which asset.
        asset: Asset,
        /// Why.
        kind: GrantKind,
        /// How much, at least 1.
        amount: Units,
        /// Lower burns first.
        priority: i16,
        /// From when it counts: not later than `at`, but for a little difference of clocks.
        effective_at: Timestamp,
        /// Until when, if not for ever.
        expires_at: Option<Timestamp>,
        /// What was really paid for it.
        cost_basis: MicroUsd,
        /// Where it comes from.
        source_ref: String,
        /// What it corrects, when it is an approved adjustment.
        reason: Option<AdjustmentReason>,
        /// Now.
        at: Timestamp,
    },
    /// Reserves credit for one use, in burn order. The ids are UUIDv7; both may be the same UUID.
    PlaceHold {
        /// The hold's id.
        hold_id: HoldId,
        /// In which asset.
        asset: Asset,
        /// How much; zero for a free route.
        amount: Units,
        /// For what.
        meter: Meter,
        /// Who calls; none for what CALOS does by itself.
        caller: Option<Caller>,
        /// What the caller is held to. Not part of the content.
        terms: CallTerms,
        /// The use this pays for: its own, shared with no other hold.
        usage_id: UsageId,
        /// Now. Not part of the content: a repetition may carry another moment.
        admitted_at: Timestamp,
        /// When the hold returns by itself. Not part of the content either.
        expires_at: Timestamp,
    },
    /// Spends a hold with what was really used: less returns the rest, more takes from available, then becomes debt. A
    /// hold that expired meanwhile is settled from available.
    SettleHold {
        /// The hold.
        hold_id: HoldId,
        /// The metered use.
        usage: UsageRecorded,
        /// What it costs in the hold's asset; for `USD` the usage's total.
        amount: Units,
        /// Now.
        at: Timestamp,
    },
    /// Ends a hold unspent.
    ReleaseHold {
        /// The hold.
        hold_id: HoldId,
        /// Why.
        cause: ReleaseCause,
        /// Now.
        at: Timestamp,
    },
    /// Spends without a hold: a use that could not be held for beforehand.
    Charge {
        /// The metered use; its id is this command's id.
        usage: UsageRecorded,
        /// In which asset.
        asset: Asset,
        /// What it costs; for `USD` the usage's total.
        amount: Units,
        /// How much the tenant may owe altogether afterwards; zero refuses what available does not cover.
        debt_limit: Units,
        /// What such debt is called.
        debt_cause: DebtCause,
        /// Now.
        at: Timestamp,
    },
    /// Undoes a deduction, last burnt first. The debt a use led to is not undone by it: an adjustment grant repays that.
    ReverseDeduction {
        /// The use whose deduction is undone.
        usage_id: UsageId,
        /// How much of the deduction is to stand undone altogether; what is undone already counts.
        amount: Units,
        /// Why, in words an auditor can read.
        reason: String,
        /// Now.
        at: Timestamp,
    },
    /// Records that a grant's time has run out, also when nothing is left of it: asked again, there is nothing to do.
    ExpireGrant {
        /// The grant.
        grant_id: GrantId,
        /// Now.
        at: Timestamp,
    },
    /// Claims credit of a grant back: what is unspent is taken, what was spent (or is held) becomes debt, which other
    /// grants repay at once as far as they have anything free.
    VoidGrant {
        /// The grant.
        grant_id: GrantId,
        /// How much is claimed.
        claimed: Units,
        /// What the debt is called, should there be any.
        cause: DebtCause,
        /// The refund, dispute or decision: its own id within the grant.
        source_ref: String,
        /// Now.
        at: Timestamp,
    },
    /// Undoes a claim exactly, a dispute that was won: what it took comes back, and so does what has repaid its debt
    /// since; the rest of its debt is owed no more. The reference can then not be claimed again.
    RestoreGrant {
        /// The grant.
        grant_id: GrantId,
        /// The reference of the claim.
        source_ref: String,
        /// Now.
        at: Timestamp,
    },
    /// Takes credit by an approved correction, in burn order; refused beyond what is available.
    TakeCredits {
        /// The adjustment, UUIDv7.
        adjustment_id: AdjustmentId,
        /// In which asset.
        asset: Asset,
        /// How much, at least 1.
        amount: Units,
        /// Why.
        reason: AdjustmentReason,
        /// From when it counts: not later than `at`, but for a little difference of clocks.
        effective_at: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// Stops spending. Open holds may still be settled.
    Freeze {
        /// Why; several causes may stand at once.
        cause: FreezeCause,
        /// The dispute or case behind it, so that several of one cause stand beside each other; none for the cause as
        /// such.
        source_ref: Option<String>,
    },
    /// Takes one reason to freeze away.
    Thaw {
        /// Which.
        cause: FreezeCause,
        /// The dispute or case that ended; none takes the cause away with all that stands behind it.
        source_ref: Option<String>,
    },
}
