//! The journal in text: CSV, JSON lines, and hledger's own.
//!
//! Nothing is formatted through floating point, and every amount is written with all the digits its asset has: a
//! micro-dollar is `0.000001 USD`, a phone credit is `1 CREDIT`. Dates and moments are UTC.

use std::collections::HashSet;
use std::io::Write as _;

use serde_json::json;

use calos_domain::book::{Account, Posting};
use calos_domain::time::{MICROS_PER_SECOND, SECONDS_PER_DAY};
use calos_domain::{Asset, Timestamp};

use super::slice::Line;
use super::{Exported, Holds, JournalExport, TextFormat};
use crate::error::ToolError;
use crate::time_text::show;

/// Smallest units in one unit, and how many digits that takes.
const fn scale(asset: Asset) -> (u64, usize) {
    match asset {
        Asset::Usd => (1_000_000, 6),
        Asset::Credit => (1, 0),
    }
}

const CSV_COLUMNS: &str = "partition,position,effective_at,recorded_at,tenant_id,event_type,asset,account,amount\n";

/// What stands before the first entry.
pub(super) fn head(format: TextFormat, export: JournalExport, exported: &Exported) -> Result<Vec<u8>, ToolError> {
    let mut out = Vec::new();
    match format {
        TextFormat::Csv => {
            for line in preface(export, exported) {
                writeln!(out, "# {line}")?;
            }
            out.extend_from_slice(CSV_COLUMNS.as_bytes());
        }
        TextFormat::Hledger => {
            for line in preface(export, exported) {
                writeln!(out, "; {line}")?;
            }
            out.extend_from_slice(b"\ndecimal-mark .\ncommodity 1000.000000 USD\ncommodity 1000. CREDIT\n\n");
        }
        TextFormat::Jsonl => {
            let begin = json!({ "journal": {
                "logId": exported.log_id,
                "heads": exported.heads,
                "tenantId": export.tenant,
                "from": export.from.map(show),
                "to": export.to.map(show),
                "holds": export.holds,
            } });
            writeln!(out, "{begin}")?;
        }
    }
    Ok(out)
}

/// What stands behind the last entry: whoever finds it has the whole.
pub(super) fn end(format: TextFormat, exported: &Exported, out: &mut Vec<u8>) -> Result<(), ToolError> {
    let Exported { events, entries, postings, .. } = exported;
    match format {
        TextFormat::Csv => writeln!(out, "# end: {entries} entries, {postings} postings of {events} events")?,
        TextFormat::Hledger => {
            writeln!(out, "; end: {entries} entries, {postings} postings of {events} events")?;
        }
        TextFormat::Jsonl => {
            writeln!(out, "{}", json!({ "end": { "entries": entries, "postings": postings, "events": events } }))?;
        }
    }
    Ok(())
}

/// Where the export stands, in lines of text.
pub(super) fn preface(export: JournalExport, exported: &Exported) -> Vec<String> {
    let mut lines = vec![
        format!("CALOS journal of the log {}", exported.log_id),
        format!("up to the positions {}", heads(exported)),
    ];
    if let Some(tenant) = export.tenant {
        lines.push(format!("of the tenant {tenant} alone"));
    }
    if let Some(from) = export.from {
        lines.push(format!("effective at {} or later", show(from)));
    }
    if let Some(to) = export.to {
        lines.push(format!("effective before {}", show(to)));
    }
    if export.holds == Holds::Together {
        lines.push("the holds of a tenant share one account".to_owned());
    }
    lines
}

/// `partition:position` of every partition, separated by blanks.
pub(super) fn heads(exported: &Exported) -> String {
    let heads: Vec<String> = exported.heads.iter().map(|(partition, head)| format!("{partition}:{head}")).collect();
    heads.join(" ")
}

/// One row per posting.
pub(super) fn csv(line: &Line<'_>, holds: Holds, out: &mut Vec<u8>) -> Result<(), ToolError> {
    let record = line.record;
    for posting in &line.entry.postings {
        write!(out, "{},{},", record.partition, record.position)?;
        moment(line.effective_at, out);
        out.push(b',');
        moment(record.recorded_at, out);
        out.push(b',');
        if let Some(tenant) = line.tenant {
            write!(out, "{tenant}")?;
        }
        // Event names are the catalogue's and account names the book's: neither has a comma or a quote.
        write!(out, ",{},{},", record.event_type, line.entry.asset)?;
        account(&posting.account, holds, out)?;
        out.push(b',');
        amount(units(line, posting)?, line.entry.asset, out);
        out.push(b'\n');
    }
    Ok(())
}

/// One object per entry.
pub(super) fn jsonl(line: &Line<'_>, holds: Holds, out: &mut Vec<u8>) -> Result<(), ToolError> {
    let record = line.record;
    write!(out, "{{\"partition\":{},\"position\":{},\"effectiveAt\":\"", record.partition, record.position)?;
    moment(line.effective_at, out);
    out.extend_from_slice(b"\",\"recordedAt\":\"");
    moment(record.recorded_at, out);
    match line.tenant {
        Some(tenant) => write!(out, "\",\"tenantId\":\"{tenant}\"")?,
        None => out.extend_from_slice(b"\",\"tenantId\":null"),
    }
    write!(out, ",\"type\":\"{}\",\"asset\":\"{}\",\"postings\":[", record.event_type, line.entry.asset)?;
    for (index, posting) in line.entry.postings.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"account\":\"" } else { b"{\"account\":\"" });
        account(&posting.account, holds, out)?;
        out.extend_from_slice(b"\",\"amount\":\"");
        amount(units(line, posting)?, line.entry.asset, out);
        out.extend_from_slice(b"\"}");
    }
    out.extend_from_slice(b"]}\n");
    Ok(())
}

/// One transaction, on its effective date, and before it the accounts that this slice has not declared yet. hledger takes
/// an account that is declared more than once.
pub(super) fn hledger(
    line: &Line<'_>,
    holds: Holds,
    declared: &mut HashSet<Account>,
    out: &mut Vec<u8>,
) -> Result<(), ToolError> {
    let record = line.record;
    for posting in &line.entry.postings {
        if !declared.contains(&posting.account) {
            declared.insert(posting.account.clone());
            out.extend_from_slice(b"account ");
            account(&posting.account, holds, out)?;
            out.push(b'\n');
        }
    }
    date(line.effective_at, out);
    write!(out, " ({}:{}) {}  ; effective:", record.partition, record.position, record.event_type)?;
    moment(line.effective_at, out);
    out.extend_from_slice(b", recorded:");
    moment(record.recorded_at, out);
    out.push(b'\n');
    for posting in &line.entry.postings {
        out.extend_from_slice(b"    ");
        account(&posting.account, holds, out)?;
        out.extend_from_slice(b"  ");
        amount(units(line, posting)?, line.entry.asset, out);
        writeln!(out, " {}", line.entry.asset)?;
    }
    out.push(b'\n');
    Ok(())
}

/// An account's name.
pub(super) fn account(account: &Account, holds: Holds, out: &mut Vec<u8>) -> Result<(), ToolError> {
    match (account, holds) {
        (Account::Held(tenant, _), Holds::Together) => write!(out, "Liabilities:Wallet:{tenant}:Held")?,
        (account, Holds::Each | Holds::Together) => write!(out, "{account}")?,
    }
    Ok(())
}

/// A posting in the smallest unit of its asset.
pub(super) fn units(line: &Line<'_>, posting: &Posting) -> Result<i64, ToolError> {
    i64::try_from(posting.amount).map_err(|_| {
        let (partition, position) = (line.record.partition, line.record.position);
        ToolError::Corrupt(format!("partition {partition} position {position}: {} is out of range", posting.amount))
    })
}

/// An amount with all the digits its asset has.
fn amount(units: i64, asset: Asset, out: &mut Vec<u8>) {
    let (scale, digits) = scale(asset);
    if units < 0 {
        out.push(b'-');
    }
    let units = units.unsigned_abs();
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(units / scale).as_bytes());
    if digits > 0 {
        out.push(b'.');
        padded(units % scale, digits, out);
    }
}

fn padded(number: u64, digits: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number);
    out.extend(std::iter::repeat_n(b'0', digits.saturating_sub(text.len())));
    out.extend_from_slice(text.as_bytes());
}

/// `2026-01-31`
fn date(at: Timestamp, out: &mut Vec<u8>) {
    let month = at.utc_month();
    let first = Timestamp::of_utc_month(month).utc_day();
    if month < 0 {
        out.push(b'-');
    }
    padded(month.div_euclid(12).unsigned_abs(), 4, out);
    out.push(b'-');
    padded(month.rem_euclid(12).unsigned_abs() + 1, 2, out);
    out.push(b'-');
    padded((at.utc_day() - first).unsigned_abs() + 1, 2, out);
}

/// `2026-01-31T12:00:00.123456Z`, always with six digits, so that a column of them sorts as text.
fn moment(at: Timestamp, out: &mut Vec<u8>) {
    date(at, out);
    let of_day = at.micros().rem_euclid(SECONDS_PER_DAY * MICROS_PER_SECOND);
    let (seconds, micros) = (of_day / MICROS_PER_SECOND, of_day % MICROS_PER_SECOND);
    for (mark, number) in [(b'T', seconds / 3_600), (b':', seconds / 60 % 60), (b':', seconds % 60)] {
        out.push(mark);
        padded(number.unsigned_abs(), 2, out);
    }
    out.push(b'.');
    padded(micros.unsigned_abs(), 6, out);
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn amounts_have_every_digit_of_their_asset_and_no_more() {
        let usd = |units| text(|out| amount(units, Asset::Usd, out));
        assert_eq!(
            [0, 1, -1, 1_500, -10_000_000].map(usd),
            ["0.000000", "0.000001", "-0.000001", "0.001500", "-10.000000"]
        );
        assert_eq!(usd(i64::MIN), "-9223372036854.775808");
        let credit = |units| text(|out| amount(units, Asset::Credit, out));
        assert_eq!([0, 7, -20].map(credit), ["0", "7", "-20"]);
    }

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        for micros in
            [0, -1, 1_709_251_199_999_999, 1_709_164_800_000_000, 1_767_225_600_000_000, -62_135_596_800_000_000]
        {
            let at = Timestamp::from_micros(micros);
            let written = text(|out| moment(at, out));
            assert_eq!(crate::time_text::parse(&written), Ok(at), "{written}");
            assert_eq!(written.len(), "2026-01-31T12:00:00.123456Z".len());
            assert_eq!(text(|out| date(at, out)), written[..10]);
        }
    }
}
