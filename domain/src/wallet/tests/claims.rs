//! Claims back, and claims that are undone.

use super::*;

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
            released: paid(100),
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
    assert_eq!((incurred.amount, incurred.cause, incurred.meter), (units(80), DebtCause::Refund, None));
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

#[test]
fn the_debt_of_a_claim_is_repaid_at_once_by_what_other_grants_have_free() {
    let mut wallet = given([grant(1, 100), charge(1, 100)]);
    let later = Grant { effective: 5, now: 5, ..Grant::usd(2, 30) };
    let more = |wallet: &mut Given| {
        wallet.when(later.command()).unwrap();
        wallet.when(Grant { n: 3, priority: -1, amount: 50, cost: 0, ..later }.command()).unwrap();
    };
    more(&mut wallet);
    let events = wallet.when(void(1, 70, "refund:1")).unwrap();
    assert_eq!(names(&events), ["grant_voided", "debt_incurred", "debt_repaid", "debt_repaid"]);
    // In burn order: the one of lower priority first.
    let repaid = |n, amount, debt, available, released| {
        WalletEvent::DebtRepaid(DebtRepaid {
            asset: Asset::Usd,
            amount: units(amount),
            grant_id: grant_id(n),
            released,
            debt_after: units(debt),
            available_after: units(available),
        })
    };
    assert_eq!(events[2..], [repaid(3, 50, 20, 30, Vec::new()), repaid(2, 20, 0, 10, paid(20))]);
    assert_eq!(wallet.usd(), (10, 0, 0));
    // Had the claim come first, the grants would have repaid it as they came in: nothing else would be different.
    let mut other = given([grant(1, 100), charge(1, 100), void(1, 70, "refund:1")]);
    more(&mut other);
    assert_eq!(other.usd(), wallet.usd());
}

#[test]
fn what_has_run_out_of_time_repays_no_claim() {
    let mut wallet = given([grant(1, 100), charge(1, 100), Grant::usd(2, 30).expiring(3).command()]);
    let events = wallet.when(void(1, 100, "refund:1")).unwrap();
    assert_eq!(names(&events), ["grant_expired", "grant_voided", "debt_incurred"]);
    assert_eq!(wallet.usd(), (0, 0, 100));
}

#[test]
fn a_claim_that_is_undone_gives_back_what_it_took() {
    let mut wallet = given([grant(1, 100), charge(1, 30), void(1, 100, "dispute:1")]);
    assert_eq!(wallet.usd(), (0, 0, 30));
    let events = wallet.when(restore(1, "dispute:1")).unwrap();
    assert_eq!(
        events,
        [WalletEvent::GrantRestored(GrantRestored {
            grant_id: grant_id(1),
            asset: Asset::Usd,
            amount: units(70),
            debt_cancelled: units(30),
            source_ref: "dispute:1".to_owned(),
            released: paid(-70),
            available_after: units(70),
            debt_after: units(0),
        })]
    );
    assert_eq!(wallet.usd(), (70, 0, 0));
    let grant = wallet.wallet.grant(&grant_id(1)).unwrap();
    assert_eq!((grant.spent(), grant.voided, grant.charged_back), (units(30), units(0), units(0)));
}

#[test]
fn what_repaid_the_debt_of_a_claim_comes_back_with_it() {
    let mut wallet = given([grant(1, 100), charge(1, 100), grant(2, 80), void(1, 100, "dispute:1")]);
    assert_eq!(wallet.usd(), (0, 0, 20));
    let events = wallet.when(restore(1, "dispute:1")).unwrap();
    let WalletEvent::GrantRestored(restored) = &events[0] else { panic!("{events:?}") };
    assert_eq!((restored.amount, restored.debt_cancelled), (units(80), units(20)));
    assert_eq!(wallet.usd(), (80, 0, 0));
    // All of it is on the claimed grant, whose price is owed again as far as it is free.
    let grant = wallet.wallet.grant(&grant_id(1)).unwrap();
    assert_eq!((grant.available, grant.restored, grant.spent()), (units(80), units(80), units(100)));
    assert_eq!(grant.deferred(), MicroUsd::new(80));
}

#[test]
fn what_comes_back_pays_what_else_is_owed() {
    let mut wallet = given([grant(1, 100), hold(1, 10), void(1, 90, "dispute:1"), settle(1, 60)]);
    assert_eq!(wallet.usd(), (0, 0, 50));
    let events = wallet.when(restore(1, "dispute:1")).unwrap();
    assert_eq!(names(&events), ["grant_restored", "debt_repaid"]);
    assert_eq!(wallet.usd(), (40, 0, 0));
}

#[test]
fn more_may_come_back_on_a_grant_than_it_ever_was() {
    // The held credit is owed, another grant pays, and then the hold comes back: the claimed grant is free again.
    let commands = [grant(1, 100), hold(1, 100), grant(2, 100), void(1, 100, "dispute:1")];
    let mut wallet = given(commands);
    wallet.when(release(1, ReleaseCause::Voided, 3)).unwrap();
    assert_eq!(wallet.usd(), (100, 0, 0));
    wallet.when(restore(1, "dispute:1")).unwrap();
    assert_eq!(wallet.usd(), (200, 0, 0));
    let grant = wallet.wallet.grant(&grant_id(1)).unwrap();
    assert_eq!((grant.available, grant.spent(), grant.deferred()), (units(200), units(0), MicroUsd::new(100)));
    wallet.when(charge(2, 200)).unwrap();
    assert_eq!(wallet.wallet.grant(&grant_id(1)).unwrap().deferred(), MicroUsd::ZERO);
}

#[test]
fn a_claim_is_undone_once_and_its_reference_is_used_up() {
    let mut wallet = given([grant(1, 100), void(1, 60, "dispute:1"), restore(1, "dispute:1")]);
    assert_eq!(wallet.when(restore_at(1, "dispute:1", 50)), Ok(Vec::new()));
    assert_eq!(wallet.when(void(1, 60, "dispute:1")), Ok(Vec::new()));
    assert_eq!(wallet.then_refused(void(1, 61, "dispute:1")), WalletRefusal::IdReused { id: grant_id(1).0 });
    assert_eq!(wallet.usd(), (100, 0, 0));
    // Another claim may ask for all of it again.
    wallet.when(void(1, 100, "refund:1")).unwrap();
    assert_eq!(wallet.usd(), (0, 0, 0));
}

#[test]
fn only_a_known_claim_can_be_undone() {
    let mut wallet = given([grant(1, 100), void(1, 60, "dispute:1")]);
    assert_eq!(wallet.then_refused(restore(1, "dispute:2")), WalletRefusal::NoSuchClaim(grant_id(1)));
    assert_eq!(wallet.then_refused(restore(2, "dispute:1")), WalletRefusal::NoSuchGrant(grant_id(2)));
    let long = "x".repeat(WALLET_TEXT_MAX_BYTES + 1);
    assert!(matches!(wallet.then_refused(restore(1, &long)), WalletRefusal::TextTooLong { .. }));
}

#[test]
fn what_expired_before_a_claim_does_not_come_back_with_it() {
    let mut wallet = given([Grant::usd(1, 100).expiring(2).command(), charge(1, 20), void(1, 100, "dispute:1")]);
    assert_eq!(wallet.usd(), (0, 0, 20));
    let events = wallet.when(restore(1, "dispute:1")).unwrap();
    assert_eq!(names(&events), ["grant_restored"]);
    assert_eq!(wallet.usd(), (0, 0, 0));
}

#[test]
fn what_would_have_run_out_of_time_meanwhile_runs_out_as_it_comes_back() {
    let mut wallet = given([Grant::usd(1, 100).expiring(50).command(), charge(1, 20), void(1, 100, "dispute:1")]);
    let events = wallet.when(restore_at(1, "dispute:1", 60)).unwrap();
    assert_eq!(names(&events), ["grant_restored", "grant_expired"]);
    let WalletEvent::GrantExpired(expired) = &events[1] else { panic!("{events:?}") };
    assert_eq!(
        (expired.amount, expired.expired_at, &expired.released),
        (units(80), None, &paid(80)),
        "it came back after its end"
    );
    assert_eq!(wallet.usd(), (0, 0, 0));
}

#[test]
fn what_stands_for_credit_of_other_grants_does_not_run_out_with_the_claimed_one() {
    let lapsing = Grant::usd(1, 100).expiring(50).command();
    let mut wallet = given([lapsing, charge(1, 60), grant(2, 200), void(1, 100, "dispute:1")]);
    assert_eq!(wallet.usd(), (140, 0, 0));
    // Forty were unspent and would be gone by now; sixty were repaid by a grant that never ends.
    let events = wallet.when(restore_at(1, "dispute:1", 60)).unwrap();
    assert_eq!(names(&events), ["grant_restored", "grant_expired"]);
    assert_eq!(wallet.usd(), (200, 0, 0));
    assert_eq!(wallet.wallet.available_at(Asset::Usd, at(1_000)), units(200));
    // It burns in its grant's place, and comes back from a hold as it went.
    let events = wallet.when(hold_at(2, 50, 100)).unwrap();
    let WalletEvent::HoldPlaced(placed) = &events[0] else { panic!("{events:?}") };
    assert_eq!(placed.allocations, allocations([(1, 50)]));
    assert_eq!(names(&wallet.when(release(2, ReleaseCause::Voided, 101)).unwrap()), ["hold_released"]);
    assert_eq!(wallet.wallet.available_at(Asset::Usd, at(1_000)), units(200));
}
