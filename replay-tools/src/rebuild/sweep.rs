//! Most of the log read as it lies in its table, from the first block to the last, once for all partitions.
//!
//! A partition's events lie nearly in its order, because they are only ever added; but several processes fill blocks side by
//! side, and room that a failed append left is used again. So what comes too early waits for what it follows, as far as there
//! is room; a partition that is too much scattered, or lacks anything at the end, is read on by its index, which says what is
//! missing.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;

use calos_domain::{Record, Timestamp};
use calos_projections::copy_in::COPY_FLUSH_BYTES;
use calos_projections::copy_out::{LogStretch, log_blocks, read_stretch};
use calos_projections::{Columns, Growth, ReadStopped};

use super::build::{PIECE_EVENTS, Reading, Share, Todo, begin_lazily, bulk, read_to_the_end, settle};
use crate::bulk::Bulk;
use crate::connections::Connections;
use crate::error::ToolError;
use crate::progress::{Counter, Progress};
use crate::skips::Skips;
use crate::traffic::Traffic;
use crate::versions::{Vector, heads_of, lag_events};

/// Blocks read by one statement: 8 MiB, about ten thousand events, and as much as a disk looks ahead for one reader.
const STRETCH_BLOCKS: u32 = 1_024;

/// Stretches that wait for a lane that is behind the others.
const STRETCHES_WAITING_MAX: usize = 2;

/// Events of one lane between two commits, while nobody waits for its transaction to end: what is done again at most after a
/// crash.
const SETTLE_EVENTS: i64 = 1_000_000;

/// Memory of one lane for events that came too early.
const EARLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Rows of a partition are sent when so many bytes of them have gathered, however many partitions a lane has.
const FLUSH_BYTES_MIN: usize = 256 * 1024;

/// The largest log that is read so for rows that are only complete at its end: a crash loses all that was read for them.
const KEYED_EVENTS_MAX: u64 = 50_000_000;

/// Whether to read all of the log rather than what is wanted of it by the index.
pub(super) async fn pays(readers: &PgPool, todo: &Todo) -> Result<bool, ToolError> {
    let wanted: i64 = todo.values().map(|shares| missing(shares)).sum();
    let all = lag_events(&Vector::new(), &heads_of(readers).await?);
    let keyed = todo.values().flatten().any(|share| share.growth() == Growth::PerKey);
    Ok(is_less_work(u64::try_from(wanted).unwrap_or_default(), all, keyed))
}

/// The index takes about twice as long for each event; and where rows are by key, not too much may be lost by a crash.
fn is_less_work(wanted: u64, all: u64, keyed: bool) -> bool {
    wanted.saturating_mul(2) >= all && !(keyed && all > KEYED_EVENTS_MAX)
}

/// Events that are read of a partition.
fn missing(shares: &[Share]) -> i64 {
    shares.iter().map(|share| share.through - share.after).max().unwrap_or_default()
}

/// Loads all that is to be done, in as many lanes as there may be workers.
pub(super) async fn load(
    connections: &Connections,
    todo: Todo,
    workers: usize,
    progress: &Progress,
) -> Result<(), ToolError> {
    let readers = connections.readers();
    let skips = Skips::read(readers).await?;
    let traffic = Arc::new(Traffic::watch(readers.clone(), progress.clone()).await?);
    let mut lanes = 1;
    while lanes < workers && traffic.leaves_room_for(lanes).await? {
        lanes += 1;
    }
    let (mut feeds, mut running) = (Vec::with_capacity(lanes), JoinSet::new());
    for todo in divided(todo, lanes) {
        let mut writer = connections.connect_to_write().await?;
        let mut strips = BTreeMap::new();
        for (partition, shares) in todo {
            strips.insert(partition, Strip::new(bulk(partition, &shares, &skips, &mut writer).await?, shares));
        }
        let lane = Lane { strips, traffic: Arc::clone(&traffic), readers: readers.clone(), writer };
        let (feed, stretches) = mpsc::channel(STRETCHES_WAITING_MAX);
        feeds.push(feed);
        running.spawn(lane.work(stretches, progress.counter()));
    }
    let ended = async {
        // The first failure ends the others: dropping the set aborts them, and their connections undo what was not done.
        while let Some(ended) = running.join_next().await {
            ended.map_err(|error| ToolError::Corrupt(format!("a worker ended abnormally: {error}")))??;
        }
        Ok(())
    };
    tokio::try_join!(feed_all(readers, feeds, lanes), ended)?;
    Ok(())
}

/// Reads the table from end to end, so many stretches at the same time, and gives each to every lane.
async fn feed_all(readers: &PgPool, feeds: Vec<Sender<Arc<LogStretch>>>, at_once: usize) -> Result<(), ToolError> {
    let blocks = log_blocks(readers).await?;
    let step = usize::try_from(STRETCH_BLOCKS).unwrap_or(usize::MAX);
    let read = |from: u32| read_stretch(readers, from..blocks.min(from.saturating_add(STRETCH_BLOCKS)), Columns::EVENT);
    let mut stretches = stream::iter((0..blocks).step_by(step)).map(read).buffered(at_once);
    while let Some(stretch) = stretches.next().await {
        let stretch = Arc::new(stretch?);
        for feed in &feeds {
            // A lane that is gone says why itself.
            if feed.send(Arc::clone(&stretch)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The work in so many parts of about the same size, a partition in one of them.
fn divided(todo: Todo, parts: usize) -> Vec<Todo> {
    let size = |shares: &Vec<Share>| shares.iter().map(|share| share.through - share.after).sum::<i64>();
    let mut partitions: Vec<_> = todo.into_iter().collect();
    partitions.sort_by_key(|(partition, shares)| (Reverse(size(shares)), *partition));
    let mut divided: Vec<(i64, Todo)> = (0..parts.max(1)).map(|_| (0, Todo::new())).collect();
    for (partition, shares) in partitions {
        let Some((load, smallest)) = divided.iter_mut().min_by_key(|(load, _)| *load) else { break };
        *load += size(&shares);
        smallest.insert(partition, shares);
    }
    divided.into_iter().map(|(_, todo)| todo).filter(|todo| !todo.is_empty()).collect()
}

/// Some partitions on their way through one connection.
struct Lane {
    strips: BTreeMap<i32, Strip>,
    traffic: Arc<Traffic>,
    readers: PgPool,
    writer: PgConnection,
}

impl Lane {
    async fn work(self, mut stretches: Receiver<Arc<LogStretch>>, mut counter: Counter) -> Result<(), ToolError> {
        let Self { mut strips, traffic, readers, mut writer } = self;
        let partitions: Vec<i32> = strips.keys().copied().collect();
        let flush_bytes = (COPY_FLUSH_BYTES / partitions.len().max(1)).max(FLUSH_BYTES_MIN);
        let mut transaction = begin_lazily(&mut writer).await?;
        let (mut unsettled, mut room) = (0, EARLY_BYTES_MAX);
        while let Some(stretch) = stretches.recv().await {
            let taken = stretch.rows(&partitions, |row| match strips.get_mut(&row.record.partition) {
                Some(strip) => {
                    unsettled += 1;
                    strip.take(&row.record, &mut room, &mut counter)
                }
                None => Ok(()),
            });
            taken.map_err(|stopped| match stopped {
                ReadStopped::Log(error) => error.into(),
                ReadStopped::Reader(error) => error,
            })?;
            for strip in strips.values_mut() {
                strip.bulk.gather()?;
                strip.bulk.send(&mut transaction, flush_bytes).await?;
            }
            let others = traffic.is_there().await?;
            if unsettled >= if others { PIECE_EVENTS } else { SETTLE_EVENTS } {
                for (&partition, strip) in &mut strips {
                    settle(partition, &mut strip.bulk, &strip.shares, &mut transaction).await?;
                }
                transaction.commit().await?;
                transaction = begin_lazily(&mut writer).await?;
                unsettled = 0;
            }
        }
        transaction.commit().await?;
        for (partition, strip) in strips {
            let (traffic, readers, writer, counter) = (&*traffic, &readers, &mut writer, &mut counter);
            let with = Reading { traffic, readers, writer, counter };
            read_to_the_end(partition, strip.bulk, &strip.shares, with).await?;
        }
        Ok(())
    }
}

/// One partition.
struct Strip {
    bulk: Bulk,
    shares: Vec<Share>,
    through: i64,
    /// What came before something it follows, by position.
    early: BTreeMap<i64, Early>,
    /// There was no room for that any more: the rest is read by the index.
    scattered: bool,
}

impl Strip {
    fn new(bulk: Bulk, shares: Vec<Share>) -> Self {
        let through = bulk.through();
        Self { bulk, shares, through, early: BTreeMap::new(), scattered: false }
    }

    /// Folds an event in if it is the next one, and those that waited for it; keeps it if it comes too early and there is
    /// `room` bytes for it.
    fn take(&mut self, record: &Record<'_>, room: &mut usize, counter: &mut Counter) -> Result<(), ToolError> {
        let (position, next) = (record.position, self.bulk.reached() + 1);
        if self.scattered || position < next || position > self.through {
            return Ok(());
        }
        if position > next {
            self.keep(record, room);
            return Ok(());
        }
        self.bulk.take(record)?;
        counter.event();
        while let Some(early) = self.early.remove(&(self.bulk.reached() + 1)) {
            *room += early.bytes();
            self.bulk.take(&early.record(record.partition, self.bulk.reached() + 1))?;
            counter.event();
        }
        Ok(())
    }

    fn keep(&mut self, record: &Record<'_>, room: &mut usize) {
        let early = Early::of(record);
        match room.checked_sub(early.bytes()) {
            Some(rest) => {
                *room = rest;
                self.early.insert(record.position, early);
            }
            None => {
                *room += self.early.values().map(Early::bytes).sum::<usize>();
                self.early.clear();
                self.scattered = true;
                let (partition, reached) = (record.partition, self.bulk.reached());
                tracing::debug!(partition, reached, "a partition is scattered and read on by its index");
            }
        }
    }
}

/// An event that waits for those before it.
struct Early {
    aggregate_type: String,
    aggregate_id: String,
    sequence: i64,
    event_type: String,
    event_version: String,
    payload: String,
    recorded_at: Timestamp,
}

impl Early {
    fn of(record: &Record<'_>) -> Self {
        Self {
            aggregate_type: record.aggregate_type.to_owned(),
            aggregate_id: record.aggregate_id.to_owned(),
            sequence: record.sequence,
            event_type: record.event_type.to_owned(),
            event_version: record.event_version.to_owned(),
            payload: record.payload.to_owned(),
            recorded_at: record.recorded_at,
        }
    }

    fn bytes(&self) -> usize {
        let texts = [&self.aggregate_type, &self.aggregate_id, &self.event_type, &self.event_version, &self.payload];
        size_of::<Self>() + texts.into_iter().map(String::len).sum::<usize>()
    }

    fn record(&self, partition: i32, position: i64) -> Record<'_> {
        Record {
            partition,
            position,
            aggregate_type: &self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            sequence: self.sequence,
            event_type: &self.event_type,
            event_version: &self.event_version,
            payload: &self.payload,
            metadata: "",
            recorded_at: self.recorded_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use calos_projections::{Schema, registry};

    use super::*;
    use crate::progress::Show;

    fn event(position: i64) -> Record<'static> {
        Record {
            partition: 3,
            position,
            aggregate_type: "thread",
            aggregate_id: "t-1",
            sequence: position,
            event_type: "thread_opened",
            event_version: "1",
            payload: "{}",
            metadata: "",
            recorded_at: Timestamp::from_micros(position),
        }
    }

    fn strip(through: i64) -> Strip {
        let model = registry::find("wallet_ledger").unwrap();
        Strip::new(Bulk::new(3, Schema::Next).with(model, through, &Skips::default()), Vec::new())
    }

    fn taken(strip: &mut Strip, positions: &[i64], mut room: usize) -> (u64, usize) {
        let progress = Progress::new(Show::Silent, "test", 10);
        let mut counter = progress.counter();
        for &position in positions {
            strip.take(&event(position), &mut room, &mut counter).unwrap();
        }
        drop(counter);
        (progress.events(), room)
    }

    #[test]
    fn what_comes_too_early_waits_and_what_was_folded_or_is_not_wanted_is_passed_over() {
        let mut strip = strip(5);
        assert_eq!(taken(&mut strip, &[3, 5, 1], 4_096).0, 1);
        assert_eq!((strip.bulk.reached(), strip.early.len()), (1, 2));
        assert_eq!(taken(&mut strip, &[1, 6, 2], 4_096).0, 2);
        assert_eq!((strip.bulk.reached(), strip.early.len()), (3, 1));
        assert_eq!(taken(&mut strip, &[4], 4_096).0, 2);
        assert_eq!((strip.bulk.reached(), strip.early.is_empty(), strip.scattered), (5, true, false));
    }

    #[test]
    fn a_partition_for_which_there_is_no_room_is_left_to_its_index_and_gives_its_room_back() {
        let mut strip = strip(9);
        let room = Early::of(&event(3)).bytes() * 2;
        assert_eq!(taken(&mut strip, &[1, 3, 4, 5, 2], room), (1, room));
        assert_eq!((strip.bulk.reached(), strip.early.is_empty(), strip.scattered), (1, true, true));
    }

    #[test]
    fn all_of_the_log_is_read_for_half_of_it_and_for_rows_by_key_only_while_it_is_not_too_long() {
        assert!(is_less_work(50, 100, true) && is_less_work(50, 100, false) && !is_less_work(49, 100, false));
        let long = KEYED_EVENTS_MAX + 1;
        assert!(is_less_work(KEYED_EVENTS_MAX, KEYED_EVENTS_MAX, true));
        assert!(!is_less_work(long, long, true) && is_less_work(long, long, false));
    }

    #[test]
    fn lanes_get_about_the_same_and_each_partition_is_in_one() {
        let model = registry::find("wallet_ledger").unwrap();
        let todo: Todo = [(0, 90), (1, 40), (2, 30), (3, 20)]
            .map(|(partition, through)| (partition, vec![Share::new(model, 2, 0, through)]))
            .into();
        let of = |lanes| {
            divided(todo.clone(), lanes).iter().map(|todo| todo.keys().copied().collect()).collect::<Vec<Vec<i32>>>()
        };
        assert_eq!(of(1), [[0, 1, 2, 3]]);
        assert_eq!(of(2), [vec![0], vec![1, 2, 3]]);
        assert_eq!(of(9).len(), 4);
    }
}
