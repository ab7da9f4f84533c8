//! Work that does not stop half-way because its client hung up.

use std::future::Future;

use calos_commands::in_request::carried;

use crate::error::ApiError;

/// Does the work in a task of its own and waits for it. A handler is dropped with its connection, wherever it waits:
/// what must follow an append, such as forgetting what was remembered about a key, would never happen then.
///
/// # Errors
/// The work's own; 500 when it broke off.
pub async fn to_the_end<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    tokio::spawn(carried(work)).await.map_err(ApiError::internal)?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits_for_it_any_more() {
        let (begun, go_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let forgotten = Arc::new(AtomicBool::new(false));
        let handler = to_the_end({
            let (begun, go_on, done) = (Arc::clone(&begun), Arc::clone(&go_on), Arc::clone(&done));
            let forgotten = Arc::clone(&forgotten);
            async move {
                begun.notify_one();
                go_on.notified().await;
                forgotten.store(true, Ordering::SeqCst);
                done.notify_one();
                Ok(())
            }
        });
        tokio::select! {
            _ = handler => panic!("nobody let it go on"),
            () = begun.notified() => {}
        }
        go_on.notify_one();
        done.notified().await;
        assert!(forgotten.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn what_the_work_answers_is_the_answer() {
        assert_eq!(to_the_end(async { Ok(7) }).await.ok(), Some(7));
        let refused = to_the_end(async { Err::<(), _>(ApiError::not_found("key")) }).await;
        assert_eq!(refused.err().map(|error| error.status().as_u16()), Some(404));
    }
}
