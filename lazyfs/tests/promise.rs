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
mod programs;

use std::process::{Command, Stdio};

use harness::{Lazy, or_skip};
use programs::program;

/// Runs the crash test: exit code and what it printed.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    // The other one runs it, from beside it.
    program("kifa");
    let mut command = Command::new(program("examples/crash-test"));
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
