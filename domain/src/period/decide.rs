//! Whether a month may be closed, and with which figures.

use crate::operation::PartitionPosition;
use crate::{Asset, Timestamp, UserId};

use super::{ClosedLine, Month, PeriodClosed, PeriodEvent, Periods};

/// The most lines a trial balance may have: accounts are kinds, meters and providers, not tenants.
pub const LINES_MAX_COUNT: usize = 2_000;

/// The longest name of an account, in bytes.
pub const ACCOUNT_MAX_BYTES: usize = 300;

/// The most partitions a log can have.
const PARTITIONS_MAX_COUNT: usize = 256;

/// Characters in a SHA-256 in hex.
const HASH_CHARACTERS: usize = 64;

/// A month's figures, as they stand in the books once everything up to the fence is in them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trial {
    /// The moment of the fence.
    pub as_known_at: Timestamp,
    /// How far each partition was then, ascending.
    pub heads: Vec<PartitionPosition>,
    /// The trial balance, ascending by account and asset.
    pub lines: Vec<ClosedLine>,
    /// Events that the books could not take; a month with any of them is not whole.
    pub open_dead_letters: u64,
    /// The hash of the month's canonical text with the hash of the month before in it.
    pub hash: String,
}

/// What can be asked about months.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeriodCommand {
    /// Close one.
    Close {
        /// Which.
        month: Month,
        /// Its figures.
        trial: Trial,
        /// Who closes it.
        by: UserId,
        /// Now.
        at: Timestamp,
    },
}

/// Why a month is not closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeriodRefusal {
    /// It was closed before.
    #[error("{month} was closed at {closed_at:?}, and a closed month stays as it is")]
    ClosedBefore {
        /// Which.
        month: Month,
        /// When.
        closed_at: Timestamp,
    },
    /// Another month comes first.
    #[error("months close in order: {expected} is next, not {month}")]
    OutOfOrder {
        /// Which was asked for.
        month: Month,
        /// Which is next.
        expected: Month,
    },
    /// The month goes on.
    #[error("{month} is over at {ends_at:?}, it is {at:?}")]
    NotOver {
        /// Which.
        month: Month,
        /// When it will be.
        ends_at: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// Events are set aside, so the figures are not whole.
    #[error("{open} events are set aside and not in the books; retry them first")]
    DeadLetters {
        /// How many.
        open: u64,
    },
    /// The figures do not add up: the books are broken.
    #[error("the trial balance in {asset} does not balance: debits {debit}, credits {credit}")]
    Unbalanced {
        /// In which asset.
        asset: Asset,
        /// The sum of the debits.
        debit: i128,
        /// The sum of the credits.
        credit: i128,
    },
    /// A trial balance that cannot be one: lines out of order or doubled, sums below zero, too many, an unreadable name.
    #[error("the trial balance has {lines} lines and line {line} cannot be one")]
    BadLine {
        /// Which, counted from 1.
        line: usize,
        /// How many there are.
        lines: usize,
    },
    /// Heads, hash or moment that cannot be.
    #[error("the {0} of the closing cannot be")]
    BadSeal(&'static str),
}

pub(super) fn decide(periods: &Periods, command: PeriodCommand) -> Result<Vec<PeriodEvent>, PeriodRefusal> {
    let PeriodCommand::Close { month, trial, by, at } = command;
    periods.may_close(month, at)?;
    let Trial { as_known_at, heads, lines, open_dead_letters, hash } = trial;
    if open_dead_letters > 0 {
        return Err(PeriodRefusal::DeadLetters { open: open_dead_letters });
    }
    // Before the month's end not everything that belongs to it can be known.
    let known_before = periods.last().is_some_and(|last| as_known_at <= last.as_known_at);
    if as_known_at < month.ends_at() || as_known_at > at || known_before {
        return Err(PeriodRefusal::BadSeal("moment"));
    }
    check_heads(&heads)?;
    if hash.len() != HASH_CHARACTERS || !hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(PeriodRefusal::BadSeal("hash"));
    }
    check_lines(&lines)?;
    let previous_hash = periods.last().map(|last| last.hash.clone());
    let closed = PeriodClosed { month, closed_by: by, closed_at: at, as_known_at, heads, lines, hash, previous_hash };
    Ok(vec![PeriodEvent::PeriodClosed(closed)])
}

impl Periods {
    /// Whether a month's turn has come at `at`. The first month ever closed may be any: its trial balance holds
    /// everything before it as well.
    ///
    /// # Errors
    /// [`PeriodRefusal::ClosedBefore`], [`PeriodRefusal::OutOfOrder`], [`PeriodRefusal::NotOver`].
    pub fn may_close(&self, month: Month, at: Timestamp) -> Result<(), PeriodRefusal> {
        if let Some(known) = self.closed.iter().find(|known| known.month == month) {
            return Err(PeriodRefusal::ClosedBefore { month, closed_at: known.closed_at });
        }
        if let Some(expected) = self.last().map(|last| last.month.next()).filter(|expected| *expected != month) {
            return Err(PeriodRefusal::OutOfOrder { month, expected });
        }
        if at < month.ends_at() {
            return Err(PeriodRefusal::NotOver { month, ends_at: month.ends_at(), at });
        }
        Ok(())
    }
}

fn check_heads(heads: &[PartitionPosition]) -> Result<(), PeriodRefusal> {
    let ascending = heads.is_sorted_by(|one, next| one.partition < next.partition);
    let possible = heads.iter().all(|head| head.partition >= 0 && head.position >= 0);
    let counted = (1..=PARTITIONS_MAX_COUNT).contains(&heads.len());
    if ascending && possible && counted { Ok(()) } else { Err(PeriodRefusal::BadSeal("heads")) }
}

fn check_lines(lines: &[ClosedLine]) -> Result<(), PeriodRefusal> {
    if lines.len() > LINES_MAX_COUNT {
        return Err(PeriodRefusal::BadLine { line: LINES_MAX_COUNT + 1, lines: lines.len() });
    }
    let place = |line: &ClosedLine| (line.account.clone(), line.asset.as_str());
    for (index, line) in lines.iter().enumerate() {
        let readable = !line.account.is_empty()
            && line.account.len() <= ACCOUNT_MAX_BYTES
            && !line.account.chars().any(char::is_control);
        let in_order = index == 0 || place(&lines[index - 1]) < place(line);
        if !readable || !in_order || line.debit < 0 || line.credit < 0 {
            return Err(PeriodRefusal::BadLine { line: index + 1, lines: lines.len() });
        }
    }
    for asset in Asset::ALL {
        let of_asset = || lines.iter().filter(|line| line.asset == asset);
        let debit: i128 = of_asset().map(|line| i128::from(line.debit)).sum();
        let credit: i128 = of_asset().map(|line| i128::from(line.credit)).sum();
        if debit != credit {
            return Err(PeriodRefusal::Unbalanced { asset, debit, credit });
        }
    }
    Ok(())
}
