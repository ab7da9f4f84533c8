//! The small tables a restore needs beside the log: which there are, written down row by row, and put back.

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::ToolError;

/// Rows put back by one statement.
const ROWS_AT_ONCE: usize = 1_000;

/// Which small tables go with the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tables {
    /// None: the log alone.
    #[default]
    None,
    /// The keys, wrapped by the master key.
    Keys,
    /// The keys, and what else is no projection.
    All,
}

/// One of them: the columns that are kept, in the order of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SmallTable {
    pub(crate) name: &'static str,
    columns: &'static str,
    order: &'static str,
    with: Tables,
}

/// In an order in which they can be put back.
const SMALL_TABLES: [SmallTable; 6] = [
    SmallTable {
        name: "secrets_root",
        columns: "wrapped, master_version, created_at",
        order: "created_at",
        with: Tables::Keys,
    },
    SmallTable {
        name: "subject_keys",
        columns: "subject, wrapped_key, master_version, created_at",
        order: "subject",
        with: Tables::Keys,
    },
    SmallTable {
        name: "keyring_keys",
        columns: "version, wrapped, master_version, created_at",
        order: "version",
        with: Tables::Keys,
    },
    SmallTable {
        name: "keyring",
        columns: "id, tenant_id, provider, key_version, sealed, created_at",
        order: "id",
        with: Tables::Keys,
    },
    SmallTable { name: "anchors", columns: "anchored_at, anchor", order: "id", with: Tables::All },
    SmallTable {
        name: IDEMPOTENCY,
        columns: "partition, caller, key, request_hash, positions, sealed_answer, created_at",
        order: "partition, caller, key",
        with: Tables::All,
    },
];

/// Answers to requests that may be repeated: they name events, so they go only with all of them.
pub(crate) const IDEMPOTENCY: &str = "idempotency";

/// What stands in no file as a table: the log itself, its epochs, which the header has, and what is made from the log.
#[cfg(test)]
const LEFT_OUT: [&str; 9] = [
    "_sqlx_migrations",
    "checkpoints",
    "dead_letters",
    "events",
    "log",
    "log_epochs",
    "partitions",
    "projections",
    "snapshots",
];

impl Tables {
    /// Those that go with it.
    pub(crate) fn list(self) -> impl Iterator<Item = SmallTable> {
        SMALL_TABLES.into_iter().filter(move |table| self >= table.with)
    }
}

/// Every one of them.
pub(crate) fn all() -> impl Iterator<Item = SmallTable> {
    SMALL_TABLES.into_iter()
}

impl SmallTable {
    /// The statement that reads every row as JSON.
    pub(crate) fn select(self) -> String {
        let Self { name, columns, order, .. } = self;
        format!("SELECT row_to_json(r)::text FROM (SELECT {columns} FROM public.{name} ORDER BY {order}) r")
    }

    /// Puts rows back, in the caller's transaction, but for the keys of the erased; answers how many those were.
    pub(crate) async fn put(
        self,
        connection: &mut PgConnection,
        rows: &[String],
        erased: &[Uuid],
    ) -> Result<u64, ToolError> {
        let Self { name, columns, .. } = self;
        let without =
            if name == "subject_keys" { " WHERE subject <> ALL($2)" } else { " WHERE $2::uuid[] IS NOT NULL" };
        let text = format!(
            "INSERT INTO public.{name} ({columns}) SELECT {columns} \
             FROM json_populate_recordset(null::public.{name}, $1::json){without}"
        );
        let mut left_out = 0;
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let list = format!("[{}]", rows.join(","));
            let put = sqlx::query(&text).bind(list).bind(erased).execute(&mut *connection).await?;
            left_out += u64::try_from(rows.len()).unwrap_or(u64::MAX).saturating_sub(put.rows_affected());
        }
        Ok(left_out)
    }
}

/// The small table of that name.
pub(crate) fn find(name: &str) -> Option<SmallTable> {
    SMALL_TABLES.into_iter().find(|table| table.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names behind `CREATE TABLE` in all migrations, without those of read models.
    fn tables_of_the_migrations() -> Vec<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let mut names = vec!["_sqlx_migrations".to_owned()];
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let created = text.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
            let named = created.filter_map(|rest| rest.split([' ', '(']).next()).map(str::to_owned);
            names.extend(named.filter(|name| !name.starts_with("read.")));
        }
        names.sort();
        names
    }

    #[test]
    fn every_table_that_is_no_read_model_is_backed_up_or_left_out_on_purpose() {
        let mut known: Vec<&str> = all().map(|table| table.name).chain(LEFT_OUT).collect();
        known.sort_unstable();
        assert_eq!(tables_of_the_migrations(), known);
    }

    #[test]
    fn the_log_alone_has_no_key() {
        assert_eq!(Tables::None.list().count(), 0);
        assert!(Tables::Keys.list().all(|table| !["anchors", IDEMPOTENCY].contains(&table.name)));
        assert_eq!(Tables::All.list().count(), SMALL_TABLES.len());
    }
}
