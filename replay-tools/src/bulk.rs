//! Folding one partition from its beginning into empty tables: read once, however many read models take part.

use sqlx::{PgConnection, PgPool};

use calos_domain::Record;
use calos_projections::copy_in::COPY_FLUSH_BYTES;
use calos_projections::copy_out::read_slice;
use calos_projections::{Columns, CopyOutError, CopySink, Growth, LogSlice, ReadStopped, Schema};

use crate::error::ToolError;
use crate::fold::{Folded, PartitionFold, ReadModel, steps};
use crate::progress::Counter;
use crate::skips::Skips;

/// Events read between two flushes when a table has a row per event: bounds the rows held in memory, and keeps them few
/// enough to be encoded while they still lie in the processor's cache.
const PER_EVENT_STEP_EVENTS: i64 = 10_000;

/// Events read by one statement otherwise, so that no statement runs for hours.
const PER_KEY_STEP_EVENTS: i64 = 2_000_000;

/// One partition on its way into the tables of one schema.
pub(crate) struct Bulk {
    partition: i32,
    schema: Schema,
    shares: Vec<Share>,
    /// Where the rows of each share gather.
    sinks: Vec<CopySink>,
    /// How far the partition has been read.
    reached: i64,
}

/// One read model's share of it: positions `after + 1 ..= through`.
struct Share {
    fold: PartitionFold,
    growth: Growth,
    after: i64,
    through: i64,
}

/// What a share that has a row per event stands at, all its rows sent.
pub(crate) struct Settled {
    /// Which share, in the order they were added.
    pub(crate) share: usize,
    /// How far it has been folded.
    pub(crate) position: i64,
    /// What has come since it was asked last.
    pub(crate) folded: Folded,
}

impl Bulk {
    /// A partition nobody takes part in yet.
    pub(crate) fn new(partition: i32, schema: Schema) -> Self {
        Self { partition, schema, shares: Vec::new(), sinks: Vec::new(), reached: i64::MAX }
    }

    /// A read model that takes positions `1 ..= through`; its tables hold nothing of this partition.
    pub(crate) fn with(self, model: ReadModel, through: i64, skips: &Skips) -> Self {
        let mut fold = PartitionFold::new(model, self.partition);
        fold.leave_out(skips);
        self.going_on(fold, model, 0, through)
    }

    /// A read model whose tables hold everything up to `after` already; behind it one with a row per event can go on.
    pub(crate) fn going_on(mut self, fold: PartitionFold, model: ReadModel, after: i64, through: i64) -> Self {
        self.shares.push(Share { fold, growth: model.growth(), after, through });
        self.sinks.push(CopySink::new(model.tables().iter().map(|table| (table.name, table.column_names))));
        self.reached = self.reached.min(after);
        self
    }

    /// Folds and loads all of it, in the caller's transaction; answers in the order the read models were added.
    pub(crate) async fn load(
        mut self,
        readers: &PgPool,
        writer: &mut PgConnection,
        counter: &mut Counter,
    ) -> Result<Vec<Folded>, ToolError> {
        while self.step(None, readers, writer, counter).await? {}
        self.finish(writer).await
    }

    /// Folds the next events, `at_most` or as many as are read at once when nobody says; false when there were none. While
    /// they are read, the rows of those before are on their way into the tables.
    pub(crate) async fn step(
        &mut self,
        at_most: Option<i64>,
        readers: &PgPool,
        writer: &mut PgConnection,
        counter: &mut Counter,
    ) -> Result<bool, ToolError> {
        let through = self.through();
        let per_event = self.shares.iter().any(|share| share.growth == Growth::PerEvent);
        let step = at_most.unwrap_or(if per_event { PER_EVENT_STEP_EVENTS } else { PER_KEY_STEP_EVENTS });
        let Some(slice) = steps(self.partition, self.reached, through, step).next() else { return Ok(false) };
        let read = read(readers, slice, &mut self.shares, counter);
        let sent = send(&mut self.sinks, writer, self.schema.as_str(), COPY_FLUSH_BYTES);
        // Both are waited for, whichever fails: a stream that is dropped midway costs its connection.
        let (read, sent) = tokio::join!(read, sent);
        read?;
        sent?;
        self.reached = slice.through;
        self.gather()?;
        Ok(true)
    }

    /// How far the partition has been read.
    pub(crate) const fn reached(&self) -> i64 {
        self.reached
    }

    /// The last position that anybody takes.
    pub(crate) fn through(&self) -> i64 {
        self.shares.iter().map(|share| share.through).max().unwrap_or_default()
    }

    /// Folds the event that comes next, from wherever it was read.
    pub(crate) fn take(&mut self, record: &Record<'_>) -> Result<(), ToolError> {
        let Record { partition, position, .. } = *record;
        let expected = self.reached + 1;
        if (partition, position) != (self.partition, expected) {
            return Err(CopyOutError::Gap { partition: self.partition, expected, found: position }.into());
        }
        take(&mut self.shares, record)?;
        self.reached = position;
        Ok(())
    }

    /// Makes rows of what was folded, where there is one per event.
    pub(crate) fn gather(&mut self) -> Result<(), ToolError> {
        for (share, sink) in self.shares.iter_mut().zip(&mut self.sinks) {
            if share.growth == Growth::PerEvent {
                share.fold.copy(sink)?;
            }
        }
        Ok(())
    }

    /// Sends the rows of every table that has gathered so many bytes of them.
    pub(crate) async fn send(&mut self, writer: &mut PgConnection, at_least: usize) -> Result<(), ToolError> {
        send(&mut self.sinks, writer, self.schema.as_str(), at_least).await
    }

    /// Sends the rows of every share that has one per event, so that what was read of it so far can be committed.
    pub(crate) async fn settle(&mut self, writer: &mut PgConnection) -> Result<Vec<Settled>, ToolError> {
        self.send(writer, 0).await?;
        let mut settled = Vec::new();
        for (number, (share, sink)) in self.shares.iter_mut().zip(&self.sinks).enumerate() {
            let position = self.reached.min(share.through);
            if share.growth == Growth::PerEvent && position > share.after {
                share.after = position;
                settled.push(Settled { share: number, position, folded: share.fold.so_far(sink.stored_rows()) });
            }
        }
        Ok(settled)
    }

    /// Sends all that is left; answers in the order the read models were added.
    pub(crate) async fn finish(self, writer: &mut PgConnection) -> Result<Vec<Folded>, ToolError> {
        let schema = self.schema.as_str();
        let mut folded = Vec::with_capacity(self.shares.len());
        for (mut share, mut sink) in self.shares.into_iter().zip(self.sinks) {
            share.fold.copy(&mut sink)?;
            sink.finish(writer, schema).await?;
            folded.push(share.fold.so_far(sink.stored_rows()));
        }
        Ok(folded)
    }
}

/// Folds a slice into every share that it belongs to.
async fn read(readers: &PgPool, slice: LogSlice, shares: &mut [Share], counter: &mut Counter) -> Result<(), ToolError> {
    let read = read_slice(readers, slice, Columns::EVENT, |row| {
        counter.event();
        take(shares, &row.record)
    });
    match read.await {
        Ok(_) => Ok(()),
        Err(ReadStopped::Log(error)) => Err(error.into()),
        Err(ReadStopped::Reader(error)) => Err(error),
    }
}

/// Folds one event into every share that it belongs to.
fn take(shares: &mut [Share], record: &Record<'_>) -> Result<(), ToolError> {
    let position = record.position;
    let mut taking = shares.iter_mut().filter(|share| share.after < position && position <= share.through);
    taking.try_for_each(|share| share.fold.take(record))
}

async fn send(
    sinks: &mut [CopySink],
    writer: &mut PgConnection,
    schema: &str,
    at_least: usize,
) -> Result<(), ToolError> {
    for sink in sinks {
        sink.flush(writer, schema, at_least).await?;
    }
    Ok(())
}
