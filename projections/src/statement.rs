//! The movements of one tenant's wallet in one month, for its statement. No table of its own: it reads the journal.
//!
//! A movement belongs to the month it takes effect in. Where that month had been closed before the movement was recorded,
//! it belongs to the month that was open then: a closed month stays as it is. So the movements of a month lead exactly
//! from the balance at its beginning to the balance at its end, as [`crate::as_of`] has them.

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use calos_domain::{Asset, TenantId, Timestamp};

use crate::moment::Moment;
use crate::page::{Page, page_rows};

/// Which movements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Whose.
    pub tenant: TenantId,
    /// The month's first moment; a month begins and ends where one of the journal's stretches does.
    pub first: Timestamp,
    /// Its last.
    pub last: Timestamp,
    /// When the months before were closed: what was recorded later and takes effect in them belongs to this month. None
    /// while they are open, or where they were closed together with this one.
    pub late_after: Option<Timestamp>,
    /// Only what was recorded at this moment or before.
    pub known_at: Timestamp,
}

/// One movement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Movement {
    /// The event's partition of the log.
    pub partition: i32,
    /// The event's position there.
    pub position: i64,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// From when it counts.
    pub effective_at: Timestamp,
    /// The event's stored name.
    pub event: String,
    /// In which asset.
    pub asset: Asset,
    /// What came to the wallet, or left it when negative; what a hold keeps is still in it.
    pub amount: i64,
    /// How much more is owed, or less when negative.
    pub debt: i64,
    /// The use behind it.
    pub usage_id: Option<Uuid>,
    /// Why.
    pub reason: String,
}

/// A place in a statement's order: behind the movement recorded at this moment, in this position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Behind {
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Its position; a tenant's events are all in one partition.
    pub position: i64,
}

impl Movement {
    /// The place behind this one.
    #[must_use]
    pub const fn behind(&self) -> Behind {
        Behind { recorded_at: self.recorded_at, position: self.position }
    }
}

/// The movements behind a place, in the order they were recorded, at most `limit` (and never more than
/// [`PAGE_MAX_ROWS`](crate::page::PAGE_MAX_ROWS)).
///
/// # Errors
/// The database's, or a row that cannot be read.
pub async fn movements(
    pool: &PgPool,
    span: &Span,
    behind: Option<Behind>,
    limit: usize,
) -> Result<Page<Movement, Behind>, sqlx::Error> {
    let behind = behind.unwrap_or(Behind { recorded_at: BEFORE_EVERYTHING, position: 0 });
    let rows = sqlx::query(MOVEMENTS)
        .bind(span.tenant.0)
        .bind(Moment(span.first))
        .bind(Moment(span.last))
        .bind(Moment(span.known_at))
        .bind(Moment(span.late_after.unwrap_or(span.known_at)))
        .bind(Moment(behind.recorded_at))
        .bind(behind.position)
        .bind(page_rows(limit))
        .fetch_all(pool)
        .await?;
    let movements = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::new(movements, limit, Movement::behind))
}

/// The year 1: no event was recorded before.
const BEFORE_EVERYTHING: Timestamp = Timestamp::from_micros(-62_135_596_800_000_000);

// Each branch goes along an index of its own. What took effect when it was recorded is found by its recorded date, what
// did not (`shifted`) by its effective date, and what came late among what was recorded after the closing.
const MOVEMENTS: &str = "
WITH mine AS (
    (SELECT * FROM read.journal
     WHERE tenant_id = $1 AND NOT shifted AND recorded_at BETWEEN $2 AND least($3, $4)
       AND (recorded_at, position) > ($6, $7) AND (available + held <> 0 OR debt <> 0)
     ORDER BY recorded_at, position LIMIT $8)
    UNION ALL
    (SELECT * FROM read.journal
     WHERE tenant_id = $1 AND shifted AND effective_at BETWEEN $2 AND $3 AND recorded_at <= $4
       AND (recorded_at, position) > ($6, $7) AND (available + held <> 0 OR debt <> 0)
     ORDER BY recorded_at, position LIMIT $8)
    UNION ALL
    (SELECT * FROM read.journal
     WHERE tenant_id = $1 AND shifted AND effective_at < $2 AND recorded_at > $5 AND recorded_at <= $4
       AND (recorded_at, position) > ($6, $7) AND (available + held <> 0 OR debt <> 0)
     ORDER BY recorded_at, position LIMIT $8)
)
SELECT m.partition, m.position, m.recorded_at, m.effective_at, m.type, m.asset, m.available + m.held, m.debt, m.usage_id,
    coalesce(l.reason, '')
FROM (SELECT * FROM mine ORDER BY recorded_at, position LIMIT $8) m
LEFT JOIN read.wallet_ledger l ON l.tenant_id = m.tenant_id AND l.position = m.position AND l.partition = m.partition
ORDER BY m.recorded_at, m.position";

fn read(row: &PgRow) -> Result<Movement, sqlx::Error> {
    let asset = row.try_get::<&str, _>(5)?.parse();
    Ok(Movement {
        partition: row.try_get(0)?,
        position: row.try_get(1)?,
        recorded_at: row.try_get::<Moment, _>(2)?.0,
        effective_at: row.try_get::<Moment, _>(3)?.0,
        event: row.try_get(4)?,
        asset: asset.map_err(|_| sqlx::Error::Decode("read.journal holds an asset nobody knows".into()))?,
        amount: row.try_get(6)?,
        debt: row.try_get(7)?,
        usage_id: row.try_get(8)?,
        reason: row.try_get(9)?,
    })
}
