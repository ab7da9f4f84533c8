//! What holds for every history. With `PROPTEST_CASES=15000` more than a million commands are decided.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::reference::compare_fractions;
use super::world::{Step, World};
use super::*;

/// A history is long enough for balances to run out and come back.
const STEPS_COUNT: std::ops::Range<usize> = 20..120;

pub(super) fn asset() -> impl Strategy<Value = Asset> {
    prop_oneof![3 => Just(Asset::Usd), 1 => Just(Asset::Credit)]
}

/// Small enough that balances run out, with edges more often than chance would have them.
pub(super) fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![2 => 0..20i64, 5 => 1..200i64, 1 => -1..1i64]
}

pub(super) fn granting() -> impl Strategy<Value = Step> {
    let kind = select(vec![GrantKind::Trial, GrantKind::Purchase, GrantKind::Subscription]);
    let lasts = prop_oneof![2 => Just(None), 3 => (1..400i64).prop_map(Some)];
    let cost = prop_oneof![2 => Just(0i64), 3 => 0..500i64];
    (asset(), kind, 1..300i64, -1..=1i16, prop_oneof![Just(0i64), 0..100i64], lasts, cost).prop_map(
        |(asset, kind, amount, priority, age, lasts, cost)| Step::Grant {
            asset,
            kind,
            amount,
            priority,
            age,
            lasts,
            cost,
        },
    )
}

pub(super) fn release_cause() -> impl Strategy<Value = ReleaseCause> {
    select(vec![ReleaseCause::Expired, ReleaseCause::Expired, ReleaseCause::Voided, ReleaseCause::ClientGone])
}

fn freeze_cause() -> impl Strategy<Value = FreezeCause> {
    select(vec![FreezeCause::Dispute, FreezeCause::Operator])
}

fn step() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    let claim = select(vec![DebtCause::Refund, DebtCause::Dispute]);
    prop_oneof![
        7 => granting(),
        12 => (asset(), amount(), 1..300i64).prop_map(|(asset, amount, lasts)| Step::Hold { asset, amount, lasts }),
        8 => (any(), amount()).prop_map(|(pick, amount)| Step::Settle { pick, amount }),
        6 => (any(), release_cause()).prop_map(|(pick, cause)| Step::Release { pick, cause }),
        6 => (asset(), amount(), prop_oneof![Just(0i64), 0..100i64])
            .prop_map(|(asset, amount, debt_limit)| Step::Charge { asset, amount, debt_limit }),
        6 => (any(), amount()).prop_map(|(pick, amount)| Step::Reverse { pick, amount }),
        2 => any().prop_map(|pick| Step::Expire { pick }),
        3 => (any(), amount(), 0..4u8, claim)
            .prop_map(|(pick, claimed, reference, cause)| Step::Void { pick, claimed, reference, cause }),
        3 => any().prop_map(|pick| Step::Restore { pick }),
        2 => (asset(), amount(), select(AdjustmentReason::ALL.to_vec()), 0..500i64)
            .prop_map(|(asset, amount, reason, age)| Step::Take { asset, amount, reason, age }),
        1 => freeze_cause().prop_map(|cause| Step::Freeze { cause }),
        6 => freeze_cause().prop_map(|cause| Step::Thaw { cause }),
        5 => prop_oneof![4 => 0..120i64, 1 => -60..0i64].prop_map(|seconds| Step::Clock { seconds }),
        4 => any().prop_map(|pick| Step::Repeat { pick }),
        3 => any().prop_map(|pick| Step::Twist { pick }),
    ]
}

fn histories() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), STEPS_COUNT)
}

fn burn_key() -> impl Strategy<Value = BurnKey> {
    let expiry = prop_oneof![Just(None), (0..3i64).prop_map(|seconds| Some(at(seconds)))];
    let cost = prop_oneof![Just(0i64), 0..4i64, Just(i64::MAX), (i64::MAX - 2)..i64::MAX];
    let whole = prop_oneof![1..5i64, Just(i64::MAX), (i64::MAX - 2)..i64::MAX];
    (0..2i16, expiry, cost, whole, 0..3i64, 0..4u128).prop_map(|(priority, expires_at, cost, whole, age, n)| BurnKey {
        priority,
        expires_at,
        cost_basis: MicroUsd::new(cost),
        amount: units(whole),
        effective_at: at(age),
        grant_id: grant_id(n),
    })
}

proptest! {
    /// Entries balance, sums add up, nothing is negative, holds end once, allocations burn in order, reversals are
    /// suffixes, claims are undone exactly, prices are released to the last, nobody who owes can spend, repetitions
    /// change nothing and other content is refused: [`World`] checks it at every event.
    #[test]
    fn the_wallet_keeps_its_rules_through_every_history(steps in histories(), cut in any::<prop::sample::Index>()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        // Replaying everything gives the warm state, and so does any snapshot with what came after it.
        let warm = json(&world.wallet);
        let cut = cut.index(world.log.len());
        let mut replayed = Wallet::default();
        for event in &world.log[..cut] {
            replayed.evolve(event);
        }
        let mut restored: Wallet = serde_json::from_str(&json(&replayed)).unwrap();
        for event in &world.log[cut..] {
            replayed.evolve(event);
            restored.evolve(event);
        }
        prop_assert_eq!(&json(&replayed), &warm);
        prop_assert_eq!(&json(&restored), &warm);
        // What a snapshot leaves out is built again: the restored wallet decides like the warm one.
        world.wallet = restored;
        for step in &steps {
            world.step(step);
        }
    }

    /// Events survive the log: what is read back folds to the same state.
    #[test]
    fn stored_events_fold_to_the_same_state(steps in histories()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        let mut reread = Wallet::default();
        for event in &world.log {
            let stored = serde_json::to_string(event).unwrap();
            reread.evolve(&serde_json::from_str::<WalletEvent>(&stored).unwrap());
        }
        prop_assert_eq!(json(&reread), json(&world.wallet));
    }

    /// However many ask at once, what is accepted never exceeds the balance, and the refused ones did not fit.
    #[test]
    fn holds_never_exceed_the_balance(balance in 1..1_000i64, wanted in prop::collection::vec(0..300i64, 1..60)) {
        let mut wallet = given([grant(1, balance)]);
        let mut accepted = 0;
        for (n, amount) in wanted.into_iter().enumerate() {
            match wallet.when(hold(n as u64 + 1, amount)) {
                Ok(_) => accepted += amount,
                Err(_) => prop_assert!(accepted + amount > balance),
            }
            prop_assert!(accepted <= balance);
            prop_assert_eq!(wallet.usd(), (balance - accepted, accepted, 0));
        }
    }

    #[test]
    fn the_burn_order_is_total(keys in prop::collection::vec(burn_key(), 3)) {
        let [one, two, three] = [&keys[0], &keys[1], &keys[2]];
        prop_assert_eq!(burn_order(one, two), burn_order(two, one).reverse());
        if burn_order(one, two).is_le() && burn_order(two, three).is_le() {
            prop_assert!(burn_order(one, three).is_le());
        }
        prop_assert_eq!(burn_order(one, two).is_eq(), {
            let costs = [one, two].map(|key| (key.cost_basis.get(), key.amount.get()));
            let same_cost = compare_fractions(costs[0], costs[1]).is_eq();
            let rest = |key: &BurnKey| (key.priority, key.expires_at, key.effective_at, key.grant_id);
            same_cost && rest(one) == rest(two)
        });
    }

    #[test]
    fn cost_per_unit_compares_like_the_reference(one in burn_key(), other in burn_key()) {
        let other = BurnKey { cost_basis: other.cost_basis, amount: other.amount, ..one };
        let fractions = [one, other].map(|key| (key.cost_basis.get(), key.amount.get()));
        prop_assert_eq!(burn_order(&one, &other), compare_fractions(fractions[0], fractions[1]));
    }
}

#[test]
fn the_histories_reach_every_event_often() {
    let mut runner = TestRunner::deterministic();
    let mut counts = BTreeMap::new();
    for _ in 0..200 {
        let mut world = World::new();
        for step in histories().new_tree(&mut runner).unwrap().current() {
            world.step(&step);
        }
        for event in &world.log {
            *counts.entry(crate::Fact::name(event)).or_insert(0) += 1;
        }
    }
    for (name, _) in <WalletEvent as crate::Fact>::CATALOGUE {
        assert!(counts.get(name).is_some_and(|count| *count >= 90), "{name}: {counts:?}");
    }
}

#[test]
fn the_burn_order_asks_in_its_order() {
    let base = BurnKey {
        priority: 0,
        expires_at: Some(at(10)),
        cost_basis: MicroUsd::new(5),
        amount: units(10),
        effective_at: at(1),
        grant_id: grant_id(5),
    };
    // Each of these burns before `base`, though everything that is asked later speaks against it.
    let late = BurnKey { effective_at: at(2), grant_id: grant_id(9), ..base };
    let earlier = [
        BurnKey { priority: -1, expires_at: None, cost_basis: MicroUsd::new(9), ..late },
        BurnKey { expires_at: Some(at(9)), cost_basis: MicroUsd::new(9), ..late },
        BurnKey { cost_basis: MicroUsd::ZERO, ..late },
        BurnKey { cost_basis: MicroUsd::new(9), amount: units(20), ..late },
        BurnKey { effective_at: at(0), grant_id: grant_id(9), ..base },
        BurnKey { grant_id: grant_id(4), ..base },
    ];
    for key in earlier {
        assert!(burn_order(&key, &base).is_lt(), "{key:?}");
    }
    assert!(burn_order(&BurnKey { expires_at: None, ..base }, &base).is_gt());
    assert_eq!(BURN_ORDER_VERSION, "priority-expiry-cost-age/1");
}
