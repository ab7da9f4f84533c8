//! Counts tokens with OpenAI's published byte-pair encodings.
//!
//! Each takes tens of megabytes and a tenth of a second to load, so it is loaded by the first text that has to be
//! counted: as long as providers report what they used, none is.

use bpe_openai::{Tokenizer, cl100k_base, o200k_base};
use calos_commands::tokens::TokenCounter;
use calos_domain::pricing::Provider;

/// The models of `cl100k_base`, by the beginning of their names; `gpt-4o`, `gpt-4.1` and `gpt-4.5` are not among them.
const CL100K_MODELS: [&str; 5] = ["gpt-4-", "gpt-3.5", "text-embedding-3", "text-embedding-ada", "gpt-35"];

/// Every encoding there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bpe;

impl TokenCounter for Bpe {
    /// As the model counts at OpenAI. Elsewhere tokenizers are not public (Claude, DeepSeek) or as many as there are
    /// models (Ollama): there `o200k_base` stands for them, which is within a tenth or two for ordinary text.
    fn count(&self, provider: Provider, model: &str, text: &str) -> u64 {
        encoding(provider, model).count(text) as u64
    }
}

/// A text cut into its tokens; tokens that are no text by themselves, as parts of a letter are, stand together in one
/// piece.
#[must_use]
pub fn pieces(provider: Provider, model: &str, text: &str) -> Vec<String> {
    let encoding = encoding(provider, model);
    let mut pieces = Vec::new();
    let mut begun: Vec<u32> = Vec::new();
    for token in encoding.encode(text) {
        begun.push(token);
        if let Some(piece) = encoding.decode(&begun) {
            pieces.push(piece);
            begun.clear();
        }
    }
    pieces
}

fn encoding(provider: Provider, model: &str) -> &'static Tokenizer {
    if is_cl100k(provider, model) { cl100k_base() } else { o200k_base() }
}

fn is_cl100k(provider: Provider, model: &str) -> bool {
    match provider {
        Provider::OpenAi => model == "gpt-4" || CL100K_MODELS.iter().any(|beginning| model.starts_with(beginning)),
        Provider::Anthropic | Provider::DeepSeek | Provider::Ollama => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_its_encoding() {
        for model in ["gpt-4", "gpt-4-0613", "gpt-4-turbo", "gpt-3.5-turbo", "text-embedding-3-small"] {
            assert!(is_cl100k(Provider::OpenAi, model), "{model}");
        }
        for model in ["gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-5", "o3"] {
            assert!(!is_cl100k(Provider::OpenAi, model), "{model}");
        }
        assert!(!is_cl100k(Provider::Ollama, "gpt-4-clone"));
    }

    #[test]
    fn texts_count_as_openais_own_tokenizer_counts_them() {
        for (text, cl100k) in [
            ("", 0),
            ("Hello, world!", 4),
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("antidisestablishmentarianism", 6),
            ("お誕生日おめでとう", 9),
        ] {
            assert_eq!(Bpe.count(Provider::OpenAi, "gpt-4", text), cl100k, "{text}");
        }
        // The newer encoding knows more words.
        assert_eq!(Bpe.count(Provider::OpenAi, "gpt-4o", "Hello, world!"), 4);
        assert!(Bpe.count(Provider::Anthropic, "claude-sonnet-5", "お誕生日おめでとう") < 9);
    }

    #[test]
    fn a_text_is_its_pieces() {
        let text = "[simulated] You said: お誕生日 🎂 hello";
        let pieces = pieces(Provider::OpenAi, "gpt-4o", text);
        assert_eq!(pieces.concat(), text);
        assert_eq!(pieces[..4], ["[", "sim", "ulated", "]"]);
        assert!(pieces.len() as u64 <= Bpe.count(Provider::OpenAi, "gpt-4o", text));
    }

    #[test]
    fn no_text_has_more_tokens_than_bytes() {
        for text in [&"qzv".repeat(100), &" q z".repeat(100), "\u{1F468}\u{200D}\u{1F469}", "\0\u{1}\u{2}"] {
            let bound = calos_commands::tokens::at_most(text.as_bytes());
            assert!(Bpe.count(Provider::OpenAi, "gpt-4", text) <= bound, "{text}");
            assert!(Bpe.count(Provider::OpenAi, "gpt-4o", text) <= bound, "{text}");
        }
    }
}
