//! Placing and releasing.

use super::*;

#[test]
fn a_hold_moves_credit_from_available_to_held() {
    let mut wallet = given([grant(1, 100)]);
    let events = wallet.when(hold(1, 40)).unwrap();
    assert_eq!(
        events,
        [WalletEvent::HoldPlaced(HoldPlaced {
            hold_id: hold_id(1),
            asset: Asset::Usd,
            amount: units(40),
            allocations: allocations([(1, 40)]),
            meter: Meter::Chat,
            api_key_id: None,
            line: None,
            user_id: None,
            usage_id: usage_id(1),
            admitted_at: at(1),
            expires_at: at(601),
            available_after: units(60),
        })]
    );
    assert_eq!(wallet.usd(), (60, 40, 0));
    assert_eq!(wallet.wallet.hold(&hold_id(1)).map(|hold| hold.expires_at), Some(at(601)));
    assert_eq!(wallet.wallet.open_holds().count(), 1);
}

#[test]
fn a_hold_beyond_the_balance_is_refused_with_the_numbers() {
    let mut wallet = given([grant(1, 100), hold(1, 88)]);
    let refusal = wallet.then_refused(hold(2, 40));
    let (needed, available, held) = (units(40), units(12), units(88));
    assert_eq!(refusal, WalletRefusal::InsufficientCredit { asset: Asset::Usd, needed, available, held });
    assert_eq!(refusal.to_string(), "needs 40 USD, has 12 (88 held)");
}

#[test]
fn the_last_unit_can_be_held() {
    let mut wallet = given([grant(1, 100)]);
    assert!(wallet.when(hold(1, 100)).is_ok());
    assert_eq!(wallet.usd(), (0, 100, 0));
}

#[test]
fn a_free_route_is_held_for_with_nothing() {
    let mut wallet = given([]);
    let events = wallet.when(hold(1, 0)).unwrap();
    let WalletEvent::HoldPlaced(placed) = &events[0] else { panic!("{events:?}") };
    assert!(placed.allocations.is_empty());
    let events = wallet.when(settle(1, 0)).unwrap();
    assert_eq!(names(&events), ["usage_recorded", "credits_deducted"]);
    assert_eq!(wallet.usd(), (0, 0, 0));
}

#[test]
fn a_hold_takes_from_several_grants_in_burn_order() {
    let mut wallet = given([grant(1, 30), Grant { priority: -1, ..Grant::usd(2, 30) }.command(), grant(3, 30)]);
    let events = wallet.when(hold(1, 70)).unwrap();
    let WalletEvent::HoldPlaced(placed) = &events[0] else { panic!("{events:?}") };
    assert_eq!(placed.allocations, allocations([(2, 30), (1, 30), (3, 10)]));
}

#[test]
fn the_same_hold_with_other_content_is_refused() {
    let mut wallet = given([grant(1, 100), hold(1, 40)]);
    assert_eq!(wallet.then_refused(hold(1, 41)), WalletRefusal::IdReused { id: hold_id(1).0 });
    // The moment is no content: a repetition resolves its clock again.
    assert_eq!(wallet.when(hold_at(1, 40, 9)), Ok(Vec::new()));
    let other_meter = |command| match command {
        WalletCommand::PlaceHold { hold_id, asset, amount, usage_id, admitted_at, expires_at, .. } => {
            let (meter, caller, terms) = (Meter::Embeddings, None, CallTerms::default());
            WalletCommand::PlaceHold { hold_id, asset, amount, meter, caller, terms, usage_id, admitted_at, expires_at }
        }
        other => other,
    };
    assert_eq!(wallet.then_refused(other_meter(hold(1, 40))), WalletRefusal::IdReused { id: hold_id(1).0 });
}

#[test]
fn a_hold_that_ended_is_still_known() {
    let mut wallet = given([grant(1, 100), hold(1, 40), settle(1, 10), hold(2, 20)]);
    wallet.when(release(2, ReleaseCause::Voided, 3)).unwrap();
    assert_eq!(wallet.when(hold(1, 40)), Ok(Vec::new()));
    assert_eq!(wallet.when(hold(2, 20)), Ok(Vec::new()));
    assert_eq!(wallet.then_refused(hold(1, 41)), WalletRefusal::IdReused { id: hold_id(1).0 });
    assert_eq!(wallet.then_refused(hold(2, 21)), WalletRefusal::IdReused { id: hold_id(2).0 });
}

#[test]
fn a_use_has_one_hold() {
    let mut wallet = given([grant(1, 100), hold(1, 10)]);
    let second_for_the_same_use = WalletCommand::PlaceHold {
        hold_id: hold_id(2),
        asset: Asset::Usd,
        amount: units(10),
        meter: Meter::Chat,
        caller: None,
        terms: CallTerms::default(),
        usage_id: usage_id(1),
        admitted_at: at(1),
        expires_at: at(2),
    };
    assert_eq!(wallet.then_refused(second_for_the_same_use.clone()), WalletRefusal::IdReused { id: usage_id(1).0 });
    wallet.when(settle(1, 10)).unwrap();
    assert_eq!(wallet.then_refused(second_for_the_same_use), WalletRefusal::IdReused { id: usage_id(1).0 });
}

#[test]
fn a_hold_and_its_use_may_share_one_id() {
    let shared = id(7);
    let command = WalletCommand::PlaceHold {
        hold_id: HoldId(shared),
        asset: Asset::Usd,
        amount: units(10),
        meter: Meter::Chat,
        caller: None,
        terms: CallTerms::default(),
        usage_id: UsageId(shared),
        admitted_at: at(1),
        expires_at: at(600),
    };
    let mut wallet = given([grant(1, 100)]);
    wallet.when(command.clone()).unwrap();
    let usage = UsageRecorded { usage_id: UsageId(shared), ..usage(1, 4) };
    wallet.when(WalletCommand::SettleHold { hold_id: HoldId(shared), usage, amount: units(4), at: at(2) }).unwrap();
    assert_eq!(wallet.when(command), Ok(Vec::new()));
    assert_eq!(wallet.usd(), (96, 0, 0));
    let restored: Wallet = serde_json::from_str(&json(&wallet.wallet)).unwrap();
    assert_eq!(restored.ended(&HoldId(shared)), wallet.wallet.ended(&HoldId(shared)));
    assert!(restored.ended_use(&UsageId(shared)).is_some());
}

#[test]
fn less_than_nothing_cannot_be_held_nor_a_hold_end_before_it_begins() {
    let mut wallet = given([grant(1, 100)]);
    assert_eq!(wallet.then_refused(hold(1, -1)), WalletRefusal::AmountTooSmall { amount: units(-1), least: 0 });
    let timeless = WalletCommand::PlaceHold {
        hold_id: hold_id(1),
        asset: Asset::Usd,
        amount: units(1),
        meter: Meter::Chat,
        caller: None,
        terms: CallTerms::default(),
        usage_id: usage_id(1),
        admitted_at: at(5),
        expires_at: at(5),
    };
    let refusal = wallet.then_refused(timeless);
    assert_eq!(refusal, WalletRefusal::ImpossibleHold { admitted_at: at(5), expires_at: at(5) });
}

#[test]
fn a_grant_past_its_end_pays_no_new_hold_even_before_that_is_recorded() {
    let mut wallet = given([Grant::usd(1, 30).expiring(100).command(), grant(2, 50)]);
    assert_eq!(wallet.wallet.available(Asset::Usd), units(80));
    assert_eq!(wallet.wallet.available_at(Asset::Usd, at(99)), units(80));
    assert_eq!(wallet.wallet.available_at(Asset::Usd, at(100)), units(50));
    let refusal = wallet.then_refused(hold_at(1, 60, 100));
    let (needed, available, held) = (units(60), units(50), units(0));
    assert_eq!(refusal, WalletRefusal::InsufficientCredit { asset: Asset::Usd, needed, available, held });
    let events = wallet.when(hold_at(1, 50, 100)).unwrap();
    assert_eq!(names(&events), ["grant_expired", "hold_placed"]);
    let WalletEvent::HoldPlaced(placed) = &events[1] else { panic!("{events:?}") };
    assert_eq!((placed.available_after, &placed.allocations), (units(0), &allocations([(2, 50)])));
    assert_eq!(wallet.usd(), (0, 50, 0));
}

#[test]
fn a_released_hold_gives_everything_back() {
    let mut wallet = given([grant(1, 100), hold(1, 40)]);
    let events = wallet.when(release(1, ReleaseCause::ProviderFailed, 3)).unwrap();
    assert_eq!(
        events,
        [WalletEvent::HoldReleased(HoldReleased {
            hold_id: hold_id(1),
            usage_id: usage_id(1),
            asset: Asset::Usd,
            amount: units(40),
            returned_to: allocations([(1, 40)]),
            cause: ReleaseCause::ProviderFailed,
            available_after: units(100),
        })]
    );
    assert_eq!(wallet.usd(), (100, 0, 0));
    assert_eq!(wallet.then_refused(settle(1, 5)), WalletRefusal::HoldEnded(hold_id(1)));
    assert_eq!(wallet.then_refused(release(1, ReleaseCause::Voided, 3)), WalletRefusal::HoldEnded(hold_id(1)));
}

#[test]
fn a_hold_expires_when_its_time_has_come_and_not_before() {
    let mut wallet = given([grant(1, 100), hold(1, 40)]);
    let refusal = wallet.then_refused(release(1, ReleaseCause::Expired, 600));
    assert_eq!(refusal, WalletRefusal::NotDue { at: at(600), due: Some(at(601)) });
    assert!(wallet.when(release(1, ReleaseCause::Expired, 601)).is_ok());
    assert_eq!(wallet.usd(), (100, 0, 0));
}

#[test]
fn a_settled_hold_cannot_be_released_nor_an_unknown_one() {
    let mut wallet = given([grant(1, 100), hold(1, 40), settle(1, 10)]);
    assert_eq!(wallet.then_refused(release(1, ReleaseCause::Expired, 700)), WalletRefusal::HoldEnded(hold_id(1)));
    assert_eq!(wallet.then_refused(release(9, ReleaseCause::Voided, 3)), WalletRefusal::NoSuchHold(hold_id(9)));
}

#[test]
fn credit_of_an_expired_grant_that_comes_back_expires_too() {
    let mut wallet = given([Grant::usd(1, 30).expiring(100).command(), hold(1, 20)]);
    wallet.when(expire(1, 100)).unwrap();
    assert_eq!(wallet.usd(), (0, 20, 0));
    let events = wallet.when(release(1, ReleaseCause::Voided, 101)).unwrap();
    assert_eq!(names(&events), ["hold_released", "grant_expired"]);
    assert_eq!(wallet.usd(), (0, 0, 0));
    assert_eq!(wallet.wallet.grant(&grant_id(1)).map(|grant| grant.expired), Some(units(30)));
}

#[test]
fn ids_must_carry_a_time_that_can_be() {
    let mut wallet = given([grant(1, 100)]);
    let with_id = |hold_id: Uuid, usage_id: Uuid| WalletCommand::PlaceHold {
        hold_id: HoldId(hold_id),
        asset: Asset::Usd,
        amount: units(1),
        meter: Meter::Chat,
        caller: None,
        terms: CallTerms::default(),
        usage_id: UsageId(usage_id),
        admitted_at: at(1),
        expires_at: at(2),
    };
    let unordered = Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
    let ahead = id(1_000 * (CLOCK_SKEW_MAX_SECONDS.cast_unsigned() + 2));
    for (hold_id, usage_id) in [(unordered, id(1)), (id(1), unordered)] {
        assert_eq!(wallet.then_refused(with_id(hold_id, usage_id)), WalletRefusal::IdNotOrdered { id: unordered });
    }
    for (hold_id, usage_id) in [(ahead, id(1)), (id(1), ahead)] {
        assert!(matches!(wallet.then_refused(with_id(hold_id, usage_id)), WalletRefusal::IdAhead { .. }));
    }
}

#[test]
fn a_wallet_has_a_bounded_number_of_open_holds() {
    let mut wallet = given([]);
    for n in 0..HOLDS_OPEN_MAX_COUNT as u64 {
        let events = wallet.wallet.decide(hold_at(n, 0, 60)).unwrap();
        wallet.apply(&events);
    }
    let limit = HOLDS_OPEN_MAX_COUNT;
    let refusal = wallet.wallet.decide(hold_at(20_000, 0, 60)).unwrap_err();
    assert_eq!(refusal, WalletRefusal::TooManyHolds { open: limit, limit });
}
