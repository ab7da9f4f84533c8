//! A simulated DeepSeek: OpenAI's dialect, with DeepSeek's own usage, thoughts in the open and keep-alives.

use std::sync::Arc;

use axum::Router;
use calos_domain::pricing::Provider;

use super::Stage;
use super::openai::{Speaker, speaking};

const DEEPSEEK: Speaker = Speaker { name: "deepseek", provider: Provider::DeepSeek, is_deepseek: true };

pub(crate) fn router() -> Router<Arc<Stage>> {
    speaking(&DEEPSEEK)
}
