//! Callers who keep to a timetable: whoever is answered late is asked late, and that counts, because the clock runs from the
//! moment in the timetable. A system that stands still for a second then shows a second, and not one slow call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::drive::Caller;
use crate::error::BenchError;
use crate::stats::{Cpu, Latencies, Run};

/// A stretch of time.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Its first moment.
    pub begin: Instant,
    /// Its last.
    pub end: Instant,
}

impl Span {
    /// From a moment on, for so long.
    pub fn lasting(begin: Instant, length: Duration) -> Self {
        Self { begin, end: begin + length }
    }

    fn has(&self, at: Instant) -> bool {
        self.begin <= at && at < self.end
    }
}

/// One answered call.
#[derive(Clone, Copy, Debug)]
struct Call {
    /// After the beginning, by the timetable.
    due: Duration,
    /// From then to its answer.
    latency_micros: u32,
}

/// Callers at work.
pub struct Pacer {
    started: Instant,
    over: Arc<AtomicBool>,
    tasks: JoinSet<Result<Vec<Call>, BenchError>>,
}

/// What they saw.
pub struct Paced {
    started: Instant,
    calls: Vec<Call>,
    /// Calls that were answered, all of them.
    pub answered: u64,
}

impl Pacer {
    /// Lets callers call in turn, at the same distance from each other, `per_second` altogether.
    pub fn start<C: Caller>(callers: Vec<C>, per_second: f64) -> Self {
        let (started, over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let apart = Duration::from_secs_f64(1.0 / per_second.max(f64::MIN_POSITIVE));
        let count = u32::try_from(callers.len()).unwrap_or(u32::MAX);
        let mut tasks = JoinSet::new();
        for (number, caller) in (0_u32..).zip(callers) {
            let timetable = Timetable { first: apart * number, every: apart * count };
            tasks.spawn(keep_to(caller, started, timetable, Arc::clone(&over)));
        }
        Self { started, over, tasks }
    }

    /// Lets nobody call any more and waits for those on their way.
    ///
    /// # Errors
    /// A call failed: then nothing that was measured counts.
    pub async fn stop(mut self) -> Result<Paced, BenchError> {
        self.over.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            calls.extend(ended.map_err(|error| BenchError::Check(format!("a caller ended badly: {error}")))??);
        }
        let answered = u64::try_from(calls.len()).unwrap_or(u64::MAX);
        Ok(Paced { started: self.started, calls, answered })
    }
}

/// When one caller is to call.
#[derive(Clone, Copy, Debug)]
struct Timetable {
    first: Duration,
    every: Duration,
}

async fn keep_to<C: Caller>(
    mut caller: C,
    started: Instant,
    timetable: Timetable,
    over: Arc<AtomicBool>,
) -> Result<Vec<Call>, BenchError> {
    let (mut calls, mut due) = (Vec::new(), timetable.first);
    loop {
        let at = started + due;
        tokio::time::sleep_until(at.into()).await;
        if over.load(Ordering::Relaxed) {
            return Ok(calls);
        }
        caller.call().await?;
        let latency_micros = u32::try_from(at.elapsed().as_micros()).unwrap_or(u32::MAX);
        calls.push(Call { due, latency_micros });
        due += timetable.every;
    }
}

impl Paced {
    /// The calls that were due within a span.
    ///
    /// # Errors
    /// There were none.
    pub fn run(&self, span: Span, cpu: Option<Cpu>) -> Result<Run, BenchError> {
        let run = self.run_within(&[span], cpu)?;
        if run.operations == 0 {
            return Err(BenchError::Check(format!("nothing was asked within {} ms", run.elapsed.as_millis())));
        }
        Ok(run)
    }

    /// The calls that were due within one of several spans; there may be none.
    ///
    /// # Errors
    /// There is no room for their latencies.
    pub fn run_within(&self, spans: &[Span], cpu: Option<Cpu>) -> Result<Run, BenchError> {
        let elapsed = spans.iter().map(|span| span.end.saturating_duration_since(span.begin)).sum();
        let mut run = Run { operations: 0, elapsed, latencies: Latencies::new()?, cpu, retries: 0 };
        let due = |call: &&Call| spans.iter().any(|span| span.has(self.started + call.due));
        for call in self.calls.iter().filter(due) {
            run.operations += 1;
            run.latencies.record(u64::from(call.latency_micros));
        }
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands still once, for a while.
    struct Halting {
        calls: u32,
    }

    impl Caller for Halting {
        async fn call(&mut self) -> Result<u32, BenchError> {
            self.calls += 1;
            if self.calls == 3 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(0)
        }
    }

    #[tokio::test]
    async fn whoever_waits_behind_a_halt_counts_from_when_they_were_due() {
        let pacer = Pacer::start(vec![Halting { calls: 0 }], 100.0);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let paced = pacer.stop().await.unwrap();
        let late = paced.calls.iter().filter(|call| call.latency_micros > 40_000).count();
        assert!((10..=30).contains(&late), "twenty calls were due while it stood still: {:?}", paced.calls);
        let begin = paced.started;
        let early = paced.run(Span::lasting(begin, Duration::from_millis(15)), None).unwrap();
        assert_eq!(early.operations, 2);
        let nobody = Span::lasting(begin + Duration::from_secs(60), Duration::from_secs(1));
        assert!(paced.run(nobody, None).is_err());
        assert_eq!(paced.answered, u64::try_from(paced.calls.len()).unwrap());
    }
}
