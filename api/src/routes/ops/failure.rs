//! Why a tool did not do what it was asked, as a caller is told; and what every change has to say.

use axum::response::Response;

use calos_commands::fault::Never;
use calos_commands::log::{EventLog, Failed, Plan, Positions};
use calos_domain::UserId;
use calos_domain::operation::RunBy;
use calos_projections::registry;
use calos_replay::operation::{envelope, run_by_user};
use calos_replay::{ReadModel, ToolError};

use crate::error::{ApiError, Code};
use crate::idempotency::{Answer, Claimer};
use crate::wiring::App;

/// The longest reason, in bytes.
const REASON_MAX_BYTES: usize = 500;

/// A tool's error as an answer.
pub fn failed(error: ToolError) -> ApiError {
    match error {
        ToolError::Database(error) => error.into(),
        ToolError::Record(error) => error.into(),
        ToolError::Busy(_) | ToolError::Refused(_) | ToolError::Usage(_) => {
            ApiError::new(Code::Conflict, error.to_string())
        }
        error => ApiError::internal(error),
    }
}

/// A run of somebody who has to say why.
///
/// # Errors
/// 400 `invalid_field` for a reason that is missing or too long.
pub fn run_of(user: UserId, reason: &str) -> Result<RunBy, ApiError> {
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > REASON_MAX_BYTES {
        let problem = format!("must say why, in 1 to {REASON_MAX_BYTES} bytes");
        return Err(ApiError::field("reason", problem).with_fact("max", REASON_MAX_BYTES));
    }
    Ok(run_by_user(user, reason))
}

/// What the repetitions of an operator's requests are kept beside, whatever they are about.
pub const OPS_KEY: &str = "ops";

/// The answer of a tool that has done its work, kept for repetitions where the caller gave a key. The work and what is kept
/// are two appends: should the second fail, a repetition does the work again, and finds nothing left of it to do.
///
/// # Errors
/// The log's.
pub async fn kept(app: &App, run: &RunBy, claimer: &Claimer, answer: Answer) -> Result<Response, ApiError> {
    let request = claimer.request(envelope(run), &answer)?;
    if request.idempotency.is_some() {
        let kept: Result<_, Failed<Never>> = app.log.execute(&Plan::default(), request, |_| Ok(())).await;
        kept?;
    }
    Ok(answer.respond(&Positions::default()))
}

/// The read model of that name.
///
/// # Errors
/// 404.
pub fn model(name: &str) -> Result<ReadModel, ApiError> {
    registry::find(name).ok_or_else(|| ApiError::not_found("projection"))
}

#[cfg(test)]
mod tests {
    use calos_replay::turn::Busy;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_reason_is_never_missing() {
        let user = UserId(Uuid::from_u128(1));
        assert!(run_of(user, "  ").is_err() && run_of(user, &"x".repeat(501)).is_err());
        let run = run_of(user, " it looked wrong ").unwrap();
        assert_eq!((run.operator, run.reason), (user.to_string(), "it looked wrong".to_owned()));
    }

    #[test]
    fn what_the_rules_refuse_is_a_conflict_and_what_broke_is_not() {
        let busy = Busy { wanted: "usage_log".to_owned(), holder: None };
        assert_eq!(failed(ToolError::Busy(Box::new(busy))).code(), Code::Conflict);
        assert_eq!(failed(ToolError::Refused("no".to_owned())).code(), Code::Conflict);
        assert_eq!(failed(ToolError::Database(sqlx::Error::PoolTimedOut)).code(), Code::DatabaseUnavailable);
        assert_eq!(failed(ToolError::Corrupt("x".to_owned())).code(), Code::Internal);
    }
}
