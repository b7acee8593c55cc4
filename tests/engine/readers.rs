//! Readers: any process, any time, without a lock; they create and change nothing, and cost what they return.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kifa::{Error, FlushMode, Notice, Reader, ScanRange};

use crate::child::command;
use crate::helper::*;

#[test]
fn what_is_not_a_store_is_said_to_be_none_and_stays_as_it_is() {
    let dir = temp();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("photos")).unwrap();
    fs::write(at("photos/cat.jpg"), b"meow").unwrap();
    fs::write(at("file"), b"x").unwrap();
    let before = contents(dir.path());
    for name in ["absent", "absent/below", "empty", "photos", "file", "file/below"] {
        let refused = Reader::open(at(name)).unwrap_err();
        assert!(matches!(refused, Error::NotAStore { .. }), "{name}: {refused:?}");
        assert!(refused.to_string().contains(name), "{refused}");
    }
    assert_unchanged(&before, dir.path());
}

#[test]
fn a_log_does_not_open_a_file() {
    let dir = temp();
    let path = dir.path().join("file");
    fs::write(&path, b"x").unwrap();
    let refused = kifa::Log::open(&path, options()).unwrap_err();
    assert!(matches!(refused, Error::NotAStore { .. }), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), b"x");
}

#[test]
fn reading_changes_nothing() {
    let dir = temp();
    let log = open(dir.path(), tiny());
    fill(&log, 0..3000, 500);
    log.close().unwrap();
    let before = contents(dir.path());
    assert_eq!(read_all(dir.path()).len(), 3000);
    assert_eq!(Reader::open(dir.path()).unwrap().stats().unwrap().entries, 3000);
    assert_unchanged(&before, dir.path());
}

#[test]
fn an_empty_store_has_no_entries() {
    let dir = temp();
    open(dir.path(), options()).close().unwrap();
    assert!(read_all(dir.path()).is_empty());
    let stats = Reader::open(dir.path()).unwrap().stats().unwrap();
    assert_eq!((stats.entries, stats.lsns, stats.timestamps_ns), (0, None, None));
}

#[cfg(target_os = "linux")]
#[test]
fn a_read_only_file_system_is_no_hindrance() {
    let dir = temp();
    let (store, out) = (dir.path().join("store"), dir.path().join("out"));
    let log = open(&store, tiny());
    fill(&log, 0..3000, 500);
    log.close().unwrap();
    let before = contents(&store);
    let scan = command("scan", &store, &out, 0);
    let script =
        r#"mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && ! touch "$0/x" 2>/dev/null || exit 99; "$@""#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script]).arg(&store).arg(scan.get_program()).args(scan.get_args());
    unshare.envs(scan.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = match unshare.output() {
        Ok(output) if output.status.code() != Some(99) => output,
        Ok(output) => return println!("SKIPPED: no bind mount: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(cause) => return println!("SKIPPED: unshare: {cause}"),
    };
    if String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        return println!("SKIPPED: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(&out).unwrap(), 3000_u64.to_le_bytes());
    assert_unchanged(&before, &store);
}

#[cfg(unix)]
#[test]
fn permission_to_read_is_enough() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let store = dir.path().join("store");
    let log = open(&store, tiny());
    fill(&log, 0..3000, 500);
    log.close().unwrap();
    let restrict = |dir_mode: u32, file_mode: u32| {
        for (name, bytes) in contents(&store) {
            let mode = if bytes.is_some() { file_mode } else { dir_mode };
            fs::set_permissions(store.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&store, fs::Permissions::from_mode(dir_mode)).unwrap();
    };
    restrict(0o555, 0o444);
    if fs::File::options().write(true).open(store.join("LOCK")).is_ok() {
        restrict(0o755, 0o644);
        return println!("SKIPPED: this user may write to read-only files");
    }
    let found = read_all(&store).len();
    restrict(0o755, 0o644);
    assert_eq!(found, 3000);
}

/// One scan beside a writer: LSNs from 1 on, without a hole, each with the entry that belongs to it.
fn check_prefix(store: &Path) -> u64 {
    let reader = Reader::open(store).unwrap();
    let mut scan = reader.scan(ScanRange::default()).unwrap();
    let mut last = 0;
    while let Some(entry) = scan.next_entry().unwrap() {
        assert_eq!(entry.lsn.0, last + 1);
        assert_eq!(id_of(entry.payload), last, "LSN {}", entry.lsn);
        last += 1;
    }
    last
}

/// The same backward, from wherever the end is.
fn check_backward(store: &Path) -> u64 {
    let reader = Reader::open(store).unwrap();
    let mut range = ScanRange::default();
    range.reverse = true;
    let mut scan = reader.scan(range).unwrap();
    let Some(entry) = scan.next_entry().unwrap() else { return 0 };
    let newest = entry.lsn.0;
    let mut last = newest;
    assert_eq!(id_of(entry.payload) + 1, newest);
    while let Some(entry) = scan.next_entry().unwrap() {
        assert_eq!((entry.lsn.0, id_of(entry.payload) + 1), (last - 1, last - 1));
        last -= 1;
    }
    assert_eq!(last, 1);
    newest
}

#[test]
fn many_readers_beside_a_writer_at_full_speed() {
    for mode in [FlushMode::Cautious, FlushMode::Normal] {
        let dir = temp();
        let mut options = tiny();
        options.flush_mode = mode;
        let log = open(dir.path(), options);
        let stop = AtomicBool::new(false);
        let confirmed = AtomicU64::new(0);
        let scans = AtomicU64::new(0);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (stop, store, confirmed, scans) = (&stop, dir.path(), &confirmed, &scans);
                scope.spawn(move || {
                    let mut before = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let floor = confirmed.load(Ordering::Acquire);
                        let found = if number == 3 { check_backward(store) } else { check_prefix(store) };
                        assert!(found >= before, "a later scan sees no less: {before} became {found}");
                        // A reader sees what is proven: all but the last groups in flight, a batch or two each.
                        assert!(found + 5000 >= floor, "{found} found, {floor} were confirmed before");
                        before = found;
                        scans.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let mut id = 0;
            while begin.elapsed() < Duration::from_secs(4) {
                fill(&log, id..id + 500, 300);
                id += 500;
                confirmed.store(id, Ordering::Release);
            }
            stop.store(true, Ordering::Relaxed);
        });
        let entries = log.stats().unwrap();
        println!("{mode:?}: {} scans, {entries:?}", scans.load(Ordering::Relaxed));
        assert!(scans.load(Ordering::Relaxed) >= 8, "that was no crowd");
        log.close().unwrap();
        assert_eq!(check_prefix(dir.path()), entries.confirmed_lsn.0);
    }
}

/// A long scan under way while the tables it planned to read are merged away.
#[test]
fn a_slow_scan_survives_flushes_and_merges() {
    let dir = temp();
    let log = open(dir.path(), tiny());
    fill(&log, 0..5000, 500);
    for reverse in [false, true] {
        let total = log.stats().unwrap().durable_lsn.0;
        let reader = Reader::open(dir.path()).unwrap();
        let mut range = ScanRange::default();
        range.reverse = reverse;
        let mut scan = reader.scan(range).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = scan.next_entry().unwrap() {
            found.push(entry.lsn.0);
            if found.len() % 500 == 0 {
                let next = log.stats().unwrap().confirmed_lsn.0;
                fill(&log, next..next + 1000, 500);
            }
        }
        if reverse {
            found.reverse();
        }
        assert!(found.iter().copied().eq(1..=found.len() as u64), "each entry once, in order");
        assert!(found.len() as u64 + 2000 >= total && found.len() as u64 <= total, "as it was when the scan began");
    }
}

/// Bytes this thread has read so far.
#[cfg(target_os = "linux")]
fn bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_short_answer_costs_little() {
    if fs::read_to_string("/proc/thread-self/io").is_err() {
        return println!("SKIPPED: this kernel does not count what a thread reads");
    }
    let dir = temp();
    let mut options = options();
    (options.memtable_bytes, options.segment_bytes) = (1 << 20, 2 << 20);
    let log = open(dir.path(), options);
    fill(&log, 0..300_000, 200);
    log.close().unwrap();
    let stats = Reader::open(dir.path()).unwrap().stats().unwrap();
    assert!(stats.entries == 300_000 && stats.checkpoint_lsn.0 > 250_000, "{stats:?}");
    let time = |lsn| read(dir.path(), lsns(lsn, lsn))[0].ns;
    let mut reverse = ScanRange::default();
    reverse.reverse = true;
    let mut by_time = ScanRange::default();
    (by_time.from_ns, by_time.to_ns) = (time(150_000), time(150_009));
    let cases = [
        ("first 10", ScanRange::default(), 1),
        ("last 10", reverse, 299_991),
        ("10 by LSN", lsns(150_000, 150_009), 150_000),
        ("10 by time", by_time, 150_000),
    ];
    let before = bytes_read();
    drop(Reader::open(dir.path()).unwrap().scan(lsns(0, 0)).unwrap());
    let look = bytes_read() - before;
    let before = bytes_read();
    assert_eq!(read_all(dir.path()).len(), 300_000);
    let whole = bytes_read() - before;
    assert!(whole > 60_000_000, "the whole store is read for the whole store: {whole}");
    for (what, range, first) in cases {
        let before = bytes_read();
        let reader = Reader::open(dir.path()).unwrap();
        let mut scan = reader.scan(range).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = scan.next_entry().unwrap().filter(|_| found.len() < 10) {
            found.push(entry.lsn.0);
        }
        found.sort_unstable();
        let cost = bytes_read() - before;
        println!("{what}: {cost} bytes, {look} of them for a look at manifest and log; {whole} for everything");
        assert!(found.iter().copied().eq(first..first + 10), "{what}: {found:?}");
        assert!(cost < look + (1 << 20), "{what}: {cost} bytes");
    }
    // Opening and scanning each read the log behind the checkpoint: two memtables, three groups, a segment, and 4 MiB
    // searched behind the end. That is bounded by the configuration, whatever the store holds.
    assert!(look < 32 << 20, "{look} bytes for a look");
}

/// After a kill there is nobody to vouch for the last groups: they are returned and marked.
#[test]
fn what_nobody_vouches_for_is_marked() {
    let dir = temp();
    let (store, out) = (dir.path().join("store"), dir.path().join("out"));
    let mut child = crate::child::Running::start("hold", &store, &out, 10);
    child.wait_for(&out, 5);
    child.kill(&store);
    let reader = Reader::open(&store).unwrap();
    let mut scan = reader.scan(ScanRange::default()).unwrap();
    let mut last = 0;
    while let Some(entry) = scan.next_entry().unwrap() {
        last = entry.lsn.0;
    }
    assert_eq!(last, 10);
    let notices = scan.notices();
    assert!(notices.iter().any(|notice| matches!(notice, Notice::Unconfirmed(lsn) if lsn.0 == 10)), "{notices:?}");
    open(&store, options()).close().unwrap();
    let reader = Reader::open(&store).unwrap();
    assert!(reader.scan(ScanRange::default()).unwrap().notices().is_empty());
}
