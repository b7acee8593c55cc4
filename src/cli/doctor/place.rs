//! The directory: whether it is there, a store, ours, closed to others, and writable.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Finding, Level};
use crate::cli::exit::Failure;
use crate::engine::check_links;
use crate::io::fs::RealVfs;
#[cfg(unix)]
use crate::io::guard::check_ownership;
use crate::io::lock::writer_alive;
use crate::reactor::open::{Ground as Kind, survey};

/// What can be looked at: the directory, or, where it is absent, the one that it would be made in.
pub(super) struct Ground {
    /// It exists; without symbolic links.
    pub(super) dir: PathBuf,
    is_absent: bool,
}

impl Ground {
    pub(super) fn find(dir: &Path) -> Result<Ground, Failure> {
        let above = match dir.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        match (fs::canonicalize(dir), fs::canonicalize(above)) {
            (Ok(found), _) if found.is_dir() => Ok(Ground { dir: found, is_absent: false }),
            (Ok(_), _) => Err(Failure::could_not_run(format!("{} is not a directory", dir.display()))),
            (Err(error), Ok(above)) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Ground { dir: above, is_absent: true })
            }
            (Err(error), _) => {
                let message =
                    format!("cannot look at {}: {error}; name a directory, or make the one above", dir.display());
                Err(Failure::could_not_run(message))
            }
        }
    }
}

pub(super) fn look(dir: &Path, ground: &Ground) -> Vec<Finding> {
    const SUBJECT: &str = "directory";
    let found = if ground.is_absent { Ok(None) } else { RealVfs::open(&ground.dir).map(|vfs| Some(survey(&vfs))) };
    let is_store = matches!(found, Ok(Some(Ok(Kind::Store))));
    let problem = |finding: String, remedy: &str| Finding::new(Level::Problem, SUBJECT, finding, remedy);
    let mut findings = vec![match found {
        Ok(None) => Finding::ok(SUBJECT, "not there yet; the daemon makes it"),
        Ok(Some(Ok(Kind::Empty))) => Finding::ok(SUBJECT, "no store yet; the daemon makes it one"),
        Ok(Some(Ok(Kind::Store))) if writer_alive(dir) => Finding::ok(SUBJECT, "a store; somebody is writing to it"),
        Ok(Some(Ok(Kind::Store))) => Finding::ok(SUBJECT, "a store; nobody is writing to it"),
        Ok(Some(Ok(Kind::Foreign(what)))) => {
            problem(format!("not a kifa store: {what}"), "name a directory that is empty or absent")
        }
        Ok(Some(Err(error))) => problem(error.to_string(), "look at the kernel's log (dmesg) and the disk's health"),
        Err(error) => problem(format!("cannot be read: {error}"), "run this as its owner"),
    }];
    findings.push(permissions(ground, is_store));
    if !ground.is_absent
        && let Err(error) = check_links(&ground.dir)
    {
        let remedy = "put the file itself in the place of the link; only the directory as a whole may be one";
        findings.push(Finding::new(Level::Problem, "links", error.to_string(), remedy));
    }
    findings
}

#[cfg(unix)]
fn permissions(ground: &Ground, is_store: bool) -> Finding {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::fs::{Access, access};

    const SUBJECT: &str = "permissions";
    let name = ground.dir.display();
    if let Err(errno) = access(&ground.dir, Access::WRITE_OK | Access::EXEC_OK) {
        let user = rustix::process::geteuid().as_raw();
        let finding = format!("user {user} cannot write to {name}: {}", std::io::Error::from(errno));
        return Finding::new(Level::Problem, SUBJECT, finding, "run the daemon as its owner, and mount it read-write");
    }
    let metadata = match fs::metadata(&ground.dir) {
        Ok(metadata) => metadata,
        Err(error) => return super::unknown(SUBJECT, "cannot be looked at", &error),
    };
    let mode = metadata.mode() & 0o7777;
    if ground.is_absent {
        return Finding::ok(SUBJECT, format!("{name}, in which it will be made, can be written to"));
    }
    // The sentence of the daemon, which names its remedy itself.
    if let Err(error) = check_ownership(&ground.dir, is_store) {
        let remedy = format!("chown it to the daemon's user; chmod 700 {name}");
        return Finding::new(Level::Problem, SUBJECT, error.to_string(), remedy);
    }
    let owner = metadata.uid();
    match mode & 0o077 {
        0 => Finding::ok(SUBJECT, format!("mode {mode:04o}, owned by user {owner}")),
        _ => {
            let finding = format!("mode {mode:04o}, owned by user {owner}: others may look into it");
            Finding::new(
                Level::Note,
                SUBJECT,
                finding,
                format!("the files in it are closed to them; if you like: chmod 700 {name}"),
            )
        }
    }
}

#[cfg(not(unix))]
fn permissions(ground: &Ground, _is_store: bool) -> Finding {
    let remedy = format!("see that only the daemon's user may write to {}", ground.dir.display());
    Finding::new(Level::Note, "permissions", "not looked at on this system", remedy)
}
