//! Lists of reconciliations and of what they found.

use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, PgPool, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use calos_domain::reconciliation::Side;
use calos_domain::{MicroUsd, ReconciliationId, Timestamp, UserId};

use crate::moment::Moment;
use crate::page::{Page, page_rows};

/// A run as finance sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReconciliationRow {
    /// The run.
    pub reconciliation_id: ReconciliationId,
    /// Who keeps the account: `stripe`.
    pub source: String,
    /// From when.
    pub from: Timestamp,
    /// Up to when, that moment left out.
    pub to: Timestamp,
    /// Movements on which both sides agree.
    pub matched: i64,
    /// Exceptions found, those that were not kept one by one counted too.
    pub found: i64,
    /// Of their transactions: outside the span, and so not compared.
    pub outside: i64,
    /// SHA-256 in hex of what they said.
    pub statement_hash: String,
    /// Who ran it.
    pub run_by: UserId,
    /// When.
    pub run_at: Timestamp,
    /// Exceptions that nobody has resolved.
    pub open: i64,
}

const RUNS: &str = "SELECT r.reconciliation_id, r.source, r.from_at, r.to_at, r.matched, r.found, r.outside,
        r.statement_hash, r.run_by, r.run_at,
        (SELECT count(*) FROM read.reconciliation_exceptions e
         WHERE e.reconciliation_id = r.reconciliation_id AND e.resolution IS NULL)
    FROM read.reconciliations r";

/// Runs, newest first by their ids, before `before`.
///
/// # Errors
/// The database's.
pub async fn page(
    pool: &PgPool,
    before: Option<ReconciliationId>,
    limit: usize,
) -> Result<Page<ReconciliationRow, ReconciliationId>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(RUNS);
    if let Some(before) = before {
        query.push(" WHERE r.reconciliation_id < ").push_bind(before.0);
    }
    query.push(" ORDER BY r.reconciliation_id DESC LIMIT ").push_bind(page_rows(limit));
    let rows = query.build().fetch_all(pool).await?;
    let rows = rows.iter().map(run).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::new(rows, limit, |row| row.reconciliation_id))
}

/// One run, if there is such a one.
///
/// # Errors
/// The database's.
pub async fn find(
    executor: impl PgExecutor<'_>,
    id: ReconciliationId,
) -> Result<Option<ReconciliationRow>, sqlx::Error> {
    let statement = format!("{RUNS} WHERE r.reconciliation_id = $1");
    let row = sqlx::query(&statement).bind(id.0).fetch_optional(executor).await?;
    row.as_ref().map(run).transpose()
}

fn run(row: &PgRow) -> Result<ReconciliationRow, sqlx::Error> {
    Ok(ReconciliationRow {
        reconciliation_id: ReconciliationId(row.try_get(0)?),
        source: row.try_get(1)?,
        from: row.try_get::<Moment, _>(2)?.0,
        to: row.try_get::<Moment, _>(3)?.0,
        matched: row.try_get(4)?,
        found: row.try_get(5)?,
        outside: row.try_get(6)?,
        statement_hash: row.try_get(7)?,
        run_by: UserId(row.try_get(8)?),
        run_at: row.try_get::<Moment, _>(9)?.0,
        open: row.try_get(10)?,
    })
}

/// An exception as finance sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExceptionRow {
    /// The run that found it.
    pub reconciliation_id: ReconciliationId,
    /// Counted from 1 within the run.
    pub number: i64,
    /// `missing_here`, `missing_there`, `different` or `duplicate`.
    pub kind: String,
    /// What both sides call it.
    pub reference: String,
    /// What the books say.
    pub ours: Option<Side>,
    /// What they say.
    pub theirs: Option<Side>,
    /// Who is to find out about it.
    pub owner: Option<UserId>,
    /// Who said so.
    pub assigned_by: Option<UserId>,
    /// When.
    pub assigned_at: Option<Timestamp>,
    /// What became of it: a [`calos_domain::reconciliation::Resolution`] by its stored name.
    pub resolution: Option<String>,
    /// How that is known.
    pub note: Option<String>,
    /// Who resolved it.
    pub resolved_by: Option<UserId>,
    /// When.
    pub resolved_at: Option<Timestamp>,
}

/// The exceptions of a run after the number `after`, by their numbers; only those nobody has resolved, if so wanted.
///
/// # Errors
/// The database's.
pub async fn exceptions(
    pool: &PgPool,
    id: ReconciliationId,
    only_open: bool,
    after: i64,
    limit: usize,
) -> Result<Page<ExceptionRow>, sqlx::Error> {
    let open = if only_open { "AND resolution IS NULL" } else { "" };
    let statement = format!(
        "SELECT reconciliation_id, number, kind, reference, ours_amount, ours_fee, ours_at, theirs_amount, theirs_fee,
             theirs_at, owner, assigned_by, assigned_at, resolution, note, resolved_by, resolved_at
         FROM read.reconciliation_exceptions WHERE reconciliation_id = $1 AND number > $2 {open} ORDER BY number LIMIT $3"
    );
    let query = sqlx::query(&statement).bind(id.0).bind(after).bind(page_rows(limit));
    let rows = query.fetch_all(pool).await?;
    let rows = rows.iter().map(exception).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::new(rows, limit, |row| row.number))
}

fn exception(row: &PgRow) -> Result<ExceptionRow, sqlx::Error> {
    let user = |column: usize| Ok::<_, sqlx::Error>(row.try_get::<Option<Uuid>, _>(column)?.map(UserId));
    let at = |column: usize| Ok::<_, sqlx::Error>(row.try_get::<Option<Moment>, _>(column)?.map(|at| at.0));
    let side = |first: usize| {
        let (amount, fee): (Option<i64>, Option<i64>) = (row.try_get(first)?, row.try_get(first + 1)?);
        let parts = amount.zip(fee).zip(at(first + 2)?);
        Ok::<_, sqlx::Error>(parts.map(|((amount, fee), at)| Side {
            amount: MicroUsd::new(amount),
            fee: MicroUsd::new(fee),
            at,
        }))
    };
    Ok(ExceptionRow {
        reconciliation_id: ReconciliationId(row.try_get(0)?),
        number: row.try_get(1)?,
        kind: row.try_get(2)?,
        reference: row.try_get(3)?,
        ours: side(4)?,
        theirs: side(7)?,
        owner: user(10)?,
        assigned_by: user(11)?,
        assigned_at: at(12)?,
        resolution: row.try_get(13)?,
        note: row.try_get(14)?,
        resolved_by: user(15)?,
        resolved_at: at(16)?,
    })
}
