//! Anthropic's dialect for providers that speak OpenAI's or their own.
//!
//! The request is translated into OpenAI's words ([`super::in_anthropic_request`]), which every adapter takes, and the
//! answer back ([`super::in_anthropic_answer`], [`super::in_anthropic_stream`]). What comes in OpenAI's dialect goes
//! through untouched.

use std::sync::Arc;

use calos_commands::log::Boxed;
use calos_commands::ports::SecretText;
use calos_commands::provider::{
    ChatProvider, ChatRequest, ChunkStream, Completion, Dialect, ModelListing, ProviderError,
};

use super::in_anthropic_answer::told_whole;
use super::in_anthropic_request::translate;
use super::in_anthropic_stream::event_stream;

/// A provider that speaks Anthropic's dialect too.
#[derive(Debug)]
pub struct InAnthropic<P>(pub P);

/// The same request in OpenAI's words.
fn in_openais_words(provider: &'static str, request: &ChatRequest) -> Result<ChatRequest, ProviderError> {
    Ok(ChatRequest {
        dialect: Dialect::OpenAi,
        fields: Arc::new(translate(provider, request)?),
        // A usage that is shown need not be cut out of every chunk.
        show_usage: true,
        ..request.clone()
    })
}

impl<P: ChatProvider> ChatProvider for InAnthropic<P> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn complete<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        if request.dialect == Dialect::OpenAi {
            return self.0.complete(request);
        }
        Box::pin(async move {
            let completion = self.0.complete(&in_openais_words(self.name(), request)?).await?;
            told_whole(self.name(), request, completion)
        })
    }

    fn stream<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<ChunkStream, ProviderError>> {
        if request.dialect == Dialect::OpenAi {
            return self.0.stream(request);
        }
        Box::pin(async move {
            let chunks = self.0.stream(&in_openais_words(self.name(), request)?).await?;
            Ok(event_stream(self.name(), request, chunks))
        })
    }

    fn embed<'a>(&'a self, request: &'a ChatRequest) -> Boxed<'a, Result<Completion, ProviderError>> {
        self.0.embed(request)
    }

    fn models(&self) -> Boxed<'_, Result<Vec<ModelListing>, ProviderError>> {
        self.0.models()
    }

    fn has_platform_account(&self) -> bool {
        self.0.has_platform_account()
    }

    fn check_key<'a>(&'a self, key: &'a SecretText) -> Boxed<'a, Result<(), ProviderError>> {
        self.0.check_key(key)
    }
}
