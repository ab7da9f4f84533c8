//! Whom PostgreSQL runs as: the same user as CALOS, or an unprivileged one when CALOS runs as root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

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

    /// Gives `path` to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), ClusterError> {
        match self.switch {
            Some(ids) => chown(path, Some(ids.user), Some(ids.group)).doing("changing the owner of", path),
            None => Ok(()),
        }
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
