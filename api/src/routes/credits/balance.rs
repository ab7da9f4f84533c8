//! What a tenant can spend: now, or as of another date.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use calos_domain::tiers::Tier;
use calos_domain::{Asset, MicroUsd, TenantId};
use calos_projections::Projection;
use calos_projections::as_of::{self, AsOf};
use calos_projections::wallet_balance::{self, WalletBalance};

use crate::auth::TenantCaller;
use crate::calendar;
use crate::error::ApiError;
use crate::moment::shown;
use crate::openapi::ErrorBody;
use crate::position::After;
use crate::request::Query;
use crate::wiring::App;

/// As of when; now when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub struct BalanceQuery {
    /// Only what took effect up to and with this moment (RFC 3339) or day.
    as_of: Option<String>,
    /// Only what was recorded up to and with this moment or day.
    as_known_at: Option<String>,
}

impl BalanceQuery {
    /// The dates asked for; none for now.
    ///
    /// # Errors
    /// 400 `invalid_field`.
    pub fn checked(&self) -> Result<Option<AsOf>, ApiError> {
        let at = calendar::as_of(self.as_of.as_deref(), self.as_known_at.as_deref())?;
        Ok(Some(at).filter(|at| *at != AsOf::default()))
    }
}

/// The answer of `/api/credits/balance`.
#[derive(Serialize, ToSchema)]
pub struct Balance {
    /// Whose wallet.
    #[serde(rename = "tenantId")]
    tenant_id: Uuid,
    /// Available USD in cents, rounded down.
    balance_cents: i64,
    /// Available USD in micro-dollars.
    balance_micros: i64,
    /// USD reserved by open holds, in micro-dollars.
    held_micros: i64,
    /// Available phone credits.
    credits_remaining: i64,
    /// Phone credits reserved by open holds.
    credits_held: i64,
    /// `free`, `starter`, `pro` or `enterprise`: now, whatever date is asked for.
    subscription_tier: &'static str,
    /// The rest, where a date was asked for.
    #[serde(flatten)]
    dated: Option<Dated>,
}

/// What a balance as of a date says beside the figures.
#[derive(Serialize, ToSchema)]
pub struct Dated {
    /// Up to and with which effective moment, RFC 3339; null for everything.
    #[serde(rename = "asOf")]
    as_of: Option<String>,
    /// Up to and with which recorded moment, RFC 3339; null for everything.
    #[serde(rename = "asKnownAt")]
    as_known_at: Option<String>,
    /// USD owed, in micro-dollars.
    debt_micros: i64,
    /// Phone credits owed.
    credits_owed: i64,
}

/// What the tenant can spend now, or could at another date.
#[utoipa::path(get, path = "/api/credits/balance", tag = "credits",
    params(BalanceQuery,
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen, such as 3:17")),
    responses((status = 200, body = Balance), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 503, body = ErrorBody)),
    security(("session" = []), ("tenantKey" = [])))]
pub async fn balance(
    State(app): State<App>,
    caller: TenantCaller,
    after: After,
    Query(query): Query<BalanceQuery>,
) -> Result<Json<Balance>, ApiError> {
    let at = query.checked()?;
    of(&app, caller.tenant_id(), at, &after).await.map(Json)
}

/// The balance of any tenant, for whoever may see it.
///
/// # Errors
/// 503 while the read models are behind; the database's.
pub async fn of(app: &App, tenant: TenantId, at: Option<AsOf>, after: &After) -> Result<Balance, ApiError> {
    let subscription_tier = app.tier_of(tenant).await?.map_or("none", Tier::as_str);
    let Some(at) = at else {
        after.wait(app, WalletBalance::NAME).await?;
        let usd = wallet_balance::figures(&app.pool, tenant, Asset::Usd).await?;
        let credit = wallet_balance::figures(&app.pool, tenant, Asset::Credit).await?;
        return Ok(Balance {
            tenant_id: tenant.0,
            balance_cents: MicroUsd::new(usd.available).cents_down(),
            balance_micros: usd.available,
            held_micros: usd.held,
            credits_remaining: credit.available,
            credits_held: credit.held,
            subscription_tier,
            dated: None,
        });
    };
    for model in as_of::SPENDABLE_MODELS {
        after.wait(app, model).await?;
    }
    let wallet = as_of::spendable(&app.pool, tenant, at).await?;
    let figures = |asset: Asset| {
        let at = wallet.iter().find(|wallet| wallet.asset == asset);
        at.map_or((0, 0, 0), |at| (at.available, at.held, at.debt))
    };
    let ((available, held_micros, debt_micros), (credits_remaining, credits_held, credits_owed)) =
        (figures(Asset::Usd), figures(Asset::Credit));
    let (as_of, as_known_at) = (shown(at.effective)?, shown(at.recorded)?);
    Ok(Balance {
        tenant_id: tenant.0,
        balance_cents: MicroUsd::new(available).cents_down(),
        balance_micros: available,
        held_micros,
        credits_remaining,
        credits_held,
        subscription_tier,
        dated: Some(Dated { as_of, as_known_at, debt_micros, credits_owed }),
    })
}
