//! What is charged: the same wallets, amounts and figures for whoever is measured.

use calos_commands::metadata::{Actor, Metadata, StoredMetadata};
use calos_domain::wallet::{Allocation, CreditsDeducted, Meter, UsageOutcome, UsageRecorded, WalletEvent};
use calos_domain::{Asset, GrantId, MicroUsd, TenantId, Units, UsageId};
use rand::Rng;
use rand::rngs::SmallRng;
use uuid::Uuid;

/// Events of one deduction: the usage record and the deduction.
pub const EVENTS_PER_CHARGE: u32 = 2;
/// What every wallet is granted before anything is measured, in micro-dollars: more than any run can spend.
pub const OPENING_MICROS: i64 = 1_000_000_000_000_000;

const PROMPT_MICROS_PER_TOKEN: u64 = 30;
const COMPLETION_MICROS_PER_TOKEN: u64 = 60;
const MARKUP_PERCENT: u64 = 30;
const PERCENT: u64 = 100;

/// Which wallet a caller charges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// Always the same one.
    Hot,
    /// Each as likely as any other.
    Uniform,
}

impl Spread {
    /// The index of the next one among `count`.
    pub fn pick(self, count: usize, random: &mut SmallRng) -> usize {
        match self {
            Self::Hot => 0,
            Self::Uniform => random.random_range(0..count.max(1)),
        }
    }

    /// For people.
    pub fn describe(self, count: usize, one: &str, many: &str) -> String {
        match self {
            Self::Hot => format!("one hot {one}"),
            Self::Uniform => format!("{count} {many}"),
        }
    }
}

/// A tenant whose wallet is charged, and the grant it spends from.
#[derive(Clone, Copy, Debug)]
pub struct Payer {
    /// Whose wallet.
    pub tenant: TenantId,
    /// Its only grant.
    pub grant: GrantId,
}

/// Wallets with ids as they are drawn in production.
pub fn payers(count: usize) -> Vec<Payer> {
    (0..count.max(1)).map(|_| Payer { tenant: TenantId(Uuid::new_v4()), grant: GrantId(Uuid::now_v7()) }).collect()
}

/// One metered model call, priced as the price book prices `gpt-4` for a `pro` tenant.
pub fn usage(random: &mut SmallRng) -> UsageRecorded {
    let prompt_tokens = random.random_range(50..3_000);
    let completion_tokens = random.random_range(20..1_000);
    let provider_cost = prompt_tokens * PROMPT_MICROS_PER_TOKEN + completion_tokens * COMPLETION_MICROS_PER_TOKEN;
    let markup = provider_cost * MARKUP_PERCENT / PERCENT;
    UsageRecorded {
        usage_id: UsageId(Uuid::now_v7()),
        meter: Meter::Chat,
        api_key_id: None,
        provider: "openai".to_owned(),
        model: "gpt-4".to_owned(),
        prompt_tokens,
        completion_tokens,
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        failed_attempts: Vec::new(),
        reasoning_tokens: 0,
        provider_cost: micros(provider_cost),
        markup: micros(markup),
        total: micros(provider_cost + markup),
        byok: false,
        estimated: false,
        price_book_version: "2025-01".to_owned(),
        latency_ms: random.random_range(200..2_000),
        task_type: "chat".to_owned(),
        outcome: UsageOutcome::Completed,
    }
}

fn micros(amount: u64) -> MicroUsd {
    MicroUsd::new(i64::try_from(amount).unwrap_or(i64::MAX))
}

/// The two events of a deduction as the wallet writes them, for baselines that do not have our wallet.
pub fn charge_events(usage: UsageRecorded, grant: GrantId, available: Units) -> [WalletEvent; 2] {
    let amount = Units::from(usage.total);
    let deducted = CreditsDeducted {
        usage_id: usage.usage_id,
        hold_id: None,
        meter: usage.meter,
        asset: Asset::Usd,
        amount,
        allocations: vec![Allocation { grant_id: grant, amount }],
        held: Units::ZERO,
        returned: Units::ZERO,
        returned_to: Vec::new(),
        released: Vec::new(),
        available_after: available.minus(amount).unwrap_or_default(),
    };
    [WalletEvent::UsageRecorded(usage), WalletEvent::CreditsDeducted(deducted)]
}

/// The envelope of a command as the gateway makes it.
pub fn metadata() -> Metadata {
    let mut metadata = Metadata::new(Actor::System("calos-bench"));
    metadata.request_id = Some(Uuid::now_v7().to_string());
    metadata
}

/// The same envelope in its stored form.
pub fn stored_metadata() -> StoredMetadata {
    let metadata = metadata();
    StoredMetadata {
        event_id: Uuid::now_v7(),
        command_id: metadata.command_id,
        correlation_id: metadata.correlation_id,
        causation_id: metadata.causation_id,
        actor: metadata.actor.to_string(),
        on_behalf_of: metadata.on_behalf_of,
        reason: metadata.reason,
        request_id: metadata.request_id,
    }
}
