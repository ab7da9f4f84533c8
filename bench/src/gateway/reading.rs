//! CPU time of each process of the measurement.

use std::time::Duration;

use super::set_up::Stage;

/// CPU time so far, or since an earlier reading; none where the system does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuReadings {
    /// Of CALOS's server.
    pub calos: Option<Duration>,
    /// Of all of PostgreSQL's processes.
    pub postgres: Option<Duration>,
    /// Of the floor.
    pub floor: Option<Duration>,
    /// Of the simulated provider.
    pub provider: Option<Duration>,
    /// Of this process.
    pub callers: Option<Duration>,
}

impl CpuReadings {
    /// Reads now.
    pub fn read(stage: &Stage) -> Self {
        let meter = &stage.arena.meter;
        Self {
            calos: meter.of_process(stage.calos.pid),
            postgres: meter.of_postgres(),
            floor: meter.of_process(stage.floor.pid),
            provider: meter.of_process(stage.provider.pid),
            callers: meter.of_process(std::process::id()),
        }
    }

    /// What was spent since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let spent = |now: Option<Duration>, earlier: Option<Duration>| Some(now?.saturating_sub(earlier?));
        Self {
            calos: spent(self.calos, earlier.calos),
            postgres: spent(self.postgres, earlier.postgres),
            floor: spent(self.floor, earlier.floor),
            provider: spent(self.provider, earlier.provider),
            callers: spent(self.callers, earlier.callers),
        }
    }
}
