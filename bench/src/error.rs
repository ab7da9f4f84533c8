//! What can go wrong while measuring, and the exit code it leads to.

use calos_commands::log::LogError;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The machine or the database is not fit to measure on.
    #[error("{0}")]
    Environment(String),
    /// PostgreSQL refused or went away.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The log under measurement failed.
    #[error("the log failed: {0}")]
    Log(#[from] LogError),
    /// Something measured did other work than it should have: its figure would be worth nothing.
    #[error("{0}")]
    Check(String),
    /// The report could not be written.
    #[error("the report cannot be written: {0}")]
    Output(#[from] std::io::Error),
    /// The report could not be put into JSON.
    #[error("the report cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// The exit code when a check or a demanded target failed.
pub const EXIT_CHECK_FAILED: u8 = 1;
/// The exit code when the environment does not allow measuring.
pub const EXIT_ENVIRONMENT: u8 = 3;

impl BenchError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Check(_) => EXIT_CHECK_FAILED,
            Self::Environment(_) | Self::Database(_) | Self::Log(_) | Self::Output(_) | Self::Json(_) => {
                EXIT_ENVIRONMENT
            }
        }
    }
}
