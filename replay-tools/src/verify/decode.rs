//! Full decoding: every payload through the domain's own event types, old versions through their upcasters.

use calos_domain::account::AccountEvent;
use calos_domain::adjustment::AdjustmentEvent;
use calos_domain::api_key::ApiKeyEvent;
use calos_domain::device::DeviceEvent;
use calos_domain::email_claim::EmailClaimEvent;
use calos_domain::ledger_access::LedgerAccessEvent;
use calos_domain::licence::LicenceEvent;
use calos_domain::operation::OperationEvent;
use calos_domain::payment::{PaymentEvent, PayoutEvent};
use calos_domain::period::PeriodEvent;
use calos_domain::reconciliation::ReconciliationEvent;
use calos_domain::session::SessionEvent;
use calos_domain::tenant::TenantEvent;
use calos_domain::wallet::WalletEvent;
use calos_domain::{Fact, Record};
use calos_projections::Kind;

use crate::decode::event;

/// Decodes an event as the domain event its aggregate, name and version say it is; or says why it is not.
pub(super) fn check(record: &Record<'_>) -> Result<(), String> {
    let kind = Kind::of(record.aggregate_type).map_err(|error| error.to_string())?;
    match kind {
        Kind::Wallet => decode::<WalletEvent>(record),
        Kind::Tenant => decode::<TenantEvent>(record),
        Kind::Licence => decode::<LicenceEvent>(record),
        Kind::ApiKey => decode::<ApiKeyEvent>(record),
        Kind::Account => decode::<AccountEvent>(record),
        Kind::Session => decode::<SessionEvent>(record),
        Kind::Device => decode::<DeviceEvent>(record),
        Kind::EmailClaim => decode::<EmailClaimEvent>(record),
        Kind::Operation => decode::<OperationEvent>(record),
        Kind::Payment => decode::<PaymentEvent>(record),
        Kind::Payout => decode::<PayoutEvent>(record),
        Kind::Adjustment => decode::<AdjustmentEvent>(record),
        Kind::Period => decode::<PeriodEvent>(record),
        Kind::Reconciliation => decode::<ReconciliationEvent>(record),
        Kind::LedgerAccess => decode::<LedgerAccessEvent>(record),
    }
}

fn decode<E: Fact>(record: &Record<'_>) -> Result<(), String> {
    event::<E>(record).map(drop)
}
