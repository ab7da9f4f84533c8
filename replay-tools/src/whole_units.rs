//! Where a log is cut so that nothing that was decided at once comes back in half.
//!
//! What one command decided over several partitions is one append, and a cut goes through each partition by its own clock. As
//! a rule an append bears one time in all of them; only a partition whose clock was ahead (a fenced moment, another machine's
//! clock) stamps it later than the others do. A cut between the two times, or at a position in the middle of an append, would
//! keep a part of it. So the cuts are lowered, partition by partition, until no command is on both sides.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use calos_domain::Timestamp;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use uuid::Uuid;

use crate::error::ToolError;
use crate::load::Until;
use crate::log_file::{Item, Source, Stored};

/// How far the times of one append may be apart, in seconds: how far clocks are ever ahead of each other.
const APART_MAX_SECONDS: i64 = 60;

/// How far below the moment that was asked for the log is cut at the most, in seconds.
const LOWERED_MAX_SECONDS: i64 = 60;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Who belongs together, from an event's metadata.
#[derive(Deserialize)]
struct Belongs {
    command_id: Uuid,
}

/// An event near the cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Near {
    partition: i32,
    position: i64,
    at: Timestamp,
}

/// Where each partition is cut: the last position that is kept.
#[derive(Default)]
struct Cuts {
    last: BTreeMap<i32, i64>,
    /// The events near the cut, by command. Bounded by what was recorded within three minutes.
    commands: HashMap<Uuid, Vec<Near>>,
}

impl Cuts {
    fn see(&mut self, event: &Stored, until: &Until, at: Timestamp) {
        let last = self.last.entry(event.partition).or_insert(0);
        if until.takes(event) {
            *last = (*last).max(event.position);
        }
        let after = (event.recorded_at.micros() - at.micros()) / MICROS_PER_SECOND;
        if (-(APART_MAX_SECONDS + LOWERED_MAX_SECONDS)..=APART_MAX_SECONDS).contains(&after)
            // Of no command: nobody but a test writes such an event.
            && let Ok(Belongs { command_id }) = serde_json::from_str(&event.metadata)
        {
            let near = Near { partition: event.partition, position: event.position, at: event.recorded_at };
            self.commands.entry(command_id).or_default().push(near);
        }
    }

    fn keeps(&self, near: &Near) -> bool {
        self.last.get(&near.partition).is_some_and(|last| near.position <= *last)
    }

    /// Lowers the cuts until no append is on both sides; how far down that led.
    fn lower(&mut self) -> Option<Timestamp> {
        let appends: Vec<Vec<Near>> = std::mem::take(&mut self.commands).into_values().flat_map(appends).collect();
        let mut lowest = None;
        loop {
            let mut changed = false;
            for append in &appends {
                let (kept, left): (Vec<&Near>, Vec<&Near>) = append.iter().partition(|near| self.keeps(near));
                if kept.is_empty() || left.is_empty() {
                    continue;
                }
                for near in kept {
                    let last = self.last.entry(near.partition).or_insert(0);
                    *last = (*last).min(near.position - 1);
                    lowest = Some(lowest.map_or(near.at, |lowest: Timestamp| lowest.min(near.at)));
                }
                changed = true;
            }
            if !changed {
                return lowest;
            }
        }
    }
}

/// The appends that a command's events came in. Within a partition an append bears one time; where a command is in several
/// partitions all of its events near the cut count as one, since a clock that is ahead tells them apart no more.
fn appends(mut events: Vec<Near>) -> Vec<Vec<Near>> {
    let several = events.iter().any(|near| near.partition != events[0].partition);
    if several {
        return vec![events];
    }
    events.sort_by_key(|near| near.position);
    events.chunk_by(|one, next| one.at == next.at).map(<[Near]>::to_vec).collect()
}

/// The cut of a backup that was asked for, with nothing in half.
///
/// # Errors
/// [`ToolError::Refused`] when that would be more than a minute before the moment that was asked for; the files'.
pub(crate) async fn cut(files: &[PathBuf], key: VerifyingKey, until: Until) -> Result<Until, ToolError> {
    let at = match &until {
        Until::End | Until::Cut(_) => return Ok(until),
        Until::Time(at) | Until::Position { at, .. } => *at,
    };
    let mut cuts = Cuts::default();
    for file in files {
        let mut source = Source::open(file, Some(key)).await?;
        loop {
            match source.next().await? {
                Item::Events(events) => {
                    for event in &events {
                        cuts.see(event, &until, at);
                    }
                }
                Item::Rows { .. } => {}
                Item::End(_) => break,
            }
        }
    }
    let lowest = cuts.lower();
    if lowest.is_some_and(|lowest| lowest.micros() < at.micros() - LOWERED_MAX_SECONDS * MICROS_PER_SECOND) {
        let why = format!(
            "around that moment decisions over several partitions follow one another so closely that nothing within \
             {LOWERED_MAX_SECONDS} s before it leaves all of them whole; choose another one. Nothing was changed"
        );
        return Err(ToolError::Refused(why));
    }
    Ok(Until::Cut(cuts.last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(partition: i32, position: i64, second: i64) -> Near {
        Near { partition, position, at: Timestamp::from_micros(second * MICROS_PER_SECOND) }
    }

    fn lowered(last: [(i32, i64); 3], commands: Vec<Vec<Near>>) -> Vec<i64> {
        let commands = commands.into_iter().map(|events| (Uuid::new_v4(), events)).collect();
        let mut cuts = Cuts { last: last.into(), commands };
        let _lowest = cuts.lower();
        cuts.last.into_values().collect()
    }

    #[test]
    fn what_is_whole_on_either_side_moves_no_cut() {
        let commands = vec![vec![near(0, 5, 10), near(1, 7, 10)], vec![near(0, 6, 11), near(1, 8, 11)]];
        assert_eq!(lowered([(0, 5), (1, 7), (2, 3)], commands), [5, 7, 3]);
    }

    #[test]
    fn a_half_is_left_out_and_so_is_whatever_that_cuts_in_half() {
        // The clock of partition 1 was ahead, so the second half of the first command lies beyond the cut; with its first
        // half goes what was kept behind it, and with that the half of it in partition 2.
        let commands = vec![vec![near(0, 5, 10), near(1, 8, 40)], vec![near(0, 6, 10), near(2, 3, 10)]];
        assert_eq!(lowered([(0, 6), (1, 7), (2, 3)], commands), [4, 7, 2]);
    }

    #[test]
    fn a_position_within_an_append_is_before_it_and_between_two_appends_of_a_command_it_stays() {
        assert_eq!(lowered([(0, 5), (1, 0), (2, 0)], vec![vec![near(0, 5, 10), near(0, 6, 10)]]), [4, 0, 0]);
        // A hold and its settlement share their command and are two appends.
        assert_eq!(lowered([(0, 5), (1, 0), (2, 0)], vec![vec![near(0, 5, 10), near(0, 6, 12)]]), [5, 0, 0]);
    }
}
