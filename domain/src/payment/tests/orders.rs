//! Facts in every order, late and twice, between uses of the credit they are about: in the end the same is available and
//! the same is owed, and it is what can be worked out without any order at all.

use proptest::prelude::*;
use proptest::sample::Index;

use super::world::World;
use super::*;
use crate::book::AccountClass;
use crate::wallet::GrantKind;

/// The most uses there are, and the most that is kept for each of them.
const USES_MAX_COUNT: usize = 6;
const KEPT_MAX_UNITS: i64 = 4;

/// What every tenant has before anything is bought, in either asset: enough to keep something for every use.
const GIVEN: i64 = USES_MAX_COUNT as i64 * KEPT_MAX_UNITS;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Fact(PaymentFact),
    Settle(u64, Asset, i64),
}

/// How a dispute ends, if it has.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Open,
    Won,
    Lost,
}

/// One payment and what follows it.
#[derive(Clone, Debug)]
struct Story {
    asset: Asset,
    units: i64,
    gross: i64,
    /// Parts of the payment, in percent: they come to less than the whole.
    refunds: Vec<i64>,
    disputes: Vec<(i64, End)>,
}

fn asset() -> impl Strategy<Value = Asset> {
    prop_oneof![Just(Asset::Usd), Just(Asset::Credit)]
}

fn story(refunds: usize, disputes: usize) -> impl Strategy<Value = Story> {
    let end = prop_oneof![Just(End::Open), Just(End::Won), Just(End::Lost)];
    let refunds = prop::collection::vec(1..=50i64, 0..=refunds);
    let disputes = prop::collection::vec((1..=100i64, end), 0..=disputes);
    (asset(), 1..=100i64, 100..=200i64, refunds, disputes).prop_map(|(asset, units, gross, refunds, disputes)| Story {
        asset,
        units,
        gross,
        refunds,
        disputes,
    })
}

/// Uses that are let in at the start, for nothing, and settled at some time for this much.
fn uses(most: usize) -> impl Strategy<Value = Vec<(Asset, i64, i64)>> {
    prop::collection::vec((asset(), 0..=KEPT_MAX_UNITS, 0..=60i64), 0..=most)
}

impl Story {
    fn bought(&self, n: u128) -> Bought {
        Bought { n, asset: self.asset, units: self.units, gross: self.gross, ..BOUGHT }
    }

    fn facts(&self, n: u128) -> Vec<PaymentFact> {
        let bought = self.bought(n);
        let mut facts = vec![bought.received()];
        for (place, percent) in self.refunds.iter().enumerate() {
            facts.push(bought.refund(&format!("re_{n}_{place}"), self.part(*percent), self.claim(*percent)));
        }
        for (place, (percent, end)) in self.disputes.iter().enumerate() {
            let (name, amount) = (format!("dp_{n}_{place}"), self.part(*percent));
            facts.push(bought.opened(&name, amount, self.claim(*percent)));
            match end {
                End::Open => {}
                End::Won => facts.push(bought.won(&name, amount)),
                End::Lost => facts.push(bought.lost(&name, amount)),
            }
        }
        facts
    }

    const fn part(&self, percent: i64) -> i64 {
        self.gross * percent / 100
    }

    const fn claim(&self, percent: i64) -> i64 {
        self.units * percent / 100
    }

    /// What refunds and disputes that stand have claimed in the end: never more than was granted.
    fn clawed_back(&self) -> i64 {
        let refunds = self.refunds.iter().map(|percent| self.claim(*percent));
        let standing = self.disputes.iter().filter(|(_, end)| *end != End::Won);
        let disputes = standing.map(|(percent, _)| self.claim(*percent));
        refunds.chain(disputes).sum::<i64>().min(self.units)
    }

    fn is_disputed(&self) -> bool {
        self.disputes.iter().any(|(_, end)| *end == End::Open)
    }
}

/// Everything that happens, in the order one would tell it.
fn steps(stories: &[Story], uses: &[(Asset, i64, i64)]) -> Vec<Step> {
    let facts = stories.iter().zip(1..).flat_map(|(story, n)| story.facts(n)).map(Step::Fact);
    let settled = uses.iter().zip(1..).map(|((asset, _, amount), n)| Step::Settle(n, *asset, *amount));
    facts.chain(settled).collect()
}

fn begin(uses: &[(Asset, i64, i64)]) -> World {
    let mut world = World::new();
    for asset in Asset::ALL {
        world.give(asset, GrantKind::Trial, GIVEN);
    }
    for ((asset, kept, _), n) in uses.iter().zip(1..) {
        world.hold(n, *asset, *kept);
    }
    world
}

fn run<'a>(mut world: World, steps: impl IntoIterator<Item = &'a Step>) -> World {
    for step in steps {
        match step {
            Step::Fact(fact) => world.fact(fact).unwrap_or_else(|error| panic!("{fact:?}: {error:?}")),
            Step::Settle(n, asset, amount) => world.settle(*n, *asset, *amount),
        }
    }
    world
}

/// What it must all come to, worked out without any order.
fn expected(stories: &[Story], uses: &[(Asset, i64, i64)], asset: Asset) -> (i64, i64) {
    let of = stories.iter().filter(|story| story.asset == asset);
    let bought: i64 = of.map(|story| story.units - story.clawed_back()).sum();
    let used: i64 = uses.iter().filter(|(of, ..)| *of == asset).map(|(_, _, amount)| amount).sum();
    let net = GIVEN + bought - used;
    (net.max(0), (-net).max(0))
}

fn check(world: &World, stories: &[Story], uses: &[(Asset, i64, i64)]) -> Result<(), TestCaseError> {
    for asset in Asset::ALL {
        prop_assert_eq!(world.purse(asset), expected(stories, uses, asset), "{} available and owed", asset);
        let used: i64 = uses.iter().filter(|(of, ..)| *of == asset).map(|(_, _, amount)| amount).sum();
        if asset == Asset::Usd {
            prop_assert_eq!(world.balance(asset, &AccountClass::Usage(super::world::meter(asset))), -used);
        }
    }
    prop_assert_eq!(world.wallet.is_frozen(), stories.iter().any(Story::is_disputed));
    // The money, too, lies where it would in any order.
    let (mut stripe, mut disputed, mut loss) = (0, 0, 0);
    for story in stories {
        stripe += story.gross - story.refunds.iter().map(|percent| story.part(*percent)).sum::<i64>();
        for (percent, end) in &story.disputes {
            let amount = story.part(*percent);
            loss += 15;
            stripe -= 15 + if *end == End::Won { 0 } else { amount };
            disputed += if *end == End::Open { amount } else { 0 };
        }
    }
    let balances = [AccountClass::StripeBalance, AccountClass::StripeDisputed, AccountClass::DisputeLoss]
        .map(|class| world.balance(Asset::Usd, &class));
    prop_assert_eq!(balances, [stripe, disputed, loss]);
    Ok(())
}

/// Goes through every order of `rest` after what has happened so far.
fn every_order(
    world: &World,
    rest: &[Step],
    check: &impl Fn(&World) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    if rest.is_empty() {
        return check(world);
    }
    for place in 0..rest.len() {
        let mut others = rest.to_vec();
        let step = others.remove(place);
        let mut next = run(world.clone(), [&step]);
        if let Step::Fact(_) = &step {
            // Once more at once: nothing changes.
            let before = next.purse(Asset::Usd);
            next = run(next, [&step]);
            prop_assert_eq!(next.purse(Asset::Usd), before);
        }
        every_order(&next, &others, check)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_order_of_a_few_facts_and_uses_comes_to_the_same(
        story in story(2, 1),
        uses in uses(2),
    ) {
        let stories = [story];
        let steps = steps(&stories, &uses);
        every_order(&begin(&uses), &steps, &|world| check(world, &stories, &uses))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn many_facts_shuffled_late_and_twice_come_to_the_same(
        stories in prop::collection::vec(story(2, 2), 1..=4),
        uses in uses(USES_MAX_COUNT),
        (order, again) in (
            prop::collection::vec(any::<u64>(), 64),
            prop::collection::vec((any::<Index>(), any::<Index>()), 0..12),
        ),
    ) {
        let told = steps(&stories, &uses);
        let mut places: Vec<usize> = (0..told.len()).collect();
        places.sort_by_key(|place| order[*place % order.len()].wrapping_add(*place as u64));
        for (which, where_to) in again {
            // Uses are settled twice as well: the wallet knows them.
            let twice = places[which.index(places.len())];
            places.insert(where_to.index(places.len() + 1), twice);
        }
        let world = run(begin(&uses), places.iter().map(|place| &told[*place]));
        check(&world, &stories, &uses)?;
    }

    #[test]
    fn a_dispute_won_leaves_what_there_was_without_it(
        stories in prop::collection::vec(story(1, 1), 1..=3),
        uses in uses(4),
        (units, gross, percent) in (1..=100i64, 100..=200i64, 1..=100i64),
        places in prop::collection::vec(any::<Index>(), 2),
    ) {
        let n = 99;
        let disputed =
            Story { asset: Asset::Usd, units, gross, refunds: Vec::new(), disputes: vec![(percent, End::Won)] };
        let facts = disputed.facts(n);
        let mut steps = steps(&stories, &uses);
        steps.insert(0, Step::Fact(facts[0].clone()));
        let without = run(begin(&uses), &steps);
        let mut places: Vec<usize> = places.iter().map(|place| 1 + place.index(steps.len())).collect();
        places.sort_unstable();
        steps.insert(places[1], Step::Fact(facts[2].clone()));
        steps.insert(places[0], Step::Fact(facts[1].clone()));
        let with = run(begin(&uses), &steps);
        for asset in Asset::ALL {
            prop_assert_eq!(with.purse(asset), without.purse(asset));
        }
    }
}
