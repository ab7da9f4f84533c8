//! DeepSeek: OpenAI's dialect at an address of its own.
//!
//! What differs on the wire is read in [`super::chunks`]: its names for cached tokens, its reason for an answer it had no
//! room to finish. Its keep-alives, comments in a stream and empty lines before a whole answer, are skipped where
//! streams and JSON are read, and do not count as signs of life.

use calos_commands::provider::MaxTokensField;

use super::http::ProviderHttp;
use super::openai::{BadKey, OpenAi, Thoughts, Vendor};

/// The name in events and answers.
pub const NAME: &str = "deepseek";

/// Where DeepSeek is when nothing else is configured.
pub const DEFAULT_BASE_URL: &str = "https://api.deepseek.com";

pub(super) const DEEPSEEK: Vendor = Vendor {
    name: NAME,
    max_tokens_field: Some(MaxTokensField::MaxTokens),
    has_developer_role: false,
    has_embeddings: false,
    thoughts: Thoughts::GoBack,
};

/// An account at DeepSeek; `base` and `key` as for [`OpenAi::new`].
///
/// # Errors
/// [`BadKey`] when the key cannot be sent.
pub fn account(http: ProviderHttp, base: &str, key: Option<&str>) -> Result<OpenAi, BadKey> {
    OpenAi::at(&DEEPSEEK, http, base, key)
}
