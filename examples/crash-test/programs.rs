//! The programs of this build, and those of the system.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The programs under test.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) kifa: PathBuf,
    pub(crate) lazyfs: Option<PathBuf>,
}

/// Finds a program of this build: beside this one, or in the directory above, where cargo puts it.
fn beside(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("this program does not know where it is: {error}"))?;
    let dirs = [own.parent(), own.parent().and_then(Path::parent)];
    let found = dirs.into_iter().flatten().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not beside {}; build it, or name it by its option", own.display()))
}

/// Builds a program as this one was built, if cargo is what started us; cargo itself knows whether there is anything to do.
fn build(package: &str) -> Result<(), String> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", package, "--bins"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{package} cannot be built: {status}")),
        Err(error) => Err(format!("cargo cannot be started: {error}")),
    }
}

impl Programs {
    /// Those that were named, else those of this build.
    pub(crate) fn find(kifa: Option<&Path>, lazyfs: Option<&Path>, wants_lazyfs: bool) -> Result<Programs, String> {
        let one = |named: Option<&Path>, package: &str, name: &str| match named {
            Some(path) => std::path::absolute(path).map_err(|error| error.to_string()),
            None => build(package).and_then(|()| beside(name)),
        };
        let kifa = one(kifa, "kifa", "kifa")?;
        let lazyfs = if wants_lazyfs { Some(one(lazyfs, "kifa-lazyfs", "kifa-lazyfs")?) } else { None };
        Ok(Programs { kifa, lazyfs })
    }
}

/// Runs a program of the system to its end; what it printed, or why not.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
