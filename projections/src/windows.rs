//! Which stretches of the log one round reads for the checkpoints it has claimed.

use crate::checkpoint::Claim;
use crate::feed::Window;

/// Checkpoints of one partition this close together are served by one read.
const SHARED_MAX_EVENTS: i64 = 500;

/// A stretch and the claims it serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// What to read.
    pub(crate) window: Window,
    /// The partition's head when the claims were made.
    pub(crate) head: i64,
    /// Indexes of the claims that begin within the stretch or at its start.
    pub(crate) claims: Vec<usize>,
}

impl Plan {
    fn behind(&self) -> i64 {
        self.head - self.window.after
    }
}

/// Groups claims by where they stand and divides `budget` events among the groups: those that need little get all they
/// need, so that a read model that catches up from the beginning never holds up the ones at the head.
pub(crate) fn plan(claims: &[Claim], budget: i64) -> Vec<Plan> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_unstable_by_key(|index| (claims[*index].partition, claims[*index].position));
    let mut plans: Vec<Plan> = Vec::new();
    for index in order {
        let claim = &claims[index];
        match plans.last_mut() {
            Some(plan)
                if plan.window.partition == claim.partition
                    && claim.position - plan.window.after <= SHARED_MAX_EVENTS =>
            {
                plan.head = plan.head.max(claim.head);
                plan.claims.push(index);
            }
            _ => plans.push(Plan {
                window: Window { partition: claim.partition, after: claim.position, limit: 0 },
                head: claim.head,
                claims: vec![index],
            }),
        }
    }
    let mut by_need: Vec<usize> = (0..plans.len()).collect();
    by_need.sort_unstable_by_key(|index| plans[*index].behind());
    let mut left = budget;
    for (served, index) in by_need.iter().enumerate() {
        let share = left / (by_need.len() - served) as i64;
        let limit = plans[*index].behind().min(share).max(1);
        plans[*index].window.limit = limit;
        left = (left - limit).max(0);
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(projection: usize, partition: i32, position: i64, head: i64) -> Claim {
        Claim { projection, version: 1, partition, position, head }
    }

    #[test]
    fn claims_that_stand_close_together_share_one_read() {
        let claims = [claim(0, 3, 100, 120), claim(1, 3, 90, 120), claim(0, 1, 5, 6), claim(2, 3, 100, 120)];
        let plans = plan(&claims, 1_000);
        assert_eq!(plans.len(), 2);
        assert_eq!(plans[0].window, Window { partition: 1, after: 5, limit: 1 });
        assert_eq!(plans[1].window, Window { partition: 3, after: 90, limit: 30 });
        assert_eq!(plans[1].claims.len(), 3);
    }

    #[test]
    fn one_that_catches_up_takes_what_the_others_leave() {
        let claims = [claim(0, 3, 1_000_000, 1_000_040), claim(1, 3, 0, 1_000_040), claim(0, 4, 9, 10)];
        let plans = plan(&claims, 1_000);
        assert_eq!(plans.iter().map(|plan| plan.window.limit).collect::<Vec<_>>(), [959, 40, 1]);
    }

    #[test]
    fn nobody_is_given_nothing() {
        let claims: Vec<Claim> = (0..8).map(|partition| claim(0, partition, 0, 1_000)).collect();
        assert!(plan(&claims, 4).iter().all(|plan| plan.window.limit == 1));
    }
}
