//! What was paid for credit stops being owed as the credit goes, and ends at exactly nothing.

use super::*;

/// A purchase of 7 units for 100 micro-dollars: no part of it comes out even.
fn uneven() -> WalletCommand {
    Grant { cost: 100, ..Grant::usd(1, 7) }.command()
}

/// The sum over a decision's events.
fn released(events: &[WalletEvent]) -> i64 {
    events.iter().flat_map(super::claimed::released).map(|part| part.amount.get()).sum()
}

#[test]
fn each_unit_releases_its_share_and_the_last_one_the_rest() {
    let mut wallet = given([uneven()]);
    let shares: Vec<i64> = (1..=7).map(|n| released(&wallet.when(charge(n, 1)).unwrap())).collect();
    assert_eq!(shares, [14, 14, 14, 15, 14, 14, 15]);
    assert_eq!(wallet.wallet.grant(&grant_id(1)).unwrap().deferred(), MicroUsd::ZERO);
}

#[test]
fn whatever_way_a_grant_goes_its_whole_price_is_released() {
    let expiring = Grant { cost: 100, expires: Some(50), ..Grant::usd(1, 7) }.command();
    let ways: [&[WalletCommand]; 5] = [
        &[charge(1, 2), take(1, 3), void(1, 7, "refund:1")],
        &[hold(1, 5), settle(1, 3), charge(2, 1), expire(1, 50)],
        &[charge(1, 6), reverse(1, 4), expire(1, 60)],
        &[void(1, 5, "dispute:1"), charge(1, 2), restore(1, "dispute:1"), take(1, 5)],
        &[hold(2, 0), settle(2, 3), expire(1, 50)],
    ];
    for way in ways {
        let mut wallet = given([]);
        let mut sum = released(&wallet.when(expiring.clone()).unwrap());
        for command in way {
            sum += released(&wallet.when(command.clone()).unwrap());
            let owed = wallet.wallet.grant(&grant_id(1)).unwrap().deferred();
            assert_eq!(100 - sum, owed.get(), "{way:?}");
        }
        assert_eq!(sum, 100, "{way:?}");
    }
}

#[test]
fn what_is_held_is_not_earned_yet() {
    let mut wallet = given([uneven()]);
    assert_eq!(released(&wallet.when(hold(1, 7)).unwrap()), 0);
    assert_eq!(wallet.wallet.grant(&grant_id(1)).unwrap().deferred(), MicroUsd::new(100));
    assert_eq!(released(&wallet.when(settle(1, 4)).unwrap()), 57);
}

#[test]
fn credit_that_was_given_away_releases_nothing() {
    let mut wallet = given([Grant { cost: 0, ..Grant::usd(1, 10) }.command()]);
    let events = wallet.when(charge(1, 10)).unwrap();
    let WalletEvent::CreditsDeducted(deducted) = &events[1] else { panic!("{events:?}") };
    assert_eq!(deducted.released, []);
}

#[test]
fn what_is_released_is_summed_by_kind() {
    let mut wallet = given([
        Grant { cost: 5, ..Grant::usd(1, 10) }.command(),
        Grant { cost: 10, ..Grant::usd(2, 10) }.command(),
        Grant { cost: 20, kind: GrantKind::Subscription, ..Grant::usd(3, 10) }.command(),
    ]);
    let events = wallet.when(charge(1, 25)).unwrap();
    let WalletEvent::CreditsDeducted(deducted) = &events[1] else { panic!("{events:?}") };
    let of = |kind, amount| CostReleased { kind, amount: MicroUsd::new(amount) };
    assert_eq!(deducted.released, [of(GrantKind::Purchase, 15), of(GrantKind::Subscription, 10)]);
}

#[test]
fn a_grant_that_repays_debt_as_it_comes_in_releases_that_much() {
    let mut wallet = given([hold(1, 0), settle(1, 4)]);
    assert_eq!(released(&wallet.when(uneven()).unwrap()), 57);
}

#[test]
fn the_largest_price_and_the_largest_grant_come_out_even() {
    let mut wallet = given([Grant { cost: i64::MAX, ..Grant::usd(1, i64::MAX) }.command()]);
    assert_eq!(released(&wallet.when(charge(1, i64::MAX - 1)).unwrap()), i64::MAX - 1);
    assert_eq!(released(&wallet.when(charge(2, 1)).unwrap()), 1);
}

#[test]
fn a_deduction_and_its_reversal_and_debt_say_what_they_were_for() {
    let call = |n, amount| WalletCommand::Charge {
        usage: UsageRecorded { meter: Meter::Voice, ..usage(n, 0) },
        asset: Asset::Credit,
        amount: units(amount),
        debt_limit: units(50),
        debt_cause: DebtCause::InboundWithoutCredit,
        at: at(1),
    };
    let mut wallet = given([Grant { asset: Asset::Credit, ..Grant::usd(1, 30) }.command()]);
    let events = wallet.when(call(1, 40)).unwrap();
    let [_, WalletEvent::CreditsDeducted(deducted), WalletEvent::DebtIncurred(incurred)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((deducted.meter, incurred.meter), (Meter::Voice, Some(Meter::Voice)));
    // The meter is remembered through a snapshot as well.
    let mut wallet = Given { wallet: serde_json::from_str(&json(&wallet.wallet)).unwrap() };
    let events = wallet.when(reverse(1, 30)).unwrap();
    let WalletEvent::DeductionReversed(reversed) = &events[0] else { panic!("{events:?}") };
    assert_eq!(reversed.meter, Meter::Voice);
}
