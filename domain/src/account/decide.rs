//! Which events a command on an account leads to.

use super::{
    Account, AccountErased, AccountEvent, AccountRegistered, PasswordChanged, StaffRole, StaffRoleGranted,
    StaffRoleRevoked, TenantFounded,
};
use crate::sealed::Sealed;
use crate::{Decider, OperationId, SubjectId, TenantId, Timestamp};

/// The most tenants one person may create beside their personal one: each begins with the free tier's tokens.
pub const TENANTS_FOUNDED_MAX: usize = 10;

/// What can be asked of an account.
#[derive(Clone, PartialEq, Debug)]
pub enum AccountCommand {
    /// Sign up. The email claim is decided beside it, in the same append.
    Register(AccountRegistered),
    /// Sign in with another password from now on.
    ChangePassword {
        /// Label `password_hash`.
        password_hash: Sealed,
        /// When.
        at: Timestamp,
    },
    /// Let them work for CALOS.
    GrantStaffRole {
        /// As what.
        role: StaffRole,
        /// When.
        at: Timestamp,
    },
    /// End that.
    RevokeStaffRole {
        /// As what.
        role: StaffRole,
        /// When.
        at: Timestamp,
    },
    /// Create a tenant. The tenant itself is decided beside it, in the same append.
    FoundTenant {
        /// Which.
        tenant_id: TenantId,
        /// When.
        at: Timestamp,
    },
    /// Erase the person. Their claim on an address, their sessions and devices end beside it, in the same append.
    Erase {
        /// The run that does it.
        operation_id: OperationId,
        /// When.
        at: Timestamp,
    },
}

/// Why an account refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AccountRefusal {
    /// The id belongs to somebody who registered with another address.
    #[error("this account is registered already")]
    AlreadyRegistered,
    /// Nobody registered under this id.
    #[error("there is no such account")]
    NotRegistered,
    /// Whoever had it was erased.
    #[error("this account was erased; it is closed for ever")]
    Erased,
    /// They have created as many tenants as one person may.
    #[error("one person creates {TENANTS_FOUNDED_MAX} tenants at most; you have created {founded}")]
    TooManyTenants {
        /// How many they have created.
        founded: usize,
    },
}

impl Decider for Account {
    const KIND: &'static str = "account";
    const SNAPSHOT_VERSION: i32 = 3;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Refusal = AccountRefusal;

    fn decide(&self, command: AccountCommand) -> Result<Vec<AccountEvent>, AccountRefusal> {
        if self.erased.is_some() {
            let repeated = matches!(command, AccountCommand::Erase { .. });
            return if repeated { Ok(Vec::new()) } else { Err(AccountRefusal::Erased) };
        }
        if let AccountCommand::Register(registered) = command {
            return match &self.profile {
                None => Ok(vec![AccountEvent::AccountRegistered(registered)]),
                Some(known) if known.email_hash == registered.email_hash => Ok(Vec::new()),
                Some(_) => Err(AccountRefusal::AlreadyRegistered),
            };
        }
        let profile = self.profile.as_ref().ok_or(AccountRefusal::NotRegistered)?;
        Ok(match command {
            AccountCommand::Register(_) => Vec::new(),
            AccountCommand::ChangePassword { password_hash, .. } if profile.password_hash == password_hash => {
                Vec::new()
            }
            AccountCommand::ChangePassword { password_hash, at } => {
                vec![AccountEvent::PasswordChanged(PasswordChanged { password_hash, changed_at: at })]
            }
            AccountCommand::GrantStaffRole { role, .. } if self.staff_roles.contains(&role) => Vec::new(),
            AccountCommand::GrantStaffRole { role, at } => {
                vec![AccountEvent::StaffRoleGranted(StaffRoleGranted { role, granted_at: at })]
            }
            AccountCommand::RevokeStaffRole { role, .. } if !self.staff_roles.contains(&role) => Vec::new(),
            AccountCommand::RevokeStaffRole { role, at } => {
                vec![AccountEvent::StaffRoleRevoked(StaffRoleRevoked { role, revoked_at: at })]
            }
            AccountCommand::FoundTenant { tenant_id, .. } if self.founded.contains(&tenant_id) => Vec::new(),
            AccountCommand::FoundTenant { .. } if self.founded.len() >= TENANTS_FOUNDED_MAX => {
                return Err(AccountRefusal::TooManyTenants { founded: self.founded.len() });
            }
            AccountCommand::FoundTenant { tenant_id, at } => {
                vec![AccountEvent::TenantFounded(TenantFounded { tenant_id, founded_at: at })]
            }
            AccountCommand::Erase { operation_id, at } => {
                // A person's data is sealed under a key that has their own id.
                let subject = SubjectId(profile.user_id.0);
                vec![AccountEvent::AccountErased(AccountErased { subject, operation_id, erased_at: at })]
            }
        })
    }

    fn evolve(&mut self, event: &AccountEvent) {
        self.fold(event);
    }

    fn weight_bytes(&self) -> usize {
        const FOUNDED_BYTES: usize = 32;
        let sealed = |sealed: &Sealed| sealed.ciphertext.len();
        let profile = self.profile.as_ref().map_or(0, |profile| {
            sealed(&profile.email)
                + sealed(&profile.password_hash)
                + profile.display_name.as_ref().map_or(0, sealed)
                + profile.email_hash.len()
        });
        std::mem::size_of::<Self>() + profile + self.founded.len() * FOUNDED_BYTES
    }
}
