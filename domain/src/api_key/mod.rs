//! A tenant's API key: what it may call, how often, and whether it still opens anything.

mod decide;
mod event;
mod network;
mod state;
#[cfg(test)]
mod tests;

pub use decide::{
    ApiKeyCommand, ApiKeyRefusal, KEY_NAME_MAX_CHARACTERS, KEY_RESTRICTION_MAX_BYTES, KEY_RESTRICTIONS_MAX,
};
pub use event::*;
pub use network::{Network, NoNetwork};
pub use state::{ApiKey, KeyDenial};
