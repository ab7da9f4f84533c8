//! Money is an integer. A float never touches it, and arithmetic that would overflow is refused, never wrapped.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The two assets a wallet holds. They never mix: no operation takes one and gives the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Asset {
    /// United States dollars, counted in micro-dollars.
    #[serde(rename = "USD")]
    Usd,
    /// Phone credits, counted whole.
    #[serde(rename = "CREDIT")]
    Credit,
}

impl Asset {
    /// Every asset.
    pub const ALL: [Self; 2] = [Self::Usd, Self::Credit];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Credit => "CREDIT",
        }
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no [`Asset`]'s stored name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither USD nor CREDIT")]
pub struct NoAsset;

impl FromStr for Asset {
    type Err = NoAsset;

    /// By the stored name, letter for letter.
    fn from_str(name: &str) -> Result<Self, NoAsset> {
        Self::ALL.into_iter().find(|asset| asset.as_str() == name).ok_or(NoAsset)
    }
}

/// A sum left the range of a 64-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the amount is out of range")]
pub struct OutOfRange;

macro_rules! amount {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(i64);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);

            /// From the smallest unit.
            #[must_use]
            pub const fn new(value: i64) -> Self {
                Self(value)
            }

            /// In the smallest unit.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }

            /// The sum.
            ///
            /// # Errors
            /// [`OutOfRange`] instead of wrapping.
            pub fn plus(self, other: Self) -> Result<Self, OutOfRange> {
                self.0.checked_add(other.0).map(Self).ok_or(OutOfRange)
            }

            /// The difference.
            ///
            /// # Errors
            /// [`OutOfRange`] instead of wrapping.
            pub fn minus(self, other: Self) -> Result<Self, OutOfRange> {
                self.0.checked_sub(other.0).map(Self).ok_or(OutOfRange)
            }

            /// The sum, held at the end of the range: for folding in what already happened, which never refuses.
            #[must_use]
            pub const fn saturating_plus(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The difference, held at the end of the range: for folding in what already happened.
            #[must_use]
            pub const fn saturating_minus(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// Whether nothing is left.
            #[must_use]
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

amount! {
    /// Micro-dollars: one dollar is 1,000,000.
    MicroUsd,
    /// An amount in the smallest unit of the asset it stands beside: micro-dollars for `USD`, whole credits for `CREDIT`.
    Units,
}

/// Micro-dollars in one cent.
pub const MICROS_PER_CENT: i64 = 10_000;

impl From<MicroUsd> for Units {
    fn from(amount: MicroUsd) -> Self {
        Self(amount.0)
    }
}

impl MicroUsd {
    /// From whole cents.
    ///
    /// # Errors
    /// [`OutOfRange`] instead of wrapping.
    pub fn from_cents(cents: i64) -> Result<Self, OutOfRange> {
        cents.checked_mul(MICROS_PER_CENT).map(Self).ok_or(OutOfRange)
    }

    /// Whole cents, rounded half up: what a person is shown as a cost.
    #[must_use]
    pub const fn cents_half_up(self) -> i64 {
        self.0.saturating_add(MICROS_PER_CENT / 2).div_euclid(MICROS_PER_CENT)
    }

    /// Whole cents, rounded down: what a person is shown as a balance.
    #[must_use]
    pub const fn cents_down(self) -> i64 {
        self.0.div_euclid(MICROS_PER_CENT)
    }
}

#[cfg(test)]
mod tests {
    use super::{Asset, NoAsset};

    #[test]
    fn an_asset_is_read_back_from_its_stored_name_and_from_nothing_else() {
        for asset in Asset::ALL {
            assert_eq!(asset.to_string().parse(), Ok(asset));
        }
        for wrong in ["", "usd", "USD ", "EUR"] {
            assert_eq!(wrong.parse::<Asset>(), Err(NoAsset), "{wrong:?}");
        }
    }
}
