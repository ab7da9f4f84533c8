//! How many tokens a text has, when nobody has counted them.
//!
//! Two questions with two answers. Before a call, [`at_most`] is what a hold must cover: it may be too high, and the
//! settle gives the rest back. After a call whose provider reported nothing, [`about`] is what the text most likely
//! had, and what is charged is marked as estimated.

/// What one picture is held for: the largest tiling of the models in the price book (85 + 8 x 170), rounded up.
pub const IMAGE_MAX_TOKENS: u64 = 1_600;

/// What a message adds around its text: role, separators.
pub const MESSAGE_FRAME_TOKENS: u64 = 4;

/// What the answer's opening adds to the prompt.
pub const ANSWER_FRAME_TOKENS: u64 = 3;

/// Bytes of ordinary text in one token, on average over the byte-pair encodings in use.
const BYTES_PER_TOKEN: u64 = 4;

/// An upper bound on the tokens of a text.
///
/// In the byte-pair encodings in use a token is at least one byte; every pair of ASCII letters is a token of its own,
/// so letters count half; a space belongs to the word after it, but to no number.
#[must_use]
pub fn at_most(text: &[u8]) -> u64 {
    let mut halves: u64 = 0;
    let mut before = 0_u8;
    for &byte in text {
        halves += match byte {
            b'a'..=b'z' | b'A'..=b'Z' => u64::from(before != b' '),
            0..=u8::MAX => 2,
        };
        before = byte;
    }
    halves.div_ceil(2).max(u64::from(!text.is_empty()))
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
