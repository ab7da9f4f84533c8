//! `read.adjustments`: corrections of wallets by hand: who proposed them, who approved them, what became of them.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use calos_domain::adjustment::{AdjustmentEvent, AdjustmentProposed};
use calos_domain::{AdjustmentId, Asset, GrantId, Record, TenantId, Timestamp, UserId};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{fact, stream_uuid_and_rest};
use crate::kind::Kind;
use crate::moment::Moment;
use crate::page::{Page, page_rows};
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct Adjustments;

const COLUMNS: [Column; 18] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("adjustment_id", ColumnType::Uuid),
    Column::new("partition", ColumnType::Integer),
    Column::new("asset", ColumnType::Text),
    Column::new("amount", ColumnType::Bigint),
    Column::new("reason", ColumnType::Text),
    Column::new("evidence", ColumnType::Text),
    Column::new("effective_at", ColumnType::Timestamp),
    Column::new("proposed_by", ColumnType::Uuid),
    Column::new("proposed_at", ColumnType::Timestamp),
    Column::new("lapses_at", ColumnType::Timestamp),
    Column::new("approvals_needed", ColumnType::Integer),
    Column::new("approvals", ColumnType::Jsonb),
    Column::new("status", ColumnType::Text),
    Column::nullable("ended_at", ColumnType::Timestamp),
    Column::nullable("rejected_by", ColumnType::Uuid),
    Column::nullable("rejection", ColumnType::Text),
    Column::nullable("grant_id", ColumnType::Uuid),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: Adjustments::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "adjustment_id", "partition"],
    indexes: &[
        Index { name: "adjustments_id", columns: "adjustment_id", only: None },
        Index { name: "adjustments_lapses_at", columns: "lapses_at", only: Some("status = 'open'") },
    ],
    fillfactor: 80,
}];

/// What became of an adjustment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for approvals.
    Open,
    /// The wallet was put right.
    Applied,
    /// It was turned down or withdrawn.
    Rejected,
    /// Nobody decided in time.
    Lapsed,
}

impl Status {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Open, Self::Applied, Self::Rejected, Self::Lapsed];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Lapsed => "lapsed",
        }
    }
}

/// Somebody's approval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approval {
    /// Whose.
    pub by: UserId,
    /// When.
    pub at: Timestamp,
}

/// Tenant and adjustment.
type Key = (Uuid, Uuid);

/// What happened to each adjustment.
#[derive(Default, Debug)]
pub struct Changes {
    adjustments: HashMap<Key, Change>,
}

#[derive(Default, Debug)]
struct Change {
    partition: i32,
    proposed: Option<Box<AdjustmentProposed>>,
    approvals: Vec<Approval>,
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    status: Status,
    at: Timestamp,
    by: Option<Uuid>,
    rejection: Option<String>,
    grant_id: Option<Uuid>,
}

impl End {
    const fn new(status: Status, at: Timestamp) -> Self {
        Self { status, at, by: None, rejection: None, grant_id: None }
    }
}

impl Change {
    fn approvals(&self) -> String {
        // Ids and numbers alone: there is nothing in it that JSON could not say.
        serde_json::to_string(&self.approvals).unwrap_or_else(|_| "[]".to_owned())
    }
}

impl Changes {
    /// In the order of the key, so that two writers never wait for each other crosswise.
    fn sorted(self) -> Vec<(Key, Change)> {
        let mut rows: Vec<_> = self.adjustments.into_iter().collect();
        rows.sort_unstable_by_key(|row| row.0);
        rows
    }
}

impl Projection for Adjustments {
    const NAME: &'static str = "adjustments";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        match Kind::of(record.aggregate_type)? {
            Kind::Adjustment => {}
            Kind::Wallet
            | Kind::Tenant
            | Kind::Licence
            | Kind::ApiKey
            | Kind::Account
            | Kind::Session
            | Kind::Device
            | Kind::EmailClaim
            | Kind::Operation
            | Kind::Payment
            | Kind::Payout
            | Kind::Period
            | Kind::Reconciliation
            | Kind::LedgerAccess => return Ok(()),
        }
        let event: AdjustmentEvent = fact(record)?;
        let (tenant, id) = stream_uuid_and_rest(record)?;
        let id = Uuid::try_parse(id).map_err(|_| ProjectError::StreamId(record.aggregate_id.to_owned()))?;
        let change = changes.adjustments.entry((tenant, id)).or_default();
        change.partition = record.partition;
        match event {
            AdjustmentEvent::AdjustmentProposed(event) => change.proposed = Some(Box::new(event)),
            AdjustmentEvent::AdjustmentApproved(event) => {
                change.approvals.push(Approval { by: event.by, at: event.at });
            }
            AdjustmentEvent::AdjustmentRejected(event) => {
                let end = End::new(Status::Rejected, event.at);
                change.end = Some(End { by: Some(event.by.0), rejection: Some(event.reason), ..end });
            }
            AdjustmentEvent::AdjustmentApplied(event) => {
                let end = End::new(Status::Applied, event.at);
                change.end = Some(End { grant_id: event.grant_id.map(|grant| grant.0), ..end });
            }
            AdjustmentEvent::AdjustmentLapsed(event) => change.end = Some(End::new(Status::Lapsed, event.at)),
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let rows = changes.sorted();
        let new: Vec<_> = rows.iter().filter_map(|(key, row)| Some((key, row, row.proposed.as_deref()?))).collect();
        if !new.is_empty() {
            let statement = schema.sql(INSERT);
            sqlx::query(&statement)
                .bind(new.iter().map(|(key, ..)| key.0).collect::<Vec<_>>())
                .bind(new.iter().map(|(key, ..)| key.1).collect::<Vec<_>>())
                .bind(new.iter().map(|(_, row, _)| row.partition).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.asset.as_str()).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.amount.get()).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.reason.as_str()).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.evidence.as_str()).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| Moment(event.effective_at)).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.proposed_by.0).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| Moment(event.proposed_at)).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| Moment(event.lapses_at)).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| i32::from(event.approvals_needed)).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let later: Vec<_> = rows.iter().filter(|(_, row)| !row.approvals.is_empty() || row.end.is_some()).collect();
        if !later.is_empty() {
            let ends = || later.iter().map(|(_, row)| row.end.as_ref());
            let statement = schema.sql(UPDATE);
            sqlx::query(&statement)
                .bind(later.iter().map(|(key, _)| key.0).collect::<Vec<_>>())
                .bind(later.iter().map(|(key, _)| key.1).collect::<Vec<_>>())
                .bind(later.iter().map(|(_, row)| row.partition).collect::<Vec<_>>())
                .bind(later.iter().map(|(_, row)| row.approvals()).collect::<Vec<_>>())
                .bind(ends().map(|end| end.map(|end| end.status.as_str())).collect::<Vec<_>>())
                .bind(ends().map(|end| end.map(|end| Moment(end.at))).collect::<Vec<_>>())
                .bind(ends().map(|end| end.and_then(|end| end.by)).collect::<Vec<_>>())
                .bind(ends().map(|end| end.and_then(|end| end.rejection.as_deref())).collect::<Vec<_>>())
                .bind(ends().map(|end| end.and_then(|end| end.grant_id)).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, id), row) in changes.sorted() {
            let Some(event) = row.proposed.as_deref() else { continue };
            let end = row.end.as_ref();
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(tenant),
                    Value::Uuid(id),
                    Value::I32(row.partition),
                    Value::Text(event.asset.as_str()),
                    Value::I64(event.amount.get()),
                    Value::Text(event.reason.as_str()),
                    Value::Text(&event.evidence),
                    Value::Time(event.effective_at),
                    Value::Uuid(event.proposed_by.0),
                    Value::Time(event.proposed_at),
                    Value::Time(event.lapses_at),
                    Value::I32(i32::from(event.approvals_needed)),
                    Value::Jsonb(&row.approvals()),
                    Value::Text(end.map_or(Status::Open, |end| end.status).as_str()),
                    Value::optional(end, |end| Value::Time(end.at)),
                    Value::optional(end.and_then(|end| end.by), Value::Uuid),
                    Value::optional(end.and_then(|end| end.rejection.as_deref()), Value::Text),
                    Value::optional(end.and_then(|end| end.grant_id), Value::Uuid),
                ],
            )?;
        }
        Ok(())
    }
}

const INSERT: &str = "
INSERT INTO {schema}.adjustments (tenant_id, adjustment_id, partition, asset, amount, reason, evidence, effective_at,
    proposed_by, proposed_at, lapses_at, approvals_needed, approvals, status)
SELECT *, '[]', 'open' FROM unnest($1::uuid[], $2::uuid[], $3::int4[], $4::text[], $5::int8[], $6::text[], $7::text[],
    $8::timestamptz[], $9::uuid[], $10::timestamptz[], $11::timestamptz[], $12::int4[])";

const UPDATE: &str = "
UPDATE {schema}.adjustments AS a SET
    approvals = a.approvals || u.approvals::jsonb,
    status = coalesce(u.status, a.status),
    ended_at = coalesce(u.ended_at, a.ended_at),
    rejected_by = coalesce(u.rejected_by, a.rejected_by),
    rejection = coalesce(u.rejection, a.rejection),
    grant_id = coalesce(u.grant_id, a.grant_id)
FROM unnest($1::uuid[], $2::uuid[], $3::int4[], $4::text[], $5::text[], $6::timestamptz[], $7::uuid[], $8::text[],
        $9::uuid[])
    AS u (tenant_id, adjustment_id, partition, approvals, status, ended_at, rejected_by, rejection, grant_id)
WHERE a.tenant_id = u.tenant_id AND a.adjustment_id = u.adjustment_id AND a.partition = u.partition";

/// An adjustment as finance sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adjustment {
    /// Its id.
    pub adjustment_id: AdjustmentId,
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// In which asset.
    pub asset: Asset,
    /// How much is given, in the asset's smallest unit; below zero, how much is taken.
    pub amount: i64,
    /// Why: an [`calos_domain::wallet::AdjustmentReason`] by its stored name.
    pub reason: String,
    /// Where the evidence is found.
    pub evidence: String,
    /// From when it counts.
    pub effective_at: Timestamp,
    /// Who proposed it.
    pub proposed_by: UserId,
    /// When.
    pub proposed_at: Timestamp,
    /// From when on it can no longer be approved.
    pub lapses_at: Timestamp,
    /// How many people other than the author have to approve it.
    pub approvals_needed: i32,
    /// Who did, in order.
    pub approvals: Vec<Approval>,
    /// What became of it.
    pub status: Status,
    /// When it was applied, rejected or found lapsed.
    pub ended_at: Option<Timestamp>,
    /// Who rejected it.
    pub rejected_by: Option<UserId>,
    /// Why.
    pub rejection: Option<String>,
    /// The grant it became.
    pub grant_id: Option<GrantId>,
}

const SELECT: &str =
    "SELECT adjustment_id, tenant_id, asset, amount, reason, evidence, effective_at, proposed_by, proposed_at,
    lapses_at, approvals_needed, approvals, status, ended_at, rejected_by, rejection, grant_id FROM read.adjustments";

/// Adjustments, newest first: those before `before`, of one tenant or all, in one status or any.
///
/// # Errors
/// The database's, or a row that cannot be read.
pub async fn page(
    pool: &PgPool,
    tenant: Option<TenantId>,
    status: Option<Status>,
    before: Option<AdjustmentId>,
    limit: usize,
) -> Result<Page<Adjustment, AdjustmentId>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(format!("{SELECT} WHERE true"));
    if let Some(tenant) = tenant {
        query.push(" AND tenant_id = ").push_bind(tenant.0);
    }
    if let Some(status) = status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(before) = before {
        query.push(" AND adjustment_id < ").push_bind(before.0);
    }
    query.push(" ORDER BY adjustment_id DESC LIMIT ").push_bind(page_rows(limit));
    let rows = query.build().fetch_all(pool).await?;
    let rows = rows.iter().map(adjustment).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::new(rows, limit, |row| row.adjustment_id))
}

/// One adjustment, whoever's wallet it is about.
///
/// # Errors
/// As [`page`].
pub async fn find(executor: impl PgExecutor<'_>, id: AdjustmentId) -> Result<Option<Adjustment>, sqlx::Error> {
    let statement = format!("{SELECT} WHERE adjustment_id = $1 LIMIT 1");
    let row = sqlx::query(&statement).bind(id.0).fetch_optional(executor).await?;
    row.as_ref().map(adjustment).transpose()
}

/// Adjustments that nobody decided in time and that are not yet said to have lapsed, oldest first, at most `limit`.
///
/// # Errors
/// The database's.
pub async fn due(
    executor: impl PgExecutor<'_>,
    at: Timestamp,
    limit: u32,
) -> Result<Vec<(TenantId, AdjustmentId)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT tenant_id, adjustment_id FROM read.adjustments WHERE status = 'open' AND lapses_at <= $1
         ORDER BY lapses_at LIMIT $2",
    )
    .bind(Moment(at))
    .bind(i64::from(limit))
    .fetch_all(executor)
    .await?;
    rows.iter().map(|row| Ok((TenantId(row.try_get(0)?), AdjustmentId(row.try_get(1)?)))).collect()
}

fn adjustment(row: &PgRow) -> Result<Adjustment, sqlx::Error> {
    let unknown = |what: &str| sqlx::Error::Decode(format!("read.adjustments holds an unknown {what}").into());
    let (asset, status): (&str, &str) = (row.try_get(2)?, row.try_get(12)?);
    Ok(Adjustment {
        adjustment_id: AdjustmentId(row.try_get(0)?),
        tenant_id: TenantId(row.try_get(1)?),
        asset: asset.parse().map_err(|_| unknown("asset"))?,
        amount: row.try_get(3)?,
        reason: row.try_get(4)?,
        evidence: row.try_get(5)?,
        effective_at: row.try_get::<Moment, _>(6)?.0,
        proposed_by: UserId(row.try_get(7)?),
        proposed_at: row.try_get::<Moment, _>(8)?.0,
        lapses_at: row.try_get::<Moment, _>(9)?.0,
        approvals_needed: row.try_get(10)?,
        approvals: row.try_get::<Json<Vec<Approval>>, _>(11)?.0,
        status: Status::ALL.into_iter().find(|known| known.as_str() == status).ok_or_else(|| unknown("status"))?,
        ended_at: row.try_get::<Option<Moment>, _>(13)?.map(|at| at.0),
        rejected_by: row.try_get::<Option<Uuid>, _>(14)?.map(UserId),
        rejection: row.try_get(15)?,
        grant_id: row.try_get::<Option<Uuid>, _>(16)?.map(GrantId),
    })
}
