//! A calendar month in UTC.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Timestamp;

/// The first year a month can lie in.
const YEAR_MIN: i64 = 1970;

/// The last year a month can lie in.
const YEAR_MAX: i64 = 9_999;

/// A calendar month in UTC, shown and stored as `2026-10`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i64);

/// Why a text is no month.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a month is a year and a month like 2026-10, from {YEAR_MIN}-01 to {YEAR_MAX}-12")]
pub struct NoMonth;

impl Month {
    /// A month of a year, 1 to 12.
    ///
    /// # Errors
    /// [`NoMonth`].
    pub fn new(year: i64, month: i64) -> Result<Self, NoMonth> {
        let possible = (YEAR_MIN..=YEAR_MAX).contains(&year) && (1..=12).contains(&month);
        if possible { Ok(Self(year * 12 + month - 1)) } else { Err(NoMonth) }
    }

    /// The month a moment lies in.
    ///
    /// # Errors
    /// [`NoMonth`] outside the years a month can lie in.
    pub fn of(at: Timestamp) -> Result<Self, NoMonth> {
        let month = at.utc_month();
        Self::new(month.div_euclid(12), month.rem_euclid(12) + 1)
    }

    /// The month after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The month's first microsecond.
    #[must_use]
    pub const fn starts_at(self) -> Timestamp {
        Timestamp::of_utc_month(self.0)
    }

    /// The first microsecond after the month.
    #[must_use]
    pub const fn ends_at(self) -> Timestamp {
        Timestamp::of_utc_month(self.0 + 1)
    }

    /// The month's last microsecond: the effective date its trial balance is of.
    #[must_use]
    pub const fn last_moment(self) -> Timestamp {
        Timestamp::from_micros(self.ends_at().micros() - 1)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }
}

impl fmt::Debug for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Month({self})")
    }
}

impl FromStr for Month {
    type Err = NoMonth;
    fn from_str(text: &str) -> Result<Self, NoMonth> {
        let (year, month) = text.split_once('-').ok_or(NoMonth)?;
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if year.len() != 4 || month.len() != 2 || !digits(year) || !digits(month) {
            return Err(NoMonth);
        }
        Self::new(year.parse().map_err(|_| NoMonth)?, month.parse().map_err(|_| NoMonth)?)
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
