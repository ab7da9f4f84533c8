//! The content of commands as fingerprints, computed from the events so that a replay knows them too.

use crate::fingerprint::Fingerprint;
use crate::{Asset, KeyId, Timestamp, Units, UsageId, UserId};

use super::{AdjustmentReason, CreditsGranted, HoldPlaced, Meter, UsageRecorded};

/// What a grant is, apart from the balance it met.
pub(super) fn of_grant(grant: &CreditsGranted) -> u64 {
    Fingerprint::default()
        .word(grant.asset as u64)
        .word(grant.kind as u64)
        .number(grant.amount.get())
        .number(i64::from(grant.priority))
        .number(grant.effective_at.micros())
        .optional(grant.expires_at, |print, moment| print.number(moment.micros()))
        .number(grant.cost_basis.get())
        .text(&grant.source_ref)
        .optional(grant.reason, |print, reason| print.word(reason as u64))
        .finish()
}

/// What a hold asks for, apart from its moments and the grants it met.
pub(super) fn of_placement(
    asset: Asset,
    amount: Units,
    meter: Meter,
    api_key_id: Option<&KeyId>,
    user_id: Option<UserId>,
    usage_id: UsageId,
) -> u64 {
    Fingerprint::default()
        .word(asset as u64)
        .number(amount.get())
        .word(meter as u64)
        .optional(api_key_id, |print, key| print.text(key.as_str()))
        .optional(user_id, |print, user| print.id(user.0))
        .id(usage_id.0)
        .finish()
}

/// What a placed hold asked for.
pub(super) fn of_hold(hold: &HoldPlaced) -> u64 {
    of_placement(hold.asset, hold.amount, hold.meter, hold.api_key_id.as_ref(), hold.user_id, hold.usage_id)
}

/// A metered use, every figure of it.
pub(super) fn of_usage(usage: &UsageRecorded) -> u64 {
    Fingerprint::default()
        .id(usage.usage_id.0)
        .word(usage.meter as u64)
        .optional(usage.api_key_id.as_ref(), |print, key| print.text(key.as_str()))
        .text(&usage.provider)
        .text(&usage.model)
        .word(usage.prompt_tokens)
        .word(usage.completion_tokens)
        .word(usage.cached_tokens)
        .word(usage.cache_write_tokens)
        .word(usage.reasoning_tokens)
        .number(usage.provider_cost.get())
        .number(usage.markup.get())
        .number(usage.total.get())
        .word(u64::from(usage.byok) << 1 | u64::from(usage.estimated))
        .text(&usage.price_book_version)
        .word(usage.latency_ms)
        .text(&usage.task_type)
        .word(usage.outcome as u64)
        .word(usage.cache_write_hour_tokens)
        .word(usage.failed_attempts.len() as u64)
        .finish()
}

/// What an adjustment takes, apart from the grants it met.
pub(super) fn of_taking(asset: Asset, amount: Units, reason: AdjustmentReason, effective_at: Timestamp) -> u64 {
    Fingerprint::default()
        .word(asset as u64)
        .number(amount.get())
        .word(reason as u64)
        .number(effective_at.micros())
        .finish()
}

/// The reference behind a claim.
pub(super) fn of_reference(source_ref: &str) -> u64 {
    Fingerprint::default().text(source_ref).finish()
}
