//! Every event that was ever written can be read for ever.
//!
//! `golden/<aggregate>/<event>.v<version>.json` holds one stored payload, byte for byte; `<event>.v<version>.<what>.json`
//! beside it holds another shape of the same version. A file is never changed once its event was written anywhere: a
//! changed event is a new version with a file of its own and a step from the version before. Each version has its file.

/// One test per aggregate: `module => its KIND, its event type`.
macro_rules! golden {
    ($($module:ident => $kind:literal, $event:ty;)+) => {$(
        mod $module {
            #[test]
            fn every_event_has_a_golden_file_and_reads_and_writes_it_the_same() {
                super::files::check::<$event>($kind);
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
    use std::path::{Path, PathBuf};

    use calos_domain::Fact;
    use calos_domain::upcast::{self, Label};

    pub(super) fn check<E: Fact>(kind: &str) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(kind);
        let mut covered = BTreeSet::new();
        for file in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = file.unwrap().path();
            let (name, version) = name_and_version(&path);
            let stored = fs::read_to_string(&path).unwrap();
            let payload = stored.trim_end();
            let label = Label { aggregate_type: kind, event_type: &name, event_version: &version };
            let event: E = upcast::decode(label, payload).unwrap_or_else(|error| panic!("{name}.v{version}: {error}"));
            let written = serde_json::to_string(&event).unwrap();
            if event.version() == version {
                assert_eq!(written, payload, "{name}.v{version} is written otherwise than it was read");
            } else {
                let now = Label { event_version: event.version(), ..label };
                assert_eq!(upcast::decode(now, &written), Ok(event), "{name}.v{version}, written as it is today");
            }
            // The payload is one object whose only key is the stored name.
            assert!(payload.starts_with(&format!("{{\"{name}\":{{")), "{name}.v{version} is not tagged by its name");
            covered.insert((name, version));
        }
        let versions: BTreeSet<_> = versions::<E>(kind).into_iter().collect();
        assert_eq!(covered, versions, "{kind}: the files, and every version that was ever written, differ");
    }

    /// Every name and version this aggregate writes or ever wrote. Each older one leads to today's, by one way.
    fn versions<E: Fact>(kind: &str) -> Vec<(String, String)> {
        let known = |steps: &[upcast::Upcast]| -> Vec<_> {
            steps.iter().map(|step| (step.event_type, step.from, step.to)).collect()
        };
        assert_eq!(known(upcast::steps(kind)), known(E::UPCASTS), "{kind}: readers of parts know other steps");
        let mut versions = Vec::new();
        for &(name, today) in E::CATALOGUE {
            let steps: Vec<_> = E::UPCASTS.iter().filter(|step| step.event_type == name).collect();
            for (index, step) in steps.iter().enumerate() {
                assert_eq!(step.from, (index + 1).to_string(), "{kind}: versions of {name} are counted from 1");
                assert_eq!(step.to, (index + 2).to_string(), "{kind}: no version of {name} is left out");
                versions.push((name.to_owned(), step.from.to_owned()));
            }
            assert_eq!(today, (steps.len() + 1).to_string(), "{kind}: every older {name} leads to today's");
            versions.push((name.to_owned(), today.to_owned()));
        }
        assert_eq!(versions.len(), E::CATALOGUE.len() + E::UPCASTS.len(), "{kind}: a step of an event there is not");
        versions
    }

    /// `<event>.v<version>[.<what>].json`
    fn name_and_version(path: &Path) -> (String, String) {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut parts = file.split('.');
        let (name, version) = (parts.next(), parts.next().and_then(|version| version.strip_prefix('v')));
        let (Some(name), Some(version), true) = (name, version, file.ends_with(".json")) else {
            panic!("{file} is not named <event>.v<version>.json");
        };
        (name.to_owned(), version.to_owned())
    }
}
