//! Reading the log for the live projections: several stretches of several partitions in one statement.

use futures_util::stream::BoxStream;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use calos_domain::Record;

use crate::moment::Moment;

/// A stretch of one partition: at most `limit` events after a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Window {
    /// The partition.
    pub(crate) partition: i32,
    /// The position before the first event wanted.
    pub(crate) after: i64,
    /// How many events at most.
    pub(crate) limit: i64,
}

// The nested loop that LATERAL and LIMIT force walks the primary key of each stretch and yields the stretches one after
// the other, each in order; an ORDER BY around it would sort whole payloads once more. Order is not taken on trust: the
// reader asserts that every stretch is contiguous.
const READ: &str = "
SELECT w.window_number, e.partition, e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type,
    e.event_version, e.payload, e.recorded_at
FROM unnest($1::int4[], $2::int8[], $3::int8[]) WITH ORDINALITY AS w (partition, after, wanted, window_number)
CROSS JOIN LATERAL (
    SELECT partition, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, recorded_at
    FROM events WHERE events.partition = w.partition AND events.position > w.after
    ORDER BY events.position LIMIT w.wanted
) AS e";

/// The events of the windows, each row with the number of its window.
pub(crate) fn read<'c>(
    connection: &'c mut PgConnection,
    windows: &[Window],
) -> BoxStream<'c, Result<PgRow, sqlx::Error>> {
    sqlx::query(READ)
        .bind(windows.iter().map(|window| window.partition).collect::<Vec<_>>())
        .bind(windows.iter().map(|window| window.after).collect::<Vec<_>>())
        .bind(windows.iter().map(|window| window.limit).collect::<Vec<_>>())
        .fetch(connection)
}

/// Which window a row belongs to, counted from 0.
pub(crate) fn window_of(row: &PgRow) -> Result<usize, sqlx::Error> {
    let number: i64 = row.try_get(0)?;
    usize::try_from(number - 1).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// The event in a row, borrowed from it. Its metadata is not read.
pub(crate) fn record(row: &PgRow) -> Result<Record<'_>, sqlx::Error> {
    Ok(Record {
        partition: row.try_get(1)?,
        position: row.try_get(2)?,
        aggregate_type: row.try_get(3)?,
        aggregate_id: row.try_get(4)?,
        sequence: row.try_get(5)?,
        event_type: row.try_get(6)?,
        event_version: row.try_get(7)?,
        // `json` travels as its text; the driver only knows it as a value to be parsed.
        payload: row.try_get_unchecked(8)?,
        metadata: "",
        recorded_at: row.try_get::<Moment, _>(9)?.0,
    })
}
