//! How far long work is: a bar on a terminal, a plain line now and then elsewhere, nothing when called from a program.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A plain line at most this often.
const PLAIN_LINE_EVERY_SECONDS: u64 = 5;

/// Counted in memory and shown only every so many events, so that showing costs nothing per event.
const SHOWN_EVERY_EVENTS: u64 = 8_192;

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
    total: u64,
    done: AtomicU64,
    started: Instant,
    last_line_seconds: AtomicU64,
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
            total,
            done: AtomicU64::new(0),
            started: Instant::now(),
            last_line_seconds: AtomicU64::new(0),
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
        self.0.total
    }

    /// Since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
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
        if let Some(bar) = &inner.bar {
            bar.set_position(done);
        }
        if inner.plain {
            let seconds = inner.started.elapsed().as_secs();
            let last = inner.last_line_seconds.load(Ordering::Relaxed);
            let due = seconds >= last + PLAIN_LINE_EVERY_SECONDS;
            let turn = Ordering::Relaxed;
            if due && inner.last_line_seconds.compare_exchange(last, seconds, turn, turn).is_ok() {
                let rate = done / seconds.max(1);
                let left = inner.total.saturating_sub(done) / rate.max(1);
                line(&format!("{}: {done} of {} events, {rate} events/s, {left} s left", inner.title, inner.total));
            }
        }
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
    let template = "{msg} {bar:30} {pos}/{len} events, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(title.to_owned());
    bar
}

/// A line on standard error. Progress that nobody can read any more stops nothing.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
