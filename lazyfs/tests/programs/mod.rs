//! The programs of the other package, of this very build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// The time of the youngest file below `path`.
fn youngest(path: &Path) -> SystemTime {
    let below = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| youngest(&entry.path()));
    let own = fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    below.fold(own, SystemTime::max)
}

/// The program at this path below those of this build: `kifa`, or `examples/NAME`.
pub(crate) fn program(name: &str) -> PathBuf {
    // One build at a time, and who comes second finds it done.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let bins = Path::new(env!("CARGO_BIN_EXE_kifa-lazyfs")).parent().expect("a file lies in a directory");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the other one");
    let sources = ["src", "examples", "Cargo.toml", "Cargo.lock"].map(|name| youngest(&root.join(name)));
    let source = sources.into_iter().fold(SystemTime::UNIX_EPOCH, SystemTime::max);
    let program = bins.join(name);
    // A test run of both packages has built it; one of this package alone builds no program of the other.
    if youngest(&program) < source {
        build(name);
    }
    program
}

fn build(name: &str) {
    let target = match name.strip_prefix("examples/") {
        Some(example) => ["--example", example],
        None => ["--bin", name],
    };
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "kifa"]).args(target);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let status = build.stdin(Stdio::null()).status().expect("cargo is what started this test");
    assert!(status.success(), "the program under test cannot be built: {status}");
}
