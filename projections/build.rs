//! Names the fold: a hash of every source that decides which rows an event becomes, so that two programs can tell whether
//! they fold alike.

#![expect(clippy::expect_used, reason = "a build script that cannot read the sources has to stop the build")]

use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The read models, and the domain whose events they decode.
const SOURCES: [&str; 2] = ["src", "../domain/src"];

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the folder"));
    let mut hasher = DefaultHasher::new();
    for folder in SOURCES {
        tell_cargo(&format!("cargo::rerun-if-changed={folder}"));
        add(&mut hasher, &root.join(folder));
    }
    tell_cargo(&format!("cargo::rustc-env=CALOS_FOLD_FINGERPRINT={:016x}", hasher.finish()));
}

/// A build script speaks to cargo on its standard output.
fn tell_cargo(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("cargo listens");
}

/// Adds a folder's sources, in the order of their names.
fn add(hasher: &mut DefaultHasher, folder: &Path) {
    let entries = fs::read_dir(folder).expect("the folder is read");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry is read").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            add(hasher, &path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read(&path).expect("a source is read");
            let name = path.file_name().expect("it has a name").as_encoded_bytes();
            for part in [name, &text] {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
        }
    }
}
