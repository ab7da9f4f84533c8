//! `read.accounts`: who has an account, since when, and what they do for CALOS.
//!
//! Personal data stands here as it stands in the events: sealed under the person's key, never in plain text. The
//! password's hash is not here at all, and whoever was erased is not either.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::account::{AccountEvent, AccountRegistered, StaffRole};
use calos_domain::sealed::Sealed;
use calos_domain::{Record, SubjectId, TenantId, Timestamp, UserId};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{fact, stream_uuid};
use crate::kind::Kind;
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct Accounts;

const COLUMNS: [Column; 13] = [
    Column::new("user_id", ColumnType::Uuid),
    Column::new("partition", ColumnType::Integer),
    Column::new("email_subject", ColumnType::Uuid),
    Column::new("email_sealed", ColumnType::Text),
    Column::new("email_hash", ColumnType::Text),
    Column::nullable("display_name_sealed", ColumnType::Text),
    Column::new("personal_tenant_id", ColumnType::Uuid),
    Column::nullable("referred_by", ColumnType::Uuid),
    Column::new("registered_at", ColumnType::Timestamp),
    Column::nullable("password_changed_at", ColumnType::Timestamp),
    Column::new("is_operator", ColumnType::Boolean),
    Column::new("is_finance", ColumnType::Boolean),
    Column::new("is_moderator", ColumnType::Boolean),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: Accounts::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["user_id", "partition"],
    indexes: &[Index { name: "accounts_email_hash", columns: "email_hash", only: None }],
    fillfactor: 90,
}];

/// What happened to each account: its beginning, and the latest of each thing that can change.
#[derive(Default, Debug)]
pub struct Changes {
    accounts: HashMap<Uuid, Change>,
}

#[derive(Default, Debug)]
struct Change {
    partition: i32,
    registered: Option<Box<AccountRegistered>>,
    password_changed_at: Option<Timestamp>,
    /// Operator, finance, moderator.
    roles: [Option<bool>; 3],
    /// Whoever had it was erased: the row goes.
    erased: bool,
}

const fn role_index(role: StaffRole) -> usize {
    match role {
        StaffRole::Operator => 0,
        StaffRole::Finance => 1,
        StaffRole::Moderator => 2,
    }
}

impl Projection for Accounts {
    const NAME: &'static str = "accounts";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        match Kind::of(record.aggregate_type)? {
            Kind::Account => {}
            Kind::Wallet
            | Kind::Tenant
            | Kind::Licence
            | Kind::ApiKey
            | Kind::Session
            | Kind::Device
            | Kind::EmailClaim
            | Kind::Operation
            | Kind::Payment
            | Kind::Payout
            | Kind::Adjustment
            | Kind::Period
            | Kind::Reconciliation
            | Kind::LedgerAccess => return Ok(()),
        }
        let event: AccountEvent = fact(record)?;
        // The tenants themselves are another projection's.
        if matches!(event, AccountEvent::TenantFounded(_)) {
            return Ok(());
        }
        let change = changes.accounts.entry(stream_uuid(record)?).or_default();
        change.partition = record.partition;
        match event {
            AccountEvent::AccountRegistered(event) => change.registered = Some(Box::new(event)),
            AccountEvent::PasswordChanged(event) => change.password_changed_at = Some(event.changed_at),
            AccountEvent::StaffRoleGranted(event) => change.roles[role_index(event.role)] = Some(true),
            AccountEvent::StaffRoleRevoked(event) => change.roles[role_index(event.role)] = Some(false),
            AccountEvent::TenantFounded(_) => {}
            AccountEvent::AccountErased(_) => {
                *change = Change { partition: record.partition, erased: true, ..Change::default() };
            }
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let rows = changes.sorted();
        let new: Vec<_> = rows.iter().filter_map(|(id, row)| Some((id, row, row.registered.as_deref()?))).collect();
        if !new.is_empty() {
            let statement = schema.sql(INSERT);
            sqlx::query(&statement)
                .bind(new.iter().map(|(id, ..)| **id).collect::<Vec<_>>())
                .bind(new.iter().map(|(_, row, _)| row.partition).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.email.subject.0).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.email.ciphertext.as_str()).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.email_hash.as_str()).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| display_name(event)).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.personal_tenant_id.0).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.referred_by.map(|user| user.0)).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| Moment(event.registered_at)).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let later: Vec<_> = rows.iter().filter(|(_, row)| row.changes_something()).collect();
        if !later.is_empty() {
            let role = |index: usize| later.iter().map(|(_, row)| row.roles[index]).collect::<Vec<_>>();
            let statement = schema.sql(UPDATE);
            sqlx::query(&statement)
                .bind(later.iter().map(|(id, _)| *id).collect::<Vec<_>>())
                .bind(later.iter().map(|(_, row)| row.partition).collect::<Vec<_>>())
                .bind(later.iter().map(|(_, row)| row.password_changed_at.map(Moment)).collect::<Vec<_>>())
                .bind(role(0))
                .bind(role(1))
                .bind(role(2))
                .execute(&mut *connection)
                .await?;
        }
        let erased: Vec<_> = rows.iter().filter(|(_, row)| row.erased).collect();
        if !erased.is_empty() {
            let statement = schema.sql(DELETE);
            sqlx::query(&statement)
                .bind(erased.iter().map(|(id, _)| *id).collect::<Vec<_>>())
                .bind(erased.iter().map(|(_, row)| row.partition).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for (user_id, row) in changes.sorted() {
            let Some(event) = row.registered.as_deref() else { continue };
            let role = |index: usize| Value::Bool(row.roles[index].unwrap_or(false));
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(user_id),
                    Value::I32(row.partition),
                    Value::Uuid(event.email.subject.0),
                    Value::Text(&event.email.ciphertext),
                    Value::Text(&event.email_hash),
                    Value::optional(display_name(event), Value::Text),
                    Value::Uuid(event.personal_tenant_id.0),
                    Value::optional(event.referred_by, |user| Value::Uuid(user.0)),
                    Value::Time(event.registered_at),
                    Value::optional(row.password_changed_at, Value::Time),
                    role(0),
                    role(1),
                    role(2),
                ],
            )?;
        }
        Ok(())
    }
}

const INSERT: &str = "
INSERT INTO {schema}.accounts (user_id, partition, email_subject, email_sealed, email_hash, display_name_sealed,
    personal_tenant_id, referred_by, registered_at, is_operator, is_finance, is_moderator)
SELECT *, false, false, false FROM unnest($1::uuid[], $2::int4[], $3::uuid[], $4::text[], $5::text[], $6::text[],
    $7::uuid[], $8::uuid[], $9::timestamptz[])";

const UPDATE: &str = "
UPDATE {schema}.accounts AS a SET
    password_changed_at = coalesce(u.password_changed_at, a.password_changed_at),
    is_operator = coalesce(u.is_operator, a.is_operator),
    is_finance = coalesce(u.is_finance, a.is_finance),
    is_moderator = coalesce(u.is_moderator, a.is_moderator)
FROM unnest($1::uuid[], $2::int4[], $3::timestamptz[], $4::bool[], $5::bool[], $6::bool[])
    AS u (user_id, partition, password_changed_at, is_operator, is_finance, is_moderator)
WHERE a.user_id = u.user_id AND a.partition = u.partition";

const DELETE: &str = "
DELETE FROM {schema}.accounts AS a USING unnest($1::uuid[], $2::int4[]) AS u (user_id, partition)
WHERE a.user_id = u.user_id AND a.partition = u.partition";

fn display_name(event: &AccountRegistered) -> Option<&str> {
    event.display_name.as_ref().map(|name| name.ciphertext.as_str())
}

impl Change {
    fn changes_something(&self) -> bool {
        self.password_changed_at.is_some() || self.roles.iter().any(Option::is_some)
    }
}

impl Changes {
    fn sorted(self) -> Vec<(Uuid, Change)> {
        let mut rows: Vec<_> = self.accounts.into_iter().collect();
        rows.sort_unstable_by_key(|row| row.0);
        rows
    }
}

/// An account as it is shown to its owner and to staff, once somebody with the key has opened what is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Whose.
    pub user_id: UserId,
    /// The email address.
    pub email: Sealed,
    /// What they want to be called.
    pub display_name: Option<Sealed>,
    /// The tenant created with the account.
    pub personal_tenant_id: TenantId,
    /// Since when.
    pub registered_at: Timestamp,
    /// What they do for CALOS.
    pub staff_roles: Vec<StaffRole>,
}

/// One account, if there is one.
///
/// # Errors
/// The database's.
pub async fn find(executor: impl PgExecutor<'_>, user: UserId) -> Result<Option<Account>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT user_id, email_subject, email_sealed, display_name_sealed, personal_tenant_id, registered_at, is_operator,
             is_finance, is_moderator
         FROM read.accounts WHERE user_id = $1",
    )
    .bind(user.0)
    .fetch_optional(executor)
    .await?;
    row.as_ref().map(account).transpose()
}

fn account(row: &PgRow) -> Result<Account, sqlx::Error> {
    let subject = SubjectId(row.try_get(1)?);
    let sealed = |ciphertext: String| Sealed { subject, ciphertext };
    let mut staff_roles = Vec::new();
    for role in [StaffRole::Operator, StaffRole::Finance, StaffRole::Moderator] {
        if row.try_get(6 + role_index(role))? {
            staff_roles.push(role);
        }
    }
    Ok(Account {
        user_id: UserId(row.try_get(0)?),
        email: sealed(row.try_get(2)?),
        display_name: row.try_get::<Option<String>, _>(3)?.map(sealed),
        personal_tenant_id: TenantId(row.try_get(4)?),
        registered_at: row.try_get::<Moment, _>(5)?.0,
        staff_roles,
    })
}
