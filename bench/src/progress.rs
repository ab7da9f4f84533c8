//! What is going on right now, as plain lines on standard error; the results go to standard output.

use std::io::Write;
use std::time::Instant;

/// A quick measurement begins nothing that would end later than this.
pub const QUICK_LIMIT_SECONDS: f64 = 52.0;

/// Says what is being measured.
pub struct Progress {
    started: Instant,
}

impl Progress {
    /// Starts the clock.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// One line. Nobody may be reading: then nothing is lost but the line.
    pub fn say(&self, line: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stderr().lock(), "[{seconds:6.1} s] {line}");
    }

    /// One line about a rate.
    pub fn rate(&self, what: &str, per_second: f64, unit: &str) {
        self.say(&format!("{what}: {per_second:.0} {unit}s/s"));
    }

    /// Whether work that takes about as long as what began at `since_seconds` would still end within `limit_seconds`.
    pub fn allows(&self, since_seconds: f64, limit_seconds: f64) -> bool {
        let now = self.seconds();
        now + (now - since_seconds) <= limit_seconds
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
