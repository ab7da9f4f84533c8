//! What a call is charged for: the provider's report, or our own count where there is none.

use std::sync::Arc;

use calos_domain::pricing::Provider;

use super::admit::Candidate;
use super::{CallKind, ChatCall, Gateway};
use crate::log::EventLog;
use crate::provider::{Produced, TokenUsage, Transcript};
use crate::tokens::{about, prompt_tokens};

/// What tokenizers made of a call.
struct Counted {
    prompt: Option<u64>,
    completion: Option<u64>,
}

impl<L: EventLog> Gateway<L> {
    /// What is charged: the provider's report, or our own count where there is none, or none that can be true. Our count
    /// never goes beyond what the call was admitted for.
    pub(super) async fn metered_usage(
        &self,
        reported: Option<TokenUsage>,
        produced: Produced,
        transcript: &Transcript,
        call: &ChatCall,
        used: &Candidate,
    ) -> TokenUsage {
        let reported = reported.filter(|usage| usage.explains(produced));
        // Ollama's adapter has counted what its server left out, and nothing it says can be left early.
        let final_count = |usage: &TokenUsage| !usage.estimated || used.route.provider == Provider::Ollama;
        if let Some(reported) = reported.filter(final_count) {
            return reported;
        }
        let counted = self.count(transcript, call, used).await;
        // Providers send about one token in each piece, and never less.
        let written = counted.completion.map_or_else(|| produced.tokens(), |tokens| produced.counted(tokens).tokens());
        let completion = match call.kind {
            CallKind::Chat => written.min(used.max_tokens.saturating_mul(call.choices)),
            CallKind::Embeddings => 0,
        };
        if let Some(reported) = reported {
            // The provider has counted the prompt, and was left before it could count its answer.
            return TokenUsage { completion_tokens: completion.max(reported.completion_tokens), ..reported };
        }
        let prompt =
            counted.prompt.unwrap_or_else(|| call.prompt_about_tokens.saturating_add(used.voice_about_tokens()));
        TokenUsage {
            prompt_tokens: prompt.min(used.prompt_max_tokens),
            completion_tokens: completion,
            estimated: true,
            ..TokenUsage::default()
        }
    }

    /// Counts off the event loop: a long prompt takes milliseconds, and the first count loads the tokenizer.
    async fn count(&self, transcript: &Transcript, call: &ChatCall, used: &Candidate) -> Counted {
        let counter = Arc::clone(&self.0.counter);
        let (provider, model) = (used.route.provider, used.route.model.clone());
        let (fields, (text, unkept_bytes)) = (used.spoken(&call.fields), transcript.take());
        let counting = tokio::task::spawn_blocking(move || Counted {
            prompt: prompt_tokens(counter.as_ref(), provider, &model, &fields),
            completion: (!text.is_empty()).then(|| counter.count(provider, &model, &text) + about(unkept_bytes)),
        });
        counting.await.unwrap_or_else(|error| {
            tracing::error!(%error, "tokens are estimated: counting them failed");
            Counted { prompt: None, completion: None }
        })
    }
}
