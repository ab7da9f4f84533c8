//! Where the log ends, and how far it is vouched for outside the database.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use calos_adapters::anchors::{Anchor, read_file};
use calos_adapters::postgres::Timestamptz;

use crate::auth::FinanceOperator as Operator;
use crate::error::ApiError;
use crate::moment::rfc3339;
use crate::openapi::ErrorBody;
use crate::wiring::App;

/// Anchors listed, the newest first.
const ANCHORS_LISTED: usize = 10;

/// The log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogAnswer {
    /// Its random id, as it stands in every anchor.
    log_id: Uuid,
    /// When it was made, RFC 3339.
    created_at: String,
    /// Its events, over all partitions.
    events: i64,
    /// The end of each partition.
    heads: Vec<HeadLine>,
    /// The last anchors kept outside the database, the newest first.
    anchors: Vec<AnchorLine>,
}

/// The end of a partition.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeadLine {
    /// The partition.
    partition: i32,
    /// Its last position; 0 while it is empty.
    position: i64,
    /// When the event there was recorded, RFC 3339.
    recorded_at: String,
    /// Its hash, hexadecimal.
    hash: String,
}

/// An anchor.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnchorLine {
    /// When it was signed, RFC 3339.
    anchored_at: String,
    /// The events it vouches for, over all partitions.
    events: i64,
    /// Whether this ledger's key signed it.
    signed: bool,
    /// The signature, hexadecimal.
    signature: String,
}

/// The heads of the log and its last anchors.
#[utoipa::path(get, path = "/api/ops/log", tag = "operations",
    responses((status = 200, body = LogAnswer), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn look(State(app): State<App>, _operator: Operator) -> Result<Json<LogAnswer>, ApiError> {
    let (log_id, created_at): (Uuid, Timestamptz) =
        sqlx::query_as("SELECT log_id, created_at FROM log").fetch_one(&app.pool).await?;
    let rows: Vec<(i32, i64, Timestamptz, String)> = sqlx::query_as(
        "SELECT partition, last_position, last_recorded_at, encode(head_hash, 'hex') FROM heads ORDER BY partition",
    )
    .fetch_all(&app.pool)
    .await?;
    let heads: Vec<HeadLine> = (rows.into_iter())
        .map(|(partition, position, at, hash)| Ok(HeadLine { partition, position, recorded_at: rfc3339(at.0)?, hash }))
        .collect::<Result<_, ApiError>>()?;
    let directory = app.config.anchor_dir.clone();
    // A file that has grown for a year is not read on the event loop.
    let kept = tokio::task::spawn_blocking(move || read_file(&directory)).await.map_err(ApiError::internal)?;
    let kept = kept.map_err(ApiError::internal)?;
    let anchors = kept.anchors.iter().rev().take(ANCHORS_LISTED).map(|anchor| line(&app, anchor));
    Ok(Json(LogAnswer {
        log_id,
        created_at: rfc3339(created_at.0)?,
        events: heads.iter().map(|head| head.position).sum(),
        anchors: anchors.collect::<Result<_, _>>()?,
        heads,
    }))
}

fn line(app: &App, anchor: &Anchor) -> Result<AnchorLine, ApiError> {
    let key = app.secrets.ledger_signing_key().verifying_key();
    Ok(AnchorLine {
        anchored_at: rfc3339(anchor.anchored_at)?,
        events: anchor.heads.iter().map(|head| head.position).sum(),
        signed: anchor.verify(&key).is_ok(),
        signature: anchor.signature.clone(),
    })
}
