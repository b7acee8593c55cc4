//! Directories that somebody has had his hands in: each command ends with one clear sentence and the right exit code, and
//! nothing is lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{Place, Ran, json};
use crate::verify::{files, manifest, store_with_tables};

/// Commands that only read, with what they need.
const READERS: [&[&str]; 3] = [&["query", "-o", "hex"], &["stats"], &["export", "-o", "-"]];

/// Runs a command on the store and asserts that it changed nothing.
#[track_caller]
fn untouched(place: &Place, command: &[&str], code: i32) -> Ran {
    let before = place.snapshot();
    let ran = place.run(command[0], &command[1..]).expect(code);
    assert_eq!(place.snapshot(), before, "{command:?}");
    ran
}

#[track_caller]
fn assert_sentence(ran: &Ran, part: &str) {
    assert!(ran.stderr.starts_with("kifa: ") && ran.stderr.contains(part), "{}", ran.stderr);
}

fn entries(place: &Place) -> u64 {
    json(place.run("verify", &["-o", "json"]).text())["entries"].as_u64().unwrap()
}

#[test]
fn a_corrupt_manifest() {
    let place = store_with_tables();
    let path = manifest(&place);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    for command in READERS {
        assert_sentence(&untouched(&place, command, 2), "the newest manifest is invalid");
    }
    assert_eq!(untouched(&place, READERS[0], 2).text().lines().count(), 300, "the files tell what they hold");
    assert_sentence(&untouched(&place, &["query", "--to-lsn", "1"], 2), "the newest manifest is invalid");
    assert!(place.daemon(b"x\n", &[]).expect(65).stderr.contains("kifa recover"));
    untouched(&place, &["verify"], 1);
    place.run("recover", &["--accept"]).expect(0);
    assert_eq!(files(&place, "quarantine").len(), 1, "the corrupt one is kept");
    place.daemon(b"x\n", &[]).expect(0);
    assert_eq!(entries(&place), 301);
}

#[test]
fn a_missing_manifest() {
    let place = store_with_tables();
    fs::remove_file(manifest(&place)).unwrap();
    for command in READERS {
        assert_sentence(&untouched(&place, command, 2), "the manifest is missing");
    }
    assert_eq!(untouched(&place, READERS[0], 2).text().lines().count(), 300);
    // A table that is lost as well is a hole, and told.
    fs::remove_file(&files(&place, "sst")[0]).unwrap();
    let ran = untouched(&place, READERS[0], 2);
    assert!((1..300).contains(&ran.text().lines().count()), "{}", ran.stderr);
    assert_sentence(&ran, "it names no table for LSNs 1 to ");
    assert!(place.daemon(b"x\n", &[]).expect(65).stderr.contains("the manifest is missing"));
}

#[test]
fn an_old_manifest_in_the_place_of_the_newest() {
    let place = store_with_tables();
    let (old, bytes) = (manifest(&place), fs::read(manifest(&place)).unwrap());
    let more: Vec<String> = (0..200).map(|number| format!("{number}{}", "x".repeat(20_000))).collect();
    let args = ["--memtable-threshold-mib", "1", "--segment-size-mib", "1"];
    place.daemon(more.join("\n").as_bytes(), &args).expect(0);
    fs::remove_file(manifest(&place)).unwrap();
    fs::write(&old, bytes).unwrap();
    for command in READERS {
        assert_sentence(&untouched(&place, command, 2), "it is an old one");
    }
    assert_eq!(untouched(&place, READERS[0], 2).text().lines().count(), 500);
    place.daemon(b"x\n", &[]).expect(65);
    untouched(&place, &["verify"], 1);
    let new = place.beside("new");
    place.run("recover", &["--to", new.to_str().unwrap()]).expect(0);
    let report = crate::program::run(&["verify", "-d", new.to_str().unwrap(), "-o", "json"]).expect(0);
    assert_eq!(json(report.text())["entries"].as_u64(), Some(500));
}

/// The header of a segment counts, not its name.
#[test]
fn swapped_and_copied_segments() {
    let place = Place::new();
    let line = |number: u64| format!("{number}{}\n", "x".repeat(500_000));
    let input: String = (0..8).map(line).collect();
    place.daemon(input.as_bytes(), &["--segment-size-mib", "1", "--memtable-threshold-mib", "64"]).expect(0);
    let live: Vec<_> = files(&place, "wal").into_iter().filter(|path| is_live(path)).collect();
    assert!(live.len() >= 3, "{live:?}");
    let aside = place.beside("aside");
    fs::rename(&live[0], &aside).unwrap();
    fs::rename(&live[1], &live[0]).unwrap();
    fs::rename(&aside, &live[1]).unwrap();
    assert_eq!(untouched(&place, READERS[0], 0).text().lines().count(), 8);
    untouched(&place, &["verify", "--deep"], 0);

    // Two files that both claim to be one segment, neither under its name: nobody can tell which one is.
    let store = place.store();
    fs::copy(&live[0], store.join("wal/0000000901.wal")).unwrap();
    let ran = untouched(&place, READERS[0], 2);
    assert_sentence(&ran, "claims to be segment");
    place.daemon(b"x\n", &[]).expect(65);
    assert_sentence(&untouched(&place, &["verify"], 2), "claims to be segment");
    fs::remove_file(store.join("wal/0000000901.wal")).unwrap();

    // A copy beside the original is a stranger.
    fs::copy(&live[2], store.join("wal/0000000902.wal")).unwrap();
    assert_eq!(untouched(&place, READERS[0], 0).text().lines().count(), 8);
    let ran = untouched(&place, &["verify"], 0);
    assert!(ran.text().contains("Note: wal/0000000902.wal is no segment of this store, or a copy"), "{}", ran.text());
    place.daemon(b"x\n", &[]).expect(0);
    assert_eq!(entries(&place), 9);
    assert!(store.join("wal/0000000902.wal").exists());
}

fn is_live(segment: &Path) -> bool {
    fs::read(segment).unwrap().get(137) == Some(&2)
}

/// The tables of two stores, swapped: each knows its own.
#[test]
fn tables_of_another_store() {
    let (place, other) = (store_with_tables(), store_with_tables());
    let own = files(&place, "sst").remove(0);
    fs::copy(files(&other, "sst").remove(0), &own).unwrap();
    let ran = untouched(&place, READERS[0], 2);
    assert!(ran.stderr.contains("sst/"), "{}", ran.stderr);
    assert!(ran.text().lines().count() > 100, "the others are printed");
    let ran = untouched(&place, &["verify"], 1);
    assert!(ran.text().contains("it belongs to store") || ran.text().contains("bytes long"), "{}", ran.text());
    let before = entries(&place);
    place.run("recover", &["--accept"]).expect(1);
    assert_eq!(entries(&place), before);
    place.run("verify", &["--deep"]).expect(0);
}

#[test]
fn a_directory_full_of_strangers() {
    let place = store_with_tables();
    for name in ["a.txt", "wal/b.wal", "wal/0000000500.wal.bak", "sst/c.sst", "sst/0000000500.sst", "MANIFEST-9"] {
        fs::write(place.store().join(name), "somebody's").unwrap();
    }
    fs::create_dir(place.store().join("wal/0000000501.wal")).unwrap();
    fs::create_dir(place.store().join("MANIFEST-0000099999")).unwrap();
    for command in READERS {
        untouched(&place, command, 0);
    }
    let ran = untouched(&place, &["verify"], 0);
    assert_eq!(ran.text().matches("it is left alone\n").count(), 8, "{}", ran.text());
    untouched(&place, &["recover", "--accept", "--dry-run"], 0);
    place.daemon(b"x\n", &[]).expect(0);
    for name in ["a.txt", "wal/b.wal", "wal/0000000500.wal.bak", "sst/c.sst", "sst/0000000500.sst", "MANIFEST-9"] {
        assert_eq!(fs::read(place.store().join(name)).unwrap(), b"somebody's", "{name}");
    }
}

/// A store that its reader may not write to.
#[cfg(unix)]
#[test]
fn a_read_only_directory() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65_534;
    let place = store_with_tables();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let is_root = is_root();
    mode(Path::new(place.dir()), 0o755);
    for (path, (bytes, _)) in place.snapshot() {
        mode(&path, if path.is_dir() && bytes == 0 { 0o555 } else { 0o444 });
    }
    let run = |command: &mut Command| -> Option<Ran> {
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().ok().map(Ran::from)
    };
    let Some(_) = run(&mut crate::program::kifa(&["--version"])) else {
        println!("SKIPPED: the program cannot be run as nobody from here");
        return;
    };
    let before = place.snapshot();
    for command in [READERS[0], READERS[1], READERS[2], &["verify", "--deep"]] {
        run(&mut place.command(command[0], &command[1..])).unwrap().expect(0);
    }
    let ran = run(&mut place.command("recover", &["--accept"])).unwrap().expect(2);
    assert_sentence(&ran, "ermission denied");
    let ran = run(&mut place.command("daemon", &["--stdin"])).unwrap().expect(77);
    assert!(ran.stderr.contains("ermission denied"), "{}", ran.stderr);
    assert_eq!(place.snapshot(), before);
    for path in before.keys().filter(|path| path.is_dir()) {
        mode(path, 0o755);
    }
}

#[test]
fn two_writers() {
    let place = store_with_tables();
    let mut daemon = place.start(&[]);
    std::io::Write::write_all(daemon.stdin.as_mut().unwrap(), b"one more\n").unwrap();
    place.wait_for_entries(301);
    let ran = place.daemon(b"refused\n", &[]).expect(75);
    assert!(ran.stderr.contains(&format!("locked by process {}", daemon.id())), "{}", ran.stderr);
    place.run("recover", &["--accept"]).expect(2);
    drop(daemon.stdin.take());
    Ran::from(daemon.wait_with_output().unwrap()).expect(0);
    assert_eq!(entries(&place), 301);
}

/// Whoever owns a file that this process has just made is who runs it.
#[cfg(unix)]
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    tempfile::tempdir().unwrap().path().metadata().unwrap().uid() == 0
}
