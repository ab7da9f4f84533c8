//! Sums and entries as of one moment: read models that move on their own, brought to the same place.

use std::cmp::Ordering;
use std::time::Duration;

use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder, Row, Transaction};
use tokio::time::{Instant, sleep};

use calos_domain::{TenantId, Timestamp};

use crate::journal::Journal;
use crate::kind::Kind;
use crate::moment::Moment;
use crate::projection::Projection as _;

/// How long a reader waits for read models that stand apart. Their rounds are the same ones as a rule, so this is the
/// exception: after a rebuild of one of them, or a failure.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// How often it looks meanwhile.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AsOfError {
    /// The database, or a row that cannot be read.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A read model is behind another one that it is read with, and stays so: it is being built anew, or has halted.
    #[error("{model} is behind {other}: partition {partition} stands at {at} instead of {wanted}")]
    Behind {
        /// Which: the journal as a rule.
        model: &'static str,
        /// Behind which: the sums as a rule.
        other: &'static str,
        /// The partition.
        partition: i32,
        /// Where it stands.
        at: i64,
        /// Where the other one stands.
        wanted: i64,
    },
    /// A sum leaves the range of a 64-bit integer.
    #[error("a sum leaves the range of a 64-bit integer")]
    OutOfRange,
}

impl AsOfError {
    /// A row that says what none of ours does: written by another program, or damaged.
    pub(super) fn damaged(what: &'static str) -> Self {
        Self::Database(sqlx::Error::Decode(what.into()))
    }
}

/// Read models beside the sums, of which one tenant's rows are read too.
#[derive(Clone, Copy)]
pub(super) struct Beside {
    /// Which.
    pub(super) models: &'static [&'static str],
    /// In whose partition they have to stand where the sums stand.
    pub(super) tenant: TenantId,
}

/// The read models, seen at one moment.
pub(super) struct Snapshot<'c> {
    pub(super) transaction: Transaction<'c, Postgres>,
    /// How far the sums are, by partition, where the journal is further in any of them.
    taken: Option<Vec<i64>>,
}

impl<'c> Snapshot<'c> {
    /// Looks at the journal and at one of the read models of sums, and at others if so wanted.
    ///
    /// # Errors
    /// [`AsOfError::Behind`] when the journal stays behind, or the others stay elsewhere than the sums; the database's.
    pub(super) async fn open(pool: &'c PgPool, sums: &'static str, beside: Option<Beside>) -> Result<Self, AsOfError> {
        let deadline = Instant::now() + WAIT_MAX;
        // The tables are locked before the snapshot is taken, so that no other version takes their place in between. The
        // statements are few and their bounds say which rows they mean: a plan of their own is worth its while. Workers are
        // not: to start them takes longer than to read what they would share.
        let others = beside.map_or(&[][..], |beside| beside.models);
        let tables: Vec<String> =
            [Journal::NAME, sums].iter().chain(others).map(|name| format!("read.{name}")).collect();
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL plan_cache_mode = force_custom_plan; \
             SET LOCAL max_parallel_workers_per_gather = 0; LOCK TABLE {} IN ACCESS SHARE MODE",
            tables.join(", ")
        );
        loop {
            let mut transaction = pool.begin_with(begin.clone()).await?;
            let (taken, mut behind) = taken(&mut transaction, sums).await?;
            if let Some(beside) = beside.filter(|_| behind.is_none()) {
                behind = apart(&mut transaction, sums, beside).await?;
            }
            match behind {
                None => return Ok(Self { transaction, taken }),
                Some(error) if Instant::now() >= deadline => return Err(error),
                Some(_) => {
                    transaction.rollback().await?;
                    sleep(WAIT_INTERVAL).await;
                }
            }
        }
    }

    /// Leaves out entries that the sums have not taken yet.
    pub(super) fn only_taken(&self, query: &mut QueryBuilder<'_, Postgres>) {
        if let Some(taken) = &self.taken {
            query.push(" AND position <= (").push_bind(taken.clone()).push(")[partition + 1]");
        }
    }

    /// Gives the tables back.
    pub(super) async fn close(self) -> Result<(), AsOfError> {
        Ok(self.transaction.rollback().await?)
    }
}

/// How far the sums are, by partition, where the journal is further in any of them; and what there is to wait for where it
/// is not as far.
async fn taken(
    connection: &mut PgConnection,
    sums: &'static str,
) -> Result<(Option<Vec<i64>>, Option<AsOfError>), AsOfError> {
    let rows = sqlx::query(
        "SELECT s.partition, s.position, coalesce(j.position, 0)
         FROM projections p
         JOIN checkpoints s ON s.projection = p.name AND s.version = p.live_version
         LEFT JOIN (checkpoints j JOIN projections q ON q.name = j.projection AND q.live_version = j.version
             AND q.name = $2) ON j.partition = s.partition
         WHERE p.name = $1 ORDER BY s.partition",
    )
    .bind(sums)
    .bind(Journal::NAME)
    .fetch_all(connection)
    .await?;
    let (mut taken, mut ahead, mut behind) = (Vec::with_capacity(rows.len()), false, None);
    for row in &rows {
        let (partition, wanted, at): (i32, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        taken.push(wanted);
        ahead |= at > wanted;
        if at < wanted {
            behind = Some(AsOfError::Behind { model: Journal::NAME, other: sums, partition, at, wanted });
        }
    }
    Ok((ahead.then_some(taken), behind))
}

/// What there is to wait for where one of the others stands elsewhere than the sums in the tenant's partition.
async fn apart(
    connection: &mut PgConnection,
    sums: &'static str,
    beside: Beside,
) -> Result<Option<AsOfError>, AsOfError> {
    // Which partition that is the log knows; of a wallet that has no event yet, nothing is anywhere.
    let rows = sqlx::query(
        "SELECT s.partition, s.position, o.name, coalesce(c.position, 0)
         FROM checkpoints s
         JOIN projections p ON p.name = s.projection AND p.live_version = s.version AND p.name = $1
         CROSS JOIN unnest($2::text[]) AS o (name)
         LEFT JOIN (checkpoints c JOIN projections q ON q.name = c.projection AND q.live_version = c.version)
             ON c.projection = o.name AND c.partition = s.partition
         WHERE s.partition = (SELECT partition FROM events
             WHERE aggregate_type = $3 AND aggregate_id = $4 AND sequence = 1)",
    )
    .bind(sums)
    .bind(beside.models)
    .bind(Kind::Wallet.as_str())
    .bind(beside.tenant.to_string())
    .fetch_all(connection)
    .await?;
    for row in &rows {
        let (partition, own, name, theirs): (i32, i64, &str, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let other = beside.models.iter().copied().find(|known| *known == name).unwrap_or_default();
        match theirs.cmp(&own) {
            Ordering::Equal => {}
            Ordering::Less => {
                let behind = AsOfError::Behind { model: other, other: sums, partition, at: theirs, wanted: own };
                return Ok(Some(behind));
            }
            Ordering::Greater => {
                let behind = AsOfError::Behind { model: sums, other, partition, at: own, wanted: theirs };
                return Ok(Some(behind));
            }
        }
    }
    Ok(None)
}

/// A bound that is meant inclusively, as one that is not: nothing lies between two microseconds.
pub(super) fn until(at: Option<Timestamp>) -> Option<Timestamp> {
    at.map(|at| Timestamp::from_micros(at.micros().saturating_add(1)))
}

/// Adds `column < bound`, if there is a bound.
pub(super) fn before(query: &mut QueryBuilder<'_, Postgres>, column: &str, bound: Option<Timestamp>) {
    if let Some(bound) = bound {
        query.push(format!(" AND {column} < ")).push_bind(Moment(bound));
    }
}
