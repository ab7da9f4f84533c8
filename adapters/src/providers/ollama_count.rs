//! Counts a prompt that Ollama had in its cache and so left out of its report.

use std::sync::Arc;

use calos_commands::provider::ChatRequest;
use calos_commands::raw_object::RawObject;
use calos_commands::tokens::{IMAGE_ABOUT_TOKENS, TokenCounter, prompt_tokens};
use calos_domain::pricing::Provider;

/// What is needed to count a prompt once the answer is there.
pub(super) struct Counting {
    counter: Option<Arc<dyn TokenCounter>>,
    model: String,
    fields: Arc<RawObject>,
    estimate_tokens: u64,
}

impl Counting {
    pub(super) fn new(counter: Option<Arc<dyn TokenCounter>>, request: &ChatRequest) -> Self {
        let (model, fields) = (request.model.clone(), Arc::clone(&request.fields));
        Self { counter, model, fields, estimate_tokens: request.prompt_estimate_tokens }
    }

    /// The tokens of the prompt, counted off the event loop; estimated where nobody counts.
    pub(super) async fn prompt(&self) -> u64 {
        let Some(counter) = self.counter.clone() else { return self.estimate_tokens };
        let (model, fields) = (self.model.clone(), Arc::clone(&self.fields));
        let counting = tokio::task::spawn_blocking(move || {
            prompt_tokens(counter.as_ref(), (Provider::Ollama, &model), IMAGE_ABOUT_TOKENS, &fields)
        });
        let counted = counting.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a prompt is estimated: counting it failed");
            None
        });
        counted.unwrap_or(self.estimate_tokens)
    }
}
