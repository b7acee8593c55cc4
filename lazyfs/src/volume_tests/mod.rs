//! One test per rule of the model, on a volume without a kernel: they need neither root nor /dev/fuse.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;

mod faults;

use rustix::fs::FileType;
use rustix::io::Errno;
use tempfile::TempDir;

use crate::command::run;
use crate::content::Grain;
use crate::cut::Survivors;
use crate::names::NameCut;
use crate::ops::New;
use crate::volume::{Settings, Volume};

const ROOT: u64 = 1;

struct Disk {
    dir: TempDir,
    volume: Volume,
}

fn disk() -> Disk {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), Settings::default(), false).unwrap();
    Disk { dir, volume }
}

impl Disk {
    fn new_in(&mut self, parent: u64, name: &str, kind: FileType) -> u64 {
        let mode = if kind == FileType::Directory { 0o700 } else { 0o600 };
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        self.volume.create(New { parent, name: OsStr::new(name), kind, mode, owner }).unwrap().ino
    }

    fn file(&mut self, name: &str) -> u64 {
        self.new_in(ROOT, name, FileType::RegularFile)
    }

    /// A file whose name is durable.
    fn named(&mut self, name: &str) -> u64 {
        let ino = self.file(name);
        self.volume.sync_dir(ROOT).unwrap();
        ino
    }

    fn write(&mut self, ino: u64, offset: u64, bytes: &[u8]) {
        assert_eq!(self.volume.write(ino, bytes, offset, false), Ok(bytes.len()));
    }

    fn contents(&mut self, ino: u64) -> Vec<u8> {
        let mut buf = vec![0; 1 << 20];
        let read = self.volume.read(ino, &mut buf, 0).unwrap();
        buf.truncate(read);
        buf
    }

    fn cut(&mut self, survivors: Survivors) {
        self.volume.settings().survivors = survivors;
        self.volume.power_off().unwrap();
        self.volume.power_on().unwrap();
    }

    fn ino(&mut self, name: &str) -> Result<u64, Errno> {
        self.volume.lookup(ROOT, OsStr::new(name)).map(|attributes| attributes.ino)
    }

    /// What a file holds after the cut; `None` if its name is gone.
    fn after(&mut self, name: &str) -> Option<Vec<u8>> {
        let ino = self.ino(name).ok()?;
        Some(self.contents(ino))
    }

    fn names(&mut self) -> Vec<String> {
        let listed = self.volume.list(ROOT).unwrap().into_iter().map(|(name, _)| name.into_string().unwrap());
        listed.filter(|name| name != "." && name != "..").collect()
    }

    fn command(&mut self, line: &str) {
        let answer = run(&mut self.volume, line);
        assert!(answer.end.starts_with("finished::"), "{answer:?}");
    }
}

/// Every different thing that cuts by many seeds leave of what `prepare` does.
fn outcomes<T: Ord>(
    survivors: impl Fn(u64) -> Survivors,
    mut prepare: impl FnMut(&mut Disk),
    mut look: impl FnMut(&mut Disk) -> T,
) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let mut disk = disk();
        prepare(&mut disk);
        disk.cut(survivors(seed));
        seen.insert(look(&mut disk));
    }
    seen
}

fn sectors(seed: u64) -> Survivors {
    Survivors::Sampled { grain: Grain::Sector, names: NameCut::Ordered, seed }
}

#[test]
fn what_was_not_synced_is_lost() {
    let mut disk = disk();
    let ino = disk.named("x");
    disk.write(ino, 0, b"durable");
    disk.volume.sync(ino).unwrap();
    disk.write(ino, 0, b"gone?");
    disk.write(ino, 100_000, b"longer");
    assert_eq!(disk.contents(ino).len(), 100_006);
    disk.cut(Survivors::None);
    assert_eq!(disk.after("x").unwrap(), b"durable");
    assert_eq!(fs::read(disk.dir.path().join("x")).unwrap(), b"durable", "the backing directory is what is durable");
}

#[test]
fn a_file_is_as_lost_as_its_name() {
    let mut disk = disk();
    let ino = disk.file("x");
    disk.write(ino, 0, b"synced");
    disk.volume.sync(ino).unwrap();
    disk.cut(Survivors::None);
    assert_eq!(disk.after("x"), None, "only its directory's sync makes a name durable");
    let ino = disk.file("y");
    disk.write(ino, 0, b"not synced");
    disk.volume.sync_dir(ROOT).unwrap();
    disk.cut(Survivors::None);
    assert_eq!(disk.after("y").unwrap(), b"", "the name survives the data");
}

#[test]
fn a_durable_write_covers_itself_and_no_other() {
    let mut disk = disk();
    let ino = disk.named("x");
    disk.write(ino, 0, &[1; 4096]);
    assert_eq!(disk.volume.write(ino, &[2; 4096], 4096, true), Ok(4096));
    disk.cut(Survivors::None);
    let left = disk.after("x").unwrap();
    assert_eq!((left.len(), left[0], left[4096]), (8192, 0, 2));
}

#[test]
fn renames_unlinks_and_directories_wait_for_their_directories() {
    let mut disk = disk();
    for name in ["a", "b"] {
        disk.named(name);
    }
    let dir = disk.new_in(ROOT, "d", FileType::Directory);
    disk.volume.rename((ROOT, OsStr::new("a")), (dir, OsStr::new("a")), false).unwrap();
    disk.volume.unlink(ROOT, OsStr::new("b"), false).unwrap();
    assert_eq!(disk.names(), ["d"]);
    disk.cut(Survivors::None);
    assert_eq!(disk.names(), ["a", "b"], "nothing of it was synced");

    let dir = disk.new_in(ROOT, "d", FileType::Directory);
    disk.volume.rename((ROOT, OsStr::new("a")), (dir, OsStr::new("a")), false).unwrap();
    disk.volume.sync_dir(ROOT).unwrap();
    disk.cut(Survivors::None);
    assert_eq!(disk.names(), ["a", "b", "d"], "one of two directories is not enough for a rename");

    let dir = disk.ino("d").unwrap();
    disk.volume.rename((ROOT, OsStr::new("a")), (dir, OsStr::new("a")), false).unwrap();
    disk.volume.unlink(ROOT, OsStr::new("b"), false).unwrap();
    disk.volume.sync_dir(ROOT).unwrap();
    disk.volume.sync_dir(dir).unwrap();
    disk.cut(Survivors::None);
    assert_eq!(disk.names(), ["d"]);
    let dir = disk.ino("d").unwrap();
    assert!(disk.volume.lookup(dir, OsStr::new("a")).is_ok());
    disk.volume.unlink(dir, OsStr::new("a"), false).unwrap();
    disk.volume.unlink(ROOT, OsStr::new("d"), true).unwrap();
    disk.volume.sync_dir(ROOT).unwrap();
    disk.cut(Survivors::None);
    assert!(disk.names().is_empty(), "a directory goes with what it holds on the durable side");
}

#[test]
fn hard_links_are_names_of_one_file() {
    let mut disk = disk();
    let ino = disk.named("a");
    disk.volume.link(ino, ROOT, OsStr::new("b")).unwrap();
    assert_eq!(disk.volume.attributes(ino).unwrap().links, 2);
    disk.volume.unlink(ROOT, OsStr::new("a"), false).unwrap();
    disk.volume.sync_dir(ROOT).unwrap();
    disk.volume.link(ino, ROOT, OsStr::new("c")).unwrap();
    disk.volume.sync_dir(ROOT).unwrap();
    disk.cut(Survivors::None);
    assert_eq!(disk.names(), ["b", "c"]);
    let ino = disk.ino("b").unwrap();
    assert_eq!(disk.ino("c"), Ok(ino));
    disk.write(ino, 0, b"one file");
    let other = disk.ino("c").unwrap();
    assert_eq!(disk.contents(other), b"one file");
}

#[test]
fn a_truncation_is_lost_or_kept_like_a_write() {
    let prepare = |disk: &mut Disk| {
        let ino = disk.named("x");
        disk.write(ino, 0, &[7; 10_000]);
        disk.volume.sync(ino).unwrap();
        disk.volume.truncate(ino, 100).unwrap();
        disk.volume.truncate(ino, 12_000).unwrap();
        let now = disk.contents(ino);
        assert_eq!((now[99], now[100], now[9_000], now.len()), (7, 0, 0, 12_000));
    };
    let look = |disk: &mut Disk| {
        let left = disk.after("x").unwrap();
        (left.len(), left.get(9_000) == Some(&7))
    };
    assert_eq!(outcomes(|_| Survivors::None, prepare, look), BTreeSet::from([(10_000, true)]));
    assert_eq!(outcomes(|_| Survivors::All, prepare, look), BTreeSet::from([(12_000, false)]));
    assert!(outcomes(sectors, prepare, look).contains(&(12_000, true)), "the length without the truncation");
    let synced = |disk: &mut Disk| {
        prepare(disk);
        let ino = disk.ino("x").unwrap();
        disk.volume.sync(ino).unwrap();
    };
    assert_eq!(outcomes(|_| Survivors::None, synced, look), BTreeSet::from([(12_000, false)]));
}

#[test]
fn writes_tear_at_their_unit_and_in_any_order() {
    let prepare = |disk: &mut Disk| {
        let ino = disk.named("x");
        disk.write(ino, 0, &[1; 8192]);
        disk.volume.sync(ino).unwrap();
        disk.write(ino, 0, &[2; 8192]);
    };
    let look = |disk: &mut Disk| {
        let left = disk.after("x").unwrap();
        left.chunks(512).map(|unit| (unit.iter().all(|&byte| byte == unit[0]), unit[0])).collect::<Vec<_>>()
    };
    let torn = outcomes(sectors, prepare, look);
    assert!(torn.iter().flatten().all(|unit| unit.0), "no unit is torn");
    assert!(torn.iter().any(|units| (units[0].1, units[1].1, units[15].1) == (1, 2, 1)), "the second, not the first");
    let blocks = |seed| Survivors::Sampled { grain: Grain::Block, names: NameCut::Ordered, seed };
    let torn: Vec<_> = outcomes(blocks, prepare, look).into_iter().collect();
    assert_eq!(torn.len(), 4, "two blocks");
    assert!(torn.iter().all(|units| units[..8].iter().all(|unit| unit.1 == units[0].1)));
}

#[test]
fn of_two_writes_to_one_unit_either_or_none_is_left_and_a_synced_one_is_final() {
    let prepare = |disk: &mut Disk| {
        let ino = disk.named("x");
        for byte in 1..=3 {
            disk.write(ino, 0, &[byte; 512]);
            if byte == 1 {
                disk.volume.sync(ino).unwrap();
            }
        }
    };
    let look = |disk: &mut Disk| disk.after("x").unwrap()[0];
    assert_eq!(outcomes(sectors, prepare, look), BTreeSet::from([1, 2, 3]));
    let superseded = |disk: &mut Disk| {
        let ino = disk.named("x");
        disk.write(ino, 0, &[1; 512]);
        assert_eq!(disk.volume.write(ino, &[2; 512], 0, true), Ok(512));
    };
    assert_eq!(outcomes(sectors, superseded, look), BTreeSet::from([2]), "the older one cannot come back");
}

#[test]
fn names_survive_in_order_or_not() {
    let prepare = |disk: &mut Disk| {
        for name in ["a", "b"] {
            disk.file(name);
        }
    };
    let ordered = outcomes(sectors, prepare, Disk::names);
    assert!(ordered.contains(&vec!["a".to_owned()]) && !ordered.contains(&vec!["b".to_owned()]), "{ordered:?}");
    let any = |seed| Survivors::Sampled { grain: Grain::Sector, names: NameCut::Any, seed };
    assert!(outcomes(any, prepare, Disk::names).contains(&vec!["b".to_owned()]));
}

#[test]
fn an_orderly_end_keeps_everything_and_leaves_nothing_behind() {
    let mut disk = disk();
    let dir = disk.new_in(ROOT, "d", FileType::Directory);
    let ino = disk.new_in(dir, "x", FileType::RegularFile);
    disk.write(ino, 5, b"late");
    disk.new_in(dir, "socket", FileType::Socket);
    disk.volume.close().unwrap();
    assert_eq!(fs::read(disk.dir.path().join("d/x")).unwrap(), b"\0\0\0\0\0late");
    let left: Vec<_> = fs::read_dir(disk.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["d"]);
}

#[test]
fn a_killed_program_is_a_power_cut() {
    let mut disk = disk();
    let ino = disk.named("x");
    disk.write(ino, 0, b"durable");
    disk.volume.sync(ino).unwrap();
    disk.write(ino, 0, b"gone");
    disk.file("y");
    // Not closed: what a SIGKILL leaves behind.
    disk.volume = Volume::open(disk.dir.path(), Settings::default(), false).unwrap();
    assert_eq!((disk.names(), disk.after("x").unwrap()), (vec!["x".to_owned()], b"durable".to_vec()));
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let mut disk = disk();
    let ino = disk.named("x");
    disk.volume.open_handle(ino).unwrap();
    disk.volume.unlink(ROOT, OsStr::new("x"), false).unwrap();
    disk.volume.sync_dir(ROOT).unwrap();
    disk.write(ino, 0, b"still here");
    assert_eq!(disk.contents(ino), b"still here");
    disk.volume.release(ino);
    assert_eq!(disk.volume.attributes(ino), Err(Errno::STALE));
    let staged = fs::read_dir(disk.dir.path().join(crate::backing::STAGING)).unwrap().count();
    assert_eq!(staged, 0, "nothing of it is left");
}

#[test]
fn bytes_of_any_offset_and_length_read_back() {
    let mut disk = disk();
    let ino = disk.named("x");
    let mut expected = vec![0_u8; 30_000];
    let mut rng = crate::rng::Rng::new(5);
    disk.volume.truncate(ino, 30_000).unwrap();
    for round in 0..400_u64 {
        let offset = rng.below(29_000);
        let len = 1 + rng.below(1_000);
        let range = offset as usize..(offset + len) as usize;
        match rng.below(8) {
            0 => {
                disk.volume.zero(ino, offset, len, true).unwrap();
                expected[range].fill(0);
            }
            1 => disk.volume.sync(ino).unwrap(),
            2 => {
                disk.volume.truncate(ino, offset).unwrap();
                disk.volume.truncate(ino, 30_000).unwrap();
                expected[offset as usize..].fill(0);
            }
            _ => {
                let byte = round as u8 | 1;
                disk.write(ino, offset, &vec![byte; len as usize]);
                expected[range].fill(byte);
            }
        }
        assert!(disk.contents(ino) == expected, "round {round}");
    }
    disk.volume.sync(ino).unwrap();
    disk.cut(Survivors::None);
    assert!(disk.after("x").unwrap() == expected);
}

#[test]
fn a_directory_moved_out_of_the_way_goes_first() {
    let mut disk = disk();
    let outer = disk.new_in(ROOT, "outer", FileType::Directory);
    let inner = disk.new_in(outer, "inner", FileType::Directory);
    disk.volume.sync_dir(outer).unwrap();
    disk.volume.sync_dir(ROOT).unwrap();
    disk.volume.rename((outer, OsStr::new("inner")), (ROOT, OsStr::new("inner")), false).unwrap();
    disk.volume.rename((ROOT, OsStr::new("outer")), (inner, OsStr::new("outer")), false).unwrap();
    // Without the first rename, the second would put each into the other.
    disk.volume.sync_dir(inner).unwrap();
    disk.volume.sync_dir(ROOT).unwrap();
    disk.cut(Survivors::None);
    assert_eq!(disk.names(), ["inner"]);
    let inner = disk.ino("inner").unwrap();
    assert!(disk.volume.lookup(inner, OsStr::new("outer")).is_ok());
}

#[test]
fn a_durable_name_takes_the_older_changes_of_it_along() {
    let mut disk = disk();
    let old = disk.named("a");
    let dirs = ["d", "e"].map(|name| disk.new_in(ROOT, name, FileType::Directory));
    disk.volume.sync_dir(ROOT).unwrap();
    disk.volume.rename((ROOT, OsStr::new("a")), (dirs[0], OsStr::new("b")), false).unwrap();
    disk.volume.rename((dirs[0], OsStr::new("b")), (dirs[1], OsStr::new("c")), false).unwrap();
    let new = disk.new_in(dirs[0], "b", FileType::RegularFile);
    for (ino, byte) in [(old, b"o"), (new, b"n")] {
        disk.write(ino, 0, byte);
        disk.volume.sync(ino).unwrap();
    }
    // The new file's name cannot be stored before the old file has gone through it.
    disk.volume.sync_dir(dirs[0]).unwrap();
    disk.volume.sync_dir(ROOT).unwrap();
    disk.cut(Survivors::None);
    assert_eq!(disk.names(), ["d", "e"]);
    let mut held = |dir: &str, name: &str| {
        let dir = disk.ino(dir).unwrap();
        let ino = disk.volume.lookup(dir, OsStr::new(name)).unwrap().ino;
        disk.contents(ino)
    };
    assert_eq!((held("d", "b"), held("e", "c")), (b"n".to_vec(), b"o".to_vec()));
}

#[test]
fn a_block_that_survives_takes_only_what_was_written_of_it() {
    let prepare = |disk: &mut Disk| {
        let ino = disk.named("x");
        disk.write(ino, 0, &[1; 4096]);
        disk.volume.sync(ino).unwrap();
        disk.write(ino, 512, &[2; 512]);
    };
    let look = |disk: &mut Disk| {
        let left = disk.after("x").unwrap();
        (left[511], left[512], left[1024])
    };
    assert_eq!(outcomes(|_| Survivors::All, prepare, look), BTreeSet::from([(1, 2, 1)]));
}
