//! An export in a file: under a temporary name until it is whole.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use super::{Exported, JournalStream};
use crate::error::ToolError;

/// Writes an export to a file; `-` is standard output. Until the export is whole it stands under a temporary name beside
/// the file's own, and is removed when it fails. A file that is there already stays, unless `force` replaces it.
///
/// # Errors
/// [`ToolError::Usage`] when the file is there, [`ToolError::Output`] when it cannot be written, and whatever ended the
/// export.
pub async fn to_file(journal: JournalStream, path: &Path, force: bool) -> Result<Exported, ToolError> {
    if path.as_os_str() == "-" {
        return to_standard_output(journal).await;
    }
    let unfinished = unfinished(path, force)?;
    let exported = write(journal, &unfinished.0).await?;
    put_in_place(&unfinished.0, path, force)?;
    Ok(exported)
}

/// The name a file has until it is whole: beside its own, and free again when the answer is dropped.
///
/// # Errors
/// [`ToolError::Usage`] when the file is there already and nothing may replace it.
pub(crate) fn unfinished(path: &Path, force: bool) -> Result<Unfinished, ToolError> {
    if !force && path.symlink_metadata().is_ok() {
        return Err(there_already(path));
    }
    let name = path.file_name().ok_or_else(|| ToolError::Usage(format!("{} is no file's name", path.display())))?;
    // Drawn anew each time: two machines, and two containers on one, have processes of the same number.
    Ok(Unfinished(path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), Uuid::new_v4()))))
}

async fn to_standard_output(mut journal: JournalStream) -> Result<Exported, ToolError> {
    while let Some(piece) = journal.next().await {
        std::io::stdout().lock().write_all(&piece)?;
    }
    let exported = journal.finish().await?;
    std::io::stdout().lock().flush()?;
    Ok(exported)
}

async fn write(mut journal: JournalStream, path: &Path) -> Result<Exported, ToolError> {
    let mut file = File::options().write(true).create_new(true).open(path).await?;
    while let Some(piece) = journal.next().await {
        file.write_all(&piece).await?;
    }
    let exported = journal.finish().await?;
    file.flush().await?;
    file.sync_all().await?;
    Ok(exported)
}

/// Gives the finished file its name.
pub(crate) fn put_in_place(temporary: &Path, path: &Path, force: bool) -> Result<(), ToolError> {
    if force {
        std::fs::rename(temporary, path)?;
    } else {
        name_anew(temporary, path, |from, to| std::fs::hard_link(from, to))?;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(std::fs::File::open(folder)?.sync_all()?)
}

/// A link is made only where there is nothing, which a rename does not promise; but many file systems that backups lie on
/// have none (FAT, shares over a network), and there a look before the rename has to do.
fn name_anew(
    temporary: &Path,
    path: &Path,
    link: impl Fn(&Path, &Path) -> std::io::Result<()>,
) -> Result<(), ToolError> {
    match link(temporary, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(there_already(path)),
        Err(_) if path.symlink_metadata().is_ok() => Err(there_already(path)),
        Err(_) => Ok(std::fs::rename(temporary, path)?),
    }
}

fn there_already(path: &Path) -> ToolError {
    ToolError::Usage(format!("{} is there already; --force replaces it", path.display()))
}

/// The file under its temporary name, which nobody needs once it has its own or has failed.
pub(crate) struct Unfinished(PathBuf);

impl Unfinished {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename it is gone already; one that cannot be removed is plainly named as a part.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_name_where_there_are_no_links_and_never_in_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (folder.path().join("own"), folder.path().join("other"));
        std::fs::write(&other, "theirs").unwrap();
        for link in [
            |_: &Path, _: &Path| Err(ErrorKind::Unsupported.into()),
            |from: &Path, to: &Path| std::fs::hard_link(from, to),
        ] {
            let part = unfinished(&own, false).unwrap();
            std::fs::write(part.path(), "ours").unwrap();
            assert!(matches!(name_anew(part.path(), &other, link), Err(ToolError::Usage(_))));
            name_anew(part.path(), &own, link).unwrap();
            drop(part);
            assert_eq!(std::fs::read_to_string(&own).unwrap(), "ours");
            std::fs::remove_file(&own).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "theirs");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no part is left behind");
    }

    #[test]
    fn two_unfinished_files_of_one_process_do_not_meet() {
        let path = Path::new("somewhere/log");
        assert_ne!(unfinished(path, false).unwrap().path(), unfinished(path, false).unwrap().path());
    }
}
