//! Counts the tokens of a prompt that nobody answers.

use std::sync::Arc;
use std::time::Duration;

use calos_domain::pricing::{PriceBook, Provider};
use tokio::sync::Semaphore;

use super::messages::{TOOLS_FRAME_ABOUT_TOKENS, about_message_tokens};
use super::{BadRequest, Gateway};
use crate::log::EventLog;
use crate::raw_object::RawObject;
use crate::tokens::{IMAGE_ABOUT_TOKENS, TokenCounter, prompt_tokens};

/// Prompts counted at a time: nobody pays for it, so it may take no more than a part of the machine.
const COUNTS_AT_A_TIME: usize = 2;

/// How long a count waits for its turn; then the prompt is estimated.
const COUNT_WAIT_MAX: Duration = Duration::from_secs(2);

/// Prompts of more tokens than this are estimated: no model reads more.
const COUNTED_MAX_TOKENS: u64 = 2_000_000;

static COUNTS: Semaphore = Semaphore::const_new(COUNTS_AT_A_TIME);

impl<L: EventLog> Gateway<L> {
    /// The likely number of tokens of a request for a message, which needs no limit for its answer: counted with the
    /// nearest tokenizer, off the event loop, or estimated from its length where that would take too long.
    ///
    /// # Errors
    /// [`BadRequest`], naming the field.
    pub async fn count_message_tokens(&self, body: RawObject) -> Result<u64, BadRequest> {
        count_apart(&COUNTS, Arc::clone(&self.0.counter), body).await
    }
}

/// Counts off the event loop, or estimates where no turn comes. Whoever leaves meanwhile does not end the count, so the
/// turn lasts as long as it does.
async fn count_apart(
    turns: &'static Semaphore,
    counter: Arc<dyn TokenCounter>,
    body: RawObject,
) -> Result<u64, BadRequest> {
    let turn = tokio::time::timeout(COUNT_WAIT_MAX, turns.acquire()).await.ok().and_then(Result::ok);
    let body = Arc::new(body);
    let read = Arc::clone(&body);
    let counting = tokio::task::spawn_blocking(move || {
        let counter = turn.is_some().then_some(&*counter);
        let counted = count(counter, &read);
        drop(turn);
        counted
    });
    counting.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a prompt is estimated: counting it failed");
        about_message_tokens(&body)
    })
}

fn count(counter: Option<&dyn TokenCounter>, body: &RawObject) -> Result<u64, BadRequest> {
    let about = about_message_tokens(body)?;
    let Some(counter) = counter.filter(|_| about <= COUNTED_MAX_TOKENS) else { return Ok(about) };
    let model: String = body.lenient("model").unwrap_or_default();
    let provider = PriceBook::current().model(&model).map_or(Provider::Anthropic, |entry| entry.provider);
    let counted = prompt_tokens(counter, (provider, &model), IMAGE_ABOUT_TOKENS, body);
    let frame = if body.given("tools").is_some_and(|tools| tools != "[]") { TOOLS_FRAME_ABOUT_TOKENS } else { 0 };
    Ok(counted.map_or(about, |tokens| tokens + frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{ANSWER_FRAME_TOKENS, MESSAGE_FRAME_TOKENS};

    /// Counts words.
    struct Words;

    impl TokenCounter for Words {
        fn count(&self, _: Provider, _: &str, text: &str) -> u64 {
            text.split_whitespace().count() as u64
        }
    }

    /// Says that it has begun, and counts nothing until it is let go on.
    struct Slow {
        begun: std::sync::mpsc::Sender<()>,
        goes_on: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
    }

    impl TokenCounter for Slow {
        fn count(&self, _: Provider, _: &str, _: &str) -> u64 {
            self.begun.send(()).unwrap();
            // An error says the same.
            let _let_go = self.goes_on.lock().unwrap().recv();
            1
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_count_that_nobody_waits_for_keeps_its_turn_until_it_ends() {
        static TURNS: Semaphore = Semaphore::const_new(1);
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        let counter = Arc::new(Slow { begun, goes_on: std::sync::Mutex::new(goes_on) });
        let body = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
        let counting = tokio::spawn(count_apart(&TURNS, counter, serde_json::from_str(body).unwrap()));
        tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
        counting.abort();
        assert!(counting.await.unwrap_err().is_cancelled());
        assert_eq!(TURNS.available_permits(), 0);
        drop(go_on);
        let freed = tokio::time::timeout(Duration::from_secs(5), TURNS.acquire()).await;
        assert!(freed.is_ok_and(|turn| turn.is_ok()));
    }

    fn counted(counter: Option<&dyn TokenCounter>, json: &str) -> Result<u64, BadRequest> {
        count(counter, &serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_prompt_is_counted_where_there_is_time_for_it_and_estimated_where_not() {
        let long = "internationalisation ".repeat(100);
        let json = format!(r#"{{"model":"claude-sonnet-4-6","messages":[{{"role":"user","content":"{long}"}}]}}"#);
        assert_eq!(counted(Some(&Words), &json), Ok(100 + MESSAGE_FRAME_TOKENS + ANSWER_FRAME_TOKENS));
        assert!(counted(None, &json).unwrap() > 500);
        assert_eq!(counted(Some(&Words), r#"{"messages":[]}"#).unwrap_err().param, "messages");
    }
}
