//! Reading one's own writes: `calos-position` tells where a write landed, `calos-after` asks a read to have seen it.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use calos_commands::log::Positions;

use crate::error::{ApiError, Code};
use crate::wiring::App;

/// Where a write landed, as `3:17,9:4`: the last position in each partition it touched.
pub const CALOS_POSITION: HeaderName = HeaderName::from_static("calos-position");

/// What a read must have seen before it answers.
pub const CALOS_AFTER: HeaderName = HeaderName::from_static("calos-after");

/// Adds `calos-position` to an answer; a write that had nothing to do touched no partition and says nothing.
pub fn stamp(headers: &mut HeaderMap, positions: &Positions) {
    if positions.0.is_empty() {
        return;
    }
    // Digits, colons and commas are always a header value.
    if let Ok(value) = HeaderValue::from_str(&positions.to_string()) {
        headers.insert(CALOS_POSITION, value);
    }
}

/// The positions a read has to wait for, from `calos-after`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct After(pub Option<Positions>);

impl<S: Sync> FromRequestParts<S> for After {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(CALOS_AFTER) else { return Ok(Self(None)) };
        let positions = value.to_str().ok().and_then(|text| text.parse().ok());
        positions.map(|positions| Self(Some(positions))).ok_or_else(|| {
            ApiError::header(
                "calos-after",
                "must be pairs like 3:17,9:4 (partition:position), as calos-position gave them",
            )
        })
    }
}

impl After {
    /// Waits until a projection has seen the positions.
    ///
    /// # Errors
    /// 400 for a partition this log does not have; 503 `projection_behind` when it takes longer than
    /// [`calos_projections::wait::WAIT_MAX`]; 503 `database_unavailable`.
    pub async fn wait(&self, app: &App, projection: &'static str) -> Result<(), ApiError> {
        let Some(positions) = &self.0 else { return Ok(()) };
        app.wait_for(projection, positions).await
    }
}

/// The refusal of a read that would have had to wait too long.
#[must_use]
pub fn behind(projection: &str) -> ApiError {
    ApiError::new(
        Code::ProjectionBehind,
        format!("{projection} has not reached the position in calos-after yet; try again in a moment"),
    )
    .with_fact("projection", projection)
}
