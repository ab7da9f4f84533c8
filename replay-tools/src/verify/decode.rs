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

use crate::decode::{Catalogue, event};

/// Decodes an event as the domain event its aggregate, name and version say it is; or says why it is not.
pub(super) fn check(record: &Record<'_>) -> Result<(), String> {
    let kind = Kind::of(record.aggregate_type).map_err(|error| error.to_string())?;
    match kind {
        Kind::Wallet => decode::<WalletEvent>(record, WalletEvent::CATALOGUE),
        Kind::Tenant => decode::<TenantEvent>(record, TenantEvent::CATALOGUE),
        Kind::Licence => decode::<LicenceEvent>(record, LicenceEvent::CATALOGUE),
        Kind::ApiKey => decode::<ApiKeyEvent>(record, ApiKeyEvent::CATALOGUE),
        Kind::Account => decode::<AccountEvent>(record, AccountEvent::CATALOGUE),
        Kind::Session => decode::<SessionEvent>(record, SessionEvent::CATALOGUE),
        Kind::Device => decode::<DeviceEvent>(record, DeviceEvent::CATALOGUE),
        Kind::EmailClaim => decode::<EmailClaimEvent>(record, EmailClaimEvent::CATALOGUE),
        Kind::Operation => decode::<OperationEvent>(record, OperationEvent::CATALOGUE),
        Kind::Payment => decode::<PaymentEvent>(record, PaymentEvent::CATALOGUE),
        Kind::Payout => decode::<PayoutEvent>(record, PayoutEvent::CATALOGUE),
        Kind::Adjustment => decode::<AdjustmentEvent>(record, AdjustmentEvent::CATALOGUE),
        Kind::Period => decode::<PeriodEvent>(record, PeriodEvent::CATALOGUE),
        Kind::Reconciliation => decode::<ReconciliationEvent>(record, ReconciliationEvent::CATALOGUE),
        Kind::LedgerAccess => decode::<LedgerAccessEvent>(record, LedgerAccessEvent::CATALOGUE),
    }
}

fn decode<E: Fact>(record: &Record<'_>, catalogue: Catalogue) -> Result<(), String> {
    event::<E>(record, catalogue).map(drop)
}
