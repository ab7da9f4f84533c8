//! The switch: the new version takes the live one's place in one transaction that holds both versions' checkpoints.

use sqlx::{Connection, PgConnection};

use calos_projections::Schema;

use super::{Building, bound_locks, catch_up, hold};
use crate::connections::{Connections, run_sql};
use crate::error::ToolError;
use crate::progress::Progress;
use crate::versions::{Vector, Versions, heads, versions};

/// A version that has gone live.
pub(super) struct Switched {
    /// How far it had read by then.
    pub(super) positions: Vector,
    /// Events it could not take.
    pub(super) dead_letters: i64,
}

/// Catches up to the log's heads and switches.
///
/// With both versions' checkpoints locked no worker is in the middle of a batch; one that read `live_version` before
/// this commits looks again before it moves a checkpoint, and rolls back.
///
/// It runs on the connection that holds the operator's lock: if that connection is lost, so is the switch.
pub(super) async fn switch(
    connections: &Connections,
    operator: &mut PgConnection,
    building: &Building,
    progress: &Progress,
) -> Result<Switched, ToolError> {
    let model = building.model;
    let (name, at) = (model.name(), building.at());
    progress.step("catching up");
    catch_up::near_apart(connections, building, progress).await?;

    progress.step("switching");
    // What the live version and its readers wait for is done at everybody's pace.
    let swift = Connections::at_full_pace(connections.options(), 1);
    let mut transaction = operator.begin().await?;
    bound_locks(&mut transaction).await?;
    let expected = Versions { live: building.live, building: Some(building.version) };
    if versions(&mut transaction, name, true).await? != expected {
        return Err(ToolError::Corrupt(format!("the versions of {name} changed during the rebuild; run it again")));
    }
    hold(&mut transaction, name, building.live).await?;
    hold(&mut transaction, name, building.version).await?;
    let positions = heads(&mut transaction).await?;
    catch_up::within(&swift, &mut transaction, model, &at, &positions, &mut progress.counter()).await?;
    for table in model.tables() {
        let table = table.name;
        let (live, next, old) = (Schema::Live, Schema::Next, Schema::Old);
        let statements = format!(
            "DROP TABLE IF EXISTS {old}.{table}; ALTER TABLE IF EXISTS {live}.{table} SET SCHEMA {old}; \
             ALTER TABLE IF EXISTS {old}.{table} SET (autovacuum_enabled = off); \
             ALTER TABLE {next}.{table} SET SCHEMA {live}; ALTER TABLE {live}.{table} RESET (autovacuum_enabled)"
        );
        run_sql(&mut transaction, &statements).await?;
    }
    sqlx::query("UPDATE projections SET live_version = $2, building_version = NULL WHERE name = $1")
        .bind(name)
        .bind(building.version)
        .execute(&mut *transaction)
        .await?;
    let dead_letters = dead_letters(&mut transaction, name, building.version).await?;
    transaction.commit().await?;
    swift.close().await;
    Ok(Switched { positions, dead_letters })
}

/// How many events a version could not take.
pub(super) async fn dead_letters(
    connection: &mut PgConnection,
    projection: &str,
    version: i32,
) -> Result<i64, ToolError> {
    let count = sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE projection = $1 AND version = $2");
    Ok(count.bind(projection).bind(version).fetch_one(connection).await?)
}
