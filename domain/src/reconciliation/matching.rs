//! The comparison itself: a pure function of both sides.

use std::collections::{BTreeMap, HashSet};

use crate::MicroUsd;

use super::{EXCEPTIONS_MAX_COUNT, Exception, ExceptionKind, Side};

/// One movement, as one side knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Movement {
    /// This side's own id of the movement: one id is one movement, however often it is said.
    pub id: String,
    /// What both sides call what moved: a charge, refund, dispute or payout. A dispute moves twice, out and back.
    pub reference: String,
    /// What moved.
    pub side: Side,
}

/// What a comparison found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Matched {
    /// Movements on which both sides agree.
    pub matched: u64,
    /// All exceptions, those that are not kept too.
    pub found: u64,
    /// The first [`EXCEPTIONS_MAX_COUNT`] of them, by reference.
    pub exceptions: Vec<Exception>,
}

impl Matched {
    fn except(&mut self, kind: ExceptionKind, reference: &str, ours: Option<Side>, theirs: Option<Side>) {
        self.found = self.found.saturating_add(1);
        if self.exceptions.len() < EXCEPTIONS_MAX_COUNT {
            let number = u32::try_from(self.exceptions.len()).unwrap_or(u32::MAX).saturating_add(1);
            self.exceptions.push(Exception { number, kind, reference: reference.to_owned(), ours, theirs });
        }
    }
}

/// Compares what the books say moved with what whoever keeps the account says.
///
/// Movements meet by reference. Within one, equal amounts and fees meet first, whenever they moved: the two clocks need
/// not agree. One more of what has met already is a duplicate. Of what is left, money in meets money in and money out
/// meets money out, the earliest first: those are different. What is still left is missing on the other side. An id said
/// twice is a duplicate at once and meets nothing.
///
/// The order in which either side comes does not matter.
#[must_use]
pub fn match_up(ours: &[Movement], theirs: &[Movement]) -> Matched {
    let mut references: BTreeMap<&str, Both> = BTreeMap::new();
    for movement in first_said(ours, Twice::Ours, &mut references) {
        references.entry(&movement.reference).or_default().alike(movement.side).ours.push(movement.side);
    }
    for movement in first_said(theirs, Twice::Theirs, &mut references) {
        references.entry(&movement.reference).or_default().alike(movement.side).theirs.push(movement.side);
    }
    let mut result = Matched::default();
    for (reference, both) in references {
        both.compare(reference, &mut result);
    }
    result
}

/// All movements of one reference.
#[derive(Default)]
struct Both {
    alike: BTreeMap<(MicroUsd, MicroUsd), Alike>,
    twice: Vec<Twice>,
}

/// Movements of one reference, amount and fee, the earliest first.
#[derive(Default)]
struct Alike {
    ours: Vec<Side>,
    theirs: Vec<Side>,
}

/// A movement whose id was said before.
enum Twice {
    Ours(Side),
    Theirs(Side),
}

/// The movements whose id is said for the first time, the earliest first; the others are noted as said twice.
fn first_said<'a>(
    movements: &'a [Movement],
    twice: impl Fn(Side) -> Twice,
    references: &mut BTreeMap<&'a str, Both>,
) -> Vec<&'a Movement> {
    let mut sorted: Vec<&Movement> = movements.iter().collect();
    sorted.sort_unstable_by_key(|movement| {
        (movement.side.at, movement.id.as_str(), movement.reference.as_str(), movement.side)
    });
    let mut known = HashSet::with_capacity(sorted.len());
    sorted.retain(|movement| {
        let first = known.insert(movement.id.as_str());
        if !first {
            references.entry(&movement.reference).or_default().twice.push(twice(movement.side));
        }
        first
    });
    sorted
}

impl Both {
    fn alike(&mut self, side: Side) -> &mut Alike {
        self.alike.entry((side.amount, side.fee)).or_default()
    }

    fn compare(self, reference: &str, result: &mut Matched) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for alike in self.alike.into_values() {
            let met = alike.ours.len().min(alike.theirs.len());
            if met == 0 {
                ours.extend(alike.ours);
                theirs.extend(alike.theirs);
                continue;
            }
            result.matched = result.matched.saturating_add(u64::try_from(met).unwrap_or(u64::MAX));
            for our in alike.ours.into_iter().skip(met) {
                result.except(ExceptionKind::Duplicate, reference, Some(our), None);
            }
            for their in alike.theirs.into_iter().skip(met) {
                result.except(ExceptionKind::Duplicate, reference, None, Some(their));
            }
        }
        let inward = |side: &Side| side.amount >= MicroUsd::ZERO;
        let (ours_in, ours_out): (Vec<Side>, Vec<Side>) = ours.into_iter().partition(inward);
        let (theirs_in, theirs_out): (Vec<Side>, Vec<Side>) = theirs.into_iter().partition(inward);
        pair(reference, ours_in, theirs_in, result);
        pair(reference, ours_out, theirs_out, result);
        for twice in self.twice {
            match twice {
                Twice::Ours(side) => result.except(ExceptionKind::Duplicate, reference, Some(side), None),
                Twice::Theirs(side) => result.except(ExceptionKind::Duplicate, reference, None, Some(side)),
            }
        }
    }
}

/// What moved the same way and differs; what is left of either side is missing on the other.
fn pair(reference: &str, mut ours: Vec<Side>, mut theirs: Vec<Side>, result: &mut Matched) {
    let moment = |side: &Side| (side.at, *side);
    ours.sort_unstable_by_key(moment);
    theirs.sort_unstable_by_key(moment);
    for index in 0..ours.len().max(theirs.len()) {
        let (our, their) = (ours.get(index).copied(), theirs.get(index).copied());
        let kind = match (our, their) {
            (Some(_), Some(_)) => ExceptionKind::Different,
            (Some(_), None) => ExceptionKind::MissingThere,
            (None, _) => ExceptionKind::MissingHere,
        };
        result.except(kind, reference, our, their);
    }
}
