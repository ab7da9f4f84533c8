//! What is really in the log: everything after what was read before, in the order of its positions.

use std::collections::BTreeMap;

use calos_domain::adjustment::{Adjustment, AdjustmentEvent};
use calos_domain::payment::{Payment, PaymentEvent};
use calos_domain::stream::partition_key;
use calos_domain::wallet::{Wallet, WalletEvent};
use calos_domain::{Decider, TenantId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::Fault;

/// Where reading goes on in each partition.
#[derive(Clone, Default, Debug)]
pub struct Cursor(pub BTreeMap<i32, i64>);

/// A stored event.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its aggregate type.
    pub kind: String,
    /// Its stream.
    pub stream: String,
    /// The command that led to it.
    pub command_id: Uuid,
    /// Its payload.
    pub payload: String,
}

impl Stored {
    /// The tenant it is about; none for streams that are no tenant's.
    pub fn tenant(&self) -> Option<TenantId> {
        partition_key(&self.stream).parse().ok()
    }

    /// What happened; none where it is of no interest here.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn event(&self) -> Result<Option<Happened>, Fault> {
        let read = match self.kind.as_str() {
            Wallet::KIND => serde_json::from_str(&self.payload).map(Happened::Wallet),
            Payment::KIND => serde_json::from_str(&self.payload).map(Happened::Payment),
            Adjustment::KIND => serde_json::from_str(&self.payload).map(Happened::Adjustment),
            _ => return Ok(None),
        };
        read.map(Some).map_err(|error| Fault::Violation(format!("{}: {error}", self.payload)))
    }
}

/// An event of a tenant's money.
#[derive(Clone, Debug)]
pub enum Happened {
    /// Of the wallet.
    Wallet(WalletEvent),
    /// Of a payment.
    Payment(PaymentEvent),
    /// Of an adjustment.
    Adjustment(AdjustmentEvent),
}

impl Cursor {
    /// Before everything.
    ///
    /// # Errors
    /// The database's.
    pub async fn start(connection: &mut PgConnection) -> Result<Self, Fault> {
        let partitions: Vec<i32> =
            sqlx::query_scalar("SELECT partition FROM partitions ORDER BY 1").fetch_all(connection).await?;
        Ok(Self(partitions.into_iter().map(|partition| (partition, 0)).collect()))
    }

    /// Reads on.
    ///
    /// # Errors
    /// The database's; a violation where a position is missing or time went backwards.
    pub async fn read(&mut self, connection: &mut PgConnection) -> Result<Vec<Stored>, Fault> {
        let (partitions, positions): (Vec<i32>, Vec<i64>) =
            self.0.iter().map(|(partition, position)| (*partition, *position)).unzip();
        let rows = sqlx::query(
            "SELECT e.partition, e.position, e.aggregate_type, e.aggregate_id, e.payload::text,
                    (e.metadata->>'command_id')::uuid
             FROM unnest($1::int4[], $2::int8[]) AS c(partition, position)
             CROSS JOIN LATERAL (SELECT * FROM events WHERE events.partition = c.partition
                                 AND events.position > c.position ORDER BY events.position) AS e",
        );
        let rows = rows.bind(partitions).bind(positions).fetch_all(connection).await?;
        let mut read = Vec::with_capacity(rows.len());
        for row in rows {
            let (partition, position): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
            let last = self.0.entry(partition).or_default();
            if position != *last + 1 {
                return Err(Fault::Violation(format!("partition {partition}: position {position} follows {last}")));
            }
            *last = position;
            read.push(Stored {
                kind: row.try_get(2)?,
                stream: row.try_get(3)?,
                payload: row.try_get(4)?,
                command_id: row.try_get(5)?,
            });
        }
        Ok(read)
    }
}
