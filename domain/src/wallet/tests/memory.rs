//! What a wallet remembers is bounded, and what it has forgotten it refuses to guess.

use super::*;

/// Charges one unit for each number.
fn charge_all(given: &mut Given, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let events = given.wallet.decide(charge_at(n, 1)).unwrap();
        given.apply(&events);
    }
}

fn charge_at(n: u64, amount: i64) -> WalletCommand {
    WalletCommand::Charge {
        usage: usage(n, amount),
        asset: Asset::Usd,
        amount: units(amount),
        debt_limit: units(0),
        debt_cause: DebtCause::Overrun,
        at: at(700),
    }
}

const REMEMBERED: u64 = USES_REMEMBERED_MAX_COUNT as u64;

#[test]
fn the_last_uses_are_remembered_and_older_ids_are_refused() {
    let mut wallet = given([grant(1, 1_000_000)]);
    charge_all(&mut wallet, 10..10 + REMEMBERED);
    assert_eq!(wallet.when(charge_at(10, 1)), Ok(Vec::new()));
    charge_all(&mut wallet, 10 + REMEMBERED..11 + REMEMBERED);
    // The oldest is forgotten: neither it nor anything as old can be told from a repetition.
    let forgotten_ms = START_MS + 200_010;
    for n in [10, 9] {
        let id = usage_id(n).0;
        assert_eq!(wallet.then_refused(charge_at(n, 1)), WalletRefusal::IdTooOld { id, forgotten_ms });
        assert_eq!(wallet.then_refused(reverse(n, 1)), WalletRefusal::IdTooOld { id, forgotten_ms });
    }
    assert_eq!(wallet.when(charge_at(11, 1)), Ok(Vec::new()));
    assert_eq!(wallet.then_refused(charge_at(11, 2)), WalletRefusal::IdReused { id: usage_id(11).0 });
    assert!(wallet.when(charge_at(20 + REMEMBERED, 1)).is_ok());
}

#[test]
fn an_open_hold_outlives_the_memory_of_ended_ones() {
    let mut wallet = given([grant(1, 1_000_000), hold(1, 40), hold(2, 40)]);
    charge_all(&mut wallet, 10..20 + 2 * REMEMBERED);
    assert_eq!(wallet.when(hold(1, 40)), Ok(Vec::new()));
    assert!(wallet.when(settle_at(1, 25, 700)).is_ok());
    assert!(wallet.when(release(2, ReleaseCause::Voided, 700)).is_ok());
    for command in [hold(3, 40), settle(3, 1), release(3, ReleaseCause::Voided, 5)] {
        assert!(matches!(wallet.then_refused(command), WalletRefusal::IdTooOld { .. }));
    }
}

#[test]
fn a_hold_forgotten_under_both_its_ids_is_refused_under_both() {
    let mut wallet = given([grant(1, 1_000_000), hold(1, 40), settle(1, 10)]);
    charge_all(&mut wallet, 10..10 + REMEMBERED);
    assert!(matches!(wallet.then_refused(settle(1, 10)), WalletRefusal::IdTooOld { .. }));
    assert!(matches!(wallet.then_refused(reverse(1, 10)), WalletRefusal::IdTooOld { .. }));
    assert!(matches!(wallet.then_refused(hold(1, 40)), WalletRefusal::IdTooOld { .. }));
}

#[test]
fn a_full_memory_survives_the_snapshot_byte_for_byte_and_stays_small() {
    let mut wallet = given([grant(1, 1_000_000), hold(1, 40), settle(1, 10), hold(2, 5)]);
    charge_all(&mut wallet, 10..500 + REMEMBERED);
    let stored = json(&wallet.wallet);
    assert!(stored.len() < 140 * USES_REMEMBERED_MAX_COUNT, "{} bytes", stored.len());
    let mut restored = Given { wallet: serde_json::from_str(&stored).unwrap() };
    assert_eq!(json(&restored.wallet), stored);
    assert_eq!(restored.wallet.weight_bytes(), wallet.wallet.weight_bytes());
    // Both go on alike, forgetting included.
    for given in [&mut wallet, &mut restored] {
        assert_eq!(given.when(charge_at(499 + REMEMBERED, 1)), Ok(Vec::new()));
        assert!(given.when(reverse(498 + REMEMBERED, 1)).is_ok());
        assert_eq!(given.when(hold(2, 5)), Ok(Vec::new()));
        assert_eq!(given.then_refused(charge_at(2, 5)), WalletRefusal::IdReused { id: usage_id(2).0 });
        assert!(given.when(settle(2, 3)).is_ok());
        charge_all(given, 600 + REMEMBERED..700 + REMEMBERED);
        assert!(matches!(given.then_refused(charge_at(499, 1)), WalletRefusal::IdTooOld { .. }));
    }
    assert_eq!(json(&restored.wallet), json(&wallet.wallet));
}

#[test]
fn closed_grants_are_remembered_and_older_ones_are_refused() {
    let mut wallet = given([]);
    let nth = |n: u128| {
        let effective = i64::try_from(n).unwrap();
        Grant { effective, now: 10_000, ..Grant::usd(n, 1) }.command()
    };
    let bound = GRANTS_REMEMBERED_MAX_COUNT as u128;
    for n in 1..=bound + 1 {
        let granted = wallet.wallet.decide(nth(n)).unwrap();
        wallet.apply(&granted);
        let spent = wallet.wallet.decide(charge_at(u64::try_from(n).unwrap(), 1)).unwrap();
        wallet.apply(&spent);
    }
    assert_eq!(wallet.when(nth(2)), Ok(Vec::new()));
    let refusal = wallet.then_refused(nth(1));
    assert_eq!(refusal, WalletRefusal::GrantTooOld { effective_at: at(1), forgotten: at(1) });
    assert_eq!(wallet.then_refused(reverse(1, 1)), WalletRefusal::GrantForgotten { number: 1 });
    assert!(wallet.when(reverse(2, 1)).is_ok());
    assert!(wallet.when(nth(bound + 2)).is_ok());
}

#[test]
fn a_wallet_has_a_bounded_number_of_open_grants() {
    let mut wallet = given([]);
    for n in 0..GRANTS_OPEN_MAX_COUNT as u128 {
        let granted = wallet.wallet.decide(grant(n, 1)).unwrap();
        wallet.apply(&granted);
    }
    let limit = GRANTS_OPEN_MAX_COUNT;
    assert_eq!(wallet.then_refused(grant(u128::MAX, 1)), WalletRefusal::TooManyGrants { open: limit, limit });
}

#[test]
fn the_weight_grows_with_what_is_remembered() {
    let mut wallet = given([grant(1, 1_000_000)]);
    let empty = wallet.wallet.weight_bytes();
    charge_all(&mut wallet, 1..101);
    let hundred = wallet.wallet.weight_bytes();
    assert!(hundred > empty + 100 * 100 && hundred < empty + 100 * 500, "{empty} {hundred}");
}
