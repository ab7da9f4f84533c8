//! `rebuild --in-place`: the live version's rows replaced in one transaction, for a table that is empty or broken.

use sqlx::{Connection, PgConnection};

use calos_projections::Schema;

use super::switch::dead_letters;
use super::{Parity, RebuildOptions, RebuildReport, begin, bound_locks, catch_up};
use crate::bulk::Bulk;
use crate::connections::{Connections, run_sql};
use crate::error::ToolError;
use crate::fold::{ReadModel, VersionAt};
use crate::progress::Progress;
use crate::skips::Skips;
use crate::versions::{Vector, at_most, heads, lag_events, lock_positions, versions};

/// Folds the log into new live tables and keeps the version's number. Readers of this model wait until it has ended;
/// if it does not end, everything is as it was.
pub(super) async fn rebuild(
    connections: &Connections,
    operator: &mut PgConnection,
    model: ReadModel,
    options: &RebuildOptions,
) -> Result<RebuildReport, ToolError> {
    let name = model.name();
    let mut transaction = operator.begin().await?;
    bound_locks(&mut transaction).await?;
    let version = versions(&mut transaction, name, true).await?.live;
    let at = VersionAt { projection: name, version, schema: Schema::Live };
    let heads = heads(&mut transaction).await?;
    let live = at_most(&lock_positions(&mut transaction, name, version).await?, &heads);
    let progress = Progress::new(options.show, name, lag_events(&Vector::new(), &heads));
    empty(&mut transaction, model, version).await?;

    load(connections, &mut transaction, model, &at, &live, &progress).await?;
    for table in model.tables() {
        for statement in table.create_keys(Schema::Live) {
            run_sql(&mut transaction, &statement).await?;
        }
    }
    let parity = parity(&mut transaction, model, live.clone(), options.listed_rows).await?;
    let unread: Vector = heads.clone().into_iter().filter(|(key, _)| live.get(key).is_none_or(|&at| at == 0)).collect();
    load(connections, &mut transaction, model, &at, &unread, &progress).await?;
    catch_up::within(connections, &mut transaction, model, &at, &heads, &mut progress.counter()).await?;
    let build_seconds = progress.elapsed().as_secs_f64();

    let dead_letters = dead_letters(&mut transaction, name, version).await?;
    transaction.commit().await?;
    progress.finish();
    Ok(RebuildReport {
        projection: name,
        from_version: version,
        to_version: version,
        positions: heads,
        events: progress.events(),
        seconds: progress.elapsed().as_secs_f64(),
        build_seconds,
        resumed_partitions: 0,
        dead_letters,
        parity,
    })
}

/// Sets what stands aside, until it has been compared, and puts empty tables in its place.
async fn empty(connection: &mut PgConnection, model: ReadModel, version: i32) -> Result<(), ToolError> {
    let (live, old) = (Schema::Live, Schema::Old);
    for table in model.tables() {
        let name = table.name;
        let aside = format!("DROP TABLE IF EXISTS {old}.{name}; ALTER TABLE IF EXISTS {live}.{name} SET SCHEMA {old}");
        run_sql(connection, &aside).await?;
        run_sql(connection, &table.create_table(live)).await?;
        begin::grant(connection, table, live).await?;
    }
    for statement in [
        "DELETE FROM dead_letters WHERE projection = $1 AND version = $2",
        "DELETE FROM checkpoints WHERE projection = $1 AND version = $2",
        "INSERT INTO checkpoints (projection, version, partition, position) \
         SELECT $1, $2, partition, 0 FROM partitions",
    ] {
        sqlx::query(statement).bind(model.name()).bind(version).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn load(
    connections: &Connections,
    connection: &mut PgConnection,
    model: ReadModel,
    at: &VersionAt<'_>,
    target: &Vector,
    progress: &Progress,
) -> Result<(), ToolError> {
    let skips = Skips::read(connections.readers()).await?;
    let mut counter = progress.counter();
    for (&partition, &through) in target {
        let bulk = Bulk::new(partition, at.schema).with(model, through, &skips);
        for folded in bulk.load(connections.readers(), connection, &mut counter).await? {
            at.move_checkpoint(connection, partition, through, &folded).await?;
        }
    }
    Ok(())
}

/// Compares what was set aside with what the log gave, and drops it.
async fn parity(
    connection: &mut PgConnection,
    model: ReadModel,
    positions: Vector,
    listed_rows: i64,
) -> Result<Parity, ToolError> {
    // Of its own, so that a table of another shape ends the comparison and not the rebuild.
    let mut attempt = connection.begin().await?;
    let parity = Parity::of(&mut attempt, model, Schema::Old, Schema::Live, positions, listed_rows).await?;
    attempt.rollback().await?;
    for table in model.tables() {
        let drop = format!("DROP TABLE IF EXISTS {}.{}", Schema::Old, table.name);
        run_sql(connection, &drop).await?;
    }
    Ok(parity)
}
