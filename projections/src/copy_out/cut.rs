//! Rows cut from a byte stream that may break anywhere.

use calos_domain::{Record, Timestamp};

use super::{Columns, CopyOutError, HEADER_MIN_BYTES, LogRow, LogSlice, POSTGRES_EPOCH_MICROS, ReadStopped, SIGNATURE};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Header,
    Rows,
    Ended,
}

/// Which rows have to come.
enum Wanted<'a> {
    /// Every position of a slice, in order.
    Slice(LogSlice),
    /// Those of these partitions, in whatever order; others are passed over.
    Partitions(&'a [i32]),
}

/// Cuts rows from a byte stream that may break anywhere.
pub struct RowCutter<'w> {
    wanted: Wanted<'w>,
    columns: Columns,
    stage: Stage,
    /// Partition and position of the last good row.
    last: (i32, i64),
    /// The beginning of a row whose end has not arrived: at most one row and one chunk.
    carry: Vec<u8>,
}

impl<'w> RowCutter<'w> {
    /// A cutter at the beginning of the stream of `slice`, which asserts that no position is missing.
    #[must_use]
    pub fn new(slice: LogSlice, columns: Columns) -> Self {
        Self::at(Wanted::Slice(slice), (slice.partition, slice.after), columns)
    }

    /// A cutter at the beginning of a stream of rows in any order, which hands out those of some partitions. Whether any is
    /// missing is for whoever takes them to find out.
    #[must_use]
    pub fn of_partitions(partitions: &'w [i32], columns: Columns) -> Self {
        Self::at(Wanted::Partitions(partitions), (0, 0), columns)
    }

    fn at(wanted: Wanted<'w>, last: (i32, i64), columns: Columns) -> Self {
        Self { wanted, columns, stage: Stage::Header, last, carry: Vec::new() }
    }

    /// Takes the next chunk and hands out every row it completes.
    ///
    /// # Errors
    /// What is wrong with the stream, or the first error of `each`.
    pub fn feed<E>(
        &mut self,
        chunk: &[u8],
        each: &mut impl FnMut(&LogRow<'_>) -> Result<(), E>,
    ) -> Result<(), ReadStopped<E>> {
        if self.carry.is_empty() {
            let used = self.cut(chunk, each)?;
            self.carry.extend_from_slice(&chunk[used..]);
            return Ok(());
        }
        let mut carry = std::mem::take(&mut self.carry);
        carry.extend_from_slice(chunk);
        let used = self.cut(&carry, each)?;
        carry.drain(..used);
        self.carry = carry;
        Ok(())
    }

    /// Checks that the stream ended with its trailer, and that nothing of a slice is missing.
    ///
    /// # Errors
    /// [`CopyOutError::NoTrailer`] or [`CopyOutError::EndsEarly`].
    pub fn finish(self) -> Result<(), CopyOutError> {
        let (partition, last) = self.last;
        if self.stage != Stage::Ended {
            return Err(CopyOutError::NoTrailer { partition, last });
        }
        match self.wanted {
            Wanted::Slice(LogSlice { through, .. }) if last != through => {
                Err(CopyOutError::EndsEarly { partition, last, through })
            }
            Wanted::Slice(_) | Wanted::Partitions(_) => Ok(()),
        }
    }

    fn cut<E>(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&LogRow<'_>) -> Result<(), E>,
    ) -> Result<usize, ReadStopped<E>> {
        let mut used = 0;
        if self.stage == Stage::Header {
            match header_length(bytes)? {
                Some(length) => used = length,
                None => return Ok(0),
            }
            self.stage = Stage::Rows;
        }
        while used < bytes.len() {
            if self.stage == Stage::Ended {
                return Err(CopyOutError::AfterTrailer { partition: self.last.0 }.into());
            }
            let rest = &bytes[used..];
            let Some((count, _)) = rest.split_first_chunk::<2>() else { break };
            let count = i16::from_be_bytes(*count);
            if count == -1 {
                self.stage = Stage::Ended;
                used += 2;
                continue;
            }
            if count != self.columns.count() {
                let ((partition, after), expected) = (self.last, self.columns.count());
                return Err(CopyOutError::Fields { partition, after, expected, found: count }.into());
            }
            let Some(length) = self.row_length(rest, count)? else { break };
            if let Some(row) = self.row(&rest[2..length])? {
                each(&row).map_err(ReadStopped::Reader)?;
                self.last = (row.record.partition, row.record.position);
            }
            used += length;
        }
        Ok(used)
    }

    /// How many bytes the row takes, or `None` while its end has not arrived.
    fn row_length(&self, bytes: &[u8], fields: i16) -> Result<Option<usize>, CopyOutError> {
        let mut at = 2usize;
        for _ in 0..fields {
            let Some(length) = bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>()) else {
                return Ok(None);
            };
            let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| self.bad("(null)"))?;
            at += 4 + length;
        }
        Ok((at <= bytes.len()).then_some(at))
    }

    /// The row, unless it is one that is passed over.
    fn row<'a>(&self, bytes: &'a [u8]) -> Result<Option<LogRow<'a>>, CopyOutError> {
        let mut fields = Fields { bytes, cutter: self };
        let partition = i32::from_be_bytes(fields.fixed("partition")?);
        let position = i64::from_be_bytes(fields.fixed("position")?);
        if !self.wants(partition, position)? {
            return Ok(None);
        }
        let aggregate_type = fields.text("aggregate_type")?;
        let aggregate_id = fields.text("aggregate_id")?;
        let sequence = i64::from_be_bytes(fields.fixed("sequence")?);
        let event_type = fields.text("event_type")?;
        let event_version = fields.text("event_version")?;
        let payload = fields.text("payload")?;
        let since_2000 = i64::from_be_bytes(fields.fixed("recorded_at")?);
        let metadata = if self.columns.metadata { fields.text("metadata")? } else { "" };
        let hash = if self.columns.hash { fields.next("hash")? } else { &[] };
        let micros = since_2000.checked_add(POSTGRES_EPOCH_MICROS).ok_or_else(|| self.bad("recorded_at"))?;
        let recorded_at = Timestamp::from_micros(micros);
        let record = Record {
            partition,
            position,
            aggregate_type,
            aggregate_id,
            sequence,
            event_type,
            event_version,
            payload,
            metadata,
            recorded_at,
        };
        Ok(Some(LogRow { record, hash }))
    }

    /// Whether a row is handed out; in a slice it has to be the next one.
    fn wants(&self, partition: i32, position: i64) -> Result<bool, CopyOutError> {
        let (wanted, next) = (self.last.0, self.last.1 + 1);
        match self.wanted {
            Wanted::Slice(_) if partition != wanted => {
                Err(CopyOutError::Partition { expected: wanted, found: partition })
            }
            Wanted::Slice(_) if position != next => {
                Err(CopyOutError::Gap { partition, expected: next, found: position })
            }
            Wanted::Slice(_) => Ok(true),
            Wanted::Partitions(partitions) => Ok(partitions.contains(&partition)),
        }
    }

    fn bad(&self, column: &'static str) -> CopyOutError {
        let (partition, after) = self.last;
        CopyOutError::Field { partition, after, column }
    }
}

fn header_length(bytes: &[u8]) -> Result<Option<usize>, CopyOutError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(CopyOutError::NoHeader);
    }
    let Some(extension) = bytes.get(15..HEADER_MIN_BYTES).and_then(|bytes| bytes.first_chunk::<4>()) else {
        return Ok(None);
    };
    let length = HEADER_MIN_BYTES + u32::from_be_bytes(*extension) as usize;
    Ok((bytes.len() >= length).then_some(length))
}

/// The fields of one complete row.
struct Fields<'a, 'c> {
    bytes: &'a [u8],
    cutter: &'c RowCutter<'c>,
}

impl<'a> Fields<'a, '_> {
    fn next(&mut self, column: &'static str) -> Result<&'a [u8], CopyOutError> {
        let (length, rest) = self.bytes.split_first_chunk::<4>().ok_or_else(|| self.cutter.bad(column))?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| self.cutter.bad(column))?;
        let (field, rest) = rest.split_at_checked(length).ok_or_else(|| self.cutter.bad(column))?;
        self.bytes = rest;
        Ok(field)
    }

    fn fixed<const N: usize>(&mut self, column: &'static str) -> Result<[u8; N], CopyOutError> {
        self.next(column)?.try_into().map_err(|_| self.cutter.bad(column))
    }

    fn text(&mut self, column: &'static str) -> Result<&'a str, CopyOutError> {
        std::str::from_utf8(self.next(column)?).map_err(|_| self.cutter.bad(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: LogSlice = LogSlice { partition: 3, after: 4, through: 6 };

    fn field(out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        out.extend_from_slice(bytes);
    }

    fn row(out: &mut Vec<u8>, position: i64, payload: &[u8]) {
        out.extend_from_slice(&11i16.to_be_bytes());
        field(out, &3i32.to_be_bytes());
        field(out, &position.to_be_bytes());
        field(out, b"wallet");
        field(out, b"t-1");
        field(out, &9i64.to_be_bytes());
        field(out, b"credits_granted");
        field(out, b"1");
        field(out, payload);
        field(out, &1_000_000i64.to_be_bytes());
        field(out, br#"{"actor":"system:test"}"#);
        field(out, &[7; 32]);
    }

    fn stream() -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&[0; 8]);
        row(&mut out, 5, br#"{"credits_granted":{}}"#);
        row(&mut out, 6, r#"{"credits_granted":{"söurce":"é"}}"#.as_bytes());
        out.extend_from_slice(&(-1i16).to_be_bytes());
        out
    }

    fn read(chunks: &[&[u8]]) -> Result<(Vec<String>, u64), CopyOutError> {
        let mut cutter = RowCutter::new(SLICE, Columns::SEALED);
        let mut seen = Vec::new();
        for chunk in chunks {
            let fed = cutter.feed::<std::convert::Infallible>(chunk, &mut |row| {
                let record = &row.record;
                seen.push(format!("{}:{}:{}", record.position, record.payload, record.recorded_at.micros()));
                assert_eq!(row.hash, [7; 32]);
                assert_eq!((record.sequence, record.aggregate_id, record.event_version), (9, "t-1", "1"));
                assert_eq!(record.metadata, r#"{"actor":"system:test"}"#);
                Ok(())
            });
            match fed {
                Ok(()) => {}
                Err(ReadStopped::Log(error)) => return Err(error),
                Err(ReadStopped::Reader(never)) => match never {},
            }
        }
        cutter.finish()?;
        let rows = seen.len() as u64;
        Ok((seen, rows))
    }

    #[test]
    fn rows_come_out_the_same_wherever_the_stream_is_broken() {
        let bytes = stream();
        let whole = read(&[&bytes]).unwrap();
        assert_eq!(whole.1, 2);
        assert_eq!(whole.0[0], format!("5:{}:{}", r#"{"credits_granted":{}}"#, POSTGRES_EPOCH_MICROS + 1_000_000));
        for at in 0..bytes.len() {
            assert_eq!(read(&[&bytes[..at], &bytes[at..]]).unwrap(), whole, "broken at byte {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single).unwrap(), whole);
    }

    #[test]
    fn a_stream_without_its_trailer_is_an_error_at_every_length() {
        let bytes = stream();
        for length in 0..bytes.len() {
            let error = read(&[&bytes[..length]]).unwrap_err();
            assert!(matches!(error, CopyOutError::NoTrailer { partition: 3, .. }), "{length}: {error}");
        }
    }

    #[test]
    fn a_missing_position_is_named() {
        let mut out = Vec::new();
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&[0; 8]);
        row(&mut out, 6, b"{}");
        let error = read(&[&out]).unwrap_err();
        assert!(matches!(error, CopyOutError::Gap { partition: 3, expected: 5, found: 6 }), "{error}");
    }

    #[test]
    fn a_log_that_ends_before_the_asked_position_is_named() {
        let mut out = Vec::new();
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&[0; 8]);
        row(&mut out, 5, b"{}");
        out.extend_from_slice(&(-1i16).to_be_bytes());
        let error = read(&[&out]).unwrap_err();
        assert!(matches!(error, CopyOutError::EndsEarly { partition: 3, last: 5, through: 6 }), "{error}");
    }

    #[test]
    fn text_that_is_no_utf8_and_bytes_after_the_trailer_are_refused() {
        let mut out = Vec::new();
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&[0; 8]);
        row(&mut out, 5, &[0xff, 0xfe]);
        assert!(matches!(read(&[&out]).unwrap_err(), CopyOutError::Field { column: "payload", after: 4, .. }));
        let mut after = stream();
        after.push(0);
        assert!(matches!(read(&[&after]).unwrap_err(), CopyOutError::AfterTrailer { partition: 3 }));
    }

    #[test]
    fn another_number_of_fields_and_a_foreign_stream_are_refused() {
        let mut cutter = RowCutter::new(SLICE, Columns::EVENT);
        let fed = cutter.feed::<()>(&stream(), &mut |_| Ok(()));
        assert!(matches!(fed, Err(ReadStopped::Log(CopyOutError::Fields { expected: 9, found: 11, .. }))));
        assert!(matches!(read(&[b"SELECT"]).unwrap_err(), CopyOutError::NoHeader));
    }

    #[test]
    fn the_readers_own_error_stops_the_reading() {
        let mut cutter = RowCutter::new(SLICE, Columns::SEALED);
        let mut calls = 0;
        let fed = cutter.feed(&stream(), &mut |_| {
            calls += 1;
            Err("enough")
        });
        assert!(matches!(fed, Err(ReadStopped::Reader("enough"))));
        assert_eq!(calls, 1);
    }
}
