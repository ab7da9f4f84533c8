//! Refunds, disputes and spending in any order come to the same: what a tenant has or owes depends on what happened, not
//! on what was heard of first.

use proptest::prelude::*;

use super::*;

/// Something that can happen at any time relative to the others.
#[derive(Clone, Debug)]
enum Fact {
    /// An open hold is settled, for less or for more than it keeps.
    Settled { n: u64, amount: i64 },
    /// Credit comes in late.
    Granted { n: u128, amount: i64 },
    /// A refund or dispute of a grant; its place among the claims is its reference.
    Claimed { grant: u128, amount: i64, claim: usize },
    /// That dispute was won; may be heard of before the dispute itself.
    Won { claim: usize },
}

/// A wallet before the facts: grants that never end, and holds on them.
#[derive(Clone, Debug)]
struct Start {
    grants: Vec<i64>,
    holds: Vec<i64>,
}

impl Start {
    fn wallet(&self) -> Given {
        let mut wallet = given([]);
        for (n, amount) in (1..).zip(&self.grants) {
            wallet.when(grant(n, *amount)).unwrap();
        }
        for (n, amount) in (1..).zip(&self.holds) {
            wallet.when(hold(n, *amount)).unwrap();
        }
        wallet
    }
}

/// Hears of the facts in this order, and a second time of all of them at the end.
fn hear(start: &Start, facts: &[Fact]) -> Given {
    let mut wallet = start.wallet();
    let mut claimed: Vec<(usize, u128)> = Vec::new();
    let mut won: Vec<usize> = Vec::new();
    let mut commands = Vec::new();
    for fact in facts {
        match *fact {
            Fact::Settled { n, amount } => commands.push(settle(n, amount)),
            Fact::Granted { n, amount } => commands.push(grant(n, amount)),
            Fact::Claimed { grant, amount, claim } => {
                claimed.push((claim, grant));
                commands.push(void(grant, amount, &format!("claim:{claim}")));
            }
            Fact::Won { claim } => won.push(claim),
        }
        // A dispute that was won before it was heard of is undone as soon as it is.
        won.retain(|claim| {
            let Some((_, grant)) = claimed.iter().find(|(known, _)| known == claim) else { return true };
            commands.push(restore(*grant, &format!("claim:{claim}")));
            false
        });
    }
    for command in &commands {
        wallet.when(command.clone()).unwrap();
        let (available, _, debt) = wallet.usd();
        assert!(available == 0 || debt == 0, "{available} free and {debt} owed after {command:?}");
    }
    for command in commands {
        assert_eq!(wallet.when(command), Ok(Vec::new()));
    }
    wallet
}

/// A start, and what happens then: claims of a grant that together never exceed it.
fn stories() -> impl Strategy<Value = (Start, Vec<Fact>)> {
    let grants = prop::collection::vec(20..200i64, 1..5);
    let holds = prop::collection::vec((0..80i64, 0..160i64), 0..6);
    let late = prop::collection::vec(1..150i64, 0..3);
    let claims = prop::collection::vec((any::<prop::sample::Index>(), 1..120i64, any::<bool>()), 1..6);
    (grants, holds, late, claims).prop_map(|(grants, holds, late, claims)| {
        let mut free: i64 = grants.iter().sum();
        let mut facts = Vec::new();
        let mut kept = Vec::new();
        for (held, amount) in holds {
            if held <= free {
                free -= held;
                kept.push(held);
                facts.push(Fact::Settled { n: kept.len() as u64, amount });
            }
        }
        for (n, amount) in (100..).zip(late) {
            facts.push(Fact::Granted { n, amount });
        }
        let mut unclaimed = grants.clone();
        for (claim, (pick, amount, won)) in claims.into_iter().enumerate() {
            let place = pick.index(unclaimed.len());
            let amount = amount.min(unclaimed[place]);
            if amount > 0 {
                unclaimed[place] -= amount;
                facts.push(Fact::Claimed { grant: place as u128 + 1, amount, claim });
                facts.extend(won.then_some(Fact::Won { claim }));
            }
        }
        (Start { grants, holds: kept }, facts)
    })
}

/// The same story heard in two orders.
fn orders() -> impl Strategy<Value = (Start, Vec<Fact>, Vec<Fact>)> {
    stories()
        .prop_flat_map(|(start, facts)| (Just(start), Just(facts.clone()).prop_shuffle(), Just(facts).prop_shuffle()))
}

/// What a tenant has, or owes.
fn net(wallet: &Given) -> i64 {
    let (available, held, debt) = wallet.usd();
    assert_eq!(held, 0);
    available - debt
}

proptest! {
    #[test]
    fn every_order_comes_to_the_same((start, one, other) in orders()) {
        let won = |claim| one.iter().any(|fact| matches!(fact, Fact::Won { claim: of } if *of == claim));
        let come = |fact: &Fact| match *fact {
            Fact::Settled { amount, .. } => -amount,
            Fact::Granted { amount, .. } => amount,
            Fact::Claimed { amount, claim, .. } => if won(claim) { 0 } else { -amount },
            Fact::Won { .. } => 0,
        };
        let expected = start.grants.iter().sum::<i64>() + one.iter().map(come).sum::<i64>();
        prop_assert_eq!(net(&hear(&start, &one)), expected);
        prop_assert_eq!(net(&hear(&start, &other)), expected);
    }

    /// Whatever happened between a dispute and its end, a tenant who wins has what one has who never was in a dispute.
    #[test]
    fn a_dispute_won_is_as_if_it_had_never_been((start, facts, _) in orders()) {
        let won: Vec<usize> = facts.iter().filter_map(|fact| match fact {
            Fact::Won { claim } => Some(*claim),
            Fact::Settled { .. } | Fact::Granted { .. } | Fact::Claimed { .. } => None,
        }).collect();
        let without: Vec<Fact> = facts.iter().filter(|fact| match fact {
            Fact::Won { .. } => false,
            Fact::Claimed { claim, .. } => !won.contains(claim),
            Fact::Settled { .. } | Fact::Granted { .. } => true,
        }).cloned().collect();
        prop_assert_eq!(net(&hear(&start, &facts)), net(&hear(&start, &without)));
    }
}
