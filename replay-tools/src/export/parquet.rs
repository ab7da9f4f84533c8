//! The journal as a Parquet file: row groups of bounded size, each written out before the next is gathered.
//!
//! Its metadata has what the text formats say in comments, under the key `calos.journal`. A file that ends early has no
//! footer, and no reader takes it.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::rows::Rows;
use super::text::{heads, preface};
use super::{Exported, JournalExport};
use crate::error::ToolError;

/// A row group is written once it has so many rows, or at the end.
const ROW_GROUP_ROWS: usize = 32 * 1_024;

/// `units` are whole and in the asset's smallest unit: micro-dollars, phone credits. A debit is positive.
const SCHEMA: &str = "message journal {
    REQUIRED INT32 partition;
    REQUIRED INT64 position;
    REQUIRED INT64 effective_at (TIMESTAMP(MICROS,true));
    REQUIRED INT64 recorded_at (TIMESTAMP(MICROS,true));
    OPTIONAL BYTE_ARRAY tenant_id (STRING);
    REQUIRED BYTE_ARRAY event_type (STRING);
    REQUIRED BYTE_ARRAY asset (STRING);
    REQUIRED BYTE_ARRAY account (STRING);
    REQUIRED INT64 units;
}";

/// A file on its way.
pub(super) struct ParquetFile {
    writer: SerializedFileWriter<Vec<u8>>,
    gathered: Rows,
}

impl ParquetFile {
    /// A file without rows.
    pub(super) fn begin(export: JournalExport, exported: &Exported) -> Result<Self, ToolError> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(of_parquet)?);
        let value = |text: String| Some(text);
        let metadata = vec![
            KeyValue { key: "calos.journal".to_owned(), value: value(preface(export, exported).join("\n")) },
            KeyValue { key: "calos.journal.heads".to_owned(), value: value(heads(exported)) },
        ];
        let properties = WriterProperties::builder()
            .set_created_by("CALOS".to_owned())
            .set_compression(Compression::SNAPPY)
            // Of pages, statistics would take longer than they save: readers skip whole groups.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_key_value_metadata(Some(metadata))
            .build();
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).map_err(of_parquet)?;
        Ok(Self { writer, gathered: Rows::default() })
    }

    /// Takes the rows that follow.
    pub(super) fn write(&mut self, rows: Rows) -> Result<(), ToolError> {
        self.gathered.append(rows);
        if self.gathered.len() >= ROW_GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    /// What has been written since this was asked last.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.inner_mut())
    }

    /// The last rows and the footer.
    pub(super) fn end(mut self, exported: &Exported) -> Result<Vec<u8>, ToolError> {
        self.flush()?;
        let Exported { events, entries, postings, .. } = exported;
        let end = format!("{entries} entries, {postings} postings of {events} events");
        let end = KeyValue { key: "calos.journal.end".to_owned(), value: Some(end) };
        self.writer.append_key_value_metadata(end);
        self.writer.into_inner().map_err(of_parquet)
    }

    fn flush(&mut self) -> Result<(), ToolError> {
        let rows = std::mem::take(&mut self.gathered);
        if rows.len() == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(of_parquet)?;
        columns(&mut group, rows).map_err(of_parquet)?;
        group.close().map_err(of_parquet)?;
        Ok(())
    }
}

/// The columns in the schema's order.
fn columns(group: &mut SerializedRowGroupWriter<'_, Vec<u8>>, rows: Rows) -> Result<(), ParquetError> {
    column::<Int32Type>(group, &rows.partition, None)?;
    column::<Int64Type>(group, &rows.position, None)?;
    column::<Int64Type>(group, &rows.effective_at, None)?;
    column::<Int64Type>(group, &rows.recorded_at, None)?;
    let present: Vec<i16> = rows.tenant.iter().map(|tenant| i16::from(tenant.is_some())).collect();
    let mut tenants: Vec<ByteArray> = Vec::with_capacity(rows.tenant.len());
    for tenant in rows.tenant.iter().flatten() {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        tenants.push(ByteArray::from(&*tenant.0.hyphenated().encode_lower(&mut text)));
    }
    column::<ByteArrayType>(group, &tenants, Some(&present))?;
    let names: Vec<ByteArray> = rows.event_names.iter().map(|name| ByteArray::from(name.as_str())).collect();
    let named = |number: &usize| names.get(*number).cloned().unwrap_or_default();
    column::<ByteArrayType>(group, &rows.event_type.iter().map(named).collect::<Vec<_>>(), None)?;
    let assets: Vec<ByteArray> =
        rows.asset.iter().map(|asset| ByteArray::from(Bytes::from_static(asset.as_bytes()))).collect();
    column::<ByteArrayType>(group, &assets, None)?;
    let names = Bytes::from(rows.names);
    let accounts: Vec<ByteArray> = rows.account.into_iter().map(|name| ByteArray::from(names.slice(name))).collect();
    column::<ByteArrayType>(group, &accounts, None)?;
    column::<Int64Type>(group, &rows.units, None)
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    present: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let next = group.next_column()?;
    let mut column = next.ok_or_else(|| ParquetError::General("the schema has fewer columns".to_owned()))?;
    column.typed::<T>().write_batch(values, present, None)?;
    column.close()
}

fn of_parquet(error: ParquetError) -> ToolError {
    ToolError::Output(std::io::Error::other(error))
}
