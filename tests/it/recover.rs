//! `kifa recover`: what is good is kept, what is missing is listed, the source is left alone.

use std::fs;

use crate::program::{Place, Ran, json, run};
use crate::verify::{damage_entry, files, manifest, store_with_tables};

/// LSN, time and payload of every entry that query prints, with its exit code.
fn entries(dir: &str) -> (Vec<String>, Option<i32>) {
    let ran = run(&["query", "-d", dir, "-o", "json"]);
    (ran.text().lines().map(str::to_owned).collect(), ran.code)
}

fn path(place: &Place, name: &str) -> String {
    place.beside(name).to_str().unwrap().to_owned()
}

/// Two damaged places: a table block, and the last entry of the log.
fn damaged() -> Place {
    let place = store_with_tables();
    damage_entry(&place, "wal", 299);
    damage_entry(&place, "sst", 20);
    place
}

#[test]
fn a_copy_holds_everything_good_under_its_own_numbers_and_goes_on() {
    let place = damaged();
    let before = place.snapshot();
    let store = place.store().to_str().unwrap().to_owned();
    let new = path(&place, "new");
    let plan = place.run("recover", &["--to", &new, "--dry-run"]).expect(1);
    assert!(plan.text().contains("Missing: ") && plan.text().contains("Nothing was done"), "{}", plan.text());
    assert!(!place.beside("new").exists());
    let ran = place.run("recover", &["--to", &new]).expect(1);
    assert_eq!(place.snapshot(), before, "the source is not touched");
    assert_eq!(ran.text().lines().take(7).collect::<Vec<_>>(), plan.text().lines().take(7).collect::<Vec<_>>());
    let (good, code) = entries(&store);
    assert_eq!(code, Some(2));
    assert_eq!(entries(&new), (good.clone(), Some(0)), "numbers, times, payloads");
    run(&["verify", "-d", &new, "--deep"]).expect(0);

    let report = json(place.run("verify", &["-o", "json"]).expect(1).text());
    let stats = json(run(&["stats", "-d", &new, "-o", "json"]).expect(0).text());
    let range = |range: &serde_json::Value| (range["first_lsn"].as_u64(), range["last_lsn"].as_u64());
    let missing: Vec<_> = report["missing"].as_array().unwrap().iter().map(range).collect();
    let gaps: Vec<_> = stats["gaps"].as_array().unwrap().iter().map(range).collect();
    assert_eq!(missing, gaps);
    assert!(stats["gaps"][0]["cause"].as_str().unwrap().contains("operator accepted"));

    let mut daemon = crate::program::kifa(&["daemon", "--stdin", "-d", &new]);
    crate::program::feed(&mut daemon, b"the next one\n").expect(0);
    let (after, _) = entries(&new);
    assert_eq!(after.len(), good.len() + 1);
    assert_eq!(json(after.last().unwrap())["lsn"], 301);
}

#[test]
fn a_new_store_never_replaces_anything() {
    let place = damaged();
    fs::create_dir(place.beside("there")).unwrap();
    let inside = place.store().join("new").to_str().unwrap().to_owned();
    for to in [path(&place, "there"), inside, path(&place, "no/such/parent")] {
        let ran = place.run("recover", &["--to", &to]).expect(2);
        assert!(ran.stdout.is_empty() && ran.stderr.lines().count() == 1, "{ran:?}");
    }
    fs::create_dir(place.beside(".new.kifa-recover.tmp")).unwrap();
    let ran = place.run("recover", &["--to", &path(&place, "new")]).expect(2);
    assert!(ran.stderr.contains("left from a kifa recover that was interrupted"), "{}", ran.stderr);
}

#[test]
fn accepting_goes_on_in_place_and_deletes_nothing() {
    let place = damaged();
    let store = place.store().to_str().unwrap().to_owned();
    let (good, _) = entries(&store);
    place.daemon(b"refused\n", &[]).expect(65);
    let before = place.snapshot();
    let plan = place.run("recover", &["--accept", "--dry-run"]).expect(1);
    assert!(plan.text().contains("Would move wal/"), "{}", plan.text());
    assert_eq!(place.snapshot(), before);
    let ran = place.run("recover", &["--accept"]).expect(1);
    assert_eq!(ran.text().matches("Kept in quarantine/: ").count(), 2, "{}", ran.text());
    assert_eq!(entries(&store), (good.clone(), Some(0)));
    place.run("verify", &["--deep"]).expect(0);
    assert_eq!(files(&place, "quarantine").len(), 2);
    place.daemon(b"goes on\n", &[]).expect(0);
    let (after, code) = entries(&store);
    assert_eq!((after.len(), code), (good.len() + 1, Some(0)));
    assert_eq!(json(after.last().unwrap())["lsn"], 301);
    assert!(place.run("recover", &["--accept"]).expect(0).text().contains("no damage to accept"));
    assert_eq!(files(&place, "quarantine").len(), 2);
}

#[test]
fn a_lost_manifest_is_rebuilt_from_the_files() {
    let place = store_with_tables();
    let store = place.store().to_str().unwrap().to_owned();
    let (all, _) = entries(&store);
    fs::remove_file(manifest(&place)).unwrap();
    let ran = place.run("query", &[]).expect(2);
    assert!(ran.stderr.contains("manifest is missing") && ran.stderr.contains("kifa recover"), "{}", ran.stderr);
    place.run("recover", &["--to", &path(&place, "new")]).expect(0);
    assert_eq!(entries(&path(&place, "new")), (all.clone(), Some(0)));
    place.run("recover", &["--accept"]).expect(0);
    assert_eq!(entries(&store), (all, Some(0)));
    place.daemon(b"goes on\n", &[]).expect(0);
}

#[test]
fn it_does_not_accept_under_a_daemon_and_makes_no_store() {
    let place = store_with_tables();
    let mut daemon = place.start(&[]);
    std::io::Write::write_all(daemon.stdin.as_mut().unwrap(), b"one more\n").unwrap();
    place.wait_for_entries(301);
    let ran = place.run("recover", &["--accept"]).expect(2);
    assert!(ran.stderr.contains("is locked by process"), "{}", ran.stderr);
    drop(daemon.stdin.take());
    Ran::from(daemon.wait_with_output().unwrap()).expect(0);

    let nothing = Place::new();
    nothing.run("recover", &["--accept"]).expect(2);
    fs::create_dir(nothing.store()).unwrap();
    for args in [&["--accept"][..], &["--to", &path(&nothing, "new")], &[], &["--accept", "--to", "x"]] {
        nothing.run("recover", args).expect(2);
    }
    assert_eq!(fs::read_dir(nothing.store()).unwrap().count(), 0);
    assert!(!nothing.beside("new").exists());
}
