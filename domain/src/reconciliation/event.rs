//! What can have happened to a reconciliation.

use serde::{Deserialize, Serialize};

use crate::{MicroUsd, ReconciliationId, Timestamp, UserId};

/// Everything that happens to a reconciliation. Stored as `{"<name>": {…}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReconciliationEvent {
    /// Both sides were compared.
    ReconciliationRun(ReconciliationRun),
    /// Somebody is to find out about an exception.
    ExceptionAssigned(ExceptionAssigned),
    /// Somebody did.
    ExceptionResolved(ExceptionResolved),
}

crate::facts!(ReconciliationEvent {
    ReconciliationRun => "reconciliation_run" v "1",
    ExceptionAssigned => "exception_assigned" v "1",
    ExceptionResolved => "exception_resolved" v "1",
});

/// In which way the two sides do not agree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExceptionKind {
    /// They have it, the books do not.
    MissingHere,
    /// The books have it, they do not.
    MissingThere,
    /// Both have it, with another amount or fee.
    Different,
    /// One side has it twice.
    Duplicate,
}

impl ExceptionKind {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingHere => "missing_here",
            Self::MissingThere => "missing_there",
            Self::Different => "different",
            Self::Duplicate => "duplicate",
        }
    }
}

/// One side of an exception.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Side {
    /// What came in, before the fee; below zero what went out.
    pub amount: MicroUsd,
    /// What was kept of it.
    pub fee: MicroUsd,
    /// When it moved.
    pub at: Timestamp,
}

/// Something on which the two sides do not agree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exception {
    /// Counted from 1 within the run.
    pub number: u32,
    /// In which way.
    pub kind: ExceptionKind,
    /// What both sides call it: a charge, refund, dispute or payout.
    pub reference: String,
    /// What the books say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours: Option<Side>,
    /// What they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Side>,
}

/// See [`ReconciliationEvent::ReconciliationRun`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReconciliationRun {
    /// The run.
    pub reconciliation_id: ReconciliationId,
    /// Who keeps the account: `stripe`.
    pub source: String,
    /// From when.
    pub from: Timestamp,
    /// Up to when, that moment left out.
    pub to: Timestamp,
    /// Movements on which both sides agree.
    pub matched: u64,
    /// Exceptions found, those left out below counted too.
    pub found: u64,
    /// The first of the exceptions.
    pub exceptions: Vec<Exception>,
    /// Of their transactions: outside the span, and so not compared.
    pub outside: u64,
    /// SHA-256 in hex of what they said, so that the same statement can be told from another.
    pub statement_hash: String,
    /// Who ran it.
    pub run_by: UserId,
    /// When.
    pub run_at: Timestamp,
}

/// See [`ReconciliationEvent::ExceptionAssigned`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExceptionAssigned {
    /// Which exception.
    pub number: u32,
    /// Who is to find out.
    pub owner: UserId,
    /// Who said so.
    pub by: UserId,
    /// When.
    pub at: Timestamp,
}

/// What became of an exception.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It is on both sides, in different spans.
    Timing,
    /// The books were put right.
    CorrectedHere,
    /// They put it right.
    CorrectedThere,
    /// It is none of this product's business: another use of the account.
    NotOurs,
    /// It is borne as a loss or a gain.
    WrittenOff,
}

impl Resolution {
    /// Every one of them.
    pub const ALL: [Self; 5] =
        [Self::Timing, Self::CorrectedHere, Self::CorrectedThere, Self::NotOurs, Self::WrittenOff];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timing => "timing",
            Self::CorrectedHere => "corrected_here",
            Self::CorrectedThere => "corrected_there",
            Self::NotOurs => "not_ours",
            Self::WrittenOff => "written_off",
        }
    }
}

/// See [`ReconciliationEvent::ExceptionResolved`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExceptionResolved {
    /// Which exception.
    pub number: u32,
    /// What became of it.
    pub resolution: Resolution,
    /// How that is known, in words an auditor can read.
    pub note: String,
    /// Who resolved it.
    pub by: UserId,
    /// When.
    pub at: Timestamp,
}
