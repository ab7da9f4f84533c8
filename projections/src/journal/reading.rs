//! Pages of the journal, in both directions, and single entries.

use std::fmt;
use std::str::FromStr;

use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, PgPool, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use calos_domain::book::Posting;
use calos_domain::{Asset, TenantId, Timestamp};

use crate::book::{NOBODY, read_postings};
use crate::moment::Moment;
use crate::page::{Page, page_rows};

/// One entry of the book: what one event means in one asset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The event's partition of the log.
    pub partition: i32,
    /// The event's position there.
    pub position: i64,
    /// Whose wallet or payment it is about; none for entries about nobody in particular.
    pub tenant_id: Option<TenantId>,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// From when it counts.
    pub effective_at: Timestamp,
    /// The event's stored name.
    pub event_type: String,
    /// In which asset.
    pub asset: Asset,
    /// The sum of the debits, in the asset's smallest unit.
    pub amount: i64,
    /// What is posted where; a debit is positive.
    pub postings: Vec<Posting>,
    /// The use behind it.
    pub usage_id: Option<Uuid>,
    /// Where it comes from: a payment, a refund, a dispute, an adjustment, whatever granted the credit.
    pub source_ref: Option<String>,
}

impl Entry {
    /// Where this entry stands in the journal's order.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { recorded_at: self.recorded_at, partition: self.partition, position: self.position, asset: self.asset }
    }
}

/// Which entries a page is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JournalFilter {
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only what was recorded at this moment or later.
    pub from: Option<Timestamp>,
    /// Only what was recorded before this moment.
    pub to: Option<Timestamp>,
}

/// A place in the journal's order: by recorded date, then partition, position and asset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// When the entry there was recorded.
    pub recorded_at: Timestamp,
    /// Its partition.
    pub partition: i32,
    /// Its position.
    pub position: i64,
    /// Its asset.
    pub asset: Asset,
}

/// A text that is no cursor of the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("that is no cursor of the journal")]
pub struct NoCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.recorded_at.micros(), self.partition, self.position, self.asset)
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(NoCursor);
        let micros: i64 = part()?.parse().map_err(|_| NoCursor)?;
        let partition = part()?.parse().map_err(|_| NoCursor)?;
        let position = part()?.parse().map_err(|_| NoCursor)?;
        let asset = part()?.parse().map_err(|_| NoCursor)?;
        // What a table cannot hold is no place in it either.
        let recorded_at = crate::bucket::effective(Timestamp::from_micros(micros)).map_err(|_| NoCursor)?;
        parts.next().is_none().then_some(Self { recorded_at, partition, position, asset }).ok_or(NoCursor)
    }
}

/// A page of the journal, newest first: what was recorded before the entry at `cursor`, at most `limit` entries (and
/// never more than [`PAGE_MAX_ROWS`](crate::page::PAGE_MAX_ROWS)).
///
/// # Errors
/// The database's, or a row that cannot be read.
pub async fn page(
    pool: &PgPool,
    filter: JournalFilter,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Entry, Cursor>, sqlx::Error> {
    turn(pool, Direction { beyond: "<", order: "DESC" }, filter, cursor, limit).await
}

/// The same, oldest first: what was recorded after the entry at `cursor`.
///
/// # Errors
/// As [`page`].
pub async fn forward(
    pool: &PgPool,
    filter: JournalFilter,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Entry, Cursor>, sqlx::Error> {
    turn(pool, Direction { beyond: ">", order: "ASC" }, filter, cursor, limit).await
}

pub(super) const COLUMNS: &str =
    "j.tenant_id, j.recorded_at, j.position, j.partition, j.asset, j.effective_at, j.type, j.amount,
    j.postings, j.usage_id, j.source_ref";

#[derive(Clone, Copy)]
struct Direction {
    beyond: &'static str,
    order: &'static str,
}

async fn turn(
    pool: &PgPool,
    direction: Direction,
    filter: JournalFilter,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Entry, Cursor>, sqlx::Error> {
    // Only what is asked for becomes a condition, so that each shape of a question has a plan of its own.
    let mut query = QueryBuilder::<Postgres>::new(format!("SELECT {COLUMNS} FROM read.journal j WHERE true"));
    if let Some(tenant) = filter.tenant {
        query.push(" AND tenant_id = ").push_bind(tenant.0);
    }
    if let Some(from) = filter.from {
        query.push(" AND recorded_at >= ").push_bind(Moment(from));
    }
    if let Some(to) = filter.to {
        query.push(" AND recorded_at < ").push_bind(Moment(to));
    }
    // Both orders are one: a tenant's entries are all in one partition, and its index has the position first.
    let places = if filter.tenant.is_some() { ["position", "partition"] } else { ["partition", "position"] };
    if let Some(cursor) = cursor {
        let [first, second] = places;
        query.push(format!(" AND (recorded_at, {first}, {second}, asset) {} (", direction.beyond));
        query.push_bind(Moment(cursor.recorded_at)).push(", ");
        if filter.tenant.is_some() {
            query.push_bind(cursor.position).push(", ").push_bind(cursor.partition);
        } else {
            query.push_bind(cursor.partition).push(", ").push_bind(cursor.position);
        }
        query.push(", ").push_bind(cursor.asset.as_str()).push(")");
    }
    let columns = ["recorded_at", places[0], places[1], "asset"].map(|column| format!("{column} {}", direction.order));
    query.push(format!(" ORDER BY {} LIMIT ", columns.join(", "))).push_bind(page_rows(limit));
    let rows = query.build().fetch_all(pool).await?;
    let rows = rows.iter().map(read_entry).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::new(rows, limit, Entry::cursor))
}

/// What the event at a position means for the book: an entry per asset, none when it moves nothing there.
///
/// # Errors
/// As [`page`].
pub async fn entry(executor: impl PgExecutor<'_>, partition: i32, position: i64) -> Result<Vec<Entry>, sqlx::Error> {
    // The log says when it was recorded, and by that the journal is found.
    let statement = format!(
        "SELECT {COLUMNS} FROM events e
         JOIN read.journal j ON j.recorded_at = e.recorded_at AND j.partition = e.partition AND j.position = e.position
         WHERE e.partition = $1 AND e.position = $2 ORDER BY j.asset DESC"
    );
    let rows = sqlx::query(&statement).bind(partition).bind(position).fetch_all(executor).await?;
    rows.iter().map(read_entry).collect()
}

/// A row that says what none of ours does: written by another program, or damaged.
fn damaged(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("read.journal holds {what}").into())
}

/// A row of [`COLUMNS`].
pub(super) fn read_entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let tenant = TenantId(row.try_get(0)?);
    let asset = row.try_get::<&str, _>(4)?.parse();
    let postings: &str = row.try_get(8)?;
    Ok(Entry {
        tenant_id: (tenant != NOBODY).then_some(tenant),
        recorded_at: row.try_get::<Moment, _>(1)?.0,
        position: row.try_get(2)?,
        partition: row.try_get(3)?,
        asset: asset.map_err(|_| damaged("an asset nobody knows"))?,
        effective_at: row.try_get::<Moment, _>(5)?.0,
        event_type: row.try_get(6)?,
        amount: row.try_get(7)?,
        postings: read_postings(tenant, postings).ok_or_else(|| damaged("postings that cannot be read"))?,
        usage_id: row.try_get(9)?,
        source_ref: row.try_get(10)?,
    })
}
