//! Opening, granting, freezing.

use super::*;
use crate::money::OutOfRange;

#[test]
fn nothing_happens_in_a_wallet_that_is_not_open() {
    let wallet = Wallet::default();
    let commands = [
        grant(1, 10),
        hold(1, 1),
        settle(1, 1),
        release(1, ReleaseCause::Voided, 1),
        charge(1, 1),
        reverse(1, 1),
        expire(1, 1),
        void(1, 1, "refund:1"),
        restore(1, "refund:1"),
        take(1, 1),
        WalletCommand::Freeze { cause: FreezeCause::Fraud, source_ref: None },
        WalletCommand::Thaw { cause: FreezeCause::Fraud, source_ref: None },
    ];
    for command in commands {
        assert_eq!(wallet.decide(command), Err(WalletRefusal::NotOpen));
    }
}

#[test]
fn a_wallet_opens_once_and_for_one_tenant() {
    let mut wallet = Wallet::default();
    let opened = WalletEvent::WalletOpened(WalletOpened { tenant_id: tenant(), opened_at: at(0) });
    assert_eq!(wallet.decide(open()), Ok(vec![opened.clone()]));
    wallet.evolve(&opened);
    assert!(wallet.is_open());
    assert_eq!(wallet.decide(open()), Ok(Vec::new()));
    let other = TenantId(Uuid::from_u128(1));
    let refused = wallet.decide(WalletCommand::OpenWallet { tenant_id: other, opened_at: at(0) });
    assert_eq!(refused, Err(WalletRefusal::BelongsTo(tenant())));
}

#[test]
fn a_grant_adds_to_what_is_available() {
    let mut wallet = given([grant(1, 100)]);
    let events = wallet.when(Grant { cost: 0, ..Grant::usd(2, 50) }.expiring(1_000).command()).unwrap();
    assert_eq!(
        events,
        [WalletEvent::CreditsGranted(CreditsGranted {
            grant_id: grant_id(2),
            asset: Asset::Usd,
            kind: GrantKind::Purchase,
            amount: units(50),
            priority: 0,
            effective_at: at(0),
            expires_at: Some(at(1_000)),
            cost_basis: MicroUsd::ZERO,
            source_ref: "invoice:2".to_owned(),
            reason: None,
            available_after: units(150),
        })]
    );
    assert_eq!(wallet.usd(), (150, 0, 0));
}

#[test]
fn the_assets_never_mix() {
    let mut wallet = given([Grant { asset: Asset::Credit, ..Grant::usd(1, 100) }.command()]);
    assert_eq!(wallet.usd(), (0, 0, 0));
    assert_eq!(wallet.wallet.available(Asset::Credit), units(100));
    let refusal = wallet.then_refused(hold(1, 1));
    assert!(matches!(refusal, WalletRefusal::InsufficientCredit { asset: Asset::Usd, .. }));
}

#[test]
fn the_same_grant_id_with_other_content_is_refused() {
    let mut wallet = given([grant(1, 100)]);
    let same = Grant::usd(1, 100);
    let others = [
        Grant { amount: 101, ..same },
        Grant { asset: Asset::Credit, ..same },
        Grant { kind: GrantKind::Goodwill, ..same },
        Grant { priority: 1, ..same },
        Grant { effective: 1, ..same },
        Grant { expires: Some(10), ..same },
        Grant { cost: 99, ..same },
    ];
    for other in others {
        assert_eq!(wallet.then_refused(other.command()), WalletRefusal::IdReused { id: grant_id(1).0 });
    }
    // Only the moment of asking is no content.
    assert_eq!(wallet.when(Grant { now: 50, ..same }.command()), Ok(Vec::new()));
}

#[test]
fn a_spent_grant_is_still_known() {
    let mut wallet = given([grant(1, 100), charge(1, 100)]);
    assert!(wallet.wallet.grants(Asset::Usd).is_empty());
    assert_eq!(wallet.when(grant(1, 100)), Ok(Vec::new()));
    assert_eq!(wallet.then_refused(grant(1, 101)), WalletRefusal::IdReused { id: grant_id(1).0 });
}

#[test]
fn a_grant_of_nothing_or_less_is_refused() {
    let mut wallet = given([]);
    for amount in [0, -1, i64::MIN] {
        let refusal = wallet.then_refused(Grant { cost: 0, ..Grant::usd(1, amount) }.command());
        assert_eq!(refusal, WalletRefusal::AmountTooSmall { amount: units(amount), least: 1 });
    }
    let refusal = wallet.then_refused(Grant { cost: -1, ..Grant::usd(1, 1) }.command());
    assert_eq!(refusal, WalletRefusal::AmountTooSmall { amount: units(-1), least: 0 });
}

#[test]
fn a_grant_of_a_time_to_come_or_of_no_time_at_all_is_refused() {
    let mut wallet = given([]);
    let impossible = [
        Grant { effective: CLOCK_SKEW_MAX_SECONDS + 1, ..Grant::usd(1, 1) },
        Grant { effective: 10, expires: Some(10), ..Grant::usd(1, 1) },
    ];
    for terms in impossible {
        assert!(matches!(wallet.then_refused(terms.command()), WalletRefusal::ImpossibleTerm { .. }));
    }
    assert!(wallet.when(Grant { effective: CLOCK_SKEW_MAX_SECONDS, ..Grant::usd(1, 1) }.command()).is_ok());
}

#[test]
fn a_grant_that_comes_after_its_own_end_expires_at_once() {
    let mut wallet = given([]);
    let events = wallet.when(Grant { now: 20, ..Grant::usd(1, 7) }.expiring(10).command()).unwrap();
    assert_eq!(names(&events), ["credits_granted", "grant_expired"]);
    assert_eq!(wallet.usd(), (0, 0, 0));
}

#[test]
fn sums_beyond_all_money_are_refused() {
    let mut wallet = given([grant(1, i64::MAX)]);
    assert_eq!(wallet.then_refused(grant(2, 1)), WalletRefusal::OutOfRange(OutOfRange));
    // Not even after the first was spent: everything ever granted must fit a running sum.
    let mut wallet = given([grant(1, i64::MAX), charge(1, i64::MAX)]);
    assert_eq!(wallet.then_refused(grant(2, 1)), WalletRefusal::OutOfRange(OutOfRange));
}

#[test]
fn a_reference_too_long_to_keep_is_refused() {
    let mut wallet = given([]);
    let WalletCommand::GrantCredits {
        grant_id,
        asset,
        kind,
        amount,
        priority,
        effective_at,
        expires_at,
        cost_basis,
        at,
        ..
    } = grant(1, 1)
    else {
        unreachable!()
    };
    let source_ref = "x".repeat(WALLET_TEXT_MAX_BYTES + 1);
    let command = WalletCommand::GrantCredits {
        grant_id,
        asset,
        kind,
        amount,
        priority,
        effective_at,
        expires_at,
        cost_basis,
        source_ref,
        reason: None,
        at,
    };
    let refusal = wallet.then_refused(command);
    assert_eq!(refusal, WalletRefusal::TextTooLong { bytes: 501, limit: 500 });
}

#[test]
fn a_frozen_wallet_spends_nothing_new() {
    let mut wallet = given([grant(1, 100), hold(1, 10), hold(2, 10)]);
    let events = wallet.when(WalletCommand::Freeze { cause: FreezeCause::Dispute, source_ref: None }).unwrap();
    assert_eq!(events, [WalletEvent::WalletFrozen(WalletFrozen { cause: FreezeCause::Dispute, source_ref: None })]);
    assert!(wallet.wallet.is_frozen());
    assert_eq!(wallet.then_refused(hold(3, 0)), WalletRefusal::Frozen);
    assert_eq!(wallet.then_refused(charge(4, 1)), WalletRefusal::Frozen);
    // What was promised before still ends, and credit still comes in.
    assert!(wallet.when(settle(1, 5)).is_ok());
    assert!(wallet.when(release(2, ReleaseCause::ClientGone, 3)).is_ok());
    assert!(wallet.when(grant(2, 1)).is_ok());
}

#[test]
fn a_wallet_thaws_when_the_last_cause_is_gone() {
    let (dispute, fraud) = (FreezeCause::Dispute, FreezeCause::Fraud);
    let mut wallet = given([
        grant(1, 100),
        WalletCommand::Freeze { cause: dispute, source_ref: None },
        WalletCommand::Freeze { cause: fraud, source_ref: None },
    ]);
    let events = wallet.when(WalletCommand::Thaw { cause: dispute, source_ref: None }).unwrap();
    assert_eq!(events, [WalletEvent::WalletThawed(WalletThawed { cause: dispute, source_ref: None })]);
    assert_eq!(wallet.then_refused(hold(1, 1)), WalletRefusal::Frozen);
    assert_eq!(wallet.wallet.freeze_causes(), [fraud]);
    wallet.when(WalletCommand::Thaw { cause: fraud, source_ref: None }).unwrap();
    assert!(wallet.when(hold(1, 1)).is_ok());
    assert_eq!(wallet.when(WalletCommand::Thaw { cause: FreezeCause::Operator, source_ref: None }), Ok(Vec::new()));
}

#[test]
fn disputes_freeze_beside_each_other_and_the_last_to_end_thaws() {
    let cause = FreezeCause::Dispute;
    let freeze = |name: &str| WalletCommand::Freeze { cause, source_ref: Some(name.to_owned()) };
    let thaw = |name: &str| WalletCommand::Thaw { cause, source_ref: Some(name.to_owned()) };
    let mut wallet = given([grant(1, 100), freeze("dispute:dp_1"), freeze("dispute:dp_2")]);
    assert_eq!(wallet.wallet.freeze_causes(), [cause]);
    wallet.when(thaw("dispute:dp_1")).unwrap();
    assert_eq!(wallet.when(thaw("dispute:dp_3")), Ok(Vec::new()));
    assert_eq!(wallet.then_refused(hold(1, 1)), WalletRefusal::Frozen);
    wallet.when(thaw("dispute:dp_2")).unwrap();
    assert!(wallet.when(hold(1, 1)).is_ok());
    // By hand the cause goes with all that stands behind it, and what is not told apart can only go that way.
    for n in 0..=1_024 {
        wallet.when(freeze(&format!("dispute:dp_{n}"))).unwrap();
    }
    assert_eq!(wallet.when(freeze("dispute:dp_2000")), Ok(Vec::new()));
    for n in 0..=1_024 {
        wallet.when(thaw(&format!("dispute:dp_{n}"))).unwrap();
    }
    assert!(wallet.wallet.is_frozen());
    let events = wallet.when(WalletCommand::Thaw { cause, source_ref: None }).unwrap();
    assert_eq!(events, [WalletEvent::WalletThawed(WalletThawed { cause, source_ref: None })]);
    assert!(!wallet.wallet.is_frozen());
}
