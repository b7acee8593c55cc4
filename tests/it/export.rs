//! `kifa export`: complete or not at all.

use std::fs;

use crate::program::{Place, Ran};

/// Names beside the store.
fn names(place: &Place) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(place.dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn export(place: &Place, file: &str, args: &[&str]) -> Ran {
    let target = place.beside(file);
    place.run("export", &[&["-o", target.to_str().unwrap()], args].concat())
}

#[test]
fn a_file_holds_what_query_prints() {
    let place = Place::with_lines(&["a", "b", "c"]);
    for format in ["text", "json", "csv", "hex"] {
        let ran = export(&place, "out", &["--format", format, "--from-lsn", "2", "-r"]).expect(0);
        assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
        let printed = place.run("query", &["-o", format, "--from-lsn", "2", "-r"]).expect(0).stdout;
        assert_eq!(fs::read(place.beside("out")).unwrap(), printed, "{format}");
        let streamed = place.run("export", &["-o", "-", "--format", format, "--from-lsn", "2", "-r"]).expect(0);
        assert_eq!(streamed.stdout, printed, "{format}");
    }
    export(&place, "default", &[]).expect(0);
    assert!(fs::read_to_string(place.beside("default")).unwrap().starts_with("{\"lsn\":1,"));
    assert_eq!(names(&place), ["data", "default", "out"]);
}

#[test]
fn an_export_of_nothing_is_a_valid_file() {
    let place = Place::with_lines(&["a"]);
    export(&place, "empty.json", &["--from-lsn", "9"]).expect(0);
    assert!(fs::read(place.beside("empty.json")).unwrap().is_empty());
    export(&place, "empty.csv", &["--from-lsn", "9", "--format", "csv"]).expect(0);
    assert_eq!(fs::read(place.beside("empty.csv")).unwrap(), b"lsn,timestamp,timestamp_ms,data\n");
}

#[test]
fn places_that_must_not_be_written_are_refused() {
    let place = Place::with_lines(&["a"]);
    let before = place.snapshot();
    for (file, why) in
        [("data/out", "inside the data directory"), ("data", "is a directory"), ("no/out", "its directory")]
    {
        let ran = export(&place, file, &[]).expect(2);
        assert!(ran.stderr.starts_with("kifa: cannot export to ") && ran.stderr.contains(why), "{}", ran.stderr);
    }
    assert_eq!((place.snapshot(), names(&place)), (before, vec!["data".to_owned()]));
}

#[cfg(unix)]
#[test]
fn only_a_regular_file_is_replaced_and_a_link_is_followed() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    let place = Place::with_lines(&["a"]);
    fs::write(place.beside("old"), "old").unwrap();
    symlink(place.beside("old"), place.beside("link")).unwrap();
    export(&place, "link", &[]).expect(0);
    assert!(fs::symlink_metadata(place.beside("link")).unwrap().is_symlink());
    assert!(fs::read_to_string(place.beside("old")).unwrap().starts_with("{\"lsn\":1"));
    assert_eq!(fs::metadata(place.beside("old")).unwrap().permissions().mode() & 0o777, 0o600);

    symlink("/dev/null", place.beside("null")).unwrap();
    let device = fs::metadata("/dev/null").unwrap().rdev();
    let ran = export(&place, "null", &[]).expect(2);
    assert!(ran.stderr.contains("not a regular file"), "{}", ran.stderr);
    assert_eq!(fs::metadata("/dev/null").unwrap().rdev(), device);
}

#[cfg(unix)]
#[test]
fn an_interrupted_export_leaves_nothing_behind() {
    use crate::program::wait_until;
    use rustix::process::{Pid, Signal, kill_process};

    let place = Place::new();
    let mut input = Vec::new();
    for number in 0..300_000 {
        input.extend_from_slice(format!("{number:0200}\n").as_bytes());
    }
    place.daemon(&input, &[]).expect(0);
    fs::write(place.beside("out"), "an earlier export").unwrap();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let target = place.beside("out");
        let mut command = place.command("export", &["--format", "hex", "-o", target.to_str().unwrap()]);
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_until("the export has begun", || names(&place).len() > 2 || child.try_wait().unwrap().is_some());
        kill_process(Pid::from_child(&child), signal).unwrap();
        Ran::from(child.wait_with_output().unwrap()).expect(code);
        assert_eq!(names(&place), ["data", "out"]);
        assert_eq!(fs::read_to_string(&target).unwrap(), "an earlier export");
    }
}
