//! A statement as JSON.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use calos_projections::statement::Movement;

use super::sheet::{Head, Running, is_late};
use crate::error::ApiError;
use crate::moment::rfc3339;

/// A statement, or a page of one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatementAnswer {
    /// Whose.
    tenant_id: Uuid,
    /// Of which month (UTC).
    month: String,
    /// What was recorded later is not in it, RFC 3339.
    as_known_at: String,
    /// When the month was closed, RFC 3339; null while it may still change.
    closed_at: Option<String>,
    /// What each asset began and ended with.
    assets: Vec<AssetBalances>,
    /// The movements between, in the order they were recorded.
    movements: Vec<MovementLine>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// What an asset began and ended with. Micro-dollars for `USD`, whole credits for `CREDIT`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssetBalances {
    /// `USD` or `CREDIT`.
    asset: &'static str,
    /// The balance when the month began, credit under open holds included.
    opening: i64,
    /// The balance when it ended, or now.
    closing: i64,
    /// Of the closing balance: kept by open holds.
    held: i64,
    /// Owed when the month began.
    debt_opening: i64,
    /// Owed when it ended, or now.
    debt_closing: i64,
}

/// A movement.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovementLine {
    /// The partition of the event behind it.
    partition: i32,
    /// The position of the event behind it.
    position: i64,
    /// When the log took it, RFC 3339.
    recorded_at: String,
    /// When it counts from, RFC 3339.
    effective_at: String,
    /// Whether it counts from an earlier month, which had been closed by then.
    late: bool,
    /// The event: `credits_granted`, `credits_deducted`, ….
    r#type: String,
    /// `USD` or `CREDIT`.
    asset: &'static str,
    /// What it added, or took when negative.
    amount: i64,
    /// The asset's balance after it.
    balance: i64,
    /// What is owed in the asset after it.
    debt: i64,
    /// The use it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_id: Option<Uuid>,
    /// Why.
    reason: String,
}

impl StatementAnswer {
    /// A page: the movements it lists, and the balances `before` them.
    ///
    /// # Errors
    /// 500 for a moment beyond the calendar.
    pub fn new(head: &Head, before: Running, lines: Vec<Movement>, next: Option<String>) -> Result<Self, ApiError> {
        let mut running = before;
        let movements = lines.into_iter().map(|line| {
            let (balance, debt) = running.take(&line);
            Ok(MovementLine {
                partition: line.partition,
                position: line.position,
                recorded_at: rfc3339(line.recorded_at)?,
                effective_at: rfc3339(line.effective_at)?,
                late: is_late(&line, head.month),
                r#type: line.event,
                asset: line.asset.as_str(),
                amount: line.amount,
                balance,
                debt,
                usage_id: line.usage_id,
                reason: line.reason,
            })
        });
        let movements = movements.collect::<Result<Vec<_>, ApiError>>()?;
        let assets = head.sections.iter().map(|section| AssetBalances {
            asset: section.asset.as_str(),
            opening: section.opening,
            closing: section.closing,
            held: section.held,
            debt_opening: section.debt_opening,
            debt_closing: section.debt_closing,
        });
        Ok(Self {
            tenant_id: head.tenant_id.0,
            month: head.month.to_string(),
            as_known_at: rfc3339(head.as_known_at)?,
            closed_at: head.closed_at.map(rfc3339).transpose()?,
            assets: assets.collect(),
            movements,
            next_cursor: next,
        })
    }
}
