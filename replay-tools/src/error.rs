//! Why a verb did not do what it was asked, and which exit code says so.

use calos_commands::log::LogError;
use calos_projections::as_of::AsOfError;
use calos_projections::{CopyError, CopyOutError, ProjectError};

use crate::turn::Busy;

/// A verb that did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The arguments make no sense together, or a confirmation is missing.
    #[error("{0}")]
    Usage(String),
    /// The surroundings: settings, the database, its rights.
    #[error("{0}")]
    Environment(String),
    /// The database failed, or the connection to it.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The log cannot be read completely and in order.
    #[error(transparent)]
    Log(#[from] CopyOutError),
    /// Rows cannot be loaded.
    #[error(transparent)]
    Load(#[from] CopyError),
    /// An operation could not be recorded.
    #[error("the operation could not be recorded: {0}")]
    Record(#[from] LogError),
    /// The operator's own input is refused by the rules.
    #[error("{0}")]
    Refused(String),
    /// Somebody else has what is needed.
    #[error("{0}")]
    Busy(Box<Busy>),
    /// An event that a fold cannot take where nothing may be left out.
    #[error("partition {partition} position {position} cannot be projected: {error}")]
    Project {
        /// The partition.
        partition: i32,
        /// The position.
        position: i64,
        /// Why.
        error: ProjectError,
    },
    /// What is stored contradicts itself.
    #[error("{0}")]
    Corrupt(String),
    /// Stopped by the operator; what was finished is kept.
    #[error("stopped; what is finished is kept, and the same command goes on where it stopped")]
    Cancelled,
    /// Stopped by the operator; nothing was left behind.
    #[error("stopped; nothing was changed")]
    Stopped,
    /// Output could not be written.
    #[error("the output could not be written: {0}")]
    Output(#[from] std::io::Error),
}

/// The exit codes every CALOS tool shares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Done, and what was checked holds.
    Done = 0,
    /// A check failed, or the work could not be finished.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The surroundings are not as they have to be.
    Environment = 3,
}

impl From<AsOfError> for ToolError {
    fn from(error: AsOfError) -> Self {
        match error {
            AsOfError::Database(error) => Self::Database(error),
            error @ AsOfError::Behind { .. } => Self::Environment(error.to_string()),
            error @ AsOfError::OutOfRange => Self::Corrupt(error.to_string()),
        }
    }
}

impl ToolError {
    /// The exit code of this error.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Refused(_) => Exit::Usage,
            Self::Environment(_) | Self::Database(_) | Self::Record(_) | Self::Busy(_) | Self::Output(_) => {
                Exit::Environment
            }
            Self::Log(error) => match error {
                CopyOutError::Database(_) | CopyOutError::NoTrailer { .. } => Exit::Environment,
                CopyOutError::NoHeader
                | CopyOutError::Fields { .. }
                | CopyOutError::Field { .. }
                | CopyOutError::Partition { .. }
                | CopyOutError::Gap { .. }
                | CopyOutError::EndsEarly { .. }
                | CopyOutError::AfterTrailer { .. } => Exit::Failed,
            },
            Self::Load(CopyError::Database(_)) => Exit::Environment,
            Self::Load(_) | Self::Project { .. } | Self::Corrupt(_) | Self::Cancelled | Self::Stopped => Exit::Failed,
        }
    }
}
