//! How many calls one caller made of late: counts per bucket, so that a sliding window needs no list of moments.
//!
//! A bucket that lies in a window only in part counts whole. So a window never lets more through than its limit says,
//! and gives a call back up to one bucket late: a second in the minute, a minute in the hour, a quarter of an hour in the day.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Timestamp;
use crate::api_key::KeyLimits;
use crate::time::{MICROS_PER_SECOND, SECONDS_PER_DAY};

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

/// A ring as a snapshot holds it, since a wallet may have thousands: from the newest bucket back, twice a count and one,
/// or twice the number of empty buckets in a row; each number in digits of 32, the least first, all but its last raised
/// by 32. A busy minute takes about sixty characters.
impl<const N: usize> Ring<N> {
    fn written(&self) -> String {
        let (mut text, mut empty) = (String::new(), 0);
        for age in 0..Self::LENGTH {
            match self.counts[Self::place(self.newest - age)] {
                0 => empty += 2,
                count => {
                    if empty > 0 {
                        write_number(&mut text, std::mem::take(&mut empty));
                    }
                    write_number(&mut text, u64::from(count) * 2 + 1);
                }
            }
        }
        text
    }

    /// None for what [`Self::written`] cannot have written.
    fn read(newest: i64, text: &str) -> Option<Self> {
        let (mut ring, mut age, mut digits) = (Self::beginning_at(newest), 0, text.bytes());
        while let Some(number) = read_number(&mut digits)? {
            if age >= Self::LENGTH {
                return None;
            }
            if number % 2 == 0 {
                age = age.checked_add(i64::try_from(number / 2).ok()?)?;
            } else {
                ring.counts[Self::place(newest.checked_sub(age)?)] = u32::try_from(number / 2).ok()?;
                age += 1;
            }
        }
        Some(ring)
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Bits a digit carries; the one above says that another digit follows.
const DIGIT_BITS: u32 = 5;
/// Digits of the largest number: a count of 32 bits, doubled.
const NUMBER_MAX_DIGITS: u32 = 7;

fn write_number(text: &mut String, mut number: u64) {
    loop {
        let (digit, rest) = (number % (1 << DIGIT_BITS), number >> DIGIT_BITS);
        let follows = if rest > 0 { 1 << DIGIT_BITS } else { 0 };
        // Below 64 by construction.
        text.push(char::from(DIGITS[(digit + follows) as usize]));
        if rest == 0 {
            return;
        }
        number = rest;
    }
}

/// The next number; the outer none is for what is no number, the inner one for the end.
fn read_number(text: &mut impl Iterator<Item = u8>) -> Option<Option<u64>> {
    let mut number = 0;
    for place in 0..NUMBER_MAX_DIGITS {
        let Some(letter) = text.next() else { return (place == 0).then_some(None) };
        let digit = DIGITS.iter().position(|known| *known == letter)? as u64;
        number += (digit % (1 << DIGIT_BITS)) << (place * DIGIT_BITS);
        if digit >> DIGIT_BITS == 0 {
            return Some(Some(number));
        }
    }
    None
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

/// How far a clock may lag behind the newest call for its calls to be counted with the others'. One that lags further
/// shows that the newest call's clock was wrong beyond use, and counting begins anew.
const LAG_COUNTED_MAX_SECONDS: i64 = SECONDS_PER_DAY;
/// How far a lagging clock may stay behind once its lag is allowed for. Beyond it the lag is measured again, so that
/// nobody waits longer than this for a moment that only another clock has seen.
const LAG_GROWTH_MAX_SECONDS: i64 = 3_600;

/// The calls of one caller within the last day.
///
/// The rings go by the leading clock, and never back. A clock that lags by up to [`CLOCK_SKEW_MAX_SECONDS`] counts at
/// the newest moment. One that lags further is met once: its call is let in and counted, and its lag is noted; from then
/// on its moments count with the lag added. So two machines whose clocks are far apart fill the same windows, and once
/// the leading clock is put right or gone, time still passes for everybody else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CallWindows {
    /// The newest moment counted, by the leading clock; every ring's newest bucket holds it.
    last: Timestamp,
    /// How far behind the lagging clock is, in microseconds; zero until there is one.
    lag_micros: i64,
    seconds: Ring<SECONDS_COUNT>,
    minutes: Ring<MINUTES_COUNT>,
    quarters: Ring<QUARTERS_COUNT>,
}

/// What a clock's moment is to the rings.
enum Reading {
    /// This moment of theirs, by a clock that agrees with the leading one.
    OnTime(Timestamp),
    /// This moment of theirs, by the clock that is known to lag.
    Lagging(Timestamp),
    /// Nothing yet: the clock lags by so many microseconds, which is not allowed for.
    Met(i64),
    /// Nothing: they are taken for wrong.
    Beyond,
}

impl CallWindows {
    /// No calls yet.
    pub(super) const fn beginning_at(at: Timestamp) -> Self {
        Self {
            last: at,
            lag_micros: 0,
            seconds: Ring::beginning_at(bucket(at, SECOND)),
            minutes: Ring::beginning_at(bucket(at, MINUTE_SECONDS)),
            quarters: Ring::beginning_at(bucket(at, QUARTER_SECONDS)),
        }
    }

    fn read(&self, at: Timestamp) -> Reading {
        let behind = self.last.micros().saturating_sub(at.micros());
        if behind <= CLOCK_SKEW_MAX_SECONDS * MICROS_PER_SECOND {
            return Reading::OnTime(at.max(self.last));
        }
        if behind > LAG_COUNTED_MAX_SECONDS * MICROS_PER_SECOND {
            return Reading::Beyond;
        }
        if self.lag_micros == 0 || behind - self.lag_micros > LAG_GROWTH_MAX_SECONDS * MICROS_PER_SECOND {
            return Reading::Met(behind);
        }
        Reading::Lagging(self.last.max(Timestamp::from_micros(at.micros().saturating_add(self.lag_micros))))
    }

    /// When a call that arrives at `at` counts as let in: never before the one let in last, so that no disagreement of
    /// two machines' clocks opens a window. A clock that is far behind is believed, since the leading one may be wrong.
    pub(super) fn admission(&self, at: Timestamp) -> Timestamp {
        match self.read(at) {
            Reading::OnTime(moment) => moment,
            Reading::Lagging(_) | Reading::Met(_) | Reading::Beyond => at,
        }
    }

    /// Takes in a call that was let in at this moment.
    pub(super) fn count(&mut self, at: Timestamp) {
        self.last = match self.read(at) {
            Reading::OnTime(moment) | Reading::Lagging(moment) => moment,
            Reading::Met(lag_micros) => {
                self.lag_micros = lag_micros;
                self.last
            }
            Reading::Beyond => {
                *self = Self::beginning_at(at);
                at
            }
        };
        self.seconds.count(bucket(self.last, SECOND));
        self.minutes.count(bucket(self.last, MINUTE_SECONDS));
        self.quarters.count(bucket(self.last, QUARTER_SECONDS));
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
    /// one with the fewest calls left, the longer of two alike. Told by the clock that asks.
    pub(super) fn tightest(&self, limits: KeyLimits, at: Timestamp) -> WindowStatus {
        let (now, lag_micros) = match self.read(at) {
            Reading::OnTime(moment) => (moment, 0),
            Reading::Lagging(moment) => (moment, self.lag_micros),
            Reading::Met(_) | Reading::Beyond => return Self::beginning_at(at).tightest(limits, at),
        };
        let minute = status(&self.seconds, SECOND, CallWindow::Minute, limits.per_minute, now);
        let hour = status(&self.minutes, MINUTE_SECONDS, CallWindow::Hour, limits.per_hour, now);
        let day = status(&self.quarters, QUARTER_SECONDS, CallWindow::Day, limits.per_day, now);
        let tighter = |one: WindowStatus, longer: WindowStatus| {
            let key = |status: &WindowStatus| (status.free_at, std::cmp::Reverse(status.remaining()));
            if key(&longer) >= key(&one) { longer } else { one }
        };
        let status = tighter(tighter(minute, hour), day);
        let told = |moment| self.told(moment, lag_micros);
        let reset_at = if status.used == 0 { at } else { told(status.reset_at) };
        WindowStatus { free_at: status.free_at.map(told), reset_at, ..status }
    }

    /// A moment to come of the rings, by a clock that lags this much: once the clock is close enough to count as one
    /// that agrees, its lag is no longer added.
    fn told(&self, moment: Timestamp, lag_micros: i64) -> Timestamp {
        let theirs = moment.micros().saturating_sub(lag_micros);
        let lags = self.last.micros().saturating_sub(theirs) > CLOCK_SKEW_MAX_SECONDS * MICROS_PER_SECOND;
        if lags { Timestamp::from_micros(theirs) } else { moment }
    }
}

/// As a snapshot holds them: the newest moment, the lag, and the three rings, whose newest buckets the moment tells.
#[derive(Serialize, Deserialize)]
struct Row(Timestamp, i64, String, String, String);

impl Serialize for CallWindows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rings = (self.seconds.written(), self.minutes.written(), self.quarters.written());
        Row(self.last, self.lag_micros, rings.0, rings.1, rings.2).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CallWindows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Row(last, lag_micros, seconds, minutes, quarters) = Row::deserialize(deserializer)?;
        let rings = || {
            let seconds = Ring::read(bucket(last, SECOND), &seconds)?;
            let minutes = Ring::read(bucket(last, MINUTE_SECONDS), &minutes)?;
            let quarters = Ring::read(bucket(last, QUARTER_SECONDS), &quarters)?;
            Some(Self { last, lag_micros, seconds, minutes, quarters })
        };
        rings().ok_or_else(|| D::Error::custom("a count of calls cannot be read"))
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
