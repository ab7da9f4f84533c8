//! Which rows of a read model belong to whom: what can be made anew from a few streams instead of from the whole log.
//!
//! A row can be, when all it says comes from streams under one key: a tenant's or a person's. They lie in one partition, so one
//! checkpoint says how far they were read. A row that sums what several tenants did cannot.

use crate::kind::Kind;
use crate::{
    account_balances, accounts, adjustments, api_keys, journal, open_grants, open_holds, periods,
    projection::Projection, provider_keys, rate_limit_windows, reconciliations, sessions, tenants, trial_balance,
    usage_log, wallet_balance, wallet_days, wallet_ledger,
};

/// What can be made anew of a read model by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All of it or nothing, and why.
    Whole(&'static str),
    /// The rows of one key, or of one stream under it.
    Rows(Rows),
}

/// How rows are found by the streams they were made of. Every table of the read model has these columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows {
    /// Whose streams.
    pub owner: Owner,
    /// The aggregates whose events the rows are made of.
    pub kinds: &'static [Kind],
    /// The column with the streams' key, the part of their ids before the `/`; none when all have the same.
    pub key: Option<&'static str>,
    /// The aggregate whose streams have rows of their own, and the column with the rest of their ids. Rows that are made
    /// of several aggregates' streams are nobody's but the key's.
    pub own: Option<Own>,
    /// What of it is about several tenants, and so stays as it is; nothing when there is none.
    pub left_out: Option<&'static str>,
}

/// A stream's own rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Own {
    /// The aggregate.
    pub kind: Kind,
    /// The column with the rest of the stream's id, what comes after the `/`; none when its id is the key alone.
    pub rest: Option<&'static str>,
}

/// Whose streams rows are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A tenant's.
    Tenant,
    /// A person's.
    Person,
    /// Nobody's in particular.
    Nobody,
}

/// What can be made anew of the read model of that name. One that is not listed here only as a whole: that is always right.
#[must_use]
pub fn scope(projection: &str) -> Scope {
    match projection {
        wallet_balance::WalletBalance::NAME
        | wallet_ledger::WalletLedger::NAME
        | usage_log::UsageLog::NAME
        | rate_limit_windows::RateLimitWindows::NAME
        | open_holds::OpenHolds::NAME
        | open_grants::OpenGrants::NAME => of_tenants(&[Kind::Wallet], Some(Own { kind: Kind::Wallet, rest: None })),
        tenants::Tenants::NAME | provider_keys::ProviderKeys::NAME => {
            of_tenants(&[Kind::Tenant], Some(Own { kind: Kind::Tenant, rest: None }))
        }
        api_keys::ApiKeys::NAME => of_tenants(&[Kind::ApiKey], Some(Own { kind: Kind::ApiKey, rest: Some("key_id") })),
        adjustments::Adjustments::NAME => {
            of_tenants(&[Kind::Adjustment], Some(Own { kind: Kind::Adjustment, rest: Some("adjustment_id") }))
        }
        // Payouts are in the book as well, and nobody's.
        journal::Journal::NAME | wallet_days::WalletDays::NAME => of_tenants(&[Kind::Wallet, Kind::Payment], None),
        account_balances::AccountBalances::NAME => Scope::Rows(Rows {
            left_out: Some("the accounts that are nobody's in particular are sums over every tenant"),
            ..tenants_rows(&[Kind::Wallet, Kind::Payment], None)
        }),
        accounts::Accounts::NAME => of_persons(&[Kind::Account], Own { kind: Kind::Account, rest: None }),
        // Whoever was erased leaves nothing in them, and that stands in the account's stream.
        sessions::Sessions::NAME => {
            of_persons(&[Kind::Session, Kind::Account], Own { kind: Kind::Session, rest: Some("session_id") })
        }
        reconciliations::Reconciliations::NAME => Scope::Rows(Rows {
            owner: Owner::Nobody,
            kinds: &[Kind::Reconciliation],
            key: None,
            own: Some(Own { kind: Kind::Reconciliation, rest: Some("reconciliation_id") }),
            left_out: None,
        }),
        periods::Periods::NAME => Scope::Whole("all of it is made of one stream"),
        trial_balance::TrialBalance::NAME => Scope::Whole("its rows are sums over every tenant"),
        _ => Scope::Whole("nothing is known of whose its rows are"),
    }
}

const fn tenants_rows(kinds: &'static [Kind], own: Option<Own>) -> Rows {
    Rows { owner: Owner::Tenant, kinds, key: Some("tenant_id"), own, left_out: None }
}

const fn of_tenants(kinds: &'static [Kind], own: Option<Own>) -> Scope {
    Scope::Rows(tenants_rows(kinds, own))
}

const fn of_persons(kinds: &'static [Kind], own: Own) -> Scope {
    Scope::Rows(Rows { owner: Owner::Person, kinds, key: Some("user_id"), own: Some(own), left_out: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::ProjectError;
    use crate::registry;
    use crate::samples::Sample;

    #[test]
    fn every_read_model_says_whose_its_rows_are_in_columns_that_all_its_tables_have() {
        for model in registry::ALL {
            let Rows { kinds, key, own, .. } = match scope(model.name()) {
                Scope::Rows(rows) => rows,
                Scope::Whole(why) => {
                    assert!(!why.contains("nothing is known"), "{} is not listed", model.name());
                    continue;
                }
            };
            assert!(!kinds.is_empty() && own.is_none_or(|own| kinds.contains(&own.kind)), "{}", model.name());
            for column in [key, own.and_then(|own| own.rest)].into_iter().flatten() {
                assert!(model.tables().iter().all(|table| table.key.contains(&column)), "{} {column}", model.name());
            }
        }
        assert!(matches!(scope("invented"), Scope::Whole(_)));
    }

    #[test]
    fn every_aggregate_a_read_model_reads_is_among_those_its_rows_are_made_of() {
        for model in registry::ALL {
            let Scope::Rows(rows) = scope(model.name()) else { continue };
            for kind in Kind::ALL {
                let sample = Sample { aggregate_type: kind.as_str(), event_type: "invented", payload: "{}".to_owned() };
                let reads = matches!(model.fold().project(&sample.at(1)), Err(ProjectError::UnknownEvent { .. }));
                // A payout is in the book, but in no tenant's rows.
                let nobodys = *kind == Kind::Payout;
                assert!(!reads || nobodys || rows.kinds.contains(kind), "{} reads {kind:?}", model.name());
            }
        }
    }
}
