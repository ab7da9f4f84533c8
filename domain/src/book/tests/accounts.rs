//! Names of accounts: read back as they were written, and in no other spelling.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::wallet::AdjustmentReason;

fn account() -> impl Strategy<Value = Account> {
    let tenants = any::<u128>().prop_map(|id| TenantId(Uuid::from_u128(id)));
    let kinds = select(GrantKind::ALL.to_vec());
    prop_oneof![
        (tenants.clone(), any::<u128>()).prop_map(|(tenant, id)| Account::Available(tenant, grant_id(id))),
        tenants.clone().prop_map(Account::Unallocated),
        (tenants.clone(), any::<u128>()).prop_map(|(tenant, id)| Account::Held(tenant, HoldId(Uuid::from_u128(id)))),
        tenants.prop_map(Account::Debt),
        kinds.clone().prop_map(Account::Issued),
        kinds.prop_map(Account::Deferred),
        select(Meter::ALL.to_vec()).prop_map(Account::Usage),
        select(AdjustmentReason::ALL.to_vec()).prop_map(Account::Adjustment),
        any::<String>().prop_map(|name| Account::provider(&name)),
        select(vec![
            Account::Breakage,
            Account::Voided,
            Account::StripeBalance,
            Account::StripeDisputed,
            Account::Bank,
            Account::OutOfBand,
            Account::StripeFees,
            Account::DisputeLoss,
        ]),
    ]
}

proptest! {
    #[test]
    fn an_account_is_read_back_from_its_name(account in account()) {
        let name = account.to_string();
        prop_assert_eq!(name.parse::<Account>(), Ok(account.clone()));
        prop_assert!(!name.contains(char::is_whitespace), "{:?} could not stand before an amount", name);
        let class = account.class();
        prop_assert_eq!(class.to_string().parse::<AccountClass>(), Ok(class.clone()));
        // An account that is nobody's has the name of its class, and the class is that account again.
        prop_assert_eq!(class.to_string() == name, account.tenant().is_none());
        prop_assert_eq!(class.account(), account.tenant().is_none().then_some(account));
    }

    #[test]
    fn whatever_reads_as_an_account_is_written_just_so(text in "[A-Z][a-zA-Z]{2,11}(:[a-zA-Z0-9_ -]{1,12}){0,3}") {
        if let Ok(account) = text.parse::<Account>() {
            prop_assert_eq!(account.to_string(), text);
        }
    }
}

#[test]
fn the_names_are_those_of_the_ledger() {
    let (t, g, h) = (tenant(), grant_id(1), hold_id());
    let table = [
        (available(1), format!("Liabilities:Wallet:{t}:Available:{g}"), "Liabilities:Wallet:Available"),
        (Account::Unallocated(t), format!("Liabilities:Wallet:{t}:Unallocated"), "Liabilities:Wallet:Available"),
        (held(), format!("Liabilities:Wallet:{t}:Held:{h}"), "Liabilities:Wallet:Held"),
        (Account::Debt(t), format!("Assets:Debt:{t}"), "Assets:Debt"),
    ];
    for (account, name, class) in table {
        assert_eq!((account.to_string(), account.class().to_string()), (name, class.to_owned()));
        assert_eq!(account.tenant(), Some(t));
    }
    let table = [
        (Account::Issued(GrantKind::Trial), "Equity:Issued:trial"),
        (Account::Usage(Meter::SmsInbound), "Income:Usage:sms_inbound"),
        (Account::Breakage, "Income:Breakage"),
        (Account::Voided, "Equity:Voided"),
        (Account::Adjustment(AdjustmentReason::WriteOff), "Equity:Adjustment:write_off"),
        (Account::StripeBalance, "Assets:Stripe:Balance"),
        (Account::StripeDisputed, "Assets:Stripe:Disputed"),
        (Account::Bank, "Assets:Bank"),
        (Account::OutOfBand, "Assets:OutOfBand"),
        (Account::Deferred(GrantKind::Subscription), "Liabilities:DeferredRevenue:subscription"),
        (Account::StripeFees, "Expenses:StripeFees"),
        (Account::DisputeLoss, "Expenses:DisputeLoss"),
        (Account::provider("openai"), "Expenses:Provider:openai"),
    ];
    for (account, name) in table {
        assert_eq!((account.to_string().as_str(), account.tenant()), (name, None));
    }
}

#[test]
fn another_spelling_is_no_account() {
    let (upper, braced) = (tenant().to_string().to_uppercase(), tenant().0.braced().to_string());
    let texts = [
        String::new(),
        "Income".to_owned(),
        "income:breakage".to_owned(),
        "Income:Breakage:".to_owned(),
        "Income:Usage:faxes".to_owned(),
        "Expenses:Provider:".to_owned(),
        "Expenses:Provider:open ai".to_owned(),
        "Liabilities:Wallet:Available".to_owned(),
        "Liabilities:Wallet:Held".to_owned(),
        "Assets:Debt".to_owned(),
        format!("Assets:Debt:{braced}"),
        format!("Assets:Debt:{upper}"),
        format!("Liabilities:Wallet:{}:Spent:{}", tenant(), grant_id(1)),
    ];
    for text in texts {
        assert_eq!(text.parse::<Account>(), Err(NoAccount(text.clone())));
    }
    assert_eq!("Equity:Issued:gift".parse::<AccountClass>(), Err(NoAccount("Equity:Issued:gift".to_owned())));
}

#[test]
fn a_providers_name_is_made_fit_for_an_account() {
    assert_eq!(Account::provider("a b:c\n"), Account::Provider("a_b_c_".to_owned()));
    assert_eq!(Account::provider(""), Account::Provider("unnamed".to_owned()));
}
