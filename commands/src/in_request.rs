//! Which request the running task works for, so that whatever is logged on its behalf can name it.

use std::sync::Arc;

use tracing::Instrument as _;

/// The target of the spans a trace is made of. Nobody but the exporter of traces listens to it, so without one they cost
/// nothing.
pub const TRACE_TARGET: &str = "calos::trace";

tokio::task_local! {
    static REQUEST: Arc<str>;
}

/// Does work on behalf of a request.
pub async fn in_request<T>(request_id: Arc<str>, work: impl Future<Output = T>) -> T {
    REQUEST.scope(request_id, work).await
}

/// The request the running task works for, when it does.
#[must_use]
pub fn current() -> Option<Arc<str>> {
    REQUEST.try_with(Arc::clone).ok()
}

/// Work that is about to become a task of its own, and still belongs to the request and the span it came from.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let (request, work) = (current(), work.in_current_span());
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
        let told = in_request("mine".into(), async {
            let carried = tokio::spawn(carried(async { current() })).await.unwrap();
            (tokio::spawn(async { current() }).await.unwrap(), carried)
        });
        assert_eq!(told.await, (None, Some("mine".into())));
    }
}
