//! What CALOS does by itself, without anybody asking: commands that follow from time or from events.

pub mod expire_grants;
pub mod expire_holds;
