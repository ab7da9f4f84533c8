//! How many calls one caller made of late: counts per bucket, so that a sliding window needs no list of moments.
//!
//! A bucket that lies in a window only in part counts whole. So a window never lets more through than its limit says,
//! and gives a call back up to one bucket late: a second in the minute, a minute in the hour, a quarter of an hour in the day.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::api_key::KeyLimits;
use crate::time::MICROS_PER_SECOND;

use super::CLOCK_SKEW_MAX_SECONDS;

/// Buckets of a minute: sixty, and the one that sticks out at the far end.
const SECONDS_COUNT: usize = 61;
/// Buckets of an hour: sixty minutes, and one.
const MINUTES_COUNT: usize = 61;
/// Buckets of a day: ninety-six quarters of an hour, and one.
const QUARTERS_COUNT: usize = 97;

/// A sliding window calls are limited in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CallWindow {
    /// 60 seconds.
    Minute,
    /// 3,600 seconds.
    Hour,
    /// 86,400 seconds.
    Day,
}

impl CallWindow {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// Where a caller stands in the window that is nearest to being used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowStatus {
    /// Which window.
    pub window: CallWindow,
    /// How many calls it lets through.
    pub limit: u32,
    /// How many it counts now; more than the limit once the limit was lowered.
    pub used: u64,
    /// When the next call is let through; none when it is now.
    pub free_at: Option<Timestamp>,
    /// When nothing of what was counted counts any more.
    pub reset_at: Timestamp,
}

impl WindowStatus {
    /// How many more calls it lets through now.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        u32::try_from(u64::from(self.limit).saturating_sub(self.used)).unwrap_or(0)
    }
}

/// Counts of the newest `N` buckets. A bucket's number is its distance from 1970 in bucket widths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ring<const N: usize> {
    newest: i64,
    counts: [u32; N],
}

/// A ring as a snapshot holds it: the newest bucket, then the age and count of each bucket that is not empty.
#[derive(Serialize, Deserialize)]
struct StoredRing(i64, Vec<(u16, u32)>);

impl<const N: usize> Ring<N> {
    const LENGTH: i64 = N as i64;

    const fn beginning_at(bucket: i64) -> Self {
        Self { newest: bucket, counts: [0; N] }
    }

    const fn place(bucket: i64) -> usize {
        // Between 0 and N - 1 by construction.
        bucket.rem_euclid(Self::LENGTH).cast_unsigned() as usize
    }

    fn count(&mut self, bucket: i64) {
        if bucket > self.newest {
            if bucket.saturating_sub(self.newest) >= Self::LENGTH {
                self.counts.fill(0);
            } else {
                (self.newest + 1..=bucket).for_each(|empty| self.counts[Self::place(empty)] = 0);
            }
            self.newest = bucket;
        }
        if self.newest.saturating_sub(bucket) < Self::LENGTH {
            let count = &mut self.counts[Self::place(bucket)];
            *count = count.saturating_add(1);
        }
    }

    /// The counted buckets that still lie in the window ending with bucket `now`, oldest first.
    fn within(&self, now: i64) -> impl Iterator<Item = (i64, u32)> + '_ {
        let oldest = now.max(self.newest).saturating_sub(Self::LENGTH - 1);
        (oldest..=self.newest).map(|bucket| (bucket, self.counts[Self::place(bucket)]))
    }

    fn used(&self, now: i64) -> u64 {
        if now <= self.newest {
            return self.counts.iter().map(|count| u64::from(*count)).sum();
        }
        self.within(now).map(|(_, count)| u64::from(count)).sum()
    }

    /// The first bucket from `now` on in which fewer than `limit` count.
    fn free(&self, now: i64, limit: u32) -> i64 {
        let (mut left, mut free) = (self.used(now), now);
        for (bucket, count) in self.within(now) {
            if left < u64::from(limit) {
                break;
            }
            left -= u64::from(count);
            free = bucket + Self::LENGTH;
        }
        free
    }
}

impl<const N: usize> Serialize for Ring<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counts = (0u16..).zip((0..Self::LENGTH).map(|age| self.counts[Self::place(self.newest - age)]));
        StoredRing(self.newest, counts.filter(|(_, count)| *count > 0).collect()).serialize(serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Ring<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StoredRing(newest, counts) = StoredRing::deserialize(deserializer)?;
        let mut ring = Self::beginning_at(newest);
        for (age, count) in counts {
            ring.counts[Self::place(newest.saturating_sub(i64::from(age)))] = count;
        }
        Ok(ring)
    }
}

const fn bucket(at: Timestamp, width_seconds: i64) -> i64 {
    at.micros().div_euclid(width_seconds * MICROS_PER_SECOND)
}

const fn start_of(bucket: i64, width_seconds: i64) -> Timestamp {
    Timestamp::from_micros(bucket.saturating_mul(width_seconds * MICROS_PER_SECOND))
}

const SECOND: i64 = 1;
const MINUTE_SECONDS: i64 = 60;
const QUARTER_SECONDS: i64 = 900;

/// The calls of one caller within the last day.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct CallWindows {
    /// When the newest call was let in.
    #[serde(rename = "l")]
    last: Timestamp,
    #[serde(rename = "s")]
    seconds: Ring<SECONDS_COUNT>,
    #[serde(rename = "m")]
    minutes: Ring<MINUTES_COUNT>,
    #[serde(rename = "q")]
    quarters: Ring<QUARTERS_COUNT>,
}

impl CallWindows {
    /// No calls yet.
    pub(super) const fn beginning_at(at: Timestamp) -> Self {
        Self {
            last: at,
            seconds: Ring::beginning_at(bucket(at, SECOND)),
            minutes: Ring::beginning_at(bucket(at, MINUTE_SECONDS)),
            quarters: Ring::beginning_at(bucket(at, QUARTER_SECONDS)),
        }
    }

    /// When a call that arrives at `at` counts as let in: never before the one let in last, so that no disagreement of
    /// two machines' clocks opens a window. A call far behind shows that an earlier clock was wrong; it is believed, and
    /// counting begins anew, since nobody can be made to wait for a moment that only the wrong clock has seen.
    pub(super) fn admission(&self, at: Timestamp) -> Timestamp {
        if self.is_overtaken(at) { at } else { at.max(self.last) }
    }

    const fn is_overtaken(&self, at: Timestamp) -> bool {
        at.plus_seconds(CLOCK_SKEW_MAX_SECONDS).micros() < self.last.micros()
    }

    /// Takes in a call that was let in at this moment.
    pub(super) fn count(&mut self, at: Timestamp) {
        if self.is_overtaken(at) {
            *self = Self::beginning_at(at);
        }
        self.last = self.last.max(at);
        self.seconds.count(bucket(at, SECOND));
        self.minutes.count(bucket(at, MINUTE_SECONDS));
        self.quarters.count(bucket(at, QUARTER_SECONDS));
    }

    /// Whether nothing counts any more at `at`.
    pub(super) fn is_over(&self, at: Timestamp) -> bool {
        bucket(at, QUARTER_SECONDS) >= bucket(self.last, QUARTER_SECONDS) + QUARTERS_COUNT as i64
    }

    /// How many calls each minute of the last hour saw, oldest first; minutes without one are left out.
    pub(super) fn by_minute(&self) -> impl Iterator<Item = (Timestamp, u32)> + '_ {
        let counted = self.minutes.within(self.minutes.newest).filter(|(_, count)| *count > 0);
        counted.map(|(minute, count)| (start_of(minute, MINUTE_SECONDS), count))
    }

    /// The window that is nearest to being used up at `at`: of those that are, the one that stays so longest; else the
    /// one with the fewest calls left, the longer of two alike.
    pub(super) fn tightest(&self, limits: KeyLimits, at: Timestamp) -> WindowStatus {
        if self.is_overtaken(at) {
            return Self::beginning_at(at).tightest(limits, at);
        }
        let at = at.max(self.last);
        let minute = status(&self.seconds, SECOND, CallWindow::Minute, limits.per_minute, at);
        let hour = status(&self.minutes, MINUTE_SECONDS, CallWindow::Hour, limits.per_hour, at);
        let day = status(&self.quarters, QUARTER_SECONDS, CallWindow::Day, limits.per_day, at);
        let tighter = |one: WindowStatus, longer: WindowStatus| {
            let key = |status: &WindowStatus| (status.free_at, std::cmp::Reverse(status.remaining()));
            if key(&longer) >= key(&one) { longer } else { one }
        };
        tighter(tighter(minute, hour), day)
    }
}

fn status<const N: usize>(
    ring: &Ring<N>,
    width_seconds: i64,
    window: CallWindow,
    limit: u32,
    at: Timestamp,
) -> WindowStatus {
    let now = bucket(at, width_seconds);
    let used = ring.used(now);
    let free_at = (used >= u64::from(limit)).then(|| start_of(ring.free(now, limit), width_seconds));
    let reset_at = if used == 0 { at } else { start_of(ring.newest + Ring::<N>::LENGTH, width_seconds) };
    WindowStatus { window, limit, used, free_at, reset_at }
}
