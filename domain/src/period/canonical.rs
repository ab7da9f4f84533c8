//! What a closed month's hash is taken of.

use std::fmt::Write;

use crate::Timestamp;
use crate::operation::PartitionPosition;

use super::{ClosedLine, Month};

/// The text whose SHA-256 seals a month: UTF-8, every line ended by a line feed, numbers in decimal, moments in
/// microseconds since 1970, fields of a trial balance line separated by one tab.
///
/// ```text
/// calos closed month 1
/// month 2026-10
/// as_known_at 1793577600000000
/// previous <the hash of the month before, or ->
/// heads 0:17,1:4
/// lines 2
/// <account>  <asset>  <debit>  <credit>
/// …
/// ```
///
/// Accounts hold no tab and no line feed (a month with such a line is not closed), and heads and lines are ascending,
/// so one month has one text and two months never share one.
#[must_use]
pub fn canonical_text(
    month: Month,
    as_known_at: Timestamp,
    previous_hash: Option<&str>,
    heads: &[PartitionPosition],
    lines: &[ClosedLine],
) -> String {
    let mut text = String::with_capacity(256 + lines.len() * 64);
    // Writing into a string cannot fail.
    let _ = write!(text, "calos closed month 1\nmonth {month}\nas_known_at {}\n", as_known_at.micros());
    let _ = write!(text, "previous {}\nheads ", previous_hash.unwrap_or("-"));
    for (index, head) in heads.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{}:{}", head.partition, head.position);
    }
    let _ = write!(text, "\nlines {}\n", lines.len());
    for line in lines {
        let _ = writeln!(text, "{}\t{}\t{}\t{}", line.account, line.asset, line.debit, line.credit);
    }
    text
}
