//! A process that dies exactly at rotation, and what a power cut may have left of the new segment.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::child::command;
use crate::helper::*;

/// A store whose writer was killed right behind the confirmation of the entry that began segment 2.
struct Killed {
    /// Keeps the directory.
    _dir: tempfile::TempDir,
    store: PathBuf,
    /// Its last entry, the one in segment 2.
    last: u64,
}

impl Killed {
    fn new() -> Killed {
        let dir = temp();
        let (store, out) = (dir.path().join("store"), dir.path().join("out"));
        let status = command("rotate", &store, &out, 0).stderr(std::process::Stdio::null()).status().unwrap();
        assert!(!status.success(), "it aborts");
        let last = u64::from_le_bytes(fs::read(&out).unwrap().try_into().unwrap());
        Killed { _dir: dir, store, last }
    }

    fn segments(&self, active: bool) -> Vec<PathBuf> {
        let mut found = files(&self.store, "wal", ".wal");
        found.retain(|path| is_active(path) == active);
        assert_eq!(found.len(), 2, "two segments and two spares: {found:?}");
        found
    }

    /// Opens, with at least `kept` entries; appends; opens again: everything is still there.
    fn check(&self, what: &str, kept: u64) {
        let found = |what: &str| -> u64 {
            let found = read_all(&self.store);
            assert!(
                found.iter().zip(0..).all(|(entry, id)| entry.lsn == id + 1 && entry.payload == payload(id, 30_000)),
                "{what}: entries in order"
            );
            found.len() as u64
        };
        let mut options = options();
        options.segment_bytes = 1 << 20;
        let log = match kifa::Log::open(&self.store, options.clone()) {
            Ok(log) => log,
            Err(cause) => panic!("{what}: {cause}"),
        };
        let recovered = log.stats().unwrap().confirmed_lsn.0;
        assert!((kept..=self.last).contains(&recovered), "{what}: {recovered} of {kept} to {}", self.last);
        // Far enough to rotate again, over whatever the spares are now.
        for id in recovered..recovered + 120 {
            assert_eq!(log.append(&payload(id, 30_000)).unwrap().0, id + 1, "{what}");
        }
        log.close().unwrap();
        assert_eq!(found(what), recovered + 120, "{what}");
        let log = open(&self.store, options);
        assert!(log.stats().unwrap().recovery.clean, "{what}");
        log.close().unwrap();
        assert_eq!(found(what), recovered + 120, "{what}");
    }
}

fn zero(path: &Path, from: u64, to: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[from as usize..to as usize].fill(0);
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path, bytes: u64) {
    File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

type Harm = fn(&Path);

const SEGMENT: u64 = 1 << 20;

/// What may become of a file that was never used, or whose first group was not confirmed.
const HARMS: [(&str, Harm); 8] = [
    ("empty", |path| truncate(path, 0)),
    ("missing", |path| fs::remove_file(path).unwrap()),
    ("second half zeroed", |path| zero(path, SEGMENT / 2, SEGMENT)),
    ("second half missing", |path| truncate(path, SEGMENT / 2)),
    ("nothing but a header", |path| truncate(path, 4096)),
    ("nothing but half a header", |path| truncate(path, 512)),
    ("header zeroed", |path| zero(path, 0, 4096)),
    ("all zero", |path| zero(path, 0, SEGMENT)),
];

#[test]
fn a_kill_alone_loses_nothing() {
    let killed = Killed::new();
    killed.check("as it was", killed.last);
}

#[test]
fn a_harmed_spare_is_no_error() {
    for (what, harm) in HARMS {
        for both in [false, true] {
            let killed = Killed::new();
            let spares = killed.segments(false);
            spares.iter().take(1 + usize::from(both)).for_each(|spare| harm(spare));
            killed.check(&format!("spare: {what}"), killed.last);
        }
    }
}

#[test]
fn a_new_segment_whose_first_group_is_not_confirmed_may_be_in_any_state() {
    for (what, harm) in HARMS {
        let killed = Killed::new();
        let newest = killed.segments(true).remove(1);
        let bytes = fs::read(&newest).unwrap();
        harm(&newest);
        let is_cut = fs::read(&newest).is_ok_and(|left| left.len() < bytes.len() && left.len() >= 512);
        if is_cut || what == "header zeroed" {
            // No power cut does that: a file that was prepared whole and has its header does not become shorter, and a
            // header is durable before the first group behind it is written.
            let before = contents(&killed.store);
            let refused = kifa::Log::open(&killed.store, options()).unwrap_err();
            assert!(matches!(refused, kifa::Error::Corrupt(_)), "{what}: {refused:?}");
            assert!(before.len() == contents(&killed.store).len());
            continue;
        }
        killed.check(&format!("new segment: {what}"), killed.last - 1);
    }
}

#[test]
fn a_new_segment_may_hold_a_header_and_half_a_group() {
    let torn: [(&str, u64, u64); 4] = [
        ("no group", 4096, SEGMENT),
        ("first block of the group", 8192, SEGMENT),
        ("all but the first block of the group", 4096, 8192),
        ("a hole in the group", 12_288, 12_800),
    ];
    for (what, from, to) in torn {
        let killed = Killed::new();
        zero(&killed.segments(true)[1], from, to);
        killed.check(what, killed.last - 1);
    }
}
