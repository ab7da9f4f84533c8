//! A year of a thousand tenants, decided by the real rules and written through the real writer: every kind of event that the
//! book has an entry for.

use calos_commands::log::{EventLog, Plan, Request};
use calos_commands::metadata::{Actor, Metadata};
use calos_commands::payments;
use calos_domain::payment::{
    DisputeLost, DisputeOpened, DisputeWon, PaymentFact, PaymentKind, PaymentReceived, PaymentRefunded, PaymentVia,
    PayoutSent,
};
use calos_domain::time::{MICROS_PER_SECOND, SECONDS_PER_DAY};
use calos_domain::wallet::{
    AdjustmentReason, CallTerms, DebtCause, FreezeCause, GrantKind, Meter, ReleaseCause, UsageOutcome, UsageRecorded,
    Wallet, WalletCommand, WalletRefusal,
};
use calos_domain::{AdjustmentId, Asset, GrantId, HoldId, MicroUsd, StreamId, TenantId, Timestamp, Units, UsageId};
use futures_util::{StreamExt, stream};
use uuid::{NoContext, Uuid};

use crate::history::History;

/// Tenants who live at the same time.
const LIVES_AT_ONCE: usize = 200;

/// The first of January 2025.
pub const BEGIN: Timestamp = Timestamp::from_micros(1_735_689_600_000_000);

/// Lets `tenants` live for a year, and pays out every month.
pub async fn live(history: &History, tenants: usize) -> Vec<TenantId> {
    let born: Vec<(usize, TenantId)> = (0..tenants).map(|number| (number, TenantId(id(BEGIN)))).collect();
    stream::iter(&born)
        .for_each_concurrent(LIVES_AT_ONCE, |(number, tenant)| async move {
            Life { history, tenant: *tenant, number: *number as i64, at: BEGIN }.live().await;
        })
        .await;
    for month in 0..12 {
        let at = day(BEGIN, 30 * month + 15);
        // One month Stripe takes instead of giving.
        let amount = if month == 6 { -1_500_000 } else { 250_000_000 + month };
        let payout_ref = format!("po_{month}");
        let sent = PayoutSent { payout_ref, amount: MicroUsd::new(amount), occurred_at: at };
        payments::record_payout(&history.log, sent, at, request()).await.expect("the payout is recorded");
    }
    born.into_iter().map(|(_, tenant)| tenant).collect()
}

/// So many days later.
pub fn day(from: Timestamp, days: i64) -> Timestamp {
    from.plus_seconds(days * SECONDS_PER_DAY)
}

struct Life<'a> {
    history: &'a History,
    tenant: TenantId,
    number: i64,
    at: Timestamp,
}

impl Life<'_> {
    async fn live(mut self) {
        let (tenant_id, number) = (self.tenant, self.number);
        self.later(number % 28);
        self.wallet(WalletCommand::OpenWallet { tenant_id, opened_at: self.at }).await;
        let trial = self.grant(Asset::Usd, GrantKind::Trial, 10_000_000, Some(30), 0).await;
        self.spend(Asset::Usd, Meter::Chat, 3_000_000 + number).await;
        self.later(31);
        self.wallet(WalletCommand::ExpireGrant { grant_id: trial, at: self.at }).await;
        self.buy().await;
        self.release().await;
        self.correct().await;
        if number % 3 == 0 {
            self.phone().await;
        }
    }

    /// What is bought is spent in part, and then paid back, disputed, or kept.
    async fn buy(&mut self) {
        let payment_ref = format!("in_{}", self.number);
        let kind = if self.number % 5 == 0 { PaymentKind::Subscription } else { PaymentKind::Purchase };
        let via = if self.number % 10 == 3 { PaymentVia::OutOfBand } else { PaymentVia::Stripe };
        let (gross, fee) = (20_000_000 + self.number, if via == PaymentVia::Stripe { 880_001 } else { 0 });
        let received = PaymentReceived {
            payment_ref: payment_ref.clone(),
            kind,
            asset: Asset::Usd,
            units: Units::new(21_000_003),
            gross: MicroUsd::new(gross),
            fee: MicroUsd::new(fee),
            grant_id: GrantId(id(self.at)),
            expires_at: (kind == PaymentKind::Subscription).then(|| day(self.at, 120)),
            via,
            occurred_at: self.at,
        };
        let (bought, expires) = (received.grant_id, received.expires_at.is_some());
        self.paid(PaymentFact::PaymentReceived(received)).await;
        self.later(20);
        self.spend(Asset::Usd, Meter::Embeddings, 7_000_001).await;
        self.later(10);
        let (amount, units) = (MicroUsd::new(gross), Units::new(21_000_003));
        let dispute_ref = format!("dp_{}", self.number);
        match self.number % 8 {
            0 => {
                let (refund_ref, occurred_at) = (format!("re_{}", self.number), self.at);
                let refunded = PaymentRefunded { payment_ref, refund_ref, amount, units, via, occurred_at };
                self.paid(PaymentFact::PaymentRefunded(refunded)).await;
                self.grant(Asset::Usd, GrantKind::Referral, 1_000_000, None, 0).await;
            }
            disputed @ (1 | 5) => {
                let (reference, fee, occurred_at) = (payment_ref.clone(), MicroUsd::new(15_000_000), self.at);
                let opened = DisputeOpened {
                    payment_ref: reference,
                    dispute_ref: dispute_ref.clone(),
                    amount,
                    fee,
                    units,
                    occurred_at,
                };
                self.paid(PaymentFact::DisputeOpened(opened)).await;
                self.later(40);
                let occurred_at = self.at;
                self.paid(if disputed == 1 {
                    PaymentFact::DisputeWon(DisputeWon { payment_ref, dispute_ref, amount, occurred_at })
                } else {
                    PaymentFact::DisputeLost(DisputeLost { payment_ref, dispute_ref, amount, occurred_at })
                })
                .await;
            }
            _ => {}
        }
        if expires {
            self.later(125);
            self.wallet(WalletCommand::ExpireGrant { grant_id: bought, at: self.at }).await;
        }
    }

    /// Corrections by people: credit given and taken, a deduction undone, a freeze.
    async fn correct(&mut self) {
        self.later(5);
        if self.number % 9 == 0 {
            self.grant(Asset::Usd, GrantKind::Adjustment, 2_500_000, None, 0).await;
        }
        if self.number % 6 == 4 {
            let take = WalletCommand::TakeCredits {
                adjustment_id: AdjustmentId(id(self.at)),
                asset: Asset::Usd,
                amount: Units::new(13),
                reason: AdjustmentReason::BillingError,
                effective_at: self.at.plus_seconds(-3_600),
                at: self.at,
            };
            self.wallet(take).await;
        }
        if self.number % 20 == 0 {
            let cause = FreezeCause::Operator;
            self.wallet(WalletCommand::Freeze { cause, source_ref: None }).await;
            self.wallet(WalletCommand::Thaw { cause, source_ref: None }).await;
        }
    }

    /// Phone credits, paid for outside, of which the last message is owed.
    async fn phone(&mut self) {
        self.later(3);
        self.grant(Asset::Credit, GrantKind::Purchase, 30, None, 2_999_999).await;
        self.spend(Asset::Credit, Meter::Voice, 20).await;
        for meter in [Meter::SmsInbound, Meter::SmsInbound, Meter::SmsInbound] {
            let charge = WalletCommand::Charge {
                usage: usage(UsageId(id(self.at)), meter, 0),
                asset: Asset::Credit,
                amount: Units::new(5),
                debt_limit: Units::new(100),
                debt_cause: DebtCause::InboundWithoutCredit,
                at: self.at,
            };
            self.wallet(charge).await;
        }
        if self.number % 2 == 0 {
            self.grant(Asset::Credit, GrantKind::Goodwill, 7, Some(10), 0).await;
        }
    }

    async fn release(&mut self) {
        // Enough for whoever owes after a refund or a dispute.
        self.grant(Asset::Usd, GrantKind::Goodwill, 25_000_000, None, 0).await;
        let hold_id = self.hold(Asset::Usd, Meter::Chat, 1_000).await;
        self.wallet(WalletCommand::ReleaseHold { hold_id, cause: ReleaseCause::ClientGone, at: self.at }).await;
        // And one that stays open to the end of the year.
        if self.number % 4 == 2 {
            self.hold(Asset::Usd, Meter::Chat, 500).await;
        }
    }

    /// A use for less than was held, and for every seventh tenant undone in part.
    async fn spend(&mut self, asset: Asset, meter: Meter, amount: i64) {
        let hold_id = self.hold(asset, meter, amount + 5).await;
        self.at = self.at.plus_seconds(7);
        let usage_id = UsageId(hold_id.0);
        let total = if asset == Asset::Usd { amount } else { 0 };
        let usage = usage(usage_id, meter, total);
        self.wallet(WalletCommand::SettleHold { hold_id, usage, amount: Units::new(amount), at: self.at }).await;
        if self.number % 7 == 0 && asset == Asset::Usd {
            let (amount, reason) = (Units::new(1_001), "counted twice".to_owned());
            self.wallet(WalletCommand::ReverseDeduction { usage_id, amount, reason, at: self.at }).await;
        }
    }

    async fn hold(&mut self, asset: Asset, meter: Meter, amount: i64) -> HoldId {
        let id = id(self.at);
        let hold = WalletCommand::PlaceHold {
            hold_id: HoldId(id),
            asset,
            amount: Units::new(amount),
            meter,
            caller: None,
            terms: CallTerms::default(),
            usage_id: UsageId(id),
            admitted_at: self.at,
            expires_at: self.at.plus_seconds(600),
        };
        self.wallet(hold).await;
        HoldId(id)
    }

    async fn grant(&mut self, asset: Asset, kind: GrantKind, amount: i64, days: Option<i64>, paid: i64) -> GrantId {
        let grant_id = GrantId(id(self.at));
        let grant = WalletCommand::GrantCredits {
            grant_id,
            asset,
            kind,
            amount: Units::new(amount),
            priority: 0,
            effective_at: self.at,
            expires_at: days.map(|days| day(self.at, days)),
            cost_basis: MicroUsd::new(paid),
            source_ref: "test".to_owned(),
            reason: (kind == GrantKind::Adjustment).then_some(AdjustmentReason::Goodwill),
            at: self.at,
        };
        self.wallet(grant).await;
        grant_id
    }

    async fn paid(&mut self, fact: PaymentFact) {
        let recorded = payments::record(&self.history.log, self.tenant, fact, self.at, request()).await;
        recorded.expect("the fact is recorded");
    }

    async fn wallet(&mut self, command: WalletCommand) {
        let mut plan = Plan::default();
        let wallet = plan.stream::<Wallet>(StreamId::key(self.tenant));
        let decide = |unit: &mut calos_commands::log::Unit<'_>| -> Result<(), WalletRefusal> {
            unit.decide(wallet, command.clone()).map(drop)
        };
        self.history.log.execute(&plan, request(), decide).await.expect("the command is taken");
        // Ids are ordered by the millisecond, and so is what happens.
        self.at = Timestamp::from_micros(self.at.micros() + 2_000);
    }

    fn later(&mut self, days: i64) {
        self.at = day(self.at, days);
    }
}

fn request() -> Request {
    Metadata::new(Actor::System("test")).into()
}

/// An id of that moment.
fn id(at: Timestamp) -> Uuid {
    let (seconds, micros) = (at.micros() / MICROS_PER_SECOND, at.micros() % MICROS_PER_SECOND);
    let (seconds, nanos) =
        (u64::try_from(seconds).expect("after 1970"), u32::try_from(micros * 1_000).expect("of a second"));
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos))
}

fn usage(usage_id: UsageId, meter: Meter, total: i64) -> UsageRecorded {
    UsageRecorded {
        usage_id,
        meter,
        api_key_id: None,
        provider: "openai".to_owned(),
        model: "gpt-4".to_owned(),
        prompt_tokens: 10,
        completion_tokens: 20,
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        failed_attempts: Vec::new(),
        reasoning_tokens: 0,
        provider_cost: MicroUsd::new(total - total / 5),
        markup: MicroUsd::new(total / 5),
        total: MicroUsd::new(total),
        byok: false,
        estimated: false,
        price_book_version: "1".to_owned(),
        latency_ms: 12,
        task_type: "chat".to_owned(),
        outcome: UsageOutcome::Completed,
    }
}
