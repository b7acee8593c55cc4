//! `kifa doctor`: what it looks at, what it leaves alone, and how it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::program::{Place, Ran, json, kifa};

/// The findings of a report, each as level, subject and remedy; the exit code is checked against them.
#[track_caller]
fn findings(place: &Place) -> Vec<(String, String, String)> {
    let ran = place.run("doctor", &["--format", "json"]);
    let object = json(ran.text());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let findings: Vec<_> = object["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            assert_eq!(finding["remedy"].is_null(), finding["level"] == "ok", "{finding}");
            assert!(!text(&finding["finding"]).is_empty());
            (text(&finding["level"]), text(&finding["subject"]), text(&finding["remedy"]))
        })
        .collect();
    let problems = findings.iter().filter(|(level, ..)| level == "problem").count();
    assert_eq!(ran.code, Some(i32::from(problems > 0)), "{findings:?}");
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
    findings
}

#[track_caller]
fn assert_found(place: &Place, level: &str, subject: &str, remedy: &str) {
    let found = findings(place);
    let is_there = found.iter().any(|(l, s, r)| l == level && s == subject && r.contains(remedy));
    assert!(is_there, "{level} {subject} {remedy}: {found:?}");
}

#[test]
fn a_good_store_is_looked_at_from_all_sides_and_left_alone() {
    let place = Place::with_lines(&["a"]);
    let before = place.snapshot();
    let found = findings(&place);
    for subject in ["directory", "permissions", "file system", "write cache", "io_uring", "free space", "clock", "NTP"]
    {
        assert!(found.iter().any(|(_, found, _)| found == subject), "{subject}: {found:?}");
    }
    let after = place.snapshot();
    // The directory's own time may change where the file system knows no files without a name.
    let files = |snapshot: &std::collections::BTreeMap<std::path::PathBuf, _>| -> Vec<_> {
        snapshot
            .iter()
            .filter(|(path, _)| path.is_file())
            .map(|(path, at)| (path.clone(), *at))
            .collect::<Vec<(_, (u64, std::time::SystemTime))>>()
    };
    assert_eq!(files(&before), files(&after));
    let text = place.run("doctor", &[]);
    assert!(text.text().starts_with("ok       directory     a store; nobody is writing to it\n"), "{}", text.text());
    assert!(text.text().lines().last().unwrap().contains(" problem"), "{}", text.text());
}

#[test]
fn it_works_beside_a_daemon() {
    let place = Place::with_lines(&["a"]);
    let mut daemon = place.start(&[]);
    std::io::Write::write_all(daemon.stdin.as_mut().unwrap(), b"b\n").unwrap();
    place.wait_for_entries(2);
    let ran = place.run("doctor", &[]);
    assert!(ran.text().starts_with("ok       directory     a store; somebody is writing to it\n"), "{}", ran.text());
    drop(daemon.stdin.take());
    Ran::from(daemon.wait_with_output().unwrap()).expect(0);
    assert_eq!(place.payloads(), ["a", "b"]);
}

#[test]
fn what_the_daemon_would_refuse_is_a_problem_with_its_remedy() {
    let place = Place::with_lines(&["a"]);
    let mode = |mode| fs::set_permissions(place.store(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    assert_found(&place, "problem", "permissions", "chmod 700");
    place.run("doctor", &[]).expect(1);
    mode(0o755);
    assert_found(&place, "note", "permissions", "chmod 700");
    mode(0o700);
    let (wal, moved) = (place.store().join("wal"), place.beside("wal"));
    fs::rename(&wal, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &wal).unwrap();
    assert_found(&place, "problem", "links", "the file itself");
}

#[test]
fn a_place_without_a_store_can_be_looked_at_before_there_is_one() {
    let place = Place::new();
    let found = findings(&place);
    assert!(!place.store().exists() && found.iter().any(|(level, subject, _)| level == "ok" && subject == "directory"));
    fs::create_dir(place.store()).unwrap();
    fs::write(place.store().join("letter.txt"), "Dear Sir").unwrap();
    assert_found(&place, "problem", "directory", "empty or absent");
}

#[test]
fn what_is_no_place_is_code_2() {
    let place = Place::with_lines(&["a"]);
    for dir in [place.store().join("LOCK"), place.beside("absent").join("data")] {
        let ran = Ran::from(kifa(&["doctor", "-d", dir.to_str().unwrap()]).output().unwrap()).expect(2);
        assert!(ran.stderr.starts_with("kifa: ") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    }
    assert!(Ran::from(kifa(&["doctor"]).output().unwrap()).expect(2).stderr.contains("KIFA_DATA_DIR"));
    place.run("doctor", &["--fix"]).expect(2);
}
