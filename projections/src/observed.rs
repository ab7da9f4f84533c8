//! Who wants to follow an event into the read models.

use std::time::SystemTime;

/// Hears of what each round took, once it is committed. It is called by the runner, so it must be quick and never wait.
pub trait RoundObserver: Send + Sync {
    /// A read model has taken everything up to a position of a partition.
    fn taken(&self, taken: &Taken);
}

/// What a round took of one partition for one read model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The read model.
    pub projection: &'static str,
    /// The partition.
    pub partition: i32,
    /// The last position taken.
    pub through: i64,
    /// When the round was begun.
    pub began: SystemTime,
}
