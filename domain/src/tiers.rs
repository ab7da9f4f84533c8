//! The one table of tiers.
//!
//! A licence carries the terms it was issued with, so changing a tenant's terms is a command with an event; this table
//! says what a tier means when nobody says otherwise.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a tenant subscribes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Local models.
    Free,
    /// Local models, more of them.
    Starter,
    /// Every model.
    Pro,
    /// Every model, without a token limit.
    Enterprise,
}

/// What a tier means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TierTerms {
    /// Price of one period, in cents.
    pub price_cents: i64,
    /// Phone credits granted with each paid period; for `free` once, at registration.
    pub credits_included: i64,
    /// Tokens one period allows; none for no limit.
    pub token_limit: Option<u64>,
    /// What CALOS adds to a provider's price, in percent.
    pub markup_percent: u32,
}

/// Why a text names no tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tier is free, starter, pro or enterprise")]
pub struct NoTier;

impl Tier {
    /// Every tier, lowest first.
    pub const ALL: [Self; 4] = [Self::Free, Self::Starter, Self::Pro, Self::Enterprise];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Starter => "starter",
            Self::Pro => "pro",
            Self::Enterprise => "enterprise",
        }
    }

    /// What it means by default.
    #[must_use]
    pub const fn terms(self) -> TierTerms {
        let (price_cents, credits_included, token_limit, markup_percent) = match self {
            Self::Free => (0, 100, Some(100_000), 0),
            Self::Starter => (2_900, 1_000, Some(1_000_000), 0),
            Self::Pro => (9_900, 5_000, Some(10_000_000), 30),
            Self::Enterprise => (29_900, 20_000, None, 15),
        };
        TierTerms { price_cents, credits_included, token_limit, markup_percent }
    }

    /// Whether models of paid providers are reached with the platform's keys.
    #[must_use]
    pub const fn reaches_paid_models(self) -> bool {
        match self {
            Self::Free | Self::Starter => false,
            Self::Pro | Self::Enterprise => true,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tier {
    type Err = NoTier;
    fn from_str(text: &str) -> Result<Self, NoTier> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text).ok_or(NoTier)
    }
}

#[cfg(test)]
mod tests {
    use super::Tier;

    #[test]
    fn the_table_says_what_the_tiers_cost_include_and_allow() {
        let table: Vec<_> = Tier::ALL
            .into_iter()
            .map(|tier| {
                let terms = tier.terms();
                (tier.as_str(), terms.price_cents, terms.credits_included, terms.token_limit, terms.markup_percent)
            })
            .collect();
        assert_eq!(
            table,
            [
                ("free", 0, 100, Some(100_000), 0),
                ("starter", 2_900, 1_000, Some(1_000_000), 0),
                ("pro", 9_900, 5_000, Some(10_000_000), 30),
                ("enterprise", 29_900, 20_000, None, 15),
            ]
        );
    }

    #[test]
    fn a_tier_is_read_back_from_its_name_and_from_nothing_else() {
        for tier in Tier::ALL {
            assert_eq!(tier.as_str().parse(), Ok(tier));
        }
        assert!("Pro".parse::<Tier>().is_err());
    }
}
