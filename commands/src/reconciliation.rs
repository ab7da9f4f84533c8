//! Reconciliation: the books against what whoever keeps an account says, and what becomes of the exceptions.

use std::fmt::Write;

use async_trait::async_trait;

use calos_domain::reconciliation::{
    Matched, Movement, Reconciliation, ReconciliationCommand, ReconciliationRefusal, ReconciliationRun, Resolution,
    Side, match_up,
};
use calos_domain::{MicroUsd, ReconciliationId, StreamId, Timestamp, UserId};

use crate::accounts::looking;
use crate::books::{Books, BooksError};
use crate::fault::{Fault, Never};
use crate::log::{Done, EventLog, Plan, Request, Unit};
use crate::periods::sha256_hex;

#[cfg(test)]
mod tests;

/// The most movements of either side that one run compares.
pub const MOVEMENTS_MAX_COUNT: usize = 50_000;

/// One movement on an account, as whoever keeps it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BalanceTransaction {
    /// Their id of the movement.
    pub id: String,
    /// What moved: a charge, refund, dispute or payout; the movement's own id where it is of nothing else.
    pub source_ref: String,
    /// Before the fee; below zero what went out.
    pub amount: MicroUsd,
    /// What was kept of it.
    pub fee: MicroUsd,
    /// What reached the balance.
    pub net: MicroUsd,
    /// What they call such a movement: `charge`, `refund`, `adjustment`, `payout`, ….
    pub kind: String,
    /// When.
    pub created_at: Timestamp,
}

/// Why their side cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceError {
    /// Something in it is not what it should be.
    #[error("{place}: {problem}")]
    Unreadable {
        /// Where: `transaction txn_1`, `byte 17`.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// It says itself that there is more.
    #[error("the statement ends before its last page; hand in every page")]
    Incomplete,
    /// It cannot be asked.
    #[error("{0}")]
    Unavailable(String),
}

/// Their side: every movement on the account, page by page.
#[async_trait]
pub trait BalanceTransactions: Send {
    /// Who keeps the account: `stripe`.
    fn source(&self) -> &'static str;

    /// The next movements, in any order; none once all were given.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn next_page(&mut self) -> Result<Option<Vec<BalanceTransaction>>, SourceError>;
}

/// Why both sides were not compared, or an exception not dealt with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReconcileRefusal {
    /// The reconciliation's own rules.
    #[error(transparent)]
    Reconciliation(#[from] ReconciliationRefusal),
    /// The books could not answer just now, or not for that long a span.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// Their side cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Their side is too long.
    #[error("the statement holds more than {limit} movements; hand in a shorter one")]
    TooLong {
        /// The bound.
        limit: usize,
    },
}

/// The stream of a run.
#[must_use]
pub fn reconciliation_stream(id: ReconciliationId) -> StreamId {
    StreamId::under("reconciliation", id)
}

/// Which span is compared, under which id, and for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// The run's id.
    pub id: ReconciliationId,
    /// From when.
    pub from: Timestamp,
    /// Up to when, that moment left out; not a moment to come.
    pub to: Timestamp,
    /// Who compares.
    pub by: UserId,
    /// Now.
    pub at: Timestamp,
}

/// Compares the books with what whoever keeps the account says moved in a span, and records what was found. Movements of
/// theirs outside the span are counted and not compared.
///
/// # Errors
/// [`ReconcileRefusal`]; the log's.
pub async fn run<L: EventLog>(
    log: &L,
    books: &dyn Books,
    theirs: &mut dyn BalanceTransactions,
    comparison: Comparison,
    request: Request,
) -> Result<Done<ReconciliationRun>, Fault<ReconcileRefusal>> {
    let Comparison { id, from, to, by, at } = comparison;
    if from >= to || to > at {
        let refusal = ReconciliationRefusal::ImpossibleSpan { from, to, at };
        return Err(Fault::Refused(refusal.into()));
    }
    let source = theirs.source();
    let said = all_of(theirs).await?;
    let ours = books.stripe_movements(from, to, MOVEMENTS_MAX_COUNT).await.map_err(BooksError::fault)?;
    let statement_hash = statement_hash(&said);
    let within = |said: &&BalanceTransaction| said.created_at >= from && said.created_at < to;
    let compared: Vec<Movement> = said.iter().filter(within).map(movement).collect();
    let outside = u64::try_from(said.len() - compared.len()).unwrap_or(u64::MAX);
    let Matched { matched, found, exceptions } = match_up(&ours, &compared);
    let run = ReconciliationRun {
        reconciliation_id: id,
        source: source.to_owned(),
        from,
        to,
        matched,
        found,
        exceptions,
        outside,
        statement_hash,
        run_by: by,
        run_at: at,
    };
    let mut plan = Plan::default();
    let reconciliation = plan.stream::<Reconciliation>(reconciliation_stream(id));
    let decide = |unit: &mut Unit<'_>| -> Result<ReconciliationRun, ReconcileRefusal> {
        unit.decide(reconciliation, ReconciliationCommand::Record(run.clone()))?;
        Ok(run.clone())
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// Has somebody find out about an exception. Answers what the run is now.
///
/// # Errors
/// [`ReconcileRefusal::Reconciliation`]; the log's.
pub async fn assign<L: EventLog>(
    log: &L,
    (id, number): (ReconciliationId, u32),
    owner: UserId,
    by: UserId,
    at: Timestamp,
    request: Request,
) -> Result<Done<Reconciliation>, Fault<ReconcileRefusal>> {
    decide(log, id, ReconciliationCommand::Assign { number, owner, by, at }, request).await
}

/// Records what became of an exception, once. Answers what the run is now.
///
/// # Errors
/// [`ReconcileRefusal::Reconciliation`]; the log's.
pub async fn resolve<L: EventLog>(
    log: &L,
    (id, number): (ReconciliationId, u32),
    (resolution, note): (Resolution, &str),
    by: UserId,
    at: Timestamp,
    request: Request,
) -> Result<Done<Reconciliation>, Fault<ReconcileRefusal>> {
    let note = note.to_owned();
    decide(log, id, ReconciliationCommand::Resolve { number, resolution, note, by, at }, request).await
}

/// What a run is now, decided on itself and no read model; none where nothing was compared under the id.
///
/// # Errors
/// The log's.
pub async fn look<L: EventLog>(log: &L, id: ReconciliationId) -> Result<Option<Reconciliation>, Fault<Never>> {
    let mut plan = Plan::default();
    let reconciliation = plan.stream::<Reconciliation>(reconciliation_stream(id));
    let found = log.execute(&plan, looking().into(), |unit| Ok::<_, Never>(unit.read(reconciliation))).await?.answer;
    Ok(found.run().is_some().then_some(found))
}

async fn decide<L: EventLog>(
    log: &L,
    id: ReconciliationId,
    command: ReconciliationCommand,
    request: Request,
) -> Result<Done<Reconciliation>, Fault<ReconcileRefusal>> {
    let mut plan = Plan::default();
    let reconciliation = plan.stream::<Reconciliation>(reconciliation_stream(id));
    let decide = |unit: &mut Unit<'_>| -> Result<Reconciliation, ReconcileRefusal> {
        unit.decide(reconciliation, command.clone())?;
        Ok(unit.read(reconciliation))
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// Everything they say, ordered by its id, so that the order of the pages does not matter.
async fn all_of(theirs: &mut dyn BalanceTransactions) -> Result<Vec<BalanceTransaction>, Fault<ReconcileRefusal>> {
    let mut said = Vec::new();
    while let Some(page) = theirs.next_page().await.map_err(|error| Fault::Refused(error.into()))? {
        if said.len() + page.len() > MOVEMENTS_MAX_COUNT {
            return Err(Fault::Refused(ReconcileRefusal::TooLong { limit: MOVEMENTS_MAX_COUNT }));
        }
        said.extend(page);
    }
    said.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(said)
}

fn movement(said: &BalanceTransaction) -> Movement {
    let side = Side { amount: said.amount, fee: said.fee, at: said.created_at };
    Movement { id: said.id.clone(), reference: said.source_ref.clone(), side }
}

/// SHA-256 of one line per movement, by id: `id`, `source_ref`, `kind`, `amount`, `fee`, `net` and `created_at` in
/// micro-dollars and microseconds, separated by tabs.
fn statement_hash(said: &[BalanceTransaction]) -> String {
    let mut text = String::with_capacity(said.len() * 96);
    for BalanceTransaction { id, source_ref, amount, fee, net, kind, created_at } in said {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{id}\t{source_ref}\t{kind}\t{amount}\t{fee}\t{net}\t{}", created_at.micros());
    }
    sha256_hex(&text)
}
