//! A tenant's API key: what it may call, how often, and whether it still opens anything.

mod decide;
mod event;
mod network;
mod settings;
mod state;
#[cfg(test)]
mod tests;

pub use decide::{ApiKeyCommand, ApiKeyRefusal, ROTATION_OVERLAP_MAX_SECONDS};
pub use event::*;
pub use network::{Network, NoNetwork};
pub use settings::{
    KEY_NAME_MAX_CHARACTERS, KEY_RESTRICTION_MAX_BYTES, KEY_RESTRICTIONS_MAX, KEY_RESTRICTIONS_MAX_BYTES, KeyChange,
    Patch,
};
pub use state::{ApiKey, KeyDenial, lists_model};
