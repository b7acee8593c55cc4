//! `kifa snapshot`: what is in it, that it is a store of its own, and what an interrupted one leaves.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use kifa::{Log, Options, Reader, ScanRange};

use crate::program::{Place, json, run, wait_until};
use crate::standin::Daemon;

/// A store with a few tables and something behind them in the log.
fn grown(place: &Place) -> Log {
    let mut options = Options::default();
    options.memtable_bytes = 64 << 10;
    options.compaction_enabled = false;
    let log = Log::open(place.store(), options).unwrap();
    for number in 0..300 {
        log.append(format!("{number} {}", "x".repeat(1000)).as_bytes()).unwrap();
    }
    log
}

fn lsns(dir: &std::path::Path) -> Vec<u64> {
    let reader = Reader::open(dir).unwrap();
    let mut scan = reader.scan(ScanRange::default()).unwrap();
    let mut lsns = Vec::new();
    while let Some(entry) = scan.next_entry().unwrap() {
        lsns.push(entry.lsn.0);
    }
    lsns
}

fn snapshot(place: &Place, name: &str) -> serde_json::Value {
    let to = place.beside(name);
    json(place.run("snapshot", &["--to", to.to_str().unwrap(), "-o", "json"]).expect(0).text())
}

#[test]
fn a_copy_of_a_store_in_use_opens_as_a_store_of_its_own() {
    let place = Place::new();
    let log = grown(&place);
    // A log without a socket proves its last entry durable by the next group, or when it has been idle for a second.
    wait_until("all is provably durable", || lsns(&place.store()).len() == 300);
    let taken = snapshot(&place, "copy");
    assert!(taken["entries"] == 300 && taken["last_lsn"] == 300, "{taken}");
    let shared = taken["tables_cloned"].as_u64().unwrap() + taken["tables_linked"].as_u64().unwrap();
    assert!(shared >= 3 && taken["tables_copied"] == 1, "the log alone is written: {taken}");
    let copy = place.beside("copy");
    assert_eq!(lsns(&copy), (1..=300).collect::<Vec<_>>());
    assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o700);
    run(&["verify", "--deep", "-d", copy.to_str().unwrap()]).expect(0);

    // Two branches from here on: neither sees what the other does.
    log.append(b"here").unwrap();
    let branch = Log::open(&copy, Options::default()).unwrap();
    assert_eq!(branch.append(b"there").unwrap().0, 301);
    branch.close().unwrap();
    log.close().unwrap();
    for (dir, last) in [(&place.store(), "here"), (&copy, "there")] {
        let newest = run(&["query", "-d", dir.to_str().unwrap(), "-n", "1", "-r", "-o", "json"]).expect(0);
        assert_eq!(json(newest.text())["data"], last);
        run(&["verify", "--deep", "-d", dir.to_str().unwrap()]).expect(0);
    }
}

/// Each takes away tables that the other has linked.
#[test]
fn what_one_of_them_deletes_the_other_keeps() {
    let place = Place::new();
    grown(&place).close().unwrap();
    snapshot(&place, "copy");
    place.run("vacuum", &["--to-size", "0"]).expect(0);
    assert!(lsns(&place.store()).len() < 300);
    let copy = place.beside("copy");
    assert_eq!(lsns(&copy).len(), 300);
    run(&["verify", "--deep", "-d", copy.to_str().unwrap()]).expect(0);
    // Merges in the copy remove its names of the tables, and the floor of the source goes with its next copy.
    let floor = lsns(&place.store())[0];
    snapshot(&place, "second");
    assert_eq!(lsns(&place.beside("second"))[0], floor);
    let below = run(&["query", "-d", place.beside("second").to_str().unwrap(), "--to-lsn", "1"]).expect(1);
    assert!(below.stderr.contains("have expired"), "{}", below.stderr);
}

#[test]
fn sources_and_gaps_and_times_go_with_it() {
    let place = Place::with_lines(&["one", "two"]);
    let daemon = Daemon::start(&place, &[]);
    place.run("append", &["three"]).expect(0);
    snapshot(&place, "copy");
    daemon.stop();
    let copy = place.beside("copy");
    let args = ["query", "-d", copy.to_str().unwrap(), "--show-source", "-o", "json"];
    let copied = run(&args).expect(0);
    let original = place.run("query", &["--show-source", "-o", "json"]).expect(0);
    assert_eq!(copied.text(), original.text());
    assert!(copied.text().contains("\"append\"") && copied.text().contains("\"stdin\""), "{}", copied.text());
}

#[test]
fn it_replaces_nothing_and_an_interrupted_one_is_no_store() {
    let place = Place::with_lines(&["one"]);
    let to = place.beside("copy");
    let wrong = |to: &std::path::Path| place.run("snapshot", &["--to", to.to_str().unwrap()]).expect(2).stderr;
    assert!(wrong(&place.store().join("inside")).contains("outside"));
    fs::create_dir(&to).unwrap();
    assert!(wrong(&to).contains("exists already"));
    fs::remove_dir(&to).unwrap();
    // As a cut leaves it: everything but the manifest.
    let hidden = place.beside(".copy.kifa-snapshot.tmp");
    fs::create_dir_all(hidden.join("sst")).unwrap();
    fs::create_dir_all(hidden.join("wal")).unwrap();
    assert!(wrong(&to).contains("kifa snapshot that was interrupted"));
    run(&["query", "-d", hidden.to_str().unwrap()]).expect(2);
    fs::remove_dir_all(&hidden).unwrap();
    place.run("snapshot", &["--to", to.to_str().unwrap()]).expect(0);
    assert!(!hidden.exists());
    assert_eq!(run(&["snapshot", "-d", "absent", "--to", "elsewhere"]).code, Some(2));
    let help = run(&["snapshot", "--help"]).expect(0);
    assert!(["Examples:", "Exit codes:"].iter().all(|part| help.text().contains(part)));
}
