//! The table from refusals to answers: which rule's refusal is which [`Code`]. The sentence is the refusal's own.

use std::fmt;

use calos_commands::api_keys::KeyRefusal;
use calos_commands::fault::{Fault, Never};
use calos_commands::login::LoginRefusal;
use calos_commands::opening::OpeningRefusal;
use calos_commands::ports::{HashError, NoToken, SealError, WeakPassword};
use calos_commands::register::RegisterRefusal;
use calos_commands::tenants::CreateTenantRefusal;
use calos_domain::account::AccountRefusal;
use calos_domain::api_key::ApiKeyRefusal;
use calos_domain::device::DeviceRefusal;
use calos_domain::email_claim::{EmailClaimRefusal, NoEmailAddress};
use calos_domain::licence::LicenceRefusal;
use calos_domain::session::SessionRefusal;
use calos_domain::tenant::TenantRefusal;

use crate::error::{ApiError, Code};

impl<E> From<Fault<E>> for ApiError
where
    ApiError: From<E>,
{
    fn from(fault: Fault<E>) -> Self {
        match fault {
            Fault::Refused(refusal) => refusal.into(),
            Fault::Log(error) => error.into(),
            Fault::Seal(error) => error.into(),
            Fault::Hash(error) => error.into(),
            Fault::Token(error) => error.into(),
        }
    }
}

impl From<Never> for ApiError {
    fn from(never: Never) -> Self {
        match never {}
    }
}

impl From<SealError> for ApiError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Unavailable(_) => {
                ApiError::new(Code::DatabaseUnavailable, "the key store cannot be reached; try again in a moment")
                    .because(error)
            }
            // One's own data is all that is opened for anybody, so whoever asks has just been erased.
            SealError::Erased(_) => said(Code::SessionEnded, &AccountRefusal::Erased).because(error),
            SealError::Missing(_) | SealError::Tampered { .. } | SealError::AnotherMasterKey(_) => {
                ApiError::internal(error)
            }
        }
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => said(Code::Overloaded, &error),
            HashError::Failed(_) => ApiError::internal(error),
        }
    }
}

impl From<NoToken> for ApiError {
    /// A token that could not be signed; one that a caller presents is answered by whoever looks at it.
    fn from(error: NoToken) -> Self {
        ApiError::internal(error)
    }
}

/// The refusal in its own words.
fn said(code: Code, refusal: &impl fmt::Display) -> ApiError {
    ApiError::new(code, refusal.to_string())
}

/// A refusal that only a fault of ours can lead to: an id drawn twice, a period turned around.
fn impossible(refusal: &impl fmt::Display) -> ApiError {
    ApiError::internal(refusal)
}

impl From<NoEmailAddress> for ApiError {
    fn from(refusal: NoEmailAddress) -> Self {
        said(Code::InvalidEmail, &refusal).with_param("email")
    }
}

impl From<WeakPassword> for ApiError {
    fn from(refusal: WeakPassword) -> Self {
        said(Code::WeakPassword, &refusal).with_param("password")
    }
}

impl From<EmailClaimRefusal> for ApiError {
    fn from(refusal: EmailClaimRefusal) -> Self {
        match refusal {
            EmailClaimRefusal::Taken => said(Code::EmailTaken, &refusal).with_param("email"),
            EmailClaimRefusal::NotTheHolder => said(Code::Conflict, &refusal),
        }
    }
}

impl From<AccountRefusal> for ApiError {
    fn from(refusal: AccountRefusal) -> Self {
        match refusal {
            AccountRefusal::AlreadyRegistered => said(Code::Conflict, &refusal),
            AccountRefusal::TooManyTenants { .. } => said(Code::TooManyTenants, &refusal),
            AccountRefusal::NotRegistered | AccountRefusal::Erased => said(Code::NotFound, &refusal),
        }
    }
}

impl From<SessionRefusal> for ApiError {
    fn from(refusal: SessionRefusal) -> Self {
        match refusal {
            SessionRefusal::NotStarted => said(Code::NotFound, &refusal),
            SessionRefusal::Ended { .. } | SessionRefusal::Expired { .. } => said(Code::SessionEnded, &refusal),
            SessionRefusal::AlreadyStarted | SessionRefusal::EndsBeforeStart { .. } => impossible(&refusal),
        }
    }
}

impl From<DeviceRefusal> for ApiError {
    fn from(refusal: DeviceRefusal) -> Self {
        match refusal {
            DeviceRefusal::AnotherDevice | DeviceRefusal::AlreadyTrusted { .. } => said(Code::Conflict, &refusal),
        }
    }
}

impl From<TenantRefusal> for ApiError {
    fn from(refusal: TenantRefusal) -> Self {
        match &refusal {
            TenantRefusal::AlreadyCreated
            | TenantRefusal::LastOwner
            | TenantRefusal::TooManyMembers
            | TenantRefusal::TooManyApiKeys => said(Code::Conflict, &refusal),
            // Whether a tenant exists is nobody's business but its members'.
            TenantRefusal::NotCreated | TenantRefusal::NotAMember => ApiError::not_found("tenant"),
            TenantRefusal::NameLength { .. } | TenantRefusal::PersonalKeepsName => {
                said(Code::InvalidField, &refusal).with_param("name")
            }
            TenantRefusal::TakesNoKey { .. } => said(Code::InvalidField, &refusal).with_param("provider"),
            TenantRefusal::NoProviderKey { .. } => said(Code::NotFound, &refusal),
            TenantRefusal::RoleTooLow { .. } => said(Code::Forbidden, &refusal),
        }
    }
}

impl From<ApiKeyRefusal> for ApiError {
    fn from(refusal: ApiKeyRefusal) -> Self {
        match &refusal {
            ApiKeyRefusal::AlreadyIssued => impossible(&refusal),
            ApiKeyRefusal::NotIssued => ApiError::not_found("API key"),
            ApiKeyRefusal::NameLength { .. } => said(Code::InvalidField, &refusal).with_param("name"),
            ApiKeyRefusal::Restrictions { list } => said(Code::InvalidField, &refusal).with_param(*list),
            ApiKeyRefusal::RestrictionsTooLarge { bytes } => {
                said(Code::InvalidField, &refusal).with_fact("bytes", *bytes)
            }
            ApiKeyRefusal::NotANetwork { .. } => said(Code::InvalidField, &refusal).with_param("ipAllowlist"),
            ApiKeyRefusal::Limits { .. } => said(Code::InvalidField, &refusal).with_param("limits"),
            ApiKeyRefusal::ExpiresInThePast | ApiKeyRefusal::Replaced { .. } => {
                said(Code::InvalidField, &refusal).with_param("expiresAt")
            }
            ApiKeyRefusal::Budget { .. } => said(Code::InvalidField, &refusal).with_param("budgets"),
            ApiKeyRefusal::Overlap => said(Code::InvalidField, &refusal).with_param("overlapSeconds"),
            ApiKeyRefusal::Ended(_) | ApiKeyRefusal::AlreadyRotated(_) => said(Code::Conflict, &refusal),
        }
    }
}

impl From<LicenceRefusal> for ApiError {
    fn from(refusal: LicenceRefusal) -> Self {
        match &refusal {
            LicenceRefusal::NotIssued => ApiError::not_found("tenant"),
            LicenceRefusal::AlreadyIssued => said(Code::Conflict, &refusal),
            LicenceRefusal::NotActive { .. } => said(Code::LicenceInactive, &refusal),
            LicenceRefusal::TokensUsedUp { used, limit, .. } => {
                said(Code::TokenLimitReached, &refusal).with_fact("used", *used).with_fact("limit", *limit)
            }
            LicenceRefusal::ImpossiblePeriod { .. }
            | LicenceRefusal::UsageReused { .. }
            | LicenceRefusal::OutOfRange { .. } => impossible(&refusal),
        }
    }
}

impl From<OpeningRefusal> for ApiError {
    fn from(refusal: OpeningRefusal) -> Self {
        impossible(&refusal)
    }
}

impl From<RegisterRefusal> for ApiError {
    fn from(refusal: RegisterRefusal) -> Self {
        match refusal {
            RegisterRefusal::Password(weak) => weak.into(),
            RegisterRefusal::Email(refusal) => refusal.into(),
            RegisterRefusal::DisplayName { .. } => said(Code::InvalidField, &refusal).with_param("displayName"),
            RegisterRefusal::UnknownReferralCode => said(Code::InvalidField, &refusal).with_param("referralCode"),
            RegisterRefusal::NotNew(_) => impossible(&refusal),
        }
    }
}

impl From<LoginRefusal> for ApiError {
    fn from(refusal: LoginRefusal) -> Self {
        match refusal {
            LoginRefusal::InvalidCredentials | LoginRefusal::PasswordChanged => {
                said(Code::InvalidCredentials, &refusal)
            }
            LoginRefusal::NotNew(_) => impossible(&refusal),
        }
    }
}

impl From<CreateTenantRefusal> for ApiError {
    fn from(refusal: CreateTenantRefusal) -> Self {
        match refusal {
            CreateTenantRefusal::Tenant(refusal) => refusal.into(),
            CreateTenantRefusal::Account(refusal) => refusal.into(),
            CreateTenantRefusal::Opening(refusal) => refusal.into(),
        }
    }
}

impl From<KeyRefusal> for ApiError {
    fn from(refusal: KeyRefusal) -> Self {
        match refusal {
            KeyRefusal::Tenant(refusal) => refusal.into(),
            KeyRefusal::Key(refusal) => refusal.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<E>(refusal: E) -> Code
    where
        ApiError: From<E>,
    {
        ApiError::from(refusal).code()
    }

    #[test]
    fn what_a_caller_did_is_never_answered_as_a_fault_of_ours() {
        assert_eq!(code(EmailClaimRefusal::Taken), Code::EmailTaken);
        assert_eq!(code(RegisterRefusal::Email(EmailClaimRefusal::Taken)), Code::EmailTaken);
        assert_eq!(code(LoginRefusal::InvalidCredentials), Code::InvalidCredentials);
        assert_eq!(code(KeyRefusal::Tenant(TenantRefusal::NotAMember)), Code::NotFound);
        assert_eq!(code(LicenceRefusal::NotIssued), Code::NotFound);
        assert_eq!(code(HashError::Busy), Code::Overloaded);
    }

    #[test]
    fn a_strangers_tenant_looks_like_none() {
        let unknown = ApiError::from(TenantRefusal::NotCreated);
        let foreign = ApiError::from(TenantRefusal::NotAMember);
        assert_eq!(unknown.message(), foreign.message());
    }

    #[test]
    fn no_secret_of_a_key_store_is_shown() {
        let error = ApiError::from(SealError::Unavailable("postgres://user:hunter2@host".to_owned()));
        assert!(!error.message().contains("hunter2"));
    }
}
