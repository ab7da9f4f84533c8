//! What a process counts about itself: plain numbers that whoever shows them reads, and nobody waits for.
//!
//! Nothing here knows how they are shown, locks or allocates while counting.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds for what should take milliseconds, in microseconds.
pub const QUICK_BOUNDS_MICROS: &[u64] =
    &[500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000];

/// Upper bounds for what a model may take its time over, in microseconds.
pub const SLOW_BOUNDS_MICROS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    180_000_000,
];

/// Upper bounds for how many there are in a batch.
pub const BATCH_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// A number that only grows.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are at the moment. Cloning shares it.
#[derive(Clone, Default, Debug)]
pub struct Level(Arc<AtomicI64>);

impl Level {
    /// One more, until what is returned is dropped.
    #[must_use]
    pub fn enter(&self) -> Inside {
        self.0.fetch_add(1, Ordering::Relaxed);
        Inside(self.clone())
    }

    /// How many are inside.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of those that a [`Level`] counts.
#[derive(Debug)]
pub struct Inside(Level);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often something was how large: whole numbers, counted under the first bound they do not exceed.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than there are bounds: the last is for what exceeds them all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one over ascending bounds.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self { bounds, counts, sum: AtomicU64::default() }
    }

    /// Counts one.
    pub fn record(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts how long something took, in microseconds.
    pub fn record_micros(&self, took: Duration) {
        self.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// What was counted so far.
    #[must_use]
    pub fn read(&self) -> Distribution {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Distribution { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// What a [`Histogram`] stood at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distribution {
    /// The upper bounds, ascending.
    pub bounds: &'static [u64],
    /// How many there were under each bound and not under the one before; the last exceeded all bounds.
    pub counts: Vec<u64>,
    /// All of them added up.
    pub sum: u64,
}

impl Distribution {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_counts_once_under_the_first_bound_it_does_not_exceed() {
        let histogram = Histogram::new(BATCH_BOUNDS);
        for value in [0, 1, 2, 3, 1_024, 1_025, u64::from(u32::MAX)] {
            histogram.record(value);
        }
        let read = histogram.read();
        assert_eq!(read.counts[..3], [2, 1, 1]);
        assert_eq!((read.counts[BATCH_BOUNDS.len() - 1], read.counts[BATCH_BOUNDS.len()]), (1, 2));
        assert_eq!((read.count(), read.sum), (7, 6 + 1_024 + 1_025 + u64::from(u32::MAX)));
        assert!([BATCH_BOUNDS, QUICK_BOUNDS_MICROS, SLOW_BOUNDS_MICROS].iter().all(|bounds| bounds.is_sorted()));
    }

    #[test]
    fn a_level_knows_who_has_left() {
        let level = Level::default();
        let elsewhere = level.clone();
        let (first, _second) = (level.enter(), elsewhere.enter());
        assert_eq!((level.get(), elsewhere.get()), (2, 2));
        drop(first);
        assert_eq!((level.get(), elsewhere.get()), (1, 1));
    }
}
