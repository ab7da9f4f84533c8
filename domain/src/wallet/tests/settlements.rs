//! Settling holds.

use super::*;

#[test]
fn a_settlement_takes_what_was_used_and_returns_the_rest() {
    let mut wallet = given([grant(1, 100), hold(1, 40)]);
    let events = wallet.when(settle(1, 25)).unwrap();
    assert_eq!(
        events,
        [
            WalletEvent::UsageRecorded(usage(1, 25)),
            WalletEvent::CreditsDeducted(CreditsDeducted {
                usage_id: usage_id(1),
                hold_id: Some(hold_id(1)),
                meter: Meter::Chat,
                asset: Asset::Usd,
                amount: units(25),
                allocations: allocations([(1, 25)]),
                held: units(40),
                returned: units(15),
                returned_to: allocations([(1, 15)]),
                released: paid(25),
                available_after: units(75),
            }),
        ]
    );
    assert_eq!(wallet.usd(), (75, 0, 0));
}

#[test]
fn a_settlement_keeps_to_the_grants_its_hold_pinned() {
    let mut wallet = given([grant(1, 30), grant(2, 30), hold(1, 50)]);
    // A grant that would burn first comes in while the hold is open.
    wallet.when(Grant { priority: -5, ..Grant::usd(3, 30) }.command()).unwrap();
    let events = wallet.when(settle(1, 40)).unwrap();
    let WalletEvent::CreditsDeducted(deducted) = &events[1] else { panic!("{events:?}") };
    assert_eq!(deducted.allocations, allocations([(1, 30), (2, 10)]));
    assert_eq!((deducted.returned, &deducted.returned_to), (units(10), &allocations([(2, 10)])));
    assert_eq!(wallet.usd(), (50, 0, 0));
}

#[test]
fn a_settlement_beyond_the_hold_takes_from_available() {
    let mut wallet = given([grant(1, 60), hold(1, 40)]);
    let events = wallet.when(settle(1, 55)).unwrap();
    assert_eq!(names(&events), ["usage_recorded", "credits_deducted"]);
    let WalletEvent::CreditsDeducted(deducted) = &events[1] else { panic!("{events:?}") };
    assert_eq!(deducted.allocations, allocations([(1, 55)]));
    assert_eq!((deducted.returned, deducted.available_after), (units(0), units(5)));
}

#[test]
fn an_overrun_beyond_hold_and_available_becomes_debt() {
    let mut wallet = given([grant(1, 60), grant(2, 5), hold(1, 40), hold(2, 20)]);
    let events = wallet.when(settle(1, 70)).unwrap();
    let WalletEvent::CreditsDeducted(deducted) = &events[1] else { panic!("{events:?}") };
    assert_eq!((deducted.amount, deducted.available_after), (units(45), units(0)));
    assert_eq!(deducted.allocations, allocations([(1, 40), (2, 5)]));
    assert_eq!(
        events[2..],
        [WalletEvent::DebtIncurred(DebtIncurred {
            asset: Asset::Usd,
            amount: units(25),
            cause: DebtCause::Overrun,
            meter: Some(Meter::Chat),
            source_ref: usage_id(1).to_string(),
            debt_after: units(25),
        })]
    );
    assert_eq!(wallet.usd(), (0, 20, 25));
}

#[test]
fn a_settlement_may_come_after_the_hold_expired() {
    let mut wallet = given([grant(1, 100), hold(1, 40), release(1, ReleaseCause::Expired, 700), hold_at(2, 90, 701)]);
    let events = wallet.when(settle_at(1, 30, 702)).unwrap();
    assert_eq!(names(&events), ["usage_recorded", "credits_deducted", "debt_incurred"]);
    let WalletEvent::CreditsDeducted(deducted) = &events[1] else { panic!("{events:?}") };
    assert_eq!((deducted.amount, deducted.returned), (units(10), units(0)));
    assert_eq!(deducted.hold_id, Some(hold_id(1)));
    assert_eq!(wallet.usd(), (0, 90, 20));
    assert_eq!(wallet.then_refused(settle_at(1, 31, 702)), WalletRefusal::IdReused { id: hold_id(1).0 });
    // The hold itself is still known by what it was placed with.
    assert_eq!(wallet.when(hold(1, 40)), Ok(Vec::new()));
    assert_eq!(wallet.then_refused(hold(1, 39)), WalletRefusal::IdReused { id: hold_id(1).0 });
}

#[test]
fn a_hold_past_its_end_that_nobody_released_settles_as_usual() {
    let mut wallet = given([grant(1, 100), hold(1, 40), hold_at(2, 60, 2)]);
    let events = wallet.when(settle_at(1, 30, 5_000)).unwrap();
    let WalletEvent::CreditsDeducted(deducted) = &events[1] else { panic!("{events:?}") };
    assert_eq!((deducted.amount, deducted.returned), (units(30), units(10)));
}

#[test]
fn a_grant_that_expires_under_a_hold_still_pays_it() {
    let mut wallet = given([Grant::usd(1, 30).expiring(100).command(), hold(1, 20)]);
    let events = wallet.when(settle_at(1, 15, 200)).unwrap();
    // Ten were never held and expire; fifteen are spent; five come back to a grant whose time has run out.
    assert_eq!(names(&events), ["grant_expired", "usage_recorded", "credits_deducted", "grant_expired"]);
    let grant = wallet.wallet.grant(&grant_id(1)).unwrap();
    assert_eq!((grant.spent(), grant.expired), (units(15), units(15)));
    assert_eq!(wallet.usd(), (0, 0, 0));
}

#[test]
fn the_same_settlement_with_other_content_is_refused() {
    let mut wallet = given([grant(1, 100), hold(1, 40), settle(1, 10)]);
    let other_usage = WalletCommand::SettleHold {
        hold_id: hold_id(1),
        usage: UsageRecorded { completion_tokens: 21, ..usage(1, 10) },
        amount: units(10),
        at: at(2),
    };
    for other in [settle(1, 11), other_usage] {
        assert_eq!(wallet.then_refused(other), WalletRefusal::IdReused { id: hold_id(1).0 });
    }
}

#[test]
fn a_repeated_overrun_is_still_known_with_its_debt() {
    let mut wallet = given([grant(1, 40), hold(1, 40), settle(1, 70)]);
    assert_eq!(wallet.when(settle(1, 70)), Ok(Vec::new()));
    assert_eq!(wallet.then_refused(settle(1, 40)), WalletRefusal::IdReused { id: hold_id(1).0 });
}

#[test]
fn a_settlement_must_be_of_the_holds_own_use_and_add_up() {
    let mut wallet = given([grant(1, 100), hold(1, 40)]);
    let with = |usage: UsageRecorded, amount| WalletCommand::SettleHold {
        hold_id: hold_id(1),
        usage,
        amount: units(amount),
        at: at(2),
    };
    let refusal = wallet.then_refused(with(usage(2, 10), 10));
    assert_eq!(refusal, WalletRefusal::OtherUse { expected: usage_id(1), given: usage_id(2) });
    let refusal = wallet.then_refused(with(usage(1, 10), 9));
    assert_eq!(refusal, WalletRefusal::WrongTotal { parts: units(10), total: units(10), amount: units(9) });
    let refusal = wallet.then_refused(with(UsageRecorded { markup: MicroUsd::ZERO, ..usage(1, 10) }, 10));
    assert_eq!(refusal, WalletRefusal::WrongTotal { parts: units(8), total: units(10), amount: units(10) });
    let negative = UsageRecorded { provider_cost: MicroUsd::new(-5), markup: MicroUsd::new(15), ..usage(1, 10) };
    assert_eq!(wallet.then_refused(with(negative, 10)), WalletRefusal::AmountTooSmall { amount: units(-5), least: 0 });
    assert_eq!(wallet.then_refused(settle(1, -4)), WalletRefusal::AmountTooSmall { amount: units(-4), least: 0 });
    assert_eq!(wallet.then_refused(settle(9, 1)), WalletRefusal::NoSuchHold(hold_id(9)));
}

#[test]
fn a_debt_beyond_all_money_is_refused() {
    let mut wallet = given([hold(1, 0), settle(1, i64::MAX), hold(2, 0)]);
    let refusal = wallet.then_refused(settle(2, 1));
    assert_eq!(refusal, WalletRefusal::OutOfRange(crate::money::OutOfRange));
}
