//! Work in the background that this process does one at a time: what is running, and how the last one ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use calos_domain::Timestamp;

use crate::request::now;

/// The place where one may run. `R` says what runs, `T` what comes of it. Cloning shares it.
pub struct OneAtATime<R, T>(Arc<Mutex<State<R, T>>>);

struct State<R, T> {
    running: Option<R>,
    last: Option<Ended<R, T>>,
}

/// One that ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Ended<R, T> {
    /// What ran.
    pub ran: R,
    /// When it ended.
    pub at: Timestamp,
    /// What came of it, or why it broke off.
    pub outcome: Result<T, String>,
}

/// Says in the server's own log how one ended.
pub type Told<R, T> = fn(&R, &Result<T, String>);

impl<R, T> Clone for OneAtATime<R, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R, T> Default for OneAtATime<R, T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { running: None, last: None })))
    }
}

impl<R, T> OneAtATime<R, T> {
    fn state(&self) -> MutexGuard<'_, State<R, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Clone, T: Clone> OneAtATime<R, T> {
    /// What is running, and the last one that ended since this process began.
    #[must_use]
    pub fn look(&self) -> (Option<R>, Option<Ended<R, T>>) {
        let state = self.state();
        (state.running.clone(), state.last.clone())
    }

    /// Takes the place.
    ///
    /// # Errors
    /// What is running there.
    pub fn enter(&self, begun: R, told: Told<R, T>) -> Result<Turn<R, T>, R> {
        let mut state = self.state();
        if let Some(running) = &state.running {
            return Err(running.clone());
        }
        state.running = Some(begun);
        Ok(Turn { place: self.clone(), told, is_over: false })
    }
}

/// The one that may run. A turn that is dropped has broken off.
pub struct Turn<R, T> {
    place: OneAtATime<R, T>,
    told: Told<R, T>,
    is_over: bool,
}

impl<R, T> Turn<R, T> {
    /// Changes what is said of it while it runs.
    pub fn say(&self, change: impl FnOnce(&mut R)) {
        if let Some(running) = &mut self.place.state().running {
            change(running);
        }
    }

    /// Leaves the place to the next one.
    pub fn end(mut self, outcome: Result<T, String>) {
        self.leave(outcome);
    }

    fn leave(&mut self, outcome: Result<T, String>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let mut state = self.place.state();
        let Some(ran) = state.running.take() else { return };
        (self.told)(&ran, &outcome);
        state.last = Some(Ended { ran, at: now(), outcome });
    }
}

impl<R, T> Drop for Turn<R, T> {
    fn drop(&mut self) {
        self.leave(Err("it ended abnormally".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_at_a_time_and_the_last_one_is_remembered() {
        let place = OneAtATime::<&str, u32>::default();
        let turn = place.enter("first", |_, _| ()).ok().unwrap();
        assert_eq!(place.enter("second", |_, _| ()).err(), Some("first"));
        turn.say(|running| *running = "first, half done");
        assert_eq!(place.clone().look(), (Some("first, half done"), None));
        turn.end(Ok(7));
        let (running, last) = place.look();
        let last = last.unwrap();
        assert_eq!((running, last.ran, last.outcome), (None, "first, half done", Ok(7)));
        assert!(place.enter("second", |_, _| ()).is_ok());
    }

    #[test]
    fn one_that_is_dropped_stands_in_nobodys_way() {
        let place = OneAtATime::<&str, u32>::default();
        drop(place.enter("first", |_, _| ()));
        let (running, last) = place.look();
        assert_eq!((running, last.unwrap().outcome), (None, Err("it ended abnormally".to_owned())));
    }
}
