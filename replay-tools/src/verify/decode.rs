//! Full decoding: every payload through the domain's own event types, old versions through their upcasters.

use calos_adapters::postgres::upcast::upcast;
use calos_domain::account::AccountEvent;
use calos_domain::api_key::ApiKeyEvent;
use calos_domain::device::DeviceEvent;
use calos_domain::email_claim::EmailClaimEvent;
use calos_domain::licence::LicenceEvent;
use calos_domain::operation::OperationEvent;
use calos_domain::session::SessionEvent;
use calos_domain::tenant::TenantEvent;
use calos_domain::wallet::WalletEvent;
use calos_domain::{Fact, Record};
use calos_projections::Kind;

type Catalogue = &'static [(&'static str, &'static str)];

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
    }
}

fn decode<E: Fact>(record: &Record<'_>, catalogue: Catalogue) -> Result<(), String> {
    let (name, version) = (record.event_type, record.event_version);
    let unreadable =
        |error: serde_json::Error| format!("the payload of {name} version {version} does not decode: {error}");
    let event: E = if catalogue.contains(&(name, version)) {
        serde_json::from_str(record.payload).map_err(unreadable)?
    } else {
        let current = upcast(name, version, serde_json::from_str(record.payload).map_err(unreadable)?);
        serde_json::from_value(current)
            .map_err(|error| format!("{name} version {version} is no event of {}: {error}", record.aggregate_type))?
    };
    if event.name() == name {
        Ok(())
    } else {
        Err(format!("the payload holds {}, but the event is called {name}", event.name()))
    }
}
