//! `read.sessions`: the logins of each person as they see them. Whether a session stands is decided on its aggregate.
//!
//! Of whoever was erased it is kept that there were logins, and nothing of where they came from.

use std::collections::{BTreeMap, HashMap};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::account::AccountEvent;
use calos_domain::sealed::Sealed;
use calos_domain::session::{SessionEndCause, SessionEnded, SessionEvent, SessionStarted};
use calos_domain::{DeviceId, Record, SessionId, SubjectId, TenantId, Timestamp, UserId};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{fact, stream_uuid, stream_uuid_and_rest};
use crate::kind::Kind;
use crate::moment::Moment;
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Index, Schema, TableSpec, column_names};

/// The projection.
#[derive(Debug)]
pub struct Sessions;

const COLUMNS: [Column; 11] = [
    Column::new("user_id", ColumnType::Uuid),
    Column::new("session_id", ColumnType::Uuid),
    Column::new("partition", ColumnType::Integer),
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("device_id", ColumnType::Uuid),
    Column::new("started_at", ColumnType::Timestamp),
    Column::new("expires_at", ColumnType::Timestamp),
    Column::nullable("address_sealed", ColumnType::Text),
    Column::nullable("user_agent_sealed", ColumnType::Text),
    Column::nullable("ended_at", ColumnType::Timestamp),
    Column::nullable("end_cause", ColumnType::Text),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: Sessions::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["user_id", "session_id", "partition"],
    indexes: &[Index { name: "sessions_standing", columns: "user_id, started_at", only: Some("ended_at IS NULL") }],
    fillfactor: 90,
}];

/// What happened to each session.
#[derive(Default, Debug)]
pub struct Changes {
    sessions: HashMap<(Uuid, Uuid), Change>,
    /// Whoever was erased, with the partition of all they did.
    erased: BTreeMap<Uuid, i32>,
}

#[derive(Default, Debug)]
struct Change {
    partition: i32,
    started: Option<Box<SessionStarted>>,
    ended: Option<SessionEnded>,
}

const fn cause_name(cause: SessionEndCause) -> &'static str {
    match cause {
        SessionEndCause::LoggedOut => "logged_out",
        SessionEndCause::Revoked => "revoked",
        SessionEndCause::Replaced => "replaced",
        SessionEndCause::PasswordChanged => "password_changed",
        SessionEndCause::Erased => "erased",
    }
}

fn ciphertext(sealed: &Option<Sealed>) -> Option<&str> {
    sealed.as_ref().map(|sealed| sealed.ciphertext.as_str())
}

impl Projection for Sessions {
    const NAME: &'static str = "sessions";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        match Kind::of(record.aggregate_type)? {
            Kind::Session => {}
            Kind::Account => return changes.account(record),
            Kind::Wallet
            | Kind::Tenant
            | Kind::Licence
            | Kind::ApiKey
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
        let event: SessionEvent = fact(record)?;
        let (user, session) = stream_uuid_and_rest(record)?;
        let session = Uuid::try_parse(session).map_err(|_| ProjectError::StreamId(record.aggregate_id.to_owned()))?;
        let change = changes.sessions.entry((user, session)).or_default();
        change.partition = record.partition;
        match event {
            SessionEvent::SessionStarted(event) => change.started = Some(Box::new(event)),
            SessionEvent::SessionEnded(event) => change.ended = Some(event),
        }
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (rows, erased) = changes.sorted();
        let new: Vec<_> = rows.iter().filter_map(|(key, row)| Some((key, row, row.started.as_deref()?))).collect();
        if !new.is_empty() {
            let statement = schema.sql(INSERT);
            sqlx::query(&statement)
                .bind(new.iter().map(|(key, ..)| key.0).collect::<Vec<_>>())
                .bind(new.iter().map(|(key, ..)| key.1).collect::<Vec<_>>())
                .bind(new.iter().map(|(_, row, _)| row.partition).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.tenant_id.0).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| event.device_id.0).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| Moment(event.started_at)).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| Moment(event.expires_at)).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| ciphertext(&event.address)).collect::<Vec<_>>())
                .bind(new.iter().map(|(.., event)| ciphertext(&event.user_agent)).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let over: Vec<_> = rows.iter().filter_map(|(key, row)| Some((key, row, row.ended.as_ref()?))).collect();
        if !over.is_empty() {
            let statement = schema.sql(END);
            sqlx::query(&statement)
                .bind(over.iter().map(|(key, ..)| key.0).collect::<Vec<_>>())
                .bind(over.iter().map(|(key, ..)| key.1).collect::<Vec<_>>())
                .bind(over.iter().map(|(_, row, _)| row.partition).collect::<Vec<_>>())
                .bind(over.iter().map(|(.., event)| Moment(event.ended_at)).collect::<Vec<_>>())
                .bind(over.iter().map(|(.., event)| cause_name(event.cause)).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        if !erased.is_empty() {
            let statement = schema.sql(BLANK);
            sqlx::query(&statement)
                .bind(erased.keys().copied().collect::<Vec<_>>())
                .bind(erased.values().copied().collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((user, session), row) in changes.sorted().0 {
            let Some(started) = row.started.as_deref() else { continue };
            sink.row(
                Self::NAME,
                &[
                    Value::Uuid(user),
                    Value::Uuid(session),
                    Value::I32(row.partition),
                    Value::Uuid(started.tenant_id.0),
                    Value::Uuid(started.device_id.0),
                    Value::Time(started.started_at),
                    Value::Time(started.expires_at),
                    Value::optional(ciphertext(&started.address), Value::Text),
                    Value::optional(ciphertext(&started.user_agent), Value::Text),
                    Value::optional(row.ended.as_ref(), |event| Value::Time(event.ended_at)),
                    Value::optional(row.ended.as_ref(), |event| Value::Text(cause_name(event.cause))),
                ],
            )?;
        }
        Ok(())
    }
}

const INSERT: &str = "
INSERT INTO {schema}.sessions (user_id, session_id, partition, tenant_id, device_id, started_at, expires_at,
    address_sealed, user_agent_sealed)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int4[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::timestamptz[],
    $8::text[], $9::text[])";

const END: &str = "
UPDATE {schema}.sessions AS s SET ended_at = u.ended_at, end_cause = u.end_cause
FROM unnest($1::uuid[], $2::uuid[], $3::int4[], $4::timestamptz[], $5::text[])
    AS u (user_id, session_id, partition, ended_at, end_cause)
WHERE s.user_id = u.user_id AND s.session_id = u.session_id AND s.partition = u.partition";

const BLANK: &str = "
UPDATE {schema}.sessions AS s SET address_sealed = NULL, user_agent_sealed = NULL
FROM unnest($1::uuid[], $2::int4[]) AS u (user_id, partition)
WHERE s.user_id = u.user_id AND s.partition = u.partition
    AND (s.address_sealed IS NOT NULL OR s.user_agent_sealed IS NOT NULL)";

/// A change and the row it is of: by user and session.
type Keyed = ((Uuid, Uuid), Change);

impl Changes {
    fn account(&mut self, record: &Record<'_>) -> Result<(), ProjectError> {
        match fact(record)? {
            AccountEvent::AccountErased(_) => {
                self.erased.insert(stream_uuid(record)?, record.partition);
            }
            AccountEvent::AccountRegistered(_)
            | AccountEvent::PasswordChanged(_)
            | AccountEvent::StaffRoleGranted(_)
            | AccountEvent::StaffRoleRevoked(_)
            | AccountEvent::TenantFounded(_) => {}
        }
        Ok(())
    }

    /// The changes in the order of their rows, with nothing left of where an erased person's logins came from; and who
    /// those are, for the rows that stand already. An erased person starts no session, so the order does not matter.
    fn sorted(self) -> (Vec<Keyed>, BTreeMap<Uuid, i32>) {
        let mut rows: Vec<_> = self.sessions.into_iter().collect();
        for ((user, _), change) in &mut rows {
            if let Some(started) = change.started.as_mut().filter(|_| self.erased.contains_key(user)) {
                (started.address, started.user_agent) = (None, None);
            }
        }
        rows.sort_unstable_by_key(|row| row.0);
        (rows, self.erased)
    }
}

/// A session as its person sees it, once somebody with the key has opened what is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// The session.
    pub session_id: SessionId,
    /// For which tenant.
    pub tenant_id: TenantId,
    /// On which device.
    pub device_id: DeviceId,
    /// Since when.
    pub started_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// Where it was started from.
    pub address: Option<Sealed>,
    /// What the client said it was.
    pub user_agent: Option<Sealed>,
}

/// The most sessions listed at once.
pub const LIST_MAX_SESSIONS: i64 = 200;

/// A person's sessions that stand at a moment, newest first.
///
/// # Errors
/// The database's.
pub async fn standing(executor: impl PgExecutor<'_>, user: UserId, at: Timestamp) -> Result<Vec<Session>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT session_id, tenant_id, device_id, started_at, expires_at, address_sealed, user_agent_sealed
         FROM read.sessions WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2
         ORDER BY started_at DESC, session_id LIMIT $3",
    )
    .bind(user.0)
    .bind(Moment(at))
    .bind(LIST_MAX_SESSIONS)
    .fetch_all(executor)
    .await?;
    rows.iter().map(|row| session(row, user)).collect()
}

fn session(row: &PgRow, user: UserId) -> Result<Session, sqlx::Error> {
    // Everything sealed in a session is sealed under its person's key.
    let sealed =
        |ciphertext: Option<String>| ciphertext.map(|text| Sealed { subject: SubjectId(user.0), ciphertext: text });
    Ok(Session {
        session_id: SessionId(row.try_get(0)?),
        tenant_id: TenantId(row.try_get(1)?),
        device_id: DeviceId(row.try_get(2)?),
        started_at: row.try_get::<Moment, _>(3)?.0,
        expires_at: row.try_get::<Moment, _>(4)?.0,
        address: sealed(row.try_get(5)?),
        user_agent: sealed(row.try_get(6)?),
    })
}
