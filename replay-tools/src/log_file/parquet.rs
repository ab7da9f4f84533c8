//! The log as a Parquet file: a column per column of the log, header and end in the file's own metadata.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use calos_domain::Timestamp;

use super::Stored;
use crate::error::ToolError;

/// A row group is written once it has so many events, and read as a whole.
const ROW_GROUP_EVENTS: usize = 16 * 1_024;

const HEADER: &str = "calos.log";
const END: &str = "calos.log.end";

const SCHEMA: &str = "message log {
    REQUIRED INT32 partition;
    REQUIRED INT64 position;
    REQUIRED BYTE_ARRAY aggregate_type (STRING);
    REQUIRED BYTE_ARRAY aggregate_id (STRING);
    REQUIRED INT64 sequence;
    REQUIRED BYTE_ARRAY event_type (STRING);
    REQUIRED BYTE_ARRAY event_version (STRING);
    REQUIRED BYTE_ARRAY payload (STRING);
    REQUIRED BYTE_ARRAY metadata (STRING);
    REQUIRED INT64 recorded_at (TIMESTAMP(MICROS,true));
    REQUIRED BYTE_ARRAY hash;
}";

/// A file on its way.
pub(super) struct ParquetLog {
    writer: SerializedFileWriter<File>,
    gathered: Vec<Stored>,
}

impl ParquetLog {
    /// A file without events.
    pub(super) fn begin(file: File, header_line: &[u8]) -> Result<Self, ToolError> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(of_parquet)?);
        let header = KeyValue { key: HEADER.to_owned(), value: Some(text(header_line)) };
        let properties = WriterProperties::builder()
            .set_created_by("CALOS".to_owned())
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_key_value_metadata(Some(vec![header]))
            .build();
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(of_parquet)?;
        Ok(Self { writer, gathered: Vec::new() })
    }

    /// Takes the events that follow.
    pub(super) fn write(&mut self, events: Vec<Stored>) -> Result<(), ToolError> {
        self.gathered.extend(events);
        if self.gathered.len() >= ROW_GROUP_EVENTS { self.flush() } else { Ok(()) }
    }

    /// The last events and the footer.
    pub(super) fn end(mut self, end_line: &[u8]) -> Result<File, ToolError> {
        self.flush()?;
        self.writer.append_key_value_metadata(KeyValue { key: END.to_owned(), value: Some(text(end_line)) });
        self.writer.into_inner().map_err(of_parquet)
    }

    fn flush(&mut self) -> Result<(), ToolError> {
        let events = std::mem::take(&mut self.gathered);
        if events.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(of_parquet)?;
        columns(&mut group, &events).map_err(of_parquet)?;
        group.close().map_err(of_parquet)?;
        Ok(())
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

/// The columns in the schema's order.
fn columns(group: &mut SerializedRowGroupWriter<'_, File>, events: &[Stored]) -> Result<(), ParquetError> {
    let numbers = |of: fn(&Stored) -> i64| events.iter().map(of).collect::<Vec<i64>>();
    let texts = |of: fn(&Stored) -> &str| events.iter().map(|event| ByteArray::from(of(event))).collect::<Vec<_>>();
    column::<Int32Type>(group, &events.iter().map(|event| event.partition).collect::<Vec<_>>())?;
    column::<Int64Type>(group, &numbers(|event| event.position))?;
    column::<ByteArrayType>(group, &texts(|event| &event.aggregate_type))?;
    column::<ByteArrayType>(group, &texts(|event| &event.aggregate_id))?;
    column::<Int64Type>(group, &numbers(|event| event.sequence))?;
    column::<ByteArrayType>(group, &texts(|event| &event.event_type))?;
    column::<ByteArrayType>(group, &texts(|event| &event.event_version))?;
    column::<ByteArrayType>(group, &texts(|event| &event.payload))?;
    column::<ByteArrayType>(group, &texts(|event| &event.metadata))?;
    column::<Int64Type>(group, &numbers(|event| event.recorded_at.micros()))?;
    let hashes = events.iter().map(|event| ByteArray::from(Bytes::copy_from_slice(&event.hash)));
    column::<ByteArrayType>(group, &hashes.collect::<Vec<_>>())
}

fn column<T: DataType>(group: &mut SerializedRowGroupWriter<'_, File>, values: &[T::T]) -> Result<(), ParquetError> {
    let next = group.next_column()?;
    let mut column = next.ok_or_else(|| ParquetError::General("the schema has fewer columns".to_owned()))?;
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}

fn of_parquet(error: ParquetError) -> ToolError {
    ToolError::Output(std::io::Error::other(error))
}

/// The header's line, from a file's metadata.
pub(super) fn header_line(file: &File) -> Result<Vec<u8>, String> {
    let file = file.try_clone().map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
    noted(&reader, HEADER)
}

fn noted(reader: &SerializedFileReader<File>, key: &str) -> Result<Vec<u8>, String> {
    let values = reader.metadata().file_metadata().key_value_metadata();
    let value = values.and_then(|values| values.iter().find(|value| value.key == key));
    let text = value.and_then(|value| value.value.clone());
    text.map(String::into_bytes).ok_or_else(|| format!("its metadata has no {key}"))
}

/// Hands out the events group by group; answers the end's line.
pub(super) fn read<E: From<String>>(
    file: File,
    mut hand: impl FnMut(Vec<Stored>) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
    for number in 0..reader.num_row_groups() {
        let group = reader.get_row_group(number).map_err(|error| error.to_string())?;
        hand(events(&*group).map_err(|error| format!("row group {number}: {error}"))?)?;
    }
    Ok(noted(&reader, END)?)
}

fn events(group: &dyn RowGroupReader) -> Result<Vec<Stored>, String> {
    if group.metadata().num_columns() != 11 {
        return Err(format!("it has {} columns instead of 11", group.metadata().num_columns()));
    }
    let numbers = |index| values::<Int64Type>(group, index);
    let texts = |index| values::<ByteArrayType>(group, index);
    let (partition, position, sequence) = (values::<Int32Type>(group, 0)?, numbers(1)?, numbers(4)?);
    let (aggregate_type, aggregate_id) = (texts(2)?, texts(3)?);
    let (event_type, event_version, payload, metadata) = (texts(5)?, texts(6)?, texts(7)?, texts(8)?);
    let (recorded_at, hash) = (numbers(9)?, texts(10)?);
    let text = |values: &[ByteArray], index: usize| {
        let text = values.get(index).and_then(|value| std::str::from_utf8(value.data()).ok());
        text.map(str::to_owned).ok_or_else(|| format!("row {index} has a text that is none"))
    };
    let missing = |index: usize| format!("row {index} is not whole");
    let event = |index: usize| {
        Ok(Stored {
            partition: *partition.get(index).ok_or_else(|| missing(index))?,
            position: *position.get(index).ok_or_else(|| missing(index))?,
            aggregate_type: text(&aggregate_type, index)?,
            aggregate_id: text(&aggregate_id, index)?,
            sequence: *sequence.get(index).ok_or_else(|| missing(index))?,
            event_type: text(&event_type, index)?,
            event_version: text(&event_version, index)?,
            payload: text(&payload, index)?,
            metadata: text(&metadata, index)?,
            recorded_at: recorded_at.get(index).map(|at| Timestamp::from_micros(*at)).ok_or_else(|| missing(index))?,
            hash: hash.get(index).and_then(|hash| hash.data().try_into().ok()).ok_or_else(|| missing(index))?,
        })
    };
    (0..partition.len()).map(event).collect()
}

fn values<T: DataType>(group: &dyn RowGroupReader, index: usize) -> Result<Vec<T::T>, String> {
    let expected = usize::try_from(group.metadata().num_rows()).unwrap_or_default();
    // The types are asked for first: the reader would panic over a column of another one.
    let found = group.metadata().column(index).column_type();
    if found != T::get_physical_type() {
        return Err(format!("column {index} is {found}"));
    }
    let column = group.get_column_reader(index).map_err(|error| error.to_string())?;
    let mut reader = get_typed_column_reader::<T>(column);
    let mut values = Vec::new();
    while values.len() < expected {
        let (records, ..) =
            reader.read_records(expected - values.len(), None, None, &mut values).map_err(|error| error.to_string())?;
        if records == 0 {
            return Err(format!("column {index} ends early"));
        }
    }
    Ok(values)
}
