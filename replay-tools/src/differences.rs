//! Two tables of the same shape, compared row by row.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;

use calos_projections::{Schema, TableSpec};

use crate::error::ToolError;

/// Differences listed unless somebody asks for more; all of them are counted.
pub const DIFFERENCES_LISTED_ROWS: i64 = 100;

/// Rows compared at once: both sides of them fit into the memory a rebuild gives its comparison, and nobody waits long for
/// what has been begun.
const STRETCH_ROWS: f64 = 5_000.0;

/// More stretches than this are not made of one table.
const STRETCHES_MAX: f64 = 5_000.0;

/// Rows that are looked at to find out where stretches of about the same length end.
const SAMPLE_ROWS: f64 = 100_000.0;

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
    let mut all = Differences::default();
    for stretch in stretches(connection, tables, log).await? {
        stretch.compare(connection, live, log, limit, &mut all).await?;
    }
    Ok(all)
}

/// Rows of a table that are compared at once.
pub(crate) struct Stretch {
    table: &'static TableSpec,
    condition: String,
}

impl Stretch {
    /// Compares them, in whatever snapshot the connection's transaction has, and adds what was found; of the rows it lists
    /// only as many as there is room for.
    pub(crate) async fn compare(
        &self,
        connection: &mut PgConnection,
        live: Schema,
        log: Schema,
        limit: i64,
        all: &mut Differences,
    ) -> Result<(), ToolError> {
        let left = limit.saturating_sub(i64::try_from(all.listed.len()).unwrap_or(i64::MAX));
        let found = compare(connection, self.table, live, log, &self.condition, left).await?;
        all.count += found.count;
        all.listed.extend(found.listed);
        all.listed.truncate(usize::try_from(limit.max(1)).unwrap_or(usize::MAX));
        Ok(())
    }
}

/// All rows of some tables in stretches, in the order of their keys; `schema` is where to look how many there are.
pub(crate) async fn stretches(
    connection: &mut PgConnection,
    tables: &'static [TableSpec],
    schema: Schema,
) -> Result<Vec<Stretch>, ToolError> {
    let mut all = Vec::new();
    for table in tables {
        let conditions = conditions(connection, table, schema).await?;
        all.extend(conditions.into_iter().map(|condition| Stretch { table, condition }));
    }
    Ok(all)
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

/// Conditions that each row of a table meets exactly one of, in the order of the key, so that what is compared at once fits
/// into memory and takes little time; a table that is small or of unknown size is one stretch.
async fn conditions(
    connection: &mut PgConnection,
    table: &TableSpec,
    schema: Schema,
) -> Result<Vec<String>, ToolError> {
    let name = format!("{schema}.{}", table.name);
    let rows: Option<f32> = sqlx::query_scalar("SELECT reltuples FROM pg_class WHERE oid = to_regclass($1)")
        .bind(&name)
        .fetch_optional(&mut *connection)
        .await?;
    let rows = f64::from(rows.unwrap_or_default());
    let parts = (rows / STRETCH_ROWS).min(STRETCHES_MAX).floor();
    if parts < 2.0 {
        return Ok(vec![EVERY_ROW.to_owned()]);
    }
    let percent = (SAMPLE_ROWS / rows * 100.0).min(100.0);
    let key = table.key_list();
    let texts = table.key.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
    let borders: Vec<Vec<String>> = sqlx::query_scalar(&format!(
        "SELECT ARRAY[{texts}] FROM (SELECT {key}, row_number() OVER (ORDER BY {key}) AS number, \
         count(*) OVER () AS sampled FROM {name} TABLESAMPLE SYSTEM ({percent})) AS sample \
         WHERE number % greatest(1, sampled / $1::bigint) = 0 ORDER BY {key}"
    ))
    .bind(parts as i64)
    .fetch_all(connection)
    .await?;
    Ok(between(table, &borders))
}

/// From each border to the next; a border belongs to what begins with it. The first column is named once more, because from
/// it alone PostgreSQL sees how few rows there are between two of them.
fn between(table: &TableSpec, borders: &[Vec<String>]) -> Vec<String> {
    let key = table.key_list();
    let literal = |(name, text): (&&str, &String)| {
        let of = table.columns.iter().find(|column| column.name == *name).map_or("text", |column| column.of.as_str());
        format!("'{}'::{of}", text.replace('\'', "''"))
    };
    let mut conditions = Vec::with_capacity(borders.len() + 1);
    let mut from = Vec::new();
    for border in borders {
        let values: Vec<String> = table.key.iter().zip(border).map(literal).collect();
        let (Some(column), Some(first)) = (table.key.first(), values.first()) else { continue };
        let values = values.join(", ");
        let until = [format!("{column} <= {first}"), format!("({key}) < ({values})")];
        conditions.push(from.iter().chain(&until).cloned().collect::<Vec<_>>().join(" AND "));
        from = vec![format!("{column} >= {first}"), format!("({key}) >= ({values})")];
    }
    conditions.push(if from.is_empty() { EVERY_ROW.to_owned() } else { from.join(" AND ") });
    conditions
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

#[cfg(test)]
mod tests {
    use calos_projections::{Column, ColumnType};

    use super::*;

    const COLUMNS: [Column; 2] = [Column::new("tenant", ColumnType::Uuid), Column::new("name", ColumnType::Text)];

    #[test]
    fn stretches_follow_one_another_and_a_border_belongs_to_the_later_one() {
        let table = TableSpec {
            name: "named",
            columns: &COLUMNS,
            column_names: &["tenant", "name"],
            key: &["tenant", "name"],
            indexes: &[],
            fillfactor: 100,
        };
        let border = |tenant: &str, name: &str| vec![tenant.to_owned(), name.to_owned()];
        assert_eq!(between(&table, &[]), [EVERY_ROW]);
        assert_eq!(
            between(&table, &[border("a", "it's"), border("b", "z")]),
            [
                "tenant <= 'a'::uuid AND (tenant, name) < ('a'::uuid, 'it''s'::text)",
                "tenant >= 'a'::uuid AND (tenant, name) >= ('a'::uuid, 'it''s'::text) \
                 AND tenant <= 'b'::uuid AND (tenant, name) < ('b'::uuid, 'z'::text)",
                "tenant >= 'b'::uuid AND (tenant, name) >= ('b'::uuid, 'z'::text)",
            ]
        );
    }
}
