//! Sums and entries as of one moment: two read models that move on their own, brought to the same place.

use std::time::Duration;

use sqlx::{PgPool, Postgres, QueryBuilder, Row, Transaction};
use tokio::time::{Instant, sleep};

use calos_domain::Timestamp;

use crate::journal::Journal;
use crate::moment::Moment;
use crate::projection::Projection as _;

/// How long a reader waits for a journal that is behind the sums. Their rounds are the same ones as a rule, so this is the
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
    /// The journal is behind the sums, and stays so: it is being built anew, or has halted.
    #[error("the journal is behind {sums}: partition {partition} stands at {journal} instead of {wanted}")]
    Behind {
        /// Which sums.
        sums: &'static str,
        /// The partition.
        partition: i32,
        /// Where the journal stands.
        journal: i64,
        /// Where the sums stand.
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

/// Both read models, seen at one moment.
pub(super) struct Snapshot<'c> {
    pub(super) transaction: Transaction<'c, Postgres>,
    /// How far the sums are, by partition, where the journal is further in any of them.
    taken: Option<Vec<i64>>,
}

impl<'c> Snapshot<'c> {
    /// Looks at the journal and at one of the read models of sums.
    ///
    /// # Errors
    /// [`AsOfError::Behind`] when the journal stays behind, or the database's.
    pub(super) async fn open(pool: &'c PgPool, sums: &'static str) -> Result<Self, AsOfError> {
        let deadline = Instant::now() + WAIT_MAX;
        // The tables are locked before the snapshot is taken, so that no other version takes their place in between. The
        // statements are few and their bounds say which rows they mean: a plan of their own is worth its while. Workers are
        // not: to start them takes longer than to read what they would share.
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL plan_cache_mode = force_custom_plan; \
             SET LOCAL max_parallel_workers_per_gather = 0; \
             LOCK TABLE read.{}, read.{sums} IN ACCESS SHARE MODE",
            Journal::NAME
        );
        loop {
            let mut transaction = pool.begin_with(begin.clone()).await?;
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
            .fetch_all(&mut *transaction)
            .await?;
            let (mut taken, mut ahead, mut behind) = (Vec::with_capacity(rows.len()), false, None);
            for row in &rows {
                let (partition, wanted, journal): (i32, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                taken.push(wanted);
                ahead |= journal > wanted;
                if journal < wanted {
                    behind = Some(AsOfError::Behind { sums, partition, journal, wanted });
                }
            }
            match behind {
                None => return Ok(Self { transaction, taken: ahead.then_some(taken) }),
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
