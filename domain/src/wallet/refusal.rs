//! Why a wallet refuses, with the numbers.

use uuid::Uuid;

use crate::money::OutOfRange;
use crate::{Asset, GrantId, HoldId, MicroUsd, TenantId, Timestamp, Units, UsageId};

use super::{BudgetPeriod, WindowStatus};

/// Why a wallet refuses a command. A refused command changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WalletRefusal {
    /// No wallet was opened here.
    #[error("the wallet is not open")]
    NotOpen,
    /// The wallet belongs to somebody else.
    #[error("the wallet belongs to tenant {0}")]
    BelongsTo(TenantId),
    /// Spending is stopped.
    #[error("the wallet is frozen")]
    Frozen,
    /// Not enough credit. With `held` put back it might be enough: then waiting helps, otherwise only a top-up.
    #[error("needs {needed} {asset}, has {available} ({held} held)")]
    InsufficientCredit {
        /// The asset.
        asset: Asset,
        /// What the command needs.
        needed: Units,
        /// What is available, with the debt that would be allowed.
        available: Units,
        /// What open holds keep.
        held: Units,
    },
    /// The caller has used a window of its limits up.
    #[error("{} calls a {} are allowed, {} were made", .0.limit, .0.window.as_str(), .0.used)]
    RateLimited(WindowStatus),
    /// The call could take the key beyond its budget. With `held` put back it might fit: then waiting helps.
    #[error(
        "needs {needed} micro-dollars of the key's budget of {budget} a {}: {spent} are spent, {held} held",
        period.as_str()
    )]
    BudgetExceeded {
        /// Which budget.
        period: BudgetPeriod,
        /// How much it is.
        budget: MicroUsd,
        /// What the key's calls have cost in the period.
        spent: MicroUsd,
        /// What its open holds keep.
        held: MicroUsd,
        /// What the call may cost.
        needed: MicroUsd,
        /// When the next period begins.
        ends_at: Timestamp,
    },
    /// The id already stands for something else.
    #[error("the id {id} was used before with other content")]
    IdReused {
        /// The id.
        id: Uuid,
    },
    /// The id is older than what the wallet remembers, so it cannot be told whether it was used before.
    #[error("the id {id} is too old: ids up to {forgotten_ms} ms since 1970 are no longer remembered")]
    IdTooOld {
        /// The id.
        id: Uuid,
        /// The newest forgotten millisecond.
        forgotten_ms: u64,
    },
    /// The id's own time is ahead of the command's.
    #[error("the id {id} is of a time to come: it says {id_ms} ms, the clock says {now_ms} ms")]
    IdAhead {
        /// The id.
        id: Uuid,
        /// The id's millisecond.
        id_ms: u64,
        /// The command's millisecond.
        now_ms: i64,
    },
    /// The id does not carry its time.
    #[error("the id {id} is no UUIDv7")]
    IdNotOrdered {
        /// The id.
        id: Uuid,
    },
    /// No such hold.
    #[error("there is no hold {0}")]
    NoSuchHold(HoldId),
    /// The hold has ended another way.
    #[error("the hold {0} has already ended")]
    HoldEnded(HoldId),
    /// The hold's or the grant's time has not run out.
    #[error("too early: it is {at:?}, due {due:?}")]
    NotDue {
        /// The command's moment.
        at: Timestamp,
        /// When it is due; none for never.
        due: Option<Timestamp>,
    },
    /// More open holds than a wallet may have.
    #[error("{open} holds are open, {limit} are allowed")]
    TooManyHolds {
        /// Open ones.
        open: usize,
        /// The bound.
        limit: usize,
    },
    /// No such grant, or one forgotten long ago.
    #[error("there is no grant {0}")]
    NoSuchGrant(GrantId),
    /// The grant a deduction took from was closed so long ago that it is forgotten; an adjustment grant corrects it.
    #[error("the wallet's grant number {number} is no longer remembered")]
    GrantForgotten {
        /// Counted from 1 within the wallet.
        number: u32,
    },
    /// More open grants than a wallet may have.
    #[error("{open} grants are open, {limit} are allowed")]
    TooManyGrants {
        /// Open ones.
        open: usize,
        /// The bound.
        limit: usize,
    },
    /// The grant would count from a moment to come, or end before it begins.
    #[error("a grant effective at {effective_at:?} and expiring at {expires_at:?} makes no sense at {at:?}")]
    ImpossibleTerm {
        /// From when.
        effective_at: Timestamp,
        /// Until when.
        expires_at: Option<Timestamp>,
        /// Now.
        at: Timestamp,
    },
    /// The grant is older than what the wallet remembers, so it cannot be told whether it was granted before.
    #[error("a grant effective at {effective_at:?} is too old: closed grants up to {forgotten:?} are forgotten")]
    GrantTooOld {
        /// From when it would count.
        effective_at: Timestamp,
        /// Up to when closed grants are forgotten.
        forgotten: Timestamp,
    },
    /// More is claimed back than was granted.
    #[error("claims {claimed}, but only {left} of the grant is left to claim")]
    ClaimTooLarge {
        /// What is claimed.
        claimed: Units,
        /// What earlier claims left.
        left: Units,
    },
    /// No claim of this reference was made on the grant, so there is nothing to undo.
    #[error("the grant {0} has met no such claim")]
    NoSuchClaim(GrantId),
    /// A correction would count from a moment to come.
    #[error("a correction effective at {effective_at:?} makes no sense at {at:?}")]
    EffectiveAhead {
        /// From when.
        effective_at: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// More separate claims than one grant may have.
    #[error("the grant has met {0} claims already")]
    TooManyClaims(usize),
    /// No deduction of this use is remembered.
    #[error("there is no deduction for the use {0}")]
    NoSuchUse(UsageId),
    /// More is to be undone than was deducted, or less than is undone already.
    #[error("asks for {asked} undone; deducted were {deducted}, undone are {reversed}")]
    ReversalOutOfBounds {
        /// What is to stand undone.
        asked: Units,
        /// What was deducted.
        deducted: Units,
        /// What is undone already.
        reversed: Units,
    },
    /// The metered use is not the one the hold is for.
    #[error("the hold is for the use {expected}, not for {given}")]
    OtherUse {
        /// The hold's.
        expected: UsageId,
        /// The command's.
        given: UsageId,
    },
    /// The figures do not add up: the total must be the sum of its parts, and the amount in dollars the total.
    #[error("the figures do not add up: {parts} and {total} make no {amount}")]
    WrongTotal {
        /// Provider cost and markup together.
        parts: Units,
        /// The total as recorded.
        total: Units,
        /// What was to be deducted.
        amount: Units,
    },
    /// An amount below what is allowed.
    #[error("an amount of {amount} is below {least}")]
    AmountTooSmall {
        /// The amount.
        amount: Units,
        /// The least allowed.
        least: i64,
    },
    /// A hold that ends before it begins.
    #[error("the hold would expire at {expires_at:?}, not after {admitted_at:?}")]
    ImpossibleHold {
        /// Its beginning.
        admitted_at: Timestamp,
        /// Its end.
        expires_at: Timestamp,
    },
    /// A text too long to keep.
    #[error("a text of {bytes} bytes is longer than {limit}")]
    TextTooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A sum would leave the range of a 64-bit integer.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}
