//! Days and months as people in finance write them: `2026-10-31`, `2026-10`. All of them in UTC.

use calos_domain::Timestamp;
use calos_domain::period::Month;
use calos_projections::as_of::AsOf;

use crate::error::ApiError;
use crate::moment::parse_rfc3339;

/// A month from a query's field.
///
/// # Errors
/// 400 `invalid_field`, naming the field.
pub fn month(field: &'static str, text: &str) -> Result<Month, ApiError> {
    text.parse().map_err(|_| ApiError::field(field, "must be a month such as 2026-10"))
}

/// A moment from a query's field: RFC 3339, or a day, which stands for its last microsecond.
///
/// # Errors
/// 400 `invalid_field`, naming the field.
pub fn moment_or_day(field: &'static str, text: &str) -> Result<Timestamp, ApiError> {
    match day(text) {
        Some(day) => Ok(Timestamp::from_micros(Timestamp::of_utc_day(day + 1).micros() - 1)),
        None => parse_rfc3339(field, text).map_err(|_| no_moment(field)),
    }
}

/// The beginning of a stretch of time from a query's field: RFC 3339, or a day, which stands for its first moment.
///
/// # Errors
/// 400 `invalid_field`, naming the field.
pub fn moment_or_day_begin(field: &'static str, text: &str) -> Result<Timestamp, ApiError> {
    match day(text) {
        Some(day) => Ok(Timestamp::of_utc_day(day)),
        None => parse_rfc3339(field, text).map_err(|_| no_moment(field)),
    }
}

/// As of an effective and a recorded date, both included, from the fields `asOf` and `asKnownAt`.
///
/// # Errors
/// 400 `invalid_field`.
pub fn as_of(as_of: Option<&str>, as_known_at: Option<&str>) -> Result<AsOf, ApiError> {
    Ok(AsOf {
        effective: as_of.map(|text| moment_or_day("asOf", text)).transpose()?,
        recorded: as_known_at.map(|text| moment_or_day("asKnownAt", text)).transpose()?,
    })
}

fn no_moment(field: &'static str) -> ApiError {
    ApiError::field(field, "must be a moment such as 2026-10-31T23:59:59Z (RFC 3339) or a day such as 2026-10-31")
}

/// The day of a date, counted from 1970; none when it is no date.
fn day(text: &str) -> Option<i64> {
    let (month, day) = text.rsplit_once('-')?;
    let month: Month = month.parse().ok()?;
    if day.len() != 2 || !day.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let first = month.starts_at().utc_day();
    let wanted = first.checked_add(day.parse::<i64>().ok()? - 1)?;
    (wanted >= first && wanted <= month.last_moment().utc_day()).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::rfc3339;

    #[test]
    fn a_day_stands_for_its_end_and_where_something_begins_for_its_start() {
        let end = |text| moment_or_day("asOf", text).and_then(rfc3339).unwrap();
        assert_eq!(end("2026-10-31"), "2026-10-31T23:59:59.999999Z");
        assert_eq!(end("2026-10-31T12:00:00Z"), "2026-10-31T12:00:00Z");
        assert_eq!(rfc3339(moment_or_day_begin("from", "2024-02-29").unwrap()).unwrap(), "2024-02-29T00:00:00Z");
    }

    #[test]
    fn what_is_no_date_is_refused_by_the_fields_name() {
        for text in ["", "2026", "2026-13", "26-10", "2026-1", "2026-10-1", "october"] {
            let refused = month("period", text).unwrap_err();
            assert!(refused.message().starts_with("period: must be a month"), "{text}: {}", refused.message());
        }
        for text in ["", "now", "2026-02-29", "2026-10-00", "2026-10-32", "2026-10", "2026-10-31T", "20261031"] {
            let refused = moment_or_day("asOf", text).unwrap_err();
            assert!(refused.message().starts_with("asOf: must be a moment"), "{text}: {}", refused.message());
        }
    }
}
