//! What the log counts about itself.

use std::time::Duration;

use calos_commands::figures::{BATCH_BOUNDS, Counter, Histogram, QUICK_BOUNDS_MICROS};

/// The figures of one process's log.
#[derive(Debug)]
pub struct Counters {
    /// Batches committed.
    pub batches: Counter,
    /// Commands committed.
    pub commands: Counter,
    /// Events committed.
    pub events: Counter,
    /// From taking a batch to its commit, in microseconds.
    pub append: Histogram,
    /// Commands in a committed batch.
    pub batch_commands: Histogram,
    /// Decisions that were enqueued, each attempt for itself.
    pub decided: Counter,
    /// Decisions that refused.
    pub refused: Counter,
    /// Batches that met a head another process had moved.
    pub stale_batches: Counter,
    /// Batches whose commit another connection waited for.
    pub deferred_batches: Counter,
    /// Commands decided again.
    pub redecided: Counter,
    /// Commands turned away because the queue was full.
    pub overloaded: Counter,
    /// Streams loaded from the database.
    pub cold_loads: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            batches: Counter::default(),
            commands: Counter::default(),
            events: Counter::default(),
            append: Histogram::new(QUICK_BOUNDS_MICROS),
            batch_commands: Histogram::new(BATCH_BOUNDS),
            decided: Counter::default(),
            refused: Counter::default(),
            stale_batches: Counter::default(),
            deferred_batches: Counter::default(),
            redecided: Counter::default(),
            overloaded: Counter::default(),
            cold_loads: Counter::default(),
        }
    }
}

impl Counters {
    /// Counts one committed batch.
    pub fn record_batch(&self, commands: usize, events: usize, took: Duration) {
        let commands = u64::try_from(commands).unwrap_or_default();
        self.batches.add(1);
        self.commands.add(commands);
        self.events.add(u64::try_from(events).unwrap_or_default());
        self.append.record_micros(took);
        self.batch_commands.record(commands);
    }
}
