//! The comparison: both versions at the live version's positions, in one snapshot.

use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use calos_projections::Schema;

use super::{Building, catch_up, fingerprint};
use crate::background::apart;
use crate::connections::{Connections, WITHOUT_HELP, run_sql};
use crate::differences::{Differences, compare_all, stretches};
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::progress::Progress;
use crate::traffic::Traffic;
use crate::versions::{Vector, at_most, heads, positions};

/// Memory one step of the comparison may use before it goes to disk.
const COMPARISON_MEGABYTES: u32 = 64;

/// A transaction that sees one moment, and what it does itself on top of it.
const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL synchronous_commit = off";

/// No snapshot is looked at for longer while others write.
const SNAPSHOT_MAX: Duration = Duration::from_secs(1);

/// How the rows that stood compare with what the log gives. Never a reason not to switch: after an incident the
/// differences are the point.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parity {
    /// The live version's positions when both were read for the last time. While others write, stretches of rows are compared
    /// one after the other, each with both versions at the same positions. Rows that are never changed are compared up to here.
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
        let rows = count(connection, model, log).await?;
        let compared = compare_all(connection, model.tables(), live, log, listed_rows).await;
        Self::from(positions, compared, rows)
    }

    fn from(positions: Vector, compared: Result<Differences, ToolError>, rows: i64) -> Result<Self, ToolError> {
        let (differences, unreadable) = match compared {
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

/// Compares the building version with the live one, both at the same positions, while everything moves on: on a thread of its own.
///
/// Where rows are never changed, sums over them tell whether all are the same; anything else is found row by row. For that a
/// transaction sees the live version where it stood when it began, and itself brings the new one there before it compares, so
/// nobody has to stand still. While others write, one lasts for a few stretches of rows only: PostgreSQL keeps whatever they
/// change for as long as its snapshot is looked at, and they would have to walk past it. A row that was equal stays so,
/// because both versions are moved on by the same fold.
pub(super) async fn compare(
    connections: &Connections,
    building: &Building,
    listed_rows: i64,
    progress: &Progress,
) -> Result<Parity, ToolError> {
    let (options, building, progress) = (connections.options().clone(), building.clone(), progress.clone());
    apart(1, move || async move {
        let connections = Connections::in_the_background(&options, 2);
        let compared = compare_here(&connections, &building, listed_rows, &progress).await;
        connections.close().await;
        compared
    })
    .await?
}

async fn compare_here(
    connections: &Connections,
    building: &Building,
    listed_rows: i64,
    progress: &Progress,
) -> Result<Parity, ToolError> {
    let (model, at) = (building.model, building.at());
    let traffic = Traffic::watch(connections.readers().clone(), progress.clone()).await?;
    let mut writer = connections.connect_to_write().await?;
    run_sql(&mut writer, WITHOUT_HELP).await?;
    progress.step("catching up");
    catch_up::near(connections, &mut writer, building, progress).await?;
    progress.step("comparing");
    if let Some(same) = by_sums(connections, &mut writer, building, &traffic).await? {
        return Ok(same);
    }
    run_sql(&mut writer, &format!("SET work_mem = '{COMPARISON_MEGABYTES}MB'")).await?;
    let mut stretches = stretches(&mut writer, model.tables(), Schema::Next).await?.into_iter().peekable();
    let mut compared = Ok(Differences::default());
    let mut target = Vector::new();
    while let (Ok(differences), Some(_)) = (&mut compared, stretches.peek()) {
        catch_up::near(connections, &mut writer, building, progress).await?;
        let mut snapshot = writer.begin().await?;
        run_sql(&mut snapshot, SNAPSHOT).await?;
        let begun = Instant::now();
        let live = positions(&mut snapshot, model.name(), building.live).await?;
        target = at_most(&live, &heads(&mut snapshot).await?);
        catch_up::within(connections, &mut snapshot, model, &at, &target, &mut progress.counter()).await?;
        let reached = positions(&mut snapshot, model.name(), building.version).await?;
        if reached != target {
            let (name, version) = (model.name(), building.version);
            return Err(ToolError::Corrupt(format!(
                "{name} version {version} is at {reached:?} instead of {target:?}"
            )));
        }
        for stretch in stretches.by_ref() {
            let found = stretch.compare(&mut snapshot, Schema::Live, Schema::Next, listed_rows, differences).await;
            if let Err(error) = found {
                compared = Err(error);
                break;
            }
            if begun.elapsed() >= SNAPSHOT_MAX && traffic.is_there().await? {
                break;
            }
        }
        // After an error there is nothing left to commit: the version is where it was before.
        match &compared {
            Ok(_) => snapshot.commit().await?,
            Err(_) => snapshot.rollback().await?,
        }
    }
    let rows = count(&mut writer, model, Schema::Next).await?;
    Parity::from(target, compared, rows)
}

/// Says that all rows are the same, when sums over them say so.
async fn by_sums(
    connections: &Connections,
    writer: &mut PgConnection,
    building: &Building,
    traffic: &Traffic,
) -> Result<Option<Parity>, ToolError> {
    let name = building.model.name();
    let live = positions(writer, name, building.live).await?;
    let target = at_most(&positions(writer, name, building.version).await?, &live);
    match fingerprint::rows_if_same(connections.readers(), building, &target, traffic).await {
        Ok(None) => Ok(None),
        Ok(Some(rows)) => Parity::from(target, Ok(Differences::default()), rows).map(Some),
        // Looked at row by row it says what is wrong with the table.
        Err(ToolError::Database(sqlx::Error::Database(error))) if is_shape(&*error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Rows a read model has in its tables.
async fn count(connection: &mut PgConnection, model: ReadModel, schema: Schema) -> Result<i64, ToolError> {
    let mut rows = 0;
    for table in model.tables() {
        let count = format!("SELECT count(*) FROM {schema}.{}", table.name);
        rows += sqlx::query_scalar::<_, i64>(&count).fetch_one(&mut *connection).await?;
    }
    Ok(rows)
}

/// Whether an error says that a table or a column is missing or of another type (class 42), rather than that the
/// database gave up.
fn is_shape(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("42"))
}
