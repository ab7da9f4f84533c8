//! How far this process has brought the projections, for whoever waits for one.

use std::collections::BTreeMap;

use calos_domain::Timestamp;

/// The last event taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reached {
    position: i64,
    recorded_at: Option<Timestamp>,
}

/// Positions by projection and partition, as far as this process knows: it hears of its own rounds at once and of other
/// processes' only by asking the database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    positions: BTreeMap<String, BTreeMap<i32, Reached>>,
}

impl Progress {
    /// The last position taken; none before this process knows.
    #[must_use]
    pub fn position(&self, projection: &str, partition: i32) -> Option<i64> {
        self.positions.get(projection)?.get(&partition).map(|reached| reached.position)
    }

    /// When the last event that this process took was recorded; none before it has taken one.
    #[must_use]
    pub fn recorded_at(&self, projection: &str, partition: i32) -> Option<Timestamp> {
        self.positions.get(projection)?.get(&partition)?.recorded_at
    }

    /// The projections anything is known of.
    pub fn projections(&self) -> impl Iterator<Item = &str> {
        self.positions.keys().map(String::as_str)
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
    pub(crate) fn set(&mut self, projection: &str, partition: i32, position: i64, recorded_at: Option<Timestamp>) {
        let reached = Reached { position, recorded_at };
        match self.positions.get_mut(projection) {
            Some(partitions) => {
                partitions.insert(partition, reached);
            }
            None => {
                self.positions.insert(projection.to_owned(), BTreeMap::from([(partition, reached)]));
            }
        }
    }
}
