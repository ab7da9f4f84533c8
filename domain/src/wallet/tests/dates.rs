//! What a book by effective dates rests on: at no date is more gone from a grant than had come in by then.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::histories::{amount, asset, granting, release_cause};
use super::world::{Step, World};
use super::*;
use crate::book::{self, Account};

/// Long enough for grants to run out under holds, and for what was held, spent and claimed to come back.
const STEPS_COUNT: std::ops::Range<usize> = 20..120;

/// Whatever brings credit back, on a clock that goes on. A taking may be dated before the credit came that it takes, so
/// there is none here.
fn step() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    let claim = select(vec![DebtCause::Refund, DebtCause::Dispute]);
    prop_oneof![
        6 => granting(),
        10 => (asset(), amount(), 1..300i64).prop_map(|(asset, amount, lasts)| Step::Hold { asset, amount, lasts }),
        6 => (any(), amount()).prop_map(|(pick, amount)| Step::Settle { pick, amount }),
        6 => (any(), release_cause()).prop_map(|(pick, cause)| Step::Release { pick, cause }),
        5 => (asset(), amount(), prop_oneof![Just(0i64), 0..100i64])
            .prop_map(|(asset, amount, debt_limit)| Step::Charge { asset, amount, debt_limit }),
        8 => (any(), amount()).prop_map(|(pick, amount)| Step::Reverse { pick, amount }),
        2 => any().prop_map(|pick| Step::Expire { pick }),
        4 => (any(), amount(), 0..4u8, claim)
            .prop_map(|(pick, claimed, reference, cause)| Step::Void { pick, claimed, reference, cause }),
        5 => any().prop_map(|pick| Step::Restore { pick }),
        8 => (0..120i64).prop_map(|seconds| Step::Clock { seconds }),
    ]
}

/// What stands on each grant's account, by the date from which it counts.
#[derive(Default)]
struct Dated(BTreeMap<(Asset, GrantId), BTreeMap<Timestamp, i128>>);

impl Dated {
    fn post(&mut self, event: &WalletEvent, recorded_at: Timestamp) {
        let date = book::effective_at(event, recorded_at);
        for entry in book::wallet_entries(tenant(), event).unwrap() {
            for posting in entry.postings {
                if let Account::Available(_, grant_id) = posting.account {
                    let account = self.0.entry((entry.asset, grant_id)).or_default();
                    *account.entry(date).or_default() -= posting.amount;
                }
            }
        }
    }

    /// The first grant that has less than nothing at some date.
    fn overdrawn(&self) -> Option<(GrantId, Timestamp, i128)> {
        self.0.iter().find_map(|((_, grant_id), moves)| {
            let mut balance = 0;
            moves.iter().find_map(|(date, moved)| {
                balance += moved;
                (balance < 0).then_some((*grant_id, *date, balance))
            })
        })
    }
}

proptest! {
    #[test]
    fn at_no_date_has_a_grant_less_than_nothing(steps in prop::collection::vec(step(), STEPS_COUNT)) {
        let (mut world, mut dated, mut posted) = (World::new(), Dated::default(), 0);
        for step in &steps {
            world.step(step);
            for event in &world.log[posted..] {
                dated.post(event, at(world.now));
            }
            posted = world.log.len();
        }
        prop_assert_eq!(dated.overdrawn(), None);
    }
}

#[test]
fn credit_that_comes_back_in_december_is_no_breakage_of_november() {
    let (november, december) = (at(100), at(150));
    let mut wallet = given([Grant::usd(1, 100).expiring(100).command(), hold(1, 80)]);
    let ended = wallet.when(expire(1, 100)).unwrap();
    let back = wallet.when(release(1, ReleaseCause::Voided, 150)).unwrap();
    assert_eq!((names(&ended), names(&back)), (vec!["grant_expired"], vec!["hold_released", "grant_expired"]));
    // Whenever the sweep came by, what was free at the end of November ran out then; the rest was held on.
    assert_eq!(book::effective_at(&ended[0], december), november);
    assert_eq!([&back[0], &back[1]].map(|event| book::effective_at(event, december)), [december, december]);
}
