//! Disks that are full, limited, or turn read-only under a running daemon: nothing is lost, and it goes on by itself or says
//! what to do.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lifecycle::Daemon;
use crate::program::{Place, Ran, json, kifa, run, wait_until};
use crate::volume::Volume;

/// Lines of a thousand bytes, each with its number in front.
fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("{number:08}{}\n", "x".repeat(991))).collect()
}

fn start(store: &Path) -> Daemon {
    let mut command = kifa(&["daemon", "--stdin", "-d", store.to_str().unwrap()]);
    // A batch of standard input always fits into a segment of this size.
    command.args(["--segment-size-mib", "2", "--memtable-threshold-mib", "1"]);
    let mut daemon = Daemon::start(&mut command);
    daemon.wait_for("is open");
    daemon
}

fn query(store: &Path) -> Ran {
    run(&["query", "-o", "json", "-d", store.to_str().unwrap()])
}

fn number(entry: &serde_json::Value) -> usize {
    entry["data"].as_str().unwrap()[..8].parse().unwrap()
}

/// How many entries a reader finds: the first ones, without a hole.
#[track_caller]
fn count(store: &Path) -> usize {
    let ran = query(store).expect(0);
    let numbers: Vec<usize> = ran.text().lines().map(|line| number(&json(line))).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len()), "{numbers:?}");
    numbers.len()
}

#[track_caller]
fn wait_for_entries(store: &Path, entries: usize) {
    wait_until("the entries can be read", || query(store).code == Some(0) && count(store) >= entries);
}

#[track_caller]
fn assert_sound(store: &Path) {
    run(&["verify", "--deep", "-d", store.to_str().unwrap()]).expect(0);
}

/// A volume with a store of a hundred entries, and the daemon that wrote them.
fn hundred(place: &Place) -> Option<(Volume, PathBuf, Daemon)> {
    let volume = Volume::of(place, 40)?;
    let store = volume.mountpoint.join("data");
    let mut daemon = start(&store);
    daemon.write(lines(0..100).as_bytes());
    wait_for_entries(&store, 100);
    Some((volume, store, daemon))
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let place = Place::new();
    let Some((volume, store, mut daemon)) = hundred(&place) else { return };
    let ballast = volume.fill();
    let mut stdin = daemon.take_stdin();
    let writer = std::thread::spawn(move || stdin.write_all(lines(100..8000).as_bytes()));
    daemon.wait_for("free some space");
    assert!((100..8000).contains(&count(&store)), "readers need no space");
    fs::remove_file(&ballast).unwrap();
    writer.join().unwrap().unwrap();
    daemon.end().expect(0);
    assert_eq!(count(&store), 8000);
    assert_sound(&store);
}

/// A file is kept for recovery, so that a full disk keeps nobody from starting.
#[test]
fn a_daemon_starts_on_a_full_disk() {
    let place = Place::new();
    let Some((volume, store, daemon)) = hundred(&place) else { return };
    // The one in use, and both that are prepared.
    wait_until("segments are prepared", || {
        let names = fs::read_dir(store.join("wal")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().ends_with(".wal")).count() == 3
    });
    drop(daemon);
    let ballast = volume.fill();
    let mut daemon = start(&store);
    daemon.write(lines(100..101).as_bytes());
    wait_for_entries(&store, 101);
    fs::remove_file(&ballast).unwrap();
    daemon.write(lines(101..3000).as_bytes());
    daemon.close_stdin();
    daemon.end().expect(0);
    assert_eq!(count(&store), 3000);
    assert_sound(&store);
}

#[test]
fn a_file_system_that_turns_read_only_ends_the_daemon_and_costs_nothing() {
    let place = Place::new();
    let Some((volume, store, mut daemon)) = hundred(&place) else { return };
    if !volume.turn_read_only() {
        return;
    }
    let mut stdin = daemon.take_stdin();
    // Some kernels let blocks be overwritten that the file has: the next segment cannot be made.
    let writer = std::thread::spawn(move || drop(stdin.write_all(lines(100..8000).as_bytes())));
    let ran = daemon.end().expect(74);
    writer.join().unwrap();
    assert!(ran.stderr.contains("kifa: "), "{}", ran.stderr);
    // What was on its way in that moment fails as on a device that fails.
    let reasons = ["the file system is read-only", "the device fails: look into the kernel's log"];
    assert!(reasons.iter().any(|reason| ran.stderr.contains(reason)), "{}", ran.stderr);
    let left = count(&store);
    assert!(left >= 100, "{left}");
    assert_sound(&store);
    let again = run(&["daemon", "--stdin", "-d", store.to_str().unwrap()]).expect(74);
    assert!(again.stderr.contains("the file system is read-only"), "{}", again.stderr);
    volume.mount_again();
    let mut daemon = start(&store);
    daemon.write(lines(left..left + 1).as_bytes());
    daemon.close_stdin();
    daemon.end().expect(0);
    assert_eq!(count(&store), left + 1);
    assert_sound(&store);
}

/// No signal kills it: the limit is an error with a sentence.
#[test]
fn a_limit_on_the_size_of_files_is_named() {
    let place = Place::new();
    let kifa = place.command("daemon", &["--stdin"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 4096; exec \"$@\"", "sh"]).arg(kifa.get_program()).args(kifa.get_args());
    let ran = crate::program::feed(&mut limited, b"one\n").expect(74);
    assert!(ran.stderr.contains("raise the limit on the size of files"), "{}", ran.stderr);
    place.daemon(b"one\n", &[]).expect(0);
    assert_eq!(place.payloads(), ["one"]);
    assert_eq!(json(place.run("verify", &["-o", "json"]).expect(0).text())["entries"].as_u64(), Some(1));
}
