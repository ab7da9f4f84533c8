//! From a stored event to the domain's own: by its name and version, whichever version that is.

use calos_domain::upcast::{self, Label};
use calos_domain::{Fact, Record};

/// The domain event that its name and version say it is; or says why it is not.
pub(crate) fn event<E: Fact>(record: &Record<'_>) -> Result<E, String> {
    upcast::decode(Label::from(record), record.payload).map_err(|error| error.to_string())
}
