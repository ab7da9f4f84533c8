//! Moments as PostgreSQL stores them: exact microseconds, without a detour over a calendar.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};
use time::OffsetDateTime;

use calos_domain::Timestamp;

use crate::copy_out::POSTGRES_EPOCH_MICROS;

/// A `timestamptz` column or parameter, always in binary form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Moment {
    fn array_type_info() -> PgTypeInfo {
        <OffsetDateTime as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Moment {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let since_2000 = self.0.micros().checked_sub(POSTGRES_EPOCH_MICROS).ok_or("a moment PostgreSQL cannot hold")?;
        buffer.extend_from_slice(&since_2000.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Moment {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let bytes: [u8; 8] = value.as_bytes()?.try_into()?;
        let since_2000 = i64::from_be_bytes(bytes);
        let micros = since_2000.checked_add(POSTGRES_EPOCH_MICROS).ok_or("a moment beyond the range of a timestamp")?;
        Ok(Self(Timestamp::from_micros(micros)))
    }
}
