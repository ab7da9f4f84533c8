//! Folding one partition from its beginning into empty tables: read once, however many read models take part.

use sqlx::{PgConnection, PgPool};

use calos_projections::copy_in::COPY_FLUSH_BYTES;
use calos_projections::copy_out::read_slice;
use calos_projections::{Columns, CopySink, Growth, LogSlice, ReadStopped, Schema};

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
}

/// One read model's share of it.
struct Share {
    fold: PartitionFold,
    growth: Growth,
    through: i64,
}

impl Bulk {
    /// A partition nobody takes part in yet.
    pub(crate) fn new(partition: i32, schema: Schema) -> Self {
        Self { partition, schema, shares: Vec::new(), sinks: Vec::new() }
    }

    /// A read model that takes positions `1 ..= through`; its tables hold nothing of this partition.
    pub(crate) fn with(mut self, model: ReadModel, through: i64) -> Self {
        let fold = PartitionFold::new(model, self.partition);
        self.shares.push(Share { fold, growth: model.growth(), through });
        self.sinks.push(CopySink::new(model.tables().iter().map(|table| (table.name, table.column_names))));
        self
    }

    /// Folds and loads, in the caller's transaction; answers in the order the read models were added.
    ///
    /// While the next events are read, the rows of those before are on their way into the tables.
    pub(crate) async fn load(
        mut self,
        readers: &PgPool,
        writer: &mut PgConnection,
        skips: &Skips,
        counter: &mut Counter,
    ) -> Result<Vec<Folded>, ToolError> {
        let through = self.shares.iter().map(|share| share.through).max().unwrap_or_default();
        let per_event = self.shares.iter().any(|share| share.growth == Growth::PerEvent);
        let step = if per_event { PER_EVENT_STEP_EVENTS } else { PER_KEY_STEP_EVENTS };
        let schema = self.schema.as_str();
        self.shares.iter_mut().for_each(|share| share.fold.leave_out(skips));
        for slice in steps(self.partition, 0, through, step) {
            let read = read(readers, slice, &mut self.shares, counter);
            let sent = send(&mut self.sinks, writer, schema);
            // Both are waited for, whichever fails: a stream that is dropped midway costs its connection.
            let (read, sent) = tokio::join!(read, sent);
            read?;
            sent?;
            for (share, sink) in self.shares.iter_mut().zip(&mut self.sinks) {
                if share.growth == Growth::PerEvent {
                    share.fold.copy(sink)?;
                }
            }
        }
        let mut folded = Vec::with_capacity(self.shares.len());
        for (mut share, mut sink) in self.shares.into_iter().zip(self.sinks) {
            share.fold.copy(&mut sink)?;
            sink.finish(writer, schema).await?;
            folded.push(share.fold.end(sink.stored_rows()));
        }
        Ok(folded)
    }
}

/// Folds a slice into every share that reaches so far.
async fn read(readers: &PgPool, slice: LogSlice, shares: &mut [Share], counter: &mut Counter) -> Result<(), ToolError> {
    let read = read_slice(readers, slice, Columns::EVENT, |row| {
        counter.event();
        let mut taking = shares.iter_mut().filter(|share| row.record.position <= share.through);
        taking.try_for_each(|share| share.fold.take(&row.record))
    });
    match read.await {
        Ok(_) => Ok(()),
        Err(ReadStopped::Log(error)) => Err(error.into()),
        Err(ReadStopped::Reader(error)) => Err(error),
    }
}

/// Sends the rows of every table that has gathered enough of them.
async fn send(sinks: &mut [CopySink], writer: &mut PgConnection, schema: &str) -> Result<(), ToolError> {
    for sink in sinks {
        sink.flush(writer, schema, COPY_FLUSH_BYTES).await?;
    }
    Ok(())
}
