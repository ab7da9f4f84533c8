//! Small file work: folders with an exact mode, files that appear whole.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::error::{ClusterError, Doing as _};

/// Creates `path` with `mode` unless it is there; whether it was created. The umask has no say.
pub(super) fn create_dir(path: &Path, mode: u32) -> Result<bool, ClusterError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            fs::set_permissions(path, Permissions::from_mode(mode)).doing("setting the mode of", path)?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).doing("creating", path),
    }
}

/// Writes `path` with `mode` so that a reader sees the old file or the new one, never half of it.
pub(super) fn write_whole(path: &Path, mode: u32, text: &str) -> Result<(), ClusterError> {
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).doing("removing", &draft),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft).doing("writing", &draft)?;
    file.set_permissions(Permissions::from_mode(mode)).doing("setting the mode of", &draft)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).doing("writing", &draft)?;
    fs::rename(&draft, path).doing("writing", path)
}

/// The text of `path`, or `None` when it is not there.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, ClusterError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("reading", path),
    }
}

/// Removes `path` with all it holds, if it is there.
pub(super) fn remove_tree(path: &Path) -> Result<(), ClusterError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).doing("removing", path),
        Ok(()) | Err(_) => Ok(()),
    }
}
