//! `calos-bench simulate`: histories drawn from a seed, through the real command path on a real PostgreSQL, with the server
//! crashing wherever it hurts, against a second bookkeeping.
//!
//! The model ([`model`], [`judging`], [`rules`]) is written from the ledger's design: it says what each command must come to. The record
//! ([`recorded`]) folds what is really in the log ([`tail`]). After every step the two are the same to the unit, or the
//! simulation ends with the seed, the step and the last of the history; the same seed comes to the same step again. Several
//! commands of one wallet are in flight together: any order is accepted that explains every answer.
//!
//! | checked | invariants of the ledger |
//! |---|---|
//! | at every command | 2 and 3 (nothing negative, grants add up, held is the sum of open holds, holds end once), 4, 5, 7, 10, 13 |
//! | at every step | 1 (entries and tenants' accounts in the book), the log without gaps, 15 |
//! | at every checkpoint | 8 (from zero = from a snapshot and the tail = warm = read model), 11, trial balance, deferred revenue |
//! | by tenants that are told the same facts in different orders | 6 |
//! | by staff of four who propose and approve at random | 12 |
//!
//! That it finds what it is for was seen by breaking a rule on purpose ([`Broken`]); a test does so every time. With seed 7:
//!
//! | broken on purpose | found |
//! |---|---|
//! | a repeated grant grants again | step 4, after 36 commands |
//! | a settlement deducts one unit too little | step 7, after 92 commands |
//! | the expiry of a grant takes what open holds keep of it | step 69, after 770 commands |
//! | a command whose answer was lost is repeated under a new id | step 9, after 127 commands |
//! | a claim that was undone is not restored | step 4, after 36 commands |
//! | a fact that is delivered again is taken for another one | step 9, after 127 commands |

mod adjustments;
mod burning;
mod chance;
mod checkpoint;
mod driver;
mod effects;
mod figures;
mod history;
mod issue;
mod judging;
mod known_at;
mod ledger;
mod model;
mod orders;
mod payments;
mod process;
mod recorded;
mod rules;
mod tail;
mod tenant;
mod verify;
mod work;

use std::collections::BTreeMap;
use std::fmt;

use calos_commands::log::LogError;

pub use work::Broken;

use driver::Driver;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where every choice comes from.
    pub seed: u64,
    /// Commands, repetitions after a lost answer not counted.
    pub commands: u64,
    /// Tenants at one time; each gives way to a new one after some hundred commands.
    pub tenants: usize,
    /// Commands from one checkpoint to the next.
    pub check_every_commands: u64,
    /// A rule to break on purpose.
    pub broken: Option<Broken>,
}

/// What came of it.
#[derive(Clone, Default, Debug)]
pub struct Summary {
    /// Rounds of commands, sweeps and jumps of the clock.
    pub steps: u64,
    /// Commands asked.
    pub commands: u64,
    /// Of them, refused.
    pub refused: u64,
    /// Of them, with nothing to do.
    pub repeated: u64,
    /// Commands asked again because their answer was lost.
    pub asked_again: u64,
    /// Events read back from the log.
    pub events: u64,
    /// Tenants there were.
    pub tenants: u64,
    /// Holds the process manager expired.
    pub swept: u64,
    /// Checkpoints passed.
    pub checkpoints: u64,
    /// Interruptions, by where they struck.
    pub interruptions: BTreeMap<&'static str, u64>,
    /// Events by type.
    pub kinds: BTreeMap<String, u64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, commands, events, tenants, checkpoints, .. } = self;
        let struck: u64 = self.interruptions.values().sum();
        write!(
            f,
            "{commands} commands in {steps} steps, {events} events, {tenants} tenants, {checkpoints} checkpoints, {struck} interruptions"
        )
    }
}

/// What went wrong in a step.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Something the ledger promises does not hold.
    #[error("{0}")]
    Violation(String),
    /// The database failed the simulation itself.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The log failed the simulation itself.
    #[error("the log failed: {0}")]
    Log(#[from] LogError),
    /// The machine is not fit to simulate on.
    #[error("{0}")]
    Environment(String),
}

impl From<String> for Fault {
    fn from(violation: String) -> Self {
        Self::Violation(violation)
    }
}

/// Why a simulation ended early, and how to come to the same point again.
#[derive(Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The step, counted from 1.
    pub step: u64,
    /// Commands asked until then.
    pub commands: u64,
    /// What is wrong.
    pub fault: Fault,
    /// The last of the history, oldest first.
    pub tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(f, "  {line}")?;
        }
        let Self { seed, step, commands, fault, .. } = self;
        write!(f, "seed {seed}, step {step}, after {commands} commands: {fault}")
    }
}

impl std::error::Error for Failure {}

/// Simulates on an empty, migrated database, whose address has its owner's rights.
///
/// `say` is told how far it is, now and then.
///
/// # Errors
/// The first thing that does not hold.
pub async fn run(url: &str, options: Options, say: impl FnMut(&Summary)) -> Result<Summary, Box<Failure>> {
    let lost = |fault| Box::new(Failure { seed: options.seed, step: 0, commands: 0, fault, tail: Vec::new() });
    let mut driver = Driver::open(url, options).await.map_err(lost)?;
    driver.run(say).await
}
