//! A tenant: its name, its members, its settings. Its credit is the wallet's.

mod decide;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use decide::{
    API_KEYS_LIVE_MAX, LAST_CHARACTERS_MAX, MEMBERS_MAX, TENANT_NAME_MAX_CHARACTERS, TenantCommand, TenantRefusal,
    takes_own_key,
};
pub use event::*;
pub use state::{ProviderKeyRef, Tenant};
