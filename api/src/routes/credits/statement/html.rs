//! A statement as a page that can be printed: one file, no script, nothing loaded from anywhere.

use std::fmt::{Display, Write as _};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use calos_domain::Asset;
use calos_projections::statement::Movement;

use super::sheet::{Head, Running, decimal, is_late};
use crate::error::ApiError;
use crate::moment::rfc3339;

const STYLE: &str = "\
:root{color-scheme:light}\
body{font:14px/1.45 system-ui,sans-serif;color:#111;background:#fff;max-width:64rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:1rem 0}dt{color:#555}dd{margin:0}\
table{width:100%;border-collapse:collapse}caption{text-align:left;color:#555;padding-bottom:.25rem}\
th,td{padding:.25rem .5rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}\
th{border-bottom:2px solid #111}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
td.r{overflow-wrap:anywhere}tr.sum td{font-weight:600;border-bottom:2px solid #111}\
.late{color:#7a3b00}footer{margin-top:2rem;color:#555;font-size:.85rem}\
@page{margin:15mm}\
@media print{body{margin:0;max-width:none;font-size:10pt}thead{display:table-header-group}tr{break-inside:avoid}}";

/// What the page may do: show itself. Its one style sheet is named by its hash.
pub static CONTENT_SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = BASE64.encode(Sha256::digest(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The whole page: the movements it lists, and the balances `before` them. Others follow on the `next` page, if it has
/// one; the closing balances are the whole month's all the same.
///
/// # Errors
/// 500 for a moment beyond the calendar.
pub fn page(head: &Head, before: Running, lines: &[Movement], next: Option<&str>) -> Result<String, ApiError> {
    let more = next.is_some();
    let mut page = String::with_capacity(8_192 + lines.len() * 256);
    let title = format!("Statement {}", head.month);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><header><h1>{title}</h1><dl>"
    );
    if let Some(name) = &head.name {
        fact(&mut page, "Account", &Escaped(name));
    }
    fact(&mut page, "Tenant", &head.tenant_id);
    fact(&mut page, "Period", &format_args!("{} to {} (UTC)", day(head)?.0, day(head)?.1));
    fact(&mut page, "As known at", &rfc3339(head.as_known_at)?);
    let state = match head.closed_at {
        Some(at) => format!("closed {}: it does not change any more", rfc3339(at)?),
        None => "not closed yet: it may still change".to_owned(),
    };
    fact(&mut page, "State", &state);
    page.push_str("</dl></header>\n<main>");
    let after = lines.iter().fold(before, |mut running, line| {
        running.take(line);
        running
    });
    for asset in Asset::ALL {
        section(&mut page, head, asset, before, after, lines, more)?;
    }
    page.push_str("</main>\n<footer>");
    if let Some(cursor) = next {
        let _ = write!(
            page,
            "<p>This page does not list all movements. The next one is asked for with cursor={}; the statement as CSV lists \
             them all.</p>",
            Escaped(cursor)
        );
    }
    page.push_str(
        "<p>Balances include what open holds keep. Every movement names the event behind it (partition:position); its \
         signed receipt is at /api/credits/receipts/{partition}/{position} and can be checked with the key at \
         /.well-known/calos-ledger-key.</p></footer></body></html>\n",
    );
    Ok(page)
}

/// The first and the last day of the month.
fn day(head: &Head) -> Result<(String, String), ApiError> {
    let date = |text: String| text.chars().take(10).collect();
    Ok((rfc3339(head.month.starts_at()).map(date)?, rfc3339(head.month.last_moment()).map(date)?))
}

fn fact(page: &mut String, name: &str, value: &dyn Display) {
    let _ = write!(page, "<dt>{name}</dt><dd>{value}</dd>");
}

fn section(
    page: &mut String,
    head: &Head,
    asset: Asset,
    before: Running,
    after: Running,
    lines: &[Movement],
    more: bool,
) -> Result<(), ApiError> {
    let figures = head.section(asset);
    let (name, unit) = match asset {
        Asset::Usd => ("US dollars", "USD"),
        Asset::Credit => ("Phone credits", "CREDIT"),
    };
    let _ = write!(
        page,
        "<section><h2>{name}</h2><table><caption>All amounts in {unit}</caption><thead><tr><th>Recorded</th>\
         <th>Effective</th><th>Movement</th><th>Reason</th><th>Event</th><th class=\"n\">Amount</th>\
         <th class=\"n\">Balance</th><th class=\"n\">Owed</th></tr></thead><tbody>"
    );
    let first = before == head.opening();
    let (balance, debt) = before.of(asset);
    sum(page, asset, if first { "Opening balance" } else { "Carried forward" }, balance, debt);
    let mut running = before;
    for line in lines.iter().filter(|line| line.asset == asset) {
        row(page, head, line, running.take(line))?;
    }
    if more {
        let (balance, debt) = after.of(asset);
        sum(page, asset, "To be carried forward", balance, debt);
    }
    sum(page, asset, "Closing balance", figures.closing, figures.debt_closing);
    let _ = writeln!(
        page,
        "</tbody></table><p>Of the closing balance, open holds keep {}.</p></section>",
        decimal(asset, figures.held)
    );
    Ok(())
}

fn sum(page: &mut String, asset: Asset, what: &str, balance: i64, debt: i64) {
    let (balance, debt) = (decimal(asset, balance), decimal(asset, debt));
    let _ = write!(
        page,
        "<tr class=\"sum\"><td colspan=\"5\">{what}</td><td class=\"n\"></td><td class=\"n\">{balance}</td>\
         <td class=\"n\">{debt}</td></tr>"
    );
}

fn row(page: &mut String, head: &Head, line: &Movement, after: (i64, i64)) -> Result<(), ApiError> {
    let asset = line.asset;
    let late = is_late(line, head.month);
    let (recorded, effective) = (rfc3339(line.recorded_at)?, rfc3339(line.effective_at)?);
    let (class, note) = if late { (" class=\"late\"", " (late)") } else { ("", "") };
    let (movement, reason) = (Escaped(&line.event), Escaped(&line.reason));
    let (partition, position) = (line.partition, line.position);
    let (amount, balance, debt) = (decimal(asset, line.amount), decimal(asset, after.0), decimal(asset, after.1));
    let _ = write!(
        page,
        "<tr><td>{recorded}</td><td{class}>{effective}{note}</td><td>{movement}</td><td class=\"r\">{reason}</td>\
         <td>{partition}:{position}</td><td class=\"n\">{amount}</td><td class=\"n\">{balance}</td>\
         <td class=\"n\">{debt}</td></tr>"
    );
    Ok(())
}

/// A text in which nothing is markup.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sheet::samples;
    use super::*;

    #[test]
    fn what_people_wrote_is_shown_and_never_run() {
        let head = samples::head();
        let page = page(&head, head.opening(), &samples::lines(), None).unwrap();
        assert!(page.contains("Ada &amp; &lt;Sons&gt;"), "{page}");
        assert!(page.contains("=HYPERLINK(&quot;x&quot;, &lt;b&gt;now&lt;/b&gt;)"), "{page}");
        for forbidden in ["<script", "<b>", "http://", "https://", "src=", "href=", "@import", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden} in {page}");
        }
    }

    #[test]
    fn the_page_opens_and_closes_with_the_balances_and_marks_what_is_late() {
        let head = samples::head();
        let page = page(&head, head.opening(), &samples::lines(), None).unwrap();
        for part in [
            "<h1>Statement 2026-10</h1>",
            "2026-10-01 to 2026-10-31 (UTC)",
            "Opening balance</td><td class=\"n\"></td><td class=\"n\">10.000000</td>",
            "Closing balance</td><td class=\"n\"></td><td class=\"n\">9.498050</td>",
            "<td class=\"late\">2026-09-30T23:59:59.999999Z (late)</td>",
            "<td>3:2</td><td class=\"n\">-0.001950</td><td class=\"n\">9.998050</td>",
            "@media print",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert_eq!(page.matches("<table>").count(), page.matches("</table>").count());
        assert!(!page.contains("does not list all movements"));
    }

    #[test]
    fn a_page_in_the_middle_carries_its_balances_forward() {
        let (head, lines) = (samples::head(), samples::lines());
        let mut before = head.opening();
        before.take(&lines[0]);
        let page = page(&head, before, &lines[1..3], Some("AbC")).unwrap();
        assert!(page.contains("Carried forward</td><td class=\"n\"></td><td class=\"n\">9.998050</td>"), "{page}");
        assert!(
            page.contains("To be carried forward</td><td class=\"n\"></td><td class=\"n\">9.498050</td>"),
            "{page}"
        );
        assert!(page.contains("cursor=AbC;"), "{page}");
    }

    #[test]
    fn the_policy_names_the_style_sheet_and_nothing_else() {
        assert!(
            CONTENT_SECURITY_POLICY.starts_with("default-src 'none'; style-src 'sha256-"),
            "{}",
            *CONTENT_SECURITY_POLICY
        );
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
    }
}
