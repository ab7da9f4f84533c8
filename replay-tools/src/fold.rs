//! Folding a stretch of one partition for one read model, and what is written beside its rows.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, PgPool};

use calos_adapters::postgres::Timestamptz;
use calos_domain::{Record, Timestamp};
use calos_projections::copy_out::read_slice;
use calos_projections::{AnyProjection, Columns, CopyError, CopySink, Fold, LogSlice, ReadStopped, Schema};

use crate::error::ToolError;
use crate::progress::Counter;
use crate::skips::Skips;

/// A read model, as the tools handle it: by its name, its tables and its fold.
pub type ReadModel = &'static dyn AnyProjection;

/// More events than this that cannot be projected, in one partition, mean that the binary does not fit the log.
const DEAD_LETTERS_MAX_EVENTS: usize = 100_000;

/// An event that a projection could not take, or that waits behind one of its own stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// Its position.
    pub position: i64,
    /// Its aggregate's stored type.
    pub aggregate_type: String,
    /// Its stream.
    pub aggregate_id: String,
    /// Whether it only waits behind an earlier one.
    pub parked: bool,
    /// Why it could not be taken.
    pub error: String,
}

/// The fold of one partition, with the streams that had to be set aside.
pub(crate) struct PartitionFold {
    model: ReadModel,
    partition: i32,
    folding: Box<dyn Fold>,
    /// Streams with an event that could not be taken, and its position.
    set_aside: HashMap<(String, String), i64>,
    /// Positions that are left out when they cannot be taken: an operator said so.
    skipped: HashSet<i64>,
    dead: Vec<DeadLetter>,
    recorded_at: Option<Timestamp>,
}

/// What a finished fold leaves to be written beside its rows.
pub(crate) struct Folded {
    pub(crate) rows: u64,
    pub(crate) dead: Vec<DeadLetter>,
    pub(crate) recorded_at: Option<Timestamp>,
}

impl PartitionFold {
    pub(crate) fn new(model: ReadModel, partition: i32) -> Self {
        let (set_aside, skipped, dead) = (HashMap::new(), HashSet::new(), Vec::new());
        Self { model, partition, folding: model.fold(), set_aside, skipped, dead, recorded_at: None }
    }

    /// From now on leaves out what operators said is left out.
    pub(crate) fn leave_out(&mut self, skips: &Skips) {
        self.skipped = skips.of(self.model.name(), self.partition);
    }

    /// Folds one event in, or sets it aside.
    pub(crate) fn take(&mut self, record: &Record<'_>) -> Result<(), ToolError> {
        self.recorded_at = Some(record.recorded_at);
        let behind = if self.set_aside.is_empty() { None } else { self.set_aside.get(&stream(record)).copied() };
        let error = match behind {
            Some(position) => format!("waits behind position {position}"),
            None => match self.folding.project(record) {
                Ok(()) => return Ok(()),
                Err(_) if self.skipped.contains(&record.position) => return Ok(()),
                Err(error) => error.to_string(),
            },
        };
        if self.dead.len() >= DEAD_LETTERS_MAX_EVENTS {
            return Err(ToolError::Corrupt(format!(
                "more than {DEAD_LETTERS_MAX_EVENTS} events of partition {} cannot be projected; the last one, at \
                 position {}: {error}",
                self.partition, record.position
            )));
        }
        let (aggregate_type, aggregate_id) = stream(record);
        let parked = behind.is_some();
        self.dead.push(DeadLetter { position: record.position, aggregate_type, aggregate_id, parked, error });
        self.set_aside.entry(stream(record)).or_insert(record.position);
        Ok(())
    }

    /// What was folded so far; the fold begins again with nothing.
    fn restart(&mut self) -> Box<dyn Fold> {
        std::mem::replace(&mut self.folding, self.model.fold())
    }

    /// Hands over what was folded so far, as rows.
    pub(crate) fn copy(&mut self, sink: &mut CopySink) -> Result<(), CopyError> {
        self.restart().copy(sink)
    }

    async fn read(&mut self, readers: &PgPool, slice: LogSlice, counter: &mut Counter) -> Result<(), ToolError> {
        let read = read_slice(readers, slice, Columns::EVENT, |row| {
            counter.event();
            self.take(&row.record)
        });
        match read.await {
            Ok(_) => Ok(()),
            Err(ReadStopped::Log(error)) => Err(error.into()),
            Err(ReadStopped::Reader(error)) => Err(error),
        }
    }

    /// What is to be written beside the rows, of which there are so many by now.
    pub(crate) fn so_far(&mut self, rows: u64) -> Folded {
        Folded { rows, dead: std::mem::take(&mut self.dead), recorded_at: self.recorded_at }
    }

    /// Takes note of the streams that were set aside when the version came to where it is.
    pub(crate) async fn go_on(&mut self, at: &VersionAt<'_>, connection: &mut PgConnection) -> Result<(), ToolError> {
        self.set_aside = at.streams_set_aside(connection, self.partition).await?;
        Ok(())
    }

    /// Folds a slice on top of the rows of an earlier fold, in the caller's transaction, and moves the version's checkpoint
    /// along.
    pub(crate) async fn advance(
        mut self,
        at: &VersionAt<'_>,
        readers: &PgPool,
        writer: &mut PgConnection,
        slice: LogSlice,
        counter: &mut Counter,
    ) -> Result<(), ToolError> {
        self.read(readers, slice, counter).await?;
        self.restart().store(at.schema, writer).await?;
        at.move_checkpoint(writer, slice.partition, slice.through, &self.so_far(0)).await
    }
}

/// One version of a projection and where its rows are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VersionAt<'a> {
    pub(crate) projection: &'a str,
    pub(crate) version: i32,
    pub(crate) schema: Schema,
}

impl VersionAt<'_> {
    async fn streams_set_aside(
        &self,
        connection: &mut PgConnection,
        partition: i32,
    ) -> Result<HashMap<(String, String), i64>, ToolError> {
        let streams = sqlx::query_as::<_, (String, String, i64)>(
            "SELECT aggregate_type, aggregate_id, min(position) FROM dead_letters \
             WHERE projection = $1 AND version = $2 AND partition = $3 GROUP BY 1, 2",
        );
        let streams = streams.bind(self.projection).bind(self.version).bind(partition).fetch_all(connection).await?;
        Ok(streams.into_iter().map(|(kind, id, position)| ((kind, id), position)).collect())
    }

    /// Moves the checkpoint and keeps the dead letters, in the caller's transaction.
    pub(crate) async fn move_checkpoint(
        &self,
        connection: &mut PgConnection,
        partition: i32,
        position: i64,
        folded: &Folded,
    ) -> Result<(), ToolError> {
        self.keep_dead_letters(connection, partition, &folded.dead).await?;
        let moved = sqlx::query(
            "UPDATE checkpoints SET position = $4, recorded_at = coalesce($5, recorded_at) \
             WHERE projection = $1 AND version = $2 AND partition = $3",
        );
        let moved = moved.bind(self.projection).bind(self.version).bind(partition).bind(position);
        let moved = moved.bind(folded.recorded_at.map(Timestamptz)).execute(connection).await?;
        if moved.rows_affected() == 1 {
            return Ok(());
        }
        let Self { projection, version, .. } = self;
        Err(ToolError::Corrupt(format!("{projection} version {version} has no checkpoint for partition {partition}")))
    }

    async fn keep_dead_letters(
        &self,
        connection: &mut PgConnection,
        partition: i32,
        dead: &[DeadLetter],
    ) -> Result<(), ToolError> {
        if dead.is_empty() {
            return Ok(());
        }
        let insert = sqlx::query(
            "INSERT INTO dead_letters (projection, version, partition, position, aggregate_type, aggregate_id, parked, \
             error) SELECT $1, $2, $3, * FROM unnest($4::bigint[], $5::text[], $6::text[], $7::boolean[], $8::text[])",
        );
        insert
            .bind(self.projection)
            .bind(self.version)
            .bind(partition)
            .bind(dead.iter().map(|letter| letter.position).collect::<Vec<_>>())
            .bind(dead.iter().map(|letter| letter.aggregate_type.as_str()).collect::<Vec<_>>())
            .bind(dead.iter().map(|letter| letter.aggregate_id.as_str()).collect::<Vec<_>>())
            .bind(dead.iter().map(|letter| letter.parked).collect::<Vec<_>>())
            // PostgreSQL keeps no NUL in a text, and an error may quote one.
            .bind(dead.iter().map(|letter| letter.error.replace('\0', "\\0")).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }
}

fn stream(record: &Record<'_>) -> (String, String) {
    (record.aggregate_type.to_owned(), record.aggregate_id.to_owned())
}

/// The slices that take a partition from `after` through `through`, at most `step` positions each.
pub(crate) fn steps(partition: i32, after: i64, through: i64, step: i64) -> impl Iterator<Item = LogSlice> {
    let mut next = after;
    std::iter::from_fn(move || {
        let slice = LogSlice { partition, after: next, through: through.min(next.saturating_add(step)) };
        next = slice.through;
        (slice.after < slice.through).then_some(slice)
    })
}

#[cfg(test)]
mod tests {
    use super::steps;

    #[test]
    fn steps_cover_a_partition_once_and_without_a_gap() {
        let cut: Vec<_> = steps(1, 3, 10, 3).map(|slice| (slice.after, slice.through)).collect();
        assert_eq!(cut, [(3, 6), (6, 9), (9, 10)]);
        assert_eq!(steps(1, 5, 5, 3).count(), 0);
        assert_eq!(steps(1, 5, 4, 3).count(), 0);
    }
}
