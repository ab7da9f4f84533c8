//! What can have happened to a tenant's ledger without changing it.

use serde::{Deserialize, Serialize};

use crate::{Timestamp, UserId};

/// Looks at a tenant's ledger. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerAccessEvent {
    /// Somebody who works for CALOS looked.
    LedgerViewed(LedgerViewed),
}

crate::facts!(LedgerAccessEvent {
    LedgerViewed => "ledger_viewed" v "1",
});

/// What was looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerView {
    /// What the wallet holds.
    Balance,
    /// The wallet's movements, one by one.
    Ledger,
    /// A month's statement.
    Statement,
    /// Double entries.
    Journal,
    /// A receipt for one entry.
    Receipt,
    /// An export.
    Export,
}

impl LedgerView {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::Balance, Self::Ledger, Self::Statement, Self::Journal, Self::Receipt, Self::Export];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::Ledger => "ledger",
            Self::Statement => "statement",
            Self::Journal => "journal",
            Self::Receipt => "receipt",
            Self::Export => "export",
        }
    }
}

/// See [`LedgerAccessEvent::LedgerViewed`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerViewed {
    /// Who looked.
    pub by: UserId,
    /// At what.
    pub what: LedgerView,
    /// When.
    pub at: Timestamp,
}
