//! What finance is told when a rule refuses: which rule's refusal is which [`Code`]. Moments are told as people read them.

use calos_commands::adjustments::AdjustRefusal;
use calos_commands::books::BooksError;
use calos_commands::periods::CloseRefusal;
use calos_commands::reconciliation::{ReconcileRefusal, SourceError};
use calos_domain::Timestamp;
use calos_domain::adjustment::AdjustmentRefusal;
use calos_domain::ledger_access::LedgerAccessRefusal;
use calos_domain::period::PeriodRefusal;
use calos_domain::reconciliation::ReconciliationRefusal;
use calos_domain::wallet::WalletRefusal;
use calos_projections::as_of::AsOfError;

use crate::error::{ApiError, Code};
use crate::moment::rfc3339;

/// A refusal that says when.
fn dated(code: Code, name: &'static str, at: Timestamp, message: impl FnOnce(&str) -> String) -> ApiError {
    match rfc3339(at) {
        Ok(at) => ApiError::new(code, message(&at)).with_fact(name, at),
        Err(error) => error,
    }
}

impl From<AsOfError> for ApiError {
    fn from(error: AsOfError) -> Self {
        match error {
            AsOfError::Database(error) => error.into(),
            AsOfError::Behind { .. } => {
                Self::new(Code::ProjectionBehind, "the books have not taken everything yet; try again in a moment")
                    .because(error)
            }
            AsOfError::OutOfRange => Self::internal(error),
        }
    }
}

impl From<LedgerAccessRefusal> for ApiError {
    fn from(refusal: LedgerAccessRefusal) -> Self {
        match refusal {
            LedgerAccessRefusal::NoSuchTenant => Self::not_found("tenant"),
        }
    }
}

impl From<AdjustmentRefusal> for ApiError {
    fn from(refusal: AdjustmentRefusal) -> Self {
        let conflict = || Self::new(Code::Conflict, refusal.to_string());
        match &refusal {
            AdjustmentRefusal::NotProposed => Self::not_found("adjustment"),
            AdjustmentRefusal::IdReused(_) => conflict(),
            AdjustmentRefusal::Nothing => Self::field("amount", &refusal),
            AdjustmentRefusal::OverLimit { limit, .. } => {
                Self::field("amount", &refusal).with_fact("limit", limit.get())
            }
            AdjustmentRefusal::BadText { field, limit, .. } => {
                let name = if field.contains("evidence") { "evidence" } else { "reason" };
                Self::field(name, &refusal).with_fact("max_bytes", *limit)
            }
            AdjustmentRefusal::NotYetEffective { .. } => {
                Self::field("effectiveAt", "an adjustment counts from now or before, not from a moment to come")
            }
            AdjustmentRefusal::OwnProposal => Self::new(Code::OwnProposal, refusal.to_string()),
            AdjustmentRefusal::ApprovedBefore { approvals, needed } => {
                conflict().with_fact("approvals", *approvals).with_fact("approvalsNeeded", *needed)
            }
            AdjustmentRefusal::Applied { at } => {
                dated(Code::Conflict, "appliedAt", *at, |at| format!("the adjustment was applied at {at}"))
            }
            AdjustmentRefusal::Rejected { at } => {
                dated(Code::Conflict, "rejectedAt", *at, |at| format!("the adjustment was rejected at {at}"))
            }
            AdjustmentRefusal::Lapsed { lapsed_at } => dated(Code::Conflict, "lapsedAt", *lapsed_at, |at| {
                format!("the adjustment lapsed at {at}; propose it again")
            }),
            // Ids are drawn here, and lapses are nobody's to ask for.
            AdjustmentRefusal::BadId { .. }
            | AdjustmentRefusal::NotDue { .. }
            | AdjustmentRefusal::NotApproved { .. } => Self::internal(&refusal),
        }
    }
}

impl From<AdjustRefusal> for ApiError {
    fn from(refusal: AdjustRefusal) -> Self {
        match refusal {
            AdjustRefusal::Adjustment(refusal) => refusal.into(),
            AdjustRefusal::Wallet(WalletRefusal::GrantTooOld { forgotten, .. }) => {
                dated(Code::Conflict, "after", forgotten, |at| {
                    format!("the wallet has forgotten grants of {at} and before; give a later effectiveAt")
                })
            }
            // What the wallet has now decides, and it may have more or less later.
            AdjustRefusal::Wallet(refusal) => Self::new(Code::Conflict, format!("the wallet refuses: {refusal}")),
            AdjustRefusal::NoSuchTenant => Self::not_found("tenant"),
        }
    }
}

impl From<PeriodRefusal> for ApiError {
    fn from(refusal: PeriodRefusal) -> Self {
        match &refusal {
            PeriodRefusal::ClosedBefore { month, closed_at } => dated(Code::Conflict, "closedAt", *closed_at, |at| {
                format!("{month} was closed at {at}, and a closed month stays as it is")
            }),
            PeriodRefusal::OutOfOrder { expected, .. } => {
                Self::new(Code::Conflict, refusal.to_string()).with_fact("next", expected.to_string())
            }
            PeriodRefusal::NotOver { month, ends_at, .. } => dated(Code::Conflict, "endsAt", *ends_at, |at| {
                format!("{month} is not over; it can be closed from {at} on")
            }),
            PeriodRefusal::DeadLetters { open } => {
                Self::new(Code::Conflict, refusal.to_string()).with_fact("incomplete", *open)
            }
            PeriodRefusal::Unbalanced { .. } | PeriodRefusal::BadLine { .. } | PeriodRefusal::BadSeal(_) => {
                Self::internal(&refusal)
            }
        }
    }
}

impl From<BooksError> for ApiError {
    fn from(error: BooksError) -> Self {
        match &error {
            BooksError::Behind(_) => {
                Self::new(Code::ProjectionBehind, "the books have not taken everything yet; try again in a moment")
                    .because(&error)
            }
            BooksError::TooMuch { .. } => Self::field("to", &error),
            BooksError::Unavailable(_) => {
                Self::new(Code::DatabaseUnavailable, "the books cannot be asked; try again in a moment").because(&error)
            }
            BooksError::Corrupt(_) => Self::internal(&error),
        }
    }
}

impl From<CloseRefusal> for ApiError {
    fn from(refusal: CloseRefusal) -> Self {
        match refusal {
            CloseRefusal::Period(refusal) => refusal.into(),
            CloseRefusal::Books(error) => error.into(),
        }
    }
}

impl From<ReconciliationRefusal> for ApiError {
    fn from(refusal: ReconciliationRefusal) -> Self {
        match &refusal {
            ReconciliationRefusal::NotRun => Self::not_found("reconciliation"),
            ReconciliationRefusal::NoSuchException { .. } => Self::new(Code::NotFound, refusal.to_string()),
            ReconciliationRefusal::IdReused(_) => Self::new(Code::Conflict, refusal.to_string()),
            ReconciliationRefusal::ImpossibleSpan { .. } => {
                Self::field("to", "a reconciliation is of a span that is over: from, then to, both before now")
            }
            ReconciliationRefusal::BadText { field, limit, .. } => {
                let name = if field.contains("note") { "note" } else { "transactions" };
                Self::field(name, &refusal).with_fact("max_bytes", *limit)
            }
            ReconciliationRefusal::ResolvedBefore { number, resolution, at } => {
                dated(Code::Conflict, "resolvedAt", *at, |at| {
                    format!("the exception {number} was resolved as {} at {at}", resolution.as_str())
                })
            }
            ReconciliationRefusal::BadExceptions { .. } => Self::internal(&refusal),
        }
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        match &error {
            SourceError::Unreadable { .. } | SourceError::Incomplete => Self::field("transactions", &error),
            SourceError::Unavailable(_) => {
                Self::new(Code::ProviderUnavailable, "the statement cannot be fetched; try again in a moment")
                    .because(&error)
            }
        }
    }
}

impl From<ReconcileRefusal> for ApiError {
    fn from(refusal: ReconcileRefusal) -> Self {
        match refusal {
            ReconcileRefusal::Reconciliation(refusal) => refusal.into(),
            ReconcileRefusal::Books(error) => error.into(),
            ReconcileRefusal::Source(error) => error.into(),
            ReconcileRefusal::TooLong { limit } => {
                Self::field("transactions", format!("are more than {limit}; send a shorter span"))
                    .with_fact("max", limit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_as_people_read_it() {
        let at = Timestamp::from_micros(1_793_000_000_000_000);
        for (error, code) in [
            (ApiError::from(AdjustmentRefusal::Applied { at }), "conflict"),
            (ApiError::from(AdjustmentRefusal::Lapsed { lapsed_at: at }), "conflict"),
            (ApiError::from(AdjustmentRefusal::OwnProposal), "own_proposal"),
            (
                ApiError::from(AdjustRefusal::from(WalletRefusal::GrantTooOld { effective_at: at, forgotten: at })),
                "conflict",
            ),
        ] {
            assert_eq!(error.code().as_str(), code);
            assert!(!error.message().contains("Timestamp"), "{}", error.message());
        }
        let applied = ApiError::from(AdjustmentRefusal::Applied { at });
        assert_eq!(applied.message(), "the adjustment was applied at 2026-10-26T07:33:20Z");
    }
}
