//! Moments as operators write and read them.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};

use calos_domain::Timestamp;

/// A moment from RFC 3339 (`2026-01-31T12:00:00Z`) or a date (`2026-01-31`: its first instant, UTC).
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    let date_only = || Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    let at = parsed.or_else(|| date_only().map(|date| date.with_time(Time::MIDNIGHT).assume_utc()));
    let at = at.ok_or_else(|| "expected a moment like 2026-01-31T12:00:00Z or a date like 2026-01-31".to_owned())?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000)
        .map(Timestamp::from_micros)
        .map_err(|_| "that moment is out of range".to_owned())
}

/// RFC 3339 in UTC, with as many digits as there are; the bare microseconds where no calendar reaches.
pub(crate) fn show(at: Timestamp) -> String {
    let micros = at.micros();
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| micros.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_with_a_zone_or_as_a_day() {
        assert_eq!(parse("1970-01-01T00:00:01.5Z").unwrap().micros(), 1_500_000);
        assert_eq!(parse("1970-01-01T01:00:00+01:00").unwrap().micros(), 0);
        assert_eq!(parse("1970-01-02").unwrap().micros(), 86_400_000_000);
        assert!(parse("yesterday").is_err());
        assert_eq!(show(Timestamp::from_micros(1_500_000)), "1970-01-01T00:00:01.5Z");
    }
}
