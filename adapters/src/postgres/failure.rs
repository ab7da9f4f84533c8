//! What a failed statement of the writer means.

use super::append::Batch;

/// Why a batch is not (known to be) in the log.
pub enum Failure {
    /// A head was not where it was expected, or two processes were in each other's way.
    Stale,
    /// A caller's key was claimed before.
    Claimed,
    /// A stream already has an event of that sequence.
    StreamTaken,
    /// The database answered that it will not take these rows: nothing is in the log.
    Refused(String),
    /// The statement was not sent, or was rolled back for a reason that is not its own: nothing is in the log.
    Absent(String),
    /// The statement was sent and its answer was lost.
    Unknown(Box<Batch>, String),
}

/// SQLSTATE `not_null_violation`: how the append statement says that a head moved.
const NOT_NULL_VIOLATION: &str = "23502";
/// SQLSTATE `unique_violation`.
const UNIQUE_VIOLATION: &str = "23505";
/// SQLSTATE `deadlock_detected` and `serialization_failure`.
const IN_EACH_OTHERS_WAY: [&str; 2] = ["40P01", "40001"];

/// SQLSTATE classes `insufficient_resources`, `system_error` and `internal_error`.
const NOT_FIT_CLASSES: [&str; 3] = ["53", "58", "XX"];
/// SQLSTATE `read_only_sql_transaction` and `lock_not_available`.
const NOT_FIT: [&str; 2] = ["25006", "55P03"];

impl Failure {
    /// What the server's answer means, or `None` when there is no answer and the outcome is unknown.
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        let answer = error.as_database_error()?;
        let code = answer.code();
        let code = code.as_deref().unwrap_or_default();
        match (code, answer.constraint()) {
            (NOT_NULL_VIOLATION, _) => Some(Self::Stale),
            (UNIQUE_VIOLATION, Some("idempotency_pkey")) => Some(Self::Claimed),
            // The primary key too: somebody appended behind a head that did not move with it.
            (UNIQUE_VIOLATION, _) => Some(Self::StreamTaken),
            _ if IN_EACH_OTHERS_WAY.contains(&code) => Some(Self::Stale),
            // Class 57 (shutdown, crash of another backend) and class 08 end the connection without telling whether a
            // commit that was under way got through.
            _ if code.starts_with("57") || code.starts_with("08") => None,
            // The database is not fit to write just now: full, out of memory, read-only after a failover, or locked.
            _ if NOT_FIT_CLASSES.iter().any(|class| code.starts_with(class)) || NOT_FIT.contains(&code) => {
                Some(Self::Absent(answer.to_string()))
            }
            _ => Some(Self::Refused(answer.to_string())),
        }
    }
}
