//! Whether two versions of a read model with a row per event hold the same rows, found out from sums over them.
//!
//! Both tables are read as they lie, without their keys, and each row is hashed by PostgreSQL: half of the work of laying row
//! beside row. Equal numbers of rows and equal sums of their 64-bit hashes, with a seed that nobody knew beforehand, are taken
//! for equal rows; anything else is looked at row by row by whoever asked.
//!
//! Rows per event are written once and never changed, so a part of them can be read now and another later: those up to a
//! position are the same ones. No snapshot is looked at for long, and nobody has to stand still. Only rows of events that a
//! version has not even read are not among them, and must not be there.

use std::ops::Range;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use calos_projections::{Growth, Schema, TableSpec};

use super::Building;
use crate::error::ToolError;
use crate::fold::{ReadModel, VersionAt};
use crate::traffic::Traffic;
use crate::versions::Vector;

/// Blocks hashed by one statement: 32 MiB, about a tenth of a second.
const BLOCKS: i64 = 4_096;

/// The columns that say which event a row is of.
const PLACE: [&str; 2] = ["partition", "position"];

/// Rows, and what their hashes add up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Fingerprint {
    rows: i64,
    sum: i128,
    /// Rows of events that have not been read.
    strays: i64,
}

/// How many rows both versions hold of the events up to `target`, if they are the same; none if they are not, or if this read model
/// cannot be looked at in this way.
pub(super) async fn rows_if_same(
    readers: &PgPool,
    building: &Building,
    target: &Vector,
    traffic: &Traffic,
) -> Result<Option<i64>, ToolError> {
    let model = building.model;
    let live = VersionAt { projection: model.name(), version: building.live, schema: Schema::Live };
    let next = building.at();
    if !is_for(model) {
        return Ok(None);
    }
    let mut rows = 0;
    for table in model.tables() {
        let sought = Sought::of(table, target);
        let (live, next) = if traffic.is_there().await? {
            (sought.of_version(readers, &live).await?, sought.of_version(readers, &next).await?)
        } else {
            tokio::try_join!(sought.of_version(readers, &live), sought.of_version(readers, &next))?
        };
        if live != next || live.strays > 0 {
            return Ok(None);
        }
        rows += next.rows;
    }
    Ok(Some(rows))
}

/// Whether a read model can be looked at in this way: its rows never change, and each says which event it is of.
pub(super) fn is_for(model: ReadModel) -> bool {
    let placed = |table: &TableSpec| PLACE.iter().all(|column| table.column_names.contains(column));
    model.growth() == Growth::PerEvent && model.tables().iter().all(placed)
}

/// What is looked at in both versions of a table.
struct Sought<'a> {
    table: &'a TableSpec,
    /// The last position of each partition, from 0.
    through: Vec<i64>,
    seed: i64,
}

impl<'a> Sought<'a> {
    fn of(table: &'a TableSpec, target: &Vector) -> Self {
        let partitions = target.keys().max().map_or(0, |last| last + 1);
        let through = (0..partitions).map(|partition| target.get(&partition).copied().unwrap_or_default()).collect();
        Self { table, through, seed: Uuid::now_v7().as_u64_pair().1.cast_signed() }
    }

    async fn of_version(&self, readers: &PgPool, at: &VersionAt<'_>) -> Result<Fingerprint, ToolError> {
        let mut connection = readers.acquire().await?;
        let size = format!(
            "SELECT pg_relation_size('{}.{}') / current_setting('block_size')::bigint",
            at.schema, self.table.name
        );
        let blocks: i64 = sqlx::query_scalar(&size).persistent(false).fetch_one(&mut *connection).await?;
        let mut all = Fingerprint::default();
        let mut from = 0;
        while from < blocks {
            let part = self.of_blocks(&mut connection, at, from..from + BLOCKS).await?;
            all.rows += part.rows;
            all.sum = all.sum.wrapping_add(part.sum);
            all.strays += part.strays;
            from += BLOCKS;
        }
        Ok(all)
    }

    /// Rows and checkpoints as of the same moment.
    async fn of_blocks(
        &self,
        connection: &mut PgConnection,
        at: &VersionAt<'_>,
        blocks: Range<i64>,
    ) -> Result<Fingerprint, ToolError> {
        let (schema, name, columns) = (at.schema, self.table.name, self.table.column_names.join(", "));
        let statement = format!(
            "SELECT count(*) FILTER (WHERE wanted), coalesce(sum(hash) FILTER (WHERE wanted), 0)::text, \
             count(*) FILTER (WHERE stray) FROM ( \
                 SELECT hash_record_extended(ROW({columns}), $1) AS hash, \
                     position <= ($2::bigint[])[partition + 1] AS wanted, position > coalesce((SELECT array_agg(c.position \
                         ORDER BY c.partition) FROM checkpoints c WHERE c.projection = $3 AND c.version = $4)[t.partition + 1], 0) AS stray \
                 FROM {schema}.{name} t WHERE ctid >= '({},0)' AND ctid < '({},0)') hashed",
            blocks.start, blocks.end
        );
        let found = sqlx::query_as(&statement).persistent(false).bind(self.seed).bind(&self.through);
        let found = found.bind(at.projection).bind(at.version).fetch_one(connection).await?;
        let (rows, sum, strays): (i64, String, i64) = found;
        let unfit = |_| ToolError::Corrupt(format!("{schema}.{name}: {sum} is no sum of hashes"));
        Ok(Fingerprint { rows, sum: sum.parse().map_err(unfit)?, strays })
    }
}
