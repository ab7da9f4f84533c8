//! How much of a list is asked for, and from where on.

use std::str::FromStr;

use serde::Deserialize;
use utoipa::IntoParams;

use crate::error::ApiError;

/// Lines on a page when nothing else is asked for.
pub const PAGE_DEFAULT_ROWS: u32 = 50;

/// The most lines on a page.
pub const PAGE_MAX_ROWS: u32 = 200;

/// Lines on the page asked for, 1 to 200; 50 when left out.
///
/// # Errors
/// 400 `invalid_field`.
pub fn limit(limit: Option<u32>) -> Result<usize, ApiError> {
    let limit = limit.map(|limit| limit as usize);
    limit_of(limit, PAGE_DEFAULT_ROWS as usize, PAGE_MAX_ROWS as usize)
}

/// The same for a list with bounds of its own.
///
/// # Errors
/// 400 `invalid_field`.
pub fn limit_of(limit: Option<usize>, default: usize, max: usize) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(default);
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::field("limit", format!("must be 1 to {max}")).with_fact("max", max))
}

/// Where the page begins.
///
/// # Errors
/// 400 `invalid_field` for what no page gave.
pub fn cursor<T: FromStr>(cursor: Option<&str>) -> Result<Option<T>, ApiError> {
    cursor.map(|text| text.parse().map_err(|_| no_cursor())).transpose()
}

/// A place in the log or in a stream, both of which count from 1.
///
/// # Errors
/// 400 `invalid_field` for what no page gave.
pub fn place(text: &str) -> Result<i64, ApiError> {
    text.parse().ok().filter(|place| *place > 0).ok_or_else(no_cursor)
}

/// The refusal of what is no cursor.
#[must_use]
pub fn no_cursor() -> ApiError {
    ApiError::field("cursor", "is none that nextCursor gave; leave it out for the first page")
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Lines on the page, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// How many lines, and before which place in the log.
    ///
    /// # Errors
    /// 400 `invalid_field`.
    pub fn by_place(&self) -> Result<(usize, Option<i64>), ApiError> {
        Ok((limit(self.limit)?, self.cursor.as_deref().map(place).transpose()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_bounds_and_a_cursor_is_one_that_was_given() {
        assert_eq!((limit(None).ok(), limit(Some(1)).ok(), limit(Some(200)).ok()), (Some(50), Some(1), Some(200)));
        assert!(limit(Some(0)).is_err() && limit(Some(201)).is_err());
        assert_eq!((limit_of(None, 3, 5).ok(), limit_of(Some(5), 3, 5).ok()), (Some(3), Some(5)));
        assert!(limit_of(Some(6), 3, 5).is_err());
        assert_eq!(cursor::<u32>(Some("7")).unwrap(), Some(7));
        assert_eq!(cursor::<u32>(None).unwrap(), None);
        assert!(cursor::<u32>(Some("x")).unwrap_err().message().starts_with("cursor: "));
    }

    #[test]
    fn a_page_by_place_begins_somewhere_or_at_the_top() {
        let page = |limit, cursor: Option<&str>| {
            PageQuery { limit, cursor: cursor.map(str::to_owned) }
                .by_place()
                .map_err(|error| error.message().to_owned())
        };
        assert_eq!(page(None, None), Ok((50, None)));
        assert_eq!(page(Some(200), Some("17")), Ok((200, Some(17))));
        for (limit, cursor) in [
            (Some(0), None),
            (Some(201), None),
            (None, Some("")),
            (None, Some("-1")),
            (None, Some("0")),
            (None, Some("x")),
        ] {
            assert!(page(limit, cursor).is_err(), "{limit:?} {cursor:?}");
        }
    }
}
