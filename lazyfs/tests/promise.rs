//! The program on a disk that loses power, as the crash test runs it, with both backends: the promise holds; and on a
//! disk that lies about syncs the same run must see it broken, or it would see nothing at all.
//!
//! Needs root and /dev/fuse; where they are missing each test prints a line that begins with SKIPPED. A longer run is one
//! command: see `docs/crash-testing.md`.
#![cfg(target_os = "linux")]
// These tests look at the real machine: its processes and its environment.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code)]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use harness::{Lazy, or_skip};

/// The time of the youngest file below `path`.
fn youngest(path: &Path) -> SystemTime {
    let below = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| youngest(&entry.path()));
    let own = fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    below.fold(own, SystemTime::max)
}

/// The crash test of this build, with the programs it needs.
fn crash_test() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let bins = Path::new(env!("CARGO_BIN_EXE_kifa-lazyfs")).parent().expect("a file lies in a directory");
        let programs = ["kifa", "examples/crash-test"].map(|name| bins.join(name));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the other one");
        let sources = ["src", "examples", "Cargo.toml", "Cargo.lock"].map(|name| youngest(&root.join(name)));
        let source = sources.into_iter().fold(SystemTime::UNIX_EPOCH, SystemTime::max);
        // A test run of both packages has built them; one of this package alone builds no program of the other.
        if programs.iter().any(|program| youngest(program) < source) {
            build();
        }
        let [_, crash_test] = programs;
        crash_test
    })
}

fn build() {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "kifa", "--bin", "kifa", "--example", "crash-test"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let status = build.stdin(Stdio::null()).status().expect("cargo is what started this test");
    assert!(status.success(), "the program under test cannot be built: {status}");
}

/// Runs the crash test: exit code and what it printed.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(crash_test());
    // What is under test is this build, not whatever cargo would make of it.
    command.args(args).args(["--seed", "11", "--entries", "1500"]).arg("-d").arg(dir.path()).env_remove("CARGO");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

/// Whether a file system can be mounted and a ring be made here; the backends to run with.
fn backends() -> Option<Vec<&'static str>> {
    or_skip(Lazy::start().map(drop))?;
    let forced = std::env::var("KIFA_IO_BACKEND").ok();
    let all = ["uring", "portable"].into_iter();
    Some(all.filter(|&backend| forced.as_deref().is_none_or(|forced| forced == "auto" || forced == backend)).collect())
}

#[track_caller]
fn holds(flush_mode: &str, power_loss: &str) {
    for backend in backends().unwrap_or_default() {
        let args = ["--cycles", "4", "--flush-mode", flush_mode, "--io-backend", backend, "--power-loss", power_loss];
        let (code, text) = run(&args);
        assert_eq!(code, Some(0), "{args:?}\n{text}");
        assert!(text.ends_with("the promise holds\n"), "{text}");
    }
}

#[test]
fn cautious_loses_nothing_that_was_confirmed() {
    holds("cautious", "lazyfs");
}

#[test]
fn cautious_loses_nothing_when_the_power_goes_in_the_middle_of_an_operation() {
    holds("cautious", "cut:1000");
}

#[test]
fn normal_loses_49_at_most() {
    holds("normal", "lazyfs");
}

#[test]
fn normal_loses_49_at_most_when_the_power_goes_in_the_middle_of_an_operation() {
    holds("normal", "cut:1000");
}

#[test]
fn a_disk_that_lies_is_found_out() {
    for backend in backends().unwrap_or_default() {
        for flush_mode in ["cautious", "normal"] {
            let (code, text) = run(&[
                "--cycles",
                "3",
                "--flush-mode",
                flush_mode,
                "--io-backend",
                backend,
                "--power-loss",
                "lazyfs",
                "--lie",
            ]);
            assert_eq!(code, Some(1), "{backend} {flush_mode}\n{text}");
            assert!(text.contains("confirmed entries are lost") && text.ends_with("THE PROMISE IS BROKEN\n"), "{text}");
        }
    }
}
