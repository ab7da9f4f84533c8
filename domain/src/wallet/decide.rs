//! Which events a command leads to, or why it is refused: opening, granting, freezing; the rest is dispatched.

use uuid::Uuid;

use crate::{Asset, GrantId, MicroUsd, TenantId, Timestamp, Units};

use super::draft::Draft;
use super::state::{FREEZES_REMEMBERED_MAX_COUNT, Freeze};
use super::uses::id_millis;
use super::{
    AdjustmentReason, CLOCK_SKEW_MAX_SECONDS, CreditsGranted, FreezeCause, GRANTS_OPEN_MAX_COUNT, GrantKind,
    WALLET_TEXT_MAX_BYTES, Wallet, WalletCommand, WalletEvent, WalletFrozen, WalletOpened, WalletRefusal, WalletThawed,
    claim, correct, prints, spend,
};

/// What a decision comes to.
pub(super) type Decision = Result<Vec<WalletEvent>, WalletRefusal>;

/// Microseconds in one millisecond.
const MICROS_PER_MILLI: i64 = 1_000;

pub(super) fn decide(wallet: &Wallet, command: WalletCommand) -> Decision {
    if let WalletCommand::OpenWallet { tenant_id, opened_at } = command {
        return open(wallet, tenant_id, opened_at);
    }
    if !wallet.is_open() {
        return Err(WalletRefusal::NotOpen);
    }
    match command {
        WalletCommand::OpenWallet { tenant_id, opened_at } => open(wallet, tenant_id, opened_at),
        WalletCommand::GrantCredits {
            grant_id,
            asset,
            kind,
            amount,
            priority,
            effective_at,
            expires_at,
            cost_basis,
            source_ref,
            reason,
            at,
        } => {
            let terms = Terms { kind, amount, priority, effective_at, expires_at, cost_basis, source_ref, reason };
            grant(wallet, grant_id, asset, terms, at)
        }
        WalletCommand::PlaceHold {
            hold_id,
            asset,
            amount,
            meter,
            caller,
            terms,
            usage_id,
            admitted_at,
            expires_at,
        } => {
            let wanted = spend::Wanted { asset, amount, meter, caller, terms, usage_id, expires_at };
            spend::place(wallet, hold_id, wanted, admitted_at)
        }
        WalletCommand::SettleHold { hold_id, usage, amount, at } => spend::settle(wallet, hold_id, usage, amount, at),
        WalletCommand::ReleaseHold { hold_id, cause, at } => spend::release(wallet, hold_id, cause, at),
        WalletCommand::Charge { usage, asset, amount, debt_limit, debt_cause, at } => {
            spend::charge(wallet, usage, asset, amount, spend::DebtAllowed { limit: debt_limit, cause: debt_cause }, at)
        }
        WalletCommand::ReverseDeduction { usage_id, amount, reason, at } => {
            correct::reverse(wallet, usage_id, amount, reason, at)
        }
        WalletCommand::ExpireGrant { grant_id, at } => correct::expire(wallet, grant_id, at),
        WalletCommand::VoidGrant { grant_id, claimed, cause, source_ref, at } => {
            claim::void(wallet, grant_id, claimed, cause, source_ref, at)
        }
        WalletCommand::RestoreGrant { grant_id, source_ref, at } => claim::restore(wallet, grant_id, source_ref, at),
        WalletCommand::TakeCredits { adjustment_id, asset, amount, reason, effective_at, at } => {
            let taking = correct::Taking { adjustment_id, asset, amount, reason, effective_at };
            correct::take(wallet, &taking, at)
        }
        WalletCommand::Freeze { cause, source_ref } => freeze(wallet, cause, source_ref),
        WalletCommand::Thaw { cause, source_ref } => thaw(wallet, cause, source_ref),
    }
}

fn open(wallet: &Wallet, tenant_id: TenantId, opened_at: Timestamp) -> Decision {
    match wallet.tenant {
        None => Ok(vec![WalletEvent::WalletOpened(WalletOpened { tenant_id, opened_at })]),
        Some(owner) if owner == tenant_id => Ok(Vec::new()),
        Some(owner) => Err(WalletRefusal::BelongsTo(owner)),
    }
}

/// What a grant is, as asked for.
struct Terms {
    kind: GrantKind,
    amount: Units,
    priority: i16,
    effective_at: Timestamp,
    expires_at: Option<Timestamp>,
    cost_basis: MicroUsd,
    source_ref: String,
    reason: Option<AdjustmentReason>,
}

fn grant(wallet: &Wallet, grant_id: GrantId, asset: Asset, terms: Terms, at: Timestamp) -> Decision {
    let mut granted = CreditsGranted {
        grant_id,
        asset,
        kind: terms.kind,
        amount: terms.amount,
        priority: terms.priority,
        effective_at: terms.effective_at,
        expires_at: terms.expires_at,
        cost_basis: terms.cost_basis,
        source_ref: terms.source_ref,
        reason: terms.reason,
        available_after: Units::ZERO,
    };
    if let Some(known) = wallet.grant(&grant_id) {
        return repeated(known.print == prints::of_grant(&granted), grant_id.0);
    }
    check_terms(wallet, &granted, at)?;
    let mut draft = Draft::begin(wallet, asset, at);
    draft.purse.granted.plus(granted.amount)?;
    draft.available = draft.available.plus(granted.amount)?;
    granted.available_after = draft.available;
    draft.settle_granted(granted);
    Ok(draft.finish())
}

impl Wallet {
    /// Whether a grant that counts from then could be told from one that is forgotten.
    ///
    /// # Errors
    /// [`WalletRefusal::GrantTooOld`], with the moment after which it can.
    pub fn remembers(&self, effective_at: Timestamp) -> Result<(), WalletRefusal> {
        match self.forgotten_grants.filter(|forgotten| effective_at <= *forgotten) {
            Some(forgotten) => Err(WalletRefusal::GrantTooOld { effective_at, forgotten }),
            None => Ok(()),
        }
    }
}

fn check_terms(wallet: &Wallet, granted: &CreditsGranted, at: Timestamp) -> Result<(), WalletRefusal> {
    at_least(granted.amount, 1)?;
    at_least(granted.cost_basis.into(), 0)?;
    short_enough(&granted.source_ref)?;
    let ahead = granted.effective_at > at.plus_seconds(CLOCK_SKEW_MAX_SECONDS);
    if ahead || granted.expires_at.is_some_and(|end| end <= granted.effective_at) {
        let (effective_at, expires_at) = (granted.effective_at, granted.expires_at);
        return Err(WalletRefusal::ImpossibleTerm { effective_at, expires_at, at });
    }
    wallet.remembers(granted.effective_at)?;
    let open = wallet.usd.grants.len() + wallet.credit.grants.len();
    if open >= GRANTS_OPEN_MAX_COUNT {
        return Err(WalletRefusal::TooManyGrants { open, limit: GRANTS_OPEN_MAX_COUNT });
    }
    Ok(())
}

fn freeze(wallet: &Wallet, cause: FreezeCause, source_ref: Option<String>) -> Decision {
    short_enough(source_ref.as_deref().unwrap_or_default())?;
    let stands = |source_ref: Option<&str>| wallet.frozen.contains(&Freeze::new(cause, source_ref));
    if stands(source_ref.as_deref()) {
        return Ok(Vec::new());
    }
    // With more reasons than are told apart the cause as such stands, until somebody thaws it by hand.
    let source_ref = source_ref.filter(|_| wallet.frozen.len() < FREEZES_REMEMBERED_MAX_COUNT);
    if stands(source_ref.as_deref()) {
        return Ok(Vec::new());
    }
    Ok(vec![WalletEvent::WalletFrozen(WalletFrozen { cause, source_ref })])
}

fn thaw(wallet: &Wallet, cause: FreezeCause, source_ref: Option<String>) -> Decision {
    short_enough(source_ref.as_deref().unwrap_or_default())?;
    let ended = Freeze::new(cause, source_ref.as_deref());
    if !wallet.frozen.iter().any(|known| ended.ends(known)) {
        return Ok(Vec::new());
    }
    Ok(vec![WalletEvent::WalletThawed(WalletThawed { cause, source_ref })])
}

/// A known id: nothing to do for the same content, a refusal for other content.
pub(super) const fn repeated(same: bool, id: Uuid) -> Decision {
    if same { Ok(Vec::new()) } else { Err(WalletRefusal::IdReused { id }) }
}

/// A new id must carry its time, and one the wallet can still vouch for.
pub(super) fn fresh(wallet: &Wallet, id: Uuid, at: Timestamp) -> Result<(), WalletRefusal> {
    ordered(id, at)?;
    not_forgotten(wallet, id)
}

/// An id must carry its time, and that must not lie ahead.
pub(crate) fn ordered(id: Uuid, at: Timestamp) -> Result<(), WalletRefusal> {
    if id.get_version_num() != 7 {
        return Err(WalletRefusal::IdNotOrdered { id });
    }
    let id_ms = id_millis(id);
    // An id far ahead would, once forgotten, make every honest id look too old.
    let latest_ms = at.plus_seconds(CLOCK_SKEW_MAX_SECONDS).micros().div_euclid(MICROS_PER_MILLI);
    if i64::try_from(id_ms).is_ok_and(|id_ms| id_ms > latest_ms) {
        return Err(WalletRefusal::IdAhead { id, id_ms, now_ms: at.micros().div_euclid(MICROS_PER_MILLI) });
    }
    Ok(())
}

/// An id that is unknown and older than the memory may have been used: nobody can tell.
pub(super) fn not_forgotten(wallet: &Wallet, id: Uuid) -> Result<(), WalletRefusal> {
    let forgotten_ms = wallet.uses.forgotten_ms();
    if id_millis(id) <= forgotten_ms { Err(WalletRefusal::IdTooOld { id, forgotten_ms }) } else { Ok(()) }
}

pub(super) const fn at_least(amount: Units, least: i64) -> Result<(), WalletRefusal> {
    if amount.get() < least { Err(WalletRefusal::AmountTooSmall { amount, least }) } else { Ok(()) }
}

pub(super) const fn short_enough(text: &str) -> Result<(), WalletRefusal> {
    let bytes = text.len();
    if bytes > WALLET_TEXT_MAX_BYTES {
        return Err(WalletRefusal::TextTooLong { bytes, limit: WALLET_TEXT_MAX_BYTES });
    }
    Ok(())
}
