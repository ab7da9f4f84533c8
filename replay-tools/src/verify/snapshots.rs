//! Snapshots: a cold load begins with one, so a changed one changes what is decided, though the log says otherwise.

use serde_json::Value;
use sqlx::PgConnection;

use calos_domain::Decider;
use calos_domain::account::Account;
use calos_domain::adjustment::Adjustment;
use calos_domain::api_key::ApiKey;
use calos_domain::device::Device;
use calos_domain::email_claim::EmailClaim;
use calos_domain::ledger_access::LedgerAccess;
use calos_domain::licence::Licence;
use calos_domain::operation::Operation;
use calos_domain::payment::{Payment, Payout};
use calos_domain::period::Periods;
use calos_domain::reconciliation::Reconciliation;
use calos_domain::session::Session;
use calos_domain::tenant::Tenant;
use calos_domain::upcast::{self, Label};
use calos_domain::wallet::Wallet;
use calos_projections::Kind;

use super::{Check, Finding};
use crate::error::ToolError;

/// Events of one stream read at a time.
const READ_MAX_EVENTS: i64 = 5_000;

/// Folds every stream that has a snapshot up to it, and compares.
pub(super) async fn check(connection: &mut PgConnection) -> Result<Check, ToolError> {
    let mut check = Check::new("snapshots");
    let streams: Vec<(String, String, i32)> = sqlx::query_as(
        "SELECT aggregate_type, aggregate_id, partition FROM snapshots ORDER BY aggregate_type, aggregate_id, partition",
    )
    .fetch_all(&mut *connection)
    .await?;
    let (mut compared, mut other) = (0_u64, 0_u64);
    for (kind, id, partition) in streams {
        let outcome = match Kind::of(&kind) {
            Ok(known) => of_kind(connection, known, &id, partition).await?,
            Err(error) => Outcome::Differs(error.to_string()),
        };
        match outcome {
            Outcome::Same => compared += 1,
            Outcome::OtherVersion => other += 1,
            Outcome::Differs(what) => {
                check.found(Finding {
                    partition: Some(partition),
                    position: None,
                    what: format!("{kind}/{id}: {what}"),
                });
            }
        }
    }
    check.looked_at = format!("{compared} snapshots equal a fold of their stream");
    if other > 0 {
        check.looked_at.push_str(&format!("; {other} are of another version, which nobody reads"));
    }
    Ok(check)
}

enum Outcome {
    Same,
    /// Of another schema than this program reads, or gone since.
    OtherVersion,
    Differs(String),
}

async fn of_kind(connection: &mut PgConnection, kind: Kind, id: &str, partition: i32) -> Result<Outcome, ToolError> {
    match kind {
        Kind::Wallet => compare::<Wallet>(connection, id, partition).await,
        Kind::Tenant => compare::<Tenant>(connection, id, partition).await,
        Kind::Licence => compare::<Licence>(connection, id, partition).await,
        Kind::ApiKey => compare::<ApiKey>(connection, id, partition).await,
        Kind::Account => compare::<Account>(connection, id, partition).await,
        Kind::Session => compare::<Session>(connection, id, partition).await,
        Kind::Device => compare::<Device>(connection, id, partition).await,
        Kind::EmailClaim => compare::<EmailClaim>(connection, id, partition).await,
        Kind::Operation => compare::<Operation>(connection, id, partition).await,
        Kind::Payment => compare::<Payment>(connection, id, partition).await,
        Kind::Payout => compare::<Payout>(connection, id, partition).await,
        Kind::Adjustment => compare::<Adjustment>(connection, id, partition).await,
        Kind::Period => compare::<Periods>(connection, id, partition).await,
        Kind::Reconciliation => compare::<Reconciliation>(connection, id, partition).await,
        Kind::LedgerAccess => compare::<LedgerAccess>(connection, id, partition).await,
    }
}

async fn compare<D: Decider>(connection: &mut PgConnection, id: &str, partition: i32) -> Result<Outcome, ToolError> {
    let stored: Option<(i64, String)> = sqlx::query_as(
        "SELECT last_sequence, payload FROM snapshots \
         WHERE aggregate_type = $1 AND aggregate_id = $2 AND partition = $3 AND snapshot_version = $4",
    )
    .bind(D::KIND)
    .bind(id)
    .bind(partition)
    .bind(D::SNAPSHOT_VERSION)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((through, payload)) = stored else { return Ok(Outcome::OtherVersion) };
    let folded = match fold::<D>(connection, id, through).await? {
        Ok(state) => state,
        Err(what) => return Ok(Outcome::Differs(what)),
    };
    // Both as the program would read them, so that the order in which a state writes its maps does not count.
    let stored = serde_json::from_str::<D>(&payload).and_then(|state| serde_json::to_value(&state));
    let folded = serde_json::to_value(&folded);
    Ok(match (stored, folded) {
        (Ok(stored), Ok(folded)) => match first_difference(&stored, &folded, String::new()) {
            None => Outcome::Same,
            Some(place) => {
                Outcome::Differs(format!("the snapshot at sequence {through} is not what its events give: {place}"))
            }
        },
        (Err(error), _) | (_, Err(error)) => {
            Outcome::Differs(format!("the snapshot at sequence {through} cannot be read: {error}"))
        }
    })
}

/// The state after the event `through`; or, in words, why there is none.
async fn fold<D: Decider>(
    connection: &mut PgConnection,
    id: &str,
    through: i64,
) -> Result<Result<D, String>, ToolError> {
    let (mut state, mut last) = (D::default(), 0);
    while last < through {
        let rows: Vec<(i64, String, String, Value)> = sqlx::query_as(
            "SELECT sequence, event_type, event_version, payload FROM events WHERE aggregate_type = $1 \
             AND aggregate_id = $2 AND sequence > $3 AND sequence <= $4 ORDER BY sequence LIMIT $5",
        )
        .bind(D::KIND)
        .bind(id)
        .bind(last)
        .bind(through)
        .bind(READ_MAX_EVENTS)
        .fetch_all(&mut *connection)
        .await?;
        if rows.is_empty() {
            return Ok(Err(format!("the snapshot stands at sequence {through}, but the stream ends at {last}")));
        }
        for (sequence, event_type, event_version, payload) in rows {
            let label = Label { aggregate_type: D::KIND, event_type: &event_type, event_version: &event_version };
            match upcast::decode_value::<D::Event>(label, payload) {
                Ok(event) => state.evolve(&event),
                Err(error) => {
                    return Ok(Err(format!("the event at sequence {sequence} cannot be folded: {error}")));
                }
            }
            last = sequence;
        }
    }
    Ok(Ok(state))
}

/// Where two states differ first, as a path of names; the values are left out, for a state may hold what is not for show.
fn first_difference(stored: &Value, folded: &Value, path: String) -> Option<String> {
    match (stored, folded) {
        (Value::Object(one), Value::Object(other)) => one.keys().chain(other.keys()).find_map(|name| {
            let inner = format!("{path}/{name}");
            match (one.get(name), other.get(name)) {
                (Some(one), Some(other)) => first_difference(one, other, inner),
                (None, _) | (_, None) => Some(inner),
            }
        }),
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => one
            .iter()
            .zip(other)
            .enumerate()
            .find_map(|(index, (one, other))| first_difference(one, other, format!("{path}/{index}"))),
        (one, other) => (one != other).then_some(path),
    }
}
