//! The parts of wallet events that read models need, borrowed from the stored bytes.
//!
//! Wallet events are nearly all of the log, so they are not decoded whole: a projection looks at the name first and
//! reads only what it uses of the few it cares for.

use std::borrow::Cow;

use serde::Deserialize;
use uuid::Uuid;

use calos_domain::{Asset, Record};

use crate::ProjectError;
use crate::decode::unknown_event;
use crate::kind::Kind;

macro_rules! wallet_facts {
    ($($(#[$doc:meta])* $fact:ident => $name:literal v $version:literal),+ $(,)?) => {
        /// The names of wallet events, told apart before anything of the payload is read.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum WalletFact {
            $($fact),+
        }

        impl WalletFact {
            /// Every stored name and version read here.
            #[cfg(test)]
            pub(crate) const CATALOGUE: &'static [(&'static str, &'static str)] = &[$(($name, $version)),+];

            /// Which event the record holds; none when it is not a wallet's.
            ///
            /// # Errors
            /// [`ProjectError::UnknownAggregate`], or [`ProjectError::UnknownEvent`] of a wallet.
            pub(crate) fn of(record: &Record<'_>) -> Result<Option<Self>, ProjectError> {
                match Kind::of(record.aggregate_type)? {
                    Kind::Wallet => {}
                    Kind::Tenant
                    | Kind::Licence
                    | Kind::ApiKey
                    | Kind::Account
                    | Kind::Session
                    | Kind::Device
                    | Kind::EmailClaim
                    | Kind::Operation
                    | Kind::Payment
                    | Kind::Payout
                    | Kind::Adjustment
                    | Kind::Period
                    | Kind::Reconciliation
                    | Kind::LedgerAccess => return Ok(None),
                }
                match (record.event_type, record.event_version) {
                    $(($name, $version) => Ok(Some(Self::$fact)),)+
                    (_, _) => Err(unknown_event(record)),
                }
            }
        }
    };
}

wallet_facts! {
    WalletOpened => "wallet_opened" v "1",
    CreditsGranted => "credits_granted" v "1",
    HoldPlaced => "hold_placed" v "1",
    UsageRecorded => "usage_recorded" v "1",
    CreditsDeducted => "credits_deducted" v "1",
    HoldReleased => "hold_released" v "1",
    DeductionReversed => "deduction_reversed" v "1",
    GrantExpired => "grant_expired" v "1",
    GrantVoided => "grant_voided" v "1",
    GrantRestored => "grant_restored" v "1",
    CreditsTaken => "credits_taken" v "1",
    DebtIncurred => "debt_incurred" v "1",
    DebtRepaid => "debt_repaid" v "1",
    WalletFrozen => "wallet_frozen" v "1",
    WalletThawed => "wallet_thawed" v "1",
}

/// Of `credits_granted`.
#[derive(Deserialize)]
pub(crate) struct Granted<'a> {
    pub(crate) grant_id: Uuid,
    pub(crate) asset: Asset,
    #[serde(borrow)]
    pub(crate) kind: &'a str,
    pub(crate) amount: i64,
    pub(crate) effective_at: i64,
    #[serde(default)]
    pub(crate) expires_at: Option<i64>,
    #[serde(borrow)]
    pub(crate) source_ref: Cow<'a, str>,
    /// Why, when an approved correction granted it.
    #[serde(borrow, default)]
    pub(crate) reason: Option<&'a str>,
    pub(crate) available_after: i64,
}

/// Of `hold_placed`.
#[derive(Deserialize)]
pub(crate) struct Held<'a> {
    pub(crate) hold_id: Uuid,
    pub(crate) asset: Asset,
    pub(crate) amount: i64,
    #[serde(borrow, default)]
    pub(crate) api_key_id: Option<&'a str>,
    #[serde(default)]
    pub(crate) user_id: Option<Uuid>,
    pub(crate) usage_id: Uuid,
    pub(crate) admitted_at: i64,
    pub(crate) expires_at: i64,
}

/// Of any event that moves an amount of an asset and nothing else that matters to a balance.
#[derive(Deserialize)]
pub(crate) struct Moved {
    pub(crate) asset: Asset,
    pub(crate) amount: i64,
}

/// Of `credits_deducted`.
#[derive(Deserialize)]
pub(crate) struct Deducted {
    pub(crate) usage_id: Uuid,
    #[serde(default)]
    pub(crate) hold_id: Option<Uuid>,
    pub(crate) asset: Asset,
    pub(crate) amount: i64,
    pub(crate) held: i64,
    pub(crate) available_after: i64,
}

/// Of `hold_released`.
#[derive(Deserialize)]
pub(crate) struct HoldEnded {
    pub(crate) hold_id: Uuid,
}

/// Of `deduction_reversed`.
#[derive(Deserialize)]
pub(crate) struct Reversed<'a> {
    pub(crate) usage_id: Uuid,
    pub(crate) asset: Asset,
    pub(crate) amount: i64,
    #[serde(borrow)]
    pub(crate) reason: Cow<'a, str>,
    pub(crate) available_after: i64,
}

/// Of `grant_expired` and `grant_voided`.
#[derive(Deserialize)]
pub(crate) struct GrantEnded<'a> {
    pub(crate) grant_id: Uuid,
    pub(crate) asset: Asset,
    pub(crate) amount: i64,
    #[serde(borrow, default)]
    pub(crate) source_ref: Option<Cow<'a, str>>,
    /// The grant's own date, which is when it ended, whenever that was recorded; none for what came back after it.
    #[serde(default)]
    pub(crate) expired_at: Option<i64>,
    pub(crate) available_after: i64,
}

/// Of `grant_restored`.
#[derive(Deserialize)]
pub(crate) struct Restored<'a> {
    pub(crate) grant_id: Uuid,
    pub(crate) asset: Asset,
    pub(crate) amount: i64,
    pub(crate) debt_cancelled: i64,
    #[serde(borrow)]
    pub(crate) source_ref: Cow<'a, str>,
    pub(crate) available_after: i64,
    pub(crate) debt_after: i64,
}

/// Of `credits_taken`.
#[derive(Deserialize)]
pub(crate) struct Taken<'a> {
    #[serde(borrow)]
    pub(crate) adjustment_id: &'a str,
    pub(crate) asset: Asset,
    pub(crate) amount: i64,
    #[serde(borrow)]
    pub(crate) reason: &'a str,
    pub(crate) effective_at: i64,
    pub(crate) available_after: i64,
}

/// Of `debt_incurred`.
#[derive(Deserialize)]
pub(crate) struct Indebted<'a> {
    pub(crate) asset: Asset,
    pub(crate) amount: i64,
    #[serde(borrow)]
    pub(crate) cause: &'a str,
    #[serde(borrow)]
    pub(crate) source_ref: Cow<'a, str>,
    pub(crate) debt_after: i64,
}

/// Of `debt_repaid`.
#[derive(Deserialize)]
pub(crate) struct Repaid {
    pub(crate) grant_id: Uuid,
    pub(crate) asset: Asset,
    pub(crate) amount: i64,
    pub(crate) debt_after: i64,
    pub(crate) available_after: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use calos_domain::Fact as _;
    use calos_domain::wallet::WalletEvent;

    #[test]
    fn every_event_the_wallet_can_write_is_known_here() {
        assert_eq!(WalletFact::CATALOGUE, WalletEvent::CATALOGUE);
    }
}
