//! `read.wallet_balance`: what each wallet has, holds, spent and owes, per asset.
//!
//! Every figure is the sum of what the events moved; the running balances that events carry are never copied, so that
//! the two can be checked against each other.

use std::collections::HashMap;

use sqlx::{PgConnection, PgExecutor, Row};
use uuid::Uuid;

use calos_domain::{Asset, Record, TenantId};

use crate::copy_in::{CopyError, CopySink, Value};
use crate::decode::{payload, stream_uuid};
use crate::projection::{ProjectError, Projection};
use crate::table::{Column, ColumnType, Growth, Schema, TableSpec, column_names};
use crate::wallet_facts::{Deducted, Moved, Restored, WalletFact};

/// The projection.
#[derive(Debug)]
pub struct WalletBalance;

const COLUMNS: [Column; 13] = [
    Column::new("tenant_id", ColumnType::Uuid),
    Column::new("asset", ColumnType::Text),
    Column::new("partition", ColumnType::Integer),
    Column::new("granted", ColumnType::Bigint),
    Column::new("spent", ColumnType::Bigint),
    Column::new("held", ColumnType::Bigint),
    Column::new("available", ColumnType::Bigint),
    Column::new("expired", ColumnType::Bigint),
    Column::new("voided", ColumnType::Bigint),
    Column::new("debt", ColumnType::Bigint),
    Column::new("lifetime_deducted", ColumnType::Bigint),
    Column::new("lifetime_reversed", ColumnType::Bigint),
    Column::new("lifetime_debt", ColumnType::Bigint),
];

const TABLES: &[TableSpec] = &[TableSpec {
    name: WalletBalance::NAME,
    columns: &COLUMNS,
    column_names: &column_names(&COLUMNS),
    key: &["tenant_id", "asset", "partition"],
    indexes: &[],
    fillfactor: 50,
}];

/// One wallet's figures in one asset, in its smallest unit; or how much each of them moved.
///
/// `granted = available + held + spent + expired + voided`, always.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Everything ever granted.
    pub granted: i64,
    /// Spent, reversals taken off, debt repaid from grants included.
    pub spent: i64,
    /// Reserved by open holds.
    pub held: i64,
    /// What can be held or spent now.
    pub available: i64,
    /// Ran out of time unspent.
    pub expired: i64,
    /// Taken back by claims and corrections, less what came back when a claim was undone.
    pub voided: i64,
    /// Owed.
    pub debt: i64,
    /// Everything ever deducted for uses.
    pub lifetime_deducted: i64,
    /// Of it, everything ever reversed.
    pub lifetime_reversed: i64,
    /// Everything ever owed, repaid or not.
    pub lifetime_debt: i64,
}

impl Figures {
    fn array(self) -> [i64; 10] {
        [
            self.granted,
            self.spent,
            self.held,
            self.available,
            self.expired,
            self.voided,
            self.debt,
            self.lifetime_deducted,
            self.lifetime_reversed,
            self.lifetime_debt,
        ]
    }

    fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            granted: self.granted.checked_add(other.granted)?,
            spent: self.spent.checked_add(other.spent)?,
            held: self.held.checked_add(other.held)?,
            available: self.available.checked_add(other.available)?,
            expired: self.expired.checked_add(other.expired)?,
            voided: self.voided.checked_add(other.voided)?,
            debt: self.debt.checked_add(other.debt)?,
            lifetime_deducted: self.lifetime_deducted.checked_add(other.lifetime_deducted)?,
            lifetime_reversed: self.lifetime_reversed.checked_add(other.lifetime_reversed)?,
            lifetime_debt: self.lifetime_debt.checked_add(other.lifetime_debt)?,
        })
    }
}

/// How far each wallet's figures moved.
#[derive(Default, Debug)]
pub struct Changes {
    moved: HashMap<(Uuid, Asset), (i32, Figures)>,
}

/// What one event moves; nothing for events that leave the figures alone.
fn moved(fact: WalletFact, record: &Record<'_>) -> Result<Option<(Asset, Figures)>, ProjectError> {
    let zero = Figures::default();
    let plain = || payload::<Moved>(record).map(|Moved { asset, amount }| (asset, amount));
    let negated = |amount: i64| amount.checked_neg().ok_or(ProjectError::OutOfRange { figure: "the amount" });
    let change = match fact {
        WalletFact::WalletOpened | WalletFact::UsageRecorded | WalletFact::WalletFrozen | WalletFact::WalletThawed => {
            return Ok(None);
        }
        WalletFact::CreditsGranted => {
            let (asset, amount) = plain()?;
            (asset, Figures { granted: amount, available: amount, ..zero })
        }
        WalletFact::HoldPlaced => {
            let (asset, amount) = plain()?;
            (asset, Figures { held: amount, available: negated(amount)?, ..zero })
        }
        WalletFact::CreditsDeducted => {
            let event: Deducted = payload(record)?;
            (event.asset, deducted(&event)?)
        }
        WalletFact::HoldReleased => {
            let (asset, amount) = plain()?;
            (asset, Figures { held: negated(amount)?, available: amount, ..zero })
        }
        WalletFact::DeductionReversed => {
            let (asset, amount) = plain()?;
            (asset, Figures { spent: negated(amount)?, available: amount, lifetime_reversed: amount, ..zero })
        }
        WalletFact::GrantExpired => {
            let (asset, amount) = plain()?;
            (asset, Figures { expired: amount, available: negated(amount)?, ..zero })
        }
        WalletFact::GrantVoided => {
            let (asset, amount) = plain()?;
            (asset, Figures { voided: amount, available: negated(amount)?, ..zero })
        }
        WalletFact::GrantRestored => {
            let event: Restored<'_> = payload(record)?;
            (event.asset, restored(&event)?)
        }
        WalletFact::CreditsTaken => {
            let (asset, amount) = plain()?;
            (asset, Figures { voided: amount, available: negated(amount)?, ..zero })
        }
        WalletFact::DebtIncurred => {
            let (asset, amount) = plain()?;
            (asset, Figures { debt: amount, lifetime_debt: amount, ..zero })
        }
        WalletFact::DebtRepaid => {
            let (asset, amount) = plain()?;
            (asset, Figures { spent: amount, available: negated(amount)?, debt: negated(amount)?, ..zero })
        }
    };
    Ok(Some(change))
}

/// A deduction gives back all its hold kept, if it ends one, and takes what was spent.
fn deducted(event: &Deducted) -> Result<Figures, ProjectError> {
    let figures = || {
        Some(Figures {
            spent: event.amount,
            held: event.held.checked_neg()?,
            available: event.held.checked_sub(event.amount)?,
            lifetime_deducted: event.amount,
            ..Figures::default()
        })
    };
    figures().ok_or(ProjectError::OutOfRange { figure: "the deduction" })
}

/// A claim undone gives back credit, and what is still owed because of it is owed no more.
fn restored(event: &Restored<'_>) -> Result<Figures, ProjectError> {
    let figures = || {
        Some(Figures {
            voided: event.amount.checked_neg()?,
            available: event.amount,
            debt: event.debt_cancelled.checked_neg()?,
            ..Figures::default()
        })
    };
    figures().ok_or(ProjectError::OutOfRange { figure: "what was restored" })
}

impl Projection for WalletBalance {
    const NAME: &'static str = "wallet_balance";
    const GROWTH: Growth = Growth::PerKey;
    type Changes = Changes;

    fn tables() -> &'static [TableSpec] {
        TABLES
    }

    fn project(changes: &mut Changes, record: &Record<'_>) -> Result<(), ProjectError> {
        let Some(fact) = WalletFact::of(record)? else { return Ok(()) };
        let Some((asset, figures)) = moved(fact, record)? else { return Ok(()) };
        let key = (stream_uuid(record)?, asset);
        let before = changes.moved.get(&key).map_or_else(Figures::default, |(_, figures)| *figures);
        let after = before.plus(figures).ok_or(ProjectError::OutOfRange { figure: "a balance" })?;
        changes.moved.insert(key, (record.partition, after));
        Ok(())
    }

    async fn store(changes: Changes, schema: Schema, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if changes.moved.is_empty() {
            return Ok(());
        }
        let rows = changes.sorted();
        let tenants: Vec<Uuid> = rows.iter().map(|row| row.0.0).collect();
        let assets: Vec<&str> = rows.iter().map(|row| row.0.1.as_str()).collect();
        let partitions: Vec<i32> = rows.iter().map(|row| row.1).collect();
        let figures: Vec<[i64; 10]> = rows.iter().map(|row| row.2.array()).collect();
        let statement = schema.sql(UPSERT);
        let mut query = sqlx::query(&statement).bind(tenants).bind(assets).bind(partitions);
        for column in 0..10 {
            query = query.bind(figures.iter().map(|row| row[column]).collect::<Vec<i64>>());
        }
        query.execute(connection).await.map(drop)
    }

    fn copy(changes: Changes, sink: &mut CopySink) -> Result<(), CopyError> {
        for ((tenant, asset), partition, figures) in changes.sorted() {
            let mut row = [Value::Null; COLUMNS.len()];
            row[..3].copy_from_slice(&[Value::Uuid(tenant), Value::Text(asset.as_str()), Value::I32(partition)]);
            for (value, figure) in row[3..].iter_mut().zip(figures.array()) {
                *value = Value::I64(figure);
            }
            sink.row(Self::NAME, &row)?;
        }
        Ok(())
    }
}

const UPSERT: &str = "
INSERT INTO {schema}.wallet_balance AS b (tenant_id, asset, partition, granted, spent, held, available, expired, voided,
    debt, lifetime_deducted, lifetime_reversed, lifetime_debt)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::int4[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
    $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[])
ON CONFLICT (tenant_id, asset, partition) DO UPDATE SET
    granted = b.granted + EXCLUDED.granted,
    spent = b.spent + EXCLUDED.spent,
    held = b.held + EXCLUDED.held,
    available = b.available + EXCLUDED.available,
    expired = b.expired + EXCLUDED.expired,
    voided = b.voided + EXCLUDED.voided,
    debt = b.debt + EXCLUDED.debt,
    lifetime_deducted = b.lifetime_deducted + EXCLUDED.lifetime_deducted,
    lifetime_reversed = b.lifetime_reversed + EXCLUDED.lifetime_reversed,
    lifetime_debt = b.lifetime_debt + EXCLUDED.lifetime_debt";

impl Changes {
    /// In the order of the key, so that two writers never wait for each other crosswise.
    fn sorted(self) -> Vec<((Uuid, Asset), i32, Figures)> {
        let mut rows: Vec<_> =
            self.moved.into_iter().map(|(key, (partition, moved))| (key, partition, moved)).collect();
        rows.sort_unstable_by_key(|row| row.0);
        rows
    }
}

/// What a tenant's wallet shows in one asset; all zero when it was never moved.
///
/// # Errors
/// The database's.
pub async fn figures(executor: impl PgExecutor<'_>, tenant: TenantId, asset: Asset) -> Result<Figures, sqlx::Error> {
    let row = sqlx::query(
        "SELECT granted, spent, held, available, expired, voided, debt, lifetime_deducted, lifetime_reversed,
             lifetime_debt
         FROM read.wallet_balance WHERE tenant_id = $1 AND asset = $2",
    )
    .bind(tenant.0)
    .bind(asset.as_str())
    .fetch_optional(executor)
    .await?;
    let Some(row) = row else { return Ok(Figures::default()) };
    Ok(Figures {
        granted: row.try_get(0)?,
        spent: row.try_get(1)?,
        held: row.try_get(2)?,
        available: row.try_get(3)?,
        expired: row.try_get(4)?,
        voided: row.try_get(5)?,
        debt: row.try_get(6)?,
        lifetime_deducted: row.try_get(7)?,
        lifetime_reversed: row.try_get(8)?,
        lifetime_debt: row.try_get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{TENANT, fold, wallet};

    fn usd(changes: &Changes) -> Figures {
        changes.moved[&(TENANT.parse().unwrap(), Asset::Usd)].1
    }

    #[test]
    fn a_deduction_beyond_its_hold_takes_the_rest_from_available() {
        let history = [
            wallet("credits_granted", r#"{"asset":"USD","amount":1000}"#),
            wallet("hold_placed", r#"{"asset":"USD","amount":300}"#),
            wallet(
                "credits_deducted",
                r#"{"usage_id":"00000000-0000-0000-0000-000000000001","asset":"USD","amount":450,"held":300,
                    "hold_id":"00000000-0000-0000-0000-000000000002","returned":0,"available_after":550}"#,
            ),
            wallet("deduction_reversed", r#"{"asset":"USD","amount":50}"#),
            wallet("grant_expired", r#"{"asset":"USD","amount":100}"#),
            wallet("grant_voided", r#"{"asset":"USD","amount":200,"claimed":900}"#),
            wallet("debt_incurred", r#"{"asset":"USD","amount":700}"#),
            wallet("debt_repaid", r#"{"asset":"USD","amount":120}"#),
            wallet(
                "grant_restored",
                r#"{"grant_id":"00000000-0000-0000-0000-000000000003","asset":"USD","amount":150,"debt_cancelled":30,
                    "source_ref":"dispute","available_after":430,"debt_after":550}"#,
            ),
            wallet("credits_taken", r#"{"asset":"USD","amount":11}"#),
        ];
        let figures = usd(&fold::<WalletBalance>(&history).unwrap());
        assert_eq!(
            figures,
            Figures {
                granted: 1000,
                spent: 450 - 50 + 120,
                held: 0,
                available: 1000 - 450 + 50 - 100 - 200 - 120 + 150 - 11,
                expired: 100,
                voided: 200 - 150 + 11,
                debt: 700 - 120 - 30,
                lifetime_deducted: 450,
                lifetime_reversed: 50,
                lifetime_debt: 700,
            }
        );
    }

    #[test]
    fn an_event_that_cannot_be_taken_leaves_the_changes_as_they_were() {
        let mut changes = fold::<WalletBalance>(&[wallet("credits_granted", r#"{"asset":"USD","amount":7}"#)]).unwrap();
        let before = usd(&changes);
        for (sample, expected) in [
            (wallet("credits_granted", r#"{"asset":"USD","amount":9223372036854775807}"#), "a balance would leave"),
            (wallet("credits_granted", r#"{"asset":"EUR","amount":1}"#), "unknown variant"),
            (wallet("credits_granted", r#"{"asset":"USD","amount":0.5}"#), "expected i64"),
            (wallet("credits_stolen", "{}"), "is unknown"),
        ] {
            let error = WalletBalance::project(&mut changes, &sample.at(2)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(usd(&changes), before);
        }
    }
}
