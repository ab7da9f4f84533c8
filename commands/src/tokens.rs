//! How many tokens a text has, when nobody has counted them.
//!
//! Two questions with two answers. Before a call, [`at_most`] is what a hold must cover: it may be too high, and the
//! settle gives the rest back. After a call whose provider reported nothing, [`about`] is what the text most likely
//! had, and what is charged is marked as estimated. Where a [`TokenCounter`] is at hand, it counts instead.

use calos_domain::pricing::Provider;
use serde_json::Value;

use crate::raw_object::RawObject;

/// What one picture most likely has; what it has at most, the price book says for each model.
pub const IMAGE_ABOUT_TOKENS: u64 = 1_600;

/// What a message adds around its text: role, separators.
pub const MESSAGE_FRAME_TOKENS: u64 = 4;

/// What the answer's opening adds to the prompt.
pub const ANSWER_FRAME_TOKENS: u64 = 3;

/// Bytes of ordinary text in one token, on average over the byte-pair encodings in use.
const BYTES_PER_TOKEN: u64 = 4;

/// An upper bound on the tokens of a text.
///
/// In the byte-level encodings in use every token stands for at least one byte, and for no more than that is it certain:
/// letters in no language's order fall into tokens of a letter or two.
#[must_use]
pub const fn at_most(text: &[u8]) -> u64 {
    text.len() as u64
}

/// The likely number of tokens of a text.
#[must_use]
pub fn about(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// Counts tokens as a model does, or as nearly as can be where its maker keeps its tokenizer to itself.
pub trait TokenCounter: Send + Sync + 'static {
    /// The tokens of a text. It takes time in proportion to the text, and the first call may take a tenth of a second:
    /// not for the event loop.
    fn count(&self, provider: Provider, model: &str, text: &str) -> u64;
}

/// What of a request the model reads as messages, in any dialect.
const MESSAGE_FIELDS: [&str; 2] = ["messages", "system"];

/// What it reads as it stands, names, braces and all.
const VERBATIM_FIELDS: [&str; 6] =
    ["tools", "functions", "tool_choice", "response_format", "output_config", "output_format"];

/// What stands in a message or a part of it for the API alone.
const UNREAD_FIELDS: [&str; 8] =
    ["role", "type", "id", "tool_call_id", "tool_use_id", "cache_control", "signature", "detail"];

/// Fields of a message's parts that hold a picture.
const PICTURES: [&str; 2] = ["image_url", "source"];

/// What a tool was called with: an object of the caller's own, in which every name and value is read.
const ARGUMENTS: &str = "input";

/// The tokens of a prompt as a model counts them: its texts, a frame for each message, `image_tokens` for each picture.
/// None when some of it cannot be read here; a prompt that was sent is never counted as less than it is.
#[must_use]
pub fn prompt_tokens(
    counter: &dyn TokenCounter,
    (provider, model): (Provider, &str),
    image_tokens: u64,
    fields: &RawObject,
) -> Option<u64> {
    let count = |text: &str| counter.count(provider, model, text);
    let mut read = ReadByModel { count: &count, image_tokens, tokens: 0 };
    for field in MESSAGE_FIELDS {
        let Some(value) = fields.parse::<Value>(field).ok()? else { continue };
        if field == "messages" {
            let messages = value.as_array().map_or(0, Vec::len) as u64;
            read.tokens += messages * MESSAGE_FRAME_TOKENS + ANSWER_FRAME_TOKENS;
        }
        read.take(&value);
    }
    // An embedding's input: texts, or tokens instead of text.
    if let Some(input) = fields.parse::<Value>(ARGUMENTS).ok()? {
        read.take(&input);
    }
    let verbatim: u64 = VERBATIM_FIELDS.iter().filter_map(|field| fields.given(field)).map(count).sum();
    Some(read.tokens + verbatim)
}

struct ReadByModel<'a> {
    count: &'a dyn Fn(&str) -> u64,
    image_tokens: u64,
    tokens: u64,
}

impl ReadByModel<'_> {
    fn take(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.tokens += (self.count)(text),
            // Tokens instead of text.
            Value::Number(_) => self.tokens += 1,
            Value::Array(values) => values.iter().for_each(|value| self.take(value)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    if name == ARGUMENTS {
                        self.tokens += (self.count)(&value.to_string());
                    } else if PICTURES.contains(&name.as_str()) {
                        self.tokens += self.image_tokens;
                    } else if !UNREAD_FIELDS.contains(&name.as_str()) {
                        self.take(value);
                    }
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts words.
    struct Words;

    impl TokenCounter for Words {
        fn count(&self, _: Provider, _: &str, text: &str) -> u64 {
            text.split_whitespace().count() as u64
        }
    }

    fn prompt(json: &str) -> u64 {
        prompt_tokens(&Words, (Provider::OpenAi, "gpt-4"), IMAGE_ABOUT_TOKENS, &serde_json::from_str(json).unwrap())
            .unwrap()
    }

    #[test]
    fn what_the_model_reads_of_a_prompt_is_counted() {
        let frame = MESSAGE_FRAME_TOKENS + ANSWER_FRAME_TOKENS;
        assert_eq!(prompt(r#"{"messages":[{"role":"user","content":"one two"}],"user":"not read"}"#), frame + 2);
        let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"one two"},
            {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA BBBB"}}]}]}"#;
        assert_eq!(prompt(parts), frame + 2 + IMAGE_ABOUT_TOKENS);
        assert_eq!(prompt(r#"{"system":"be brief","messages":[{"role":"user","content":"hi"}]}"#), frame + 3);
        assert_eq!(prompt(r#"{"input":["one two","three"]}"#), 3);
        assert_eq!(prompt(r#"{"input":[[1,2,3],[4]]}"#), 4);
    }

    #[test]
    fn text_counts_wherever_it_stands() {
        let text = "word ".repeat(100);
        for place in [
            r#""messages":[{"role":"user","content":"@"}]"#,
            r#""messages":[{"role":"user","content":[{"type":"text","text":"@"}]}]"#,
            r#""messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"@"}}]}]"#,
            r#""messages":[{"role":"assistant","content":[{"type":"tool_use","id":"c","name":"f","input":{"source":"@"}}]}]"#,
            r#""messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"@"}]}]"#,
            r#""tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"id":{"description":"@"}}}}}]"#,
            r#""tools":[{"name":"f","input_schema":{"properties":{"image_url":{"description":"@"}}}}]"#,
            r#""response_format":{"type":"json_schema","json_schema":{"schema":{"description":"@"}}}"#,
            r#""system":[{"type":"text","text":"@","cache_control":{"type":"ephemeral"}}]"#,
            r#""input":["@"]"#,
        ] {
            let counted = prompt(&format!("{{{}}}", place.replace('@', &text)));
            assert!((100..130).contains(&counted), "{counted} in {place}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_counted_as_nothing() {
        let lone_surrogate = r#"{"messages":[{"role":"user","content":"\ud800 and a long text"}]}"#;
        let fields = serde_json::from_str(lone_surrogate).unwrap();
        assert_eq!(prompt_tokens(&Words, (Provider::OpenAi, "gpt-4"), 0, &fields), None);
    }

    #[test]
    fn the_bound_is_above_what_real_tokenizers_count() {
        // Counts of cl100k_base, as OpenAI's own tokenizer gives them.
        for (text, counted) in [
            ("Hello, world!", 4),
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("antidisestablishmentarianism", 6),
            ("1234567890", 4),
            ("1 2 3 4 5", 9),
            ("お誕生日おめでとう", 9),
            // Every letter may be a token of its own where no two of them stand together in a language.
            (&"qzv".repeat(100), 300),
            (&" q z".repeat(100), 200),
        ] {
            let bound = at_most(text.as_bytes());
            assert!(bound >= counted, "{text}: bound {bound} under {counted}");
        }
    }

    #[test]
    fn the_bound_never_falls_to_nothing() {
        assert_eq!(at_most(b""), 0);
        assert_eq!(at_most(b" "), 1);
        assert!(at_most("     ".as_bytes()) >= 4);
    }

    #[test]
    fn the_likely_count_rounds_up() {
        assert_eq!(about(0), 0);
        assert_eq!(about(1), 1);
        assert_eq!(about(8), 2);
    }
}
