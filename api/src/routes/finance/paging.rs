//! How much of a list is asked for, and from where on.

use std::str::FromStr;

use serde::Deserialize;
use utoipa::IntoParams;

use crate::error::ApiError;
use crate::routes::credits::{PAGE_DEFAULT_ROWS, PAGE_MAX_ROWS};

/// Lines on the page asked for, 1 to 200; 50 when left out.
///
/// # Errors
/// 400 `invalid_field`.
pub fn limit(limit: Option<u32>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(PAGE_DEFAULT_ROWS);
    if (1..=PAGE_MAX_ROWS).contains(&limit) {
        return Ok(limit as usize);
    }
    Err(ApiError::field("limit", format!("must be 1 to {PAGE_MAX_ROWS}")).with_fact("max", PAGE_MAX_ROWS))
}

/// Where the page begins.
///
/// # Errors
/// 400 `invalid_field` for what no page gave.
pub fn cursor<T: FromStr>(cursor: Option<&str>) -> Result<Option<T>, ApiError> {
    cursor.map(|text| text.parse().map_err(|_| no_cursor())).transpose()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_bounds_and_a_cursor_is_one_that_was_given() {
        assert_eq!((limit(None).ok(), limit(Some(1)).ok(), limit(Some(200)).ok()), (Some(50), Some(1), Some(200)));
        assert!(limit(Some(0)).is_err() && limit(Some(201)).is_err());
        assert_eq!(cursor::<i64>(Some("7")).unwrap(), Some(7));
        assert_eq!(cursor::<i64>(None).unwrap(), None);
        assert!(cursor::<i64>(Some("x")).unwrap_err().message().starts_with("cursor: "));
    }
}
