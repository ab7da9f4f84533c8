//! Makes a cluster: beside its place first, then moved there, so that a kill in between leaves no half of one.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Output;

use super::OWNER_ROLE;
use super::binaries::Binaries;
use super::error::{ClusterError, Doing as _};
use super::files::{create_dir, read_if_there, remove_tree};
use super::location::Location;
use super::settings::{Durability, HOST_BASED_AUTHENTICATION, user_map};

const DRAFT_PREFIX: &str = "data.draft-";
/// What stands at the end of the generated `postgresql.conf`.
const INCLUDE: &str = "\ninclude '../calos.conf'\n# Your own settings belong below this line.\n";

/// The major version that made the cluster, with the cluster's folder, or `None` when there is no cluster yet.
pub(super) fn existing_version(location: &Location) -> Result<Option<(u32, &Path)>, ClusterError> {
    let file = location.data_dir().join("PG_VERSION");
    let Some(text) = read_if_there(&file)? else { return Ok(None) };
    match text.trim().parse() {
        Ok(version) => Ok(Some((version, location.folder()))),
        Err(_) => Err(ClusterError::Program { program: "reading PG_VERSION", output: format!("`{}`", text.trim()) }),
    }
}

/// Makes the cluster; the caller holds the lock.
pub(super) fn create(location: &Location, binaries: &Binaries, durability: Durability) -> Result<(), ClusterError> {
    remove_drafts(location.folder())?;
    // A name of its own: an initdb whose CALOS was killed may still be writing into the one that was removed.
    let draft = location.folder().join(format!("{DRAFT_PREFIX}{}", std::process::id()));
    let (locale, fallback) = if cfg!(target_os = "macos") { ("C", "C") } else { ("C.UTF-8", "C") };
    if let Err(error) = initdb(location, binaries, &draft, locale) {
        // Not every system has C.UTF-8; the encoding is the same either way.
        if locale == fallback || !error.to_string().contains("locale") {
            return Err(error);
        }
        remove_tree(&draft)?;
        initdb(location, binaries, &draft, fallback)?;
    }
    write(location, &draft.join("postgresql.conf"), Write::Behind, INCLUDE)?;
    write(location, &draft.join("pg_hba.conf"), Write::Over, HOST_BASED_AUTHENTICATION)?;
    write(location, &draft.join("pg_ident.conf"), Write::Over, &user_map(location))?;
    if durability == Durability::Full {
        let mut sync = location.account.command(&binaries.initdb(), &draft);
        run("initdb --sync-only", sync.arg("--sync-only").arg("-D").arg(&draft).output())?;
    }
    let data = location.data_dir();
    fs::rename(&draft, &data).doing("creating", &data)?;
    fs::File::open(location.folder()).and_then(|folder| folder.sync_all()).doing("syncing", location.folder())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Behind,
    Over,
}

/// Writes to one of the files that initdb left, which lie in a folder of PostgreSQL's user.
fn write(location: &Location, path: &Path, how: Write, text: &str) -> Result<(), ClusterError> {
    let mut file = location.account.open_own(path)?;
    let placed = match how {
        Write::Behind => file.seek(SeekFrom::End(0)).map(|_| ()),
        Write::Over => file.set_len(0),
    };
    placed.and_then(|()| file.write_all(text.as_bytes())).doing("writing", path)
}

fn remove_drafts(folder: &Path) -> Result<(), ClusterError> {
    for entry in fs::read_dir(folder).doing("reading", folder)? {
        let entry = entry.doing("reading", folder)?;
        if entry.file_name().to_string_lossy().starts_with(DRAFT_PREFIX) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

fn initdb(location: &Location, binaries: &Binaries, draft: &Path, locale: &str) -> Result<(), ClusterError> {
    create_dir(draft, 0o700)?;
    location.account.own(draft)?;
    let mut command = location.account.command(&binaries.initdb(), draft);
    command.arg("-D").arg(draft);
    command.args(["--username", OWNER_ROLE, "--auth", "peer", "--encoding", "UTF8", "--locale", locale]);
    command.args(["--data-checksums", "--no-sync", "--no-instructions"]);
    run("initdb", command.output())
}

fn run(program: &'static str, output: std::io::Result<Output>) -> Result<(), ClusterError> {
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = if output.stderr.is_empty() { output.stdout } else { output.stderr };
            Err(ClusterError::Program { program, output: String::from_utf8_lossy(&said).trim().to_owned() })
        }
        Err(error) => Err(ClusterError::Program { program, output: error.to_string() }),
    }
}
