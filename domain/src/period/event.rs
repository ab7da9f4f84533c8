//! What can have happened to a month.

use serde::{Deserialize, Serialize};

use crate::operation::PartitionPosition;
use crate::{Asset, Timestamp, UserId};

use super::Month;

/// Everything that happens to months. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeriodEvent {
    /// A month's trial balance was fixed. What is recorded later posts to the open month, with its true effective date.
    PeriodClosed(PeriodClosed),
}

crate::facts!(PeriodEvent {
    PeriodClosed => "period_closed" v "1",
});

/// See [`PeriodEvent::PeriodClosed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeriodClosed {
    /// Which month.
    pub month: Month,
    /// Who closed it.
    pub closed_by: UserId,
    /// When.
    pub closed_at: Timestamp,
    /// The trial balance is as known at this moment: it holds what was recorded until then, and nothing recorded later
    /// can carry an earlier moment.
    pub as_known_at: Timestamp,
    /// How far each partition of the log was when it was fenced at that moment.
    pub heads: Vec<PartitionPosition>,
    /// The trial balance: everything effective up to the month's last microsecond, ascending by account and asset.
    pub lines: Vec<ClosedLine>,
    /// SHA-256 in hex of the month's canonical text: see [`super::canonical_text`].
    pub hash: String,
    /// The hash of the month before; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_hash: Option<String>,
}

/// One line of a closed month's trial balance, in the asset's smallest unit. Its balance is debit minus credit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ClosedLine {
    /// The account, with tenants, grants and holds left out.
    pub account: String,
    /// In which asset.
    pub asset: Asset,
    /// The sum of its debits.
    pub debit: i64,
    /// The sum of its credits.
    pub credit: i64,
}
