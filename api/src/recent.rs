//! One look for everybody who asks within a moment: what anybody may ask must not cost a query each time.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How long what was seen is given to others.
const RECENT_SECONDS: u64 = 1;

/// What was seen last. Whoever asks while somebody looks waits for what they see.
#[derive(Debug)]
pub struct Recent<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Recent<T> {
    /// What was seen at most a second ago, or what `look` sees now.
    pub async fn or_look<F: Future<Output = T>>(&self, look: impl FnOnce() -> F) -> T {
        let mut last = self.0.lock().await;
        if let Some((at, seen)) = last.as_ref()
            && at.elapsed() < Duration::from_secs(RECENT_SECONDS)
        {
            return seen.clone();
        }
        let seen = look().await;
        *last = Some((Instant::now(), seen.clone()));
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_cost_one_look_and_later_there_is_another() {
        let (recent, looks) = (Recent::default(), AtomicU32::new(0));
        let ask = || recent.or_look(async || looks.fetch_add(1, Ordering::Relaxed));
        let (first, second) = tokio::join!(ask(), ask());
        assert_eq!((first, second, ask().await), (0, 0, 0));
        tokio::time::sleep(Duration::from_millis(RECENT_SECONDS * 1_000 + 50)).await;
        assert_eq!(ask().await, 1);
    }
}
