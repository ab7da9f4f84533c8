//! The load: a closed loop of callers, or an open one whose arrivals were fixed beforehand.
//!
//! It runs on one thread of its own. In the open loop a latency counts from the moment a call was meant to arrive, so a
//! server that falls behind is not spared the calls it should have had meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection::{Answered, Connection, Goal};
use crate::error::BenchError;
use crate::stats::Latencies;

/// Calls of an open loop on their way at a time; a further one counts as failed.
const OPEN_MAX_CALLS: usize = 4_000;
/// How long calls may take to end after the window.
const TAIL_MAX: Duration = Duration::from_secs(30);
/// How long a caller waits after a call that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(10);
/// Arrivals are the same for whoever is measured.
const ARRIVALS_SEED: u64 = 7;

/// How calls arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// Each of so many callers asks again as soon as it was answered.
    Closed(usize),
    /// So many a second, at random moments, however long answers take.
    Open(f64),
}

/// When what is measured begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The first moment that counts.
    pub begin: Instant,
    /// The last one.
    pub end: Instant,
}

/// What the callers saw.
pub struct Seen {
    /// Calls within the span.
    pub calls: u64,
    /// Calls that ended well after its beginning, those after its end included.
    pub calls_since_begin: u64,
    /// Calls that ended well, the warm-up included.
    pub answered: u64,
    /// Calls that failed, the warm-up included.
    pub failed: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
    /// Until the whole answer was there.
    pub whole: Latencies,
    /// Until the first token was there.
    pub first_token: Latencies,
    /// Between tokens.
    pub gaps: Latencies,
}

impl Seen {
    fn new() -> Result<Self, BenchError> {
        Ok(Self {
            calls: 0,
            calls_since_begin: 0,
            answered: 0,
            failed: 0,
            first_failure: None,
            whole: Latencies::new()?,
            first_token: Latencies::new()?,
            gaps: Latencies::new()?,
        })
    }

    fn fail(&mut self, problem: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(problem);
    }

    fn succeed(&mut self, answered: &Answered, asked: Instant, counts: bool, span: Span) {
        self.answered += 1;
        self.calls_since_begin += u64::from(answered.ended >= span.begin);
        if !counts {
            return;
        }
        self.calls += 1;
        self.whole.record(micros(answered.ended, asked));
        if let Some(first) = answered.first_token {
            self.first_token.record(micros(first, asked));
        }
        for gap in &answered.gaps {
            self.gaps.record(u64::try_from(gap.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

fn micros(later: Instant, earlier: Instant) -> u64 {
    u64::try_from(later.saturating_duration_since(earlier).as_micros()).unwrap_or(u64::MAX)
}

/// Lets calls arrive until the span is over and waits for those on their way. Blocks the thread.
///
/// # Errors
/// When nobody could be asked at all.
pub fn generate(goal: &Arc<Goal>, arrival: Arrival, span: Span) -> Result<Seen, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = Arc::new(Mutex::new(Seen::new()?));
    runtime.block_on(async {
        let calling = async {
            match arrival {
                Arrival::Closed(callers) => closed(goal, callers, span, &seen).await,
                Arrival::Open(per_second) => open(goal, per_second, span, &seen).await,
            }
        };
        let latest = tokio::time::Instant::from_std(span.end + TAIL_MAX);
        if tokio::time::timeout_at(latest, calling).await.is_err() {
            lock(&seen).fail(format!("calls were on their way {} s after the end", TAIL_MAX.as_secs()));
        }
    });
    // Whatever is still on its way is dropped here, and its share in the figures with it.
    drop(runtime);
    let seen = Arc::into_inner(seen).ok_or_else(|| BenchError::Check("a caller outlived its load".to_owned()))?;
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    if seen.calls == 0 {
        let why = seen.first_failure.unwrap_or_else(|| "no call ended in time".to_owned());
        return Err(BenchError::Check(format!("nothing was answered: {why}")));
    }
    Ok(seen)
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn closed(goal: &Arc<Goal>, callers: usize, span: Span, seen: &Arc<Mutex<Seen>>) {
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        tasks.spawn(call_until_over(Arc::clone(goal), caller, span, Arc::clone(seen)));
    }
    tasks.join_all().await;
}

async fn call_until_over(goal: Arc<Goal>, caller: usize, span: Span, seen: Arc<Mutex<Seen>>) {
    let mut connection = None;
    while Instant::now() < span.end {
        match call_once(&mut connection, &goal, caller).await {
            Ok(answered) => {
                let counts = answered.ended >= span.begin && answered.ended < span.end;
                lock(&seen).succeed(&answered, answered.sent, counts, span);
            }
            Err(problem) => {
                lock(&seen).fail(problem);
                tokio::time::sleep(FAILED_PAUSE).await;
            }
        }
    }
}

async fn call_once(kept: &mut Option<Connection>, goal: &Goal, caller: usize) -> Result<Answered, String> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(goal.address).await?,
    };
    let answered = connection.call(goal, caller).await?;
    *kept = Some(connection);
    Ok(answered)
}

async fn open(goal: &Arc<Goal>, per_second: f64, span: Span, seen: &Arc<Mutex<Seen>>) {
    let arrivals = arrivals(per_second, span);
    // One that does not fit has to wait for the reader, which is how late it then counts as.
    let (sender, mut due) = mpsc::channel(OPEN_MAX_CALLS);
    // A thread sleeps to within some microseconds, a runtime's timer only to the next millisecond.
    let scheduler = std::thread::spawn(move || {
        for arrival in arrivals {
            std::thread::sleep(arrival.saturating_duration_since(Instant::now()));
            if sender.blocking_send(arrival).is_err() {
                return;
            }
        }
    });
    let idle: Arc<Mutex<VecDeque<Connection>>> = Arc::default();
    let mut tasks = JoinSet::new();
    let mut caller = 0;
    while let Some(asked) = due.recv().await {
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= OPEN_MAX_CALLS {
            lock(seen).fail(format!("{OPEN_MAX_CALLS} calls were on their way at once"));
            continue;
        }
        caller += 1;
        let (goal, seen, idle) = (Arc::clone(goal), Arc::clone(seen), Arc::clone(&idle));
        tasks.spawn(async move {
            // The one used last, as a pool does: few connections stay busy.
            let mut kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
            match call_once(&mut kept, &goal, caller).await {
                Ok(answered) => {
                    lock(&seen).succeed(&answered, asked, asked >= span.begin && asked < span.end, span);
                    idle.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
                }
                Err(problem) => lock(&seen).fail(problem),
            }
        });
    }
    tasks.join_all().await;
    if scheduler.join().is_err() {
        lock(seen).fail("the scheduler of arrivals ended badly".to_owned());
    }
}

/// The moments at which calls arrive, from now to the end of the span: independent of each other, as many callers' are.
fn arrivals(per_second: f64, span: Span) -> Vec<Instant> {
    let mut random = SmallRng::seed_from_u64(ARRIVALS_SEED);
    let mut arrivals = Vec::new();
    let mut next = Instant::now();
    loop {
        let share: f64 = random.random_range(f64::EPSILON..1.0);
        next += Duration::from_secs_f64(-share.ln() / per_second.max(f64::EPSILON));
        if next >= span.end {
            return arrivals;
        }
        arrivals.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_as_often_as_asked_and_in_order() {
        let now = Instant::now();
        let arrivals = arrivals(500.0, Span { begin: now, end: now + Duration::from_secs(20) });
        assert!((9_500..10_500).contains(&arrivals.len()), "{}", arrivals.len());
        assert!(arrivals.is_sorted());
    }
}
