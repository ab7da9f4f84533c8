//! The burn order once more, written from the ledger's sentence: priority, then soonest expiry (none last), then cost basis
//! ($0 first), then granted first, then id.

use std::cmp::Ordering;

use calos_domain::GrantId;

use super::figures::Sum;

/// What the order asks of a grant; moments in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Lower first.
    pub priority: i16,
    /// Soonest first, none last.
    pub expires: Option<i64>,
    /// What was paid for the whole grant.
    pub cost: Sum,
    /// The whole grant.
    pub granted: Sum,
    /// Earliest first.
    pub effective: i64,
    /// The last word.
    pub grant_id: GrantId,
    /// What it could give.
    pub available: Sum,
}

/// Draws `amount` from these grants, always next from whichever burns first among those left. What they do not cover is
/// missing from the sum.
pub fn draw(mut left: Vec<Candidate>, amount: Sum) -> Vec<(GrantId, Sum)> {
    let (mut drawn, mut needed) = (Vec::new(), amount);
    while needed > 0 {
        let Some(first) = (0..left.len()).min_by(|one, other| compare(&left[*one], &left[*other])) else { break };
        let grant = left.swap_remove(first);
        let part = grant.available.min(needed);
        if part > 0 {
            drawn.push((grant.grant_id, part));
            needed -= part;
        }
    }
    drawn
}

fn compare(one: &Candidate, other: &Candidate) -> Ordering {
    if one.priority != other.priority {
        return if one.priority < other.priority { Ordering::Less } else { Ordering::Greater };
    }
    match (one.expires, other.expires) {
        (Some(_), None) => return Ordering::Less,
        (None, Some(_)) => return Ordering::Greater,
        (Some(end), Some(later)) if end != later => return end.cmp(&later),
        (Some(_), Some(_)) | (None, None) => {}
    }
    // Fractions are compared by their whole parts and then by their rests, so that there is no product to overflow.
    let cost = compare_fractions((one.cost, one.granted), (other.cost, other.granted));
    cost.then(one.effective.cmp(&other.effective))
        .then_with(|| one.grant_id.0.as_bytes().cmp(other.grant_id.0.as_bytes()))
}

fn compare_fractions(one: (Sum, Sum), other: (Sum, Sum)) -> Ordering {
    let (one_rest, other_rest) = (one.0 % one.1, other.0 % other.1);
    match (one.0 / one.1).cmp(&(other.0 / other.1)) {
        Ordering::Equal if one_rest == 0 || other_rest == 0 => one_rest.signum().cmp(&other_rest.signum()),
        // Of two proper fractions the one with the smaller reciprocal is larger.
        Ordering::Equal => compare_fractions((other.1, other_rest), (one.1, one_rest)),
        unequal => unequal,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn grant(n: u128, priority: i16, expires: Option<i64>, cost: Sum) -> Candidate {
        let grant_id = GrantId(Uuid::from_u128(n));
        Candidate { priority, expires, cost, granted: 10, effective: 0, grant_id, available: 10 }
    }

    #[test]
    fn the_order_is_the_sentence() {
        let grants = vec![
            grant(1, 1, Some(5), 0),
            grant(2, 0, None, 0),
            grant(3, 0, Some(9), 3),
            grant(4, 0, Some(9), 0),
            grant(5, 0, Some(7), 9),
        ];
        let drawn: Vec<u128> = draw(grants, 45).iter().map(|part| part.0.0.as_u128()).collect();
        assert_eq!(drawn, [5, 4, 3, 2, 1]);
    }

    #[test]
    fn what_is_not_there_is_missing() {
        assert_eq!(draw(vec![grant(1, 0, None, 0)], 25), [(GrantId(Uuid::from_u128(1)), 10)]);
    }
}
