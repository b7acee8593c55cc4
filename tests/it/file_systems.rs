//! Stores on file systems that write elsewhere or clone: XFS and btrfs, each in an image on a loop device. They need root
//! and the file system's mkfs; where one is missing the reason is printed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::lifecycle::Daemon;
use crate::program::{Place, json, kifa, run, wait_until};
use crate::volume::{FileSystem, Volume};

/// Lines of a thousand bytes that do not compress, each with its number in front.
fn lines(numbers: std::ops::Range<usize>) -> String {
    let mut noise = numbers.start as u64 + 1;
    let mut line = |number: usize| {
        let mut line = format!("{number:08}");
        while line.len() < 992 {
            noise = noise.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            line.push_str(&format!("{noise:016x}"));
        }
        line + "\n"
    };
    numbers.map(&mut line).collect()
}

/// A daemon whose tables are small and merged two by two.
fn start(store: &Path) -> Daemon {
    let mut command = kifa(&["daemon", "--stdin", "-d", store.to_str().unwrap()]);
    command.args(["--segment-size-mib", "2", "--memtable-threshold-mib", "1"]);
    command.env("KIFA_COMPACTION_THRESHOLD", "2");
    let mut daemon = Daemon::start(&mut command);
    daemon.wait_for("is open");
    daemon
}

/// How many entries a reader finds: the first ones, without a hole.
#[track_caller]
fn count(store: &Path) -> usize {
    let ran = run(&["query", "-o", "json", "-d", store.to_str().unwrap()]);
    assert!(matches!(ran.code, Some(0 | 1)), "{}", ran.stderr);
    let number = |line: &str| json(line)["data"].as_str().unwrap()[..8].parse::<usize>().unwrap();
    let numbers: Vec<usize> = ran.text().lines().map(number).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len()), "{numbers:?}");
    numbers.len()
}

#[track_caller]
fn wait_for_entries(store: &Path, entries: usize) {
    wait_until("the entries can be read", || count(store) >= entries);
}

#[track_caller]
fn assert_sound(store: &Path) {
    run(&["verify", "--deep", "-d", store.to_str().unwrap()]).expect(0);
}

fn tables(store: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(store.join("sst")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".sst")).collect()
}

/// Takes a snapshot: how many tables were cloned, linked and copied.
#[track_caller]
fn snapshot(store: &Path, to: &Path) -> [u64; 3] {
    let args = ["snapshot", "-o", "json", "-d", store.to_str().unwrap(), "--to", to.to_str().unwrap()];
    let taken = json(run(&args).expect(0).text());
    ["tables_cloned", "tables_linked", "tables_copied"].map(|key| taken[key].as_u64().unwrap())
}

#[track_caller]
fn append(store: &Path, number: usize) {
    run(&["append", "-d", store.to_str().unwrap(), lines(number..number + 1).trim_end()]).expect(0);
}

/// Everything that a snapshot does where the file system clones: beside a daemon, to the same and to another file system,
/// while tables are merged away; and both stores go on by themselves.
fn clones(file_system: FileSystem) {
    let place = Place::new();
    let Some(volume) = Volume::on(file_system, &place, 400) else { return };
    let store = volume.mountpoint.join("data");
    let mut daemon = start(&store);
    daemon.write(lines(0..3000).as_bytes());
    wait_for_entries(&store, 3000);

    let (near, far) = (volume.mountpoint.join("near"), place.beside("far"));
    let [cloned, linked, copied] = snapshot(&store, &near);
    assert!(cloned >= 1 && linked == 0 && copied <= 1, "{cloned} cloned, {linked} linked, {copied} copied");
    for name in tables(&near) {
        assert_eq!(fs::metadata(near.join("sst").join(name)).unwrap().nlink(), 1, "it is a file of its own");
    }
    let [cloned, linked, copied] = snapshot(&store, &far);
    assert!(cloned == 0 && linked == 0 && copied >= 1, "{cloned} cloned, {linked} linked, {copied} copied");

    // Snapshots while tables are flushed and merged away under them.
    let mut stdin = daemon.take_stdin();
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut stdin, lines(3000..9000).as_bytes()).unwrap();
        stdin
    });
    for number in 0..4 {
        let (before, to) = (count(&store), volume.mountpoint.join(format!("busy-{number}")));
        let [_, linked, _] = snapshot(&store, &to);
        assert_eq!(linked, 0);
        assert!(count(&to) >= before, "{} of {before}", count(&to));
        assert_sound(&to);
    }
    let stdin = writer.join().unwrap();
    wait_for_entries(&store, 9000);
    wait_until("what was cloned is merged away", || tables(&store).is_disjoint(&tables(&near)));
    drop(stdin);
    daemon.end().expect(0);

    for (dir, entries) in [(&store, 9000), (&near, 3000), (&far, 3000)] {
        assert_eq!(count(dir), entries);
        assert_sound(dir);
    }
    // Two branches from here on.
    append(&near, 3000);
    append(&store, 9000);
    run(&["vacuum", "--to-size", "0", "-d", store.to_str().unwrap()]).expect(0);
    assert_eq!(count(&near), 3001);
    [&near, &store].into_iter().for_each(|dir| assert_sound(dir));
}

#[test]
fn an_xfs_clones_the_tables_of_a_snapshot() {
    clones(FileSystem::Xfs);
}

#[test]
fn a_btrfs_clones_the_tables_of_a_snapshot() {
    clones(FileSystem::Btrfs);
}
