//! Which events a command on a reconciliation leads to, or why it is refused.

use crate::text::{BadText, check_text};
use crate::{ReconciliationId, Timestamp, UserId};

use super::{
    ExceptionAssigned, ExceptionResolved, ExceptionState, Reconciliation, ReconciliationEvent, ReconciliationRun,
    Resolution,
};

/// The most exceptions one run keeps; those beyond are counted. Whoever meets more has another problem to solve first.
pub const EXCEPTIONS_MAX_COUNT: usize = 1_000;

/// The longest note, in bytes.
pub const NOTE_MAX_BYTES: usize = 1_000;

/// The longest reference, in bytes.
pub const REFERENCE_MAX_BYTES: usize = 200;

/// The longest name of a source, in bytes.
pub const SOURCE_MAX_BYTES: usize = 50;

/// What can be asked of a reconciliation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReconciliationCommand {
    /// Record what a comparison found. The same one twice is recorded once.
    Record(ReconciliationRun),
    /// Have somebody find out about an exception.
    Assign {
        /// Which.
        number: u32,
        /// Who is to.
        owner: UserId,
        /// Who says so.
        by: UserId,
        /// Now.
        at: Timestamp,
    },
    /// Record what became of an exception, once.
    Resolve {
        /// Which.
        number: u32,
        /// What.
        resolution: Resolution,
        /// How that is known, 1 to 1,000 bytes.
        note: String,
        /// Who resolves it.
        by: UserId,
        /// Now.
        at: Timestamp,
    },
}

/// Why a command on a reconciliation is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReconciliationRefusal {
    /// Nothing was compared under this id.
    #[error("there is no such reconciliation")]
    NotRun,
    /// The id already stands for another run.
    #[error("the reconciliation {0} was run before")]
    IdReused(ReconciliationId),
    /// The span ends before it begins, or has not ended.
    #[error("a reconciliation is of a span that is over: {from:?} to {to:?} at {at:?} is none")]
    ImpossibleSpan {
        /// From when.
        from: Timestamp,
        /// Up to when.
        to: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// A text is missing or too long.
    #[error("{field} must have 1 to {limit} bytes, it has {bytes}")]
    BadText {
        /// Which.
        field: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Exceptions that are not numbered from 1, more than are kept, or more than were found.
    #[error("{kept} exceptions of {found} cannot be kept: at most {EXCEPTIONS_MAX_COUNT}, numbered from 1")]
    BadExceptions {
        /// How many there are.
        kept: usize,
        /// How many were found.
        found: u64,
    },
    /// No exception has this number.
    #[error("there is no exception {number}; the run has {exceptions}")]
    NoSuchException {
        /// Which was asked for.
        number: u32,
        /// How many there are.
        exceptions: usize,
    },
    /// The exception was resolved before.
    #[error("the exception {number} was resolved as {} at {at:?}", resolution.as_str())]
    ResolvedBefore {
        /// Which.
        number: u32,
        /// As what.
        resolution: Resolution,
        /// When.
        at: Timestamp,
    },
}

pub(super) fn decide(
    reconciliation: &Reconciliation,
    command: ReconciliationCommand,
) -> Result<Vec<ReconciliationEvent>, ReconciliationRefusal> {
    match command {
        ReconciliationCommand::Record(run) => reconciliation.record(run),
        ReconciliationCommand::Assign { number, owner, by, at } => {
            let known = reconciliation.unresolved(number)?;
            if known.owner == Some(owner) {
                return Ok(Vec::new());
            }
            let assigned = ExceptionAssigned { number, owner, by, at };
            Ok(vec![ReconciliationEvent::ExceptionAssigned(assigned)])
        }
        ReconciliationCommand::Resolve { number, resolution, note, by, at } => {
            reconciliation.unresolved(number)?;
            check_text("the note", &note, NOTE_MAX_BYTES)?;
            let resolved = ExceptionResolved { number, resolution, note, by, at };
            Ok(vec![ReconciliationEvent::ExceptionResolved(resolved)])
        }
    }
}

impl Reconciliation {
    fn record(&self, run: ReconciliationRun) -> Result<Vec<ReconciliationEvent>, ReconciliationRefusal> {
        if let Some(known) = &self.run {
            // Run again a moment later the comparison is another one, as the books have gone on; the same id is not.
            let repeated = ReconciliationRun { run_at: known.run_at, ..run };
            let same = *known == repeated;
            return if same { Ok(Vec::new()) } else { Err(ReconciliationRefusal::IdReused(known.reconciliation_id)) };
        }
        if run.from >= run.to || run.to > run.run_at {
            return Err(ReconciliationRefusal::ImpossibleSpan { from: run.from, to: run.to, at: run.run_at });
        }
        check_text("the source", &run.source, SOURCE_MAX_BYTES)?;
        let kept = run.exceptions.len();
        let numbered = (1..).zip(&run.exceptions).all(|(number, found)| found.number == number);
        let counted = u64::try_from(kept).is_ok_and(|kept| kept <= run.found);
        if !numbered || !counted || kept > EXCEPTIONS_MAX_COUNT {
            return Err(ReconciliationRefusal::BadExceptions { kept, found: run.found });
        }
        for exception in &run.exceptions {
            check_text("the reference", &exception.reference, REFERENCE_MAX_BYTES)?;
        }
        Ok(vec![ReconciliationEvent::ReconciliationRun(run)])
    }

    fn unresolved(&self, number: u32) -> Result<ExceptionState, ReconciliationRefusal> {
        if self.run.is_none() {
            return Err(ReconciliationRefusal::NotRun);
        }
        let exceptions = self.exceptions.len();
        let known = self.exceptions.get(&number);
        let known = known.ok_or(ReconciliationRefusal::NoSuchException { number, exceptions })?;
        match known.resolved {
            Some((resolution, at)) => Err(ReconciliationRefusal::ResolvedBefore { number, resolution, at }),
            None => Ok(*known),
        }
    }
}

impl From<BadText> for ReconciliationRefusal {
    fn from(BadText { field, bytes, limit }: BadText) -> Self {
        Self::BadText { field, bytes, limit }
    }
}
