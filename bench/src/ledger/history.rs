//! A year of tenants who pay, call and let credit lapse, decided by the wallet's own rules, in the order in which it was
//! recorded.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use calos_domain::payment::{
    PaymentEvent, PaymentKind, PaymentReceived, PaymentVia, PayoutEvent, PayoutSent, payment_stream, payout_stream,
};
use calos_domain::time::{MICROS_PER_SECOND, SECONDS_PER_DAY};
use calos_domain::wallet::{CallTerms, GrantKind, Meter, ReleaseCause, Wallet, WalletCommand, WalletEvent};
use calos_domain::{Asset, Decider, Fact, GrantId, HoldId, MicroUsd, StreamId, TenantId, Timestamp, Units, UsageId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::{Builder, Uuid};

use crate::error::BenchError;
use crate::workload;

/// How long the history is.
pub const HISTORY_SECONDS: i64 = 365 * SECONDS_PER_DAY;
/// How long the burst is: one of the finest stretches in which sums are kept.
pub const BURST_SECONDS: i64 = 600;
/// One of so many calls is made in the burst.
const BURST_SHARE: u64 = 20;
/// One of so many calls is the busy tenant's.
const BUSY_SHARE: u32 = 10;
/// One of so many holds is given back unspent.
const RELEASED_SHARE: u32 = 20;
/// One of so many payments is heard of late, and by how much.
const LATE_SHARE: u32 = 10;
const LATE_SECONDS: i64 = 3 * SECONDS_PER_DAY;
/// A tenant pays this often.
const PAYS_EVERY_SECONDS: i64 = 30 * SECONDS_PER_DAY;
/// How long paid credit lasts, and how late its end is recorded.
const LASTS_SECONDS: i64 = 45 * SECONDS_PER_DAY;
const EXPIRED_LATE_SECONDS: i64 = 3_600;
/// Payouts are this far apart.
const PAYOUT_EVERY_SECONDS: i64 = 7 * SECONDS_PER_DAY;
/// What a call keeps, in micro-dollars: no use costs more.
const HELD_MICROS: i64 = 250_000;
/// What a payment brings, in micro-dollars: more than a month of calls can cost.
const PAID_MICROS: i64 = 1_000_000_000_000;
const FEE_MICROS: i64 = 880_000;
/// A call lasts at most this long.
const CALL_MAX_SECONDS: i64 = 20;
/// From being let in to being recorded.
const COMMIT_MICROS: i64 = 3_000;
/// Events of one call: hold, use, deduction.
const EVENTS_PER_CALL: u64 = 3;
/// Events of one payment: the payment, its grant, its end.
const EVENTS_PER_PAYMENT: u64 = 3;
const MICROS_PER_MILLI: i64 = 1_000;

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// About so many events.
    pub events: u64,
    /// By so many tenants.
    pub tenants: usize,
    /// From this moment on.
    pub begin: Timestamp,
}

impl Shape {
    /// When it is over.
    pub const fn end(&self) -> Timestamp {
        self.begin.plus_seconds(HISTORY_SECONDS)
    }

    /// When the burst begins: in the middle, with one of the finest stretches.
    pub const fn burst(&self) -> Timestamp {
        self.begin.plus_seconds(HISTORY_SECONDS / 2 - HISTORY_SECONDS / 2 % BURST_SECONDS)
    }

    /// The tenants, the busy one first.
    pub fn tenant_ids(&self) -> Vec<TenantId> {
        let mut random = SmallRng::seed_from_u64(3);
        (0..self.tenants.max(1)).map(|_| TenantId(Builder::from_random_bytes(random.random()).into_uuid())).collect()
    }

    fn calls(&self) -> u64 {
        let payments = u64::try_from(HISTORY_SECONDS / PAYS_EVERY_SECONDS + 1).unwrap_or_default();
        let beside = u64::try_from(self.tenants).unwrap_or_default() * (1 + payments * EVENTS_PER_PAYMENT);
        self.events.saturating_sub(beside) / EVENTS_PER_CALL
    }
}

/// An event on its way into the log.
pub struct Happened<'a> {
    /// The aggregate's stored type.
    pub kind: &'static str,
    /// Its stream.
    pub stream: &'a str,
    /// Its place in the stream.
    pub sequence: i64,
    /// Its stored name.
    pub name: &'static str,
    /// Its stored version.
    pub version: &'static str,
    /// It as JSON.
    pub payload: &'a str,
    /// When it is recorded.
    pub recorded_at: Timestamp,
}

/// Lets the year happen, event by event, each handed to `each`.
///
/// # Errors
/// A rule refused something, or whatever `each` failed with.
pub fn live(shape: &Shape, each: impl FnMut(&Happened<'_>) -> Result<(), BenchError>) -> Result<(), BenchError> {
    Year::new(shape, each).live()
}

/// What is going to happen later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    Pay { tenant: usize, number: i64 },
    Settle { tenant: usize, hold: HoldId },
    Expire { tenant: usize, grant: GrantId },
    PayOut { number: i64 },
}

struct Life {
    id: TenantId,
    stream: StreamId,
    wallet: Wallet,
    sequence: i64,
}

struct Year<E> {
    lives: Vec<Life>,
    random: SmallRng,
    arrivals: Arrivals,
    due: BinaryHeap<Reverse<(Timestamp, Due)>>,
    end: Timestamp,
    payload: Vec<u8>,
    each: E,
}

impl<E: FnMut(&Happened<'_>) -> Result<(), BenchError>> Year<E> {
    fn new(shape: &Shape, each: E) -> Self {
        let life = |id: TenantId| Life { id, stream: StreamId::key(id), wallet: Wallet::default(), sequence: 0 };
        Self {
            lives: shape.tenant_ids().into_iter().map(life).collect(),
            random: SmallRng::seed_from_u64(5),
            arrivals: Arrivals::new(shape),
            due: BinaryHeap::new(),
            end: shape.end(),
            payload: Vec::new(),
            each,
        }
    }

    fn live(mut self) -> Result<(), BenchError> {
        let begin = self.arrivals.begin;
        for tenant in 0..self.lives.len() {
            let tenant_id = self.lives[tenant].id;
            self.wallet(tenant, WalletCommand::OpenWallet { tenant_id, opened_at: begin }, begin)?;
            self.due.push(Reverse((begin, Due::Pay { tenant, number: 0 })));
        }
        self.due.push(Reverse((begin.plus_seconds(PAYOUT_EVERY_SECONDS), Due::PayOut { number: 0 })));
        loop {
            let called = self.arrivals.peek();
            let due = self.due.peek().map(|Reverse((at, _))| *at);
            match (called, due) {
                (None, None) => return Ok(()),
                (Some(at), due) if due.is_none_or(|due| at < due) => {
                    self.arrivals.pop();
                    self.call(at)?;
                }
                (_, Some(_)) => {
                    if let Some(Reverse((at, due))) = self.due.pop() {
                        self.happen(at, due)?;
                    }
                }
                (Some(_), None) => return Err(BenchError::Check("a call has no moment".to_owned())),
            }
        }
    }

    /// A model call is let in: its hold now, its end a little later.
    fn call(&mut self, at: Timestamp) -> Result<(), BenchError> {
        let busy = self.random.random_ratio(1, BUSY_SHARE);
        let tenant = if busy { 0 } else { self.random.random_range(0..self.lives.len()) };
        let id = self.id(at);
        let hold = WalletCommand::PlaceHold {
            hold_id: HoldId(id),
            asset: Asset::Usd,
            amount: Units::new(HELD_MICROS),
            meter: Meter::Chat,
            caller: None,
            terms: CallTerms::default(),
            usage_id: UsageId(id),
            admitted_at: at,
            expires_at: at.plus_seconds(BURST_SECONDS),
        };
        self.wallet(tenant, hold, at)?;
        let lasts = self.random.random_range(MICROS_PER_SECOND / 5..CALL_MAX_SECONDS * MICROS_PER_SECOND);
        let ends = Timestamp::from_micros(at.micros() + lasts);
        self.due.push(Reverse((ends, Due::Settle { tenant, hold: HoldId(id) })));
        Ok(())
    }

    fn happen(&mut self, at: Timestamp, due: Due) -> Result<(), BenchError> {
        match due {
            Due::Pay { tenant, number } => self.pay(tenant, number, at),
            Due::Settle { tenant, hold } => self.settle(tenant, hold, at),
            Due::Expire { tenant, grant } => {
                self.wallet(tenant, WalletCommand::ExpireGrant { grant_id: grant, at }, at)
            }
            Due::PayOut { number } => {
                let payout_ref = format!("po_{number}");
                let stream = payout_stream(&payout_ref);
                let amount = MicroUsd::new(PAID_MICROS);
                let sent = PayoutEvent::PayoutSent(PayoutSent { payout_ref, amount, occurred_at: at });
                self.record("payout", stream.as_str(), 1, &sent, at)?;
                self.again(at, PAYOUT_EVERY_SECONDS, Due::PayOut { number: number + 1 });
                Ok(())
            }
        }
    }

    fn again(&mut self, at: Timestamp, seconds: i64, due: Due) {
        let next = at.plus_seconds(seconds);
        if next < self.end {
            self.due.push(Reverse((next, due)));
        }
    }

    fn settle(&mut self, tenant: usize, hold_id: HoldId, at: Timestamp) -> Result<(), BenchError> {
        if self.random.random_ratio(1, RELEASED_SHARE) {
            let cause = ReleaseCause::ClientGone;
            return self.wallet(tenant, WalletCommand::ReleaseHold { hold_id, cause, at }, at);
        }
        let mut usage = workload::usage(&mut self.random);
        usage.usage_id = UsageId(hold_id.0);
        let amount = Units::from(usage.total);
        self.wallet(tenant, WalletCommand::SettleHold { hold_id, usage, amount, at }, at)
    }

    /// A payment and the credit it brings; some are heard of days late.
    fn pay(&mut self, tenant: usize, number: i64, at: Timestamp) -> Result<(), BenchError> {
        let late = number > 0 && self.random.random_ratio(1, LATE_SHARE);
        let occurred_at = at.plus_seconds(if late { -LATE_SECONDS } else { -1 });
        let grant_id = GrantId(self.id(at));
        let (payment_ref, units) = (format!("in_{number}"), Units::new(PAID_MICROS));
        let expires_at = Some(occurred_at.plus_seconds(LASTS_SECONDS));
        let stream = payment_stream(self.lives[tenant].id, &payment_ref);
        let received = PaymentEvent::PaymentReceived(PaymentReceived {
            payment_ref: payment_ref.clone(),
            kind: PaymentKind::Subscription,
            asset: Asset::Usd,
            units,
            gross: MicroUsd::new(PAID_MICROS),
            fee: MicroUsd::new(FEE_MICROS),
            grant_id,
            expires_at,
            via: PaymentVia::Stripe,
            occurred_at,
        });
        self.record("payment", stream.as_str(), 1, &received, at)?;
        let grant = WalletCommand::GrantCredits {
            grant_id,
            asset: Asset::Usd,
            kind: GrantKind::Subscription,
            amount: units,
            priority: 0,
            effective_at: occurred_at,
            expires_at,
            cost_basis: MicroUsd::new(PAID_MICROS),
            source_ref: format!("payment:{payment_ref}"),
            reason: None,
            at,
        };
        self.wallet(tenant, grant, at)?;
        self.again(at, LASTS_SECONDS + EXPIRED_LATE_SECONDS, Due::Expire { tenant, grant: grant_id });
        // Tenants pay on days of their own.
        let until_next = match number {
            0 => (1 + i64::try_from(tenant % 30).unwrap_or_default()) * SECONDS_PER_DAY,
            _ => PAYS_EVERY_SECONDS,
        };
        self.again(at, until_next, Due::Pay { tenant, number: number + 1 });
        Ok(())
    }

    fn wallet(&mut self, tenant: usize, command: WalletCommand, at: Timestamp) -> Result<(), BenchError> {
        let events = self.lives[tenant].wallet.decide(command);
        let events: Vec<WalletEvent> =
            events.map_err(|refusal| BenchError::Check(format!("the history was refused: {refusal}")))?;
        let stream = self.lives[tenant].stream.clone();
        for event in &events {
            let life = &mut self.lives[tenant];
            life.wallet.evolve(event);
            life.sequence += 1;
            let sequence = life.sequence;
            self.record(Wallet::KIND, stream.as_str(), sequence, event, at)?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        kind: &'static str,
        stream: &str,
        sequence: i64,
        event: &impl Fact,
        at: Timestamp,
    ) -> Result<(), BenchError> {
        self.payload.clear();
        serde_json::to_writer(&mut self.payload, event)?;
        let payload = std::str::from_utf8(&self.payload)
            .map_err(|error| BenchError::Check(format!("an event is no text: {error}")))?;
        let recorded_at = Timestamp::from_micros(at.micros() + COMMIT_MICROS);
        let (name, version) = (event.name(), event.version());
        (self.each)(&Happened { kind, stream, sequence, name, version, payload, recorded_at })
    }

    /// An id of that moment.
    fn id(&mut self, at: Timestamp) -> Uuid {
        let millis = u64::try_from(at.micros() / MICROS_PER_MILLI).unwrap_or_default();
        Builder::from_unix_timestamp_millis(millis, &self.random.random()).into_uuid()
    }
}

/// When calls come: evenly over the year, and beside that evenly over the burst.
struct Arrivals {
    begin: Timestamp,
    even: Even,
    burst: Even,
}

/// So many moments, evenly over a stretch of time.
struct Even {
    begin: Timestamp,
    micros: i64,
    count: u64,
    next: u64,
}

impl Even {
    fn peek(&self) -> Option<Timestamp> {
        let share = i128::from(self.micros) * i128::from(self.next) / i128::from(self.count.max(1));
        let at = Timestamp::from_micros(self.begin.micros() + i64::try_from(share).unwrap_or_default());
        (self.next < self.count).then_some(at)
    }
}

impl Arrivals {
    fn new(shape: &Shape) -> Self {
        // What is let in ends before the year and the burst do.
        let even = |begin: Timestamp, seconds: i64, count| Even {
            begin: begin.plus_seconds(1),
            micros: (seconds - CALL_MAX_SECONDS - 2) * MICROS_PER_SECOND,
            count,
            next: 0,
        };
        let calls = shape.calls();
        let burst = calls / BURST_SHARE;
        Self {
            begin: shape.begin,
            even: even(shape.begin, HISTORY_SECONDS, calls - burst),
            burst: even(shape.burst(), BURST_SECONDS, burst),
        }
    }

    fn peek(&self) -> Option<Timestamp> {
        [self.even.peek(), self.burst.peek()].into_iter().flatten().min()
    }

    fn pop(&mut self) {
        let burst_first = match (self.even.peek(), self.burst.peek()) {
            (Some(even), Some(burst)) => burst < even,
            (None, _) => true,
            (Some(_), None) => false,
        };
        let from = if burst_first { &mut self.burst } else { &mut self.even };
        from.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_has_about_the_asked_size_goes_forward_and_has_a_burst_of_a_twentieth() {
        let shape = Shape { events: 20_000, tenants: 20, begin: Timestamp::of_utc_day(20_000) };
        let (mut events, mut in_burst, mut last) = (0_u64, 0_u64, Timestamp::from_micros(0));
        let mut names: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
        live(&shape, |event| {
            assert!(event.recorded_at >= last && event.recorded_at < shape.end());
            last = event.recorded_at;
            events += 1;
            *names.entry(event.name).or_default() += 1;
            let burst = shape.burst();
            in_burst += u64::from(event.recorded_at >= burst && event.recorded_at < burst.plus_seconds(BURST_SECONDS));
            Ok(())
        })
        .unwrap();
        assert!((19_000..=21_000).contains(&events), "{events}");
        assert!((900..=1_100).contains(&in_burst), "{in_burst}");
        for name in
            ["hold_placed", "hold_released", "usage_recorded", "credits_deducted", "grant_expired", "payout_sent"]
        {
            assert!(names.contains_key(name), "{name} of {names:?}");
        }
    }
}
