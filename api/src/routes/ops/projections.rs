//! How far the read models are.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use calos_replay::status::{self, Building, Partition, Projection};

use super::failure::failed;
use crate::auth::FinanceOperator as Operator;
use crate::error::ApiError;
use crate::openapi::ErrorBody;
use crate::wiring::App;

/// Every read model.
#[derive(Serialize, ToSchema)]
pub struct ProjectionsAnswer {
    /// By name.
    projections: Vec<ProjectionLine>,
}

/// One read model.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionLine {
    /// Its name.
    name: String,
    /// The live version.
    version: i32,
    /// `live`, `building` (live, with another version under construction) or `halted`.
    state: &'static str,
    /// Events it has set aside.
    dead_letters: i64,
    /// Events it has not taken, altogether.
    lag_events: i64,
    /// How long the oldest of them has been waiting, in seconds.
    lag_seconds: f64,
    /// Events it takes a second, measured over half a second; null when another version went live meanwhile.
    events_per_second: Option<f64>,
    /// The version under construction; null when none is.
    building_version: Option<i32>,
    /// How far that is; null when there is none.
    building: Option<BuildingLine>,
    /// Where it stands.
    partitions: Vec<PartitionLine>,
}

/// How far a version under construction is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildingLine {
    /// Partitions that are folded.
    partitions_done: i64,
    /// Events of them.
    events_done: i64,
    /// Events of the log.
    events: i64,
}

/// Where a read model stands in one partition.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionLine {
    /// The partition.
    partition: i32,
    /// The last position it has taken.
    position: i64,
    /// The log's last position.
    head: i64,
    /// The difference.
    lag_events: i64,
    /// How long the oldest of them has been waiting, in seconds.
    lag_seconds: f64,
    /// Why it takes nothing more here.
    #[serde(skip_serializing_if = "Option::is_none")]
    halted: Option<String>,
}

/// How far every read model is, and how fast it is going: the answer takes half a second.
#[utoipa::path(get, path = "/api/ops/projections", tag = "operations",
    responses((status = 200, body = ProjectionsAnswer), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn list(State(app): State<App>, _operator: Operator) -> Result<Json<ProjectionsAnswer>, ApiError> {
    let status = status::measured(&app.pool).await.map_err(failed)?;
    Ok(Json(ProjectionsAnswer { projections: status.projections.into_iter().map(ProjectionLine::new).collect() }))
}

impl ProjectionLine {
    fn new(projection: Projection) -> Self {
        Self {
            name: projection.name,
            version: projection.version,
            state: projection.state,
            dead_letters: projection.dead_letters,
            lag_events: projection.lag_events,
            lag_seconds: projection.lag_seconds,
            events_per_second: projection.events_per_second,
            building_version: projection.building.map(|building| building.version),
            building: projection.building.map(BuildingLine::new),
            partitions: projection.partitions.into_iter().map(PartitionLine::new).collect(),
        }
    }
}

impl BuildingLine {
    fn new(building: Building) -> Self {
        let Building { partitions_done, events_done, events, version: _ } = building;
        Self { partitions_done, events_done, events }
    }
}

impl PartitionLine {
    fn new(at: Partition) -> Self {
        let Partition { partition, position, head, lag_events, lag_seconds, halted } = at;
        Self { partition, position, head, lag_events, lag_seconds, halted }
    }
}
