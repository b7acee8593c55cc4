//! Accepting damage on a disk that loses power at every operation, and what a store holds afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::accept::{Accepted, accept};
use super::{Plan, ops};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::format::{Gap, GapCause};
use crate::options::Options;
use crate::query::{Reader, ScanRange};
use crate::reactor::Core;
use crate::reactor::open::open;
use crate::reactor::ops::Ops;
use crate::reactor::stage::Request;
use crate::sim::{CutChoice, Fault, FaultKind, Grain, NameCut, OpClass, SimDisk};
use crate::survey::Kind;
use crate::survey::store::{How, StoreSurvey, take};

/// Turns after which a log that makes no headway fails the test.
const TURNS_MAX: u32 = 200_000;

fn options() -> Options {
    Options { segment_bytes: 64 << 10, memtable_bytes: 64 << 10, compaction_enabled: false, ..Options::default() }
}

/// A log in one life of a machine.
struct Life {
    ops: Rc<Ops>,
    core: Core,
}

impl Life {
    fn open(disk: &SimDisk) -> Result<Life> {
        let ops = ops(disk.backend(), Arc::new(disk.env()));
        let core = open(&ops, disk.vfs(), options())?;
        Ok(Life { ops, core })
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Core) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(&mut self.core) {
                return;
            }
            self.core.turn().unwrap_or_else(|cause| panic!("{what}: {cause}"));
            let tick = Duration::from_millis(100);
            self.ops.poll(Some(self.core.next_wait().map_or(tick, |wait| wait.min(tick))));
        }
        panic!("{what}: no headway");
    }

    /// Appends an entry and, with it, the position of a source; returns its LSN.
    fn append(&mut self, number: u64) -> u64 {
        let mut batch = Batch::new();
        batch.push(&payload(number)).expect("it is short");
        batch.checkpoint(b"till", &number.to_le_bytes()).expect("it is short");
        let (seq, range) = self.core.shared().submit(&batch, false).expect("the log is open").expect("there is room");
        self.until("an entry is confirmed", |core| {
            core.shared().is_confirmed(seq, crate::format::Lsn(u64::MAX)).expect("the log goes on")
        });
        range.last.0
    }

    fn close(mut self) {
        let asked = self.core.shared().request(Request::Close).expect("the log is open");
        self.until("the log is closed", |_| asked.try_take().is_some());
    }
}

/// Some hundred bytes that do not compress and can be told apart.
fn payload(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = number.to_le_bytes().to_vec();
    for _ in 0..120 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Tables, several segments behind them, closed cleanly; entry n has LSN n.
fn store(entries: u64) -> SimDisk {
    let disk = SimDisk::new(7);
    let mut life = Life::open(&disk).expect("it is born");
    for number in 1..=entries {
        assert_eq!(life.append(number), number);
    }
    life.close();
    disk.power_off();
    disk.cut(CutChoice::DropAll)
}

fn surveyed(disk: &SimDisk) -> StoreSurvey {
    let vfs = disk.vfs();
    let mut how =
        How { dir: Path::new("(simulated)"), is_writer_alive: &|| false, deep: true, progress: &mut |_, _| {} };
    take(&*vfs, &mut how).expect("it can be surveyed")
}

fn accepted(disk: &SimDisk) -> Result<Accepted> {
    let survey = surveyed(disk);
    let plan = Plan::of(&survey);
    accept(&ops(disk.backend(), Arc::new(disk.env())), &disk.vfs(), survey, &plan)
}

/// What a reader finds: entries by LSN, checked against what was appended, and whether all of it could be read.
fn read(disk: &SimDisk) -> (Vec<u64>, bool) {
    let reader = Reader::of(disk.vfs(), false);
    let Ok(mut scan) = reader.scan(ScanRange::default()) else { return (Vec::new(), false) };
    let (mut found, mut is_whole) = (Vec::new(), true);
    loop {
        match scan.next_entry() {
            Ok(Some(entry)) => {
                assert_eq!(entry.payload, payload(entry.lsn.0));
                found.push(entry.lsn.0);
            }
            Ok(None) => return (found, is_whole),
            Err(_) => is_whole = false,
        }
    }
}

/// The file that holds this entry, and where.
fn find(disk: &SimDisk, number: u64) -> (String, u64) {
    let needle = payload(number);
    let mut files = disk.files().into_iter().rev();
    files
        .find_map(|path| {
            let bytes = disk.read_file(&path)?;
            let at = bytes.windows(needle.len()).position(|window| window == needle)?;
            Some((path, at as u64))
        })
        .expect("the entry is in a file")
}

fn damage_entry(disk: &SimDisk, number: u64) {
    let (path, at) = find(disk, number);
    disk.flip_bit(&path, at + 40, 3);
}

/// A store with a bad table block, a bad group in the middle of the log, and the numbers that are lost.
fn damaged() -> (SimDisk, Vec<u64>) {
    let disk = store(190);
    damage_entry(&disk, 185);
    let table = disk.files().into_iter().find(|path| path.ends_with(".sst")).expect("there is a table");
    disk.flip_bit(&table, 9000, 1);
    let (found, _) = read(&disk);
    let lost: Vec<u64> = (1..=190).filter(|lsn| !found.contains(lsn)).collect();
    assert!(lost.contains(&185) && lost.len() > 1 && lost.len() < 100, "{lost:?}");
    (disk, lost)
}

fn contents(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    disk.files().into_iter().map(|path| (path.clone(), disk.read_file(&path).expect("it was listed"))).collect()
}

/// The store is sound, holds everything but `lost`, records that as gaps, and goes on behind `last`.
fn assert_sound(disk: &SimDisk, lost: &[u64], last: u64, what: &str) {
    let survey = surveyed(disk);
    assert!(survey.wounds.is_empty() && survey.missing.is_empty(), "{what}: {:?} {:?}", survey.wounds, survey.missing);
    let expected: Vec<u64> = (1..=last).filter(|lsn| !lost.contains(lsn)).collect();
    assert_eq!(read(disk), (expected.clone(), true), "{what}");
    let in_gap = |lsn: &u64| survey.gaps.iter().any(|gap: &Gap| (gap.first.0..=gap.last.0).contains(lsn));
    assert!(lost.iter().all(in_gap) && !expected.iter().any(in_gap), "{what}: {:?}", survey.gaps);
    assert!(survey.gaps.iter().all(|gap| gap.cause == GapCause::Damage), "{what}");
    let next = survey.log.next_lsn.0;
    assert!(next > last, "{what}");
    let mut life = Life::open(disk).unwrap_or_else(|cause| panic!("{what}: {cause}"));
    assert_eq!(life.core.checkpoints().get(&b"till"[..]).map(Vec::as_slice), Some(&last.to_le_bytes()[..]), "{what}");
    assert_eq!(life.append(next), next, "{what}");
    life.close();
    assert_eq!(read(disk).0.last(), Some(&next), "{what}");
}

#[test]
fn accepting_keeps_everything_good_and_every_damaged_file() {
    let (disk, lost) = damaged();
    let before = contents(&disk);
    let wounded: Vec<String> = surveyed(&disk).wounds.into_iter().map(|wound| wound.file).collect();
    let done = accepted(&disk).expect("the disk is good");
    assert!(done.is_accepted && done.quarantined.len() == 2, "{done:?}");
    for path in wounded {
        let name = path.rsplit('/').next().expect("a file has a name");
        assert_eq!(disk.read_file(&format!("quarantine/{name}")).as_ref(), Some(&before[&path]), "{path}");
    }
    assert_sound(&disk, &lost, 190, "accepted");
    let again = accepted(&disk).expect("the disk is good");
    assert_eq!(again, Accepted::default(), "there is nothing left to accept");
}

/// Cut at each operation, in several ways: the store is refused as damaged, or open and whole; a second run finishes.
#[test]
fn a_power_cut_in_the_middle_costs_nothing() {
    let (disk, lost) = damaged();
    let mut nth = 0;
    loop {
        nth += 1;
        let run = disk.copy_tree();
        run.power_off_at(nth);
        if accepted(&run).is_ok() {
            break;
        }
        let choices = [
            CutChoice::DropAll,
            CutChoice::KeepAll,
            CutChoice::Sampled { grain: Grain::Sector, names: NameCut::Ordered, seed: nth },
            CutChoice::Sampled { grain: Grain::Block, names: NameCut::Any, seed: nth },
        ];
        for choice in choices {
            let what = format!("cut at operation {nth}, {choice}");
            let next = run.cut(choice);
            let expected: Vec<u64> = (1..=190).filter(|lsn| !lost.contains(lsn)).collect();
            assert_eq!(read(&next).0, expected, "{what}");
            match Life::open(&next.copy_tree()) {
                Err(Error::Corrupt(_)) => {}
                Err(cause) => panic!("{what}: {cause}"),
                Ok(life) => {
                    drop(life);
                    assert!(surveyed(&next).wounds.is_empty(), "{what}: a daemon begins on damage");
                    // A daemon that comes before the second run takes nothing away.
                    let started = next.copy_tree();
                    let mut life = Life::open(&started).expect("it opened just now");
                    assert_eq!(life.append(191), 191, "{what}");
                    life.close();
                    accepted(&started).unwrap_or_else(|cause| panic!("{what}: {cause}"));
                    assert_eq!(read(&started).0.len(), expected.len() + 1, "{what}");
                    assert_kept(&started, &what);
                }
            }
            accepted(&next).unwrap_or_else(|cause| panic!("{what}: {cause}"));
            assert_sound(&next, &lost, 190, &what);
            assert_kept(&next, &what);
        }
        assert!(nth < 1000, "accepting ends");
    }
    assert!(nth > 20, "the power failed in the middle: {nth}");
}

fn assert_kept(disk: &SimDisk, what: &str) {
    let kept = disk.files().into_iter().filter(|path| path.starts_with("quarantine/")).count();
    // Names that survive in any order may leave a file under both of its names, and then it is kept twice.
    assert!((2..=4).contains(&kept), "{what}: {:?}", disk.files());
}

#[test]
fn a_lost_end_of_the_log_skips_every_number_that_may_have_been_given() {
    let disk = store(20);
    let path = disk.files().into_iter().rfind(|path| path.ends_with(".wal")).expect("there is a segment");
    let (active, _) = find(&disk, 20);
    for path in [path, active] {
        if disk.files().contains(&path) {
            disk.remove(&path);
        }
    }
    let survey = surveyed(&disk);
    let lost = Plan::of(&survey);
    let (first, last) = lost.skipped.expect("nothing tells where the log ended");
    let (before, _) = read(&disk);
    assert!(before.len() < 20 && !before.contains(&first.0), "{first}: {before:?}");
    assert!(last.0 >= (1 << 30) / 36, "as many entries fit into the longest segment: {last}");
    accepted(&disk).expect("the disk is good");
    let mut life = Life::open(&disk).expect("it is accepted");
    let next = last.0 + 1;
    assert_eq!(life.append(next), next);
    life.close();
    assert_eq!(read(&disk), ([before, vec![next]].concat(), true));
}

/// A device that does not give a block back, or gives other bytes now and then, is no reason to stop, and none to be silent.
#[test]
fn read_errors_are_damage_with_a_reason() {
    let disk = store(190);
    let table = disk.files().into_iter().find(|path| path.ends_with(".sst")).expect("there is a table");
    for path in [&table, &find(&disk, 190).0] {
        let failing = disk.copy_tree();
        failing.fail(Fault::nth(OpClass::Read, 3, FaultKind::Eio).on(path).and_after());
        let survey = surveyed(&failing);
        assert!(!survey.wounds.is_empty(), "{path}");
        for wound in &survey.wounds {
            assert!(wound.file == *path && wound.what.contains("the device cannot read it"), "{wound:?}");
        }
        let (found, is_whole) = read(&failing);
        assert!(!is_whole && !found.is_empty() && found.len() < 190, "{path}: {found:?}");
    }
    let flipping = disk.copy_tree();
    flipping.fail(Fault::nth(OpClass::Read, 5, FaultKind::FlipBit).on(&table));
    let wounds = surveyed(&flipping).wounds;
    assert!(wounds.iter().all(|wound| wound.kind == Kind::Unstable) && wounds.len() == 1, "{wounds:?}");
}

fn manifests(disk: &SimDisk) -> Vec<String> {
    disk.files().into_iter().filter(|path| path.starts_with("MANIFEST-")).collect()
}

/// Segments know under which manifest they were begun.
#[test]
fn an_old_manifest_in_the_place_of_the_newest_is_found_out() {
    let disk = SimDisk::new(7);
    let mut life = Life::open(&disk).expect("it is born");
    (1..=100).for_each(|number| assert_eq!(life.append(number), number));
    life.until("a table is written", |core| !core.checkpoints().is_empty() && manifests(&disk).len() == 1);
    let old = manifests(&disk).pop().expect("a store has one");
    let bytes = disk.read_file(&old).expect("it is there");
    (101..=190).for_each(|number| assert_eq!(life.append(number), number));
    life.close();
    assert!(!manifests(&disk).contains(&old), "the manifest was replaced");
    disk.power_off();
    let disk = disk.cut(CutChoice::KeepAll);
    manifests(&disk).iter().for_each(|path| disk.remove(path));
    disk.write_file(&old, &bytes);
    assert!(matches!(Life::open(&disk), Err(Error::Corrupt(damage)) if damage.file == old));
    accepted(&disk).expect("the disk is good");
    assert_sound(&disk, &[], 190, "rebuilt");
}

#[test]
fn a_rebuilt_manifest_is_made_the_stores_own() {
    for is_lost in [false, true] {
        let disk = store(190);
        let mut paths = manifests(&disk);
        match is_lost {
            true => paths.iter().for_each(|path| disk.remove(path)),
            false => disk.flip_bit(&paths.pop().expect("a store has one"), 70, 1),
        }
        assert!(matches!(Life::open(&disk), Err(Error::Corrupt(_))));
        accepted(&disk).expect("the disk is good");
        assert_sound(&disk, &[], 190, "rebuilt");
    }
}
