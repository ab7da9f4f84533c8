//! How long a drill goes on: short in `make test`, many times as long from `scripts/drill.sh`.

use std::time::Duration;

/// How many times as long, and as often, as in the everyday run; `CALOS_DRILL_FACTOR`, one to a thousand.
pub fn factor() -> u32 {
    let factor = std::env::var("CALOS_DRILL_FACTOR").ok().and_then(|text| text.parse().ok());
    factor.map_or(1, |factor: u32| factor.clamp(1, 1_000))
}

/// A time of the everyday run, as long as this run wants it.
pub fn lasting(everyday: Duration) -> Duration {
    everyday * factor()
}
