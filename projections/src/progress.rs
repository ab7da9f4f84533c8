//! How far this process has brought the projections, for whoever waits for one.

use std::collections::BTreeMap;

/// Positions by projection and partition, as far as this process knows: it hears of its own rounds at once and of other
/// processes' only by asking the database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    positions: BTreeMap<String, BTreeMap<i32, i64>>,
}

impl Progress {
    /// The last position taken; none before this process knows.
    #[must_use]
    pub fn position(&self, projection: &str, partition: i32) -> Option<i64> {
        self.positions.get(projection)?.get(&partition).copied()
    }

    /// The first partition of `wanted` that a projection has not reached, with the position it stands at.
    #[must_use]
    pub fn first_behind(&self, projection: &str, wanted: &BTreeMap<i32, i64>) -> Option<(i32, i64)> {
        wanted.iter().find_map(|(partition, position)| {
            let at = self.position(projection, *partition).unwrap_or(0);
            (at < *position).then_some((*partition, at))
        })
    }

    /// Takes note of a position; positions only grow, but for a version that begins anew.
    pub(crate) fn set(&mut self, projection: &str, partition: i32, position: i64) {
        match self.positions.get_mut(projection) {
            Some(partitions) => {
                partitions.insert(partition, position);
            }
            None => {
                self.positions.insert(projection.to_owned(), BTreeMap::from([(partition, position)]));
            }
        }
    }
}
