//! The beginning of a rebuild: an unfinished one is taken up again, or a new version is put beside the live one.

use sqlx::{Connection, PgConnection};

use calos_projections::{FOLD_FINGERPRINT, Schema, TableSpec};

use super::Building;
use crate::connections::run_sql;
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::versions::{Vector, Versions, heads, positions, versions};

/// Finds or makes the version to build, in one transaction.
pub(super) async fn begin(operator: &mut PgConnection, model: ReadModel, restart: bool) -> Result<Building, ToolError> {
    let mut transaction = operator.begin().await?;
    super::bound_locks(&mut transaction).await?;
    let known = versions(&mut transaction, model.name(), true).await?;
    let building = match resumable(&mut transaction, model, known, restart).await? {
        Some(building) => building,
        None => start(&mut transaction, model, known, FOLD_FINGERPRINT).await?,
    };
    transaction.commit().await?;
    Ok(building)
}

/// The unfinished version, when it can be gone on with: it was begun with the fold of this program, its tables have
/// today's shape, its checkpoints are complete, and it is nowhere ahead of the live version, with which it has to be compared at the live version's positions.
async fn resumable(
    connection: &mut PgConnection,
    model: ReadModel,
    known: Versions,
    restart: bool,
) -> Result<Option<Building>, ToolError> {
    let Some(version) = known.building.filter(|_| !restart) else { return Ok(None) };
    let fold: Option<String> = sqlx::query_scalar("SELECT building_fold FROM projections WHERE name = $1")
        .bind(model.name())
        .fetch_one(&mut *connection)
        .await?;
    if fold.as_deref() != Some(FOLD_FINGERPRINT) {
        tracing::info!(projection = model.name(), "the unfinished rebuild was begun by another program; starting over");
        return Ok(None);
    }
    for table in model.tables() {
        if !has_shape(connection, table, Schema::Next).await? {
            return Ok(None);
        }
    }
    let reached = positions(connection, model.name(), version).await?;
    let live = positions(connection, model.name(), known.live).await?;
    let complete = heads(connection).await?.keys().eq(reached.keys());
    let behind = |(partition, position): (&i32, &i64)| live.get(partition).is_some_and(|live| position <= live);
    let usable = complete && reached.iter().all(behind);
    Ok(usable.then_some(Building { model, live: known.live, version, reached }))
}

/// Puts empty tables and checkpoints for the next version beside the live one; what an earlier one left there goes, and the
/// version before the live one with it when this one is to go live. `fold` is what may go on with it.
pub(super) async fn start(
    connection: &mut PgConnection,
    model: ReadModel,
    known: Versions,
    fold: &str,
) -> Result<Building, ToolError> {
    let (name, version) = (model.name(), known.live + 1);
    for table in model.tables() {
        let gone = if fold == FOLD_FINGERPRINT { &[Schema::Next, Schema::Old][..] } else { &[Schema::Next] };
        for schema in gone {
            run_sql(connection, &format!("DROP TABLE IF EXISTS {schema}.{}", table.name)).await?;
        }
        run_sql(connection, &table.create_table(Schema::Next)).await?;
        // Nobody reads it yet, its statistics are gathered when it stands, and the switch would have to wait.
        run_sql(connection, &format!("ALTER TABLE {}.{} SET (autovacuum_enabled = off)", Schema::Next, table.name))
            .await?;
        grant(connection, table, Schema::Next).await?;
    }
    for statement in [
        "DELETE FROM checkpoints WHERE projection = $1 AND version <> $2",
        "DELETE FROM dead_letters WHERE projection = $1 AND version <> $2",
    ] {
        sqlx::query(statement).bind(name).bind(known.live).execute(&mut *connection).await?;
    }
    sqlx::query(
        "INSERT INTO checkpoints (projection, version, partition, position) \
         SELECT $1, $2, partition, 0 FROM partitions",
    )
    .bind(name)
    .bind(version)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE projections SET building_version = $2, building_fold = $3 WHERE name = $1")
        .bind(name)
        .bind(version)
        .bind(fold)
        .execute(&mut *connection)
        .await?;
    let reached: Vector = positions(connection, name, version).await?;
    Ok(Building { model, live: known.live, version, reached })
}

/// Whether a table exists with exactly the columns this binary writes.
async fn has_shape(connection: &mut PgConnection, table: &TableSpec, schema: Schema) -> Result<bool, ToolError> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
         WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    .bind(format!("{schema}.{}", table.name))
    .fetch_all(connection)
    .await?;
    let expected = table.columns.iter().map(|column| (column.name, column.of.as_str()));
    Ok(expected.eq(found.iter().map(|(name, of)| (name.as_str(), of.as_str()))))
}

/// Lets the server's role work with a new table, where there is such a role.
pub(super) async fn grant(connection: &mut PgConnection, table: &TableSpec, schema: Schema) -> Result<(), ToolError> {
    let role: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'calos_app')")
        .fetch_one(&mut *connection)
        .await?;
    if role {
        let name = table.name;
        let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.{name} TO calos_app");
        run_sql(connection, &grant).await?;
    }
    Ok(())
}
