//! What each event of a wallet means for its ledger.

use std::borrow::Cow;

use uuid::Uuid;

use calos_domain::{Asset, Record};

use crate::decode::payload;
use crate::projection::ProjectError;
use crate::wallet_facts::{Deducted, GrantEnded, Granted, Indebted, Repaid, Restored, Reversed, Taken, WalletFact};

/// What differs from one kind of line to the next.
pub(super) struct Movement<'a> {
    pub(super) event: &'static str,
    pub(super) asset: Asset,
    pub(super) amount: i64,
    pub(super) effective_at: Option<i64>,
    pub(super) balance_after: Option<i64>,
    pub(super) debt: i64,
    pub(super) debt_after: Option<i64>,
    pub(super) usage_id: Option<Uuid>,
    pub(super) hold_id: Option<Uuid>,
    pub(super) grant_id: Option<Uuid>,
    pub(super) reason: Cow<'a, str>,
    pub(super) source_ref: Option<Cow<'a, str>>,
}

impl<'a> Movement<'a> {
    fn new(event: &'static str, asset: Asset, amount: i64, reason: impl Into<Cow<'a, str>>) -> Self {
        Self {
            event,
            asset,
            amount,
            effective_at: None,
            balance_after: None,
            debt: 0,
            debt_after: None,
            usage_id: None,
            hold_id: None,
            grant_id: None,
            reason: reason.into(),
            source_ref: None,
        }
    }
}

/// The line of an event; none for one that moves no credit and makes nobody owe.
pub(super) fn movement<'a>(fact: WalletFact, record: &Record<'a>) -> Result<Option<Movement<'a>>, ProjectError> {
    let movement = match fact {
        WalletFact::WalletOpened
        | WalletFact::HoldPlaced
        | WalletFact::HoldReleased
        | WalletFact::UsageRecorded
        | WalletFact::WalletFrozen
        | WalletFact::WalletThawed => return Ok(None),
        WalletFact::CreditsGranted => {
            let event: Granted<'_> = payload(record)?;
            Movement {
                effective_at: Some(event.effective_at),
                balance_after: Some(event.available_after),
                grant_id: Some(event.grant_id),
                source_ref: Some(event.source_ref),
                ..Movement::new("credits_granted", event.asset, event.amount, event.reason.unwrap_or(event.kind))
            }
        }
        WalletFact::CreditsDeducted => {
            let event: Deducted = payload(record)?;
            Movement {
                balance_after: Some(event.available_after),
                usage_id: Some(event.usage_id),
                hold_id: event.hold_id,
                ..Movement::new("credits_deducted", event.asset, taken(event.amount)?, "usage")
            }
        }
        WalletFact::DeductionReversed => {
            let event: Reversed<'_> = payload(record)?;
            Movement {
                balance_after: Some(event.available_after),
                usage_id: Some(event.usage_id),
                ..Movement::new("deduction_reversed", event.asset, event.amount, event.reason)
            }
        }
        WalletFact::GrantExpired => {
            let event: GrantEnded<'_> = payload(record)?;
            Movement {
                effective_at: event.expired_at,
                balance_after: Some(event.available_after),
                grant_id: Some(event.grant_id),
                ..Movement::new("grant_expired", event.asset, taken(event.amount)?, "expired")
            }
        }
        WalletFact::GrantVoided
        | WalletFact::GrantRestored
        | WalletFact::CreditsTaken
        | WalletFact::DebtIncurred
        | WalletFact::DebtRepaid => return correction(fact, record),
    };
    Ok(Some(movement))
}

/// What a claim, its undoing, a taking or a debt did.
fn correction<'a>(fact: WalletFact, record: &Record<'a>) -> Result<Option<Movement<'a>>, ProjectError> {
    let movement = match fact {
        WalletFact::GrantVoided => {
            let event: GrantEnded<'_> = payload(record)?;
            Movement {
                balance_after: Some(event.available_after),
                grant_id: Some(event.grant_id),
                source_ref: event.source_ref,
                ..Movement::new("grant_voided", event.asset, taken(event.amount)?, "voided")
            }
        }
        WalletFact::GrantRestored => {
            let event: Restored<'_> = payload(record)?;
            Movement {
                balance_after: Some(event.available_after),
                debt: taken(event.debt_cancelled)?,
                debt_after: Some(event.debt_after),
                grant_id: Some(event.grant_id),
                source_ref: Some(event.source_ref),
                ..Movement::new("grant_restored", event.asset, event.amount, "restored")
            }
        }
        WalletFact::CreditsTaken => {
            let event: Taken<'_> = payload(record)?;
            Movement {
                effective_at: Some(event.effective_at),
                balance_after: Some(event.available_after),
                source_ref: Some(event.adjustment_id.into()),
                ..Movement::new("credits_taken", event.asset, taken(event.amount)?, event.reason)
            }
        }
        WalletFact::DebtIncurred => {
            let event: Indebted<'_> = payload(record)?;
            Movement {
                debt: event.amount,
                debt_after: Some(event.debt_after),
                source_ref: Some(event.source_ref),
                ..Movement::new("debt_incurred", event.asset, 0, event.cause)
            }
        }
        WalletFact::DebtRepaid => {
            let event: Repaid = payload(record)?;
            Movement {
                balance_after: Some(event.available_after),
                debt: taken(event.amount)?,
                debt_after: Some(event.debt_after),
                grant_id: Some(event.grant_id),
                ..Movement::new("debt_repaid", event.asset, taken(event.amount)?, "debt")
            }
        }
        WalletFact::WalletOpened
        | WalletFact::CreditsGranted
        | WalletFact::HoldPlaced
        | WalletFact::UsageRecorded
        | WalletFact::CreditsDeducted
        | WalletFact::HoldReleased
        | WalletFact::DeductionReversed
        | WalletFact::GrantExpired
        | WalletFact::WalletFrozen
        | WalletFact::WalletThawed => return Ok(None),
    };
    Ok(Some(movement))
}

/// What an event takes, as the negative amount of its line.
fn taken(amount: i64) -> Result<i64, ProjectError> {
    amount.checked_neg().ok_or(ProjectError::OutOfRange { figure: "the amount" })
}
