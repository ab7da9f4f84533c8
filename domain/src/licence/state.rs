//! What a licence's decisions remember.

use serde::{Deserialize, Serialize};

use crate::tiers::Tier;
use crate::{Decider, Timestamp};

use super::recent::Recent;
use super::{
    LicenceCommand, LicenceEvent, LicenceIssued, LicenceRefusal, LicenceStatus, TierChanged, TokensUsed, decide,
};

/// A tenant's licence; the default is none.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Licence {
    pub(super) issued: Option<LicenceIssued>,
    pub(super) terms: Option<Terms>,
    /// The period counted last.
    pub(super) period_start: Timestamp,
    /// Tokens used in it.
    pub(super) used: u64,
    pub(super) recent: Recent,
}

/// The terms in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Terms {
    pub(super) tier: Tier,
    pub(super) markup_percent: u32,
    pub(super) token_limit: Option<u64>,
}

/// One period, its end excluded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    /// Its beginning.
    pub start: Timestamp,
    /// Its end, and the beginning of the next one.
    pub end: Timestamp,
}

impl Decider for Licence {
    const KIND: &'static str = "licence";
    const SNAPSHOT_VERSION: i32 = 1;

    type Command = LicenceCommand;
    type Event = LicenceEvent;
    type Refusal = LicenceRefusal;

    fn decide(&self, command: LicenceCommand) -> Result<Vec<LicenceEvent>, LicenceRefusal> {
        decide::decide(self, command)
    }

    fn evolve(&mut self, event: &LicenceEvent) {
        match event {
            LicenceEvent::LicenceIssued(issued) => {
                let LicenceIssued { tier, markup_percent, token_limit, period_start, .. } = *issued;
                self.terms = Some(Terms { tier, markup_percent, token_limit });
                self.period_start = period_start;
                self.issued = Some(issued.clone());
            }
            LicenceEvent::TierChanged(changed) => {
                let TierChanged { to, markup_percent, token_limit, .. } = *changed;
                self.terms = Some(Terms { tier: to, markup_percent, token_limit });
            }
            LicenceEvent::TokensUsed(TokensUsed { usage_id, tokens, period_start, used_after }) => {
                self.period_start = *period_start;
                self.used = *used_after;
                self.recent.remember(*usage_id, *tokens);
            }
        }
    }

    fn weight_bytes(&self) -> usize {
        std::mem::size_of::<Self>() + self.recent.weight_bytes()
    }
}

impl Licence {
    /// Whether there is a licence at all.
    #[must_use]
    pub const fn is_issued(&self) -> bool {
        self.issued.is_some()
    }

    /// The tier in force.
    #[must_use]
    pub fn tier(&self) -> Option<Tier> {
        self.terms.map(|terms| terms.tier)
    }

    /// What CALOS adds to a provider's price, in percent; zero without a licence, which may not be used anyway.
    #[must_use]
    pub fn markup_percent(&self) -> u32 {
        self.terms.map_or(0, |terms| terms.markup_percent)
    }

    /// Tokens one period allows; none for no limit.
    #[must_use]
    pub fn token_limit(&self) -> Option<u64> {
        self.terms.and_then(|terms| terms.token_limit)
    }

    /// Whether it may be used.
    #[must_use]
    pub fn status(&self) -> Option<LicenceStatus> {
        self.issued.as_ref().map(|issued| issued.status)
    }

    /// The period `at` falls into: the first one, or one of those that follow it with the same length. A moment before
    /// the period counted last belongs to that one, since periods are never opened again.
    #[must_use]
    pub fn period_at(&self, at: Timestamp) -> Option<Period> {
        let issued = self.issued.as_ref()?;
        let length = issued.period_end.micros().saturating_sub(issued.period_start.micros()).max(1);
        let start = self.period_start.micros();
        let passed = at.micros().saturating_sub(start).max(0) / length;
        let start = start.saturating_add(passed.saturating_mul(length));
        Some(Period { start: Timestamp::from_micros(start), end: Timestamp::from_micros(start.saturating_add(length)) })
    }

    /// Tokens used in the period `at` falls into.
    #[must_use]
    pub fn tokens_used_in(&self, at: Timestamp) -> u64 {
        match self.period_at(at) {
            Some(period) if period.start == self.period_start => self.used,
            Some(_) | None => 0,
        }
    }

    /// Whether a use may begin at `at`. The last use of a period may go beyond the limit: its tokens are known only
    /// afterwards.
    ///
    /// # Errors
    /// There is no licence, it is not active, or the period's tokens are used up.
    pub fn may_use(&self, at: Timestamp) -> Result<(), LicenceRefusal> {
        let Some((issued, period)) = self.issued.as_ref().zip(self.period_at(at)) else {
            return Err(LicenceRefusal::NotIssued);
        };
        match issued.status {
            LicenceStatus::Active => {}
            LicenceStatus::Suspended | LicenceStatus::Cancelled => {
                return Err(LicenceRefusal::NotActive { status: issued.status });
            }
        }
        let used = self.tokens_used_in(at);
        match self.token_limit() {
            Some(limit) if used >= limit => Err(LicenceRefusal::TokensUsedUp { used, limit, period_end: period.end }),
            Some(_) | None => Ok(()),
        }
    }
}
