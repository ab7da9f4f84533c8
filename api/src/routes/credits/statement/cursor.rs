//! Where a page of a statement goes on: behind which movement, with which balances, and as known at which moment.
//!
//! The balances travel with the cursor, so that a page costs what it shows. A tag of the server's own keeps anybody from
//! putting other figures into a statement.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use calos_adapters::secrets::Secrets;
use calos_domain::period::Month;
use calos_domain::{TenantId, Timestamp};
use calos_projections::statement::Behind;

use super::sheet::Running;
use crate::error::ApiError;
use crate::paging::no_cursor;

/// Numbers in a cursor.
const NUMBERS: usize = 7;

/// Bytes of a cursor's tag.
const TAG_BYTES: usize = 16;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// The movement before.
    pub behind: Behind,
    /// What is known later is not in the statement.
    pub known_at: Timestamp,
    /// The balances after the movement before.
    pub running: Running,
}

impl Cursor {
    /// The cursor as text, good for this statement alone.
    #[must_use]
    pub fn write(&self, secrets: &Secrets, tenant: TenantId, month: Month) -> String {
        let mut bytes = self.numbers().map(i64::to_be_bytes).concat();
        bytes.extend_from_slice(&tag(secrets, tenant, month, &bytes));
        BASE64.encode(bytes)
    }

    /// Reads what [`Self::write`] wrote for the same statement.
    ///
    /// # Errors
    /// 400 `invalid_field` for anything else.
    pub fn read(text: &str, secrets: &Secrets, tenant: TenantId, month: Month) -> Result<Self, ApiError> {
        Self::parse(text, |bytes| tag(secrets, tenant, month, bytes)).ok_or_else(no_cursor)
    }

    fn parse(text: &str, tag: impl FnOnce(&[u8]) -> [u8; TAG_BYTES]) -> Option<Self> {
        let bytes = BASE64.decode(text).ok()?;
        let (numbers, given) = bytes.split_at_checked(NUMBERS * size_of::<i64>())?;
        // What a tag guards is the reader's own statement; how long comparing takes tells nobody anything.
        if given != tag(numbers) {
            return None;
        }
        let mut numbers = numbers.chunks_exact(size_of::<i64>()).filter_map(|chunk| chunk.try_into().ok());
        let mut next = || numbers.next().map(i64::from_be_bytes);
        Some(Self {
            behind: Behind { recorded_at: Timestamp::from_micros(next()?), position: next()? },
            known_at: Timestamp::from_micros(next()?),
            running: Running { balance: [next()?, next()?], debt: [next()?, next()?] },
        })
    }

    fn numbers(&self) -> [i64; NUMBERS] {
        let Self { behind, known_at, running } = self;
        let [usd, credit] = running.balance;
        let [usd_debt, credit_debt] = running.debt;
        [behind.recorded_at.micros(), behind.position, known_at.micros(), usd, credit, usd_debt, credit_debt]
    }
}

fn tag(secrets: &Secrets, tenant: TenantId, month: Month, bytes: &[u8]) -> [u8; TAG_BYTES] {
    let hash = secrets.keyed_hash(&[b"statement cursor", tenant.0.as_bytes(), month.to_string().as_bytes(), bytes]);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hash[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(bytes: &[u8]) -> [u8; TAG_BYTES] {
        [bytes.iter().fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte)); TAG_BYTES]
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_with_no_other_figure_in_it() {
        let cursor = Cursor {
            behind: Behind { recorded_at: Timestamp::from_micros(5), position: 6 },
            known_at: Timestamp::from_micros(7),
            running: Running { balance: [-1, 2], debt: [0, i64::MAX] },
        };
        let mut bytes = cursor.numbers().map(i64::to_be_bytes).concat();
        bytes.extend_from_slice(&tagged(&bytes));
        assert_eq!(Cursor::parse(&BASE64.encode(&bytes), tagged), Some(cursor));
        for at in [0, 30, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(Cursor::parse(&BASE64.encode(other), tagged), None, "{at}");
        }
        for text in ["", "x", "!!", &BASE64.encode(&bytes[..40])] {
            assert_eq!(Cursor::parse(text, tagged), None, "{text}");
        }
    }
}
