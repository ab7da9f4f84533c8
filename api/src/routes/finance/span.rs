//! From when, up to when, as of when: the dates in questions about the book.

use calos_domain::Timestamp;

pub use crate::calendar::as_of;
use crate::calendar::{moment_or_day, moment_or_day_begin};
use crate::error::ApiError;
pub use crate::moment::shown;

/// A stretch of time: from a moment, and up to but without another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stretch {
    /// Its first moment.
    pub from: Option<Timestamp>,
    /// The first moment after it.
    pub to: Option<Timestamp>,
}

impl Stretch {
    /// From the fields `from` and `to`; a day in `to` is included.
    ///
    /// # Errors
    /// 400 `invalid_field`, also for a stretch that ends before it begins.
    pub fn of(from: Option<&str>, to: Option<&str>) -> Result<Self, ApiError> {
        let from = from.map(|text| moment_or_day_begin("from", text)).transpose()?;
        let to = to.map(|text| moment_or_day("to", text)).transpose()?;
        let to = to.map(|last| Timestamp::from_micros(last.micros().saturating_add(1)));
        match (from, to) {
            (Some(from), Some(to)) if from >= to => Err(ApiError::field("to", "must not be before from")),
            _ => Ok(Self { from, to }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_days_includes_both() {
        let stretch = Stretch::of(Some("2026-10-01"), Some("2026-10-31")).unwrap();
        assert_eq!(shown(stretch.from).unwrap().unwrap(), "2026-10-01T00:00:00Z");
        assert_eq!(shown(stretch.to).unwrap().unwrap(), "2026-11-01T00:00:00Z");
        assert_eq!(Stretch::of(None, None).unwrap(), Stretch::default());
        assert!(Stretch::of(Some("2026-10-01"), Some("2026-10-01")).is_ok());
    }

    #[test]
    fn what_is_no_stretch_is_refused_by_its_name() {
        for (from, to, name) in [
            (Some("x"), None, "from"),
            (None, Some("2026-10-32"), "to"),
            (Some("2026-10-02"), Some("2026-10-01"), "to"),
        ] {
            let refused = Stretch::of(from, to).unwrap_err();
            assert!(refused.message().starts_with(&format!("{name}: ")), "{}", refused.message());
        }
        assert!(as_of(Some("x"), None).unwrap_err().message().starts_with("asOf: "));
        assert!(as_of(None, Some("x")).unwrap_err().message().starts_with("asKnownAt: "));
    }
}
