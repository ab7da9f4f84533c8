//! Data keys: whatever is sealed in the log needs its subject's key, or an erasure that says why it is gone.

use std::collections::HashMap;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use calos_domain::Record;
use calos_domain::sealed::Sealed;

use super::{Check, Finding};
use crate::error::ToolError;

/// Notes every subject whose key seals something in an event.
pub(super) fn collect(record: &Record<'_>, subjects: &mut HashMap<Uuid, (i32, i64)>) {
    // Most events hold no personal data; only those that may are parsed once more.
    if !record.payload.contains("\"ciphertext\"") {
        return;
    }
    if let Ok(payload) = serde_json::from_str::<Value>(record.payload) {
        visit(&payload, &mut |sealed| {
            subjects.entry(sealed.subject.0).or_insert((record.partition, record.position));
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

/// Names the first subject without a key, in the order of the log.
pub(super) async fn check(
    connection: &mut PgConnection,
    subjects: HashMap<Uuid, (i32, i64)>,
) -> Result<Check, ToolError> {
    let mut check = Check::new("data keys");
    check.looked_at = format!("{} subjects with sealed data, each with its key", subjects.len());
    let ids: Vec<Uuid> = subjects.keys().copied().collect();
    let missing: Vec<Uuid> = sqlx::query_scalar(
        "SELECT subject FROM unnest($1::uuid[]) subject WHERE NOT EXISTS \
         (SELECT FROM subject_keys k WHERE k.subject = subject.subject)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let mut missing: Vec<((i32, i64), Uuid)> =
        missing.into_iter().filter_map(|subject| subjects.get(&subject).map(|place| (*place, subject))).collect();
    missing.sort_unstable();
    for ((partition, position), subject) in missing {
        let what = format!("sealed for {subject}, whose data key is missing without an erasure");
        check.found(Finding::at(partition, position, what));
    }
    Ok(check)
}
