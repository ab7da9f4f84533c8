//! What the accounts stand at when all is done: the stories an accountant would check by hand.

use super::world::World;
use super::*;
use crate::wallet::{AdjustmentReason, GrantKind};

const PHONE: Bought =
    Bought { kind: PaymentKind::Subscription, asset: Asset::Credit, units: 1_000, gross: 29_000_001, ..BOUGHT };

fn facts<const N: usize>(world: &mut World, facts: [PaymentFact; N]) {
    for fact in facts {
        world.fact(&fact).unwrap();
    }
}

/// The trial balance is this, line by line, what stands at zero left out.
fn stands_at<const N: usize>(world: &World, asset: Asset, lines: [(&str, i64); N]) {
    let lines: Vec<_> = lines.into_iter().map(|(name, balance)| (name.to_owned(), balance)).collect();
    assert_eq!(world.trial_balance(asset), lines);
}

#[test]
fn bought_spent_in_part_and_refunded_in_whole_leaves_what_was_spent_as_debt_and_income() {
    let mut world = World::new();
    facts(&mut world, [BOUGHT.received()]);
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Assets:Stripe:Balance", 50),
            ("Equity:Issued:purchase", 50),
            ("Liabilities:DeferredRevenue:purchase", -50),
            ("Liabilities:Wallet:Available", -50),
        ],
    );
    world.spend(1, Asset::Usd, 30);
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Assets:OutOfBand", -15),
            ("Assets:Stripe:Balance", 50),
            ("Equity:Issued:purchase", 20),
            ("Expenses:Provider:openai", 15),
            ("Income:Usage:chat", -30),
            ("Liabilities:DeferredRevenue:purchase", -20),
            ("Liabilities:Wallet:Available", -20),
        ],
    );
    facts(&mut world, [BOUGHT.refund("re_1", 50, 50)]);
    // Nothing deferred, issued, voided or at Stripe; what the provider charged has gone.
    stands_at(
        &world,
        Asset::Usd,
        [("Assets:Debt", 30), ("Assets:OutOfBand", -15), ("Expenses:Provider:openai", 15), ("Income:Usage:chat", -30)],
    );
    assert_eq!(world.purse(Asset::Usd), (0, 30));
}

#[test]
fn the_next_purchase_pays_the_debt_a_refund_left() {
    let mut world = World::new();
    facts(&mut world, [BOUGHT.received()]);
    world.spend(1, Asset::Usd, 30);
    facts(&mut world, [BOUGHT.refund("re_1", 50, 50), Bought { n: 2, ..BOUGHT }.received()]);
    assert_eq!(world.purse(Asset::Usd), (20, 0));
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Assets:OutOfBand", -15),
            ("Assets:Stripe:Balance", 50),
            ("Equity:Issued:purchase", 20),
            ("Expenses:Provider:openai", 15),
            ("Income:Usage:chat", -30),
            ("Liabilities:DeferredRevenue:purchase", -20),
            ("Liabilities:Wallet:Available", -20),
        ],
    );
}

#[test]
fn partial_refunds_take_what_is_left_first() {
    let mut world = World::new();
    facts(&mut world, [BOUGHT.received()]);
    world.spend(1, Asset::Usd, 30);
    facts(&mut world, [BOUGHT.refund("re_1", 10, 10)]);
    assert_eq!(world.purse(Asset::Usd), (10, 0));
    facts(&mut world, [BOUGHT.refund("re_2", 15, 15), BOUGHT.refund("re_1", 10, 10)]);
    assert_eq!(world.purse(Asset::Usd), (0, 5));
    facts(&mut world, [BOUGHT.refund("re_3", 25, 25)]);
    assert_eq!(world.purse(Asset::Usd), (0, 30));
}

#[test]
fn a_dispute_won_restores_exactly_and_costs_its_fee() {
    let bought = Bought { fee: 2, ..BOUGHT };
    let mut world = World::new();
    facts(&mut world, [bought.received()]);
    world.spend(1, Asset::Usd, 30);
    let before = world.trial_balance(Asset::Usd);
    facts(&mut world, [bought.opened("dp_1", 50, 50)]);
    assert_eq!(world.purse(Asset::Usd), (0, 30));
    assert!(world.wallet.is_frozen());
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Assets:Debt", 30),
            ("Assets:OutOfBand", -15),
            ("Assets:Stripe:Balance", -17),
            ("Assets:Stripe:Disputed", 50),
            ("Equity:Voided", -50),
            ("Expenses:DisputeLoss", 15),
            ("Expenses:Provider:openai", 15),
            ("Expenses:StripeFees", 2),
            ("Income:Usage:chat", -30),
        ],
    );
    facts(&mut world, [bought.won("dp_1", 50)]);
    assert_eq!(world.purse(Asset::Usd), (20, 0));
    assert!(!world.wallet.is_frozen());
    let mut expected = before;
    expected.iter_mut().filter(|(name, _)| name == "Assets:Stripe:Balance").for_each(|(_, balance)| *balance -= 15);
    expected.push(("Expenses:DisputeLoss".to_owned(), 15));
    expected.sort();
    assert_eq!(world.trial_balance(Asset::Usd), expected);
}

#[test]
fn a_dispute_lost_leaves_what_a_refund_would_and_the_fee() {
    let mut world = World::new();
    facts(&mut world, [BOUGHT.received()]);
    world.spend(1, Asset::Usd, 30);
    facts(&mut world, [BOUGHT.opened("dp_1", 50, 50), BOUGHT.lost("dp_1", 50)]);
    world.payout(-15);
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Assets:Bank", -15),
            ("Assets:Debt", 30),
            ("Assets:OutOfBand", -15),
            ("Expenses:DisputeLoss", 15),
            ("Expenses:Provider:openai", 15),
            ("Income:Usage:chat", -30),
        ],
    );
}

#[test]
fn a_dispute_won_brings_back_what_other_credit_has_paid_of_its_debt() {
    let mut world = World::new();
    facts(&mut world, [BOUGHT.received()]);
    world.spend(1, Asset::Usd, 50);
    let other = Bought { n: 2, ..BOUGHT };
    facts(&mut world, [BOUGHT.opened("dp_1", 50, 50), other.received()]);
    assert_eq!(world.purse(Asset::Usd), (0, 0));
    facts(&mut world, [BOUGHT.won("dp_1", 50)]);
    assert_eq!(world.purse(Asset::Usd), (50, 0));
    world.spend(2, Asset::Usd, 50);
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Assets:OutOfBand", -50),
            ("Assets:Stripe:Balance", 85),
            ("Expenses:DisputeLoss", 15),
            ("Expenses:Provider:openai", 50),
            ("Income:Usage:chat", -100),
        ],
    );
}

#[test]
fn a_purchase_paid_out_and_used_up_is_income_and_nothing_else() {
    let mut world = World::new();
    facts(&mut world, [Bought { fee: 2, ..BOUGHT }.received()]);
    world.payout(48);
    world.spend(1, Asset::Usd, 50);
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Assets:Bank", 48),
            ("Assets:OutOfBand", -25),
            ("Expenses:Provider:openai", 25),
            ("Expenses:StripeFees", 2),
            ("Income:Usage:chat", -50),
        ],
    );
}

#[test]
fn what_was_given_away_is_never_owed_as_money() {
    let mut world = World::new();
    world.give(Asset::Usd, GrantKind::Trial, 10);
    world.spend(1, Asset::Usd, 4);
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Assets:OutOfBand", -2),
            ("Equity:Issued:trial", 10),
            ("Expenses:Provider:openai", 2),
            ("Income:Usage:chat", -4),
            ("Liabilities:Wallet:Available", -6),
        ],
    );
}

#[test]
fn a_subscription_in_phone_credits_is_earned_in_dollars_to_the_last_micro_dollar() {
    let mut world = World::new();
    facts(&mut world, [PHONE.received()]);
    stands_at(
        &world,
        Asset::Usd,
        [("Assets:Stripe:Balance", 29_000_001), ("Liabilities:DeferredRevenue:subscription", -29_000_001)],
    );
    for (n, amount, earned) in [(1, 333, 9_657_000), (2, 333, 19_314_000), (3, 333, 28_971_000), (4, 1, 29_000_001)] {
        world.spend(n, Asset::Credit, amount);
        assert_eq!(world.balance(Asset::Usd, &"Income:Usage:voice".parse().unwrap()), -earned);
    }
    stands_at(&world, Asset::Usd, [("Assets:Stripe:Balance", 29_000_001), ("Income:Usage:voice", -29_000_001)]);
    stands_at(&world, Asset::Credit, [("Equity:Issued:subscription", 1_000), ("Income:Usage:voice", -1_000)]);
}

#[test]
fn a_deduction_undone_is_owed_again_and_earned_by_the_next() {
    let mut world = World::new();
    facts(&mut world, [PHONE.received()]);
    world.spend(1, Asset::Credit, 1_000);
    world.reverse(1, 400);
    assert_eq!(world.balance(Asset::Usd, &"Income:Usage:voice".parse().unwrap()), -17_400_000);
    world.spend(2, Asset::Credit, 400);
    stands_at(&world, Asset::Usd, [("Assets:Stripe:Balance", 29_000_001), ("Income:Usage:voice", -29_000_001)]);
}

#[test]
fn what_expires_is_breakage() {
    for (asset, issued) in [(Asset::Usd, true), (Asset::Credit, false)] {
        let bought = Bought { asset, units: 1_000, gross: 1_000, expires: Some(100), ..PHONE };
        let mut world = World::new();
        facts(&mut world, [bought.received()]);
        world.spend(1, asset, 400);
        world.now = 100;
        world.expire(bought.grant_id());
        assert_eq!(world.purse(asset), (0, 0));
        assert_eq!(world.balance(Asset::Usd, &"Income:Breakage".parse().unwrap()), -600);
        assert_eq!(world.balance(asset, &"Income:Breakage".parse().unwrap()), -600);
        assert_eq!(world.balance(Asset::Usd, &"Liabilities:DeferredRevenue:subscription".parse().unwrap()), 0);
        let given_out = world.balance(asset, &"Equity:Issued:subscription".parse().unwrap());
        assert_eq!(given_out, if issued { 0 } else { 1_000 });
    }
}

#[test]
fn what_expired_unspent_is_not_asked_for_twice() {
    let bought = Bought { expires: Some(100), ..BOUGHT };
    let mut world = World::new();
    facts(&mut world, [bought.received()]);
    world.spend(1, Asset::Usd, 30);
    world.now = 100;
    facts(&mut world, [bought.refund("re_1", 50, 50)]);
    assert_eq!(world.purse(Asset::Usd), (0, 30));
    // The same when the payment itself comes that late: all of it runs out at once.
    let mut world = World::new();
    world.now = 100;
    facts(&mut world, [bought.refund("re_1", 50, 50), bought.received()]);
    assert_eq!(world.purse(Asset::Usd), (0, 0));
}

#[test]
fn a_refund_of_phone_credits_leaves_the_loss_against_what_was_paid_back_until_the_debt_is_paid() {
    let bought = Bought { asset: Asset::Credit, units: 500, ..BOUGHT };
    let mut world = World::new();
    facts(&mut world, [bought.received()]);
    world.spend(1, Asset::Credit, 500);
    facts(&mut world, [bought.refund("re_1", 50, 500)]);
    assert_eq!(world.purse(Asset::Credit), (0, 500));
    stands_at(&world, Asset::Usd, [("Equity:Voided", 50), ("Income:Usage:voice", -50)]);
    facts(&mut world, [Bought { n: 2, ..bought }.received()]);
    assert_eq!(world.purse(Asset::Credit), (0, 0));
    stands_at(&world, Asset::Usd, [("Assets:Stripe:Balance", 50), ("Income:Usage:voice", -50)]);
}

#[test]
fn corrections_stand_against_their_reasons() {
    let mut world = World::new();
    world.grant(Asset::Usd, GrantKind::Adjustment, 70, 0, Some(AdjustmentReason::ServiceCredit));
    world.take(Asset::Usd, 20, AdjustmentReason::BillingError);
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Equity:Adjustment:billing_error", -20),
            ("Equity:Adjustment:service_credit", 70),
            ("Liabilities:Wallet:Available", -50),
        ],
    );
}

#[test]
fn what_was_paid_for_outside_of_payments_is_owed_as_money_too() {
    let mut world = World::new();
    world.grant(Asset::Usd, GrantKind::Purchase, 70, 60, None);
    world.spend(1, Asset::Usd, 70);
    stands_at(
        &world,
        Asset::Usd,
        [
            ("Assets:OutOfBand", 25),
            ("Equity:Issued:purchase", 10),
            ("Expenses:Provider:openai", 35),
            ("Income:Usage:chat", -70),
        ],
    );
}

#[test]
fn a_fact_whose_effects_the_wallet_refuses_changes_nothing() {
    let mut world = World::new();
    facts(&mut world, [BOUGHT.received()]);
    let before = world.trial_balance(Asset::Usd);
    // Another payment that names the same grant.
    let thief = Bought { n: 1, gross: 40, units: 40, ..BOUGHT };
    let PaymentFact::PaymentReceived(received) = thief.received() else { unreachable!() };
    let fact = PaymentFact::PaymentReceived(PaymentReceived { payment_ref: "in_2".to_owned(), ..received });
    assert!(matches!(world.fact(&fact), Err(super::world::NotRecorded::Wallet(_))));
    assert_eq!(world.trial_balance(Asset::Usd), before);
}
