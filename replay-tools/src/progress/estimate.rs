//! How fast work goes and how long it will take, from what was done when.

use std::time::Duration;

use crate::traffic::WRITTEN_EVENTS_PER_SECOND;

/// Looks kept; when there are more, every other one goes, so that they always span the whole of the work.
const LOOKS_MAX: usize = 256;

/// The time that is looked back on is cut into so many slices, and so many of them, the slowest, say nothing of what is to come: a
/// disk's pause of half a second would otherwise be expected again and again from what is seen in the first seconds.
const SLICES: u32 = 8;
const SLOWEST_SLICES_LEFT_OUT: usize = 2;

// What a rebuild takes for each event and each row on two idle cores, in microseconds: how these stand to each other is what
// counts, as the machine's own pace is taken from how fast it reads.
const READ_EVENT_MICROSECONDS: f64 = 1.45;
const READ_ROW_MICROSECONDS: f64 = 1.4;
/// What comes after the reading: for each row of each key and index, for each row that is laid beside another, and for each
/// that is only added up.
const KEY_MICROSECONDS: f64 = 0.65;
const COMPARE_ROW_MICROSECONDS: f64 = 5.2;
const SUM_ROW_MICROSECONDS: f64 = 0.95;
// The same beside others who write, where all goes slower, the reading most, and for each event that is added meanwhile.
const BESIDE_KEY_MICROSECONDS: f64 = 0.53;
const BESIDE_COMPARE_ROW_MICROSECONDS: f64 = 3.4;
const BESIDE_SUM_ROW_MICROSECONDS: f64 = 1.1;
const BESIDE_CATCH_UP_EVENT_MICROSECONDS: f64 = 7.0;
/// Rows are dearer where they no longer fit into caches, and keys where they are sorted in pieces: by this power of how many there
/// are against the number the figures above were taken at, within bounds.
const ROWS_POWER: f64 = 0.2;
const ROWS_AT_FIGURES: f64 = 5e6;
const ROWS_DEARER_MIN: f64 = 0.9;
const ROWS_DEARER_MAX: f64 = 1.5;
/// The log may grow nearly as fast as it can be read; the end is then not foretold further than this share of the time allows.
const GROWTH_SHARE_MAX: f64 = 0.8;

/// What comes after the events.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Afterwards {
    /// Rows that are laid beside the ones that stand.
    pub compared: f64,
    /// Rows that are only added up, since they never change.
    pub summed: f64,
    /// Rows in each key and index that is built, of all of them together.
    pub keys: f64,
}

impl Afterwards {
    /// How long it will take, when reading `events` takes so long, and others add `growth` of them each second until all is
    /// done.
    pub(super) fn expected(self, events: u64, reading: Duration, growth: u64) -> Duration {
        let Self { compared, summed, keys } = self;
        let (events, growth) = (events as f64, growth as f64);
        let at_rest = events * READ_EVENT_MICROSECONDS + (compared + summed) * READ_ROW_MICROSECONDS;
        if at_rest <= 0.0 || compared + summed <= 0.0 {
            return Duration::ZERO;
        }
        let reading = reading.as_secs_f64();
        let pace = reading / at_rest;
        let seconds = if growth <= WRITTEN_EVENTS_PER_SECOND {
            let comparing = compared * COMPARE_ROW_MICROSECONDS + summed * SUM_ROW_MICROSECONDS;
            let dearer =
                ((compared + summed) / ROWS_AT_FIGURES).powf(ROWS_POWER).clamp(ROWS_DEARER_MIN, ROWS_DEARER_MAX);
            pace * dearer * (keys * KEY_MICROSECONDS + comparing)
        } else {
            // What is added while it reads is read as well, and what is added meanwhile; and what is added later is caught up with.
            let larger = 1.0 / (1.0 - (growth * reading / events).min(GROWTH_SHARE_MAX));
            let catching_up = (pace * growth * BESIDE_CATCH_UP_EVENT_MICROSECONDS).min(GROWTH_SHARE_MAX);
            let comparing = compared * BESIDE_COMPARE_ROW_MICROSECONDS + summed * BESIDE_SUM_ROW_MICROSECONDS;
            let later = pace * (keys * BESIDE_KEY_MICROSECONDS + comparing);
            reading * (larger - 1.0) + larger * later / (1.0 - catching_up)
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// What has been seen of a piece of work.
///
/// The speed is that of the last three quarters of the time: beginnings are slow, and a machine that has got something else to
/// do says so. What is left is expected to go as fast as that without its slowest quarter.
#[derive(Clone, Debug)]
pub struct Estimate {
    looks: Vec<(Duration, u64)>,
    /// Looks closer together than this are not kept.
    apart: Duration,
}

/// What is to be said of work in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outlook {
    /// Events a second.
    pub events_per_second: u64,
    /// How much is done, in whole percent; 100 only when all is.
    pub percent: u64,
    /// How long the rest will take; none before anything is known.
    pub left: Option<Duration>,
}

impl Default for Estimate {
    fn default() -> Self {
        Self { looks: vec![(Duration::ZERO, 0)], apart: Duration::from_millis(1) }
    }
}

impl Estimate {
    /// Takes note of how many events were done, so long after the beginning. Looks come in the order of time.
    pub fn look(&mut self, at: Duration, done: u64) {
        let last = self.looks.last().copied().unwrap_or_default();
        if at < last.0 + self.apart {
            return;
        }
        if self.looks.len() >= LOOKS_MAX {
            let mut keep = false;
            self.looks.retain(|_| {
                keep = !keep;
                keep
            });
            self.apart *= 2;
        }
        self.looks.push((at, done));
    }

    /// What there is to say when `done` of `total` events were done, so long after the beginning.
    #[must_use]
    pub fn outlook(&self, at: Duration, done: u64, total: u64) -> Outlook {
        let total = total.max(done);
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        let beginning = at / 4;
        let index = self.looks.partition_point(|look| look.0 <= beginning).saturating_sub(1);
        let (since, before) = self.looks.get(index).copied().unwrap_or_default();
        let (events, seconds) = (done.saturating_sub(before), at.saturating_sub(since).as_secs_f64());
        if events == 0 || seconds <= 0.0 {
            return Outlook { events_per_second: 0, percent, left: (done == total).then_some(Duration::ZERO) };
        }
        let rate = events as f64 / seconds;
        let expected = self.undisturbed(since, (at, done)).max(rate);
        let left = Duration::try_from_secs_f64((total - done) as f64 / expected).ok();
        Outlook { events_per_second: rate as u64, percent, left }
    }

    /// Events a second between then and now, without the slices in which the least was done.
    fn undisturbed(&self, since: Duration, now: (Duration, u64)) -> f64 {
        let slice = (now.0 - since) / SLICES;
        let mut done: Vec<f64> = (0..SLICES)
            .map(|at| self.done_at(since + slice * (at + 1), now) - self.done_at(since + slice * at, now))
            .collect();
        done.sort_by(f64::total_cmp);
        let counted = &done[SLOWEST_SLICES_LEFT_OUT..];
        counted.iter().sum::<f64>() / (slice.as_secs_f64() * counted.len() as f64)
    }

    /// How many events were done then, as far as it was seen.
    fn done_at(&self, at: Duration, now: (Duration, u64)) -> f64 {
        let index = self.looks.partition_point(|look| look.0 <= at);
        let before = self.looks.get(index.saturating_sub(1)).copied().unwrap_or_default();
        let after = self.looks.get(index).copied().unwrap_or(now);
        let (passed, between) =
            (at.saturating_sub(before.0).as_secs_f64(), after.0.saturating_sub(before.0).as_secs_f64());
        let share = if between > 0.0 { (passed / between).min(1.0) } else { 1.0 };
        before.1 as f64 + after.1.saturating_sub(before.1) as f64 * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// The furthest that what was said of the whole time, said + passed, was from what it was, once such a part was done; as a
    /// part of it.
    fn worst(samples: &[(f64, u64)], part: u64) -> f64 {
        let &(took, total) = samples.last().unwrap();
        let (mut estimate, mut worst) = (Estimate::default(), 0.0_f64);
        for &(at, done) in samples {
            estimate.look(seconds(at), done);
            let outlook = estimate.outlook(seconds(at), done, total);
            if done >= total / part {
                let said = at + outlook.left.unwrap().as_secs_f64();
                worst = worst.max((said - took).abs() / took);
            }
        }
        worst
    }

    #[test]
    fn what_comes_afterwards_goes_at_the_pace_of_the_reading_and_grows_with_the_log() {
        let views = Afterwards { summed: 2.3e6, keys: 2.3e6, ..Afterwards::default() };
        let expected = |afterwards: Afterwards, reading, growth| {
            afterwards.expected(1_000_000, seconds(reading), growth).as_secs_f64()
        };
        let (quick, slow) = (expected(views, 6.7, 0), expected(views, 13.4, 0));
        assert!(quick > 0.0 && (slow / quick - 2.0).abs() < 1e-6, "{quick} {slow}");
        let more_keys = expected(Afterwards { keys: 4.6e6, ..views }, 6.7, 0);
        let side_by_side = expected(Afterwards { compared: 2.3e6, summed: 0.0, ..views }, 6.7, 0);
        assert!(more_keys > quick && side_by_side > quick, "{more_keys} {side_by_side} {quick}");
        let beside = expected(views, 6.7, 10_000);
        assert!(beside > expected(views, 6.7, 5_000), "{beside}");
        assert!(expected(views, 10.0, 10_000_000) < 10_000.0);
        let dearer = |times: f64| {
            let views = Afterwards { summed: 2.3e6 * times, keys: 2.3e6 * times, ..views };
            views.expected((1e6 * times) as u64, seconds(6.7 * times), 0).as_secs_f64() / (times * quick)
        };
        assert!(dearer(4.0) > 1.05 && dearer(4.0) < dearer(10.0) && dearer(1_000.0) < 1.7, "{}", dearer(4.0));
        assert_eq!(Afterwards::default().expected(1_000, seconds(1.0), 5), Duration::ZERO);
    }

    #[test]
    fn steady_work_is_foretold_exactly() {
        let samples: Vec<(f64, u64)> = (1..=1_000_u32).map(|at| (f64::from(at) * 0.1, u64::from(at) * 5_000)).collect();
        assert!(worst(&samples, 10) < 0.01, "{}", worst(&samples, 10));
    }

    /// Journal and usage of 132,408 events, three workers on two cores that had three other things to do.
    const JOURNAL_AND_USAGE: &[(f64, u64)] = &[
        (0.01, 0),
        (0.23, 2_048),
        (0.44, 4_096),
        (0.66, 5_661),
        (0.92, 9_757),
        (1.14, 12_829),
        (1.38, 14_877),
        (1.61, 17_949),
        (1.83, 23_069),
        (2.06, 26_141),
        (2.31, 28_189),
        (2.53, 29_213),
        (2.75, 33_837),
        (2.96, 36_909),
        (3.22, 39_247),
        (3.48, 43_343),
        (3.72, 48_463),
        (3.94, 54_607),
        (4.18, 56_655),
        (4.41, 59_117),
        (4.65, 62_241),
        (4.86, 63_679),
        (5.09, 65_727),
        (5.31, 69_823),
        (5.54, 73_919),
        (5.76, 78_015),
        (6.00, 82_163),
        (6.25, 85_235),
        (6.46, 87_397),
        (6.67, 90_469),
        (6.91, 94_617),
        (7.16, 98_713),
        (7.39, 101_785),
        (7.61, 105_881),
        (7.84, 108_953),
        (8.06, 111_777),
        (8.29, 115_563),
        (8.53, 116_587),
        (8.76, 122_721),
        (9.00, 125_972),
        (9.22, 130_068),
        (9.43, 132_408),
    ];

    /// The book's sums of as many, on the same machine.
    const SUMS: &[(f64, u64)] = &[
        (0.01, 0),
        (0.25, 3_072),
        (0.47, 4_637),
        (0.70, 9_757),
        (0.93, 13_853),
        (1.15, 17_949),
        (1.37, 22_821),
        (1.59, 25_893),
        (1.81, 29_741),
        (2.03, 34_861),
        (2.26, 42_029),
        (2.47, 48_225),
        (2.68, 51_711),
        (2.90, 54_783),
        (3.13, 57_121),
        (3.35, 62_241),
        (3.58, 66_337),
        (3.82, 71_457),
        (4.05, 77_163),
        (4.28, 80_235),
        (4.49, 83_307),
        (4.71, 86_379),
        (4.94, 90_475),
        (5.17, 93_547),
        (5.38, 96_619),
        (5.61, 98_667),
        (5.83, 103_839),
        (6.05, 106_901),
        (6.29, 110_687),
        (6.51, 114_783),
        (6.73, 119_903),
        (6.94, 121_951),
        (7.17, 124_178),
        (7.39, 130_312),
        (7.63, 132_415),
    ];

    #[test]
    fn rebuilds_on_a_busy_machine_are_foretold_as_closely_as_their_few_seconds_allow() {
        // Of a log this short a tenth is read within a second: what else the machine did in it is what is off.
        for (samples, after_a_tenth, after_a_quarter) in [(JOURNAL_AND_USAGE, 0.17, 0.10), (SUMS, 0.21, 0.21)] {
            let (first, second) = (worst(samples, 10), worst(samples, 4));
            assert!(first <= after_a_tenth && second <= after_a_quarter, "{first} {second}");
        }
    }

    /// The beginning of ten million events, read on two cores whose disk paused twice; they took 31.5 s.
    const WITH_PAUSES: &[(f64, u64)] = &[
        (0.51, 54_272),
        (1.02, 233_472),
        (1.51, 380_928),
        (2.01, 499_712),
        (2.51, 551_936),
        (3.00, 668_672),
        (3.50, 803_840),
        (4.02, 930_816),
        (4.53, 1_067_008),
        (5.02, 1_125_376),
        (5.52, 1_274_880),
        (6.02, 1_432_576),
        (6.51, 1_586_176),
        (7.02, 1_751_040),
        (7.51, 1_890_304),
        (8.00, 2_049_024),
    ];

    #[test]
    fn what_paused_at_the_beginning_is_not_expected_to_pause_for_ever() {
        let mut estimate = Estimate::default();
        for &(at, done) in WITH_PAUSES {
            estimate.look(seconds(at), done);
        }
        let outlook = estimate.outlook(seconds(8.0), 2_049_024, 10_000_000);
        let whole = 8.0 + outlook.left.unwrap().as_secs_f64();
        assert!((31.5..=37.5).contains(&whole), "{whole}");
        // What it says of the speed leaves nothing out.
        assert!((245_000..=265_000).contains(&outlook.events_per_second), "{outlook:?}");
    }

    #[test]
    fn a_slow_beginning_is_forgotten_and_a_slower_machine_noticed() {
        let (mut estimate, mut done) = (Estimate::default(), 0);
        for tenth in 1..=300_u32 {
            // Nothing for two seconds, then 10,000 a second, and half of that from the twentieth on.
            done += if tenth <= 20 {
                0
            } else if tenth <= 200 {
                1_000
            } else {
                500
            };
            estimate.look(seconds(f64::from(tenth) * 0.1), done);
            let rate = estimate.outlook(seconds(f64::from(tenth) * 0.1), done, 1_000_000).events_per_second;
            match tenth {
                100 => assert!((9_500..=10_000).contains(&rate), "{rate}"),
                300 => assert!((7_000..=8_000).contains(&rate), "{rate}"),
                _ => {}
            }
        }
    }

    #[test]
    fn nothing_is_foretold_from_nothing_and_more_than_all_is_all() {
        let estimate = Estimate::default();
        let nothing = estimate.outlook(seconds(3.0), 0, 10);
        assert_eq!(nothing, Outlook { events_per_second: 0, percent: 0, left: None });
        assert_eq!(estimate.outlook(seconds(3.0), 0, 0).left, Some(Duration::ZERO));
        let more = estimate.outlook(seconds(2.0), 12, 10);
        assert_eq!((more.percent, more.left), (100, Some(Duration::ZERO)));
        assert_eq!(estimate.outlook(seconds(2.0), 999, 1_000).percent, 99);
    }

    #[test]
    fn looks_are_bounded_however_long_it_takes() {
        let mut estimate = Estimate::default();
        for at in 0..100_000_u32 {
            estimate.look(seconds(f64::from(at) * 0.01), u64::from(at) * 100);
        }
        assert!(estimate.looks.len() <= LOOKS_MAX + 1, "{}", estimate.looks.len());
        let rate = estimate.outlook(seconds(1_000.0), 10_000_000, 20_000_000).events_per_second;
        assert!((9_900..=10_100).contains(&rate), "{rate}");
    }
}
