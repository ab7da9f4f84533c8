//! The shape of a read model's table: the one place its DDL, its binary rows and its comparisons come from.

use std::fmt;

/// Where a version of a read model lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Schema {
    /// What readers read.
    Live,
    /// The version being built.
    Next,
    /// The version that was live before.
    Old,
    /// One session's own temporary tables: a fold to compare with.
    Scratch,
}

impl Schema {
    /// The schema's name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "read",
            Self::Next => "read_next",
            Self::Old => "read_old",
            Self::Scratch => "pg_temp",
        }
    }

    /// A statement with every `{schema}` replaced by this schema's name.
    #[must_use]
    pub fn sql(self, template: &str) -> String {
        template.replace("{schema}", self.as_str())
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The types a read model's columns may have: few enough that every one has an exact binary form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ColumnType {
    /// `uuid`
    Uuid,
    /// `text`
    Text,
    /// `integer`
    Integer,
    /// `bigint`
    Bigint,
    /// `boolean`
    Boolean,
    /// `timestamp with time zone`, whole microseconds
    Timestamp,
    /// `jsonb`
    Jsonb,
}

impl ColumnType {
    /// The type's name, as PostgreSQL's `format_type` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Bigint => "bigint",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp with time zone",
            Self::Jsonb => "jsonb",
        }
    }
}

/// One column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub of: ColumnType,
    /// Whether it may be absent.
    pub nullable: bool,
}

impl Column {
    /// A column that always has a value.
    #[must_use]
    pub const fn new(name: &'static str, of: ColumnType) -> Self {
        Self { name, of, nullable: false }
    }

    /// A column that may be absent.
    #[must_use]
    pub const fn nullable(name: &'static str, of: ColumnType) -> Self {
        Self { name, of, nullable: true }
    }
}

/// The names of columns, in their order, for [`TableSpec::column_names`].
#[must_use]
pub const fn column_names<const N: usize>(columns: &[Column; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        names[index] = columns[index].name;
        index += 1;
    }
    names
}

/// A secondary index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Index {
    /// Its name, unique within a schema; it moves with its table.
    pub name: &'static str,
    /// What stands between the parentheses.
    pub columns: &'static str,
    /// The `WHERE` of a partial index, without the word.
    pub only: Option<&'static str>,
}

/// Whether a read model grows with the events or with the things they are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// A row per event, never changed afterwards: a rebuild may flush its rows whenever it likes.
    PerEvent,
    /// A row per key, changed by many events: a rebuild folds a whole partition before it writes, and what it keeps in
    /// memory is bounded by the number of distinct keys.
    PerKey,
}

/// A read model's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableSpec {
    /// Its name, the same in every schema.
    pub name: &'static str,
    /// Its columns, in the order of the table and of every binary row.
    pub columns: &'static [Column],
    /// The columns' names, in the same order: [`column_names`] of them.
    pub column_names: &'static [&'static str],
    /// The primary key, in order.
    pub key: &'static [&'static str],
    /// Secondary indexes.
    pub indexes: &'static [Index],
    /// Percentage of each page that inserts may fill; less than 100 leaves room for updates in place.
    pub fillfactor: u8,
}

impl TableSpec {
    /// `CREATE TABLE` without key and indexes, as a bulk load wants it.
    #[must_use]
    pub fn create_table(&self, schema: Schema) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                let null = if column.nullable { "" } else { " NOT NULL" };
                format!("    {} {}{null}", column.name, column.of.as_str())
            })
            .collect();
        format!(
            "CREATE TABLE {schema}.{} (\n{}\n) WITH (fillfactor = {})",
            self.name,
            columns.join(",\n"),
            self.fillfactor
        )
    }

    /// The primary key, then the secondary indexes, one statement each, to be run in order.
    #[must_use]
    pub fn create_keys(&self, schema: Schema) -> Vec<String> {
        let name = self.name;
        let mut statements = vec![format!(
            "ALTER TABLE {schema}.{name} ADD CONSTRAINT {name}_pkey PRIMARY KEY ({})",
            self.key.join(", ")
        )];
        statements.extend(self.indexes.iter().map(|index| {
            let only = index.only.map_or_else(String::new, |only| format!(" WHERE {only}"));
            format!("CREATE INDEX {} ON {schema}.{name} ({}){only}", index.name, index.columns)
        }));
        statements
    }

    /// Everything the table needs, in order.
    #[must_use]
    pub fn create(&self, schema: Schema) -> Vec<String> {
        let mut statements = vec![self.create_table(schema)];
        statements.extend(self.create_keys(schema));
        statements
    }

    /// The columns' names, separated by commas, for `SELECT` and `COPY`.
    #[must_use]
    pub fn column_list(&self) -> String {
        self.column_names.join(", ")
    }

    /// The key's columns, separated by commas, for `ORDER BY`.
    #[must_use]
    pub fn key_list(&self) -> String {
        self.key.join(", ")
    }
}
