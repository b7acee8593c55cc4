//! `kifa query`: ranges, exit codes, and what a reading command must not do.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use crate::program::{Place, Ran, json, run};

fn data(ran: &Ran) -> Vec<&str> {
    ran.text().lines().map(|line| line.splitn(5, ' ').nth(4).unwrap()).collect()
}

#[test]
fn ranges_limit_and_order() {
    let place = Place::with_lines(&["a", "b", "c", "d", "e"]);
    let cases: [(&[&str], &[&str]); 8] = [
        (&[], &["a", "b", "c", "d", "e"]),
        (&["-n", "2"], &["a", "b"]),
        (&["-n", "2", "-r"], &["e", "d"]),
        (&["--from-lsn", "2", "--to-lsn", "4"], &["b", "c", "d"]),
        (&["--from-lsn", "2", "--to-lsn", "4", "--reverse", "--limit", "2"], &["d", "c"]),
        (&["--from-lsn", "5"], &["e"]),
        (&["--since", "1h", "--until", "now"], &["a", "b", "c", "d", "e"]),
        (&["-S", "yesterday", "-U", "2554-07-21"], &["a", "b", "c", "d", "e"]),
    ];
    for (args, expected) in cases {
        assert_eq!(data(&place.run("query", args).expect(0)), expected, "{args:?}");
    }
}

#[test]
fn a_time_range_covers_the_whole_of_what_it_names() {
    let place = Place::with_lines(&["a"]);
    let object = json(place.run("query", &["-o", "json"]).expect(0).text());
    let time = object["timestamp"].as_str().unwrap();
    let (date, epoch) = (&time[..10], format!("@{}", object["timestamp_ms"].as_u64().unwrap() / 1000));
    for bound in [time, &time[..19], &time[..16], date, &epoch] {
        place.run("query", &["--from", bound, "--to", bound]).expect(0);
    }
    let nothing = place.run("query", &["--to-time", "2020-01-01"]).expect(1);
    assert!(nothing.stdout.is_empty() && nothing.stderr.is_empty(), "{nothing:?}");
}

#[test]
fn exit_codes_are_those_of_grep() {
    let place = Place::with_lines(&["a"]);
    place.run("query", &["--from-lsn", "1"]).expect(0);
    place.run("query", &["--from-lsn", "2"]).expect(1);
    let nothing = place.run("query", &["--from-lsn", "2", "-o", "csv"]).expect(1);
    assert_eq!(nothing.text(), "lsn,timestamp,timestamp_ms,data\n");
    let wrong: [&[&str]; 7] = [
        &["--from-lsn", "2", "--to-lsn", "1"],
        &["--since", "1h", "--until", "2h"],
        &["--from-time", "soon"],
        &["--format", "xml"],
        &["--limit", "0"],
        &["--form"],
        &["more"],
    ];
    for args in wrong {
        let ran = place.run("query", args).expect(2);
        assert!(ran.stderr.starts_with("kifa: ") && ran.stdout.is_empty(), "{args:?}: {ran:?}");
    }
    let ran = place.run("query", &["--from-time", "soon"]);
    assert!(ran.stderr.contains("1h30m (ago") && ran.stderr.contains("2026-01-29T12:00:00Z"), "{}", ran.stderr);
    assert!(run(&["query"]).expect(2).stderr.contains("KIFA_DATA_DIR"));
}

#[test]
fn a_mistyped_directory_is_an_error_and_does_not_become_a_store() {
    let place = Place::new();
    for command in [&["query"][..], &["stats"], &["export", "-o", "-"]] {
        let ran = place.run(command[0], &command[1..]).expect(2);
        assert!(ran.stderr.contains("is not a kifa store") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        assert!(!place.store().exists(), "{command:?}");
    }
    fs::create_dir(place.store()).unwrap();
    fs::write(place.store().join("letter.txt"), "Dear Sir").unwrap();
    let before = place.snapshot();
    for command in [&["query"][..], &["stats"], &["export", "-o", "-"]] {
        place.run(command[0], &command[1..]).expect(2);
    }
    assert_eq!(place.snapshot(), before);
}

#[test]
fn reading_changes_nothing_also_beside_a_daemon() {
    let place = Place::with_lines(&["a", "b"]);
    let read = || {
        place.run("query", &[]).expect(0);
        place.run("stats", &[]).expect(0);
        place.run("export", &["-o", "-"]).expect(0);
    };
    let before = place.snapshot();
    read();
    assert_eq!(place.snapshot(), before);

    let mut daemon = place.start(&[]);
    std::io::Write::write_all(daemon.stdin.as_mut().unwrap(), b"c\n").unwrap();
    place.wait_for_entries(3);
    read();
    let stats = json(place.run("stats", &["-o", "json"]).expect(0).text());
    assert_eq!(stats["writer_alive"].as_bool(), Some(true));
    drop(daemon.stdin.take());
    Ran::from(daemon.wait_with_output().unwrap()).expect(0);
    assert_eq!(place.payloads(), ["a", "b", "c"]);
}

#[test]
fn text_of_any_script_survives_every_format() {
    let text = "Malipo 500 — ክፍያ, оплата, 支払い, مدفوعات €5 🧾";
    let place = Place::with_lines(&[text]);
    for format in ["text", "json", "csv"] {
        let ran = place.run("query", &["-o", format]).expect(0);
        assert!(ran.text().contains(text), "{format}: {}", ran.text());
    }
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(place.run("query", &["-o", "hex"]).expect(0).text().contains(&hex));
}

#[test]
fn an_entry_cannot_drive_the_terminal() {
    let place = Place::new();
    place.daemon(b"\x1b]0;owned\x07\xff\n\xc2\x9b2J\xe2\x80\xae\n", &[]).expect(0);
    for format in ["text", "json"] {
        let ran = place.run("query", &["-o", format]).expect(0);
        assert!(!ran.text().chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{:?}", ran.text());
    }
    let ran = place.run("query", &["-o", "json"]).expect(0);
    let first = json(ran.text().lines().next().unwrap());
    assert_eq!((first["encoding"].as_str(), first["data"].as_str()), (Some("base64"), Some("G10wO293bmVkB/8=")));
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let lines: Vec<String> = (0..50_000).map(|number| format!("a line of some length, number {number}")).collect();
    let place = Place::with_lines(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    for command in [&["query"][..], &["export", "-o", "-"]] {
        let mut query = place.command(command[0], &command[1..]);
        let mut query = query.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(query.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("number 0"), "{first}");
        let mut stderr = String::new();
        query.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((query.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_output_is_an_error_and_a_full_stderr_no_panic() {
    let place = Place::with_lines(&["a"]);
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for command in ["query", "stats"] {
        let output = place.command(command, &[]).stdout(full()).output().unwrap();
        let ran = Ran::from(output).expect(2);
        assert!(ran.stderr.starts_with("kifa: cannot write to standard output: "), "{}", ran.stderr);
    }
    let output = place.command("query", &["--from-time", "soon"]).stderr(full()).output().unwrap();
    Ran::from(output).expect(2);
    let output = place.command("daemon", &["--stdin"]).stderr(full()).output().unwrap();
    Ran::from(output).expect(0);
}

#[test]
fn damage_is_named_and_what_lies_around_it_is_printed() {
    let place = Place::with_lines(&["the first entry"]);
    place.daemon(b"the second entry\nthe third entry\n", &[]).expect(0);
    let mut damaged = None;
    for (path, _) in place.snapshot() {
        let Ok(mut bytes) = fs::read(&path) else { continue };
        if let Some(at) = bytes.windows(16).position(|window| window == b"the second entry") {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            damaged = Some(path);
        }
    }
    let damaged = damaged.expect("the payload lies in a file");
    let before = place.snapshot();
    let ran = place.run("query", &["-o", "text"]).expect(2);
    assert_eq!(data(&ran), ["the first entry", "the third entry"]);
    assert!(ran.stderr.contains(damaged.file_name().unwrap().to_str().unwrap()), "{}", ran.stderr);
    assert!(ran.stderr.contains("LSN 2"), "{}", ran.stderr);
    assert_eq!(place.snapshot(), before);
}
