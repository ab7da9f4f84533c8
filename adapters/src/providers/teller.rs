//! A stream of chunks from whatever reads a body and tells a few of them at a time.

use std::collections::VecDeque;
use std::future::Future;

use calos_commands::provider::{Chunk, ChunkStream, ProviderError};
use futures_util::stream;

/// Reads on, and tells what there is to tell.
pub(super) trait Teller: Send + 'static {
    /// Puts the next chunks behind those that are `ready`, if there are any; false when nothing follows.
    ///
    /// # Errors
    /// Whatever the stream ends with; what was told before still counts.
    fn read_on(&mut self, ready: &mut VecDeque<Chunk>) -> impl Future<Output = Result<bool, ProviderError>> + Send;
}

/// What happens once everything that is ready has been taken.
enum Then {
    ReadsOn,
    Fails(ProviderError),
    Ends,
}

/// Everything a teller has to tell: a failure comes behind what was told before it, and nothing behind a failure.
pub(super) fn told_by(teller: impl Teller) -> ChunkStream {
    let begun = (teller, VecDeque::new(), Then::ReadsOn);
    Box::pin(stream::unfold(begun, |(mut teller, mut ready, mut then)| async move {
        loop {
            if let Some(chunk) = ready.pop_front() {
                return Some((Ok(chunk), (teller, ready, then)));
            }
            then = match then {
                Then::ReadsOn => match teller.read_on(&mut ready).await {
                    Ok(true) => Then::ReadsOn,
                    Ok(false) => Then::Ends,
                    Err(error) => Then::Fails(error),
                },
                Then::Fails(error) => return Some((Err(error), (teller, ready, Then::Ends))),
                Then::Ends => return None,
            };
        }
    }))
}

#[cfg(test)]
mod tests {
    use calos_commands::provider::{ChunkKind, Produced};
    use futures_util::StreamExt;

    use super::*;

    struct Script(Vec<(usize, Result<bool, ProviderError>)>);

    impl Teller for Script {
        async fn read_on(&mut self, ready: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
            let (chunks, then) = self.0.remove(0);
            let kind = ChunkKind::Content;
            let chunk = || Chunk { kind, json: None, model: None, usage: None, produced: Produced::default() };
            ready.extend(std::iter::repeat_with(chunk).take(chunks));
            then
        }
    }

    async fn told(script: Vec<(usize, Result<bool, ProviderError>)>) -> Vec<bool> {
        told_by(Script(script)).map(|told| told.is_ok()).collect().await
    }

    fn broken() -> ProviderError {
        ProviderError::BadAnswer { provider: "ollama", detail: "x".to_owned() }
    }

    #[tokio::test]
    async fn what_was_told_in_one_breath_with_a_failure_comes_before_it() {
        assert_eq!(told(vec![(1, Ok(true)), (2, Err(broken()))]).await, [true, true, true, false]);
    }

    #[tokio::test]
    async fn what_is_told_last_is_told_whole() {
        assert_eq!(told(vec![(0, Ok(true)), (2, Ok(false))]).await, [true, true]);
    }
}
