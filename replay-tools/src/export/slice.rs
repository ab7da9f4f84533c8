//! One slice of the log, read and written down.

use std::collections::HashSet;

use sqlx::PgPool;

use calos_domain::book::{Account, Entry, effective_at, payment_entries, payout_entries, wallet_entries};
use calos_domain::payment::{PaymentEvent, PayoutEvent};
use calos_domain::wallet::WalletEvent;
use calos_domain::{Record, TenantId, Timestamp};
use calos_projections::copy_out::read_slice;
use calos_projections::{Columns, Kind, LogSlice, ReadStopped};
use uuid::Uuid;

use super::rows::Rows;
use super::{JournalExport, TextFormat, text};
use crate::decode;
use crate::error::ToolError;
use crate::progress::Counter;

/// Bytes an entry takes about, in text; what a slice reserves at once.
const TEXT_PER_EVENT_BYTES: usize = 300;

/// A slice, written down.
pub(super) struct Part {
    pub(super) written: Written,
    pub(super) events: u64,
    pub(super) entries: u64,
    pub(super) postings: u64,
}

/// In which shape.
pub(super) enum Written {
    Text(TextFormat, Vec<u8>),
    Rows(Box<Rows>),
}

/// What an event means for the book, and where it stands.
pub(super) struct Line<'a> {
    pub(super) record: &'a Record<'a>,
    /// Whose entry; none for what belongs to CALOS alone.
    pub(super) tenant: Option<TenantId>,
    pub(super) effective_at: Timestamp,
    pub(super) entry: &'a Entry,
}

/// An event's entries, before they are written.
struct Booked {
    tenant: Option<TenantId>,
    effective_at: Timestamp,
    entries: Vec<Entry>,
}

/// Reads a slice to its end, or not at all.
pub(super) async fn read(
    readers: &PgPool,
    slice: LogSlice,
    export: &JournalExport,
    mut counter: Counter,
) -> Result<Part, ToolError> {
    let mut writing = Writing::new(*export, usize::try_from(slice.through - slice.after).unwrap_or_default());
    let read = read_slice(readers, slice, Columns::EVENT, |row| {
        counter.event();
        writing.event(&row.record)
    });
    match read.await {
        Ok(events) => Ok(Part { events, ..writing.part }),
        Err(ReadStopped::Log(error)) => Err(error.into()),
        Err(ReadStopped::Reader(error)) => Err(error),
    }
}

struct Writing {
    export: JournalExport,
    /// The tenant's id, as the streams of its key begin.
    tenant: Option<String>,
    part: Part,
    /// Accounts that this slice has declared: a slice declares what it uses, whatever the others declare, so that nobody
    /// has to remember them all.
    declared: HashSet<Account>,
}

impl Writing {
    fn new(export: JournalExport, events: usize) -> Self {
        let narrow = export.tenant.is_some() || export.from.is_some() || export.to.is_some();
        let written = match export.format.text() {
            None => Written::Rows(Box::default()),
            Some(format) => {
                let expected = if narrow { 0 } else { events * TEXT_PER_EVENT_BYTES };
                Written::Text(format, Vec::with_capacity(expected))
            }
        };
        Self {
            export,
            tenant: export.tenant.map(|tenant| tenant.to_string()),
            part: Part { written, events: 0, entries: 0, postings: 0 },
            declared: HashSet::new(),
        }
    }

    fn event(&mut self, record: &Record<'_>) -> Result<(), ToolError> {
        if self.tenant.as_ref().is_some_and(|tenant| *tenant != key(record)) {
            return Ok(());
        }
        let Some(booked) = book(record)? else { return Ok(()) };
        if !self.export.takes(booked.effective_at) {
            return Ok(());
        }
        let Booked { tenant, effective_at, entries } = booked;
        for entry in &entries {
            self.part.entries += 1;
            self.part.postings += entry.postings.len() as u64;
            let line = Line { record, tenant, effective_at, entry };
            let holds = self.export.holds;
            match &mut self.part.written {
                Written::Text(TextFormat::Csv, out) => text::csv(&line, holds, out)?,
                Written::Text(TextFormat::Jsonl, out) => text::jsonl(&line, holds, out)?,
                Written::Text(TextFormat::Hledger, out) => text::hledger(&line, holds, &mut self.declared, out)?,
                Written::Rows(rows) => rows.add(&line, holds)?,
            }
        }
        Ok(())
    }
}

/// The part of a stream's id before the first slash: the tenant's id, where a tenant has the stream.
fn key<'a>(record: &Record<'a>) -> &'a str {
    record.aggregate_id.split_once('/').map_or(record.aggregate_id, |(key, _)| key)
}

/// What an event means for the book; nothing when its aggregate is not in the book.
fn book(record: &Record<'_>) -> Result<Option<Booked>, ToolError> {
    let corrupt = |error: &dyn std::fmt::Display| {
        ToolError::Corrupt(format!("partition {} position {}: {error}", record.partition, record.position))
    };
    let tenant = || Uuid::try_parse(key(record)).map(TenantId).map_err(|error| corrupt(&error));
    let kind = Kind::of(record.aggregate_type).map_err(|error| corrupt(&error))?;
    let booked = match kind {
        Kind::Wallet => {
            let event: WalletEvent = decode::event(record).map_err(|error| corrupt(&error))?;
            let tenant = tenant()?;
            let entries = wallet_entries(tenant, &event).map_err(|error| corrupt(&error))?;
            Booked { tenant: Some(tenant), effective_at: effective_at(&event, record.recorded_at), entries }
        }
        Kind::Payment => {
            let event: PaymentEvent = decode::event(record).map_err(|error| corrupt(&error))?;
            let entries = payment_entries(&event).map_err(|error| corrupt(&error))?;
            Booked { tenant: Some(tenant()?), effective_at: event.occurred_at(), entries }
        }
        Kind::Payout => {
            let event: PayoutEvent = decode::event(record).map_err(|error| corrupt(&error))?;
            let entries = payout_entries(&event).map_err(|error| corrupt(&error))?;
            Booked { tenant: None, effective_at: event.occurred_at(), entries }
        }
        Kind::Tenant
        | Kind::Licence
        | Kind::ApiKey
        | Kind::Account
        | Kind::Session
        | Kind::Device
        | Kind::EmailClaim
        | Kind::Operation
        | Kind::Adjustment
        | Kind::Period
        | Kind::Reconciliation
        | Kind::LedgerAccess => return Ok(None),
    };
    Ok(Some(booked))
}
