//! The accounts of the book, and what stands on them.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use calos_domain::book::Account;
use calos_domain::ledger_access::LedgerView;
use calos_domain::{Asset, TenantId};
use calos_projections::Projection;
use calos_projections::account_balances::{self, AccountBalance, AccountBalances, AccountCursor};
use calos_projections::as_of::{self, AccountAt, AsOf};
use calos_projections::journal::Journal;
use calos_projections::trial_balance::TrialBalance;
use calos_projections::wallet_days::WalletDays;

use super::{looks, span};
use crate::auth::FinanceReader;
use crate::error::ApiError;
use crate::openapi::ErrorBody;
use crate::paging;
use crate::position::After;
use crate::request::{Path, Query, RequestContext};
use crate::wiring::App;

/// The longest beginning of a name.
const PREFIX_MAX_BYTES: usize = 200;

/// Which accounts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountsQuery {
    /// Only this tenant's.
    tenant: Option<Uuid>,
    /// Only those whose name begins so, such as `Income:`. Not together with `tenant`.
    prefix: Option<String>,
    /// Lines on the page, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// What stands on an account now.
#[derive(Serialize, ToSchema)]
pub struct AccountLine {
    /// Its full name.
    account: String,
    /// `USD` or `CREDIT`.
    asset: &'static str,
    /// Debit minus credit: micro-dollars for `USD`, whole credits for `CREDIT`.
    balance: i64,
    /// How many entries moved it.
    entries: i64,
}

/// A page of accounts, by name.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountsPage {
    /// The accounts.
    accounts: Vec<AccountLine>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// The accounts, by name. Those of holds that have ended are not listed.
#[utoipa::path(get, path = "/api/finance/accounts", tag = "finance",
    params(AccountsQuery, ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = AccountsPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn list(
    State(app): State<App>,
    reader: FinanceReader,
    context: RequestContext,
    after: After,
    Query(query): Query<AccountsQuery>,
) -> Result<Json<AccountsPage>, ApiError> {
    let limit = paging::limit(query.limit)?;
    let cursor = query.cursor.as_deref().map(read_cursor).transpose()?;
    let prefixes = query.prefixes()?;
    let tenant = query.tenant.map(TenantId);
    looks::record(&app, &reader, &context, tenant, LedgerView::Journal).await?;
    after.wait(&app, AccountBalances::NAME).await?;
    let mut rows: Vec<AccountBalance> = Vec::new();
    let mut next = None;
    let mut left = prefixes.iter();
    while let Some(prefix) = left.next() {
        // Names come in their order, so what lies before the cursor answers nothing again.
        let page = account_balances::page(&app.pool, prefix, cursor.as_ref(), limit - rows.len()).await?;
        rows.extend(page.rows);
        next = page.next;
        if rows.len() >= limit {
            let more = left.len() > 0;
            next = next.or_else(|| rows.last().filter(|_| more).map(|row| (row.account.clone(), row.asset)));
            break;
        }
    }
    let accounts = rows.into_iter().map(|row| AccountLine {
        account: row.account,
        asset: row.asset.as_str(),
        balance: row.balance,
        entries: row.entries,
    });
    Ok(Json(AccountsPage { accounts: accounts.collect(), next_cursor: next.as_ref().map(write_cursor) }))
}

impl AccountsQuery {
    /// The beginnings of names that are asked for, in their order.
    fn prefixes(&self) -> Result<Vec<String>, ApiError> {
        match (self.tenant, &self.prefix) {
            (Some(_), Some(_)) => Err(ApiError::field("prefix", "cannot be sent together with tenant")),
            (Some(tenant), None) => {
                Ok(vec![Account::Debt(TenantId(tenant)).to_string(), format!("Liabilities:Wallet:{tenant}:")])
            }
            (None, Some(prefix)) if prefix.len() > PREFIX_MAX_BYTES || prefix.contains('\0') => {
                Err(ApiError::field("prefix", format!("must be at most {PREFIX_MAX_BYTES} bytes of text")))
            }
            (None, prefix) => Ok(vec![prefix.clone().unwrap_or_default()]),
        }
    }
}

fn write_cursor((account, asset): &AccountCursor) -> String {
    format!("{asset}:{account}")
}

fn read_cursor(text: &str) -> Result<AccountCursor, ApiError> {
    let (asset, account) = text.split_once(':').ok_or_else(paging::no_cursor)?;
    let asset = asset.parse().map_err(|_| paging::no_cursor())?;
    account.parse::<Account>().map_err(|_| paging::no_cursor())?;
    Ok((account.to_owned(), asset))
}

/// What of an account, and as of when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub struct AccountQuery {
    /// `USD` (the default) or `CREDIT`.
    asset: Option<String>,
    /// Only what takes effect up to and with this moment (RFC 3339) or day; everything when left out.
    as_of: Option<String>,
    /// Only what was recorded up to and with this moment or day; everything when left out.
    as_known_at: Option<String>,
}

/// What stood on an account. Micro-dollars for `USD`, whole credits for `CREDIT`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountAnswer {
    /// Its name.
    account: String,
    /// `USD` or `CREDIT`.
    asset: &'static str,
    /// Up to and with which effective moment, RFC 3339; null for everything.
    as_of: Option<String>,
    /// Up to and with which recorded moment, RFC 3339; null for everything.
    as_known_at: Option<String>,
    /// Debit minus credit.
    balance: i64,
}

/// What stands on one account, or stood there: a line of the trial balance (`Income:Usage:chat`,
/// `Liabilities:Wallet:Available`), a tenant's sum (`Liabilities:Wallet:{tenant}:Available`, `…:Held`,
/// `Assets:Debt:{tenant}`), or one account of a grant or hold, as it is now.
#[utoipa::path(get, path = "/api/finance/accounts/{name}", tag = "finance",
    params(("name" = String, Path, description = "the account's name"), AccountQuery,
        ("calos-after" = Option<String>, Header, description = "positions this read must have seen")),
    responses((status = 200, body = AccountAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("session" = []), ("sessionCookie" = [])))]
pub async fn one(
    State(app): State<App>,
    reader: FinanceReader,
    context: RequestContext,
    Path(name): Path<String>,
    after: After,
    Query(query): Query<AccountQuery>,
) -> Result<Json<AccountAnswer>, ApiError> {
    let asset = match query.asset.as_deref() {
        None => Asset::Usd,
        Some(name) => name.parse().map_err(|_| ApiError::field("asset", "must be USD or CREDIT"))?,
    };
    let at = span::as_of(query.as_of.as_deref(), query.as_known_at.as_deref())?;
    let account = known(&name)?;
    if let Some(tenant) = account.tenant() {
        looks::record(&app, &reader, &context, Some(tenant), LedgerView::Journal).await?;
    }
    after.wait(&app, TrialBalance::NAME).await?;
    after.wait(&app, Journal::NAME).await?;
    after.wait(&app, WalletDays::NAME).await?;
    after.wait(&app, AccountBalances::NAME).await?;
    let balance = match &account {
        Known::Sum(sum) => as_of::account(&app.pool, sum, asset, at).await?,
        Known::Single(_) if at != AsOf::default() => {
            let problem = "one grant's or hold's account is known as it is now; leave out asOf and asKnownAt";
            return Err(ApiError::field("asOf", problem));
        }
        Known::Single(account) => {
            let found = account_balances::find(&app.pool, account, asset).await?;
            found.ok_or_else(|| ApiError::not_found("account"))?.balance
        }
    };
    Ok(Json(AccountAnswer {
        account: name,
        asset: asset.as_str(),
        as_of: span::shown(at.effective)?,
        as_known_at: span::shown(at.recorded)?,
        balance,
    }))
}

enum Known {
    /// A line of the trial balance, or the sum of a tenant's accounts of one class.
    Sum(AccountAt),
    /// One account of a tenant.
    Single(Account),
}

impl Known {
    fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Sum(AccountAt::Class(_)) => None,
            Self::Sum(AccountAt::Available(tenant) | AccountAt::Held(tenant) | AccountAt::Debt(tenant)) => {
                Some(*tenant)
            }
            Self::Single(account) => account.tenant(),
        }
    }
}

/// What is no account's name is not there.
fn known(name: &str) -> Result<Known, ApiError> {
    match name.parse() {
        Ok(sum) => Ok(Known::Sum(sum)),
        Err(_) => name.parse().map(Known::Single).map_err(|_| ApiError::not_found("account")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_an_account_and_its_asset() {
        let tenant = Uuid::from_u128(7);
        let place = (format!("Assets:Debt:{tenant}"), Asset::Credit);
        assert_eq!(read_cursor(&write_cursor(&place)).unwrap(), place);
        for text in ["", "USD", "USD:", "USD:nonsense", "EUR:Assets:Bank", "Assets:Bank"] {
            assert!(read_cursor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_account_is_known_by_its_name_and_whose_it_is_too() {
        let (tenant, grant) = (TenantId(Uuid::from_u128(7)), Uuid::from_u128(8));
        for (name, whose) in [
            ("Income:Usage:chat".to_owned(), None),
            ("Liabilities:Wallet:Available".to_owned(), None),
            (format!("Liabilities:Wallet:{tenant}:Available"), Some(tenant)),
            (format!("Liabilities:Wallet:{tenant}:Available:{grant}"), Some(tenant)),
            (format!("Liabilities:Wallet:{tenant}:Held:{grant}"), Some(tenant)),
            (format!("Assets:Debt:{tenant}"), Some(tenant)),
        ] {
            assert_eq!(known(&name).ok().unwrap().tenant(), whose, "{name}");
        }
        for name in ["", "Assets", "Income:Usage:dancing", "Assets:Debt:7"] {
            assert_eq!(known(name).err().unwrap().status().as_u16(), 404, "{name}");
        }
    }

    #[test]
    fn a_tenants_accounts_are_asked_for_in_the_order_of_their_names() {
        let query = |tenant, prefix: Option<&str>| AccountsQuery {
            tenant,
            prefix: prefix.map(str::to_owned),
            limit: None,
            cursor: None,
        };
        let prefixes = query(Some(Uuid::nil()), None).prefixes().unwrap();
        assert!(prefixes.is_sorted() && prefixes.len() == 2, "{prefixes:?}");
        assert_eq!(query(None, None).prefixes().unwrap(), [""]);
        assert!(query(Some(Uuid::nil()), Some("A")).prefixes().is_err());
        assert!(query(None, Some(&"x".repeat(201))).prefixes().is_err());
    }
}
