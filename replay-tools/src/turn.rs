//! Operators take turns: whoever changes something holds a lock for as long as that takes, and who finds it taken is told by
//! whom.
//!
//! What reads the whole log in, or changes what all of it is sealed with, has the log to itself. Everything else shares the log
//! and has one part of it to itself: read models, or one of the small tables. The locks belong to a connection, and so does
//! what is told of them: when the operator is killed, nothing of either is left.

use std::fmt;
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

use calos_adapters::postgres::Timestamptz;
use calos_domain::Timestamp;
use calos_domain::operation::RunBy;

use crate::connections::{APPLICATION_NAME, prepare};
use crate::error::ToolError;
use crate::fold::ReadModel;
use crate::time_text::show;

/// How long somebody else's turn is waited for: a tool that was killed holds it until the database notices.
const TURN_WAIT_MAX: Duration = Duration::from_secs(2);

/// How often it is asked for meanwhile.
const TURN_ASKED_EVERY: Duration = Duration::from_millis(50);

/// The longest name a connection can have, in bytes; PostgreSQL cuts longer ones.
const APPLICATION_NAME_MAX_BYTES: usize = 63;

/// The log as a whole, as the locks know it.
const LOG: (&str, &str) = ("calos-replay log", "log");

macro_rules! deeds {
    ($($(#[$doc:meta])* $deed:ident => $code:literal, $words:literal;)+) => {
        /// What an operator does, as others are told.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Deed {
            $($(#[$doc])* $deed),+
        }

        impl Deed {
            const ALL: &'static [Self] = &[$(Self::$deed),+];

            /// The command, as it is typed.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self { $(Self::$deed => $words),+ }
            }

            /// Short, because it shares a connection's name with the operator's.
            const fn code(self) -> &'static str {
                match self { $(Self::$deed => $code),+ }
            }
        }
    };
}

deeds! {
    /// Read models are made anew, or put right.
    Rebuild => "rebuild", "rebuild";
    /// What was set aside is taken up again.
    Retry => "retry", "dead-letters retry";
    /// An event is left out of a read model.
    Skip => "skip", "dead-letters skip";
    /// Snapshots are dropped.
    Snapshots => "snapshots", "snapshots drop";
    /// The heads are signed.
    Anchor => "anchor", "anchor";
    /// A log is read in.
    Import => "import", "import";
    /// A backup is taken.
    Backup => "backup", "backup";
    /// A backup is put back.
    Restore => "restore", "restore";
    /// A person is erased.
    Erase => "erase", "erase";
    /// Every key is wrapped anew.
    Rekey => "rekey", "rekey";
    /// The keyring gets a new key.
    RotateKeyring => "keyring", "admin rotate-keyring";
}

/// What an operator needs to have alone.
#[derive(Clone, Copy)]
pub enum Reach<'a> {
    /// Everything: nobody else changes anything meanwhile.
    WholeLog,
    /// These read models.
    Models(&'a [ReadModel]),
    /// One of the small tables.
    Part(Part),
}

/// What stands beside the read models.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Backups: their folders, too.
    Backups,
    /// Snapshots.
    Snapshots,
    /// Signed heads.
    Anchors,
    /// Tenants' own provider keys.
    Keyring,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Backups => "the backups",
            Self::Snapshots => "the snapshots",
            Self::Anchors => "the anchors",
            Self::Keyring => "the keyring",
        }
    }
}

/// One lock: its two keys as texts, and whether others may hold it too.
#[derive(Clone, Copy)]
struct Lock {
    keys: (&'static str, &'static str),
    shared: bool,
}

impl Reach<'_> {
    /// The log first, so that whoever wants all of it is told of the one in its way, and then the parts.
    fn locks(self) -> Vec<Lock> {
        let alone = |keys| Lock { keys, shared: false };
        let log = Lock { keys: LOG, shared: !matches!(self, Self::WholeLog) };
        let parts: Vec<Lock> = match self {
            Self::WholeLog => Vec::new(),
            Self::Models(models) => models.iter().map(|model| alone(("calos-replay rebuild", model.name()))).collect(),
            Self::Part(part) => vec![alone(("calos-replay part", part.name()))],
        };
        [log].into_iter().chain(parts).collect()
    }
}

/// Somebody else's turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Busy {
    /// What was wanted: a read model's name, `the log`, `the backups`.
    pub wanted: String,
    /// Who has it; none when they let go of it just as that was asked.
    pub holder: Option<Holder>,
}

/// Who has the turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The operator: a login name, or a user's id when it goes through the server. A very long one is cut.
    pub operator: String,
    /// The command, as it is typed.
    pub deed: String,
    /// Since when.
    pub since: Timestamp,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, holder } = self;
        match holder {
            Some(Holder { operator, deed, since }) => {
                write!(f, "{wanted} is taken: {operator} has been at `{deed}` since {}; ", show(*since))?;
            }
            None => write!(f, "{wanted} is taken: another operator is at work; ")?,
        }
        f.write_str("wait until that has ended")
    }
}

/// A turn, held until it is given back or its connection ends, whatever happens to the operator.
#[derive(Debug)]
pub struct Turn(PgConnection);

impl Turn {
    /// Takes a turn on a connection of its own, to the database of `pool`.
    ///
    /// # Errors
    /// [`ToolError::Busy`] with who has it; the database's.
    pub async fn take(pool: &PgPool, deed: Deed, run: &RunBy, reach: Reach<'_>) -> Result<Self, ToolError> {
        let options = pool.connect_options().as_ref().clone().application_name(&name(deed, &run.operator));
        let mut connection = options.disable_statement_logging().connect().await?;
        prepare(&mut connection).await?;
        for lock in reach.locks() {
            take(&mut connection, lock).await?;
        }
        Ok(Self(connection))
    }

    /// The connection, for what must not happen without the turn.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Gives it back, in order, so that it is free when the caller goes on.
    ///
    /// # Errors
    /// The database's: the turn had ended before.
    pub async fn end(self) -> Result<(), ToolError> {
        Ok(self.0.close().await?)
    }
}

/// What the connection is called: `calos-replay rebuild ada`.
fn name(deed: Deed, operator: &str) -> String {
    let mut name = format!("{APPLICATION_NAME} {} {operator}", deed.code());
    name.truncate(name.floor_char_boundary(APPLICATION_NAME_MAX_BYTES));
    name
}

/// Who and what is behind a connection of that name.
fn named(name: &str) -> Option<(String, String)> {
    let (code, operator) = name.strip_prefix(APPLICATION_NAME)?.strip_prefix(' ')?.split_once(' ')?;
    let deed = Deed::ALL.iter().find(|deed| deed.code() == code)?;
    Some((operator.to_owned(), deed.words().to_owned()))
}

async fn take(connection: &mut PgConnection, lock: Lock) -> Result<(), ToolError> {
    let Lock { keys: (of, key), shared } = lock;
    let suffix = if shared { "_shared" } else { "" };
    let statement = format!("SELECT pg_try_advisory_lock{suffix}(hashtext($1), hashtext($2))");
    let begun = Instant::now();
    loop {
        let mine: bool = sqlx::query_scalar(&statement).bind(of).bind(key).fetch_one(&mut *connection).await?;
        if mine {
            return Ok(());
        }
        if begun.elapsed() >= TURN_WAIT_MAX {
            let wanted = if lock.keys == LOG { "the log" } else { key }.to_owned();
            return Err(ToolError::Busy(Box::new(Busy { wanted, holder: holder(connection, lock).await? })));
        }
        tokio::time::sleep(TURN_ASKED_EVERY).await;
    }
}

/// Whoever has held the lock for longest.
async fn holder(connection: &mut PgConnection, lock: Lock) -> Result<Option<Holder>, ToolError> {
    let (of, key) = lock.keys;
    let held: Option<(String, Timestamptz)> = sqlx::query_as(
        "SELECT coalesce(a.application_name, ''), a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.pid <> pg_backend_pid()
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND l.classid::bigint = hashtext($1)::bigint & 4294967295
             AND l.objid::bigint = hashtext($2)::bigint & 4294967295
             AND ($3 OR l.mode = 'ExclusiveLock')
         ORDER BY a.backend_start LIMIT 1",
    )
    .bind(of)
    .bind(key)
    .bind(!lock.shared)
    .fetch_optional(connection)
    .await?;
    Ok(held.map(|(name, since)| {
        let since = since.0;
        match named(&name) {
            Some((operator, deed)) => Holder { operator, deed, since },
            None => Holder { operator: "somebody".to_owned(), deed: name, since },
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connections_name_says_who_is_at_what_even_for_the_longest_id() {
        let user = "0193a5c8-1111-7222-8333-444455556666";
        for deed in Deed::ALL {
            let name = name(*deed, user);
            assert!(name.len() <= APPLICATION_NAME_MAX_BYTES, "{name}");
            assert_eq!(named(&name), Some((user.to_owned(), deed.words().to_owned())));
        }
        let long = name(Deed::Rebuild, &"ä".repeat(100));
        assert!(long.len() <= APPLICATION_NAME_MAX_BYTES && named(&long).is_some(), "{long}");
        assert_eq!(named(&name(Deed::Skip, "Ada of Crete")).unwrap().0, "Ada of Crete");
        for stranger in ["", "psql", "calos-replay", "calos-replay x", "calos-replay dance ada"] {
            assert_eq!(named(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn who_is_refused_is_told_by_whom_and_since_when() {
        let since = Timestamp::from_micros(1_761_955_200_000_000);
        let holder = Holder { operator: "olga".to_owned(), deed: "rebuild".to_owned(), since };
        let busy = Busy { wanted: "wallet_balance".to_owned(), holder: Some(holder) }.to_string();
        assert!(busy.starts_with("wallet_balance is taken: olga has been at `rebuild` since 2025-11-01T"), "{busy}");
        let unknown = Busy { wanted: "the log".to_owned(), holder: None }.to_string();
        assert!(unknown.starts_with("the log is taken: another operator is at work"), "{unknown}");
    }
}
