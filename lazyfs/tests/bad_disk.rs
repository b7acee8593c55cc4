//! The program on a device that cannot read, takes no writes any more, or loses power as soon as a command has ended: clear
//! sentences, the right exit codes, and nothing lost. Needs root and /dev/fuse; where they are missing each test prints a line that begins with SKIPPED.
#![cfg(target_os = "linux")]
// These tests look at the real machine: its processes and its environment.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code)]
mod harness;
mod programs;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::{Lazy, or_skip};
use programs::program;

/// Entries of each store.
const LINES: usize = 60;
/// Reads of a start, and of a query, that are made to fail, one after the other. A store of this size takes fewer, also
/// where they are not read ahead.
const READS_MAX: usize = 400;

/// What a command came to.
struct Ran {
    code: Option<i32>,
    lines: Vec<String>,
    stderr: String,
}

fn kifa(command: &str, store: &Path) -> Command {
    let mut kifa = Command::new(program("kifa"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KIFA_")) {
        if name != "KIFA_IO_BACKEND" {
            kifa.env_remove(name);
        }
    }
    kifa.arg(command).arg("-d").arg(store).env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    kifa
}

fn run(command: &mut Command) -> Ran {
    let output = command.output().expect("the program starts");
    let lines = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    Ran { code: output.status.code(), lines, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// The payloads that a reader finds, with its exit code and messages.
fn query(store: &Path) -> Ran {
    let mut ran = run(kifa("query", store).args(["-o", "text"]));
    // Behind number and time.
    ran.lines.iter_mut().for_each(|line| *line = line.rsplit(' ').next().unwrap_or_default().to_owned());
    ran
}

fn expected() -> Vec<String> {
    (0..LINES).map(|number| format!("entry-{number}")).collect()
}

/// A daemon that is killed when this is dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon that has confirmed all the entries, each by itself, and still runs.
fn confirmed(store: &Path) -> Daemon {
    let mut command = kifa("daemon", store);
    command.args(["--stdin", "--confirm"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut daemon = Daemon(command.spawn().expect("the program starts"));
    let mut answers = BufReader::new(daemon.0.stdout.take().expect("it is piped"));
    let stdin = daemon.0.stdin.as_mut().expect("it is piped");
    for line in expected() {
        stdin.write_all(format!("{line}\n").as_bytes()).expect("it reads");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("it answers");
        assert!(answer.starts_with("OK "), "{answer}");
    }
    // A daemon that nobody reads from would end by itself.
    daemon.0.stdout = Some(answers.into_inner());
    daemon
}

/// Starts a daemon that has nothing to do but recover.
fn recover(store: &Path) -> Ran {
    run(kifa("daemon", store).arg("--stdin"))
}

fn store(lazy: &Lazy) -> PathBuf {
    lazy.point().join("data")
}

/// Each read of the start fails in turn, once for as long as it goes on trying, and the store is as it was.
#[test]
fn a_read_error_while_it_recovers_ends_it_and_costs_nothing() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    let store = store(&lazy);
    drop(confirmed(&store));
    let mut refused = 0;
    for nth in 1..=READS_MAX {
        lazy.command(&format!("kifa::fail::class=read::nth={nth}::kind=eio::times=1000000"));
        let ran = recover(&store);
        lazy.command("kifa::clear-faults");
        if ran.code == Some(0) {
            break;
        }
        assert_eq!(ran.code, Some(74), "read {nth}: {}", ran.stderr);
        assert!(ran.stderr.contains("kifa: cannot read "), "read {nth}: {}", ran.stderr);
        assert!(ran.stderr.contains("the device fails: look into the kernel's log"), "read {nth}: {}", ran.stderr);
        refused += 1;
        let ran = query(&store);
        assert_eq!((ran.code, ran.lines), (Some(0), expected()), "read {nth}: {}", ran.stderr);
    }
    assert!((3..READS_MAX).contains(&refused), "{refused} reads of a start failed");
    assert_eq!(query(&store).lines, expected());
}

/// A reader tells what it could not read, and never calls what it has everything.
#[test]
fn a_reader_that_meets_a_read_error_says_so() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    let store = store(&lazy);
    drop(confirmed(&store));
    let mut failed = 0;
    for nth in 1..=READS_MAX {
        lazy.command(&format!("kifa::fail::class=read::nth={nth}::kind=eio::times=1000000"));
        let ran = query(&store);
        lazy.command("kifa::clear-faults");
        if ran.code == Some(0) {
            assert_eq!(ran.lines, expected(), "read {nth}: {}", ran.stderr);
            break;
        }
        assert_eq!(ran.code, Some(2), "read {nth}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("kifa: "), "read {nth}: {}", ran.stderr);
        assert!(expected().starts_with(&ran.lines), "read {nth}: {:?}", ran.lines);
        failed += 1;
    }
    assert!((3..READS_MAX).contains(&failed), "{failed} reads of a query failed");
    assert_eq!(query(&store).lines, expected());
}

#[test]
fn a_file_system_that_turns_read_only_ends_it_and_readers_go_on() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    let store = store(&lazy);
    let mut daemon = confirmed(&store);
    lazy.command("kifa::read-only=on");
    let mut stdin = daemon.0.stdin.take().expect("it is piped");
    stdin.write_all(b"not confirmed\n").expect("it reads");
    let stderr = daemon.0.stderr.take().expect("it is piped");
    let messages: Vec<String> = BufReader::new(stderr).lines().map_while(Result::ok).collect();
    assert_eq!(daemon.0.wait().expect("it has ended").code(), Some(74), "{messages:?}");
    assert!(messages.iter().any(|line| line.contains("the file system is read-only")), "{messages:?}");

    let ran = query(&store);
    assert_eq!((ran.code, ran.lines), (Some(0), expected()), "{}", ran.stderr);
    let ran = run(&mut kifa("verify", &store));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ran = recover(&store);
    assert_eq!(ran.code, Some(74), "{}", ran.stderr);
    assert!(ran.stderr.contains("the file system is read-only"), "{}", ran.stderr);

    lazy.command("kifa::read-only=off");
    assert_eq!(recover(&store).code, Some(0));
    assert!(query(&store).lines.starts_with(&expected()));
}

/// All that was not synced is gone.
fn cut(lazy: &Lazy) {
    lazy.command("lazyfs::clear-cache");
}

#[track_caller]
fn assert_whole(store: &Path) {
    let ran = query(store);
    assert_eq!((ran.code, ran.lines), (Some(0), expected()), "{}: {}", store.display(), ran.stderr);
    let ran = run(kifa("verify", store).arg("--deep"));
    assert_eq!(ran.code, Some(0), "{}: {}{}", store.display(), ran.lines.join("\n"), ran.stderr);
}

/// Its name, those of the directories above that it made, and that of one that somebody else made.
#[test]
fn a_store_that_was_just_born_outlives_a_power_cut() {
    for is_made in [false, true] {
        let Some(lazy) = or_skip(Lazy::start()) else { return };
        let store = lazy.point().join("terminal/7/data");
        if is_made {
            std::fs::create_dir(lazy.point().join("terminal")).unwrap();
            std::fs::File::open(lazy.point()).unwrap().sync_all().unwrap();
            std::fs::create_dir_all(lazy.point().join("terminal/7")).unwrap();
            std::fs::File::open(lazy.point().join("terminal")).unwrap().sync_all().unwrap();
            std::fs::DirBuilder::new().create(&store).unwrap();
            std::fs::set_permissions(&store, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        }
        drop(confirmed(&store));
        cut(&lazy);
        assert_whole(&store);
    }
}

/// The power goes when the command has said that it is done: a copy of a log, of tables, and a store with its damage accepted.
#[test]
fn what_a_command_has_made_outlives_a_power_cut() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    let store = store(&lazy);
    drop(confirmed(&store));
    // A copy holds what is proven durable: all of it, after a clean close.
    assert_eq!(recover(&store).code, Some(0));
    let copy = |command: &str, from: &str, to: &str| {
        let ran = run(kifa(command, &lazy.point().join(from)).arg("--to").arg(lazy.point().join(to)));
        assert_eq!(ran.code, Some(0), "{command}: {}", ran.stderr);
        cut(&lazy);
        assert_whole(&lazy.point().join(to));
    };
    copy("snapshot", "data", "of-log");
    copy("snapshot", "of-log", "of-tables");
    copy("recover", "data", "recovered");
    // From another file system tables cannot be linked.
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = elsewhere.path().join("of-tables");
    assert_eq!(run(kifa("snapshot", &store).arg("--to").arg(&outside)).code, Some(0));
    copy("snapshot", outside.to_str().unwrap(), "from-elsewhere");

    // The manifest is damaged, and kept.
    let manifest = |dir: &Path| {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST-")).max()
    };
    let damaged = manifest(&store).expect("a store has one");
    let bytes = std::fs::metadata(&damaged).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&damaged).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; bytes as usize], 0).unwrap();
    file.sync_all().unwrap();
    let ran = run(kifa("recover", &store).arg("--accept"));
    assert!(matches!(ran.code, Some(0 | 1)), "{}", ran.stderr);
    cut(&lazy);
    assert_whole(&store);
    let kept = manifest(&store.join("quarantine")).expect("the damaged one is kept");
    assert_eq!(std::fs::read(kept).unwrap(), vec![7; bytes as usize]);
}
