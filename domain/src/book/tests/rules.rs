//! The whitelist against a table written out by hand: every pair that is not in it is refused.

use super::*;
use crate::wallet::AdjustmentReason;

/// One account of each sort.
fn sorts() -> Vec<(&'static str, Account)> {
    vec![
        ("available", available(1)),
        ("unallocated", Account::Unallocated(tenant())),
        ("held", held()),
        ("debt", Account::Debt(tenant())),
        ("issued", Account::Issued(GrantKind::Purchase)),
        ("usage", Account::Usage(Meter::Voice)),
        ("breakage", Account::Breakage),
        ("voided", Account::Voided),
        ("adjustment", Account::Adjustment(AdjustmentReason::Goodwill)),
        ("stripe", Account::StripeBalance),
        ("disputed", Account::StripeDisputed),
        ("bank", Account::Bank),
        ("out of band", Account::OutOfBand),
        ("deferred", Account::Deferred(GrantKind::Purchase)),
        ("fees", Account::StripeFees),
        ("dispute loss", Account::DisputeLoss),
        ("provider", Account::provider("openai")),
    ]
}

/// Debit, and the credits it may stand against, in either asset.
const CREDIT_MAY_MEET: [(&str, &[&str]); 8] = [
    ("issued", &["available"]),
    ("adjustment", &["available"]),
    ("usage", &["available"]),
    ("available", &["held", "usage", "breakage", "voided", "adjustment", "debt"]),
    ("held", &["available", "unallocated", "usage"]),
    ("debt", &["usage", "voided"]),
    ("voided", &["available", "debt"]),
    ("unallocated", &[]),
];

/// What may meet in dollars besides.
const MONEY_MAY_MEET: [(&str, &[&str]); 11] = [
    ("deferred", &["issued", "usage", "breakage", "voided"]),
    ("issued", &["deferred"]),
    ("usage", &["deferred"]),
    ("voided", &["deferred", "stripe", "disputed", "out of band"]),
    ("stripe", &["deferred", "disputed", "bank"]),
    ("out of band", &["deferred"]),
    ("fees", &["stripe"]),
    ("dispute loss", &["stripe"]),
    ("disputed", &["stripe"]),
    ("bank", &["stripe"]),
    ("provider", &["out of band"]),
];

#[test]
fn every_pair_that_is_not_listed_is_refused() {
    let listed = |table: &[(&str, &[&str])], debit: &str, credit: &str| {
        table.iter().any(|(listed, credits)| *listed == debit && credits.contains(&credit))
    };
    let (mut allowed, mut asked) = (0, 0);
    for (debit_sort, debit) in sorts() {
        for (credit_sort, credit) in sorts() {
            let either = listed(&CREDIT_MAY_MEET, debit_sort, credit_sort);
            let usd = either || listed(&MONEY_MAY_MEET, debit_sort, credit_sort);
            for (asset, expected) in [(Asset::Usd, usd), (Asset::Credit, either)] {
                let may = may_meet(&debit, &credit, asset);
                assert_eq!(may, expected, "{asset}: {debit_sort} against {credit_sort}");
                asked += 1;
                allowed += usize::from(may);
            }
        }
    }
    let count = |table: &[(&str, &[&str])]| table.iter().map(|(_, credits)| credits.len()).sum::<usize>();
    assert_eq!(allowed, 2 * count(&CREDIT_MAY_MEET) + count(&MONEY_MAY_MEET), "the tables name sorts there are not");
    assert_eq!(asked, 17 * 17 * 2);
}

#[test]
fn accounts_of_two_tenants_never_meet() {
    let other = TenantId(Uuid::from_u128(2));
    let ours = [available(1), held(), Account::Debt(tenant()), Account::Unallocated(tenant())];
    let theirs = [
        Account::Available(other, grant_id(1)),
        Account::Held(other, hold_id()),
        Account::Debt(other),
        Account::Unallocated(other),
    ];
    for asset in Asset::ALL {
        for one in &ours {
            for another in &theirs {
                assert!(!may_meet(one, another, asset) && !may_meet(another, one, asset), "{one} and {another}");
            }
        }
    }
}

#[test]
fn what_was_paid_for_one_kind_is_never_earned_as_another() {
    for paid in GrantKind::ALL {
        for given in GrantKind::ALL {
            let (paid_for, given_out) = (Account::Deferred(paid), Account::Issued(given));
            assert_eq!(may_meet(&paid_for, &given_out, Asset::Usd), paid == given);
            assert_eq!(may_meet(&given_out, &paid_for, Asset::Usd), paid == given);
        }
    }
}
