//! Writing rows at the speed the database can take them: a binary `COPY` encoder with bounded buffers.

use std::fmt::Write as _;

use sqlx::PgConnection;
use uuid::Uuid;

use calos_domain::Timestamp;

use crate::copy_out::{POSTGRES_EPOCH_MICROS, SIGNATURE};

/// A table's rows are sent once they fill this much.
pub const COPY_FLUSH_BYTES: usize = 4 * 1024 * 1024;

/// Sent in pieces of this size, so that the driver's own buffer stays small.
const COPY_SEND_BYTES: usize = 1024 * 1024;

/// One value of a row, borrowed for as long as it takes to encode it. The variant has to be the column's exact type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// `NULL`.
    Null,
    /// `boolean`
    Bool(bool),
    /// `smallint`
    I16(i16),
    /// `integer`
    I32(i32),
    /// `bigint`
    I64(i64),
    /// `text`
    Text(&'a str),
    /// `uuid`
    Uuid(Uuid),
    /// `timestamptz`
    Time(Timestamp),
    /// `bytea`
    Bytes(&'a [u8]),
    /// `json`
    Json(&'a str),
    /// `jsonb`
    Jsonb(&'a str),
}

impl<'a> Value<'a> {
    /// `NULL` for nothing, else the value as `make` writes it.
    pub fn optional<T>(value: Option<T>, make: impl FnOnce(T) -> Value<'a>) -> Self {
        value.map_or(Self::Null, make)
    }
}

/// Why rows could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The database refused them, or the connection was lost.
    #[error("loading rows failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A row for a table the sink does not know.
    #[error("there is no table {0} to load")]
    NoTable(String),
    /// A row with another number of values than the table has columns.
    #[error("a row of {table} has {found} values instead of {expected}")]
    Columns {
        /// The table.
        table: &'static str,
        /// Columns of the table.
        expected: usize,
        /// Values of the row.
        found: usize,
    },
    /// A value longer than the wire format can say.
    #[error("a value of {table} is longer than PostgreSQL takes")]
    TooLong {
        /// The table.
        table: &'static str,
    },
    /// A moment PostgreSQL cannot hold.
    #[error("a moment of {table} is out of range")]
    Moment {
        /// The table.
        table: &'static str,
    },
    /// The database stored another number of rows than were sent.
    #[error("{table}: {sent} rows were sent, {stored} were stored")]
    Rows {
        /// The table.
        table: &'static str,
        /// Rows sent.
        sent: u64,
        /// Rows the database counted.
        stored: u64,
    },
}

struct SinkTable {
    name: &'static str,
    columns: &'static [&'static str],
    rows: Vec<u8>,
    waiting: u64,
}

/// Rows on their way into one projection's tables.
///
/// Encoding never waits; [`CopySink::flush`] sends what has gathered. Whoever encodes a stream of rows calls it between
/// batches, and holds no more than [`COPY_FLUSH_BYTES`] and one batch per table.
pub struct CopySink {
    tables: Vec<SinkTable>,
    stored: u64,
}

impl CopySink {
    /// A sink for tables with these names and columns, in the order the rows will have.
    pub fn new(tables: impl IntoIterator<Item = (&'static str, &'static [&'static str])>) -> Self {
        let table = |(name, columns)| SinkTable { name, columns, rows: Vec::new(), waiting: 0 };
        Self { tables: tables.into_iter().map(table).collect(), stored: 0 }
    }

    /// Encodes one row: a value per column, in the table's order.
    ///
    /// # Errors
    /// [`CopyError::NoTable`], [`CopyError::Columns`], [`CopyError::TooLong`] or [`CopyError::Moment`]; the row is not
    /// kept then.
    pub fn row(&mut self, table: &str, values: &[Value<'_>]) -> Result<(), CopyError> {
        let Some(target) = self.tables.iter_mut().find(|known| known.name == table) else {
            return Err(CopyError::NoTable(table.to_owned()));
        };
        let (name, expected, found) = (target.name, target.columns.len(), values.len());
        let count = i16::try_from(found).ok().filter(|_| found == expected);
        let count = count.ok_or(CopyError::Columns { table: name, expected, found })?;
        let before = target.rows.len();
        target.rows.extend_from_slice(&count.to_be_bytes());
        for value in values {
            if let Err(error) = encode(&mut target.rows, name, *value) {
                target.rows.truncate(before);
                return Err(error);
            }
        }
        target.waiting += 1;
        Ok(())
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.tables.iter().map(|table| table.rows.len()).sum()
    }

    /// Rows the database has taken so far.
    #[must_use]
    pub fn stored_rows(&self) -> u64 {
        self.stored
    }

    /// Sends every table's rows that fill `at_least` bytes, as one `COPY … FROM STDIN` each.
    ///
    /// `schema` is written into the statement as it is. After an error the connection is in the middle of a `COPY` and
    /// must be closed, not reused.
    ///
    /// # Errors
    /// [`CopyError::Database`], or [`CopyError::Rows`] when the database counted other rows than were sent.
    pub async fn flush(
        &mut self,
        connection: &mut PgConnection,
        schema: &str,
        at_least: usize,
    ) -> Result<(), CopyError> {
        for table in &mut self.tables {
            if table.waiting > 0 && table.rows.len() >= at_least {
                self.stored += table.send(connection, schema).await?;
            }
        }
        Ok(())
    }

    /// Sends everything that is left.
    ///
    /// # Errors
    /// As [`CopySink::flush`].
    pub async fn finish(&mut self, connection: &mut PgConnection, schema: &str) -> Result<(), CopyError> {
        self.flush(connection, schema, 0).await
    }
}

impl SinkTable {
    async fn send(&mut self, connection: &mut PgConnection, schema: &str) -> Result<u64, CopyError> {
        let mut copy = connection.copy_in_raw(&self.statement(schema)).await?;
        let mut header = [0u8; 19];
        header[..SIGNATURE.len()].copy_from_slice(SIGNATURE);
        copy.send(&header[..]).await?;
        for piece in self.rows.chunks(COPY_SEND_BYTES) {
            copy.send(piece).await?;
        }
        copy.send(&(-1i16).to_be_bytes()[..]).await?;
        let stored = copy.finish().await?;
        if stored != self.waiting {
            return Err(CopyError::Rows { table: self.name, sent: self.waiting, stored });
        }
        self.rows.clear();
        self.waiting = 0;
        Ok(stored)
    }

    fn statement(&self, schema: &str) -> String {
        let mut text = format!("COPY {schema}.{} (", self.name);
        for (index, column) in self.columns.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}\"{column}\"", if index > 0 { ", " } else { "" });
        }
        text.push_str(") FROM STDIN (FORMAT binary)");
        text
    }
}

fn encode(out: &mut Vec<u8>, table: &'static str, value: Value<'_>) -> Result<(), CopyError> {
    match value {
        Value::Null => out.extend_from_slice(&(-1i32).to_be_bytes()),
        Value::Bool(value) => fixed(out, &[u8::from(value)]),
        Value::I16(value) => fixed(out, &value.to_be_bytes()),
        Value::I32(value) => fixed(out, &value.to_be_bytes()),
        Value::I64(value) => fixed(out, &value.to_be_bytes()),
        Value::Uuid(value) => fixed(out, value.as_bytes()),
        Value::Time(at) => {
            let since_2000 = at.micros().checked_sub(POSTGRES_EPOCH_MICROS);
            fixed(out, &since_2000.ok_or(CopyError::Moment { table })?.to_be_bytes());
        }
        Value::Text(text) | Value::Json(text) => variable(out, table, &[], text.as_bytes())?,
        Value::Bytes(bytes) => variable(out, table, &[], bytes)?,
        // The binary form of jsonb is its format's number and the text.
        Value::Jsonb(text) => variable(out, table, &[1], text.as_bytes())?,
    }
    Ok(())
}

fn fixed<const N: usize>(out: &mut Vec<u8>, bytes: &[u8; N]) {
    out.extend_from_slice(&(N as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn variable(out: &mut Vec<u8>, table: &'static str, prefix: &[u8], bytes: &[u8]) -> Result<(), CopyError> {
    let length = i32::try_from(prefix.len() + bytes.len()).map_err(|_| CopyError::TooLong { table })?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(prefix);
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink() -> CopySink {
        CopySink::new([("wallet_balance", ["tenant_id", "available"].as_slice())])
    }

    #[test]
    fn a_row_is_a_count_and_length_prefixed_values() {
        let mut sink = sink();
        sink.row("wallet_balance", &[Value::Text("ab"), Value::I64(-2)]).unwrap();
        let expected = [&[0, 2, 0, 0, 0, 2][..], b"ab", &[0, 0, 0, 8], &(-2i64).to_be_bytes()].concat();
        assert_eq!(sink.tables[0].rows, expected);
        sink.row("wallet_balance", &[Value::Null, Value::Jsonb("{}")]).unwrap();
        assert_eq!(sink.tables[0].rows[expected.len()..], [0, 2, 255, 255, 255, 255, 0, 0, 0, 3, 1, b'{', b'}']);
    }

    #[test]
    fn moments_count_from_the_year_2000() {
        let mut out = Vec::new();
        encode(&mut out, "t", Value::Time(Timestamp::from_micros(POSTGRES_EPOCH_MICROS + 5))).unwrap();
        assert_eq!(out, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert!(matches!(
            encode(&mut out, "t", Value::Time(Timestamp::from_micros(i64::MIN))),
            Err(CopyError::Moment { table: "t" })
        ));
    }

    #[test]
    fn a_refused_row_leaves_nothing_behind() {
        let mut sink = sink();
        let short = sink.row("wallet_balance", &[Value::Null]);
        assert!(matches!(short, Err(CopyError::Columns { expected: 2, found: 1, .. })));
        let moment = Value::Time(Timestamp::from_micros(i64::MIN));
        assert!(sink.row("wallet_balance", &[Value::Text("kept?"), moment]).is_err());
        assert!(matches!(sink.row("nowhere", &[]), Err(CopyError::NoTable(_))));
        assert_eq!(sink.waiting_bytes(), 0);
    }
}
