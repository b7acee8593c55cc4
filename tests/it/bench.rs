//! `kifa bench`: figures in, nothing left behind.

use std::fs;
use std::path::Path;

use crate::program::{Place, Ran, json, kifa, run};

#[track_caller]
fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[track_caller]
fn bench(place: &Place, args: &[&str]) -> Ran {
    run(&[&["bench", "-d", place.dir(), "--seconds", "5"], args].concat())
}

#[test]
fn every_figure_is_there_and_nothing_else() {
    let place = Place::new();
    let ran = bench(&place, &["-o", "json"]).expect(0);
    assert_eq!(names(place.dir().as_ref()), [""; 0], "what it wrote is gone");
    let found = json(ran.text());
    for figure in ["writes_per_second", "p50_us", "p99_us", "write_bytes_per_second", "read_bytes_per_second"] {
        assert!(found["raw"][figure].as_f64().unwrap() > 0.0, "{figure}");
    }
    let all = |list: &str| found[list].as_array().unwrap().clone();
    assert!(all("candidates").iter().any(|case| case["io_backend"] == "portable"));
    let cases: Vec<String> = all("cases")
        .iter()
        .map(|case| format!("{} {} {}", case["flush_mode"].as_str().unwrap(), case["producers"], case["batch"]))
        .collect();
    let expected = ["cautious 2 1", "cautious 8 1", "cautious 64 1", "cautious 1 50", "normal 1 1", "cautious 1 100"];
    assert_eq!(cases, expected);
    for case in all("candidates").iter().chain(&all("cases")) {
        let figure = |name: &str| case[name].as_f64().unwrap();
        assert!(figure("entries_per_second") > 0.0 && figure("ratio") > 0.0, "{case}");
    }
    assert!(found["recommendation"]["flush_mode"].is_string());
}

#[test]
fn a_store_and_what_is_in_it_are_refused_untouched() {
    let place = Place::with_lines(&["a"]);
    let before = place.snapshot();
    let store = place.store();
    for dir in [store.clone(), store.join("wal")] {
        let ran = run(&["bench", "-d", dir.to_str().unwrap()]).expect(2);
        assert!(ran.stderr.contains("is a kifa store; name a directory beside it"), "{}", ran.stderr);
    }
    assert_eq!(place.snapshot(), before);
    let missing = run(&["bench", "-d", place.beside("missing").to_str().unwrap()]).expect(2);
    assert!(missing.stderr.contains("name a directory that exists"), "{}", missing.stderr);
    assert!(!place.beside("missing").exists());
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_and_leaves_nothing_behind() {
    use rustix::process::{Pid, Signal, kill_process};

    use crate::program::wait_until;

    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = Place::new();
        let mut child = kifa(&["bench", "-d", place.dir(), "--seconds", "300"]).spawn().unwrap();
        // Well into it: the logs are open.
        let is_measuring = || {
            let scratch = names(place.dir().as_ref()).pop();
            scratch.is_some_and(|name| place.beside(&name).join("way-0").exists())
        };
        wait_until("it measures", is_measuring);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(names(place.dir().as_ref()), [""; 0]);
    }
}
