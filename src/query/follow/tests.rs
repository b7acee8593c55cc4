//! Following logs built by hand, on real files: what grows, rotates, dies and comes back.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tempfile::TempDir;

use super::*;
use crate::format::Gap;
use crate::format::GapCause;
use crate::format::manifest::Manifest;
use crate::io::fs::RealVfs;
use crate::io::{DirEntry, Metadata, ReadAt, Vfs};
use crate::query::vouch::Writer;
use crate::wal::tests::{STORE, Segment as Draft, durable, first_segment, marker};

/// A store of hand-made segments, and how much of it was read.
struct Place {
    dir: TempDir,
    read_bytes: Arc<AtomicU64>,
    is_alive: Arc<AtomicBool>,
}

/// The real files, counted.
struct Counted(RealVfs, Arc<AtomicU64>);

struct CountedFile(Box<dyn ReadAt>, Arc<AtomicU64>);

impl Vfs for Counted {
    fn open(&self, path: &str) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(CountedFile(self.0.open(path)?, Arc::clone(&self.1))))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.0.list(dir)
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        self.0.metadata(path)
    }
}

impl ReadAt for CountedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.0.read_at(buf, offset)?;
        self.1.fetch_add(read as u64, Ordering::SeqCst);
        Ok(read)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }
}

impl Place {
    fn new(segments: &[&Draft]) -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("wal")).unwrap();
        fs::write(dir.path().join("MANIFEST-0000000001"), Manifest::birth(STORE).encode()).unwrap();
        let place = Place { dir, read_bytes: Arc::default(), is_alive: Arc::new(AtomicBool::new(true)) };
        segments.iter().for_each(|segment| place.save(segment));
        place
    }

    /// As a writer writes: in place.
    fn save(&self, segment: &Draft) {
        fs::write(self.dir.path().join(segment.path()), &segment.bytes).unwrap();
    }

    fn reader(&self) -> Reader {
        let vfs = Counted(RealVfs::open(self.dir.path()).unwrap(), Arc::clone(&self.read_bytes));
        let is_alive = Arc::clone(&self.is_alive);
        Reader::beside(Arc::new(vfs), Writer::new(move || is_alive.load(Ordering::SeqCst), || None))
    }

    fn read_bytes(&self) -> u64 {
        self.read_bytes.swap(0, Ordering::SeqCst)
    }
}

/// The LSNs that come now.
fn next(follow: &mut Follow<'_>, vouched: Option<u64>) -> Vec<u64> {
    let mut lsns = Vec::new();
    while let Some((entry, _)) = follow.next_named(vouched.map(Lsn)).expect("the log is sound") {
        assert_eq!(entry.payload, format!("entry {}", entry.lsn).as_bytes());
        lsns.push(entry.lsn.0);
    }
    lsns
}

const NONE: [u64; 0] = [];

#[test]
fn entries_come_once_as_far_as_the_daemon_vouches_and_cost_what_is_new() {
    let mut segment = first_segment();
    let place = Place::new(&[&segment]);
    let reader = place.reader();
    let mut follow = Follow::new(&reader, ScanRange::default());
    assert_eq!(next(&mut follow, Some(0)), NONE);
    for _ in 0..5 {
        segment.group(2, durable(0));
    }
    place.save(&segment);
    assert_eq!(next(&mut follow, Some(4)), [1, 2, 3, 4]);
    segment.group(1, durable(10));
    place.save(&segment);
    assert_eq!(next(&mut follow, Some(10)), (5..=10).collect::<Vec<_>>());
    assert_eq!(next(&mut follow, Some(10)), NONE);
    place.read_bytes();
    assert_eq!(next(&mut follow, Some(11)), [11]);
    assert!(place.read_bytes() < 128 << 10, "no more than the window");
    assert_eq!(next(&mut follow, Some(11)), NONE);
    assert_eq!(place.read_bytes(), 0, "nothing new costs nothing");
}

#[test]
fn without_a_word_an_entry_waits_for_its_proof() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let place = Place::new(&[&segment]);
    let reader = place.reader();
    let mut follow = Follow::new(&reader, ScanRange::default());
    assert_eq!(next(&mut follow, None), NONE);
    segment.group(1, durable(2));
    place.save(&segment);
    assert_eq!(next(&mut follow, None), [1, 2]);
    segment.group(0, durable(3));
    place.save(&segment);
    assert_eq!(next(&mut follow, None), [3]);
    segment.group(3, durable(3));
    segment.group(3, durable(3));
    place.save(&segment);
    assert_eq!(next(&mut follow, None), NONE);
    segment.group(1, durable(9));
    place.save(&segment);
    assert_eq!(next(&mut follow, None), [4, 5, 6, 7, 8, 9]);
    assert_eq!(next(&mut follow, Some(10)), [10], "a daemon came back");
}

#[test]
fn nothing_behind_a_hole_comes_whatever_is_vouched_for() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    segment.group(1, durable(2));
    let place = Place::new(&[&segment]);
    let reader = place.reader();
    let mut follow = Follow::new(&reader, ScanRange::default());
    assert_eq!(next(&mut follow, Some(2)), [1, 2]);
    let hole = segment.group(1, durable(2));
    segment.group(1, durable(2));
    segment.damage(hole);
    place.save(&segment);
    assert_eq!(next(&mut follow, Some(5)), [3]);
    assert_eq!(next(&mut follow, Some(5)), NONE);
    assert!(follow.is_behind(Lsn(5)) && !follow.is_cut_short(), "it may be on its way");
}

#[test]
fn a_rotation_is_followed_by_its_link() {
    let mut old = first_segment();
    old.group(2, durable(0));
    old.group(1, durable(2));
    let place = Place::new(&[&old]);
    let reader = place.reader();
    let mut follow = Follow::new(&reader, ScanRange::default());
    assert_eq!(next(&mut follow, Some(3)), [1, 2, 3]);
    // One that goes on behind another end, with the right LSN: a life that a later one has superseded.
    let mut dead = Draft::new(2, 1, crate::format::record::LogEnd { salt: 9, ..old.end() }, 3, None);
    dead.group(5, durable(3));
    let mut new = Draft::new(3, 1, old.end(), 3, None);
    new.group(2, durable(3));
    place.save(&dead);
    place.save(&new);
    assert_eq!(next(&mut follow, Some(8)), [4, 5]);
    let mut third = Draft::new(4, 1, new.end(), 5, None);
    third.group(1, durable(5));
    third.group(1, durable(6));
    place.save(&third);
    assert_eq!(next(&mut follow, None), [6], "by proof, across the boundary");
}

#[test]
fn what_a_dead_writer_left_unproven_is_held_back_until_the_next_life_has_written_it_anew() {
    let mut old = first_segment();
    old.group(2, durable(0));
    let proven = old.group(1, durable(2));
    let end = crate::format::record::LogEnd { offset: proven, last_lsn: Lsn(2), ..old.end() };
    let place = Place::new(&[&old]);
    place.is_alive.store(false, Ordering::SeqCst);
    let reader = place.reader();
    let mut follow = Follow::new(&reader, ScanRange::default());
    assert_eq!(next(&mut follow, None), [1, 2]);
    assert_eq!(follow.take_notices(), [Notice::Unconfirmed(Lsn(3))]);
    assert_eq!(next(&mut follow, None), NONE);
    let mut new = Draft::new(2, 2, end, 2, None);
    new.group(1, durable(2));
    new.group(1, durable(3));
    place.save(&new);
    assert_eq!(next(&mut follow, None), [3]);
    follow.resync();
    assert_eq!(next(&mut follow, Some(4)), [4]);
}

#[test]
fn a_clean_close_and_the_next_epoch_in_the_same_segment_are_followed() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let place = Place::new(&[&segment]);
    let reader = place.reader();
    let mut follow = Follow::new(&reader, ScanRange::default());
    assert_eq!(next(&mut follow, None), NONE);
    let end = segment.end();
    segment.group(0, marker(2));
    place.save(&segment);
    assert_eq!(next(&mut follow, None), [1, 2], "the marker proves everything");
    segment.begin_epoch(end);
    segment.group(1, durable(2));
    segment.group(1, durable(3));
    place.save(&segment);
    assert_eq!(next(&mut follow, None), [3]);
    assert_eq!(next(&mut follow, Some(4)), [4]);
}

#[test]
fn a_gap_is_told_and_passed() {
    let mut old = first_segment();
    old.group(2, durable(0));
    old.group(0, durable(2));
    let place = Place::new(&[&old]);
    let reader = place.reader();
    let mut follow = Follow::new(&reader, ScanRange::default());
    assert_eq!(next(&mut follow, None), [1, 2]);
    let gap = Gap { first: Lsn(3), last: Lsn(52), cause: GapCause::UncleanNormal };
    let mut new = Draft::new(2, 2, old.end(), 2, Some(gap));
    new.group(1, durable(52));
    new.group(1, durable(53));
    place.save(&new);
    assert_eq!(next(&mut follow, None), [53]);
    assert!(follow.take_notices().contains(&Notice::Gap(gap)));
    assert_eq!(next(&mut follow, Some(54)), [54]);
}

#[test]
fn a_range_bounds_what_is_followed() {
    let mut segment = first_segment();
    segment.group(4, durable(0));
    segment.group(4, durable(4));
    let place = Place::new(&[&segment]);
    let reader = place.reader();
    let range = ScanRange { from_lsn: Lsn(3), to_lsn: Lsn(10), from_ns: 1004, to_ns: 1009, ..ScanRange::default() };
    let mut follow = Follow::new(&reader, range);
    assert_eq!(next(&mut follow, None), [4]);
    segment.group(4, durable(8));
    place.save(&segment);
    assert_eq!(next(&mut follow, Some(8)), [5, 6, 7, 8]);
    assert!(!follow.is_done());
    assert_eq!(next(&mut follow, Some(12)), [9]);
    assert!(follow.is_done());
    let mut from_afar = Follow::new(&reader, ScanRange { from_lsn: Lsn(12), ..ScanRange::default() });
    assert_eq!(next(&mut from_afar, Some(12)), [12]);
    segment.group(1, durable(12));
    place.save(&segment);
    assert_eq!(next(&mut from_afar, Some(13)), [13]);
}

#[test]
fn another_store_or_an_older_copy_in_its_place_is_an_error() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let copy = segment.bytes.clone();
    segment.group(2, durable(2));
    segment.group(0, durable(4));
    let place = Place::new(&[&segment]);
    let reader = place.reader();
    let mut follow = Follow::new(&reader, ScanRange::default());
    assert_eq!(next(&mut follow, None), [1, 2, 3, 4]);
    segment.bytes = copy;
    place.save(&segment);
    follow.resync();
    let refused = follow.next_named(None).unwrap_err().to_string();
    assert!(refused.contains("an older copy took its place"), "{refused}");

    let other = Manifest { store: StoreId([9; 16]), ..Manifest::birth(STORE) };
    fs::write(place.dir.path().join("MANIFEST-0000000001"), other.encode()).unwrap();
    follow.resync();
    let refused = follow.next_named(None).unwrap_err().to_string();
    assert!(refused.contains("another store has taken its place"), "{refused}");
}
