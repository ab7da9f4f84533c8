//! The shape every aggregate has: a decision is a pure function of what happened and what is asked.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::upcast::Upcast;

/// Something that happened, as it is stored in the log.
///
/// The stored name and version never change once an event of that name has been written anywhere: a changed meaning
/// is a new version with an upcaster.
pub trait Fact: Serialize + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static {
    /// Every stored name, with the version it is written in today.
    const CATALOGUE: &'static [(&'static str, &'static str)];

    /// The steps from older versions to today's, each event's in the order of its versions.
    const UPCASTS: &'static [Upcast];

    /// The stable `snake_case` name in the `event_type` column, also the single key of the stored payload object.
    fn name(&self) -> &'static str;

    /// The version in the `event_version` column, counted from `"1"`.
    fn version(&self) -> &'static str;
}

/// One aggregate: its state is folded from its facts, and commands are decided on that state alone.
pub trait Decider: Default + Clone + Serialize + DeserializeOwned + Debug + Send + Sync + 'static {
    /// The stored aggregate type, in the `aggregate_type` column.
    const KIND: &'static str;

    /// The shape of the stored snapshot; raise it whenever the state's fields change, and older snapshots are ignored.
    const SNAPSHOT_VERSION: i32;

    /// What can be asked.
    type Command: Send;
    /// What can have happened.
    type Event: Fact;
    /// Why a command is refused, with the numbers.
    type Refusal: std::error::Error + Send + Sync + 'static;

    /// Decides a command: the events it leads to (none when it is already done), or a refusal that changes nothing.
    ///
    /// # Errors
    /// The aggregate's refusal.
    fn decide(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// Folds one event in. Never refuses: what happened, happened.
    fn evolve(&mut self, event: &Self::Event);

    /// Roughly how many bytes the state holds, so that a cache of warm aggregates can be bounded.
    fn weight_bytes(&self) -> usize {
        std::mem::size_of::<Self>()
    }
}

/// Implements [`Fact`] for an event enum whose variants wrap one struct each; the stored name and version stand beside the
/// variant, and behind them the steps from every version it was written in before:
/// `after ["1" to "2": step, "2" to "3": another]`.
///
/// A new variant without a line here does not compile.
#[macro_export]
macro_rules! facts {
    ($event:ident { $(
        $variant:ident => $name:literal v $version:literal $(after [$($from:literal to $to:literal: $raise:path),+])?
    ),+ $(,)? }) => {
        impl $crate::Fact for $event {
            const CATALOGUE: &'static [(&'static str, &'static str)] = &[$(($name, $version)),+];

            const UPCASTS: &'static [$crate::upcast::Upcast] = &[$($($(
                $crate::upcast::Upcast { event_type: $name, from: $from, to: $to, raise: $raise },
            )+)?)+];

            fn name(&self) -> &'static str {
                match self { $(Self::$variant(..) => $name),+ }
            }

            fn version(&self) -> &'static str {
                match self { $(Self::$variant(..) => $version),+ }
            }
        }
    };
}
