//! Moments as people and programs read and write them: RFC 3339.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use calos_domain::Timestamp;

use crate::error::ApiError;

/// A moment as text, to the microsecond, in UTC.
///
/// # Errors
/// 500 for a moment beyond the calendar, which no clock gives.
pub fn rfc3339(at: Timestamp) -> Result<String, ApiError> {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.micros()) * 1_000);
    moment.map_err(ApiError::internal)?.format(&Rfc3339).map_err(ApiError::internal)
}

/// A moment as text, where there is one.
///
/// # Errors
/// As [`rfc3339`].
pub fn shown(at: Option<Timestamp>) -> Result<Option<String>, ApiError> {
    at.map(rfc3339).transpose()
}

/// A moment from text, in whole microseconds.
///
/// # Errors
/// 400 `invalid_field`, naming the field.
pub fn parse_rfc3339(field: &'static str, text: &str) -> Result<Timestamp, ApiError> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok();
    let micros = moment.and_then(|moment| i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000)).ok());
    micros
        .map(Timestamp::from_micros)
        .ok_or_else(|| ApiError::field(field, "must be a moment such as 2026-12-31T23:59:59Z (RFC 3339)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_back_as_it_was_written() {
        let at = Timestamp::from_micros(1_700_000_000_123_456);
        let text = rfc3339(at).unwrap();
        assert_eq!(text, "2023-11-14T22:13:20.123456Z");
        assert_eq!(parse_rfc3339("expiresAt", &text).unwrap(), at);
        assert_eq!(parse_rfc3339("expiresAt", "2023-11-14T23:13:20.123456+01:00").unwrap(), at);
    }

    #[test]
    fn what_is_no_moment_is_refused_by_the_fields_name() {
        for text in ["", "tomorrow", "2023-11-14", "2023-13-14T22:13:20Z", "1700000000"] {
            assert!(parse_rfc3339("expiresAt", text).unwrap_err().message().starts_with("expiresAt: "), "{text}");
        }
    }
}
