//! Model providers, one wire format per module.
//!
//! [`http`] sends and bounds, [`lines`] and [`sse`] cut a body into events, [`chunks`] reads OpenAI's answers wherever
//! they come from. [`openai`] and [`ollama`] are the vendors.

pub mod chunks;
pub mod http;
pub mod lines;
pub mod ollama;
mod ollama_answer;
mod ollama_request;
pub mod openai;
pub mod sse;

pub use http::{HttpSettings, ProviderHttp};
pub use ollama::Ollama;
pub use openai::OpenAi;
