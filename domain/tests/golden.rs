//! Every event that was ever written can be read for ever.
//!
//! `golden/<aggregate>/<event>.v<version>.json` holds one stored payload, byte for byte; `<event>.v<version>.<what>.json`
//! beside it holds another shape of the same version. A file is never changed once its event was written anywhere: a
//! changed event is a new version with a file of its own and an upcaster.

/// One test per aggregate: `module => its KIND, its event type`.
macro_rules! golden {
    ($($module:ident => $kind:literal, $event:ty;)+) => {$(
        mod $module {
            #[test]
            fn every_event_has_a_golden_file_and_reads_and_writes_it_the_same() {
                super::files::check::<$event>($kind, <$event>::CATALOGUE);
            }
        }
    )+};
}

golden! {
    wallet => "wallet", calos_domain::wallet::WalletEvent;
    licence => "licence", calos_domain::licence::LicenceEvent;
    operation => "operation", calos_domain::operation::OperationEvent;
    account => "account", calos_domain::account::AccountEvent;
    session => "session", calos_domain::session::SessionEvent;
    device => "device", calos_domain::device::DeviceEvent;
    email_claim => "email_claim", calos_domain::email_claim::EmailClaimEvent;
    tenant => "tenant", calos_domain::tenant::TenantEvent;
    api_key => "api_key", calos_domain::api_key::ApiKeyEvent;
    adjustment => "adjustment", calos_domain::adjustment::AdjustmentEvent;
    period => "period", calos_domain::period::PeriodEvent;
    reconciliation => "reconciliation", calos_domain::reconciliation::ReconciliationEvent;
    ledger_access => "ledger_access", calos_domain::ledger_access::LedgerAccessEvent;
    payment => "payment", calos_domain::payment::PaymentEvent;
    payout => "payout", calos_domain::payment::PayoutEvent;
}

#[cfg(test)]
mod files {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    use calos_domain::Fact;

    pub(super) fn check<E: Fact>(kind: &str, catalogue: &[(&str, &str)]) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(kind);
        let mut covered = BTreeSet::new();
        for file in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = file.unwrap().path();
            let file_name = path.file_name().unwrap().to_string_lossy().into_owned();
            let stored = fs::read_to_string(&path).unwrap();
            let payload = stored.trim_end();
            let event: E = serde_json::from_str(payload).unwrap_or_else(|error| panic!("{file_name}: {error}"));
            assert_eq!(
                serde_json::to_string(&event).unwrap(),
                payload,
                "{file_name} is written otherwise than it was read"
            );
            let expected = format!("{}.v{}.", event.name(), event.version());
            assert!(file_name.starts_with(&expected), "{file_name} holds {expected}");
            covered.insert((event.name().to_owned(), event.version().to_owned()));
            // The payload is one object whose only key is the stored name.
            assert!(
                payload.starts_with(&format!("{{\"{}\":{{", event.name())),
                "{file_name} is not tagged by its name"
            );
        }
        let catalogued: BTreeSet<_> =
            catalogue.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        assert_eq!(covered, catalogued, "{kind}: files and catalogue differ");
    }
}
