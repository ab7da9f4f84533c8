//! Finding the event that a database refuses among many that it takes.

use std::collections::BTreeMap;

use sqlx::{Connection, PgConnection};

use calos_domain::Record;

use crate::dead_letters::{DeadLetter, Parked};
use crate::faults::is_about_the_data;
use crate::registry::AnyProjection;
use crate::table::Schema;

/// Folds and stores the records into the live tables, setting aside what cannot be taken: an event that does not
/// project, an event whose row the database refuses (found by halving), and every later event of the same stream.
///
/// `letters` gains what was set aside, by partition and position; `parked` gains the streams.
pub(crate) async fn store_bisecting(
    connection: &mut PgConnection,
    projection: &'static dyn AnyProjection,
    records: &[Record<'_>],
    parked: &mut Parked,
    letters: &mut BTreeMap<(i32, i64), DeadLetter>,
) -> Result<(), sqlx::Error> {
    // The last one is taken first, so halves are pushed in reverse and every stream is stored in its order.
    let mut ranges = vec![(0, records.len())];
    while let Some((start, end)) = ranges.pop() {
        let mut fold = projection.fold();
        let mut folded = Vec::with_capacity(end - start);
        for (index, record) in records.iter().enumerate().take(end).skip(start) {
            let at = (record.partition, record.position);
            if let Some(behind) = parked.behind(record) {
                letters.insert(at, DeadLetter::parked(record, behind));
            } else if let Err(error) = fold.project(record) {
                letters.insert(at, DeadLetter::failed(record, &error));
                parked.park(record);
            } else {
                folded.push(index);
            }
        }
        let Some(&first) = folded.first() else { continue };
        let mut savepoint = Connection::begin(&mut *connection).await?;
        match fold.store(Schema::Live, &mut savepoint).await {
            Ok(()) => savepoint.commit().await?,
            Err(error) if is_about_the_data(&error) => {
                savepoint.rollback().await?;
                if folded.len() == 1 {
                    let record = &records[first];
                    letters.insert((record.partition, record.position), DeadLetter::failed(record, &error));
                    parked.park(record);
                } else {
                    let middle = folded[folded.len() / 2];
                    ranges.push((middle, end));
                    ranges.push((start, middle));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
