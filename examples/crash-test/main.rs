//! Crash cycles on the real program: generate, store with `--confirm`, kill or cut the power at a random moment, start
//! again, and look at what is left. Exit code 0 only if the promise holds.
//!
//! ```text
//! cargo ct -d ./crash --cycles 50                                  # SIGKILL, on the disk that ./crash is on
//! cargo ct -d ./crash --cycles 20 --power-loss lazyfs              # all that was not synced is lost (root)
//! cargo ct -d ./crash --cycles 20 --power-loss cut:2000            # the same, torn, in the middle of an operation
//! cargo ct -d ./crash --cycles 20 --power-loss cut:2000 --fs ext4  # below a real file system
//! ```
//!
//! - `args`: the command line. `ground`: what the store lies on, and how its power fails. `daemon`: the program under
//!   test and what it was told. `oracle`: what has to be found, and what was.
//! - It starts children, kills only these, and leaves nothing behind: each file system that it mounts is mounted in a
//!   name space of its own, and ends when this program does, however that ends.
//!
//! `docs/crash-testing.md` tells more; `lazyfs/tests/promise.rs` runs it, also on a disk that lies.
// It looks at the real machine: its clock, its threads, its processes.
#![allow(clippy::disallowed_methods)]

#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod cycle;
#[cfg(target_os = "linux")]
mod daemon;
#[cfg(target_os = "linux")]
mod ground;
#[cfg(target_os = "linux")]
mod lazyfs;
#[cfg(target_os = "linux")]
mod oracle;
#[cfg(target_os = "linux")]
mod programs;
#[cfg(target_os = "linux")]
#[path = "../gen-transactions/transactions.rs"]
mod transactions;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    cycle::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("crash-test runs on Linux only");
    std::process::ExitCode::from(2)
}
