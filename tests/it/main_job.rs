//! The release contract: the main job as the README shows it, and the help.

use crate::program::{Place, json, run};

const LINE: &str = r#"{"txn":"TXN-001","amount":5000,"status":"completed"}"#;

#[test]
fn an_entry_goes_in_and_comes_out_in_every_format() {
    let place = Place::with_lines(&[LINE]);
    let object = json(place.run("query", &["-o", "json"]).expect(0).text());
    assert_eq!((object["lsn"].as_u64(), object["data"].as_str()), (Some(1), Some(LINE)));
    let (time, milliseconds) = (object["timestamp"].as_str().unwrap(), object["timestamp_ms"].as_u64().unwrap());
    assert_eq!((time.len(), &time[19..]), (23, " UTC"));

    let output = |args: &[&str]| place.run("query", args).expect(0).text().to_owned();
    assert_eq!(output(&[]), format!("[1] {time} {LINE}\n"));
    let escaped = LINE.replace('"', "\\\"");
    let expected =
        format!("{{\"lsn\":1,\"timestamp\":\"{time}\",\"timestamp_ms\":{milliseconds},\"data\":\"{escaped}\"}}\n");
    assert_eq!(output(&["--format", "json"]), expected);
    let doubled = LINE.replace('"', "\"\"");
    let expected = format!("lsn,timestamp,timestamp_ms,data\n1,\"{time}\",{milliseconds},\"{doubled}\"\n");
    assert_eq!(output(&["-o", "csv"]), expected);
    let hex: String = LINE.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(output(&["-o", "hex"]), format!("{:016x} {milliseconds:016x} {hex}\n", 1));
}

#[test]
fn stats_show_the_block_of_the_documentation() {
    let place = Place::with_lines(&[LINE]);
    let time = json(place.run("query", &["-o", "json"]).expect(0).text())["timestamp"].as_str().unwrap().to_owned();
    let stats = place.run("stats", &[]).expect(0);
    let expected = format!(
        "Storage:\n  Total entries: 1\n  SSTables: 0 (checkpoint LSN: 0)\n  Memtable: 1 entries\nWAL:\n  Flush mode: \
         Cautious\nHealth:\n  Time range: {time} - {time}\n  Gaps: none\n"
    );
    assert!(stats.text().starts_with(&expected), "{}", stats.text());
    for more in ["  Segments: ", "  Bytes on disk: ", "  I/O backend: ", "  Sync method: "] {
        assert!(stats.text().contains(more), "{more} is missing:\n{}", stats.text());
    }
    let object = json(place.run("stats", &["--format", "json"]).expect(0).text());
    assert_eq!((object["entries"].as_u64(), object["first_lsn"].as_u64()), (Some(1), Some(1)));
    assert_eq!((object["flush_mode"].as_str(), object["writer_alive"].as_bool()), (Some("cautious"), Some(false)));
    assert!(object["disk_bytes"].as_u64() > Some(0));
}

#[test]
fn a_second_run_goes_on_behind_the_first() {
    let place = Place::with_lines(&["one", "two"]);
    let ran = place.daemon(b"three\n", &[]).expect(0);
    assert!(ran.stdout.is_empty(), "a daemon prints nothing to stdout");
    assert_eq!(place.payloads(), ["one", "two", "three"]);
    let lines = place.run("query", &["-o", "hex"]).expect(0);
    let lsns: Vec<&str> = lines.text().lines().map(|line| &line[..16]).collect();
    assert_eq!(lsns, ["0000000000000001", "0000000000000002", "0000000000000003"]);
}

#[test]
fn every_command_has_help_with_examples_and_its_exit_codes() {
    for command in [
        "daemon",
        "ingest",
        "append",
        "tail",
        "ctl",
        "query",
        "export",
        "stats",
        "doctor",
        "config",
        "completions",
        "man",
    ] {
        let help = run(&[command, "--help"]).expect(0);
        for part in ["Examples:", "Exit codes:", "Usage:"] {
            assert!(help.text().contains(part), "{command}: {part}");
        }
    }
    let help = run(&["--help"]).expect(0);
    assert!(help.text().contains("143  SIGTERM") && help.text().contains("Examples:"), "{}", help.text());
    assert_eq!(run(&["--version"]).expect(0).text(), format!("kifa {}\n", env!("CARGO_PKG_VERSION")));
    let nothing = run(&[]).expect(64);
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("Usage:"), "{nothing:?}");
}
