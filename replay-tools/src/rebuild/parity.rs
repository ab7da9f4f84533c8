//! The comparison: both versions at the live version's positions, in one snapshot.

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use calos_projections::Schema;

use super::{
    Building, CATCH_UP_REST_EVENTS, CATCH_UP_ROUNDS_MAX, bound_locks, catch_up, catch_up_in_the_background, hold,
};
use crate::connections::{Connections, run_sql};
use crate::differences::{Differences, compare_all};
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::progress::Progress;
use crate::versions::{Vector, at_most, heads, lag_events, positions};

/// Memory one step of the comparison may use before it goes to disk.
const COMPARISON_MEGABYTES: u32 = 64;

/// How the rows that stood compare with what the log gives. Never a reason not to switch: after an incident the
/// differences are the point.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parity {
    /// The live version's positions, at which both were read.
    pub positions: Vector,
    /// The differences, when the live tables could be read.
    pub differences: Option<Differences>,
    /// Why they could not.
    pub unreadable: Option<String>,
    /// Rows the new version has at those positions.
    pub rows: i64,
}

impl Parity {
    /// Compares the tables in two schemas, in whatever snapshot the connection has.
    pub(super) async fn of(
        connection: &mut PgConnection,
        model: ReadModel,
        live: Schema,
        log: Schema,
        positions: Vector,
        listed_rows: i64,
    ) -> Result<Self, ToolError> {
        run_sql(connection, &format!("SET LOCAL work_mem = '{COMPARISON_MEGABYTES}MB'")).await?;
        let mut rows = 0;
        for table in model.tables() {
            let count = format!("SELECT count(*) FROM {log}.{}", table.name);
            rows += sqlx::query_scalar::<_, i64>(&count).fetch_one(&mut *connection).await?;
        }
        let (differences, unreadable) = match compare_all(connection, model.tables(), live, log, listed_rows).await {
            Ok(differences) => (Some(differences), None),
            // A table that somebody dropped or changed is what a rebuild is for; a lost connection is not.
            Err(ToolError::Database(sqlx::Error::Database(error))) if is_shape(&*error) => {
                (None, Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        Ok(Self { positions, differences, unreadable, rows })
    }

    /// How many rows differed: all of them, when what stood could not even be read.
    #[must_use]
    pub fn differing_rows(&self) -> u64 {
        let count = self.differences.as_ref().map_or(self.rows, |differences| differences.count);
        u64::try_from(count).unwrap_or_default()
    }

    /// The differences, when the live tables could be read.
    #[must_use]
    pub fn differences(&self) -> Option<&Differences> {
        self.differences.as_ref()
    }
}

/// Brings the building version exactly to the live one's positions and compares them.
///
/// The live version stands still only for the last few events and until the snapshot is taken; the comparison itself
/// reads from the snapshot while everything moves on.
pub(super) async fn compare(
    connections: &Connections,
    operator: &mut PgConnection,
    building: &Building,
    listed_rows: i64,
    progress: &Progress,
) -> Result<Parity, ToolError> {
    let model = building.model;
    let mut reader = connections.connect().await?;
    near(connections, operator, building, progress).await?;

    // What the live version waits for is done at everybody's pace.
    let swift = Connections::at_full_pace(connections.options(), 1);
    let mut writer = swift.connect().await?;
    let mut still = operator.begin().await?;
    bound_locks(&mut still).await?;
    let held = hold(&mut still, model.name(), building.live).await?;
    let target = at_most(&held, &heads(&mut still).await?);
    catch_up(&swift, &mut writer, model, &building.at(), &target, &mut progress.counter()).await?;
    let mut snapshot = reader.begin().await?;
    run_sql(&mut snapshot, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let reached = positions(&mut snapshot, model.name(), building.version).await?;
    still.rollback().await?;
    swift.close().await;
    progress.step("comparing");

    if reached != target {
        let (name, version) = (model.name(), building.version);
        return Err(ToolError::Corrupt(format!("{name} version {version} is at {reached:?} instead of {target:?}")));
    }
    Parity::of(&mut snapshot, model, Schema::Live, Schema::Next, target, listed_rows).await
}

/// Whether an error says that a table or a column is missing or of another type (class 42), rather than that the
/// database gave up.
fn is_shape(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("42"))
}

/// Rounds of catching up, until little is left to do while the live version stands still.
pub(super) async fn near(
    connections: &Connections,
    operator: &mut PgConnection,
    building: &Building,
    progress: &Progress,
) -> Result<(), ToolError> {
    let name = building.model.name();
    for _ in 0..CATCH_UP_ROUNDS_MAX {
        let live = positions(operator, name, building.live).await?;
        let target = at_most(&live, &heads(operator).await?);
        let reached = positions(operator, name, building.version).await?;
        let left = lag_events(&reached, &target);
        if left <= CATCH_UP_REST_EVENTS {
            return Ok(());
        }
        progress.left(left);
        progress.step("catching up");
        catch_up_in_the_background(connections, building, target, progress).await?;
    }
    Ok(())
}
