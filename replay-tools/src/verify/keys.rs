//! Data keys: whatever is sealed in the log needs its subject's key, or an erasure that says why it is gone.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use calos_domain::operation::{Operation, OperationEvent};
use calos_domain::sealed::Sealed;
use calos_domain::upcast::{self, Label};
use calos_domain::{Decider, Record};

use super::{Check, Finding};
use crate::error::ToolError;

/// How often a key that should be gone is looked for again: an erasure that is under way right now destroys it a moment
/// after it says so.
const LOOKS_MAX: u32 = 10;

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Whose data is sealed in the log, and who was erased; each with where that was seen first.
#[derive(Default)]
pub(super) struct Subjects {
    sealed: HashMap<Uuid, (i32, i64)>,
    erased: HashMap<Uuid, (i32, i64)>,
}

impl Subjects {
    /// Adds what another partition has.
    pub(super) fn take_in(&mut self, next: Self) {
        for (all, next) in [(&mut self.sealed, next.sealed), (&mut self.erased, next.erased)] {
            for (subject, place) in next {
                all.entry(subject).or_insert(place);
            }
        }
    }
}

/// Notes every subject whose key seals something in an event, and every one that was erased.
pub(super) fn collect(record: &Record<'_>, subjects: &mut Subjects) {
    if record.aggregate_type == Operation::KIND {
        if let Ok(OperationEvent::SubjectErased(fact)) = upcast::decode(Label::from(record), record.payload) {
            subjects.erased.entry(fact.subject.0).or_insert((record.partition, record.position));
        }
        return;
    }
    // Most events hold no personal data; only those that may are parsed once more.
    if !record.payload.contains("\"ciphertext\"") {
        return;
    }
    if let Ok(payload) = serde_json::from_str::<Value>(record.payload) {
        visit(&payload, &mut |sealed| {
            subjects.sealed.entry(sealed.subject.0).or_insert((record.partition, record.position));
        });
    }
}

fn visit(value: &Value, seen: &mut impl FnMut(&Sealed)) {
    match value {
        Value::Object(fields) => {
            if let (2, Ok(sealed)) = (fields.len(), serde_json::from_value::<Sealed>(value.clone())) {
                seen(&sealed);
            } else {
                fields.values().for_each(|field| visit(field, seen));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| visit(item, seen)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Names the first subject without a key and without an erasure that says why, in the order of the log, and the first that
/// was erased and has a key all the same.
pub(super) async fn check(connection: &mut PgConnection, subjects: Subjects) -> Result<Check, ToolError> {
    let mut check = Check::new("data keys");
    let Subjects { sealed, erased } = subjects;
    let mut missing = without_key(connection, sealed.keys().copied().collect()).await?;
    missing.retain(|subject| !erased.contains_key(subject));
    // Whoever was erased since this verification began is not in what it read.
    let since = erased_since(connection, &missing).await?;
    missing.retain(|subject| !since.contains(subject));
    let gone = sealed.keys().filter(|subject| erased.contains_key(subject) || since.contains(subject)).count();
    check.looked_at = format!("{} subjects with sealed data, each with its key", sealed.len() - gone - missing.len());
    if gone > 0 {
        check.looked_at.push_str(&format!("; {gone} were erased, and none has one"));
    }
    for ((partition, position), subject) in in_order(missing, &sealed) {
        let what = format!("sealed for {subject}, whose data key is missing without an erasure");
        check.found(Finding::at(partition, position, what));
    }
    let back = with_key(connection, erased.keys().copied().collect()).await?;
    for ((partition, position), subject) in in_order(back, &erased) {
        let what = format!("{subject} was erased, and has a data key; run `calos-replay erase {subject}` again");
        check.found(Finding::at(partition, position, what));
    }
    Ok(check)
}

fn in_order(subjects: Vec<Uuid>, places: &HashMap<Uuid, (i32, i64)>) -> Vec<((i32, i64), Uuid)> {
    let placed = subjects.into_iter().filter_map(|subject| places.get(&subject).map(|place| (*place, subject)));
    let mut placed: Vec<_> = placed.collect();
    placed.sort_unstable();
    placed
}

async fn without_key(connection: &mut PgConnection, subjects: Vec<Uuid>) -> Result<Vec<Uuid>, ToolError> {
    let missing = sqlx::query_scalar(
        "SELECT subject FROM unnest($1::uuid[]) subject WHERE NOT EXISTS \
         (SELECT FROM subject_keys k WHERE k.subject = subject.subject)",
    );
    Ok(missing.bind(subjects).fetch_all(connection).await?)
}

async fn erased_since(connection: &mut PgConnection, subjects: &[Uuid]) -> Result<BTreeSet<Uuid>, ToolError> {
    let erased: Vec<Uuid> = sqlx::query_scalar(
        "SELECT subject FROM unnest($1::uuid[]) subject WHERE EXISTS \
         (SELECT FROM events e WHERE e.aggregate_type = 'account' AND e.aggregate_id = subject.subject::text \
          AND e.event_type = 'account_erased')",
    )
    .bind(subjects)
    .fetch_all(connection)
    .await?;
    Ok(erased.into_iter().collect())
}

async fn with_key(connection: &mut PgConnection, mut subjects: Vec<Uuid>) -> Result<Vec<Uuid>, ToolError> {
    for look in 0..LOOKS_MAX {
        let found = sqlx::query_scalar("SELECT subject FROM subject_keys WHERE subject = ANY($1)");
        subjects = found.bind(&subjects).fetch_all(&mut *connection).await?;
        if subjects.is_empty() || look + 1 == LOOKS_MAX {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(subjects)
}
