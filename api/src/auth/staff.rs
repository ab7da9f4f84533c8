//! Members of the staff: whom everybody's ledger may be shown to, and who may change something there.
//!
//! Roles are asked of the account itself at every request, so that one that was taken away opens nothing from then on.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use calos_commands::accounts::account_of;
use calos_commands::metadata::Actor;
use calos_domain::UserId;
use calos_domain::account::StaffRole;

use super::SessionCaller;
use crate::error::{ApiError, Code};
use crate::wiring::App;

/// Somebody with the role `finance` or `operator`, in a session.
#[derive(Clone, Copy, Debug)]
pub struct FinanceReader(SessionCaller);

/// Somebody with the role `operator`, in a session.
#[derive(Clone, Copy, Debug)]
pub struct FinanceOperator(SessionCaller);

impl FinanceReader {
    /// Who.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.0.user_id()
    }

    /// Who, for the log.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.0.actor()
    }
}

impl FinanceOperator {
    /// Who.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.0.user_id()
    }

    /// Who, for the log.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.0.actor()
    }
}

impl FromRequestParts<App> for FinanceReader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        staff(parts, app, &[StaffRole::Finance, StaffRole::Operator]).await.map(Self)
    }
}

impl FromRequestParts<App> for FinanceOperator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        staff(parts, app, &[StaffRole::Operator]).await.map(Self)
    }
}

/// A session whose account has one of the roles; the first of them is the one a refusal names.
async fn staff(parts: &mut Parts, app: &App, allowed: &[StaffRole]) -> Result<SessionCaller, ApiError> {
    let caller = SessionCaller::from_request_parts(parts, app).await?;
    let account = account_of(&app.log, caller.user_id()).await?;
    if allowed.iter().any(|role| account.staff_roles.contains(role)) {
        return Ok(caller);
    }
    Err(refused(allowed))
}

fn refused(allowed: &[StaffRole]) -> ApiError {
    let names: Vec<&str> = allowed.iter().copied().map(role_name).collect();
    let first = names.first().copied().unwrap_or_default();
    let message = format!(
        "this needs the role {}; somebody at the console gives it with calos admin grant <email> {first}",
        names.join(" or ")
    );
    ApiError::new(Code::Forbidden, message).with_fact("needs_role", first)
}

const fn role_name(role: StaffRole) -> &'static str {
    match role {
        StaffRole::Operator => "operator",
        StaffRole::Finance => "finance",
        StaffRole::Moderator => "moderator",
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Dialect;

    use super::*;

    #[test]
    fn a_refusal_names_the_role_that_is_needed() {
        let reading = refused(&[StaffRole::Finance, StaffRole::Operator]);
        assert!(reading.message().starts_with("this needs the role finance or operator;"), "{}", reading.message());
        assert_eq!(reading.body(Dialect::Calos)["needs_role"], "finance");
        let writing = refused(&[StaffRole::Operator]);
        assert!(writing.message().starts_with("this needs the role operator;"), "{}", writing.message());
        assert_eq!((writing.code(), writing.status().as_u16()), (Code::Forbidden, 403));
    }
}
