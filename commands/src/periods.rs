//! Closing a month: its trial balance is fixed, hashed and chained to the month before.
//!
//! The log is fenced first, so that nothing recorded up to that moment can still appear; then the books are waited for;
//! only then are the figures read, of everything effective within the month or before, as known at the fence. Whoever
//! asks for them again later gets the same ones.

use sha2::{Digest, Sha256};

use calos_domain::period::{
    Month, PERIODS_STREAM, PeriodClosed, PeriodCommand, PeriodRefusal, Periods, Trial, canonical_text,
};
use calos_domain::{StreamId, Timestamp, UserId};

use crate::accounts::looking;
use crate::books::{Books, BooksError};
use crate::fault::{Fault, Never};
use crate::log::{Done, EventLog, Plan, Request, Unit};

#[cfg(test)]
mod tests;

/// Why a month was not closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseRefusal {
    /// The rules about months.
    #[error(transparent)]
    Period(#[from] PeriodRefusal),
    /// The books had not taken everything in time: try again in a moment.
    #[error(transparent)]
    Books(#[from] BooksError),
}

/// What a month was closed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closing {
    /// Which.
    pub month: Month,
    /// The figures and their hash.
    pub trial: Trial,
    /// The hash of the month before; none for the first.
    pub previous_hash: Option<String>,
}

/// Closes a month.
///
/// # Errors
/// [`CloseRefusal`]; the log's.
pub async fn close<L: EventLog>(
    log: &L,
    books: &dyn Books,
    month: Month,
    by: UserId,
    at: Timestamp,
    request: Request,
) -> Result<Done<Closing>, Fault<CloseRefusal>> {
    let mut plan = Plan::default();
    let periods = plan.stream::<Periods>(periods_stream());
    // Whoever asks for the wrong month is told before the log is fenced and the books are read.
    let may_close = |unit: &mut Unit<'_>| -> Result<(), CloseRefusal> {
        Ok(unit.with(periods, |periods| periods.may_close(month, at))?)
    };
    log.execute(&plan, looking().into(), may_close).await?;

    let heads = books.fence(at).await?;
    books.wait_for(&heads).await.map_err(BooksError::fault)?;
    let open_dead_letters = books.open_dead_letters().await.map_err(BooksError::fault)?;
    let mut lines = books.trial_balance(month.last_moment(), at).await.map_err(BooksError::fault)?;
    lines
        .sort_unstable_by(|one, other| (&one.account, one.asset.as_str()).cmp(&(&other.account, other.asset.as_str())));

    let decide = |unit: &mut Unit<'_>| -> Result<Closing, CloseRefusal> {
        let previous_hash = unit.with(periods, |periods| periods.last().map(|last| last.hash.clone()));
        let hash = sha256_hex(&canonical_text(month, at, previous_hash.as_deref(), &heads, &lines));
        let (heads, lines) = (heads.clone(), lines.clone());
        let trial = Trial { as_known_at: at, heads, lines, open_dead_letters, hash };
        unit.decide(periods, PeriodCommand::Close { month, trial: trial.clone(), by, at })?;
        Ok(Closing { month, trial, previous_hash })
    };
    Ok(log.execute(&plan, request, decide).await?)
}

/// The months closed so far, decided on themselves and no read model.
///
/// # Errors
/// The log's.
pub async fn closed<L: EventLog>(log: &L) -> Result<Periods, Fault<Never>> {
    let mut plan = Plan::default();
    let periods = plan.stream::<Periods>(periods_stream());
    Ok(log.execute(&plan, looking().into(), |unit| Ok::<_, Never>(unit.read(periods))).await?.answer)
}

/// The stream of closed months.
#[must_use]
pub fn periods_stream() -> StreamId {
    StreamId::key(PERIODS_STREAM)
}

/// The hash a closed month must carry: of its own figures, and the hash of the month before.
#[must_use]
pub fn hash_of(closed: &PeriodClosed) -> String {
    let PeriodClosed { month, as_known_at, heads, lines, previous_hash, .. } = closed;
    sha256_hex(&canonical_text(*month, *as_known_at, previous_hash.as_deref(), heads, lines))
}

/// SHA-256 of a text, in lower-case hex.
pub(crate) fn sha256_hex(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}
