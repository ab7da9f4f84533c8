//! Columns of many rows as a statement takes them: PostgreSQL's binary arrays, written value by value as the rows come, so
//! that nothing is kept twice and sending is one copy.

use sqlx::Postgres;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo};
use sqlx::types::Type;

/// An array of values of one type, both by their numbers in PostgreSQL's catalogue (`pg_type.dat`), where they are fixed.
#[derive(Default)]
pub(super) struct Column<const ELEMENT: u32, const ARRAY: u32> {
    /// Each value behind its length in bytes (i32, big-endian).
    values: Vec<u8>,
    count: i32,
}

/// `text[]`
pub(super) type Texts = Column<25, 1_009>;
/// `json[]`: what comes in is checked to be JSON by the server, and kept byte by byte.
pub(super) type Jsons = Column<114, 199>;
/// `bytea[]`
pub(super) type Bytes = Column<17, 1_001>;

/// Dimensions, whether there are nulls, the element's type, the length and where counting begins: 4 bytes each.
const HEADER_BYTES: usize = 20;

impl<const ELEMENT: u32, const ARRAY: u32> Column<ELEMENT, ARRAY> {
    /// Empty, with room for what another one holds.
    pub(super) fn like(other: &Self) -> Self {
        Self { values: Vec::with_capacity(other.values.len()), count: 0 }
    }

    /// Adds a value.
    pub(super) fn push(&mut self, value: &[u8]) {
        // A batch is bounded far below 2 GiB; the server refuses a length that does not fit what follows.
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.values.extend_from_slice(&length.to_be_bytes());
        self.values.extend_from_slice(value);
        self.count += 1;
    }
}

impl<const ELEMENT: u32, const ARRAY: u32> Type<Postgres> for Column<ELEMENT, ARRAY> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(ARRAY))
    }
}

impl<const ELEMENT: u32, const ARRAY: u32> Encode<'_, Postgres> for Column<ELEMENT, ARRAY> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let dimensions = i32::from(self.count > 0);
        for number in [dimensions, 0, i32::try_from(ELEMENT)?] {
            buffer.extend_from_slice(&number.to_be_bytes());
        }
        if self.count > 0 {
            buffer.extend_from_slice(&self.count.to_be_bytes());
            buffer.extend_from_slice(&1_i32.to_be_bytes());
            buffer.extend_from_slice(&self.values);
        }
        Ok(IsNull::No)
    }

    fn size_hint(&self) -> usize {
        HEADER_BYTES + self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_encoded_as_the_array_it_stands_for() {
        let mut texts = Texts::default();
        let of = |values: &[&str]| {
            let mut buffer = PgArgumentBuffer::default();
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            drop(values.encode_by_ref(&mut buffer).expect("strings are encoded"));
            buffer.to_vec()
        };
        let mut buffer = PgArgumentBuffer::default();
        drop(texts.encode_by_ref(&mut buffer).expect("nothing is encoded"));
        assert_eq!(buffer.to_vec()[..4], [0; 4], "no dimension, no value");
        for value in ["wallet", "", "Zoë"] {
            texts.push(value.as_bytes());
        }
        let mut buffer = PgArgumentBuffer::default();
        drop(texts.encode_by_ref(&mut buffer).expect("texts are encoded"));
        assert_eq!(buffer.to_vec(), of(&["wallet", "", "Zoë"]));
        assert_eq!(texts.size_hint(), buffer.len());
    }
}
