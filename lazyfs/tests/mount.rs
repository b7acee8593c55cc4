//! The file system through the kernel: what arrives, what is lost, and that nothing volatile is served after a power cut.
//! Needs root and /dev/fuse; where they are missing each test prints a line that begins with SKIPPED.
#![cfg(target_os = "linux")]
// These tests look at the real machine: its clock, its threads, its processes.
#![allow(clippy::disallowed_methods)]

mod harness;

use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::ReadWriteFlags;

use harness::{Lazy, or_skip};

const BLOCK: usize = 4096;

/// A buffer that O_DIRECT accepts.
fn aligned(bytes: &mut Vec<u8>, fill: u8) -> &mut [u8] {
    *bytes = vec![fill; 2 * BLOCK];
    let at = bytes.as_ptr().align_offset(BLOCK);
    &mut bytes[at..at + BLOCK]
}

fn open(path: &Path, flags: OFlags) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).custom_flags(flags.bits() as i32).open(path).unwrap()
}

fn sync_dir(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn buffered_direct_and_durable_writes_are_kept_as_promised() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    let path = |name: &str| lazy.point().join(name);
    let names = ["buffered", "direct", "fsync", "fdatasync", "dsync", "sync", "rwf-dsync", "rwf-direct"];
    names.iter().for_each(|name| drop(open(&path(name), OFlags::empty())));
    sync_dir(lazy.point());

    let mut bytes = Vec::new();
    let block = aligned(&mut bytes, 7);
    let write = |name: &str, flags| {
        let file = open(&path(name), flags);
        file.write_all_at(block, 0).unwrap();
        file
    };
    write("buffered", OFlags::empty());
    write("direct", OFlags::DIRECT);
    write("fsync", OFlags::empty()).sync_all().unwrap();
    write("fdatasync", OFlags::DIRECT).sync_data().unwrap();
    write("dsync", OFlags::DSYNC);
    write("sync", OFlags::SYNC | OFlags::DIRECT);
    for (name, flags) in [("rwf-dsync", OFlags::empty()), ("rwf-direct", OFlags::DIRECT)] {
        let file = write(name, flags);
        let own = [IoSlice::new(block)];
        rustix::io::pwritev2(&file, &own, BLOCK as u64, ReadWriteFlags::DSYNC).unwrap();
    }
    assert!(fs::read(path("buffered")).unwrap() == block, "before the cut everything is there");
    lazy.command("lazyfs::clear-cache");
    let left = names.map(|name| fs::read(path(name)).unwrap());
    for (name, left) in names.iter().zip(&left) {
        match *name {
            "buffered" | "direct" => assert!(left.is_empty(), "{name}"),
            // RWF_DSYNC arrives as a flag of its write, and covers no other.
            "rwf-dsync" | "rwf-direct" => {
                assert_eq!((left.len(), left[0], left[BLOCK]), (2 * BLOCK, 0, 7), "{name}");
            }
            _ => assert!(left == block, "{name}"),
        }
    }
}

#[test]
fn durability_arrives_as_documented() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    let file = open(&lazy.point().join("x"), OFlags::DIRECT);
    let mut bytes = Vec::new();
    let block = aligned(&mut bytes, 1);
    let before = (lazy.counter("ops_write"), lazy.counter("ops_sync"), lazy.counter("ops_mutating"));
    rustix::io::pwritev2(&file, &[IoSlice::new(block)], 0, ReadWriteFlags::DSYNC).unwrap();
    let after = (lazy.counter("ops_write"), lazy.counter("ops_sync"), lazy.counter("ops_mutating"));
    let difference = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    assert_eq!(difference, (1, 1, 1), "one operation that is a write and a sync: no FSYNC behind it");
    file.sync_data().unwrap();
    assert_eq!(lazy.counter("ops_mutating"), after.2 + 1);
}

#[test]
fn nothing_volatile_is_served_after_a_cut() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    let path = lazy.point().join("x");
    fs::write(&path, vec![1; 100_000]).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    sync_dir(lazy.point());
    let mut file = open(&path, OFlags::empty());
    file.write_all(&[2; 50_000]).unwrap();
    File::create(lazy.point().join("volatile")).unwrap();
    assert_eq!(fs::metadata(lazy.point().join("volatile")).unwrap().len(), 0);
    assert_eq!(fs::read(&path).unwrap()[0], 2);
    let dir = File::open(lazy.point()).unwrap();
    lazy.command("kifa::power-off");
    assert_eq!(fs::read(&path).unwrap_err().raw_os_error(), Some(5), "without power everything is EIO");
    assert_eq!(fs::metadata(&path).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(5));
    lazy.command("kifa::power-on");
    assert!(fs::read(&path).unwrap() == vec![1; 100_000]);
    assert_eq!(fs::metadata(lazy.point().join("volatile")).unwrap_err().kind(), io::ErrorKind::NotFound);
    file.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(file.read(&mut [0]).unwrap_err().raw_os_error(), Some(5), "what was open stays dead");
    assert_eq!(file.write(&[0]).unwrap_err().raw_os_error(), Some(5));
    drop(dir);
}

#[test]
fn ordinary_programs_can_use_it() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    let dir = lazy.point().join("a/b");
    fs::create_dir_all(&dir).unwrap();
    for at in 0..200 {
        fs::write(dir.join(format!("file-{at}")), at.to_string()).unwrap();
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 200);
    fs::rename(dir.join("file-7"), dir.join("file-8")).unwrap();
    assert_eq!(fs::read_to_string(dir.join("file-8")).unwrap(), "7");
    fs::hard_link(dir.join("file-8"), dir.join("link")).unwrap();
    let stat = fs::metadata(dir.join("link")).unwrap();
    assert_eq!((stat.nlink(), stat.blksize(), stat.len()), (2, 4096, 1));
    let mut file = open(&dir.join("link"), OFlags::empty());
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b" and more").unwrap();
    assert_eq!(fs::read_to_string(dir.join("file-8")).unwrap(), "7 and more");
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20);
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 5).unwrap();
    assert_eq!(&fs::read(dir.join("link")).unwrap()[..6], b"\0\0\0\0\0 ");
    fs::set_permissions(dir.join("link"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(dir.join("link")).unwrap().mode() & 0o777, 0o640);
    let listener = UnixListener::bind(dir.join("socket")).unwrap();
    drop(UnixStream::connect(dir.join("socket")).unwrap());
    drop(listener);
    fs::remove_dir_all(lazy.point().join("a")).unwrap();
    assert_eq!(fs::read_dir(lazy.point()).unwrap().count(), 0);
}

#[test]
fn locks_exclude_each_other() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    let path = lazy.point().join("LOCK");
    let (one, other) = (open(&path, OFlags::empty()), open(&path, OFlags::empty()));
    rustix::fs::flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused, Err(rustix::io::Errno::WOULDBLOCK));
    drop(one);
    rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn space_and_faults_reach_programs() {
    let Some(lazy) = or_skip(Lazy::start()) else { return };
    lazy.command("kifa::space=1048576");
    let file = open(&lazy.point().join("x"), OFlags::empty());
    let stat = rustix::fs::statvfs(lazy.point()).unwrap();
    assert_eq!(stat.f_blocks * stat.f_frsize, 1 << 20);
    let full = file.write_all_at(&vec![1; 2 << 20], 0).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    lazy.command("kifa::space=none");
    lazy.command("kifa::fail::class=write::nth=1::kind=short");
    assert!(file.write_at(&[1; 8192], 0).unwrap() < 8192);
    lazy.command("kifa::fail::class=sync::nth=1::kind=eio");
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    lazy.command("kifa::read-only=on");
    assert_eq!(file.write_at(&[1], 0).unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn it_goes_when_its_starter_goes_and_leaves_nothing_behind() {
    let Some(mut lazy) = or_skip(Lazy::start()) else { return };
    fs::write(lazy.point().join("x"), "kept by an orderly end").unwrap();
    let held = File::open(lazy.point().join("x")).unwrap();
    lazy.end();
    assert_eq!(fs::read_dir(lazy.point()).unwrap().count(), 0, "unmounted, although a file is open");
    let left: Vec<_> = fs::read_dir(lazy.backing()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["x"]);
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(lazy.point().to_str().unwrap()));
    drop(held);
}
