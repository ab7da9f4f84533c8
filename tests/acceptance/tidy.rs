//! What a reader should never stumble over.

#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::path::Path;

use super::architecture::{root, sources};

/// The longest file, in lines; the aim is 400.
const FILE_MAX_LINES: usize = 450;

/// The longest function, in lines; the aim is 70.
const FUNCTION_MAX_LINES: usize = 90;

/// Words that say the work is not done. Split, so that this file does not hold them.
const UNDONE: [&str; 4] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("HA", "CK:")];

fn each_source(mut look: impl FnMut(&Path, &str)) {
    for source in sources(&root()) {
        let text = std::fs::read_to_string(&source).unwrap();
        look(source.strip_prefix(root()).unwrap(), &text);
    }
}

/// Collects every fault, so that one run names them all.
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    let mut faults = Vec::new();
    each_source(|path, text| {
        let lines = text.lines().count();
        if lines > FILE_MAX_LINES {
            faults.push(format!("{}: {lines} lines, {FILE_MAX_LINES} at the most", path.display()));
        }
    });
    assert_none(&faults);
}

#[test]
fn no_function_is_too_long() {
    let mut faults = Vec::new();
    each_source(|path, text| {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let body = line.trim_start();
            let heads = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn "];
            if !heads.iter().any(|head| body.starts_with(head)) || line.ends_with('}') || line.ends_with(';') {
                continue;
            }
            let close = format!("{}}}", &line[..line.len() - body.len()]);
            let length = lines[start..].iter().position(|line| *line == close).map_or(0, |end| end + 1);
            if length > FUNCTION_MAX_LINES {
                faults.push(format!(
                    "{}:{}: {length} lines, {FUNCTION_MAX_LINES} at the most",
                    path.display(),
                    start + 1
                ));
            }
        }
    });
    assert_none(&faults);
}

#[test]
fn nothing_is_left_undone_and_no_comment_is_a_banner() {
    let mut faults = Vec::new();
    each_source(|path, text| {
        for (number, line) in text.lines().enumerate() {
            let comment = line.trim_start().trim_start_matches('/').trim();
            let is_comment = line.trim_start().starts_with("//");
            let rule = comment.chars().take_while(|letter| "-=*#~_".contains(*letter)).count();
            if is_comment && rule >= 4 {
                faults.push(format!("{}:{}: a banner line", path.display(), number + 1));
            }
            if let Some(word) = UNDONE.iter().find(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
            if line.trim_start().starts_with(concat!("#[all", "ow(")) {
                faults.push(format!("{}:{}: expect, with a reason, instead of allow", path.display(), number + 1));
            }
        }
    });
    assert_none(&faults);
}

#[test]
fn every_migration_opens_with_a_comment_that_says_why() {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(root().join("migrations")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-- "), "{name} does not open with a comment");
        numbers.push(name.split_once('_').unwrap().0.parse::<usize>().unwrap());
    }
    numbers.sort_unstable();
    let gapless: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(numbers, gapless, "migrations are numbered without gaps or doubles");
}
