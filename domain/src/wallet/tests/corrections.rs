//! Reversals, expiries, claims back.

use super::*;

#[test]
fn a_reversal_undoes_a_deduction_last_burnt_first() {
    let mut wallet = given([grant(1, 30), grant(2, 30), charge(1, 50)]);
    let events = wallet.when(reverse(1, 35)).unwrap();
    assert_eq!(
        events,
        [WalletEvent::DeductionReversed(DeductionReversed {
            usage_id: usage_id(1),
            asset: Asset::Usd,
            amount: units(35),
            allocations: allocations([(2, 20), (1, 15)]),
            reason: "charged for an empty answer".to_owned(),
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
            available_after: units(5),
        })]
    );
    assert_eq!(wallet.then_refused(expire(2, 100)), WalletRefusal::NotDue { at: at(100), due: None });
    assert_eq!(wallet.then_refused(expire(3, 100)), WalletRefusal::NoSuchGrant(grant_id(3)));
}

#[test]
fn what_is_held_of_an_expiring_grant_stays_held() {
    let mut wallet = given([Grant::usd(1, 30).expiring(100).command(), hold(1, 30)]);
    assert_eq!(wallet.when(expire(1, 100)), Ok(Vec::new()));
    assert_eq!(wallet.usd(), (0, 30, 0));
}

#[test]
fn an_unspent_purchase_is_taken_back() {
    let mut wallet = given([grant(1, 100), grant(2, 7)]);
    let events = wallet.when(void(1, 100, "refund:1")).unwrap();
    assert_eq!(
        events,
        [WalletEvent::GrantVoided(GrantVoided {
            grant_id: grant_id(1),
            asset: Asset::Usd,
            claimed: units(100),
            amount: units(100),
            source_ref: "refund:1".to_owned(),
            available_after: units(7),
        })]
    );
    assert_eq!(wallet.usd(), (7, 0, 0));
}

#[test]
fn what_was_spent_of_a_purchase_becomes_debt() {
    let mut wallet = given([grant(1, 100), charge(1, 80)]);
    let events = wallet.when(void(1, 100, "refund:1")).unwrap();
    assert_eq!(names(&events), ["grant_voided", "debt_incurred"]);
    let WalletEvent::DebtIncurred(incurred) = &events[1] else { panic!("{events:?}") };
    assert_eq!((incurred.amount, incurred.cause), (units(80), DebtCause::Refund));
    assert_eq!(incurred.source_ref, "refund:1");
    assert_eq!(wallet.usd(), (0, 0, 80));
    // The spent grant is closed, and still known.
    assert_eq!(wallet.when(grant(1, 100)), Ok(Vec::new()));
}

#[test]
fn claims_in_parts_take_no_more_than_the_whole() {
    let mut wallet = given([grant(1, 100), charge(1, 80), void(1, 30, "refund:1"), void(1, 60, "refund:2")]);
    assert_eq!(wallet.usd(), (0, 0, 70));
    let refusal = wallet.then_refused(void(1, 11, "refund:3"));
    assert_eq!(refusal, WalletRefusal::ClaimTooLarge { claimed: units(11), left: units(10) });
    assert!(wallet.when(void(1, 10, "refund:3")).is_ok());
    assert_eq!(wallet.usd(), (0, 0, 80));
}

#[test]
fn the_same_reference_takes_once() {
    let mut wallet = given([grant(1, 100), charge(1, 80), void(1, 30, "refund:1")]);
    assert_eq!(wallet.when(void(1, 30, "refund:1")), Ok(Vec::new()));
    assert_eq!(wallet.then_refused(void(1, 31, "refund:1")), WalletRefusal::IdReused { id: grant_id(1).0 });
}

#[test]
fn what_expired_unspent_is_not_owed() {
    let mut wallet = given([Grant::usd(1, 100).expiring(2).command(), charge(1, 20)]);
    let events = wallet.when(void(1, 100, "refund:1")).unwrap();
    assert_eq!(names(&events), ["grant_expired", "grant_voided", "debt_incurred"]);
    assert_eq!(wallet.usd(), (0, 0, 20));
}

#[test]
fn what_is_held_when_a_purchase_is_claimed_repays_the_debt_when_it_comes_back() {
    let mut wallet = given([grant(1, 100), hold(1, 40), void(1, 100, "refund:1")]);
    assert_eq!(wallet.usd(), (0, 40, 40));
    let events = wallet.when(settle(1, 10)).unwrap();
    assert_eq!(names(&events), ["usage_recorded", "credits_deducted", "debt_repaid"]);
    assert_eq!(wallet.usd(), (0, 0, 10));
}

#[test]
fn a_claim_must_be_for_something_and_on_a_known_grant() {
    let mut wallet = given([grant(1, 100)]);
    assert!(matches!(wallet.then_refused(void(1, 0, "refund:1")), WalletRefusal::AmountTooSmall { .. }));
    assert_eq!(wallet.then_refused(void(2, 1, "refund:1")), WalletRefusal::NoSuchGrant(grant_id(2)));
    let long = "x".repeat(WALLET_TEXT_MAX_BYTES + 1);
    assert!(matches!(wallet.then_refused(void(1, 1, &long)), WalletRefusal::TextTooLong { .. }));
}

#[test]
fn a_grant_meets_a_bounded_number_of_claims() {
    let mut wallet = given([grant(1, 1_000)]);
    for n in 0..VOIDS_PER_GRANT_MAX_COUNT {
        wallet.when(void(1, 1, &format!("refund:{n}"))).unwrap();
    }
    let refusal = wallet.then_refused(void(1, 1, "refund:one-more"));
    assert_eq!(refusal, WalletRefusal::TooManyClaims(VOIDS_PER_GRANT_MAX_COUNT));
}
