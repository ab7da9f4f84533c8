//! Spending without a hold.

use super::*;

#[test]
fn a_charge_records_the_use_and_the_deduction() {
    let mut wallet = given([grant(1, 100)]);
    let events = wallet.when(charge(1, 30)).unwrap();
    assert_eq!(
        events,
        [
            WalletEvent::UsageRecorded(usage(1, 30)),
            WalletEvent::CreditsDeducted(CreditsDeducted {
                usage_id: usage_id(1),
                hold_id: None,
                meter: Meter::Chat,
                asset: Asset::Usd,
                amount: units(30),
                allocations: allocations([(1, 30)]),
                held: units(0),
                returned: units(0),
                returned_to: Vec::new(),
                released: paid(30),
                available_after: units(70),
            }),
        ]
    );
    assert_eq!(wallet.usd(), (70, 0, 0));
}

#[test]
fn a_charge_beyond_available_is_refused_where_no_debt_is_allowed() {
    let mut wallet = given([grant(1, 100), hold(1, 90)]);
    let refusal = wallet.then_refused(charge(2, 11));
    let (needed, available, held) = (units(11), units(10), units(90));
    assert_eq!(refusal, WalletRefusal::InsufficientCredit { asset: Asset::Usd, needed, available, held });
    assert!(wallet.when(charge(2, 10)).is_ok());
}

#[test]
fn a_charge_may_lead_to_debt_up_to_its_limit() {
    let mut wallet = given([grant(1, 10)]);
    let events = wallet.when(charge_up_to(1, 25, 20)).unwrap();
    assert_eq!(names(&events), ["usage_recorded", "credits_deducted", "debt_incurred"]);
    let WalletEvent::DebtIncurred(incurred) = &events[2] else { panic!("{events:?}") };
    assert_eq!((incurred.amount, incurred.cause), (units(15), DebtCause::InboundWithoutCredit));
    assert_eq!(wallet.usd(), (0, 0, 15));
    let refusal = wallet.then_refused(charge_up_to(2, 6, 20));
    let (needed, available, held) = (units(6), units(5), units(0));
    assert_eq!(refusal, WalletRefusal::InsufficientCredit { asset: Asset::Usd, needed, available, held });
    assert!(wallet.when(charge_up_to(2, 5, 20)).is_ok());
    assert_eq!(wallet.usd(), (0, 0, 20));
}

#[test]
fn a_charge_of_nothing_is_recorded() {
    let mut wallet = given([]);
    let events = wallet.when(charge(1, 0)).unwrap();
    assert_eq!(names(&events), ["usage_recorded", "credits_deducted"]);
}

#[test]
fn the_same_charge_with_other_content_is_refused() {
    let mut wallet = given([grant(1, 100), charge(1, 30)]);
    let reused = WalletRefusal::IdReused { id: usage_id(1).0 };
    assert_eq!(wallet.then_refused(charge(1, 31)), reused);
    let other_model = WalletCommand::Charge {
        usage: UsageRecorded { model: "gpt-4o".to_owned(), ..usage(1, 30) },
        asset: Asset::Usd,
        amount: units(30),
        debt_limit: units(0),
        debt_cause: DebtCause::Overrun,
        at: at(1),
    };
    assert_eq!(wallet.then_refused(other_model), reused);
    let other_asset = WalletCommand::Charge {
        usage: usage(1, 30),
        asset: Asset::Credit,
        amount: units(30),
        debt_limit: units(30),
        debt_cause: DebtCause::Overrun,
        at: at(1),
    };
    assert_eq!(wallet.then_refused(other_asset), reused);
}

#[test]
fn a_use_that_was_held_for_cannot_be_charged_as_well() {
    let mut wallet = given([grant(1, 100), hold(1, 30)]);
    assert_eq!(wallet.then_refused(charge(1, 30)), WalletRefusal::IdReused { id: usage_id(1).0 });
    wallet.when(settle(1, 30)).unwrap();
    assert_eq!(wallet.then_refused(charge(1, 30)), WalletRefusal::IdReused { id: usage_id(1).0 });
}

#[test]
fn phone_credits_are_charged_beside_the_record_in_dollars() {
    let mut wallet = given([Grant { asset: Asset::Credit, ..Grant::usd(1, 100) }.command()]);
    let sms = |credits| WalletCommand::Charge {
        usage: UsageRecorded { meter: Meter::SmsInbound, ..usage(1, 0) },
        asset: Asset::Credit,
        amount: units(credits),
        debt_limit: units(50),
        debt_cause: DebtCause::InboundWithoutCredit,
        at: at(1),
    };
    assert!(wallet.when(sms(5)).is_ok());
    assert_eq!(wallet.wallet.available(Asset::Credit), units(95));
    // The record says nothing about credits, so their number is content of its own.
    assert_eq!(wallet.then_refused(sms(6)), WalletRefusal::IdReused { id: usage_id(1).0 });
}

#[test]
fn a_charge_must_carry_an_ordered_id_and_add_up() {
    let mut wallet = given([grant(1, 100)]);
    let unordered = UsageId(Uuid::from_u128(5));
    let command = |usage: UsageRecorded, amount| WalletCommand::Charge {
        usage,
        asset: Asset::Usd,
        amount: units(amount),
        debt_limit: units(0),
        debt_cause: DebtCause::Overrun,
        at: at(1),
    };
    let refusal = wallet.then_refused(command(UsageRecorded { usage_id: unordered, ..usage(1, 5) }, 5));
    assert_eq!(refusal, WalletRefusal::IdNotOrdered { id: unordered.0 });
    assert!(matches!(wallet.then_refused(command(usage(1, 5), 4)), WalletRefusal::WrongTotal { .. }));
}
