//! How facts of operators' tools were written before.

use serde_json::{Value, json};

use crate::upcast::{Body, take_text};

use super::EVERY_PROJECTION;

/// Version 1 of `rebuild_started` had a projection's name, or `all`; version 2 has a scope.
pub(super) fn scope_of_a_name(body: &mut Body) -> Result<(), String> {
    let name = take_text(body, "projection")?;
    let scope = if name == EVERY_PROJECTION { Value::from("every") } else { json!({ "one": { "projection": name } }) };
    body.insert("scope".to_owned(), scope);
    Ok(())
}
