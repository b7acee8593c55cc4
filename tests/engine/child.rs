//! Another process: this test binary again, told by the environment what to do.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kifa::{FlushMode, Reader, ScanRange};

use crate::helper::*;

const ROLE: &str = "KIFA_TEST_ROLE";
const DIR: &str = "KIFA_TEST_DIR";
const OUT: &str = "KIFA_TEST_OUT";
const ARG: &str = "KIFA_TEST_ARG";

/// Threads that append in [`append_until_killed`].
pub(crate) const THREADS: u64 = 4;

/// A command that runs `role` on the store in `dir`; what it has to tell goes to the file `out`.
pub(crate) fn command(role: &str, dir: &Path, out: &Path, arg: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.args(["--exact", "child::role", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(DIR, dir).env(OUT, out).env(ARG, arg.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A running child; killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(role: &str, dir: &Path, out: &Path, arg: u64) -> Running {
        Running(command(role, dir, out, arg).spawn().expect("this binary runs"))
    }

    pub(crate) fn wait_for(&mut self, out: &Path, bytes: u64) {
        wait_until("the child says something", Duration::from_secs(60), || {
            let ended = self.0.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "the child ended: {ended:?}");
            out.metadata().is_ok_and(|metadata| metadata.len() >= bytes)
        });
    }

    /// SIGKILL; returns when it is gone, with the last of its requests, which keep the lock of the store until then.
    pub(crate) fn kill(&mut self, store: &Path) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ended");
        let is_free = || File::open(store.join("LOCK")).map_or(true, |lock| lock.try_lock_shared().is_ok());
        wait_until("the lock is free", Duration::from_secs(10), is_free);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing to do for one that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does nothing in an ordinary run.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let path = |name: &str| PathBuf::from(std::env::var_os(name).expect("the parent sets it"));
    let arg = std::env::var(ARG).expect("the parent sets it").parse().expect("a number");
    let (dir, out) = (path(DIR), path(OUT));
    match role.as_str() {
        "hold" => hold(&dir, &out, arg),
        "append" => append_until_killed(&dir, &out, arg),
        "rotate" => abort_at_rotation(&dir, &out),
        "scan" => scan(&dir, &out),
        "pinned" => crate::affinity::pinned(&dir, arg),
        other => panic!("there is no role {other}"),
    }
}

/// Appends `entries` and then keeps the log open.
fn hold(dir: &Path, out: &Path, entries: u64) {
    let log = open(dir, options());
    append(&log, 0..entries, 500);
    std::fs::write(out, b"ready").unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

pub(crate) fn mode_of(number: u64) -> FlushMode {
    [FlushMode::Normal, FlushMode::Cautious, FlushMode::Emergency][number as usize]
}

/// Several threads append; each confirmation goes to `out` as LSN and id. `arg` is the mode and, in the high half, the
/// number of this life.
fn append_until_killed(dir: &Path, out: &Path, arg: u64) {
    let (mode, life) = (mode_of(arg & 0xFF), arg >> 32);
    let mut options = tiny();
    options.flush_mode = mode;
    let log = open(dir, options);
    let out = OpenOptions::new().create(true).append(true).open(out).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, out) = (&log, &out);
            scope.spawn(move || append_and_tell(log, out, life << 40 | thread << 32));
        }
    });
}

fn append_and_tell(log: &kifa::Log, mut out: &File, first: u64) {
    for id in first.. {
        let lsn = log.append(&payload(id, bytes_of(id))).unwrap();
        let mut told = [0; 16];
        told[..8].copy_from_slice(&lsn.0.to_le_bytes());
        told[8..].copy_from_slice(&id.to_le_bytes());
        // One write in append mode: whole, and behind those of the other threads.
        assert_eq!(out.write(&told).unwrap(), told.len());
    }
}

/// Lengths that vary: most entries are short, some fill blocks.
pub(crate) fn bytes_of(id: u64) -> usize {
    match id % 61 {
        0 => 20_000,
        small => 8 + 10 * small as usize,
    }
}

/// Appends until an entry has gone to the second segment, as its first group, and ends without a word to the log.
fn abort_at_rotation(dir: &Path, out: &Path) {
    let mut options = options();
    options.segment_bytes = 1 << 20;
    let log = open(dir, options);
    for id in 0.. {
        log.append(&payload(id, 30_000)).unwrap();
        let stats = log.stats().unwrap();
        if stats.wal_segments == 2 {
            wait_until("spares are there", Duration::from_secs(20), || log.stats().unwrap().wal_spares == 2);
            std::fs::write(out, stats.confirmed_lsn.0.to_le_bytes()).unwrap();
            std::process::abort();
        }
        if stats.wal_spares < 2 {
            wait_until("spares are there", Duration::from_secs(20), || log.stats().unwrap().wal_spares == 2);
        }
    }
}

/// Counts the entries.
fn scan(dir: &Path, out: &Path) {
    let reader = Reader::open(dir).unwrap();
    let mut scan = reader.scan(ScanRange::default()).unwrap();
    let mut entries = 0_u64;
    while scan.next_entry().unwrap().is_some() {
        entries += 1;
    }
    assert_eq!(reader.stats().unwrap().entries, entries);
    std::fs::write(out, entries.to_le_bytes()).unwrap();
}
