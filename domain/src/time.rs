//! A moment, as the log stores it.

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch, UTC. The domain never reads a clock: moments arrive inside commands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// Microseconds in one second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;

/// Seconds in one day of UTC, which knows no leap seconds here.
pub const SECONDS_PER_DAY: i64 = 86_400;

/// Days in 400 years, after which the calendar repeats itself.
const DAYS_PER_ERA: i64 = 146_097;

/// Days from the first of March of the year 0 to 1970.
const DAYS_BEFORE_1970: i64 = 719_468;

impl Timestamp {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This moment and `seconds` more, held at the end of time rather than wrapped.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND)))
    }

    /// Whole days since 1970 in UTC.
    #[must_use]
    pub const fn utc_day(self) -> i64 {
        self.0.div_euclid(SECONDS_PER_DAY * MICROS_PER_SECOND)
    }

    /// When a day of [`Self::utc_day`] begins.
    #[must_use]
    pub const fn of_utc_day(day: i64) -> Self {
        Self(day.saturating_mul(SECONDS_PER_DAY * MICROS_PER_SECOND))
    }

    /// The calendar month in UTC, counted from January of the year 0: twelve times the year, and 0 to 11.
    #[must_use]
    pub const fn utc_month(self) -> i64 {
        // Years are taken to begin in March, so that the day that comes and goes is their last one.
        let day = self.utc_day() + DAYS_BEFORE_1970;
        let (era, day) = (day.div_euclid(DAYS_PER_ERA), day.rem_euclid(DAYS_PER_ERA));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        (year + era * 400) * 12 + month_from_march + 2
    }

    /// When a month of [`Self::utc_month`] begins.
    #[must_use]
    pub const fn of_utc_month(month: i64) -> Self {
        let from_march = month - 2;
        let (year, month) = (from_march.div_euclid(12), from_march.rem_euclid(12));
        let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
        let day = year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5;
        Self::of_utc_day(era.saturating_mul(DAYS_PER_ERA).saturating_add(day - DAYS_BEFORE_1970))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        // 2000-03-01, 2024-02-01, 2024-03-01, 2025-01-01, 2100-03-01, in seconds since 1970.
        for (seconds, month) in [
            (951_868_800, 2_000 * 12 + 2),
            (1_706_745_600, 2_024 * 12 + 1),
            (1_709_251_200, 2_024 * 12 + 2),
            (1_735_689_600, 2_025 * 12),
            (4_107_542_400, 2_100 * 12 + 2),
        ] {
            let start = Timestamp::default().plus_seconds(seconds);
            assert_eq!((start.utc_month(), Timestamp::of_utc_month(month)), (month, start));
            assert_eq!(Timestamp::from_micros(start.micros() - 1).utc_month(), month - 1);
        }
    }

    #[test]
    fn every_month_of_eight_centuries_begins_with_its_first_day_and_has_28_to_31() {
        for month in 1_600 * 12..2_400 * 12 {
            let (start, end) = (Timestamp::of_utc_month(month), Timestamp::of_utc_month(month + 1));
            assert!((28..=31).contains(&(end.utc_day() - start.utc_day())), "{month}");
            assert_eq!((start.utc_month(), Timestamp::from_micros(end.micros() - 1).utc_month()), (month, month));
        }
    }
}
