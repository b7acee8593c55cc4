//! What can be made to go wrong, and the commands for it.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use rustix::io::Errno;

use super::{Disk, ROOT, disk, outcomes};
use crate::command::run;
use crate::cut::Survivors;
use crate::fault::{Fault, FaultKind, OpClass};
use crate::volume::{Settings, Volume};

#[test]
fn a_failed_sync_is_beyond_repair() {
    let mut disk = disk();
    let ino = disk.named("x");
    disk.write(ino, 0, &[1; 512]);
    disk.volume.plant(Fault { class: OpClass::Sync, kind: FaultKind::Eio, nth: 1, times: 1, path: None }).unwrap();
    assert_eq!(disk.volume.sync(ino), Err(Errno::IO));
    assert_eq!(disk.volume.sync(ino), Ok(()));
    assert_eq!(disk.contents(ino), [1; 512]);
    disk.file("y");
    disk.volume.plant(Fault { class: OpClass::SyncDir, kind: FaultKind::Eio, nth: 1, times: 1, path: None }).unwrap();
    assert_eq!(disk.volume.sync_dir(ROOT), Err(Errno::IO));
    assert_eq!(disk.volume.sync_dir(ROOT), Ok(()));
    disk.cut(Survivors::None);
    assert_eq!(disk.after("x").unwrap(), [0; 512], "the length is there, the bytes are not");
    disk.command("kifa::fail::class=lookup::nth=1::kind=eio");
    disk.cut(Survivors::None);
    assert!(disk.ino("x").is_ok(), "a cut clears planted faults");
    assert_eq!(disk.names(), ["x"]);
}

#[test]
fn the_power_goes_at_the_nth_mutating_operation_and_stays_away() {
    let mut disk = disk();
    let ino = disk.named("x");
    disk.command("kifa::cut-at::n=2");
    disk.write(ino, 0, &[1; 512]);
    assert_eq!(disk.contents(ino)[0], 1, "a read does not count");
    assert_eq!(disk.volume.sync(ino), Err(Errno::IO), "the second: it is not done");
    assert_eq!(disk.volume.read(ino, &mut [0], 0), Err(Errno::IO));
    assert_eq!(disk.ino("x"), Err(Errno::IO));
    disk.command("kifa::power-on");
    for at in 0..20 {
        disk.file(&at.to_string());
    }
    assert_eq!(disk.volume.read(ino, &mut [0], 0), Err(Errno::STALE), "what was open stays dead");
    assert_eq!(disk.after("x").unwrap(), b"");
}

#[test]
fn a_write_at_which_the_power_goes_may_survive() {
    let prepare = |disk: &mut Disk| {
        let ino = disk.named("x");
        disk.command("kifa::cut-at::n=1");
        disk.command("kifa::survivors::all");
        assert_eq!(disk.volume.write(ino, &[1; 512], 0, true), Err(Errno::IO));
        disk.volume.power_on().unwrap();
    };
    assert_eq!(outcomes(|_| Survivors::None, prepare, |disk| disk.after("x").unwrap().len()), BTreeSet::from([512]));
}

#[test]
fn faults_fail_as_their_table_says() {
    let mut disk = disk();
    let ino = disk.named("x");
    disk.command("kifa::fail::class=write::nth=2::kind=nospace");
    disk.write(ino, 0, &[1; 4096]);
    assert_eq!(disk.volume.write(ino, &[2; 4096], 0, false), Err(Errno::NOSPC));
    assert_eq!(disk.contents(ino), [1; 4096], "nothing was written");
    disk.command("kifa::clear-faults");
    disk.command("kifa::fail::class=write::nth=1::kind=short");
    let written = disk.volume.write(ino, &[3; 4096], 0, false).unwrap();
    assert!(written > 0 && written < 4096);
    let now = disk.contents(ino);
    assert_eq!((now[written - 1], now[written]), (3, 1));
    disk.command("kifa::clear-faults");
    disk.command("kifa::fail::class=read::nth=1::kind=flip");
    let differ = disk.contents(ino).iter().zip(&now).filter(|(one, other)| one != other).count();
    assert_eq!(differ, 1, "one bit");
    disk.command("kifa::fail::class=create::nth=1::kind=eio::path=only/this::times=9");
    disk.file("another");
    assert!(run(&mut disk.volume, "kifa::fail::class=rename::nth=1::kind=short").end.starts_with("failed::"));
}

#[test]
fn space_is_limited_and_comes_back() {
    let mut disk = disk();
    disk.command("kifa::space=8192");
    let ino = disk.file("x");
    disk.write(ino, 0, &[1; 8192]);
    assert_eq!(disk.volume.write(ino, b"x", 8192, false), Err(Errno::NOSPC));
    disk.write(ino, 0, &[2; 8192]);
    assert_eq!(disk.volume.space(), Ok((8192, 0)));
    disk.volume.unlink(ROOT, OsStr::new("x"), false).unwrap();
    let ino = disk.file("y");
    disk.write(ino, 0, &[3; 8192]);
}

#[test]
fn a_read_only_disk_can_be_read_and_synced() {
    let mut disk = disk();
    let ino = disk.named("x");
    disk.command("kifa::read-only=on");
    assert_eq!(disk.volume.write(ino, b"x", 0, false), Err(Errno::ROFS));
    assert_eq!(disk.volume.unlink(ROOT, OsStr::new("x"), false), Err(Errno::ROFS));
    assert_eq!(disk.volume.sync(ino), Ok(()));
    disk.command("kifa::read-only=off");
    disk.write(ino, 0, b"x");
}

#[test]
fn a_lie_loses_everything() {
    let mut disk = disk();
    let synced = disk.named("synced");
    disk.command("kifa::lie=on");
    let durable = disk.named("durable");
    assert_eq!(disk.volume.write(durable, b"x", 0, true), Ok(1));
    disk.write(synced, 0, b"x");
    assert_eq!(disk.volume.sync(synced), Ok(()));
    disk.cut(Survivors::None);
    assert_eq!(disk.names(), ["synced"], "no name");
    assert_eq!(disk.after("synced").unwrap(), b"", "no data");
    let synced = disk.ino("synced").unwrap();
    assert_eq!(disk.volume.write(synced, b"x", 0, true), Ok(1));
    disk.cut(Survivors::None);
    assert_eq!(disk.after("synced").unwrap(), b"", "no durable write");
}

#[test]
fn volatile_memory_is_bounded_by_writing_back() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { volatile_bytes_max: 64 * 1024, ..Settings::default() };
    let volume = Volume::open(dir.path(), settings, false).unwrap();
    let mut disk = Disk { dir, volume };
    let ino = disk.named("x");
    for page in 0..100 {
        disk.write(ino, page * 4096, &[1; 4096]);
    }
    assert!(!disk.volume.report().contains(&"written_back=0".to_owned()), "{:?}", disk.volume.report());
    for _ in 0..100 {
        disk.write(ino, 0, &[2; 512]);
    }
    disk.cut(Survivors::None);
    assert!(disk.after("x").unwrap().len() >= 16 * 4096, "what was written back is durable");
}

#[test]
fn the_same_seed_leaves_the_same_bytes() {
    let left = |seed| {
        let mut disk = disk();
        for name in ["a", "b", "c"] {
            let ino = disk.file(name);
            disk.write(ino, 0, &[1; 50_000]);
        }
        disk.volume.sync_dir(ROOT).unwrap();
        disk.cut(Survivors::Mixed { seed });
        ["a", "b", "c"].map(|name| disk.after(name).unwrap())
    };
    assert!((0..20).all(|seed| left(seed) == left(seed)));
    assert!((1..20).any(|seed| left(seed) != left(0)));
}

#[test]
fn lazyfs_s_own_faults_tear_and_crash() {
    let mut disk = disk();
    let ino = disk.named("x");
    let path = disk.dir.path().canonicalize().unwrap().join("x");
    disk.command(&format!("lazyfs::torn-op::file={}::parts=3::persist=1,3::occurrence=2", path.display()));
    disk.write(ino, 0, &[1; 6]);
    assert_eq!(disk.volume.write(ino, &[2; 6], 0, false), Err(Errno::IO));
    disk.command("kifa::power-on");
    assert_eq!(disk.after("x").unwrap(), [2, 2, 0, 0, 2, 2]);

    disk.command("lazyfs::torn-seq::op=write::file=x::persist=1,3::occurrence=2");
    let ino = disk.ino("x").unwrap();
    disk.write(ino, 0, &[3; 6]);
    disk.volume.sync(ino).unwrap();
    disk.write(ino, 0, &[4]);
    disk.write(ino, 1, &[4]);
    assert_eq!(disk.volume.write(ino, &[4], 2, false), Err(Errno::IO));
    disk.command("kifa::power-on");
    assert_eq!(disk.after("x").unwrap(), [4, 3, 4, 3, 3, 3]);

    disk.command("lazyfs::crash::timing=after::op=rename::from_rgx=x::to_rgx=y$");
    let rename = |disk: &mut Disk, to| disk.volume.rename((ROOT, OsStr::new("x")), (ROOT, OsStr::new(to)), false);
    assert_eq!(rename(&mut disk, "y"), Err(Errno::IO));
    disk.command("lazyfs::clear-cache");
    assert_eq!(disk.names(), ["x"]);
    let ino = disk.ino("x").unwrap();
    disk.write(ino, 0, &[5]);
    disk.command("lazyfs::cache-checkpoint");
    disk.command("lazyfs::clear-cache");
    assert_eq!(disk.after("x").unwrap()[0], 5, "what was written back is durable");
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let mut disk = disk();
    for line in [
        "",
        "clear-cache",
        "lazyfs::unknown",
        "kifa::unknown",
        "kifa::cut-at",
        "kifa::cut-at::n=0",
        "kifa::lie=maybe",
        "kifa::fail::class=write::nth=1::kind=flip",
        "kifa::fail::class=write::nth=1::kind=eio::typo=1",
        "kifa::survivors::seed=1::grain=1024::names=any",
        "lazyfs::torn-op::file=x::parts=0::persist=1::occurrence=1",
        "lazyfs::torn-op::file=x::parts=2::persist=0::occurrence=1",
        "lazyfs::crash::timing=now::op=write::from_rgx=x",
        "lazyfs::crash::timing=after::op=write::from_rgx=(",
    ] {
        let answer = run(&mut disk.volume, line);
        assert!(answer.end.starts_with("failed::"), "{line}: {answer:?}");
    }
    assert_eq!(run(&mut disk.volume, "lazyfs::clear-cache\n").end, "finished::clear-cache");
}
