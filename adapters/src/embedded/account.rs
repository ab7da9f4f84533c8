//! Whom PostgreSQL runs as: the same user as CALOS, or an unprivileged one when CALOS runs as root.

use std::fs;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;

use super::error::{ClusterError, Doing as _};

/// The users tried in turn when CALOS runs as root.
const UNPRIVILEGED_USERS: [&str; 2] = ["postgres", "nobody"];

/// The system user PostgreSQL runs as.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// The name, as the system's peer authentication reports it.
    pub name: String,
    /// The user CALOS runs as; the same unless it is root.
    pub caller: String,
    /// Set when CALOS runs as root.
    switch: Option<Ids>,
}

#[derive(Debug, Clone, Copy)]
struct Ids {
    user: u32,
    group: u32,
}

impl Account {
    pub(super) fn resolve() -> Result<Self, ClusterError> {
        let caller = id(&["-un"]).ok_or(ClusterError::NoAccount)?;
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { name: caller.clone(), caller, switch: None });
        }
        UNPRIVILEGED_USERS
            .iter()
            .find_map(|name| {
                let user = id(&["-u", name])?.parse().ok().filter(|user| *user != 0)?;
                let group = id(&["-g", name])?.parse().ok()?;
                Some(Self { name: (*name).to_owned(), caller: caller.clone(), switch: Some(Ids { user, group }) })
            })
            .ok_or(ClusterError::NoAccount)
    }

    /// Whether PostgreSQL runs as another user than CALOS.
    pub(super) fn is_other(&self) -> bool {
        self.switch.is_some()
    }

    /// A command that runs as this user, in `folder`, in a process group of its own and without CALOS's environment, which
    /// holds secrets. Standard input is closed.
    pub(super) fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).env_clear().stdin(Stdio::null()).process_group(0);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC").env("HOME", folder);
        if let Some(ids) = self.switch {
            command.uid(ids.user).gid(ids.group);
        }
        command
    }

    /// Gives the folder `path` to this user. A symbolic link is refused: whoever could put one there would have root give
    /// away what it points to.
    pub(super) fn own(&self, path: &Path) -> Result<(), ClusterError> {
        let Some(ids) = self.switch else { return Ok(()) };
        let metadata = fs::symlink_metadata(path).doing("reading", path)?;
        if metadata.is_dir() && metadata.uid() == ids.user {
            return Ok(());
        }
        let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
        let folder = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
        let folder = folder.doing("opening", path)?;
        fchown(&folder, Some(ids.user), Some(ids.group)).doing("changing the owner of", path)
    }

    /// Opens a file of this user to be read and written over. Anything else that this user may have put in its place, be it
    /// a link of either sort, is refused.
    pub(super) fn open_own(&self, path: &Path) -> Result<fs::File, ClusterError> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let file = file.doing("opening", path)?;
        let metadata = file.metadata().doing("reading", path)?;
        if !metadata.is_file() || metadata.uid() != self.user_id() || metadata.nlink() != 1 {
            return Err(Error::from(ErrorKind::PermissionDenied)).doing("writing", path);
        }
        Ok(file)
    }

    /// Whether this user can enter `folder`, found out by doing so.
    pub(super) fn can_enter(&self, folder: &Path) -> bool {
        self.command(Path::new("/bin/sh"), folder).args(["-c", ":"]).status().is_ok_and(|status| status.success())
    }

    /// Whether this user can enter `folder` and write in it, found out by doing so.
    pub(super) fn can_use(&self, folder: &Path) -> bool {
        let mut command = self.command(Path::new("/bin/sh"), folder);
        command.args(["-c", "test -w . && test -x ."]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// The number of the user who owns what PostgreSQL writes.
    pub(super) fn user_id(&self) -> u32 {
        self.switch.map_or_else(|| rustix::process::geteuid().as_raw(), |ids| ids.user)
    }
}

/// What `id` answers, which knows users from every directory service.
fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn root_gives_away_and_writes_to_nothing_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let in_folder = |name: &str| folder.path().join(name);
        let account = Account::resolve().unwrap();
        fs::create_dir(in_folder("roots")).unwrap();
        symlink(in_folder("roots"), in_folder("socket")).unwrap();
        let before = fs::metadata(in_folder("roots")).unwrap().uid();
        assert_eq!(account.own(&in_folder("socket")).is_err(), account.is_other());
        assert_eq!(fs::metadata(in_folder("roots")).unwrap().uid(), before);

        fs::write(in_folder("pg_hba.conf"), "text").unwrap();
        std::os::unix::fs::chown(in_folder("pg_hba.conf"), Some(account.user_id()), None).unwrap();
        assert!(account.open_own(&in_folder("pg_hba.conf")).is_ok());
        symlink(in_folder("pg_hba.conf"), in_folder("symbolic")).unwrap();
        assert!(account.open_own(&in_folder("symbolic")).is_err());
        fs::hard_link(in_folder("pg_hba.conf"), in_folder("hard")).unwrap();
        assert!(account.open_own(&in_folder("hard")).is_err());
    }
}
