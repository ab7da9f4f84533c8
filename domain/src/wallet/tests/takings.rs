//! Approved corrections that take credit.

use super::*;

#[test]
fn an_adjustment_takes_in_burn_order() {
    let mut wallet = given([grant(1, 30), Grant { cost: 10, ..Grant::usd(2, 100) }.command()]);
    let events = wallet.when(take(1, 70)).unwrap();
    assert_eq!(
        events,
        [WalletEvent::CreditsTaken(CreditsTaken {
            adjustment_id: adjustment_id(1),
            asset: Asset::Usd,
            amount: units(70),
            allocations: allocations([(2, 70)]),
            reason: AdjustmentReason::BillingError,
            released: paid(7),
            effective_at: at(0),
            available_after: units(60),
        })]
    );
    assert_eq!(wallet.usd(), (60, 0, 0));
    let grant = wallet.wallet.grant(&grant_id(2)).unwrap();
    assert_eq!((grant.taken, grant.spent(), grant.deferred()), (units(70), units(0), MicroUsd::new(3)));
}

#[test]
fn an_adjustment_takes_no_more_than_is_available() {
    let mut wallet = given([grant(1, 100), hold(1, 40), Grant::usd(2, 50).expiring(2).command()]);
    let refusal = wallet.then_refused(take(1, 61));
    let (needed, available, held) = (units(61), units(60), units(40));
    assert_eq!(refusal, WalletRefusal::InsufficientCredit { asset: Asset::Usd, needed, available, held });
    assert_eq!(names(&wallet.when(take(1, 60)).unwrap()), ["grant_expired", "credits_taken"]);
    assert_eq!(wallet.usd(), (0, 40, 0));
    assert!(matches!(wallet.then_refused(take(2, 0)), WalletRefusal::AmountTooSmall { .. }));
}

#[test]
fn an_adjustment_takes_once_and_never_something_else() {
    let mut wallet = given([grant(1, 100), take(1, 10)]);
    let WalletCommand::TakeCredits { adjustment_id, asset, amount, reason, effective_at, .. } = take(1, 10) else {
        unreachable!()
    };
    let reused = WalletRefusal::IdReused { id: adjustment_id.0 };
    let again = |asset, amount, reason, effective_at| WalletCommand::TakeCredits {
        adjustment_id,
        asset,
        amount,
        reason,
        effective_at,
        at: at(80),
    };
    // Only the moment of asking is no content.
    assert_eq!(wallet.when(again(asset, amount, reason, effective_at)), Ok(Vec::new()));
    let others = [
        again(Asset::Credit, amount, reason, effective_at),
        again(asset, units(11), reason, effective_at),
        again(asset, amount, AdjustmentReason::Fraud, effective_at),
        again(asset, amount, reason, at(1)),
    ];
    for other in others {
        assert_eq!(wallet.then_refused(other), reused);
    }
    assert_eq!(wallet.usd(), (90, 0, 0));
}

#[test]
fn an_adjustment_of_a_time_to_come_or_without_an_ordered_id_is_refused() {
    let mut wallet = given([grant(1, 100)]);
    let with = |id, effective| WalletCommand::TakeCredits {
        adjustment_id: id,
        asset: Asset::Usd,
        amount: units(1),
        reason: AdjustmentReason::Other,
        effective_at: at(effective),
        at: at(0),
    };
    let refusal = wallet.then_refused(with(adjustment_id(1), CLOCK_SKEW_MAX_SECONDS + 1));
    let effective_at = at(CLOCK_SKEW_MAX_SECONDS + 1);
    assert_eq!(refusal, WalletRefusal::EffectiveAhead { effective_at, at: at(0) });
    let unordered = AdjustmentId(Uuid::from_u128(7));
    assert_eq!(wallet.then_refused(with(unordered, 0)), WalletRefusal::IdNotOrdered { id: unordered.0 });
    let ahead = AdjustmentId(id(1_000_000));
    assert!(matches!(wallet.then_refused(with(ahead, 0)), WalletRefusal::IdAhead { .. }));
    assert!(wallet.when(with(adjustment_id(1), CLOCK_SKEW_MAX_SECONDS)).is_ok());
}

#[test]
fn a_frozen_wallet_can_be_corrected() {
    let mut wallet = given([grant(1, 100), WalletCommand::Freeze { cause: FreezeCause::Fraud, source_ref: None }]);
    assert!(wallet.when(take(1, 100)).is_ok());
    assert_eq!(wallet.usd(), (0, 0, 0));
}

#[test]
fn the_last_takings_are_remembered_and_older_ids_are_refused() {
    let mut wallet = given([grant(1, 1_000_000)]);
    let remembered = TAKINGS_REMEMBERED_MAX_COUNT as u64;
    let late = |n| match take(n, 1) {
        WalletCommand::TakeCredits { adjustment_id, asset, amount, reason, effective_at, .. } => {
            WalletCommand::TakeCredits { adjustment_id, asset, amount, reason, effective_at, at: at(600) }
        }
        other => other,
    };
    for n in 1..=remembered + 1 {
        let taken = wallet.wallet.decide(late(n)).unwrap();
        wallet.apply(&taken);
    }
    let (id, forgotten_ms) = (adjustment_id(1).0, START_MS + 100_001);
    assert_eq!(wallet.then_refused(late(1)), WalletRefusal::IdTooOld { id, forgotten_ms });
    assert_eq!(wallet.when(late(2)), Ok(Vec::new()));
    let mut restored = Given { wallet: serde_json::from_str(&json(&wallet.wallet)).unwrap() };
    assert_eq!(restored.then_refused(late(1)), WalletRefusal::IdTooOld { id, forgotten_ms });
    assert_eq!(restored.when(late(2)), Ok(Vec::new()));
    assert_eq!(restored.wallet.weight_bytes(), wallet.wallet.weight_bytes());
}

#[test]
fn what_an_adjustment_took_is_still_owed_to_a_claim() {
    let mut wallet = given([grant(1, 100), take(1, 30), void(1, 100, "refund:1")]);
    assert_eq!(wallet.usd(), (0, 0, 30));
    wallet.when(restore(1, "refund:1")).unwrap();
    assert_eq!(wallet.usd(), (70, 0, 0));
}

#[test]
fn an_adjustment_that_grants_says_why() {
    let base = Grant { kind: GrantKind::Adjustment, cost: 0, ..Grant::usd(1, 5) };
    let with = |reason| Grant { reason, ..base }.command();
    let mut wallet = given([]);
    let events = wallet.when(with(Some(AdjustmentReason::Migration))).unwrap();
    let WalletEvent::CreditsGranted(granted) = &events[0] else { panic!("{events:?}") };
    assert_eq!(granted.reason, Some(AdjustmentReason::Migration));
    for other in [None, Some(AdjustmentReason::Goodwill)] {
        assert_eq!(wallet.then_refused(with(other)), WalletRefusal::IdReused { id: grant_id(1).0 });
    }
}
