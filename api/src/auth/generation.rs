//! A memory of checked things that never outlives what it remembers.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

/// A cache in which a look-up that began before something was forgotten cannot put it back.
pub struct Remembered<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> {
    entries: Cache<K, V>,
    forgotten: AtomicU64,
}

/// The moment a look-up began.
#[derive(Clone, Copy)]
pub struct Begun(u64);

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Remembered<K, V> {
    /// Remembers so many things for so long.
    pub fn new(max_entries: u64, seconds: u64) -> Self {
        let entries = Cache::builder().max_capacity(max_entries).time_to_live(Duration::from_secs(seconds)).build();
        Self { entries, forgotten: AtomicU64::new(0) }
    }

    /// What is remembered.
    pub fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key)
    }

    /// To be called before the look-up whose answer is to be remembered.
    pub fn begin(&self) -> Begun {
        Begun(self.forgotten.load(Ordering::SeqCst))
    }

    /// Remembers an answer, unless anything was forgotten since its look-up began.
    pub fn remember(&self, begun: Begun, key: &K, value: V)
    where
        K: Clone,
    {
        self.entries.insert(key.clone(), value);
        // Whoever forgets raises the count before it removes: either it is seen here, or it removes what was inserted.
        if self.forgotten.load(Ordering::SeqCst) != begun.0 {
            self.entries.invalidate(key);
        }
    }

    /// Forgets one thing, also if it is being looked up right now.
    pub fn forget(&self, key: &K) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.entries.invalidate(key);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.entries.invalidate_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_on_its_way_when_it_was_forgotten_is_not_remembered() {
        let remembered = Remembered::new(10, 60);
        let begun = remembered.begin();
        remembered.forget(&1);
        remembered.remember(begun, &1, "stale");
        assert_eq!(remembered.get(&1), None);
        remembered.remember(remembered.begin(), &1, "fresh");
        assert_eq!(remembered.get(&1), Some("fresh"));
        let begun = remembered.begin();
        remembered.forget_all();
        assert_eq!(remembered.get(&1), None);
        remembered.remember(begun, &2, "stale");
        assert_eq!(remembered.get(&2), None);
    }
}
