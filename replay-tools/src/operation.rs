//! Who did what and why: each run of a tool that changes state leaves facts in the log.

use std::time::SystemTime;

use rustix::process::getuid;
use uuid::Uuid;

use calos_commands::in_request;
use calos_commands::log::{EventLog, Failed, Plan, Positions, Request};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::operation::{Operation, OperationCommand, PartitionPosition, RunBy};
use calos_domain::{OperationId, StreamId, Timestamp, UserId};

use crate::error::ToolError;
use crate::versions::Vector;

/// Recorded when nobody said why.
pub const NO_REASON: &str = "no reason given";

/// A run that begins now, of somebody at the console.
#[must_use]
pub fn run_by(operator: Option<String>, reason: Option<String>) -> RunBy {
    let operator = operator.filter(|name| !name.is_empty()).unwrap_or_else(login_name);
    let reason = reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| NO_REASON.to_owned());
    RunBy { operation_id: OperationId(Uuid::now_v7()), operator, user_id: None, reason }
}

/// A run that begins now, of somebody who is signed in.
#[must_use]
pub fn run_by_user(user: UserId, reason: &str) -> RunBy {
    RunBy { user_id: Some(user), ..run_by(Some(user.to_string()), Some(reason.to_owned())) }
}

/// The login name behind this process: the one before `sudo`, if there was one.
fn login_name() -> String {
    let named = ["SUDO_USER", "LOGNAME", "USER"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| format!("uid {}", getuid().as_raw()))
}

/// The envelope of a run's facts.
#[must_use]
pub fn envelope(run: &RunBy) -> Metadata {
    let actor = run.user_id.map_or_else(|| Actor::Console(run.operator.clone()), Actor::User);
    let mut metadata = Metadata::new(actor);
    metadata.correlation_id = run.operation_id.0;
    metadata.reason = Some(run.reason.clone());
    metadata.request_id = in_request::current().map(|id| id.to_string());
    metadata
}

/// Records one fact of a run.
///
/// # Errors
/// [`ToolError::Refused`] by the rules, [`ToolError::Record`] when the log cannot take it.
pub async fn record<L: EventLog>(log: &L, run: &RunBy, command: OperationCommand) -> Result<(), ToolError> {
    record_as(log, run, envelope(run).into(), command).await.map(drop)
}

/// Records one fact of a run in an envelope that may carry a caller's idempotency key, and answers where it landed.
///
/// # Errors
/// As [`record`].
pub async fn record_as<L: EventLog>(
    log: &L,
    run: &RunBy,
    request: Request,
    command: OperationCommand,
) -> Result<Positions, ToolError> {
    let mut plan = Plan::default();
    let operation = plan.stream::<Operation>(StreamId::key(run.operation_id));
    let decided = log.execute(&plan, request, |unit| unit.decide(operation, command.clone()).map(drop)).await;
    match decided {
        Ok(done) => Ok(done.positions),
        Err(Failed::Refused(refusal)) => Err(ToolError::Refused(refusal.to_string())),
        Err(Failed::Log(error)) => Err(error.into()),
    }
}

/// A vector of positions as an operation's facts carry it.
#[must_use]
pub(crate) fn positions(vector: &Vector) -> Vec<PartitionPosition> {
    vector.iter().map(|(&partition, &position)| PartitionPosition { partition, position }).collect()
}

/// This moment.
#[must_use]
pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
}
