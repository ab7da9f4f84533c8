//! What every new tenant gets: a free licence and an open wallet; and what every new person gets once: the free start.

use calos_domain::licence::{Licence, LicenceCommand, LicenceRefusal};
use calos_domain::tiers::Tier;
use calos_domain::wallet::{GrantKind, Wallet, WalletCommand, WalletRefusal};
use calos_domain::{Asset, GrantId, MicroUsd, StreamId, TenantId, Timestamp, Units, UserId};

use crate::log::{EventLog, Handle, Plan, Unit};
use crate::ports::Randomness;

/// The free start in dollars: $10.00.
pub const TRIAL_MICRO_USD: i64 = 10_000_000;

/// What being brought by somebody adds: $1.00.
pub const REFERRAL_MICRO_USD: i64 = 1_000_000;

/// How long one period of a licence lasts: thirty days.
pub const PERIOD_SECONDS: i64 = 30 * 24 * 60 * 60;

/// Credit that was given burns before credit that was bought.
pub const GIVEN_PRIORITY: i16 = 10;

/// Why a tenant's licence or wallet did not open. With ids drawn at random it never happens.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpeningRefusal {
    /// The licence's own rules.
    #[error(transparent)]
    Licence(#[from] LicenceRefusal),
    /// The wallet's own rules.
    #[error(transparent)]
    Wallet(#[from] WalletRefusal),
}

/// The streams a new tenant needs beside its own.
#[derive(Clone, Copy)]
pub(crate) struct OpeningStreams {
    licence: Handle<Licence>,
    wallet: Handle<Wallet>,
}

impl OpeningStreams {
    pub(crate) fn plan<L: EventLog>(plan: &mut Plan<L>, tenant_id: TenantId) -> Self {
        let id = StreamId::key(tenant_id);
        Self { licence: plan.stream(id.clone()), wallet: plan.stream(id) }
    }

    /// A free licence and an empty wallet.
    pub(crate) fn open(self, unit: &mut Unit<'_>, tenant_id: TenantId, at: Timestamp) -> Result<(), OpeningRefusal> {
        let terms = Tier::Free.terms();
        let issue = LicenceCommand::Issue {
            tenant_id,
            tier: Tier::Free,
            markup_percent: terms.markup_percent,
            token_limit: terms.token_limit,
            period_start: at,
            period_end: at.plus_seconds(PERIOD_SECONDS),
        };
        unit.decide(self.licence, issue)?;
        unit.decide(self.wallet, WalletCommand::OpenWallet { tenant_id, opened_at: at })?;
        Ok(())
    }

    /// The free start.
    pub(crate) fn grant(self, unit: &mut Unit<'_>, start: &FreeStart, at: Timestamp) -> Result<(), OpeningRefusal> {
        for given in &start.grants {
            let grant = WalletCommand::GrantCredits {
                grant_id: given.grant_id,
                asset: given.asset,
                kind: given.kind,
                amount: given.amount,
                priority: GIVEN_PRIORITY,
                effective_at: at,
                expires_at: None,
                cost_basis: MicroUsd::ZERO,
                source_ref: start.source_ref.clone(),
                reason: None,
                at,
            };
            unit.decide(self.wallet, grant)?;
        }
        Ok(())
    }
}

/// What a new person is given, with the grants' ids drawn.
#[derive(Clone, Debug)]
pub(crate) struct FreeStart {
    grants: Vec<Given>,
    source_ref: String,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    grant_id: GrantId,
    asset: Asset,
    kind: GrantKind,
    amount: Units,
}

impl FreeStart {
    /// $10.00 and the free tier's phone credits; $1.00 more for somebody who was brought.
    pub(crate) fn draw(randomness: &dyn Randomness, user_id: UserId, referred: bool) -> Self {
        let given = |asset, kind, amount| Given {
            grant_id: GrantId(randomness.ordered_id()),
            asset,
            kind,
            amount: Units::new(amount),
        };
        let mut grants = vec![
            given(Asset::Usd, GrantKind::Trial, TRIAL_MICRO_USD),
            given(Asset::Credit, GrantKind::Trial, Tier::Free.terms().credits_included),
        ];
        if referred {
            grants.push(given(Asset::Usd, GrantKind::Referral, REFERRAL_MICRO_USD));
        }
        Self { grants, source_ref: format!("registration:{user_id}") }
    }
}
