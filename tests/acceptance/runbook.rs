//! The runbook's commands exist: whoever needs it has no time for typing errors.

#![expect(clippy::panic, reason = "a test's helper fails the test")]

use std::path::Path;

use calos_replay::cli::Cli;
use clap::Parser;

fn runbook() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbook.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of a line as a shell reads them; the runbook quotes with `"` alone.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// The lines of the blocks of commands, and what stands between backticks in the text.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, block) in text.split("```").enumerate() {
        if index % 2 == 1 {
            found.extend(block.lines().skip(1).map(str::to_owned));
        } else {
            found.extend(block.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_calos_replay_command_of_the_runbook_is_one() {
    let text = runbook();
    let commands = commands(&text);
    let ours: Vec<&String> = commands.iter().filter(|line| line.starts_with("calos-replay ")).collect();
    assert!(ours.len() > 25, "only {} commands were found", ours.len());
    for line in ours {
        if let Err(error) = Cli::try_parse_from(words(line)) {
            panic!("{line}\n{error}");
        }
    }
}

#[test]
fn the_runbook_has_a_page_for_every_emergency_with_its_proof() {
    let text = runbook();
    for heading in [
        "E.1 The server is down",
        "E.2 The database is lost",
        "E.3 Ollama does not respond",
        "E.4 A balance is wrong",
        "The disk is full",
        "A poisoned event",
        "A table of a read model is lost",
        "Restore to a point in time",
    ] {
        let page = text.split("\n## ").find(|page| page.starts_with(heading));
        let page = page.unwrap_or_else(|| panic!("there is no page {heading}"));
        for part in ["**Do:**", "**Proof:**"] {
            assert!(page.contains(part), "{heading} lacks {part}");
        }
    }
}

/// A heading as its link has it.
fn link(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|letter| letter.is_alphanumeric() || *letter == '-').collect()
}

#[test]
fn every_alert_and_every_link_leads_to_a_page_that_is_there() {
    let text = runbook();
    let pages: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("## ")).map(link).collect();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/alerts.yml");
    let rules = std::fs::read_to_string(&rules).unwrap_or_else(|error| panic!("{}: {error}", rules.display()));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.split("runbook.md#").nth(1)).collect();
    assert!(alerts.len() > 5, "{alerts:?}");
    let links = text.split("](#").skip(1).filter_map(|rest| rest.split(')').next());
    for target in alerts.into_iter().chain(links) {
        assert!(pages.iter().any(|page| page == target.trim()), "there is no page {target} among {pages:?}");
    }
}

#[test]
fn a_command_with_a_typing_error_is_found() {
    let wrong = commands("```sh\ncalos-replay rebuild usage_log --resaon \"x\"\n```\nand `calos-replay veryfy`.");
    assert_eq!(wrong.len(), 2);
    assert!(wrong.iter().all(|line| Cli::try_parse_from(words(line)).is_err()), "{wrong:?}");
}
