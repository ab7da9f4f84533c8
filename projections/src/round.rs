//! One round: claim what is behind, read it once, fold it, store rows and checkpoints in one transaction.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use calos_domain::{Record, Timestamp};

use crate::bisect::store_bisecting;
use crate::checkpoint::{self, Advance, Claim};
use crate::dead_letters::{self, DeadLetter, Parked};
use crate::faults::is_about_the_moment;
use crate::feed;
use crate::registry::{AnyProjection, Fold};
use crate::table::Schema;
use crate::windows::{self, Plan};

// Rows and checkpoints are lost together when the server loses power, and folded again from the log, so their commit
// need not wait for the disk. A round that hangs gives its locks back. Its statements take arrays and go by keys, whatever
// the values are: planning them anew each time costs more than carrying them out, and a plan made while a table was small
// must not read all of it once it has grown.
const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = '60s'; \
    SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// The most events a careful round keeps in memory to find the one that is refused.
const CAREFUL_MAX_EVENTS: i64 = 500;

/// What a round did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Where checkpoints stand now.
    pub(crate) moves: Vec<Advance>,
    /// Events left unread because the round was full.
    pub(crate) more: bool,
}

/// Why a round moved nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    /// The database, or the connection to it.
    #[error(transparent)]
    Database(sqlx::Error),
    /// Rows of one projection could not be stored.
    #[error("{projection}: {error}")]
    Store {
        /// Which.
        projection: &'static str,
        /// Why.
        error: sqlx::Error,
    },
    /// Another version went live meanwhile.
    #[error("another version went live meanwhile")]
    Superseded,
}

impl From<sqlx::Error> for RoundError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl RoundError {
    fn storing(projection: &'static str, error: sqlx::Error) -> Self {
        if is_about_the_moment(&error) { Self::Database(error) } else { Self::Store { projection, error } }
    }
}

/// A claimed partition while its events are taken.
struct Taking {
    projection: usize,
    version: i32,
    partition: i32,
    position: i64,
    recorded_at: Option<Timestamp>,
    halted: Option<String>,
}

/// A projection while a round folds into it.
struct Slot {
    projection: &'static dyn AnyProjection,
    version: i32,
    fold: Option<Box<dyn Fold>>,
    parked: Parked,
    letters: Vec<DeadLetter>,
}

impl Slot {
    fn take(&mut self, record: &Record<'_>) {
        if let Some(behind) = self.parked.behind(record) {
            self.letters.push(DeadLetter::parked(record, behind));
            return;
        }
        let fold = self.fold.get_or_insert_with(|| self.projection.fold());
        if let Err(error) = fold.project(record) {
            self.letters.push(DeadLetter::failed(record, &error));
            self.parked.park(record);
        }
    }
}

/// How far each stretch has been read.
struct Reading {
    plans: Vec<Plan>,
    at: Vec<i64>,
    taking: Vec<Taking>,
}

impl Reading {
    fn new(claims: &[Claim], budget: i64) -> Self {
        let plans = windows::plan(claims, budget);
        let at = plans.iter().map(|plan| plan.window.after).collect();
        let taking = claims
            .iter()
            .map(|claim| Taking {
                projection: claim.projection,
                version: claim.version,
                partition: claim.partition,
                position: claim.position,
                recorded_at: None,
                halted: None,
            })
            .collect();
        Self { plans, at, taking }
    }

    /// Takes note of the next record of a stretch, and says for which projections it is new. A gap halts them.
    fn meet<'a>(&'a mut self, window: usize, record: &'a Record<'_>) -> impl Iterator<Item = usize> + 'a {
        let expected = self.at[window] + 1;
        if record.position != expected {
            let text = format!("the log has a gap: position {expected} is missing, {} follows", record.position);
            self.halt(window, &text);
        } else {
            self.at[window] = expected;
        }
        let taking = &mut self.taking;
        self.plans[window].claims.iter().filter_map(move |index| {
            let taking = &mut taking[*index];
            let new = taking.halted.is_none() && taking.position + 1 == record.position;
            new.then(|| {
                taking.position = record.position;
                taking.recorded_at = Some(record.recorded_at);
                taking.projection
            })
        })
    }

    /// Halts the claims of every stretch that ended before it was full although the head is further on.
    fn end(&mut self) {
        for window in 0..self.plans.len() {
            let Plan { window: wanted, head, .. } = self.plans[window];
            let through = wanted.after.saturating_add(wanted.limit).min(head);
            if self.at[window] < through {
                let text = format!("the log has a gap: the head is at {head}, nothing follows {}", self.at[window]);
                self.halt(window, &text);
            }
        }
    }

    fn halt(&mut self, window: usize, text: &str) {
        for index in &self.plans[window].claims {
            self.taking[*index].halted.get_or_insert_with(|| text.to_owned());
        }
    }

    /// Checkpoints that moved or halted.
    fn moves(self, claims: &[Claim], projections: &[&'static dyn AnyProjection]) -> Outcome {
        let more = self.plans.iter().zip(&self.at).any(|(plan, at)| *at < plan.head);
        let moved = self.taking.into_iter().zip(claims).filter_map(|(taking, claim)| {
            (taking.position > claim.position || taking.halted.is_some()).then(|| Advance {
                projection: projections[taking.projection].name(),
                version: taking.version,
                partition: taking.partition,
                from: claim.position,
                position: taking.position,
                recorded_at: taking.recorded_at,
                halted: taking.halted,
            })
        });
        let moves: Vec<Advance> = moved.collect();
        // A halted stretch is behind for good: it must not keep the rounds spinning.
        let more = more && moves.iter().any(|to| to.halted.is_none());
        Outcome { moves, more }
    }
}

/// What a round has taken and stored, before it is committed.
struct Taken {
    outcome: Outcome,
    /// By projection and version.
    set_aside: Vec<(&'static str, i32, Vec<DeadLetter>)>,
}

impl Taken {
    fn new(outcome: Outcome, slots: Vec<Slot>) -> Self {
        let letters = |slot: Slot| (slot.projection.name(), slot.version, slot.letters);
        Self { outcome, set_aside: slots.into_iter().map(letters).collect() }
    }
}

/// Takes what the projections are behind in, all of them in one transaction, each event read once.
pub(crate) async fn together(
    pool: &PgPool,
    projections: &[&'static dyn AnyProjection],
    budget: i64,
) -> Result<Outcome, RoundError> {
    let mut transaction = pool.begin_with(BEGIN).await?;
    let taken = take_together(&mut transaction, projections, budget).await;
    finish(transaction, taken).await
}

/// Takes what one projection is behind in, keeping the events so that one the database refuses can be found and set
/// aside.
pub(crate) async fn carefully(
    pool: &PgPool,
    projection: &'static dyn AnyProjection,
    budget: i64,
) -> Result<Outcome, RoundError> {
    let mut transaction = pool.begin_with(BEGIN).await?;
    let taken = take_carefully(&mut transaction, projection, budget.min(CAREFUL_MAX_EVENTS)).await;
    finish(transaction, taken).await
}

/// Folds while reading, so that memory is bounded by the changes and not by the events. None when nothing is claimed.
async fn take_together(
    connection: &mut PgConnection,
    projections: &[&'static dyn AnyProjection],
    budget: i64,
) -> Result<Option<Taken>, RoundError> {
    let claims = checkpoint::claim(connection, projections).await?;
    if claims.is_empty() {
        return Ok(None);
    }
    let mut slots = slots(connection, projections, &claims).await?;
    let mut reading = Reading::new(&claims, budget);
    let wanted: Vec<_> = reading.plans.iter().map(|plan| plan.window).collect();
    {
        let mut rows = feed::read(connection, &wanted);
        while let Some(row) = rows.try_next().await? {
            let window = feed::window_of(&row)?;
            let record = feed::record(&row)?;
            for projection in reading.meet(window, &record) {
                slots[projection].take(&record);
            }
        }
    }
    reading.end();
    for slot in &mut slots {
        if let Some(fold) = slot.fold.take() {
            let stored = fold.store(Schema::Live, connection).await;
            stored.map_err(|error| RoundError::storing(slot.projection.name(), error))?;
        }
    }
    Ok(Some(Taken::new(reading.moves(&claims, projections), slots)))
}

async fn take_carefully(
    connection: &mut PgConnection,
    projection: &'static dyn AnyProjection,
    budget: i64,
) -> Result<Option<Taken>, RoundError> {
    let projections = [projection];
    let claims = checkpoint::claim(connection, &projections).await?;
    if claims.is_empty() {
        return Ok(None);
    }
    let mut slots = slots(connection, &projections, &claims).await?;
    let mut reading = Reading::new(&claims, budget);
    let wanted: Vec<_> = reading.plans.iter().map(|plan| plan.window).collect();
    let rows: Vec<PgRow> = feed::read(connection, &wanted).try_collect().await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        let record = feed::record(row)?;
        if reading.meet(feed::window_of(row)?, &record).next().is_some() {
            records.push(record);
        }
    }
    reading.end();
    for slot in &mut slots {
        let mut letters = BTreeMap::new();
        store_bisecting(connection, projection, &records, &mut slot.parked, &mut letters)
            .await
            .map_err(|error| RoundError::storing(projection.name(), error))?;
        slot.letters = letters.into_values().collect();
    }
    Ok(Some(Taken::new(reading.moves(&claims, &projections), slots)))
}

async fn slots(
    connection: &mut PgConnection,
    projections: &[&'static dyn AnyProjection],
    claims: &[Claim],
) -> Result<Vec<Slot>, sqlx::Error> {
    let parked = dead_letters::parked(connection, projections).await?;
    let slot = |(index, (projection, parked)): (usize, (&&'static dyn AnyProjection, Parked))| Slot {
        projection: *projection,
        version: claims.iter().find(|claim| claim.projection == index).map_or(0, |claim| claim.version),
        fold: None,
        parked,
        letters: Vec::new(),
    };
    Ok(projections.iter().zip(parked).enumerate().map(slot).collect())
}

/// Commits what was taken together with its checkpoints, or gives everything back before it answers: a later round
/// would find checkpoints locked that a rollback has not reached yet.
async fn finish(
    mut transaction: Transaction<'_, Postgres>,
    taken: Result<Option<Taken>, RoundError>,
) -> Result<Outcome, RoundError> {
    let moved = match taken {
        Ok(Some(taken)) => settle(&mut transaction, &taken).await.map(|()| Some(taken)),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    match moved {
        Ok(Some(taken)) => {
            transaction.commit().await?;
            report(&taken);
            Ok(taken.outcome)
        }
        Ok(None) => {
            transaction.rollback().await?;
            Ok(Outcome::default())
        }
        Err(error) => {
            // What went wrong first is what is told; a lost connection rolls back by itself.
            if let Err(rollback) = transaction.rollback().await {
                tracing::debug!(error = %rollback, "a round could not be rolled back in order");
            }
            Err(error)
        }
    }
}

async fn settle(connection: &mut PgConnection, taken: &Taken) -> Result<(), RoundError> {
    for (projection, version, letters) in &taken.set_aside {
        dead_letters::keep(connection, projection, *version, letters).await?;
    }
    if checkpoint::advance(connection, &taken.outcome.moves).await? { Ok(()) } else { Err(RoundError::Superseded) }
}

fn report(taken: &Taken) {
    for (projection, _, letters) in &taken.set_aside {
        dead_letters::report(projection, letters);
    }
    for to in &taken.outcome.moves {
        if let Some(reason) = &to.halted {
            tracing::error!(
                projection = to.projection,
                partition = to.partition,
                position = to.position,
                reason,
                "a projection halted: it takes nothing more from this partition until an operator looks"
            );
        }
    }
}
