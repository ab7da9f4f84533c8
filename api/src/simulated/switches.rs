//! What a simulated provider can be told to do: take its time, fail, break off.
//!
//! The process-wide switches are set over `/simulated/switches`. A prompt overrides them for its own answer with
//! `[[name=value]]` anywhere in its last message: `[[answer_tokens=40]] [[token_delay_ms=5]] hello`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a simulated provider behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// Milliseconds until the answer begins.
    pub first_byte_delay_ms: u64,
    /// Milliseconds before each token.
    pub token_delay_ms: u64,
    /// Answer with this HTTP status instead, 400 to 599.
    pub fail_with: Option<u16>,
    /// Fail only so many times with the same last message, then answer.
    pub fail_first: Option<u64>,
    /// Break the connection after this many tokens.
    pub drop_after_tokens: Option<u64>,
    /// Send an error event after this many tokens of a stream.
    pub error_after_tokens: Option<u64>,
    /// Write nothing more of a stream after this many tokens, for as long as the caller stays, up to a minute.
    pub stall_after_tokens: Option<u64>,
    /// Report no usage.
    pub omit_usage: bool,
    /// Refuse keys that end so with 401.
    pub rejected_key_ending: Option<String>,
    /// Repeat the caller's key in every error, as careless providers do.
    pub echo_key: bool,
    /// The length of the answer; without it, the answer repeats what it was asked.
    pub answer_tokens: Option<u64>,
    /// Think for so many tokens first: unseen as OpenAI's models do, or in words as DeepSeek's.
    pub reasoning_tokens: u64,
    /// Say that so many tokens of the prompt came from the cache.
    pub cached_tokens: u64,
    /// End the answer for want of room, as DeepSeek does.
    pub out_of_room: bool,
    /// Call the first tool that is offered.
    pub call_tool: bool,
    /// Ask for the page at this URL: with the first tool that is offered, or in words where that was explained.
    pub fetch: Option<String>,
}

/// The longest answer a simulated provider writes.
pub const ANSWER_MAX_TOKENS: u64 = 100_000;

/// How long a stalled stream is kept.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How long a connection that is about to break has to send what was written.
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

impl Switches {
    /// These switches, with what the prompt says in their place. What cannot be read is left alone.
    #[must_use]
    pub fn overridden_by(mut self, prompt: &str) -> Self {
        let mut rest = prompt;
        while let Some((_, after)) = rest.split_once("[[") {
            let Some((switch, after)) = after.split_once("]]") else { break };
            self.set(switch);
            rest = after;
        }
        self
    }

    fn set(&mut self, switch: &str) {
        let (name, value) = switch.split_once('=').unwrap_or((switch, "1"));
        if name.trim() == "fetch" {
            self.fetch = Some(value.trim().to_owned());
            return;
        }
        let Ok(value) = value.trim().parse::<u64>() else { return };
        match name.trim() {
            "first_byte_delay_ms" => self.first_byte_delay_ms = value,
            "token_delay_ms" => self.token_delay_ms = value,
            "fail_with" => self.fail_with = u16::try_from(value).ok(),
            "fail_first" => self.fail_first = Some(value),
            "drop_after_tokens" => self.drop_after_tokens = Some(value),
            "error_after_tokens" => self.error_after_tokens = Some(value),
            "stall_after_tokens" => self.stall_after_tokens = Some(value),
            "omit_usage" => self.omit_usage = value != 0,
            "echo_key" => self.echo_key = value != 0,
            "answer_tokens" => self.answer_tokens = Some(value),
            "reasoning_tokens" => self.reasoning_tokens = value.min(ANSWER_MAX_TOKENS),
            "cached_tokens" => self.cached_tokens = value,
            "out_of_room" => self.out_of_room = value != 0,
            "call_tool" => self.call_tool = value != 0,
            _ => {}
        }
    }

    /// The status to fail with, if it is one to fail with.
    #[must_use]
    pub fn failure(&self) -> Option<u16> {
        self.fail_with.filter(|status| (400..600).contains(status))
    }

    /// The arguments of the tool that is called.
    #[must_use]
    pub fn tool_arguments(&self) -> Value {
        self.fetch.as_ref().map_or_else(|| json!({"simulated": true}), |url| json!({"url": url}))
    }

    /// Waits as long as the first byte is to take.
    pub async fn before_first_byte(&self) {
        pause(self.first_byte_delay_ms).await;
    }

    /// Waits as long as the token after so many others is to take.
    pub async fn before_token(&self, written: u64) {
        if self.stall_after_tokens == Some(written) {
            tokio::time::sleep(STALL_MAX).await;
        }
        pause(self.token_delay_ms).await;
    }

    /// Waits as long as a whole answer of that many tokens is to take.
    pub async fn whole_answer(&self, tokens: u64) {
        pause(self.token_delay_ms.saturating_mul(tokens)).await;
    }
}

/// Breaks a connection off. What was written before goes out first: HTTP servers forget what they have not flushed.
pub(super) async fn break_off() -> std::io::Error {
    tokio::time::sleep(FLUSH_PAUSE).await;
    std::io::Error::other("the switch drop_after_tokens is set")
}

/// Nothing at all when there is nothing to wait for: a timer rounds up to a millisecond.
async fn pause(milliseconds: u64) {
    if milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_overrides_what_it_names_and_nothing_else() {
        let process = Switches { token_delay_ms: 3, fail_with: Some(500), ..Switches::default() };
        let own = process.overridden_by("hi [[answer_tokens=40]] there [[omit_usage]] [[fail_with=x]] [[what]] [[");
        assert_eq!((own.answer_tokens, own.omit_usage, own.token_delay_ms), (Some(40), true, 3));
        assert_eq!(own.failure(), Some(500));
    }

    #[test]
    fn a_page_is_asked_for_by_its_url() {
        let own = Switches::default().overridden_by("[[fetch=http://a.example/?b=c]] read that");
        assert_eq!(own.tool_arguments(), json!({"url": "http://a.example/?b=c"}));
        assert_eq!(Switches::default().tool_arguments(), json!({"simulated": true}));
    }

    #[test]
    fn a_failure_is_a_failure_status() {
        assert_eq!(Switches::default().overridden_by("[[fail_with=200]]").failure(), None);
        assert_eq!(Switches::default().overridden_by("[[fail_with=503]]").failure(), Some(503));
    }
}
