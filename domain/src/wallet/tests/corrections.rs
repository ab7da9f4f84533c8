//! Reversals and expiries.

use super::*;
use crate::book;

#[test]
fn a_reversal_undoes_a_deduction_last_burnt_first() {
    let mut wallet = given([grant(1, 30), grant(2, 30), charge(1, 50)]);
    let events = wallet.when(reverse(1, 35)).unwrap();
    assert_eq!(
        events,
        [WalletEvent::DeductionReversed(DeductionReversed {
            usage_id: usage_id(1),
            meter: Meter::Chat,
            asset: Asset::Usd,
            amount: units(35),
            allocations: allocations([(2, 20), (1, 15)]),
            reason: "charged for an empty answer".to_owned(),
            released: paid(-35),
            available_after: units(45),
        })]
    );
    assert_eq!(wallet.usd(), (45, 0, 0));
    let spent = |n| wallet.wallet.grant(&grant_id(n)).unwrap().spent();
    assert_eq!((spent(1), spent(2)), (units(15), units(0)));
}

#[test]
fn a_reversal_can_be_raised_but_not_lowered_or_go_beyond_the_deduction() {
    let mut wallet = given([grant(1, 30), grant(2, 30), charge(1, 50), reverse(1, 10)]);
    let events = wallet.when(reverse(1, 25)).unwrap();
    let WalletEvent::DeductionReversed(reversed) = &events[0] else { panic!("{events:?}") };
    assert_eq!(reversed.allocations, allocations([(2, 10), (1, 5)]));
    for amount in [24, 51] {
        let refusal = wallet.then_refused(reverse(1, amount));
        let (asked, deducted, reversed) = (units(amount), units(50), units(25));
        assert_eq!(refusal, WalletRefusal::ReversalOutOfBounds { asked, deducted, reversed });
    }
    assert!(matches!(wallet.then_refused(reverse(1, 0)), WalletRefusal::AmountTooSmall { .. }));
    wallet.when(reverse(1, 50)).unwrap();
    assert_eq!(wallet.usd(), (60, 0, 0));
    // The deduction itself stays known.
    assert_eq!(wallet.when(charge(1, 50)), Ok(Vec::new()));
}

#[test]
fn a_settled_hold_can_be_reversed_and_an_unspent_or_unknown_use_cannot() {
    let mut wallet = given([grant(1, 100), hold(1, 40), settle(1, 25), hold(2, 10), hold(3, 10)]);
    wallet.when(release(2, ReleaseCause::Voided, 2)).unwrap();
    assert!(wallet.when(reverse(1, 25)).is_ok());
    for n in [2, 3, 4] {
        assert_eq!(wallet.then_refused(reverse(n, 1)), WalletRefusal::NoSuchUse(usage_id(n)));
    }
}

#[test]
fn a_reversal_reopens_a_spent_grant_in_its_place_of_the_burn_order() {
    let mut wallet = given([grant(1, 30), grant(2, 30), charge(1, 30), reverse(1, 30)]);
    let events = wallet.when(hold(2, 40)).unwrap();
    let WalletEvent::HoldPlaced(placed) = &events[0] else { panic!("{events:?}") };
    assert_eq!(placed.allocations, allocations([(1, 30), (2, 10)]));
}

#[test]
fn a_reversal_into_an_expired_grant_expires() {
    let mut wallet = given([Grant::usd(1, 30).expiring(3).command(), charge(1, 20)]);
    let events = wallet.when(reverse(1, 20)).unwrap();
    assert_eq!(names(&events), ["grant_expired", "deduction_reversed", "grant_expired"]);
    let dates = [&events[0], &events[2]].map(expired_at);
    assert_eq!(dates, [Some(at(3)), None], "what was spent at its end ran out when it came back");
    assert_eq!(wallet.usd(), (0, 0, 0));
    assert_eq!(wallet.wallet.grant(&grant_id(1)).unwrap().expired, units(30));
}

#[test]
fn a_grant_expires_when_its_time_has_come() {
    let mut wallet = given([Grant::usd(1, 30).expiring(100).command(), grant(2, 5), charge(1, 10)]);
    let refusal = wallet.then_refused(expire(1, 99));
    assert_eq!(refusal, WalletRefusal::NotDue { at: at(99), due: Some(at(100)) });
    let events = wallet.when(expire(1, 100)).unwrap();
    assert_eq!(
        events,
        [WalletEvent::GrantExpired(GrantExpired {
            grant_id: grant_id(1),
            asset: Asset::Usd,
            amount: units(20),
            expired_at: Some(at(100)),
            released: paid(20),
            available_after: units(5),
        })]
    );
    assert_eq!(wallet.then_refused(expire(2, 100)), WalletRefusal::NotDue { at: at(100), due: None });
    assert_eq!(wallet.then_refused(expire(3, 100)), WalletRefusal::NoSuchGrant(grant_id(3)));
}

#[test]
fn what_is_held_of_an_expiring_grant_stays_held() {
    let mut wallet = given([Grant::usd(1, 30).expiring(100).command(), hold(1, 30)]);
    let events = wallet.when(expire(1, 100)).unwrap();
    assert_eq!(events, [ended(100, 0)]);
    assert_eq!(wallet.usd(), (0, 30, 0));
    // What comes back of it later runs out at once, and then.
    let events = wallet.when(release(1, ReleaseCause::Voided, 150)).unwrap();
    assert_eq!(names(&events), ["hold_released", "grant_expired"]);
    assert_eq!(expired_at(&events[1]), None);
    assert_eq!(book::effective_at(&events[1], at(150)), at(150));
    assert_eq!(wallet.usd(), (0, 0, 0));
}

#[test]
fn the_end_of_a_grant_is_recorded_once_also_when_nothing_is_left_of_it() {
    let mut wallet = given([Grant::usd(1, 30).expiring(100).command(), grant(2, 5), charge(1, 30)]);
    assert!(wallet.wallet.grants(Asset::Usd).iter().all(|open| open.grant_id != grant_id(1)));
    assert_eq!(wallet.when(expire(1, 100)).unwrap(), [ended(100, 5)]);
    assert!(wallet.wallet.grant(&grant_id(1)).unwrap().expiry_recorded);
    // What a reversal brings back afterwards runs out as well; that much is new.
    let reversal = WalletCommand::ReverseDeduction {
        usage_id: usage_id(1),
        amount: units(10),
        reason: "charged for an empty answer".to_owned(),
        at: at(200),
    };
    assert_eq!(names(&wallet.when(reversal).unwrap()), ["deduction_reversed", "grant_expired"]);
    assert_eq!(wallet.when(expire(1, 300)), Ok(Vec::new()));
}

fn expired_at(event: &WalletEvent) -> Option<Timestamp> {
    let WalletEvent::GrantExpired(expired) = event else { panic!("{event:?}") };
    expired.expired_at
}

/// The end of the first purchase, put on record at its own date with nothing left to run out.
fn ended(seconds: i64, available: i64) -> WalletEvent {
    WalletEvent::GrantExpired(GrantExpired {
        grant_id: grant_id(1),
        asset: Asset::Usd,
        amount: units(0),
        expired_at: Some(at(seconds)),
        released: Vec::new(),
        available_after: units(available),
    })
}
