//! Every choice of a simulation, drawn from its seed alone.

use calos_domain::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use uuid::Uuid;

/// Microseconds in a millisecond.
const MICROS_PER_MILLI: i64 = 1_000;

/// A source of choices: the same ones, in the same order, for the same seed.
pub struct Chance(StdRng);

impl Chance {
    /// The choices of a seed.
    pub fn of(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Below `bound`, which counts as 1 when it is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound.max(1))
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: i64, most: i64) -> i64 {
        self.0.random_range(least..=most.max(least))
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of several; none of none.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        among.get(self.below(among.len()))
    }

    /// A UUIDv7 of this moment.
    pub fn id(&mut self, at: Timestamp) -> Uuid {
        let millis = u64::try_from(at.micros().div_euclid(MICROS_PER_MILLI)).unwrap_or_default();
        let mut random = [0; 10];
        self.0.fill_bytes(&mut random);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// A UUID without a moment.
    pub fn any_id(&mut self) -> Uuid {
        let mut random = [0; 16];
        self.0.fill_bytes(&mut random);
        uuid::Builder::from_random_bytes(random).into_uuid()
    }
}
