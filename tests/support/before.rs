//! Programs of other versions: what they wrote stands in the log for ever, numbered and sealed by the same writer.

use std::fmt;

use calos_adapters::postgres::{LogOptions, PgLog};
use calos_commands::log::{EventLog as _, Plan, Positions};
use calos_commands::metadata::{Actor, Metadata};
use calos_domain::operation::RunBy;
use calos_domain::upcast::Upcast;
use calos_domain::{Decider, Fact, StreamId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;

/// Versions a program can have.
const VERSIONS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// The one event these programs know: that a rebuild began, in their version of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Written<const VERSION: usize>(Value);

impl<const VERSION: usize> Fact for Written<VERSION> {
    const CATALOGUE: &'static [(&'static str, &'static str)] = &[("rebuild_started", VERSIONS[VERSION])];
    const UPCASTS: &'static [Upcast] = &[];

    fn name(&self) -> &'static str {
        "rebuild_started"
    }

    fn version(&self) -> &'static str {
        VERSIONS[VERSION]
    }
}

/// An operator's run, as a program of that version knows it.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Run<const VERSION: usize>;

/// These programs refuse nothing.
#[derive(Debug)]
enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

impl<const VERSION: usize> Decider for Run<VERSION> {
    const KIND: &'static str = "operation";
    const SNAPSHOT_VERSION: i32 = 1;
    type Command = Value;
    type Event = Written<VERSION>;
    type Refusal = Never;

    fn decide(&self, payload: Value) -> Result<Vec<Written<VERSION>>, Never> {
        Ok(vec![Written(payload)])
    }

    fn evolve(&mut self, _: &Written<VERSION>) {}
}

/// Starts a program of a version, lets it record that a rebuild began, and stops it.
///
/// # Panics
/// When the log does not take it.
pub async fn record_rebuild_started<const VERSION: usize>(pool: &PgPool, run: &RunBy, payload: Value) -> Positions {
    let log = PgLog::open(pool.clone(), LogOptions::default()).await.expect("the log opens");
    let mut plan = Plan::default();
    let stream = plan.stream::<Run<VERSION>>(StreamId::key(run.operation_id));
    let request = Metadata::new(Actor::Console(run.operator.clone())).into();
    let done = log.execute(&plan, request, |unit| unit.decide(stream, payload.clone()).map(drop)).await;
    log.close().await;
    done.expect("the event is taken").positions
}

/// The payload of version 1: a projection's name, or `all`.
#[must_use]
pub fn version_1(run: &RunBy, projection: &str, at: Timestamp) -> Value {
    let RunBy { operation_id, operator, reason, .. } = run;
    json!({ "rebuild_started": {
        "operation_id": operation_id, "operator": operator, "reason": reason,
        "projection": projection, "started_at": at,
    } })
}
