//! Which request the running task works for, so that whatever is logged on its behalf can name it, and whether it has begun
//! to act: until then it can be given up as if it had never been made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::Instrument as _;

/// The target of the spans a trace is made of. Nobody but the exporter of traces listens to it, so without one they cost
/// nothing.
pub const TRACE_TARGET: &str = "calos::trace";

/// Nothing was changed and nobody outside was asked for anything.
const LOOKING: u8 = 0;
/// Something was handed to the log, or a provider is called.
const ACTING: u8 = 1;
/// Its caller was told that nothing happened, so nothing may.
const GIVEN_UP: u8 = 2;

tokio::task_local! {
    static REQUEST: Arc<InRequest>;
}

/// A request that is being worked on, by whichever tasks work for it.
#[derive(Debug)]
pub struct InRequest {
    id: Arc<str>,
    stage: AtomicU8,
}

impl InRequest {
    /// A request that has done nothing yet.
    #[must_use]
    pub fn new(id: Arc<str>) -> Arc<Self> {
        Arc::new(Self { id, stage: AtomicU8::new(LOOKING) })
    }

    /// Gives it up: from now on none of its tasks changes anything. False when it has begun to act, and goes on.
    #[must_use]
    pub fn give_up(&self) -> bool {
        self.moves_to(GIVEN_UP)
    }

    /// From looking to a stage; whether that is its stage now.
    fn moves_to(&self, stage: u8) -> bool {
        let moved = self.stage.compare_exchange(LOOKING, stage, Ordering::AcqRel, Ordering::Acquire);
        moved.is_ok() || moved == Err(stage)
    }
}

/// Does work on behalf of a request.
pub async fn in_request<T>(request: Arc<InRequest>, work: impl Future<Output = T>) -> T {
    REQUEST.scope(request, work).await
}

/// The request the running task works for, when it does.
#[must_use]
pub fn current() -> Option<Arc<str>> {
    REQUEST.try_with(|request| Arc::clone(&request.id)).ok()
}

/// Says that the running task is about to change something or to ask somebody outside for something that costs. False when
/// its request was given up: then it must not. Work for no request may always.
#[must_use]
pub fn may_act() -> bool {
    REQUEST.try_with(|request| request.moves_to(ACTING)).unwrap_or(true)
}

/// Work that is about to become a task of its own, and still belongs to the request and the span it came from.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let (request, work) = (REQUEST.try_with(Arc::clone).ok(), work.in_current_span());
    async move {
        match request {
            Some(request) => REQUEST.scope(request, work).await,
            None => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_goes_on_for_the_request_it_was_begun_for() {
        assert_eq!(tokio::spawn(carried(async { current() })).await.unwrap(), None);
        let told = in_request(InRequest::new("mine".into()), async {
            let carried = tokio::spawn(carried(async { current() })).await.unwrap();
            (tokio::spawn(async { current() }).await.unwrap(), carried)
        });
        assert_eq!(told.await, (None, Some("mine".into())));
    }

    #[tokio::test]
    async fn a_request_either_acts_or_is_given_up() {
        let act = || async { tokio::spawn(carried(async { may_act() })).await.unwrap() };
        let acting = InRequest::new("first".into());
        assert!(in_request(Arc::clone(&acting), act()).await && in_request(Arc::clone(&acting), act()).await);
        assert!(!acting.give_up(), "it has begun to act");
        let given_up = InRequest::new("second".into());
        assert!(given_up.give_up() && given_up.give_up());
        assert!(!in_request(given_up, act()).await, "its caller was told that nothing happened");
        assert!(may_act(), "nobody is told anything about work for no request");
    }
}
