//! The programs under test. Cargo builds them for nobody but `make test`, so what is missing or out of date is said.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What brings them up to date.
const REMEDY: &str = "build it first: `cargo build --workspace --bins`, or run `make test`";

/// The path of a program built by cargo beside this test, in the same profile, from the sources as they are now.
///
/// # Panics
/// When it was not built, or a source has changed since, with what to do about it.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let program = test.ancestors().nth(2).expect("target/<profile>/deps").join(name);
    let built_at = modified(&program).unwrap_or_else(|| panic!("{} is not there; {REMEDY}", program.display()));
    for source in sources(&program.with_extension("d")) {
        let current = modified(&source).is_some_and(|changed_at| changed_at <= built_at);
        assert!(current, "{} is older than {}; {REMEDY}", program.display(), source.display());
    }
    program
}

/// What cargo built a program from, as its `.d` file beside it says: `program: source source …`, spaces escaped.
fn sources(list: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(list).unwrap_or_else(|error| panic!("{}: {error}; {REMEDY}", list.display()));
    let (_, sources) = text.split_once(": ").unwrap_or_else(|| panic!("{} lists no sources; {REMEDY}", list.display()));
    let spaced = sources.trim_end().replace("\\ ", "\0");
    spaced.split(' ').map(|source| PathBuf::from(source.replace('\0', " "))).collect()
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|about| about.modified()).ok()
}
