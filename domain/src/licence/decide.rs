//! Which events a command to a licence leads to, or why it is refused.

use crate::tiers::Tier;
use crate::{TenantId, Timestamp, UsageId};

use super::state::Terms;
use super::{Licence, LicenceEvent, LicenceIssued, LicenceStatus, TierChanged, TokensUsed};

/// The most tokens one period can count: what the read models' signed columns hold.
const TOKENS_MAX_COUNT: u64 = i64::MAX.cast_unsigned();

/// What can be asked of a licence. Terms are resolved beforehand, from [`Tier::terms`] or from an agreement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LicenceCommand {
    /// Issues the tenant's licence.
    Issue {
        /// Whose.
        tenant_id: TenantId,
        /// The tier.
        tier: Tier,
        /// Markup in percent.
        markup_percent: u32,
        /// Tokens one period allows; none for no limit.
        token_limit: Option<u64>,
        /// Beginning of the first period.
        period_start: Timestamp,
        /// Its end; later periods have the same length.
        period_end: Timestamp,
    },
    /// Changes the terms. The period and what is used of it stay.
    ChangeTier {
        /// The tier from now on.
        tier: Tier,
        /// Markup in percent from now on.
        markup_percent: u32,
        /// Tokens one period allows from now on; none for no limit.
        token_limit: Option<u64>,
        /// Now.
        changed_at: Timestamp,
    },
    /// Counts tokens that were used; never refused for being too many, since they are used already.
    RecordTokens {
        /// The use: the same id counts once.
        usage_id: UsageId,
        /// Tokens in and out.
        tokens: u64,
        /// Now: decides the period.
        at: Timestamp,
    },
}

/// Why a licence refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LicenceRefusal {
    /// There is no licence.
    #[error("there is no licence")]
    NotIssued,
    /// There is one already, with other terms.
    #[error("a licence with other terms was issued before")]
    AlreadyIssued,
    /// A period must end after it begins.
    #[error("the period ends at {end:?}, not after {start:?}")]
    ImpossiblePeriod {
        /// Its beginning.
        start: Timestamp,
        /// Its end.
        end: Timestamp,
    },
    /// It may not be used.
    #[error("the licence is {status:?}")]
    NotActive {
        /// What it is.
        status: LicenceStatus,
    },
    /// The period's tokens are used up.
    #[error("used {used} tokens of {limit}")]
    TokensUsedUp {
        /// Used in this period.
        used: u64,
        /// Allowed in a period.
        limit: u64,
        /// When the next period begins.
        period_end: Timestamp,
    },
    /// The use was counted before, with other tokens.
    #[error("the use {usage_id} was counted before with {counted} tokens, not {given}")]
    UsageReused {
        /// The use.
        usage_id: UsageId,
        /// As counted.
        counted: u64,
        /// As given now.
        given: u64,
    },
    /// The count would leave its range.
    #[error("{tokens} tokens on top of {used} cannot be counted")]
    OutOfRange {
        /// Used before.
        used: u64,
        /// To be added.
        tokens: u64,
    },
}

type Decision = Result<Vec<LicenceEvent>, LicenceRefusal>;

pub(super) fn decide(licence: &Licence, command: LicenceCommand) -> Decision {
    match command {
        LicenceCommand::Issue { tenant_id, tier, markup_percent, token_limit, period_start, period_end } => {
            let status = LicenceStatus::Active;
            let issued =
                LicenceIssued { tenant_id, tier, markup_percent, token_limit, period_start, period_end, status };
            issue(licence, issued)
        }
        LicenceCommand::ChangeTier { tier, markup_percent, token_limit, changed_at } => {
            change(licence, Terms { tier, markup_percent, token_limit }, changed_at)
        }
        LicenceCommand::RecordTokens { usage_id, tokens, at } => record(licence, usage_id, tokens, at),
    }
}

fn issue(licence: &Licence, issued: LicenceIssued) -> Decision {
    match &licence.issued {
        Some(known) if *known == issued => Ok(Vec::new()),
        Some(_) => Err(LicenceRefusal::AlreadyIssued),
        None if issued.period_end <= issued.period_start => {
            Err(LicenceRefusal::ImpossiblePeriod { start: issued.period_start, end: issued.period_end })
        }
        None => Ok(vec![LicenceEvent::LicenceIssued(issued)]),
    }
}

fn change(licence: &Licence, terms: Terms, changed_at: Timestamp) -> Decision {
    let before = licence.terms.ok_or(LicenceRefusal::NotIssued)?;
    if before == terms {
        return Ok(Vec::new());
    }
    let Terms { tier: to, markup_percent, token_limit } = terms;
    Ok(vec![LicenceEvent::TierChanged(TierChanged { from: before.tier, to, markup_percent, token_limit, changed_at })])
}

fn record(licence: &Licence, usage_id: UsageId, tokens: u64, at: Timestamp) -> Decision {
    let period = licence.period_at(at).ok_or(LicenceRefusal::NotIssued)?;
    match licence.recent.tokens_of(usage_id) {
        Some(counted) if counted == tokens => return Ok(Vec::new()),
        Some(counted) => return Err(LicenceRefusal::UsageReused { usage_id, counted, given: tokens }),
        None => {}
    }
    let used = licence.tokens_used_in(at);
    let used_after = used.checked_add(tokens).filter(|sum| *sum <= TOKENS_MAX_COUNT);
    let used_after = used_after.ok_or(LicenceRefusal::OutOfRange { used, tokens })?;
    Ok(vec![LicenceEvent::TokensUsed(TokensUsed { usage_id, tokens, period_start: period.start, used_after })])
}
