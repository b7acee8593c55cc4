//! Stores in temporary directories, entries that can be told apart, and what a directory holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kifa::{Batch, FlushMode, IoBackend, Log, Lsn, Options, Reader, ScanRange, Ticket};
use tempfile::TempDir;

/// A directory on the disk that holds the build, not on a `/tmp` that may be memory.
pub(crate) fn temp() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written to")
}

/// Default options over the backend that the environment asks for.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.io_backend = match std::env::var("KIFA_IO_BACKEND").as_deref() {
        Ok("portable") => IoBackend::Portable,
        Ok("uring") => IoBackend::Uring,
        Ok("auto") | Err(_) => IoBackend::Auto,
        Ok(other) => panic!("KIFA_IO_BACKEND is {other}; it must be portable, uring or auto"),
    };
    options
}

/// The smallest memtable and segments, and the most eager compaction.
pub(crate) fn tiny() -> Options {
    let mut options = options();
    options.memtable_bytes = 64 << 10;
    options.segment_bytes = 1 << 20;
    options.compaction_threshold = 2;
    options
}

pub(crate) fn in_mode(mode: FlushMode) -> Options {
    let mut options = options();
    options.flush_mode = mode;
    options
}

pub(crate) fn open(dir: &Path, options: Options) -> Log {
    Log::open(dir, options).expect("the store opens")
}

/// The `id`-th entry: its first 8 bytes are `id` (where it is that long), the rest does not compress well.
pub(crate) fn payload(id: u64, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 8);
    out.extend_from_slice(&id.to_le_bytes());
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

pub(crate) fn id_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().expect("the entry holds its id"))
}

/// Appends the entries `ids` one by one, each confirmed before the next.
pub(crate) fn append(log: &Log, ids: std::ops::Range<u64>, bytes: usize) {
    for id in ids {
        log.append(&payload(id, bytes)).expect("it is confirmed");
    }
}

/// Appends the entries `ids` in one batch.
pub(crate) fn together(log: &Log, ids: std::ops::Range<u64>, bytes: usize) {
    let mut batch = Batch::new();
    ids.for_each(|id| batch.push(&payload(id, bytes)).expect("it fits"));
    log.submit(&batch).and_then(|ticket| ticket.wait()).expect("it is confirmed");
}

/// Appends the entries `ids`, pipelined, in batches as large as they may be; checks that LSNs follow on.
pub(crate) fn fill(log: &Log, ids: std::ops::Range<u64>, bytes: usize) {
    let mut batch = Batch::new();
    let mut tickets = Vec::new();
    for id in ids {
        if !batch.fits(bytes) || batch.bytes() > 128 << 10 {
            tickets.push(log.submit(&batch).expect("it is accepted"));
            batch.clear();
        }
        batch.push(&payload(id, bytes)).expect("it fits");
    }
    if !batch.is_empty() {
        tickets.push(log.submit(&batch).expect("it is accepted"));
    }
    let ranges = tickets.iter().map(|ticket: &Ticket| ticket.wait().expect("it is confirmed"));
    ranges.reduce(|before, range| {
        assert_eq!(range.first.0, before.last.0 + 1, "LSNs are consecutive");
        range
    });
}

/// An entry read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    pub(crate) lsn: u64,
    pub(crate) ns: u64,
    pub(crate) payload: Vec<u8>,
}

/// Everything that a scan of `range` returns; it must not fail.
pub(crate) fn read(dir: &Path, range: ScanRange) -> Vec<Read> {
    let reader = Reader::open(dir).expect("it is a store");
    let mut scan = reader.scan(range).expect("it can be scanned");
    let mut entries = Vec::new();
    while let Some(entry) = scan.next_entry().expect("every entry can be read") {
        entries.push(Read { lsn: entry.lsn.0, ns: entry.timestamp_ns, payload: entry.payload.to_vec() });
    }
    entries
}

pub(crate) fn read_all(dir: &Path) -> Vec<Read> {
    read(dir, ScanRange::default())
}

pub(crate) fn payloads(dir: &Path) -> Vec<Vec<u8>> {
    read_all(dir).into_iter().map(|entry| entry.payload).collect()
}

pub(crate) fn lsns(from: u64, to: u64) -> ScanRange {
    let mut range = ScanRange::default();
    (range.from_lsn, range.to_lsn) = (Lsn(from), Lsn(to));
    range
}

/// What a scan yields when errors are taken as they come: entries by id, and the errors.
pub(crate) fn read_around_damage(dir: &Path) -> (Vec<u64>, Vec<kifa::Error>) {
    let reader = Reader::open(dir).expect("it is a store");
    let mut scan = reader.scan(ScanRange::default()).expect("it can be scanned");
    let (mut ids, mut errors) = (Vec::new(), Vec::new());
    loop {
        match scan.next_entry() {
            Ok(Some(entry)) => ids.push(id_of(entry.payload)),
            Ok(None) => return (ids, errors),
            Err(cause) => errors.push(cause),
        }
        assert!(errors.len() < 100, "a scan ends: {errors:?}");
    }
}

/// A file's bytes, or `None` for a directory.
pub(crate) type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Every name below `dir`, with contents. What a running log removes meanwhile is left out.
pub(crate) fn contents(dir: &Path) -> Contents {
    let mut found = Contents::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).expect("a directory can be listed") {
            let path = entry.expect("it has a name").path();
            let name = path.strip_prefix(dir).expect("it is below").to_path_buf();
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                found.insert(name, None);
                dirs.push(path);
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).expect("a link can be read");
                found.insert(name, Some(target.to_string_lossy().into_owned().into_bytes()));
            } else if let Ok(bytes) = fs::read(&path) {
                found.insert(name, Some(bytes));
            }
        }
    }
    found
}

/// Fails by naming what differs, without printing megabytes.
pub(crate) fn assert_unchanged(before: &Contents, dir: &Path) {
    let after = contents(dir);
    let names = |map: &Contents| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(&after), "files came or went");
    for (name, bytes) in before {
        assert!(after[name] == *bytes, "{} was changed", name.display());
    }
}

/// Copies a directory as `cp -r` does, into one that only its owner may write to whatever the umask.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).expect("the copy is new");
    #[cfg(unix)]
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("it is ours");
    for (name, bytes) in contents(from) {
        match bytes {
            None => fs::create_dir_all(to.join(name)).expect("it is made"),
            Some(bytes) => {
                let target = to.join(name);
                fs::create_dir_all(target.parent().expect("it is below")).expect("it is made");
                fs::write(target, bytes).expect("it is copied");
            }
        }
    }
}

/// Paths of the files in `dir/sub` that end in `suffix`, sorted.
pub(crate) fn files(dir: &Path, sub: &str, suffix: &str) -> Vec<PathBuf> {
    let names =
        fs::read_dir(dir.join(sub)).expect("it can be listed").map(|entry| entry.expect("it has a name").path());
    let mut found: Vec<PathBuf> = names.filter(|path| path.to_string_lossy().ends_with(suffix)).collect();
    found.sort();
    found
}

/// Whether a segment's header says that it is in use (`format::segment`: the kind, at offset 137, is 2).
pub(crate) fn is_active(segment: &Path) -> bool {
    fs::read(segment).expect("it can be read").get(137) == Some(&2)
}

/// Inverts one byte.
pub(crate) fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("it can be read");
    bytes[offset] ^= 0xFF;
    fs::write(path, bytes).expect("it can be written");
}

/// Where `needle` is in the file.
pub(crate) fn find_in(path: &Path, needle: &[u8]) -> Option<usize> {
    let bytes = fs::read(path).expect("it can be read");
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// The file below `dir/sub` that holds `needle`, and where.
pub(crate) fn find(dir: &Path, sub: &str, needle: &[u8]) -> (PathBuf, usize) {
    let mut all = files(dir, sub, "").into_iter();
    all.find_map(|path| find_in(&path, needle).map(|at| (path, at))).expect("the entry is in one of the files")
}

/// Waits until `done` says so, for at most `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < limit, "after {limit:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the log has nothing left to do in the background: its files stay as they are.
pub(crate) fn settle(dir: &Path) {
    let sizes = || -> BTreeMap<PathBuf, Option<usize>> {
        contents(dir).into_iter().map(|(name, bytes)| (name, bytes.map(|bytes| bytes.len()))).collect()
    };
    let mut before = sizes();
    wait_until("the background work is done", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(300));
        let now = sizes();
        std::mem::replace(&mut before, now.clone()) == now
    });
}

/// Waits until an idle log has written its watermark and prepared its spares: no byte changes any more.
pub(crate) fn settle_wholly(dir: &Path) -> Contents {
    let mut before = contents(dir);
    wait_until("the log is at rest", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(1500));
        let now = contents(dir);
        std::mem::replace(&mut before, now.clone()) == now
    });
    before
}

/// A generator for "random moments" and "random ranges"; the seed is in the test's output.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}
