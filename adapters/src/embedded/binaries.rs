//! Finds PostgreSQL's server programs: in `PATH`, where packages put them (newest first), and by `pg_config`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::ClusterError;

/// The oldest major version that serves.
pub(super) const MINIMUM_VERSION: u32 = 14;

/// Folders whose entries hold a `bin` of one version each.
const PACKAGE_PARENTS: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
];

/// The programs of one PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    folder: PathBuf,
    /// The major version.
    pub version: u32,
}

impl Binaries {
    /// The first ones found, of `version` when that is given.
    pub(super) fn find(version: Option<(u32, &Path)>) -> Result<Self, ClusterError> {
        let mut found = Vec::new();
        for folder in candidates() {
            let Some(binaries) = Self::at(&folder) else { continue };
            match version {
                None => return Ok(binaries),
                Some((wanted, _)) if wanted == binaries.version => return Ok(binaries),
                Some(_) => found.push(binaries.version.to_string()),
            }
        }
        match version {
            Some((wanted, folder)) if !found.is_empty() => {
                found.dedup();
                Err(ClusterError::OtherVersion { folder: folder.to_owned(), wanted, found: found.join(", ") })
            }
            Some(_) | None => Err(ClusterError::NoBinaries { minimum: MINIMUM_VERSION }),
        }
    }

    /// The path of `initdb`.
    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    /// The path of `postgres`.
    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    fn at(folder: &Path) -> Option<Self> {
        // `initdb` and its share files are found beside the real program, not beside a link to it.
        let program = folder.join("postgres").canonicalize().ok()?;
        let folder = program.parent()?.to_owned();
        if !folder.join("initdb").exists() {
            return None;
        }
        let output = Command::new(&program).arg("--version").stdin(Stdio::null()).output().ok()?;
        let version = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        (version >= MINIMUM_VERSION).then_some(Self { folder, version })
    }
}

/// Every folder worth a look, in order, each looked at only when it is reached.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|folder| folder.join("postgres").exists()).collect();
    in_path.into_iter().chain(PACKAGE_PARENTS.iter().flat_map(|(parent, prefix)| packaged(parent, prefix))).chain(
        std::iter::once_with(|| {
            let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output().ok()?;
            Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
        })
        .flatten(),
    )
}

/// The `bin` folders of the versions under `parent`, newest first.
fn packaged(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|one, other| other.cmp(one));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)`; of 9.6 it is 9.
fn parse_version(text: &str) -> Option<u32> {
    let number = text.split(") ").nth(1)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("postgres (PostgreSQL) 17devel\n"), Some(17));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn a_cluster_of_a_version_that_is_not_installed_is_refused_with_both_versions() {
        let error = Binaries::find(Some((99, Path::new("/somewhere")))).unwrap_err().to_string();
        assert!(error.contains("made by PostgreSQL 99") && error.contains("/somewhere"), "{error}");
    }
}
