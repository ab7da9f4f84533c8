//! What a simulated model says, and how it counts: the same prompt always gives the same answer and the same numbers.

use calos_adapters::tokenizer::{Bpe, pieces};
use calos_commands::tokens::TokenCounter;
use calos_domain::pricing::Provider;
use serde::Deserialize;

use super::LABEL;
use super::switches::{ANSWER_MAX_TOKENS, Switches};

/// Whose encoding every simulated model counts with.
const ENCODING: &str = "gpt-4o";
/// Tokens around each message of a prompt, its role included.
const MESSAGE_TOKENS: u64 = 4;
/// Tokens before an answer.
const ANSWER_TOKENS: u64 = 3;
/// How many words of the question an answer repeats.
const ECHO_MAX_WORDS: usize = 60;
/// Stands in a prompt that explains how to ask for a page in words.
const EXPLAINED: &str = "FETCH_WEB: <url>";
/// Tokens of a tool call.
const TOOL_CALL_TOKENS: u64 = 12;

/// A message as either dialect sends it.
#[derive(Debug, Deserialize)]
pub(crate) struct SaidMessage {
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    #[serde(default)]
    text: String,
}

impl SaidMessage {
    fn texts(&self) -> impl Iterator<Item = &str> {
        let (text, parts) = match &self.content {
            None => (None, &[][..]),
            Some(Content::Text(text)) => (Some(text.as_str()), &[][..]),
            Some(Content::Parts(parts)) => (None, &parts[..]),
        };
        text.into_iter().chain(parts.iter().map(|part| part.text.as_str()))
    }
}

/// The tokens of a prompt: those of its texts, and a little for each message.
pub(crate) fn prompt_tokens(messages: &[SaidMessage]) -> u64 {
    let texts = messages.iter().flat_map(SaidMessage::texts);
    let said: u64 = texts.map(|text| Bpe.count(Provider::OpenAi, ENCODING, text)).sum();
    said + MESSAGE_TOKENS * messages.len() as u64 + ANSWER_TOKENS
}

/// The switches in force for a prompt.
pub(crate) fn switches(process: Switches, messages: &[SaidMessage]) -> Switches {
    let Some(last) = messages.last() else { return process };
    last.texts().fold(process, Switches::overridden_by)
}

/// One answer, token by token.
#[derive(Debug)]
pub(crate) struct Story {
    /// The text of each token.
    pub(crate) words: Vec<String>,
    /// Whether the answer was cut off by its limit.
    pub(crate) cut: bool,
    /// Whether the answer is a call of the first tool instead.
    pub(crate) calls_tool: bool,
}

impl Story {
    pub(crate) fn tell(messages: &[SaidMessage], limit: Option<u64>, has_tools: bool, switches: &Switches) -> Self {
        if has_tools && (switches.call_tool || switches.fetch.is_some()) {
            return Self { words: Vec::new(), cut: false, calls_tool: true };
        }
        let explained = messages.iter().flat_map(SaidMessage::texts).any(|text| text.contains(EXPLAINED));
        let mut words = match (switches.answer_tokens, &switches.fetch) {
            // An answer that is a request for a page is nothing else, so it alone goes without the label.
            (_, Some(url)) if explained => tokens_of(&format!("FETCH_WEB: {url}")),
            (Some(tokens), _) => filler(tokens.min(ANSWER_MAX_TOKENS)),
            (None, _) => echo(messages),
        };
        let limit = usize::try_from(limit.unwrap_or(ANSWER_MAX_TOKENS)).unwrap_or(usize::MAX);
        let cut = words.len() > limit;
        words.truncate(limit);
        Self { words, cut, calls_tool: false }
    }

    pub(crate) fn tokens(&self) -> u64 {
        if self.calls_tool { TOOL_CALL_TOKENS } else { self.words.len() as u64 }
    }

    pub(crate) fn text(&self) -> String {
        self.words.concat()
    }
}

fn tokens_of(text: &str) -> Vec<String> {
    pieces(Provider::OpenAi, ENCODING, text)
}

fn filler(tokens: u64) -> Vec<String> {
    let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
    let mut words = tokens_of(LABEL);
    words.truncate(tokens);
    words.resize_with(tokens, || " word".to_owned());
    words
}

fn echo(messages: &[SaidMessage]) -> Vec<String> {
    let asked = messages.iter().rev().find(|message| matches!(message.role.as_str(), "user" | "tool"));
    let asked = asked.or(messages.last()).into_iter().flat_map(SaidMessage::texts);
    let asked: Vec<&str> = asked.flat_map(str::split_whitespace).collect();
    // The end of a long message is what it is about: a page's text stands after what is said of it.
    let end = asked[asked.len().saturating_sub(ECHO_MAX_WORDS)..].join(" ");
    tokens_of(format!("{LABEL} You said: {end}").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<SaidMessage> {
        serde_json::from_value(serde_json::json!([
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": text}]}
        ]))
        .unwrap()
    }

    #[test]
    fn the_same_prompt_gives_the_same_answer_and_numbers() {
        let messages = messages("hello there");
        assert_eq!(prompt_tokens(&messages), 2 + 2 + 8 + 3, "two words of a token each, twice");
        let story = Story::tell(&messages, None, false, &Switches::default());
        assert_eq!(story.text(), "[simulated] You said: hello there");
        // [ sim ulated ] You said : hello there
        assert_eq!((story.tokens(), story.cut), (9, false));
    }

    #[test]
    fn a_page_is_asked_for_with_a_tool_or_in_words_if_anybody_explained_how() {
        let asked = |text: &str, has_tools| {
            let messages = messages(text);
            let switches = switches(Switches::default(), &messages);
            let story = Story::tell(&messages, None, has_tools, &switches);
            (story.calls_tool, story.text())
        };
        assert!(asked("[[fetch=http://a.example/]]", true).0);
        let explained = asked("FETCH_WEB: <url> [[fetch=http://a.example/]]", false);
        assert_eq!(explained, (false, "FETCH_WEB: http://a.example/".to_owned()));
        assert!(asked("[[fetch=http://a.example/]]", false).1.starts_with(LABEL));
    }

    #[test]
    fn a_tools_answer_is_repeated_like_a_question() {
        let messages: Vec<SaidMessage> = serde_json::from_value(serde_json::json!([
            {"role": "user", "content": "hello"}, {"role": "tool", "content": format!("{} end", "long ".repeat(80))}
        ]))
        .unwrap();
        let text = Story::tell(&messages, None, false, &Switches::default()).text();
        assert!(text.starts_with("[simulated] You said: long") && text.ends_with(" end"), "{text}");
        assert_eq!(text.split(' ').count(), 3 + ECHO_MAX_WORDS);
    }

    #[test]
    fn an_answer_stops_at_its_limit() {
        let messages = messages("[[answer_tokens=40]]");
        let switches = switches(Switches::default(), &messages);
        let story = Story::tell(&messages, Some(7), false, &switches);
        assert_eq!((story.tokens(), story.cut), (7, true));
        assert_eq!(story.text(), "[simulated] word word word");
    }
}
