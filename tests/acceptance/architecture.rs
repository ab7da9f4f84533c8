//! The arrows between the rooms, read from `cargo metadata`: a crate that learns of something it must not know fails here.

#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Which rooms a room may know.
const ARROWS: [(&str, &[&str]); 6] = [
    ("calos-domain", &[]),
    ("calos-commands", &["calos-domain"]),
    ("calos-projections", &["calos-domain"]),
    ("calos-adapters", &["calos-domain", "calos-commands", "calos-projections"]),
    ("calos-replay", &["calos-domain", "calos-commands", "calos-projections", "calos-adapters"]),
    ("calos-api", &["calos-domain", "calos-commands", "calos-projections", "calos-adapters", "calos-replay"]),
];

/// Which libraries a room must never know.
const NEVER: [(&str, &[&str]); 5] = [
    (
        "calos-domain",
        &[
            "async-trait",
            "axum",
            "cqrs-es",
            "futures-util",
            "hyper",
            "postgres-es",
            "rand",
            "reqwest",
            "sqlx",
            "time",
            "tokio",
            "tokio-stream",
            "tracing",
        ],
    ),
    ("calos-commands", &["axum", "hyper", "reqwest", "sqlx", "postgres-es", "clap"]),
    ("calos-projections", &["axum", "hyper", "reqwest", "cqrs-es", "postgres-es", "clap"]),
    ("calos-adapters", &["axum", "clap"]),
    ("calos-replay", &["axum", "hyper", "reqwest"]),
];

/// What would let time, chance or waiting into the domain.
const IMPURE: [&str; 9] =
    ["SystemTime", "Instant::now", "now_utc", "new_v4", "now_v7", "async fn", ".await", "std::env", "std::fs"];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let workspace = metadata.workspace_packages();
    workspace
        .iter()
        .map(|package| {
            let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
            (package.name.to_string(), normal.map(|dependency| dependency.name.clone()).collect())
        })
        .collect()
}

/// The workspace's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust source under a folder of the workspace.
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_arrow_points_the_right_way() {
    let dependencies = dependencies();
    for (room, may_know) in ARROWS {
        let known = dependencies.get(room).unwrap_or_else(|| panic!("there is no crate {room}"));
        for other in known.iter().filter(|name| name.starts_with("calos-")) {
            assert!(may_know.contains(&other.as_str()), "{room} must not know {other}");
        }
    }
}

#[test]
fn no_room_knows_what_it_must_not() {
    let dependencies = dependencies();
    for (room, never) in NEVER {
        for library in never {
            assert!(!dependencies[room].contains(*library), "{room} must never know {library}");
        }
    }
    for (room, known) in &dependencies {
        if room != "calos-api" {
            let serves = ["utoipa", "utoipa-axum", "tower-http"].iter().find(|library| known.contains(**library));
            assert_eq!(serves, None, "only calos-api serves HTTP, but {room} does too");
        }
    }
}

#[test]
fn nothing_waits_reads_a_clock_or_draws_in_the_domain() {
    for source in sources(&root().join("domain/src")) {
        let text = std::fs::read_to_string(&source).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in code.enumerate() {
            for impure in IMPURE {
                assert!(!line.contains(impure), "{}: about line {}: {impure}", source.display(), number + 1);
            }
        }
    }
}

#[test]
fn cqrs_es_and_the_domain_meet_in_one_file_of_the_commands() {
    let naming: Vec<_> = sources(&root().join("commands/src"))
        .into_iter()
        .filter(|source| std::fs::read_to_string(source).unwrap().contains("cqrs_es::"))
        .map(|source| source.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    // `log.rs` drives a decision through the aggregate that `sourced.rs` makes of it.
    assert_eq!(naming, ["log.rs", "sourced.rs"]);
}
