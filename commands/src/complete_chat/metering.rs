//! What a call is charged for: the provider's report, or our own count where there is none.

use std::sync::Arc;

use calos_domain::pricing::Provider;

use calos_domain::wallet::{FailedAttempt, ReleaseCause, UsageOutcome};

use super::admit::{Admission, Candidate};
use super::settle::{Metered, Patience};
use super::{CallKind, ChatCall, ChatCaller, Gateway};
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

    /// Ends a call whose client left before its first piece came. A request that was under way has been read, as far as
    /// anybody can tell, and its prompt is charged, as it is when the client leaves one piece later. Where everything
    /// that was sent had been refused, or nothing was, the hold goes back.
    pub(super) async fn bill_unanswered(
        &self,
        caller: &ChatCaller,
        call: &ChatCall,
        admission: &Admission,
        used: &Candidate,
        failed: Vec<FailedAttempt>,
        sent: bool,
    ) {
        if !sent {
            return self.release(caller, admission.hold_id, ReleaseCause::ClientGone).await;
        }
        let usage = self.metered_usage(None, Produced::default(), &Transcript::default(), call, used).await;
        let metered = Metered { outcome: UsageOutcome::ClientGone, usage, model: None, failed };
        let settled = self.settle(caller, call, admission, used, metered, None, Patience::UntilExpired).await;
        if let Err(failure) = settled {
            tracing::error!(usage = %admission.usage_id, %failure, "what a client left behind is not charged");
        }
    }

    /// Counts off the event loop: a long prompt takes milliseconds, and the first count loads the tokenizer.
    async fn count(&self, transcript: &Transcript, call: &ChatCall, used: &Candidate) -> Counted {
        let counter = Arc::clone(&self.0.counter);
        let (provider, model) = (used.route.provider, used.route.model.clone());
        let (fields, (text, unkept_bytes)) = (used.spoken(&call.fields), transcript.take());
        // Most pictures are nowhere near the largest a model takes in.
        let image_tokens = self.0.book.image_max_tokens(provider, &model).div_ceil(2);
        let counting = tokio::task::spawn_blocking(move || Counted {
            prompt: prompt_tokens(counter.as_ref(), (provider, &model), image_tokens, &fields),
            completion: (!text.is_empty()).then(|| counter.count(provider, &model, &text) + about(unkept_bytes)),
        });
        counting.await.unwrap_or_else(|error| {
            tracing::error!(%error, "tokens are estimated: counting them failed");
            Counted { prompt: None, completion: None }
        })
    }
}
