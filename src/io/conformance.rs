//! One suite for every backend: what the contract of [`super`] promises, as far as it can be seen without a power cut.
//!
//! [`run`] takes a maker of empty stores ([`Disk`]); a simulated disk passes its own. What only a real disk has (links,
//! modes, wall time) is checked where [`Disk::root`] names a directory. That nothing is lost after a completed sync is
//! not visible here; the simulated disk and the power-loss tests prove it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{AlignedBuf, Backend, Completion, Durability, FileId, Op, OpId, Vfs};
use crate::format::BLOCK_BYTES;

/// Ends any wait of the suite that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// An empty store on some disk.
pub(crate) trait Disk {
    /// The backend; asked for once.
    fn backend(&self) -> Box<dyn Backend>;

    /// The reading side of the same store.
    fn vfs(&self) -> Arc<dyn Vfs>;

    /// Its directory, if the disk is real and its time is the world's.
    fn root(&self) -> Option<&Path> {
        None
    }
}

/// Runs the whole suite, each case on a new disk.
pub(crate) fn run(new_disk: &dyn Fn() -> Box<dyn Disk>) {
    type Case = fn(&mut Client, &dyn Disk);
    let cases: [(&str, Case); 15] = [
        ("files are created, opened and closed", files_are_created_opened_and_closed),
        ("writes are read back", writes_are_read_back),
        ("every durability writes", every_durability_writes),
        ("many operations are in flight", many_operations_are_in_flight),
        ("reads are short at the end only", reads_are_short_at_the_end_only),
        ("errors arrive as completions", errors_arrive_as_completions),
        ("paths outside are refused", paths_outside_are_refused),
        ("a rename replaces", a_rename_replaces),
        ("unlink removes", unlink_removes),
        ("directories are listed", directories_are_listed),
        ("links are counted and not followed", links_are_counted_and_not_followed),
        ("a wait ends in time", a_wait_ends_in_time),
        ("the waker ends a wait", the_waker_ends_a_wait),
        ("completions come before waiting", completions_come_before_waiting),
        ("dropping with operations in flight", dropping_with_operations_in_flight),
    ];
    for (name, case) in cases {
        println!("{name}");
        let disk = new_disk();
        case(&mut Client::new(&*disk), &*disk);
    }
}

/// A backend with one caller that does one thing at a time.
pub(crate) struct Client {
    pub(crate) backend: Box<dyn Backend>,
    id_last: u64,
}

impl Client {
    pub(crate) fn new(disk: &dyn Disk) -> Client {
        Client { backend: disk.backend(), id_last: 0 }
    }

    fn submit(&mut self, op: Op) -> OpId {
        self.id_last += 1;
        self.backend.submit(OpId(self.id_last), op);
        OpId(self.id_last)
    }

    /// Polls until `count` completions are there.
    fn collect(&mut self, count: usize) -> Vec<Completion> {
        let mut done = Vec::new();
        while done.len() < count {
            let before = done.len();
            self.backend.poll(Some(PATIENCE), &mut done);
            assert!(done.len() > before, "{} of {count} operations completed", done.len());
        }
        assert_eq!(done.len(), count, "each operation completes once");
        done
    }

    fn complete(&mut self, op: Op) -> Completion {
        let id = self.submit(op);
        let completion = self.collect(1).remove(0);
        assert_eq!(completion.id, id);
        completion
    }

    pub(crate) fn ok(&mut self, op: Op) -> u64 {
        let what = format!("{op:?}");
        self.complete(op).outcome.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    fn err(&mut self, op: Op) -> std::io::Error {
        let what = format!("{op:?}");
        self.complete(op).outcome.expect_err(&what)
    }

    pub(crate) fn create(&mut self, path: &str) -> FileId {
        FileId(self.ok(Op::Create { path: path.to_owned() }))
    }

    fn open(&mut self, path: &str) -> FileId {
        FileId(self.ok(Op::Open { path: path.to_owned() }))
    }

    fn write(&mut self, file: FileId, block: u64, bytes: &[u8], durability: Durability) {
        self.ok(write(file, block, bytes, durability));
    }
}

fn write(file: FileId, block: u64, bytes: &[u8], durability: Durability) -> Op {
    let buf = AlignedBuf::from_bytes(bytes);
    let len = buf.len();
    Op::Write { file, offset: block * BLOCK_BYTES as u64, buf, len, durability }
}

fn block_of(byte: u8) -> Vec<u8> {
    vec![byte; BLOCK_BYTES]
}

/// What a reader gets of a file that asks for `blocks` blocks from block `block` on.
fn read(disk: &dyn Disk, path: &str, block: u64, blocks: usize) -> Vec<u8> {
    let file = disk.vfs().open(path).expect("the file is there");
    let mut bytes = vec![0; blocks * BLOCK_BYTES];
    let read = file.read_at(&mut bytes, block * BLOCK_BYTES as u64).expect("it can be read");
    bytes.truncate(read);
    bytes
}

/// What a reader sees of a file, whole.
fn contents(disk: &dyn Disk, path: &str) -> Vec<u8> {
    let file = disk.vfs().open(path).expect("the file is there");
    let mut bytes = vec![0; file.bytes().expect("it has a length") as usize];
    assert_eq!(file.read_at(&mut bytes, 0).expect("it can be read"), bytes.len());
    bytes
}

fn files_are_created_opened_and_closed(client: &mut Client, disk: &dyn Disk) {
    let file = client.create("a");
    assert_eq!(disk.vfs().metadata("a").expect("it exists").bytes, 0);
    let error = client.err(Op::Create { path: "a".to_owned() });
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    let again = client.open("a");
    assert_ne!(file, again, "each opening has its own name");
    client.ok(Op::Close { file });
    client.write(again, 0, &block_of(1), Durability::None);
    client.ok(Op::Close { file: again });
    let third = client.create("b");
    assert!(third != file && third != again, "a name that was closed is not used again");
    assert_eq!(contents(disk, "a"), block_of(1));
}

fn writes_are_read_back(client: &mut Client, disk: &dyn Disk) {
    let file = client.create("a");
    let bytes: Vec<u8> = (0..3 * BLOCK_BYTES).map(|at| (at / 7) as u8).collect();
    client.write(file, 2, &bytes, Durability::Own);
    client.write(file, 1, &block_of(9), Durability::None);
    let mut expected = block_of(0);
    expected.extend(block_of(9));
    expected.extend(&bytes);
    assert_eq!(contents(disk, "a"), expected, "what was never written reads as zeros");
    assert_eq!(read(disk, "a", 1, 4), expected[BLOCK_BYTES..]);
    client.write(file, 2, &block_of(8), Durability::None);
    assert_eq!(contents(disk, "a")[2 * BLOCK_BYTES..3 * BLOCK_BYTES], block_of(8), "overwritten");
    let mut tail = [0; 10];
    let reader = disk.vfs().open("a").expect("it opens");
    assert_eq!(reader.read_at(&mut tail, 5 * BLOCK_BYTES as u64 - 4).expect("it can be read"), 4);
    assert_eq!(tail[..4], expected[expected.len() - 4..]);
    assert_eq!(reader.read_at(&mut tail, 1 << 30).expect("far behind the end"), 0);
}

fn every_durability_writes(client: &mut Client, disk: &dyn Disk) {
    let file = client.create("a");
    for (block, durability) in [Durability::None, Durability::Own, Durability::File].into_iter().enumerate() {
        let buf = AlignedBuf::from_bytes(&[block as u8 + 1; 2 * BLOCK_BYTES]);
        // Only the first half of the buffer is to be written.
        let op = Op::Write { file, offset: (block * BLOCK_BYTES) as u64, buf, len: BLOCK_BYTES, durability };
        let done = client.complete(op);
        assert_eq!(done.outcome.expect("it is written"), 0);
        let buf = done.buf.expect("the buffer comes back");
        assert_eq!(buf[..], [block as u8 + 1; 2 * BLOCK_BYTES], "as it was");
    }
    assert_eq!(client.ok(Op::SyncData { file }), 0);
    assert_eq!(client.ok(Op::SyncDir { path: String::new() }), 0);
    assert_eq!(contents(disk, "a"), [block_of(1), block_of(2), block_of(3)].concat());
}

fn many_operations_are_in_flight(client: &mut Client, disk: &dyn Disk) {
    // More than any queue holds; a fifth of them as chains.
    const WRITES: u64 = 700;
    let file = client.create("a");
    let mut expected = Vec::new();
    for block in 0..WRITES {
        let durability = if block % 5 == 0 { Durability::File } else { Durability::None };
        client.submit(write(file, block, &block_of(block as u8), durability));
        expected.extend(block_of(block as u8));
    }
    let mut ids: Vec<u64> = Vec::new();
    for done in client.collect(WRITES as usize) {
        let buf = done.buf.expect("the buffer comes back");
        assert_eq!(done.outcome.expect("it is written"), 0);
        // The file's creation was operation 1.
        assert_eq!(buf[..], block_of((done.id.0 - 2) as u8), "it is the one that was handed over");
        ids.push(done.id.0);
    }
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(2..2 + WRITES), "each operation completes once");
    assert_eq!(contents(disk, "a"), expected);
    let mut done = Vec::new();
    client.backend.poll(Some(Duration::ZERO), &mut done);
    assert!(done.is_empty());
}

fn reads_are_short_at_the_end_only(client: &mut Client, disk: &dyn Disk) {
    let file = client.create("a");
    client.write(file, 0, &[block_of(1), block_of(2)].concat(), Durability::None);
    assert_eq!(read(disk, "a", 0, 2), [block_of(1), block_of(2)].concat());
    assert_eq!(read(disk, "a", 1, 4), block_of(2));
    assert!(read(disk, "a", 2, 1).is_empty());
    assert!(read(disk, "a", 100, 1).is_empty());
    if let Some(root) = disk.root() {
        // A length that is no multiple of a block, as a torn copy leaves it.
        let bytes = vec![7; BLOCK_BYTES + 1000];
        std::fs::write(root.join("odd"), &bytes).expect("a file");
        assert_eq!(read(disk, "odd", 0, 3), bytes);
        assert_eq!(read(disk, "odd", 1, 1), bytes[BLOCK_BYTES..]);
    }
}

fn errors_arrive_as_completions(client: &mut Client, _disk: &dyn Disk) {
    let absent = || "absent".to_owned();
    let not_found = std::io::ErrorKind::NotFound;
    assert_eq!(client.err(Op::Open { path: absent() }).kind(), not_found);
    assert_eq!(client.err(Op::Unlink { path: absent() }).kind(), not_found);
    assert_eq!(client.err(Op::Rename { from: absent(), to: "b".to_owned() }).kind(), not_found);
    assert_eq!(client.err(Op::SyncDir { path: absent() }).kind(), not_found);
    assert_eq!(client.err(Op::Create { path: "absent/a".to_owned() }).kind(), not_found);
    let closed = client.create("a");
    client.ok(Op::Close { file: closed });
    for file in [closed, FileId(u64::MAX)] {
        for durability in [Durability::Own, Durability::None] {
            let done = client.complete(write(file, 0, &block_of(1), durability));
            assert!(done.outcome.is_err());
            assert_eq!(done.buf.expect("the buffer comes back").len(), BLOCK_BYTES);
        }
        client.err(Op::SyncData { file });
        client.err(Op::Close { file });
    }
    // The backend is as good as before.
    let file = client.open("a");
    client.write(file, 0, &block_of(1), Durability::Own);
}

fn paths_outside_are_refused(client: &mut Client, disk: &dyn Disk) {
    let Some(root) = disk.root() else { return };
    for path in ["/etc/passwd", "../a", "d/../../a", "", "a\0b"] {
        let path = || path.to_owned();
        client.err(Op::Create { path: path() });
        client.err(Op::Open { path: path() });
        client.err(Op::MakeDir { path: path() });
        client.err(Op::Unlink { path: path() });
        client.err(Op::Rename { from: path(), to: "b".to_owned() });
        client.err(Op::Rename { from: "b".to_owned(), to: path() });
    }
    assert!(disk.vfs().open("../a").is_err());
    assert_eq!(std::fs::read_dir(root).expect("a listing").count(), 0);
}

fn a_rename_replaces(client: &mut Client, disk: &dyn Disk) {
    client.ok(Op::MakeDir { path: "d".to_owned() });
    for (path, byte) in [("a", 1), ("b", 2)] {
        let file = client.create(path);
        client.write(file, 0, &block_of(byte), Durability::Own);
        client.ok(Op::Close { file });
    }
    client.ok(Op::Rename { from: "a".to_owned(), to: "b".to_owned() });
    assert_eq!(contents(disk, "b"), block_of(1));
    assert!(disk.vfs().open("a").is_err());
    client.ok(Op::Rename { from: "b".to_owned(), to: "d/c".to_owned() });
    client.ok(Op::SyncDir { path: String::new() });
    client.ok(Op::SyncDir { path: "d".to_owned() });
    assert_eq!(contents(disk, "d/c"), block_of(1));
    let file = client.open("d/c");
    client.ok(Op::Rename { from: "d/c".to_owned(), to: "e".to_owned() });
    client.write(file, 0, &block_of(3), Durability::Own);
    assert_eq!(contents(disk, "e"), block_of(3), "an open file keeps its identity");
}

fn unlink_removes(client: &mut Client, disk: &dyn Disk) {
    let file = client.create("a");
    client.ok(Op::Close { file });
    client.ok(Op::Unlink { path: "a".to_owned() });
    client.ok(Op::SyncDir { path: String::new() });
    let error = disk.vfs().metadata("a").expect_err("it is gone");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(disk.vfs().open("a").err().map(|error| error.kind()), Some(std::io::ErrorKind::NotFound));
    client.create("a");
}

fn directories_are_listed(client: &mut Client, disk: &dyn Disk) {
    let vfs = disk.vfs();
    client.ok(Op::MakeDir { path: "wal".to_owned() });
    client.ok(Op::MakeDir { path: "wal".to_owned() });
    for path in ["wal/2", "wal/10", "wal/1", "m"] {
        let file = client.create(path);
        client.write(file, 0, &block_of(1), Durability::None);
    }
    let list = |dir: &str| vfs.list(dir).expect("it is a directory");
    let files = |dir: &str| {
        let files = list(dir).into_iter().filter(|entry| entry.is_file);
        files.map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert_eq!(files("wal"), ["1", "10", "2"]);
    assert_eq!(files(""), ["m"]);
    assert!(list("").iter().any(|entry| entry.name == "wal" && !entry.is_file));
    assert!(vfs.list("absent").is_err());
    assert!(vfs.list("m").is_err());
    assert_eq!(vfs.metadata("wal/10").expect("it exists").bytes, BLOCK_BYTES as u64);
    client.err(Op::MakeDir { path: "m".to_owned() });
    client.err(Op::Open { path: "wal".to_owned() });
}

#[cfg(not(unix))]
fn links_are_counted_and_not_followed(_client: &mut Client, _disk: &dyn Disk) {}

#[cfg(unix)]
fn links_are_counted_and_not_followed(client: &mut Client, disk: &dyn Disk) {
    let vfs = disk.vfs();
    client.create("a");
    assert_eq!(vfs.metadata("a").expect("it exists").links, 1);
    let Some(root) = disk.root() else { return };
    std::fs::hard_link(root.join("a"), root.join("backup")).expect("a hard link");
    assert_eq!(vfs.metadata("a").expect("it exists").links, 2);
    std::os::unix::fs::symlink("a", root.join("link")).expect("a symbolic link");
    std::os::unix::fs::symlink("new", root.join("dangling")).expect("a symbolic link");
    std::os::unix::fs::symlink(".", root.join("here")).expect("a symbolic link");
    client.err(Op::Open { path: "link".to_owned() });
    client.err(Op::Create { path: "dangling".to_owned() });
    client.err(Op::MakeDir { path: "here".to_owned() });
    client.err(Op::SyncDir { path: "here".to_owned() });
    assert!(!root.join("new").exists(), "nothing was made through the link");
    assert!(vfs.open("link").is_err());
    assert!(vfs.metadata("link").is_err());
    assert!(vfs.list("here").is_err());
    assert!(vfs.list("").expect("a listing").iter().all(|entry| entry.name != "link" || !entry.is_file));
    client.ok(Op::Unlink { path: "link".to_owned() });
    assert!(root.join("a").exists(), "the link went, not what it names");
}

/// Polls with nothing in flight and says how long that took.
fn wait(client: &mut Client, timeout: Option<Duration>) -> Duration {
    let begin = Instant::now();
    let mut done = Vec::new();
    client.backend.poll(timeout, &mut done);
    assert!(done.is_empty());
    begin.elapsed()
}

fn a_wait_ends_in_time(client: &mut Client, disk: &dyn Disk) {
    assert!(wait(client, Some(Duration::ZERO)) < Duration::from_secs(5));
    let waited = wait(client, Some(Duration::from_millis(20)));
    if disk.root().is_some() {
        assert!(waited >= Duration::from_millis(20), "{waited:?}");
        assert!(waited < Duration::from_secs(5), "{waited:?}");
    }
}

fn the_waker_ends_a_wait(client: &mut Client, disk: &dyn Disk) {
    let waker = client.backend.waker();
    for _ in 0..1000 {
        waker();
    }
    assert!(wait(client, Some(PATIENCE)) < PATIENCE / 2, "a call before the wait is not lost");
    if disk.root().is_none() {
        return;
    }
    let waited = wait(client, Some(Duration::from_millis(20)));
    assert!(waited >= Duration::from_millis(20), "a thousand calls end one wait: {waited:?}");
    for _ in 0..20 {
        let waker = client.backend.waker();
        let caller = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            waker();
        });
        assert!(wait(client, Some(PATIENCE)) < PATIENCE / 2, "a call ends the wait");
        caller.join().expect("the caller is done");
    }
    let caller = thread::spawn(move || (0..100_000).for_each(|_| waker()));
    while !caller.is_finished() {
        wait(client, Some(Duration::from_millis(1)));
    }
    caller.join().expect("the caller is done");
}

fn completions_come_before_waiting(client: &mut Client, _disk: &dyn Disk) {
    let file = client.create("a");
    client.submit(write(file, 0, &block_of(1), Durability::Own));
    let mut done = Vec::new();
    let begin = Instant::now();
    // Without a limit: the completion alone must end it.
    client.backend.poll(None, &mut done);
    assert_eq!(done.len(), 1);
    assert!(begin.elapsed() < PATIENCE);
    // A caller that never waits gets there, too.
    client.submit(write(file, 0, &block_of(1), Durability::Own));
    while done.len() < 2 {
        client.backend.poll(Some(Duration::ZERO), &mut done);
        assert!(begin.elapsed() < 2 * PATIENCE);
    }
}

fn dropping_with_operations_in_flight(client: &mut Client, disk: &dyn Disk) {
    let Some(root) = disk.root() else { return };
    let file = client.create("a");
    for block in 0..50 {
        client.submit(write(file, block, &vec![block as u8; 16 * BLOCK_BYTES], Durability::Own));
        client.submit(write(file, 100 + block, &block_of(block as u8), Durability::None));
    }
    client.submit(Op::Rename { from: "a".to_owned(), to: "b".to_owned() });
    client.backend = disk.backend();
    assert!(root.join("b").exists(), "what was submitted has been done");
    let singles: Vec<u8> = (0..50).flat_map(block_of).collect();
    assert_eq!(read(disk, "b", 100, 50), singles);
}

mod real;
pub(crate) use real::*;
