//! How many tokens a text has, when nobody has counted them.
//!
//! Two questions with two answers. Before a call, [`at_most`] is what a hold must cover: it may be too high, and the
//! settle gives the rest back. After a call whose provider reported nothing, [`about`] is what the text most likely
//! had, and what is charged is marked as estimated.

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

#[cfg(test)]
mod tests {
    use super::*;

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
