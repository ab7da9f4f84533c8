//! What a provider has written, kept only in case it does not say how much that was.

use std::sync::{Arc, Mutex, PoisonError};

/// The most of an answer's text that is kept to be counted; what follows is estimated by its bytes.
pub const TRANSCRIPT_MAX_BYTES: usize = 512 * 1024;

/// What a provider has written so far of one answer: text, reasoning, tool arguments. An adapter writes it along, so
/// that an answer that ends without a report can be counted with the model's tokenizer. Nobody counts it otherwise.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    text: String,
    unkept_bytes: u64,
}

impl Transcript {
    /// More was written.
    pub fn add(&self, text: &str) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written.unkept_bytes == 0 && written.text.len() + text.len() <= TRANSCRIPT_MAX_BYTES {
            written.text.push_str(text);
        } else {
            written.unkept_bytes += text.len() as u64;
        }
    }

    /// What was written and kept, and how many bytes were written beyond that.
    #[must_use]
    pub fn take(&self) -> (String, u64) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut written.text), std::mem::take(&mut written.unkept_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_keeps_so_much_and_counts_the_rest() {
        let transcript = Transcript::default();
        transcript.add("hello");
        transcript.add(&"x".repeat(TRANSCRIPT_MAX_BYTES));
        transcript.add("more");
        assert_eq!(transcript.take(), ("hello".to_owned(), TRANSCRIPT_MAX_BYTES as u64 + 4));
    }
}
