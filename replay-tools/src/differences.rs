//! Two tables of the same shape, compared row by row.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;

use calos_projections::{Schema, TableSpec};

use crate::error::ToolError;

/// Differences listed unless somebody asks for more; all of them are counted.
pub const DIFFERENCES_LISTED_ROWS: i64 = 100;

/// The condition that every row meets.
const EVERY_ROW: &str = "true";

/// One row that is not the same on both sides.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub key: Map<String, Value>,
    /// The row as it stands; none when it should not be missing but is.
    pub live: Option<Map<String, Value>>,
    /// The row as the log gives it; none when there should be none.
    pub log: Option<Map<String, Value>>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.table)?;
        for (index, (name, value)) in self.key.iter().enumerate() {
            write!(f, "{} {name} {}", if index > 0 { "," } else { "" }, plain(value))?;
        }
        match (&self.live, &self.log) {
            (Some(live), Some(log)) => {
                let mut separator = ": ";
                for (name, found) in live {
                    let Some(expected) = log.get(name).filter(|expected| *expected != found) else { continue };
                    write!(f, "{separator}{name} is {}, the log gives {}", plain(found), plain(expected))?;
                    separator = "; ";
                }
                Ok(())
            }
            (Some(_), None) => f.write_str(": stands in the table, but the log gives no such row"),
            (None, _) => f.write_str(": the log gives this row, but it is missing from the table"),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a comparison found.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Differences {
    /// How many rows differ.
    pub count: i64,
    /// The first of them, in the order of the key.
    pub listed: Vec<Difference>,
}

/// Compares tables in two schemas on one connection, in whatever snapshot its transaction has.
///
/// # Errors
/// [`ToolError::Database`], also when one of the tables is missing or has another shape.
pub async fn compare_all(
    connection: &mut PgConnection,
    tables: &'static [TableSpec],
    live: Schema,
    log: Schema,
    limit: i64,
) -> Result<Differences, ToolError> {
    compare_where(connection, tables, live, log, EVERY_ROW, limit).await
}

/// Compares the rows that meet a condition, the same on both sides.
///
/// # Errors
/// As [`compare_all`].
pub(crate) async fn compare_where(
    connection: &mut PgConnection,
    tables: &'static [TableSpec],
    live: Schema,
    log: Schema,
    condition: &str,
    limit: i64,
) -> Result<Differences, ToolError> {
    let mut all = Differences::default();
    for table in tables {
        let found = compare(connection, table, live, log, condition, limit).await?;
        all.count += found.count;
        all.listed.extend(found.listed);
    }
    Ok(all)
}

async fn compare(
    connection: &mut PgConnection,
    table: &'static TableSpec,
    live: Schema,
    log: Schema,
    condition: &str,
    limit: i64,
) -> Result<Differences, ToolError> {
    let rows: Vec<(i64, Option<String>, Option<String>)> =
        sqlx::query_as(&statement(table, live, log, condition)).bind(limit.max(1)).fetch_all(connection).await?;
    let count = rows.first().map_or(0, |(count, _, _)| *count);
    let mut listed = Vec::with_capacity(rows.len());
    for (_, live, log) in rows {
        let (live, log) = (row(live)?, row(log)?);
        let mut key = Map::new();
        for name in table.key {
            let value = live.as_ref().or(log.as_ref()).and_then(|row| row.get(*name));
            key.insert((*name).to_owned(), value.cloned().unwrap_or_default());
        }
        listed.push(Difference { table: table.name, key, live, log });
    }
    Ok(Differences { count, listed })
}

fn row(text: Option<String>) -> Result<Option<Map<String, Value>>, ToolError> {
    let parse = |text: String| serde_json::from_str(&text);
    text.map(parse).transpose().map_err(|error| ToolError::Corrupt(format!("a row is no JSON object: {error}")))
}

fn statement(table: &TableSpec, live: Schema, log: Schema, condition: &str) -> String {
    let name = table.name;
    let key = |side: &str| table.key.iter().map(|column| format!("{side}.{column}")).collect::<Vec<_>>();
    let joined: Vec<String> = key("l").iter().zip(key("f")).map(|(left, right)| format!("{left} = {right}")).collect();
    let order: Vec<String> =
        key("l").iter().zip(key("f")).map(|(left, right)| format!("coalesce({left}, {right})")).collect();
    let values = |side: &str| {
        table.columns.iter().map(|column| format!("{side}.{}", column.name)).collect::<Vec<_>>().join(", ")
    };
    let side = |schema: Schema| match condition {
        EVERY_ROW => format!("{schema}.{name}"),
        condition => format!("(SELECT * FROM {schema}.{name} WHERE {condition})"),
    };
    let first = table.key.first().copied().unwrap_or("ctid");
    format!(
        "SELECT count(*) OVER (), \
         CASE WHEN l.{first} IS NOT NULL THEN row_to_json(l)::text END, \
         CASE WHEN f.{first} IS NOT NULL THEN row_to_json(f)::text END \
         FROM {} l FULL JOIN {} f ON {} \
         WHERE ROW({}) IS DISTINCT FROM ROW({}) ORDER BY {} LIMIT $1",
        side(live),
        side(log),
        joined.join(" AND "),
        values("l"),
        values("f"),
        order.join(", ")
    )
}
