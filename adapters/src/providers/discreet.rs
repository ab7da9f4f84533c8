//! Takes the key out of everything a provider says when it fails: some repeat the key they were shown, and their words
//! go to clients and into logs.

use std::sync::Arc;

use calos_commands::log::Boxed;
use calos_commands::ports::SecretText;
use calos_commands::provider::{ChatProvider, ChatRequest, ChunkStream, Completion, ModelListing, ProviderError};
use futures_util::StreamExt;

/// A provider whose failures hold no key.
#[derive(Debug)]
pub struct Discreet<P> {
    inner: P,
    platform: Option<Arc<SecretText>>,
}

impl<P: ChatProvider> Discreet<P> {
    /// The provider, and the platform's own key there, if it has one.
    pub fn new(inner: P, platform: Option<&str>) -> Self {
        Self { inner, platform: platform.map(|key| Arc::new(SecretText::new(key))) }
    }

    fn clean(&self, error: ProviderError, own: Option<&SecretText>) -> ProviderError {
        clean(error, self.platform.as_deref(), own)
    }
}

fn clean(error: ProviderError, platform: Option<&SecretText>, own: Option<&SecretText>) -> ProviderError {
    own.into_iter().chain(platform).fold(error, ProviderError::without)
}

impl<P: ChatProvider> ChatProvider for Discreet<P> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn has_platform_account(&self) -> bool {
        self.inner.has_platform_account()
    }

    fn complete<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        let answer = self.inner.complete(request);
        Box::pin(async move { answer.await.map_err(|error| self.clean(error, request.key.as_ref())) })
    }

    fn stream<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<ChunkStream, ProviderError>> {
        let answer = self.inner.stream(request);
        Box::pin(async move {
            let chunks = answer.await.map_err(|error| self.clean(error, request.key.as_ref()))?;
            let (platform, own) = (self.platform.clone(), request.key.clone());
            let discreet =
                chunks.map(move |chunk| chunk.map_err(|error| clean(error, platform.as_deref(), own.as_ref())));
            Ok(Box::pin(discreet) as ChunkStream)
        })
    }

    fn embed<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        let answer = self.inner.embed(request);
        Box::pin(async move { answer.await.map_err(|error| self.clean(error, request.key.as_ref())) })
    }

    fn models(&self) -> Boxed<'_, Result<Vec<ModelListing>, ProviderError>> {
        let listing = self.inner.models();
        Box::pin(async move { listing.await.map_err(|error| self.clean(error, None)) })
    }

    fn check_key<'a>(&'a self, key: &'a SecretText) -> Boxed<'a, Result<(), ProviderError>> {
        let checked = self.inner.check_key(key);
        Box::pin(async move { checked.await.map_err(|error| self.clean(error, Some(key))) })
    }
}
