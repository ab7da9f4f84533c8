//! Who did what and why: each run of a tool that changes state leaves facts in the log.

use std::time::SystemTime;

use rustix::process::getuid;
use uuid::Uuid;

use calos_commands::log::{EventLog, Failed, Plan};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::operation::{Operation, OperationCommand, PartitionPosition, RunBy};
use calos_domain::{OperationId, StreamId, Timestamp};

use crate::error::ToolError;
use crate::versions::Vector;

/// Recorded when nobody said why.
pub const NO_REASON: &str = "no reason given";

/// A run that begins now.
#[must_use]
pub fn run_by(operator: Option<String>, reason: Option<String>) -> RunBy {
    let operator = operator.filter(|name| !name.is_empty()).unwrap_or_else(login_name);
    let reason = reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| NO_REASON.to_owned());
    RunBy { operation_id: OperationId(Uuid::now_v7()), operator, reason }
}

/// The login name behind this process: the one before `sudo`, if there was one.
fn login_name() -> String {
    let named = ["SUDO_USER", "LOGNAME", "USER"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| format!("uid {}", getuid().as_raw()))
}

/// Records one fact of a run.
///
/// # Errors
/// [`ToolError::Refused`] by the rules, [`ToolError::Record`] when the log cannot take it.
pub async fn record<L: EventLog>(log: &L, run: &RunBy, command: OperationCommand) -> Result<(), ToolError> {
    let mut plan = Plan::default();
    let operation = plan.stream::<Operation>(StreamId::key(run.operation_id));
    let mut metadata = Metadata::new(Actor::Console(run.operator.clone()));
    metadata.correlation_id = run.operation_id.0;
    metadata.reason = Some(run.reason.clone());
    let decided = log.execute(&plan, metadata.into(), |unit| unit.decide(operation, command.clone()).map(drop)).await;
    match decided {
        Ok(_) => Ok(()),
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
