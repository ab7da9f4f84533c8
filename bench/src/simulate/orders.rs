//! What is asked of a wallet: commands as a history needs them, drawn from what the model knows by then.

use calos_domain::book;
use calos_domain::wallet::{
    AdjustmentReason, CallTerms, DebtCause, FreezeCause, GrantKind, Meter, ReleaseCause, UsageOutcome, UsageRecorded,
    WalletCommand,
};
use calos_domain::{AdjustmentId, Asset, GrantId, HoldId, MicroUsd, TenantId, Timestamp, Units, UsageId};

use super::chance::Chance;
use super::model::{Model, Standing};
use super::payments;
use super::tenant::Tenant;
use super::work::Order;

/// How far a command's clock may be off, in seconds, either way.
const SKEW_MAX_SECONDS: i64 = 100;
/// Facts that wait for a tenant, about.
const INBOX_MAX_FACTS: usize = 12;

fn asset(chance: &mut Chance) -> Asset {
    if chance.one_in(4) { Asset::Credit } else { Asset::Usd }
}

/// Small enough that balances run out, with edges more often than they would come by themselves.
fn amount(chance: &mut Chance) -> Units {
    Units::new(match chance.below(12) {
        0 => chance.between(-1, 1),
        1 => chance.between(0, 2_000),
        _ => chance.between(1, 300),
    })
}

/// The moment a command says it is: clocks of several machines differ.
fn moment(chance: &mut Chance, now: Timestamp) -> Timestamp {
    if chance.one_in(3) { now.plus_seconds(chance.between(-SKEW_MAX_SECONDS, SKEW_MAX_SECONDS)) } else { now }
}

/// Any order.
pub fn any(chance: &mut Chance, tenant: &mut Tenant, now: Timestamp) -> Order {
    match chance.below(100) {
        0..=2 if tenant.inbox.len() < INBOX_MAX_FACTS => {
            // What Stripe tells comes in any order, and some of it again.
            let facts = payments::story(chance, now, false);
            tenant.inbox.extend(facts);
            deliver(chance, tenant, now)
        }
        0..=9 => deliver(chance, tenant, now),
        10..=16 => {
            let (asking, by) = tenant.adjustments.any(chance, tenant.id, now);
            Order::Adjust(asking, by, now)
        }
        _ => Order::Wallet(any_command(chance, tenant, now)),
    }
}

/// A fact out of the inbox, or one delivered before: again, or with other content.
fn deliver(chance: &mut Chance, tenant: &mut Tenant, now: Timestamp) -> Order {
    let place = chance.below(tenant.inbox.len());
    match (tenant.inbox.get(place), chance.pick(&tenant.delivered)) {
        (Some(fact), _) if !chance.one_in(4) => Order::Fact(fact.clone(), now),
        (_, Some(fact)) if chance.one_in(2) => Order::Fact(fact.clone(), now),
        (_, Some(fact)) => Order::Fact(payments::twisted(fact.clone()), now),
        (_, None) => Order::Wallet(any_command(chance, tenant, now)),
    }
}

fn any_command(chance: &mut Chance, tenant: &Tenant, now: Timestamp) -> WalletCommand {
    let (at, model) = (moment(chance, now), &tenant.model);
    // A wallet that stays frozen tells little.
    if let Some((cause, source_ref)) = model.figures.frozen.first().filter(|_| chance.one_in(3))
        && (*cause != FreezeCause::Dispute || chance.one_in(4))
    {
        return WalletCommand::Thaw { cause: *cause, source_ref: source_ref.clone() };
    }
    match chance.below(100) {
        0..=9 => grant(chance, now, at),
        10..=32 => hold(chance, now, at),
        33..=53 => settle(chance, model, at),
        54..=60 => release(chance, model, at),
        61..=70 => charge(chance, now, at, true),
        71..=76 => reverse(chance, model, at),
        77..=79 => WalletCommand::ExpireGrant { grant_id: some_lapsed(chance, model, at), at },
        80..=84 => void(chance, model, at),
        85..=86 => restore(chance, model, at),
        87..=88 => take(chance, now, at),
        89 => WalletCommand::Freeze { cause: freeze_cause(chance), source_ref: None },
        90 => WalletCommand::Thaw { cause: freeze_cause(chance), source_ref: None },
        91..=95 => chance.pick(&tenant.accepted).cloned().unwrap_or_else(|| grant(chance, now, at)),
        _ => twist(chance, tenant, at).unwrap_or_else(|| grant(chance, now, at)),
    }
}

/// A command that can only make less available: several of them in flight come to the same whatever became of the first.
pub fn spending(chance: &mut Chance, now: Timestamp) -> WalletCommand {
    if chance.one_in(2) { hold(chance, now, now) } else { charge(chance, now, now, false) }
}

/// The commands that open a tenant's wallet.
pub fn opening(chance: &mut Chance, tenant: TenantId, now: Timestamp) -> [WalletCommand; 2] {
    [WalletCommand::OpenWallet { tenant_id: tenant, opened_at: now }, grant(chance, now, now)]
}

fn grant(chance: &mut Chance, now: Timestamp, at: Timestamp) -> WalletCommand {
    const KINDS: [GrantKind; 4] = [GrantKind::Trial, GrantKind::Goodwill, GrantKind::Purchase, GrantKind::Subscription];
    let kind = KINDS[chance.below(KINDS.len())];
    let effective_at = at.plus_seconds(-chance.between(0, 3_600));
    let paid = matches!(kind, GrantKind::Purchase | GrantKind::Subscription) && !chance.one_in(4);
    let grant_id = GrantId(chance.id(now));
    WalletCommand::GrantCredits {
        grant_id,
        asset: asset(chance),
        kind,
        amount: Units::new(if chance.one_in(50) { chance.between(0, 1) } else { chance.between(1, 2_500) }),
        priority: i16::try_from(chance.between(-1, 1)).unwrap_or_default(),
        effective_at,
        expires_at: (!chance.one_in(3)).then(|| effective_at.plus_seconds(chance.between(1, 40_000))),
        cost_basis: MicroUsd::new(if paid { chance.between(1, 5_000) } else { 0 }),
        source_ref: format!("grant:{grant_id}"),
        reason: None,
        at,
    }
}

fn hold(chance: &mut Chance, now: Timestamp, at: Timestamp) -> WalletCommand {
    let hold_id = HoldId(chance.id(now));
    let usage_id = if chance.one_in(2) { UsageId(hold_id.0) } else { UsageId(chance.id(now)) };
    WalletCommand::PlaceHold {
        hold_id,
        asset: asset(chance),
        amount: amount(chance),
        meter: meter(chance),
        caller: None,
        terms: CallTerms::default(),
        usage_id,
        admitted_at: at,
        expires_at: at.plus_seconds(chance.between(1, 1_200)),
    }
}

fn meter(chance: &mut Chance) -> Meter {
    const METERS: [Meter; 5] = [Meter::Chat, Meter::Chat, Meter::Embeddings, Meter::SmsOutbound, Meter::Voice];
    METERS[chance.below(METERS.len())]
}

fn settle(chance: &mut Chance, model: &Model, at: Timestamp) -> WalletCommand {
    let hold_id = some_hold(chance, model);
    let placed = model.use_of(&hold_id).and_then(|known| known.hold.as_ref()).map(|hold| hold.1);
    let usage_id = model.holds.get(&hold_id).copied().unwrap_or(UsageId(hold_id.0));
    let kept = placed.map_or(100, |placed| i64::try_from(placed.amount).unwrap_or(100));
    let amount = match chance.below(6) {
        0 => amount(chance),
        1 => Units::new(kept),
        2 => Units::new(kept + chance.between(1, 200)),
        _ => Units::new(chance.between(0, kept)),
    };
    let meter = placed.map_or(Meter::Chat, |placed| placed.meter);
    WalletCommand::SettleHold { hold_id, usage: usage(chance, usage_id, meter, amount), amount, at }
}

/// A use that costs this much, in figures that add up.
fn usage(chance: &mut Chance, usage_id: UsageId, meter: Meter, amount: Units) -> UsageRecorded {
    let total = amount.get();
    let provider_cost = total.clamp(0, i64::MAX) / 13 * 10;
    let prompt_tokens = u64::try_from(chance.between(0, 5_000)).unwrap_or_default();
    UsageRecorded {
        usage_id,
        meter,
        api_key_id: None,
        provider: "openai".to_owned(),
        model: "gpt-4".to_owned(),
        prompt_tokens,
        completion_tokens: prompt_tokens / 3,
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        reasoning_tokens: 0,
        provider_cost: MicroUsd::new(provider_cost),
        markup: MicroUsd::new(total - provider_cost),
        total: MicroUsd::new(total),
        byok: chance.one_in(9),
        estimated: false,
        price_book_version: "simulated".to_owned(),
        latency_ms: 1,
        task_type: "chat".to_owned(),
        outcome: UsageOutcome::Completed,
        failed_attempts: Vec::new(),
    }
}

fn release(chance: &mut Chance, model: &Model, at: Timestamp) -> WalletCommand {
    const CAUSES: [ReleaseCause; 4] =
        [ReleaseCause::Expired, ReleaseCause::Voided, ReleaseCause::ClientGone, ReleaseCause::ProviderFailed];
    let cause = CAUSES[chance.below(CAUSES.len())];
    WalletCommand::ReleaseHold { hold_id: some_hold(chance, model), cause, at }
}

fn charge(chance: &mut Chance, now: Timestamp, at: Timestamp, with_debt: bool) -> WalletCommand {
    let (usage_id, amount, meter) = (UsageId(chance.id(now)), amount(chance), meter(chance));
    let debt_limit = if with_debt && chance.one_in(2) { chance.between(0, 400) } else { 0 };
    WalletCommand::Charge {
        usage: usage(chance, usage_id, meter, amount),
        asset: asset(chance),
        amount,
        debt_limit: Units::new(debt_limit),
        debt_cause: DebtCause::InboundWithoutCredit,
        at,
    }
}

fn reverse(chance: &mut Chance, model: &Model, at: Timestamp) -> WalletCommand {
    let paid: Vec<UsageId> = model
        .uses
        .iter()
        .filter(|(_, known)| matches!(known.standing, Standing::Spent(_)))
        .map(|(usage_id, _)| *usage_id)
        .collect();
    let usage_id = match chance.pick(&paid) {
        Some(usage_id) if !chance.one_in(8) => *usage_id,
        Some(_) | None => UsageId(chance.id(at)),
    };
    WalletCommand::ReverseDeduction { usage_id, amount: amount(chance), reason: "it never arrived".to_owned(), at }
}

fn void(chance: &mut Chance, model: &Model, at: Timestamp) -> WalletCommand {
    let Some(grant_id) = some_given(chance, model) else { return release(chance, model, at) };
    let whole = model.figures.lines.get(&grant_id).map_or(100, |line| i64::try_from(line.granted).unwrap_or(100));
    let claimed = if chance.one_in(4) { whole } else { chance.between(0, whole) };
    let dispute = chance.one_in(2);
    WalletCommand::VoidGrant {
        grant_id,
        claimed: Units::new(claimed),
        cause: if dispute { DebtCause::Dispute } else { DebtCause::Refund },
        source_ref: format!("{}:{}", if dispute { "dispute" } else { "refund" }, chance.below(6)),
        at,
    }
}

fn restore(chance: &mut Chance, model: &Model, at: Timestamp) -> WalletCommand {
    let claimed: Vec<(GrantId, &String)> = model
        .terms
        .iter()
        .filter(|(_, terms)| !terms.source_ref.starts_with(book::PAYMENT_SOURCE))
        .flat_map(|(grant_id, terms)| terms.claims.iter().map(|claim| (*grant_id, &claim.source_ref)))
        .collect();
    match chance.pick(&claimed) {
        Some((grant_id, source_ref)) if !chance.one_in(8) => {
            WalletCommand::RestoreGrant { grant_id: *grant_id, source_ref: (*source_ref).clone(), at }
        }
        Some(_) | None => {
            let grant_id = some_grant(chance, model);
            WalletCommand::RestoreGrant { grant_id, source_ref: "dispute:none".to_owned(), at }
        }
    }
}

fn take(chance: &mut Chance, now: Timestamp, at: Timestamp) -> WalletCommand {
    WalletCommand::TakeCredits {
        adjustment_id: AdjustmentId(chance.id(now)),
        asset: asset(chance),
        amount: amount(chance),
        reason: AdjustmentReason::ALL[chance.below(AdjustmentReason::ALL.len())],
        effective_at: at.plus_seconds(-chance.between(0, 86_400)),
        at,
    }
}

fn freeze_cause(chance: &mut Chance) -> FreezeCause {
    const CAUSES: [FreezeCause; 2] = [FreezeCause::Fraud, FreezeCause::Operator];
    CAUSES[chance.below(CAUSES.len())]
}

fn some_grant(chance: &mut Chance, model: &Model) -> GrantId {
    let place = chance.below(model.terms.len());
    let known = model.terms.keys().nth(place).copied();
    if chance.one_in(20) { None } else { known }.unwrap_or_else(|| GrantId(chance.any_id()))
}

/// Mostly a grant whose time has run out, best under an open hold: the hold wins.
fn some_lapsed(chance: &mut Chance, model: &Model, at: Timestamp) -> GrantId {
    let lapsed = |grant_id: &GrantId| model.terms.get(grant_id).is_some_and(|terms| terms.lapsed(at.micros()));
    let held = model.figures.lines.iter().filter(|(grant_id, line)| line.held > 0 && lapsed(grant_id));
    let held: Vec<GrantId> = held.map(|(grant_id, _)| *grant_id).collect();
    chance.pick(&held).copied().unwrap_or_else(|| some_grant(chance, model))
}

/// A grant no payment claims: what a payment's own facts claim is theirs.
fn some_given(chance: &mut Chance, model: &Model) -> Option<GrantId> {
    let given = model.terms.iter().filter(|(_, terms)| !terms.source_ref.starts_with(book::PAYMENT_SOURCE));
    let given: Vec<GrantId> = given.map(|(grant_id, _)| *grant_id).collect();
    chance.pick(&given).copied()
}

/// Mostly an open hold, now and then one that has ended or was never placed.
fn some_hold(chance: &mut Chance, model: &Model) -> HoldId {
    let open = model.figures.holds.len();
    let among_all = open == 0 || chance.one_in(6);
    let place = chance.below(if among_all { model.holds.len() } else { open });
    let known =
        if among_all { model.holds.keys().nth(place).copied() } else { model.figures.holds.keys().nth(place).copied() };
    known.unwrap_or_else(|| HoldId(chance.any_id()))
}

/// A known id with other content.
fn twist(chance: &mut Chance, tenant: &Tenant, later: Timestamp) -> Option<WalletCommand> {
    let mut command = chance.pick(&tenant.accepted)?.clone();
    match &mut command {
        WalletCommand::GrantCredits { priority, at, .. } => {
            *priority += 1;
            *at = later;
        }
        WalletCommand::PlaceHold { amount, .. } => *amount = amount.saturating_plus(Units::new(1)),
        WalletCommand::SettleHold { usage, .. } | WalletCommand::Charge { usage, .. } => usage.latency_ms += 1,
        WalletCommand::VoidGrant { claimed, .. } => *claimed = claimed.saturating_plus(Units::new(1)),
        WalletCommand::TakeCredits { amount, .. } => *amount = amount.saturating_plus(Units::new(1)),
        WalletCommand::OpenWallet { .. }
        | WalletCommand::ReleaseHold { .. }
        | WalletCommand::ReverseDeduction { .. }
        | WalletCommand::ExpireGrant { .. }
        | WalletCommand::RestoreGrant { .. }
        | WalletCommand::Freeze { .. }
        | WalletCommand::Thaw { .. } => return None,
    }
    Some(command)
}
