//! A fact and what it means for the wallet, on a log in memory: both, or neither.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use calos_domain::payment::{
    DisputeOpened, DisputeWon, PaymentEvent, PaymentKind, PaymentReceived, PaymentRefunded, PaymentVia,
};
use calos_domain::wallet::{DebtCause, Meter, UsageOutcome, UsageRecorded};
use calos_domain::{Asset, Decider, GrantId, MicroUsd, Units, UsageId};
use uuid::{Builder, Uuid};

use super::*;
use crate::log::{Failed, LogError, UnitStream, WarmAggregate};
use crate::metadata::{Actor, Metadata};
use crate::sourced::Sourced;

/// Copies a state without knowing its type.
type Copy = fn(&dyn WarmAggregate) -> Box<dyn WarmAggregate>;

struct Stored {
    aggregate: Box<dyn WarmAggregate>,
    copy: Copy,
    names: Vec<&'static str>,
}

/// A log in memory: a refused unit leaves it as it was.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<(&'static str, String), Stored>>>);

fn copy<D: Decider>(aggregate: &dyn WarmAggregate) -> Box<dyn WarmAggregate> {
    Box::new(aggregate.as_any().downcast_ref::<Sourced<D>>().unwrap().clone())
}

impl EventLog for Memory {
    async fn warm<D: Decider>(&self, id: &StreamId) -> Result<(), LogError> {
        let fresh = || Stored { aggregate: Box::new(Sourced(D::default())), copy: copy::<D>, names: Vec::new() };
        self.0.lock().unwrap().entry((D::KIND, id.as_str().to_owned())).or_insert_with(fresh);
        Ok(())
    }

    async fn execute<T, E, F>(&self, plan: &Plan<Self>, _: Request, mut decide: F) -> Result<Done<T>, Failed<E>>
    where
        T: Send,
        E: Send,
        F: FnMut(&mut Unit<'_>) -> Result<T, E> + Send,
    {
        for stream in plan.streams() {
            (stream.warm)(self, &stream.id).await?;
        }
        let mut stored = self.0.lock().unwrap();
        let key = |place: usize| (plan.streams()[place].kind, plan.streams()[place].id.as_str().to_owned());
        let mut streams: Vec<_> = (0..plan.streams().len())
            .map(|place| {
                let known = &stored[&key(place)];
                UnitStream { aggregate: (known.copy)(known.aggregate.as_ref()), decided: Vec::new() }
            })
            .collect();
        let mut fault = None;
        let answer = decide(&mut Unit::new(&mut streams, &mut fault)).map_err(Failed::Refused)?;
        assert_eq!(fault, None);
        for (place, stream) in streams.into_iter().enumerate() {
            let known = stored.get_mut(&key(place)).unwrap();
            known.aggregate = stream.aggregate;
            known.names.extend(stream.decided.iter().map(|event| event.event_type));
        }
        Ok(Done { answer, positions: crate::log::Positions::default() })
    }
}

impl Memory {
    async fn opened() -> Self {
        let log = Self::default();
        log.ask(WalletCommand::OpenWallet { tenant_id: tenant(), opened_at: at(0) }).await;
        log
    }

    async fn ask(&self, command: WalletCommand) {
        let mut plan = Plan::default();
        let wallet = plan.stream::<Wallet>(StreamId::key(tenant()));
        let decide = |unit: &mut Unit<'_>| unit.decide(wallet, command.clone()).map(drop);
        self.execute(&plan, request(), decide).await.unwrap();
    }

    async fn fact(&self, fact: PaymentFact) -> Result<PaymentKnown, Fault<PaymentRefusal>> {
        record(self, tenant(), fact, at(NOW), request()).await.map(|done| done.answer)
    }

    /// Names of the events of a stream.
    fn names(&self, kind: &'static str, id: &StreamId) -> Vec<&'static str> {
        self.0.lock().unwrap().get(&(kind, id.as_str().to_owned())).map(|known| known.names.clone()).unwrap_or_default()
    }

    fn wallet(&self) -> Wallet {
        let stored = self.0.lock().unwrap();
        let known = &stored[&(Wallet::KIND, tenant().to_string())];
        known.aggregate.as_any().downcast_ref::<Sourced<Wallet>>().unwrap().0.clone()
    }

    fn dollars(&self) -> (i64, i64) {
        let wallet = self.wallet();
        (wallet.available(Asset::Usd).get(), wallet.debt(Asset::Usd).get())
    }
}

/// When everything is recorded, in seconds after the start.
const NOW: i64 = 100_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_760_000_000_000_000).plus_seconds(seconds)
}

fn tenant() -> TenantId {
    TenantId(Uuid::from_u128(7))
}

fn request() -> Request {
    Metadata::new(Actor::Webhook("stripe")).into()
}

fn bought(n: u128, units: i64, occurred: i64) -> PaymentReceived {
    PaymentReceived {
        payment_ref: format!("in_{n}"),
        kind: PaymentKind::Purchase,
        asset: Asset::Usd,
        units: Units::new(units),
        gross: MicroUsd::new(units),
        fee: MicroUsd::ZERO,
        grant_id: GrantId(Uuid::from_u128(n)),
        expires_at: None,
        via: PaymentVia::Stripe,
        occurred_at: at(occurred),
    }
}

fn received(n: u128, units: i64, occurred: i64) -> PaymentFact {
    PaymentEvent::PaymentReceived(bought(n, units, occurred))
}

fn refunded(amount: i64) -> PaymentFact {
    PaymentEvent::PaymentRefunded(PaymentRefunded {
        payment_ref: "in_1".to_owned(),
        refund_ref: "re_1".to_owned(),
        amount: MicroUsd::new(amount),
        units: Units::new(amount),
        via: PaymentVia::Stripe,
        occurred_at: at(2),
    })
}

fn spend(n: u64, amount: i64) -> WalletCommand {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&n.to_be_bytes());
    let id = Builder::from_unix_timestamp_millis(1_760_000_000_000 + n, &random).into_uuid();
    let usage = UsageRecorded {
        usage_id: UsageId(id),
        meter: Meter::Chat,
        api_key_id: None,
        provider: "ollama".to_owned(),
        model: "llama".to_owned(),
        prompt_tokens: 1,
        completion_tokens: 1,
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        reasoning_tokens: 0,
        provider_cost: MicroUsd::new(amount),
        markup: MicroUsd::ZERO,
        total: MicroUsd::new(amount),
        byok: false,
        estimated: false,
        price_book_version: "1".to_owned(),
        latency_ms: 1,
        task_type: "chat".to_owned(),
        outcome: UsageOutcome::Completed,
        failed_attempts: Vec::new(),
    };
    WalletCommand::Charge {
        usage,
        asset: Asset::Usd,
        amount: Units::new(amount),
        debt_limit: Units::ZERO,
        debt_cause: DebtCause::InboundWithoutCredit,
        at: at(NOW),
    }
}

#[tokio::test]
async fn a_payment_and_its_grant_are_one_and_a_second_delivery_does_nothing() {
    let log = Memory::opened().await;
    assert!(log.fact(received(1, 50, 1)).await.unwrap().recorded);
    let again = log.fact(received(1, 50, 1)).await.unwrap();
    assert!(!again.recorded);
    assert_eq!(again.payment.received(), Some(&bought(1, 50, 1)));
    assert_eq!(log.names("payment", &payment_stream(tenant(), "in_1")), ["payment_received"]);
    assert_eq!(log.names("wallet", &StreamId::key(tenant())), ["wallet_opened", "credits_granted"]);
    assert_eq!(log.dollars(), (50, 0));
}

#[tokio::test]
async fn a_refund_before_its_payment_claims_in_the_append_that_grants() {
    let log = Memory::opened().await;
    log.fact(refunded(20)).await.unwrap();
    assert_eq!(log.names("wallet", &StreamId::key(tenant())), ["wallet_opened"]);
    log.fact(received(1, 50, 1)).await.unwrap();
    let wallet = log.names("wallet", &StreamId::key(tenant()));
    assert_eq!(wallet, ["wallet_opened", "credits_granted", "grant_voided"]);
    assert_eq!(log.dollars(), (30, 0));
}

#[tokio::test]
async fn a_dispute_freezes_and_winning_it_restores_and_thaws() {
    let log = Memory::opened().await;
    log.fact(received(1, 50, 1)).await.unwrap();
    log.ask(spend(1, 30)).await;
    let (payment_ref, dispute_ref, amount) = ("in_1".to_owned(), "dp_1".to_owned(), MicroUsd::new(50));
    let opened = DisputeOpened {
        payment_ref: payment_ref.clone(),
        dispute_ref: dispute_ref.clone(),
        amount,
        fee: MicroUsd::new(15),
        units: Units::new(50),
        occurred_at: at(3),
    };
    log.fact(PaymentEvent::DisputeOpened(opened)).await.unwrap();
    assert_eq!((log.dollars(), log.wallet().is_frozen()), ((0, 30), true));
    let won = DisputeWon { payment_ref, dispute_ref, amount, occurred_at: at(4) };
    log.fact(PaymentEvent::DisputeWon(won)).await.unwrap();
    assert_eq!((log.dollars(), log.wallet().is_frozen()), ((20, 0), false));
}

#[tokio::test]
async fn what_the_wallet_refuses_is_not_recorded_either() {
    let log = Memory::default();
    let refusal = log.fact(received(1, 50, 1)).await.unwrap_err();
    assert!(matches!(refusal, Fault::Refused(PaymentRefusal::Wallet(WalletRefusal::NotOpen))), "{refusal}");
    assert!(log.names("payment", &payment_stream(tenant(), "in_1")).is_empty());
    // Once it is open the same fact is as new.
    log.ask(WalletCommand::OpenWallet { tenant_id: tenant(), opened_at: at(0) }).await;
    assert!(log.fact(received(1, 50, 1)).await.unwrap().recorded);
    let refusal = log.fact(refunded(51)).await.unwrap_err();
    assert!(matches!(refusal, Fault::Refused(PaymentRefusal::Fact(FactRefusal::MoreThanPaid { .. }))), "{refusal}");
    assert_eq!(log.dollars(), (50, 0));
}

#[tokio::test]
async fn a_payment_of_a_time_the_wallet_has_forgotten_counts_from_now_on() {
    let log = Memory::opened().await;
    for n in 1..=1_030 {
        log.fact(received(n, 1, 1_000)).await.unwrap();
        log.ask(spend(u64::try_from(n).unwrap(), 1)).await;
    }
    let known = log.fact(received(9_999, 50, 1)).await.unwrap();
    assert_eq!(known.payment.received().map(|received| received.occurred_at), Some(at(1)));
    let wallet = log.wallet();
    assert_eq!(wallet.grant(&GrantId(Uuid::from_u128(9_999))).map(|grant| grant.effective_at), Some(at(NOW)));
    assert_eq!(log.dollars(), (50, 0));

    // A term that was over before the payment became known begins and ends now.
    let over = GrantId(Uuid::from_u128(10_000));
    let subscribed = PaymentReceived { expires_at: Some(at(2)), ..bought(10_000, 70, 1) };
    assert!(log.fact(PaymentEvent::PaymentReceived(subscribed)).await.unwrap().recorded);
    assert_eq!(log.wallet().available_at(Asset::Usd, at(NOW + 1)), Units::new(50));
    log.ask(WalletCommand::ExpireGrant { grant_id: over, at: at(NOW + 1) }).await;
    assert_eq!(log.dollars(), (50, 0));
    assert_eq!(log.wallet().grant(&over).map(|grant| grant.expired), Some(Units::new(70)));
}

#[tokio::test]
async fn a_payout_is_recorded_once() {
    let log = Memory::default();
    let sent = PayoutSent { payout_ref: "po_1".to_owned(), amount: MicroUsd::new(48), occurred_at: at(1) };
    for new in [true, false] {
        assert_eq!(record_payout(&log, sent.clone(), at(NOW), request()).await.unwrap().answer, new);
    }
    assert_eq!(log.names("payout", &payout_stream("po_1")), ["payout_sent"]);
}

#[tokio::test]
async fn a_decision_of_many_hundred_events_is_decided_at_once() {
    let log = Memory::opened().await;
    for n in 1..=300 {
        let expiring = PaymentReceived { expires_at: Some(at(NOW + 1)), ..bought(n, 1, 1) };
        log.fact(PaymentEvent::PaymentReceived(expiring)).await.unwrap();
    }
    log.ask(WalletCommand::ExpireGrant { grant_id: GrantId(Uuid::from_u128(1)), at: at(NOW + 1) }).await;
    assert_eq!(log.dollars(), (0, 0));
    let expired = log.names("wallet", &StreamId::key(tenant())).into_iter().filter(|name| *name == "grant_expired");
    assert_eq!(expired.count(), 300);
}
