//! How rightly a rebuild says how long it will take: what it said when a tenth and when half of the events were read, held
//! against what it took.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use calos_replay::progress::{Progress, Watch};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::percent;

/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Reading is over when so much of the events there were at the beginning is read: what comes while it goes on is not waited
/// for.
const READ_PERCENT: u64 = 99;
/// When what is said counts, in percent of the events.
const ASKED_AT_PERCENT: [u64; 2] = [10, 50];

/// What was said at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Foretold {
    /// How much was read, in percent.
    pub at_percent: u64,
    /// Seconds since the beginning.
    pub after_seconds: f64,
    /// Seconds that were said to be left.
    pub said_seconds: f64,
    /// Seconds that were left until everything was read.
    pub reading_seconds: f64,
    /// Seconds that were left until the new version had taken the old one's place.
    pub whole_seconds: f64,
    /// How far what was said of the whole time was from the time it took to read, in percent of that.
    pub reading_error_percent: f64,
    /// The same for the time until the switch.
    pub whole_error_percent: f64,
}

/// What was seen of a rebuild while it went on.
#[derive(Debug, Default)]
struct Looks {
    said: Vec<(u64, Duration, Duration)>,
    /// When the events there were at the beginning had been read.
    read: Option<Duration>,
}

/// Whoever looks.
pub struct Looking {
    watch: Watch,
    looks: Arc<Mutex<Looks>>,
    looking: JoinHandle<()>,
}

impl Looking {
    /// Begins to look at the rebuild that is seen through `watch`.
    pub fn begin(watch: Watch) -> Self {
        let looks = Arc::new(Mutex::new(Looks::default()));
        Self { looking: tokio::spawn(look(watch.clone(), Arc::clone(&looks))), watch, looks }
    }

    /// What had been said; nothing when it ended before it could be seen.
    pub fn end(self) -> Vec<Foretold> {
        let whole = self.watch.progress().map(Progress::elapsed).unwrap_or_default();
        self.looking.abort();
        held_against(&self.looks.lock().unwrap_or_else(PoisonError::into_inner), whole)
    }
}

async fn look(watch: Watch, looks: Arc<Mutex<Looks>>) {
    let progress = loop {
        if let Some(progress) = watch.progress() {
            break progress;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let total = progress.total();
    let mut asked = ASKED_AT_PERCENT.into_iter().peekable();
    while progress.events() < total / 100 * READ_PERCENT {
        let outlook = progress.outlook();
        if let (Some(at), Some(left)) = (asked.next_if(|at| outlook.percent >= *at), outlook.left) {
            let said = (at, progress.elapsed(), left);
            looks.lock().unwrap_or_else(PoisonError::into_inner).said.push(said);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    looks.lock().unwrap_or_else(PoisonError::into_inner).read = Some(progress.elapsed());
}

fn held_against(looks: &Looks, whole: Duration) -> Vec<Foretold> {
    let (whole, read) = (whole.as_secs_f64(), looks.read.unwrap_or(whole).as_secs_f64());
    let held = |&(at_percent, after, left): &(u64, Duration, Duration)| {
        let (after_seconds, said_seconds) = (after.as_secs_f64(), left.as_secs_f64());
        let error = |took: f64| percent((after_seconds + said_seconds - took).abs(), took);
        Foretold {
            at_percent,
            after_seconds,
            said_seconds,
            reading_seconds: (read - after_seconds).max(0.0),
            whole_seconds: (whole - after_seconds).max(0.0),
            reading_error_percent: error(read),
            whole_error_percent: error(whole),
        }
    };
    looks.said.iter().map(held).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_held_against_what_it_took() {
        let seconds = Duration::from_secs;
        let looks = Looks {
            said: vec![(10, seconds(2), seconds(16)), (50, seconds(10), seconds(10))],
            read: Some(seconds(20)),
        };
        let held = held_against(&looks, seconds(25));
        let errors: Vec<_> =
            held.iter().map(|at| (at.reading_error_percent.round(), at.whole_error_percent.round())).collect();
        assert_eq!(errors, [(10.0, 28.0), (0.0, 20.0)]);
        assert!((held[0].reading_seconds - 18.0).abs() < 1e-9 && (held[1].whole_seconds - 15.0).abs() < 1e-9);
    }
}
