//! What is owed is repaid first by whatever comes in or comes back.

use super::*;

#[test]
fn the_next_grant_repays_debt_first() {
    let mut wallet = given([grant(1, 40), hold(1, 40), settle(1, 70)]);
    let events = wallet.when(grant(2, 50)).unwrap();
    assert_eq!(names(&events), ["credits_granted", "debt_repaid"]);
    assert_eq!(
        events[1],
        WalletEvent::DebtRepaid(DebtRepaid {
            asset: Asset::Usd,
            amount: units(30),
            grant_id: grant_id(2),
            released: paid(30),
            debt_after: units(0),
            available_after: units(20),
        })
    );
    assert_eq!(wallet.usd(), (20, 0, 0));
    assert_eq!(wallet.wallet.grant(&grant_id(2)).unwrap().spent(), units(30));
}

#[test]
fn a_grant_smaller_than_the_debt_is_spent_at_once_and_still_known() {
    let mut wallet = given([hold(1, 0), settle(1, 70), grant(1, 50)]);
    assert_eq!(wallet.usd(), (0, 0, 20));
    assert!(wallet.wallet.grants(Asset::Usd).is_empty());
    assert_eq!(wallet.when(grant(1, 50)), Ok(Vec::new()));
}

#[test]
fn debt_in_one_asset_takes_nothing_from_the_other() {
    let mut wallet = given([hold(1, 0), settle(1, 70)]);
    wallet.when(Grant { asset: Asset::Credit, ..Grant::usd(1, 50) }.command()).unwrap();
    assert_eq!(wallet.wallet.available(Asset::Credit), units(50));
    assert_eq!(wallet.usd(), (0, 0, 70));
}

#[test]
fn a_released_hold_repays_debt() {
    let mut wallet = given([grant(1, 40), hold(1, 20), hold(2, 20), settle(1, 30)]);
    assert_eq!(wallet.usd(), (0, 20, 10));
    let events = wallet.when(release(2, ReleaseCause::Voided, 3)).unwrap();
    assert_eq!(names(&events), ["hold_released", "debt_repaid"]);
    assert_eq!(wallet.usd(), (10, 0, 0));
}

#[test]
fn credit_that_would_expire_repays_debt_before_it_does() {
    let mut wallet = given([Grant::usd(1, 40).expiring(100).command(), hold(1, 20), hold(2, 20), settle(1, 30)]);
    let events = wallet.when(release(2, ReleaseCause::Voided, 200)).unwrap();
    assert_eq!(names(&events), ["hold_released", "debt_repaid", "grant_expired"]);
    assert_eq!(wallet.usd(), (0, 0, 0));
}

#[test]
fn a_dispute_won_restores_the_balance_exactly() {
    for spent in [0, 30, 100] {
        let mut wallet = given([grant(1, 100)]);
        if spent > 0 {
            wallet.when(charge(1, spent)).unwrap();
        }
        let before = wallet.usd();
        wallet.when(void(1, 100, "dispute:1")).unwrap();
        // Debt is what was claimed and could not be taken.
        assert_eq!(wallet.usd(), (0, 0, spent));
        wallet.when(restore(1, "dispute:1")).unwrap();
        assert_eq!(wallet.usd(), before);
    }
}

#[test]
fn reversing_a_charge_that_led_to_debt_repays_it_with_what_comes_back() {
    let mut wallet = given([grant(1, 10), charge_up_to(1, 25, 20)]);
    let events = wallet.when(reverse(1, 10)).unwrap();
    assert_eq!(names(&events), ["deduction_reversed", "debt_repaid"]);
    assert_eq!(wallet.usd(), (0, 0, 5));
    assert!(matches!(wallet.then_refused(reverse(1, 11)), WalletRefusal::ReversalOutOfBounds { .. }));
}
