//! How far long work is: a bar on a terminal, a plain line now and then elsewhere, nothing when called from a program.

pub mod estimate;

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use estimate::{Afterwards, Estimate, Outlook};

/// A plain line at most this often.
const PLAIN_LINE_EVERY_SECONDS: u64 = 5;

/// Counted in memory and shown only every so many events, so that showing costs nothing per event.
const SHOWN_EVERY_EVENTS: u64 = 1_024;

/// Where progress is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Show {
    /// A bar when standard error is a terminal, else plain lines.
    Standard,
    /// Nothing at all.
    Silent,
}

/// The progress of one piece of work, shared by everybody who does a part of it.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    title: String,
    total: AtomicU64,
    done: AtomicU64,
    started: Instant,
    last_line_seconds: AtomicU64,
    estimate: Mutex<Estimate>,
    /// What comes after the events, as far as it is known beforehand.
    afterwards: Mutex<Afterwards>,
    /// What comes after the events, in milliseconds, and when it began, in milliseconds since the beginning: once it has.
    after_ms: AtomicU64,
    after_since_ms: AtomicU64,
    /// Events that are added to the log each second.
    growth: AtomicU64,
    /// Whether anybody has said so yet.
    growth_known: AtomicBool,
    /// What was done, and since when.
    steps: Mutex<Vec<(String, Duration)>>,
    bar: Option<ProgressBar>,
    plain: bool,
}

impl Progress {
    /// Progress of `total` events under a title.
    #[must_use]
    pub fn new(show: Show, title: &str, total: u64) -> Self {
        let standard = show == Show::Standard;
        let terminal = standard && std::io::stderr().is_terminal();
        let bar = terminal.then(|| bar(title, total));
        Self(Arc::new(Inner {
            title: title.to_owned(),
            total: AtomicU64::new(total),
            done: AtomicU64::new(0),
            started: Instant::now(),
            last_line_seconds: AtomicU64::new(0),
            estimate: Mutex::default(),
            afterwards: Mutex::default(),
            after_ms: AtomicU64::new(0),
            after_since_ms: AtomicU64::new(0),
            growth: AtomicU64::new(0),
            growth_known: AtomicBool::new(false),
            steps: Mutex::default(),
            bar,
            plain: standard && !terminal,
        }))
    }

    /// A counter for one worker.
    #[must_use]
    pub fn counter(&self) -> Counter {
        Counter { progress: self.clone(), waiting: 0 }
    }

    /// Events done so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    /// Events there are to do.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Says that so many are left to do, which may be more than was known: the log grows while it is read.
    pub fn left(&self, events: u64) {
        self.0.total.fetch_max(self.events() + events, Ordering::Relaxed);
        if let Some(bar) = &self.0.bar {
            bar.set_length(self.total());
        }
    }

    /// Since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Says what comes after the events; it is part of the time that is left.
    pub fn then(&self, afterwards: Afterwards) {
        *self.0.afterwards.lock().unwrap_or_else(PoisonError::into_inner) = afterwards;
    }

    /// Says how many events others add to the log each second meanwhile.
    pub fn grows(&self, events_per_second: f64) {
        self.0.growth.store(events_per_second.max(0.0) as u64, Ordering::Relaxed);
        self.0.growth_known.store(true, Ordering::Relaxed);
    }

    /// Events that others were last said to add each second.
    pub(crate) fn growth(&self) -> Option<u64> {
        self.0.growth_known.load(Ordering::Relaxed).then(|| self.0.growth.load(Ordering::Relaxed))
    }

    /// How fast it goes, and how long it will take.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        let (at, done) = (self.elapsed(), self.events());
        let mut estimate = self.0.estimate.lock().unwrap_or_else(PoisonError::into_inner);
        estimate.look(at, done);
        let outlook = estimate.outlook(at, done, self.total());
        Outlook { left: outlook.left.map(|left| self.left_in_all(at, left)), ..outlook }
    }

    /// What is left of the events and of what comes after them.
    fn left_in_all(&self, at: Duration, reading: Duration) -> Duration {
        match self.0.after_since_ms.load(Ordering::Relaxed) {
            0 => reading + self.after_reading(at + reading),
            since => {
                let passed = milliseconds(at).saturating_sub(since);
                Duration::from_millis(self.0.after_ms.load(Ordering::Relaxed).saturating_sub(passed))
            }
        }
    }

    /// How long what comes after the events will take, when those take so long.
    fn after_reading(&self, reading: Duration) -> Duration {
        let afterwards = *self.0.afterwards.lock().unwrap_or_else(PoisonError::into_inner);
        afterwards.expected(self.total(), reading, self.0.growth.load(Ordering::Relaxed))
    }

    /// Names what is being done now that is not counted in events.
    pub fn step(&self, what: &str) {
        let inner = &self.0;
        let at = self.elapsed();
        inner.steps.lock().unwrap_or_else(PoisonError::into_inner).push((what.to_owned(), at));
        if inner.after_since_ms.load(Ordering::Relaxed) == 0 {
            inner.after_ms.store(milliseconds(self.after_reading(at)), Ordering::Relaxed);
            inner.after_since_ms.store(milliseconds(at).max(1), Ordering::Relaxed);
        }
        let left = duration(self.left_in_all(at, Duration::ZERO));
        if let Some(bar) = &inner.bar {
            bar.set_message(format!("{}: {what}, {left} left", inner.title));
        }
        if inner.plain && at.as_secs() >= PLAIN_LINE_EVERY_SECONDS {
            line(&format!("{}: {what}, {left} left", inner.title));
        }
    }

    /// The steps that were named, and when each began, since the beginning; before the first, events were counted.
    #[must_use]
    pub fn steps(&self) -> Vec<(String, Duration)> {
        self.0.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that the work has ended.
    pub fn finish(&self) {
        if let Some(bar) = &self.0.bar {
            bar.finish_and_clear();
        }
        if self.0.plain {
            let (events, seconds) = (self.events(), self.elapsed().as_secs_f64());
            line(&format!("{}: {events} events in {seconds:.1} s", self.0.title));
        }
    }

    fn add(&self, events: u64) {
        let inner = &self.0;
        let done = inner.done.fetch_add(events, Ordering::Relaxed) + events;
        if inner.bar.is_none() && !inner.plain {
            return;
        }
        let outlook = self.outlook();
        if let Some(bar) = &inner.bar {
            bar.set_position(done);
            bar.set_message(format!("{}: {}", inner.title, said(outlook)));
        }
        if inner.plain {
            let seconds = inner.started.elapsed().as_secs();
            let last = inner.last_line_seconds.load(Ordering::Relaxed);
            let due = seconds >= last + PLAIN_LINE_EVERY_SECONDS;
            let turn = Ordering::Relaxed;
            if due && inner.last_line_seconds.compare_exchange(last, seconds, turn, turn).is_ok() {
                let total = self.total().max(done);
                line(&format!("{}: {done} of {total} events, {}", inner.title, said(outlook)));
            }
        }
    }
}

fn said(Outlook { events_per_second, percent, left }: Outlook) -> String {
    let left = left.map_or_else(String::new, |left| format!(", {} left", duration(left)));
    format!("{percent} %, {events_per_second} events/s{left}")
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn duration(left: Duration) -> String {
    let seconds = left.as_secs_f64().ceil() as u64;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Where whoever waits for a piece of work sees how far it is, once it is known how much there is to do. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<OnceLock<Progress>>);

impl Watch {
    /// The progress; none before the work has begun.
    #[must_use]
    pub fn progress(&self) -> Option<&Progress> {
        self.0.get()
    }

    /// Lets the work be seen; the first is.
    pub(crate) fn see(&self, progress: &Progress) {
        self.0.get_or_init(|| progress.clone());
    }
}

/// One worker's share of a [`Progress`].
#[derive(Debug)]
pub struct Counter {
    progress: Progress,
    waiting: u64,
}

impl Counter {
    /// One event more.
    pub fn event(&mut self) {
        self.waiting += 1;
        if self.waiting >= SHOWN_EVERY_EVENTS {
            self.progress.add(std::mem::take(&mut self.waiting));
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.progress.add(self.waiting);
    }
}

fn bar(title: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}") {
        bar.set_style(style);
    }
    bar.set_message(title.to_owned());
    bar
}

/// A line on standard error. Progress that nobody can read any more stops nothing.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_in_words_a_person_counts_in() {
        for (seconds, expected) in [(0.2, "1 s"), (59.0, "59 s"), (61.0, "1 min 1 s"), (7_300.0, "2 h 1 min")] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), expected);
        }
        let outlook = Outlook { events_per_second: 85_000, percent: 45, left: Some(Duration::from_secs(12)) };
        assert_eq!(said(outlook), "45 %, 85000 events/s, 12 s left");
        assert_eq!(said(Outlook { left: None, ..outlook }), "45 %, 85000 events/s");
    }

    #[test]
    fn what_comes_after_the_events_is_part_of_what_is_left_and_passes() {
        let progress = Progress::new(Show::Silent, "test", 2_048);
        progress.then(Afterwards { compared: 1e9, keys: 1e9, ..Afterwards::default() });
        let mut counter = progress.counter();
        (0..2_048).for_each(|_| counter.event());
        std::thread::sleep(Duration::from_millis(5));
        assert!(progress.outlook().left.unwrap() > Duration::ZERO);
        progress.step("comparing");
        let left = progress.outlook().left.unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert!(progress.outlook().left.unwrap() < left);
    }

    #[test]
    fn a_log_that_grows_while_it_is_read_makes_the_work_more_and_never_less() {
        let progress = Progress::new(Show::Silent, "test", 10);
        let mut counter = progress.counter();
        (0..8).for_each(|_| counter.event());
        drop(counter);
        progress.left(1);
        assert_eq!((progress.events(), progress.total()), (8, 10));
        progress.left(5);
        assert_eq!(progress.total(), 13);
    }
}
