//! The journal as columns, one row per posting, on their way into a Parquet file.

use std::collections::HashMap;
use std::ops::Range;

use calos_domain::TenantId;

use super::Holds;
use super::slice::Line;
use super::text::{account, units};
use crate::error::ToolError;

/// Columns of postings. Texts that come again and again stand once and are named by number.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) partition: Vec<i32>,
    pub(super) position: Vec<i64>,
    pub(super) effective_at: Vec<i64>,
    pub(super) recorded_at: Vec<i64>,
    pub(super) tenant: Vec<Option<TenantId>>,
    /// The name's number in [`Self::event_names`].
    pub(super) event_type: Vec<usize>,
    pub(super) asset: Vec<&'static str>,
    /// Where the name stands in [`Self::names`].
    pub(super) account: Vec<Range<usize>>,
    pub(super) units: Vec<i64>,
    pub(super) event_names: Vec<String>,
    pub(super) names: Vec<u8>,
    numbers: HashMap<String, usize>,
}

impl Rows {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    /// One row for each posting of an entry.
    pub(super) fn add(&mut self, line: &Line<'_>, holds: Holds) -> Result<(), ToolError> {
        let record = line.record;
        let event_type = self.number(record.event_type);
        for posting in &line.entry.postings {
            let begin = self.names.len();
            account(&posting.account, holds, &mut self.names)?;
            self.account.push(begin..self.names.len());
            self.partition.push(record.partition);
            self.position.push(record.position);
            self.effective_at.push(line.effective_at.micros());
            self.recorded_at.push(record.recorded_at.micros());
            self.tenant.push(line.tenant);
            self.event_type.push(event_type);
            self.asset.push(line.entry.asset.as_str());
            self.units.push(units(line, posting)?);
        }
        Ok(())
    }

    /// Adds the rows that follow.
    pub(super) fn append(&mut self, next: Self) {
        if self.len() == 0 {
            *self = next;
            return;
        }
        let begin = self.names.len();
        self.names.extend_from_slice(&next.names);
        self.account.extend(next.account.into_iter().map(|name| begin + name.start..begin + name.end));
        let numbers: Vec<usize> = next.event_names.iter().map(|name| self.number(name)).collect();
        self.event_type.extend(next.event_type.into_iter().filter_map(|number| numbers.get(number).copied()));
        self.partition.extend(next.partition);
        self.position.extend(next.position);
        self.effective_at.extend(next.effective_at);
        self.recorded_at.extend(next.recorded_at);
        self.tenant.extend(next.tenant);
        self.asset.extend(next.asset);
        self.units.extend(next.units);
    }

    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.event_names.len();
        self.event_names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}
