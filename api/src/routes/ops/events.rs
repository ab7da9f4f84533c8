//! Looking for events, and what led to one and what came of it. Every look is recorded, since events tell of everybody's
//! money.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use calos_commands::ledger_access;
use calos_domain::Timestamp;
use calos_domain::ledger_access::LedgerView;
use calos_replay::events::{EventFilter, EventLine, event_at};
use calos_replay::place::Place;
use calos_replay::search::{conversation, page};

use super::failure::failed;
use crate::auth::FinanceOperator as Operator;
use crate::error::ApiError;
use crate::moment::parse_rfc3339;
use crate::openapi::ErrorBody;
use crate::paging;
use crate::request::{Path, Query, RequestContext, now};
use crate::wiring::App;

/// How far before and after an event its conversation is looked for, in seconds: a hold stands for ten minutes.
const CONVERSATION_SECONDS: i64 = 900;

/// Events of a conversation that are shown.
const CONVERSATION_MAX_EVENTS: usize = 200;

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Of one stream: `kind/id`, such as `wallet/0193a5c8-…`.
    stream: Option<String>,
    /// With this name, such as `credits_deducted`.
    r#type: Option<String>,
    /// Of one conversation.
    correlation: Option<Uuid>,
    /// Recorded at this moment (RFC 3339) or later.
    from: Option<String>,
    /// Recorded before this moment.
    to: Option<String>,
    /// Of one partition.
    partition: Option<i32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// Events on the page, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

/// An event as it stands in the log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventBody {
    /// The partition.
    partition: i32,
    /// The position.
    position: i64,
    /// `kind/id`
    stream: String,
    /// Its place in its stream, counted from 1.
    sequence: i64,
    /// Its name.
    r#type: String,
    /// Its version.
    version: String,
    /// When the log took it, RFC 3339.
    recorded_at: String,
    /// What happened.
    payload: Value,
    /// Who did it and why.
    metadata: Value,
    /// The seal, hexadecimal.
    hash: String,
}

/// A page of events, in the order of each partition.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventsPage {
    /// The events. A page looks at a bounded stretch of the log, so it may be short, or empty, and not be the last.
    events: Vec<EventBody>,
    /// For the next page; null when the end was reached.
    next_cursor: Option<String>,
}

/// An event and its conversation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventAnswer {
    /// The event.
    event: EventBody,
    /// The events of the same conversation, a quarter of an hour before and after it.
    chain: Vec<ChainLine>,
    /// Whether that is all of them there.
    complete: bool,
}

/// An event of the same conversation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChainLine {
    /// The partition.
    partition: i32,
    /// The position.
    position: i64,
    /// `kind/id`
    stream: String,
    /// Its name.
    r#type: String,
    /// When the log took it, RFC 3339.
    recorded_at: String,
    /// `self`, `cause` (it led to the event), `effect` (it came of the event), `same_command` or `same_conversation`.
    relation: &'static str,
}

/// Look for events.
#[utoipa::path(get, path = "/api/ops/events", tag = "operations", params(EventsQuery),
    responses((status = 200, body = EventsPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn search(
    State(app): State<App>,
    operator: Operator,
    context: RequestContext,
    Query(query): Query<EventsQuery>,
) -> Result<Json<EventsPage>, ApiError> {
    let limit = paging::limit(query.limit)?;
    let after = paging::cursor::<Place>(query.cursor.as_deref())?;
    let filter = EventFilter {
        stream: query.stream.as_deref().map(stream).transpose()?,
        event_type: query.r#type,
        correlation: query.correlation,
        from: query.from.as_deref().map(|text| parse_rfc3339("from", text)).transpose()?,
        to: query.to.as_deref().map(|text| parse_rfc3339("to", text)).transpose()?,
        partition: query.partition,
        limit: None,
    };
    looked(&app, &operator, &context).await?;
    let found = page(&app.pool, &filter, after, limit).await.map_err(failed)?;
    let events = found.events.iter().map(EventBody::new).collect::<Result<_, _>>()?;
    Ok(Json(EventsPage { events, next_cursor: found.next.map(|place| place.to_string()) }))
}

/// One event, what led to it and what came of it.
#[utoipa::path(get, path = "/api/ops/events/{partition}/{position}", tag = "operations",
    params(("partition" = i32, Path, description = "the partition"), ("position" = i64, Path, description = "the position")),
    responses((status = 200, body = EventAnswer), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    context: RequestContext,
    Path((partition, position)): Path<(i32, i64)>,
) -> Result<Json<EventAnswer>, ApiError> {
    looked(&app, &operator, &context).await?;
    let event = event_at(&app.pool, Place { partition, position }).await.map_err(failed)?;
    let event = EventBody::new(&event.ok_or_else(|| ApiError::not_found("event"))?)?;
    let Some(correlation) = id_in(&event.metadata, "correlation_id") else {
        return Ok(Json(EventAnswer { event, chain: Vec::new(), complete: true }));
    };
    let at = parse_rfc3339("recordedAt", &event.recorded_at)?;
    let (from, to) = (at.plus_seconds(-CONVERSATION_SECONDS), at.plus_seconds(CONVERSATION_SECONDS));
    let found = conversation(&app.pool, correlation, from, to, CONVERSATION_MAX_EVENTS).await.map_err(failed)?;
    let mut chain = found.events.iter().map(EventBody::new).collect::<Result<Vec<_>, _>>()?;
    chain.sort_by(|one, next| {
        (&one.recorded_at, one.partition, one.position).cmp(&(&next.recorded_at, next.partition, next.position))
    });
    let chain = chain.into_iter().map(|other| ChainLine::new(other, &event)).collect();
    Ok(Json(EventAnswer { chain, event, complete: found.next.is_none() }))
}

/// Records the look before anything is shown.
async fn looked(app: &App, operator: &Operator, context: &RequestContext) -> Result<(), ApiError> {
    let request = context.metadata(operator.actor()).into();
    let at: Timestamp = now();
    ledger_access::record_of_all(&app.log, operator.user_id(), LedgerView::Journal, at, request).await?;
    Ok(())
}

fn stream(text: &str) -> Result<(String, String), ApiError> {
    let parts = text.split_once('/').filter(|(kind, id)| !kind.is_empty() && !id.is_empty());
    let (kind, id) = parts.ok_or_else(|| ApiError::field("stream", "must be kind/id, such as wallet/<tenant>"))?;
    Ok((kind.to_owned(), id.to_owned()))
}

fn id_in(metadata: &Value, name: &str) -> Option<Uuid> {
    metadata[name].as_str().and_then(|text| text.parse().ok())
}

impl EventBody {
    fn new(event: &EventLine) -> Result<Self, ApiError> {
        Ok(Self {
            partition: event.partition,
            position: event.position,
            stream: event.stream.clone(),
            sequence: event.sequence,
            r#type: event.event_type.clone(),
            version: event.version.clone(),
            recorded_at: event.recorded_at.clone(),
            payload: serde_json::from_str(event.payload.get()).map_err(ApiError::internal)?,
            metadata: serde_json::from_str(event.metadata.get()).map_err(ApiError::internal)?,
            hash: event.hash.clone(),
        })
    }
}

impl ChainLine {
    fn new(other: EventBody, event: &EventBody) -> Self {
        let relation = relation(&other, event);
        let EventBody { partition, position, stream, r#type, recorded_at, .. } = other;
        Self { partition, position, stream, r#type, recorded_at, relation }
    }
}

/// What another event of a conversation is to this one.
fn relation(other: &EventBody, event: &EventBody) -> &'static str {
    let same = |one: &EventBody, name: &str, next: &EventBody, of: &str| {
        id_in(&one.metadata, name).is_some_and(|id| Some(id) == id_in(&next.metadata, of))
    };
    if (other.partition, other.position) == (event.partition, event.position) {
        "self"
    } else if same(other, "event_id", event, "causation_id") {
        "cause"
    } else if same(other, "causation_id", event, "event_id") {
        "effect"
    } else if same(other, "command_id", event, "command_id") {
        "same_command"
    } else {
        "same_conversation"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(position: i64, event_id: u128, causation: Option<u128>, command: u128) -> EventBody {
        let id = |n: u128| Uuid::from_u128(n).to_string();
        EventBody {
            partition: 0,
            position,
            stream: "wallet/x".to_owned(),
            sequence: position,
            r#type: "x".to_owned(),
            version: "1".to_owned(),
            recorded_at: "2026-01-01T00:00:00Z".to_owned(),
            payload: Value::Null,
            metadata: json!({"event_id": id(event_id), "command_id": id(command), "causation_id": causation.map(id)}),
            hash: String::new(),
        }
    }

    #[test]
    fn a_chain_tells_causes_from_effects_and_both_from_what_is_only_near() {
        let middle = event(2, 20, Some(10), 200);
        for (other, expected) in [
            (event(1, 10, None, 100), "cause"),
            (event(2, 20, Some(10), 200), "self"),
            (event(3, 30, Some(20), 300), "effect"),
            (event(4, 40, Some(10), 200), "same_command"),
            (event(5, 50, None, 500), "same_conversation"),
        ] {
            assert_eq!(relation(&other, &middle), expected);
        }
    }

    #[test]
    fn a_stream_is_a_kind_and_an_id() {
        assert_eq!(stream("api_key/a/b").unwrap(), ("api_key".to_owned(), "a/b".to_owned()));
        assert!(stream("wallet").is_err() && stream("/x").is_err() && stream("wallet/").is_err());
    }
}
