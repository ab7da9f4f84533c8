//! A statement as CSV (RFC 4180): one table, one row per movement, with a row before and after them for each asset.
//!
//! Amounts stand twice: as decimal numbers for people, and in the smallest unit (`_units`: micro-dollars, credits) for
//! programs. A text that a spreadsheet would take for a formula is quoted with an apostrophe.

use std::fmt::Write as _;

use calos_domain::Asset;
use calos_projections::statement::Movement;

use super::sheet::{Head, Running, decimal, is_late};
use crate::error::ApiError;
use crate::moment::rfc3339;

/// The first row.
const COLUMNS: &str = "kind,asset,recorded_at,effective_at,late,type,reason,amount,balance,debt,amount_units,\
                       balance_units,debt_units,usage_id,partition,position\r\n";

/// The columns' names and the opening balances.
///
/// # Errors
/// 500 for a moment beyond the calendar.
pub fn opening(head: &Head) -> Result<String, ApiError> {
    let mut text = COLUMNS.to_owned();
    balances(&mut text, "opening", &rfc3339(head.month.starts_at())?, &head.opening());
    Ok(text)
}

/// A movement, and the balances after it.
///
/// # Errors
/// 500 for a moment beyond the calendar.
pub fn movement(text: &mut String, head: &Head, line: &Movement, running: &mut Running) -> Result<(), ApiError> {
    let (balance, debt) = running.take(line);
    let asset = line.asset;
    let late = if is_late(line, head.month) { "late" } else { "" };
    let (recorded, effective) = (rfc3339(line.recorded_at)?, rfc3339(line.effective_at)?);
    let (kind, reason) = (cell(&line.event), cell(&line.reason));
    let (amount, after, owed) = (decimal(asset, line.amount), decimal(asset, balance), decimal(asset, debt));
    let usage = line.usage_id.map(|id| id.to_string()).unwrap_or_default();
    let (units, partition, position) = (line.amount, line.partition, line.position);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "movement,{asset},{recorded},{effective},{late},{kind},{reason},{amount},{after},{owed},{units},{balance},\
         {debt},{usage},{partition},{position}\r\n"
    );
    Ok(())
}

/// The closing balances: what the movements led to.
///
/// # Errors
/// 500 for a moment beyond the calendar.
pub fn closing(head: &Head, running: &Running) -> Result<String, ApiError> {
    let mut text = String::new();
    let at = head.as_known_at.min(head.month.last_moment());
    balances(&mut text, "closing", &rfc3339(at)?, running);
    Ok(text)
}

fn balances(text: &mut String, kind: &str, at: &str, running: &Running) {
    for asset in Asset::ALL {
        let (balance, debt) = running.of(asset);
        let (shown, owed) = (decimal(asset, balance), decimal(asset, debt));
        let _ = write!(text, "{kind},{asset},,{at},,,,,{shown},{owed},,{balance},{debt},,,\r\n");
    }
}

/// A text as a cell: nothing in it is a formula, and separators and quotes are quoted.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let plain = if formula { format!("'{text}") } else { text.to_owned() };
    if plain.contains([',', '"', '\n', '\r']) { format!("\"{}\"", plain.replace('"', "\"\"")) } else { plain }
}

#[cfg(test)]
mod tests {
    use super::super::sheet::samples;
    use super::*;

    #[test]
    fn a_table_has_as_many_cells_in_every_row_and_ends_where_the_movements_lead() {
        let (head, lines) = (samples::head(), samples::lines());
        let mut text = opening(&head).unwrap();
        let mut running = head.opening();
        for line in &lines {
            movement(&mut text, &head, line, &mut running).unwrap();
        }
        text.push_str(&closing(&head, &running).unwrap());
        let rows: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(rows.len(), 1 + 2 + lines.len() + 2);
        for row in &rows {
            let mut quoted = false;
            let separators = row.bytes().filter(|byte| {
                quoted ^= *byte == b'"';
                *byte == b',' && !quoted
            });
            assert_eq!(separators.count(), 15, "{row}");
        }
        assert_eq!(rows[1], "opening,USD,,2026-10-01T00:00:00Z,,,,,10.000000,0.000000,,10000000,0,,,");
        assert_eq!(
            rows[3],
            "movement,USD,2026-10-01T00:00:02Z,2026-10-01T00:00:02Z,,credits_deducted,usage,-0.001950,9.998050,0.000000,\
             -1950,9998050,0,00000000-0000-0000-0000-000000000009,3,2"
        );
        assert!(rows[4].contains(",2026-09-30T23:59:59.999999Z,late,credits_taken,\"'=HYPERLINK(\"\"x\"\", <b>"));
        assert!(rows[7].starts_with("closing,USD,") && rows[7].contains(",9.498050,"), "{}", rows[7]);
        assert!(rows[8].starts_with("closing,CREDIT,") && rows[8].contains(",100,0,,100,0,"), "{}", rows[8]);
    }

    #[test]
    fn no_text_is_a_formula_or_ends_its_row() {
        for (text, written) in [
            ("plain words", "plain words"),
            ("=1+1", "'=1+1"),
            ("-2", "'-2"),
            ("@x,y", "\"'@x,y\""),
            ("a\r\nb", "\"a\r\nb\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
        ] {
            assert_eq!(cell(text), written);
        }
    }
}
