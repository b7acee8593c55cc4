use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::*;
use crate::io::SyncMethod;
use crate::io::conformance::{child_dir, child_test};
use crate::io::fs::open_backend;
use crate::options::IoBackend;

const NO_WAIT: Duration = Duration::ZERO;
/// How long a killed process's requests may take to end, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn two_openers_exclude_each_other_and_the_error_names_the_process() {
    let dir = dir();
    let lock = StoreLock::acquire(dir.path(), NO_WAIT).expect("nobody else is there");
    let error = StoreLock::acquire(dir.path(), Duration::from_millis(20)).expect_err("one writer at a time");
    let text = error.into_error(dir.path()).to_string();
    assert!(text.contains(&format!("locked by process {}", std::process::id())), "{text}");
    drop(lock);
    StoreLock::acquire(dir.path(), NO_WAIT).expect("the first one is gone");
}

#[test]
fn notes_its_process_id_over_a_longer_text() {
    let dir = dir();
    std::fs::write(dir.path().join(LOCK_NAME), "what another program left here\nand here").expect("a file");
    let _lock = StoreLock::acquire(dir.path(), NO_WAIT).expect("the text is not a lock");
    let text = std::fs::read_to_string(dir.path().join(LOCK_NAME)).expect("the lock file");
    assert_eq!(text, format!("{}\n", std::process::id()));
}

#[test]
fn an_implausible_holder_is_not_named() {
    let dir = dir();
    let lock = StoreLock::acquire(dir.path(), NO_WAIT).expect("nobody else is there");
    for text in ["", "12", "0\n", "-5\n", "pid\n", "99999999999999\n"] {
        std::fs::write(dir.path().join(LOCK_NAME), text).expect("a file");
        assert_eq!(noted_pid(lock.file()), None, "{text:?}");
    }
}

#[test]
fn a_lock_file_that_was_removed_guards_nothing() {
    let dir = dir();
    let store = StoreDir::open(dir.path()).expect("the directory");
    let old = open_or_create(&store).expect("the file is new");
    std::fs::remove_file(dir.path().join(LOCK_NAME)).expect("the file is there");
    let new = StoreLock::acquire(dir.path(), NO_WAIT).expect("the name is free");
    assert!(StoreLock::take(&store, old).expect("nobody has locked the old file").is_none());
    assert!(store.names(LOCK_NAME, new.file()).expect("a look at the directory"));
}

#[test]
fn a_reader_learns_whether_a_writer_is_alive_and_creates_nothing() {
    let dir = dir();
    assert!(!writer_alive(dir.path()));
    assert!(!dir.path().join(LOCK_NAME).exists());
    let lock = StoreLock::acquire(dir.path(), NO_WAIT).expect("nobody else is there");
    assert!(writer_alive(dir.path()));
    drop(lock);
    assert!(!writer_alive(dir.path()));
    assert!(!writer_alive(&dir.path().join("absent")));
}

#[test]
fn readers_that_ask_all_the_time_do_not_keep_a_writer_out() {
    let dir = dir();
    drop(StoreLock::acquire(dir.path(), NO_WAIT).expect("nobody else is there"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && begin.elapsed() < PATIENCE {
                writer_alive(dir.path());
            }
        });
        for _ in 0..50 {
            StoreLock::acquire(dir.path(), Duration::from_secs(5)).expect("only readers are there");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_not_a_lock_file() {
    let dir = dir();
    let elsewhere = dir.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, dir.path().join(LOCK_NAME)).expect("a link");
    assert!(matches!(StoreLock::acquire(dir.path(), NO_WAIT), Err(LockError::Io(_))));
    assert!(!elsewhere.exists());
}

/// Starts the child below on `dir` and waits until it holds the lock.
fn child_with_lock(dir: &Path, backend: &str) -> Child {
    let mut child = child_test("io::lock::tests::child_holds_the_lock", dir);
    let mut child = child.env("KIFA_TEST_BACKEND", backend).stdout(Stdio::piped()).spawn().expect("the child starts");
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    assert!(stdout.lines().map_while(Result::ok).any(|line| line.contains("LOCKED")), "the child has not got the lock");
    child
}

#[test]
#[ignore = "a child of the tests below"]
fn child_holds_the_lock() {
    let Some(dir) = child_dir() else { return };
    let lock = StoreLock::acquire(&dir, NO_WAIT).expect("the test left the lock to its child");
    let choice = match std::env::var("KIFA_TEST_BACKEND").as_deref() {
        Ok("uring") => IoBackend::Uring,
        _ => IoBackend::Portable,
    };
    let (mut backend, _) = open_backend(&dir, choice, SyncMethod::Linked).expect("the backend opens");
    backend.hold(lock.file());
    println!("\nLOCKED");
    write_until_killed(&mut *backend);
}

fn write_until_killed(backend: &mut dyn crate::io::Backend) -> ! {
    use crate::io::{AlignedBuf, Durability, FileId, Op, OpId};
    let mut done = Vec::new();
    backend.submit(OpId(0), Op::Create { path: "busy".to_owned() });
    backend.poll(None, &mut done);
    let file = FileId(*done[0].outcome.as_ref().expect("the file is new"));
    for id in 1.. {
        let buf = AlignedBuf::zeroed(1 << 20);
        let len = buf.len();
        let offset = (id % 16) * len as u64;
        backend.submit(OpId(id), Op::Write { file, offset, buf, len, durability: Durability::Own });
        if id % 4 == 0 {
            backend.poll(None, &mut done);
        }
    }
    unreachable!("the loop has no end")
}

fn killed_writer_gives_its_lock_up(backend: &str) {
    let dir = dir();
    let mut child = child_with_lock(dir.path(), backend);
    let held = StoreLock::acquire(dir.path(), Duration::from_millis(50)).expect_err("the child has it");
    assert!(matches!(held, LockError::Held { pid } if pid == Some(child.id())), "{held:?}");
    child.kill().expect("the child can be killed");
    child.wait().expect("the child can be waited for");
    StoreLock::acquire(dir.path(), PATIENCE).expect("the lock ends with the last request of the child");
}

#[test]
fn a_killed_process_gives_its_lock_up() {
    killed_writer_gives_its_lock_up("portable");
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn a_killed_process_gives_its_lock_up_when_the_ring_is_done() {
    if crate::io::conformance::uring_refused() {
        return;
    }
    killed_writer_gives_its_lock_up("uring");
}
