//! The stretches of time by which sums are kept: whole ones are added up, and only the last one is looked into.

use calos_domain::Timestamp;
use calos_domain::time::MICROS_PER_SECOND;

use crate::ProjectError;

/// The finest stretch, in minutes. Finer ones would make the sums as many as the entries they spare.
const FINEST_BUCKET_MINUTES: i64 = 10;

const FINEST_MICROS: i64 = FINEST_BUCKET_MINUTES * 60 * MICROS_PER_SECOND;

/// The first and the last moment that a read model takes as an effective date: the years 1 to 9999.
const EFFECTIVE_MIN: Timestamp = Timestamp::from_micros(-62_135_596_800 * MICROS_PER_SECOND);
const EFFECTIVE_MAX: Timestamp = Timestamp::from_micros(253_402_300_800 * MICROS_PER_SECOND - 1);

/// How wide the stretches are; every one lies within one of the level before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// A calendar month of UTC.
    Month,
    /// A day of UTC.
    Day,
    /// Ten minutes of UTC.
    TenMinutes,
}

impl Level {
    /// From the widest to the finest.
    pub const ALL: [Self; 3] = [Self::Month, Self::Day, Self::TenMinutes];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Day => "day",
            Self::TenMinutes => "ten_minutes",
        }
    }

    /// When the stretch begins that holds this moment.
    #[must_use]
    pub const fn start(self, at: Timestamp) -> Timestamp {
        match self {
            Self::Month => Timestamp::of_utc_month(at.utc_month()),
            Self::Day => Timestamp::of_utc_day(at.utc_day()),
            Self::TenMinutes => {
                Timestamp::from_micros(at.micros().saturating_sub(at.micros().rem_euclid(FINEST_MICROS)))
            }
        }
    }
}

/// When the stretch after the one that holds this moment begins, at the finest level.
pub(crate) const fn finest_end(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(Level::TenMinutes.start(at).micros().saturating_add(FINEST_MICROS))
}

/// Whether something took effect in another of the finest stretches than the one it was recorded in. What did not is found
/// by its recorded date alone.
pub(crate) fn shifted(effective_at: Timestamp, recorded_at: Timestamp) -> bool {
    Level::TenMinutes.start(effective_at) != Level::TenMinutes.start(recorded_at)
}

/// A date that a table can hold and a calendar can show.
///
/// # Errors
/// [`ProjectError::OutOfRange`]
pub(crate) fn effective(at: Timestamp) -> Result<Timestamp, ProjectError> {
    if (EFFECTIVE_MIN..=EFFECTIVE_MAX).contains(&at) {
        Ok(at)
    } else {
        Err(ProjectError::OutOfRange { figure: "the effective date" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_lies_within_one_of_the_level_before_and_holds_its_moments() {
        for micros in [0, 1, -1, 1_760_000_000_123_456, 1_706_745_599_999_999, EFFECTIVE_MIN.micros()] {
            let at = Timestamp::from_micros(micros);
            let starts = Level::ALL.map(|level| level.start(at));
            assert!(starts.is_sorted() && starts[2] <= at && at < finest_end(at), "{micros}");
            for (wide, fine) in [(0, 1), (1, 2), (0, 2)] {
                assert_eq!(Level::ALL[wide].start(starts[fine]), starts[wide], "{micros}");
                assert_eq!(Level::ALL[fine].start(starts[wide]), starts[wide], "{micros}");
            }
        }
    }

    #[test]
    fn what_crosses_the_border_of_ten_minutes_is_shifted_and_dates_beyond_the_calendar_are_refused() {
        let at = |seconds: i64| Timestamp::default().plus_seconds(seconds);
        assert!(!shifted(at(600), at(1_199)) && shifted(at(599), at(600)) && shifted(at(1_200), at(1_199)));
        assert_eq!(effective(at(5)), Ok(at(5)));
        for wrong in [i64::MIN, i64::MAX, EFFECTIVE_MAX.micros() + 1] {
            assert!(effective(Timestamp::from_micros(wrong)).is_err());
        }
    }
}
