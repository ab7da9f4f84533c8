//! The closed loop: a number of callers, each asking again as soon as it was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cpu::CpuMeter;
use crate::error::BenchError;
use crate::stats::{Latencies, Run};

/// One caller of whatever is measured.
pub trait Caller: Send + 'static {
    /// Asks once and waits for the durable answer; answers how often it had to try again.
    fn call(&mut self) -> impl Future<Output = Result<u32, BenchError>> + Send;
}

/// How long callers call.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Before anything counts: statements are prepared, caches fill.
    pub warm_up: Duration,
    /// What counts.
    pub measured: Duration,
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// What one caller saw within the window.
#[derive(Default)]
struct Seen {
    latencies_micros: Vec<u32>,
    retries: u64,
    /// Answered calls altogether, within the window or not.
    answered: u64,
}

/// What all callers did, and how many calls were answered altogether, the warm-up included.
pub struct Driven {
    /// The window.
    pub run: Run,
    /// Answered calls of the whole drive: what must be found in the database afterwards.
    pub answered: u64,
}

/// Lets all callers call at once, and measures the window.
///
/// A call counts when it ends within the window.
pub async fn drive<C: Caller>(callers: Vec<C>, window: Window, meter: &CpuMeter) -> Result<Driven, BenchError> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let mut tasks: JoinSet<Result<Seen, BenchError>> = JoinSet::new();
    for caller in callers {
        tasks.spawn(call_until_over(caller, Arc::clone(&phase)));
    }
    tokio::time::sleep(window.warm_up).await;
    let cpu_before = meter.read();
    let started = Instant::now();
    phase.store(MEASURING, Ordering::Relaxed);
    tokio::time::sleep(window.measured).await;
    phase.store(OVER, Ordering::Relaxed);
    let elapsed = started.elapsed();
    let cpu = meter.since(cpu_before);

    let mut run = Run { operations: 0, elapsed, latencies: Latencies::new()?, cpu, retries: 0 };
    let mut answered = 0;
    while let Some(ended) = tasks.join_next().await {
        let seen = ended.map_err(|error| BenchError::Check(format!("a caller ended badly: {error}")))??;
        run.operations += u64::try_from(seen.latencies_micros.len()).unwrap_or(u64::MAX);
        run.retries += seen.retries;
        answered += seen.answered;
        for micros in seen.latencies_micros {
            run.latencies.record(u64::from(micros));
        }
    }
    if run.operations == 0 {
        return Err(BenchError::Check(format!("nothing was answered within {} ms", window.measured.as_millis())));
    }
    Ok(Driven { run, answered })
}

async fn call_until_over<C: Caller>(mut caller: C, phase: Arc<AtomicU8>) -> Result<Seen, BenchError> {
    let mut seen = Seen::default();
    loop {
        let asked = Instant::now();
        let retries = caller.call().await?;
        seen.answered += 1;
        match phase.load(Ordering::Relaxed) {
            WARMING => {}
            MEASURING => {
                seen.latencies_micros.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
                seen.retries += u64::from(retries);
            }
            _ => return Ok(seen),
        }
    }
}
