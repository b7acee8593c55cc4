//! Configuration through the program: precedence, effect, and mistakes with their place.

use std::fs;

use crate::program::{Place, Ran, feed, json, kifa, make_private_dir, run};

/// A daemon over one line of input, with this file as `kifa.toml` in its directory and these variables.
fn daemon(place: &Place, toml: &str, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    make_private_dir(&place.store());
    fs::write(place.store().join("kifa.toml"), toml).unwrap();
    let variables = variables.iter().copied();
    let mut command = place.command("daemon", args);
    feed(command.envs(variables), b"a line\n")
}

fn flush_mode(place: &Place) -> String {
    let stats = place.run("stats", &["-o", "json"]).expect(0);
    json(stats.text())["flush_mode"].as_str().unwrap().to_owned()
}

#[test]
fn flags_win_over_environment_over_file() {
    let place = Place::new();
    let toml = "[wal]\nflush_mode = \"normal\"\n[sources]\nstdin = true\n";
    daemon(&place, toml, &[], &[]).expect(0);
    assert_eq!(flush_mode(&place), "normal");
    daemon(&place, toml, &[("KIFA_FLUSH_MODE", "emergency")], &[]).expect(0);
    assert_eq!(flush_mode(&place), "emergency");
    daemon(&place, toml, &[("KIFA_FLUSH_MODE", "emergency")], &["--flush-mode", "cautious"]).expect(0);
    assert_eq!(flush_mode(&place), "cautious");
    let other = place.beside("other.toml");
    fs::write(&other, "[sources]\nstdin = true\n").unwrap();
    daemon(&place, "not even TOML", &[], &["-c", other.to_str().unwrap()]).expect(0);
}

#[test]
fn mistakes_are_78_or_on_the_command_line_64() {
    let place = Place::new();
    let ran = daemon(&place, "[wal]\nflush_mod = \"normal\"\n", &[], &["--stdin"]).expect(78);
    let file = place.store().join("kifa.toml");
    let expected = format!(
        "kifa: {} line 2: unknown key \"wal.flush_mod\"; did you mean \"wal.flush_mode\" (normal, cautious, emergency)?\n",
        file.display()
    );
    assert_eq!(ran.stderr, expected);
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], i32, &'a str);
    let cases: [Case<'_>; 8] = [
        (
            &[("KIFA_SEGMENT_SIZE_MIB", "0")],
            &["--stdin"],
            78,
            "KIFA_SEGMENT_SIZE_MIB: wal.segment_size_mib is \"0\"; it must be 1 to 1024",
        ),
        (&[("KIFA_TCP", "5514")], &["--stdin"], 78, "KIFA_TCP: sources.tcp: \"5514\" is not an address to listen on"),
        (&[("KIFA_LOG", "kifa=loud")], &["--stdin"], 78, "KIFA_LOG is \"kifa=loud\""),
        (&[], &["--stdin", "-c", "/absent.toml"], 78, "cannot read /absent.toml"),
        (&[], &["--stdin", "--compaction-threshold", "65"], 64, "it must be 2 to 64"),
        (&[], &["--stdin", "--io-backend", "fast"], 64, "auto, uring, portable"),
        (&[], &[], 64, "there is nothing to read from: add --stdin"),
        (&[], &["--stdout"], 64, "unexpected argument"),
    ];
    for (variables, args, code, expected) in cases {
        let ran = daemon(&place, "", variables, args).expect(code);
        assert!(ran.stderr.starts_with("kifa: ") && ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
    }
    let names: Vec<_> = fs::read_dir(place.store()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kifa.toml"], "a mistake creates nothing");
}

#[test]
fn the_data_directory_may_come_from_the_environment() {
    let place = Place::with_lines(&["a"]);
    let query = |args: &[&str]| {
        let mut command = crate::program::kifa(args);
        Ran::from(command.env("KIFA_DATA_DIR", place.store()).output().unwrap())
    };
    query(&["query"]).expect(0);
    query(&["stats"]).expect(0);
    query(&["query", "-d", "/absent"]).expect(2);
}

/// `kifa config ARGS…` beside this `kifa.toml`.
fn config(place: &Place, toml: &str, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    make_private_dir(&place.store());
    fs::write(place.store().join("kifa.toml"), toml).unwrap();
    let mut command = kifa(&["config"]);
    command.args(args).args(["-d", place.store().to_str().unwrap()]).envs(variables.iter().copied());
    command.output().unwrap().into()
}

#[test]
fn check_ends_as_the_daemon_would() {
    let place = Place::new();
    let good = config(&place, "[sources]\nudp = [\"127.0.0.1:0\"]\n", &[], &["check", "--stdin"]).expect(0);
    assert_eq!((good.text(), good.stderr.as_str()), ("The configuration is good: 2 sources.\n", ""));
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str], i32);
    let cases: [Case<'_>; 6] = [
        ("[wal]\nflush_mod = 1\n", &[], &["--stdin"], 78),
        ("", &[("KIFA_SEGMENT_SIZE_MIB", "0")], &["--stdin"], 78),
        ("", &[("KIFA_LOG", "kifa=loud")], &["--stdin"], 78),
        ("", &[], &["--stdin", "-c", "/absent.toml"], 78),
        ("", &[], &["--stdin", "--compaction-threshold", "65"], 64),
        ("", &[], &[], 64),
    ];
    for (toml, variables, args, code) in cases {
        let checked = config(&place, toml, variables, &[&["check"], args].concat()).expect(code);
        let ran = daemon(&place, toml, variables, args).expect(code);
        assert_eq!(checked.stderr, ran.stderr);
        assert!(checked.stdout.is_empty());
    }
    let names: Vec<_> = fs::read_dir(place.store()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kifa.toml"], "it creates nothing");
    let noted = config(&place, "", &[("KIFA_FLUSHMODE", "normal")], &["check", "--stdin"]).expect(0);
    assert!(noted.stderr.contains("KIFA_FLUSHMODE is not a setting"), "{}", noted.stderr);
}

#[test]
fn show_tells_where_each_value_came_from_and_reads_back() {
    let place = Place::new();
    let toml = "[wal]\nflush_mode = \"normal\"\nsegment_size_mib = 8\n[sources]\nfiles = [\"/a/*.log\"]\n";
    let variables = [("KIFA_CHANNEL_CAPACITY", "7"), ("KIFA_FLUSH_MODE", "emergency")];
    let shown = config(&place, toml, &variables, &["show", "--origin", "--segment-size-mib", "2"]).expect(0);
    let file = place.store().join("kifa.toml");
    for line in [
        "flush_mode = \"emergency\"  # from the environment variable KIFA_FLUSH_MODE".to_owned(),
        "segment_size_mib = 2  # from --segment-size-mib".to_owned(),
        "channel_capacity = 7  # from the environment variable KIFA_CHANNEL_CAPACITY".to_owned(),
        format!("files = [\"/a/*.log\"]  # from {} line 5", file.display()),
        "idle_timeout = \"24h\"  # the default".to_owned(),
    ] {
        assert!(shown.text().lines().any(|found| found == line), "{line}\n{}", shown.text());
    }
    let again = config(&place, shown.text(), &[], &["show"]).expect(0);
    let without_origin = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(without_origin(again.text()), without_origin(shown.text()));
    config(&place, "[wal]\nflush_mode = 1\n", &[], &["show"]).expect(78);
}

#[test]
fn the_printed_defaults_are_a_file_that_changes_nothing() {
    let place = Place::new();
    let text = run(&["config", "default"]).expect(0).text().to_owned();
    let shown = config(&place, &text, &[], &["show"]).expect(0);
    assert_eq!(shown.text(), config(&place, "", &[], &["show"]).expect(0).text());
    daemon(&place, &text, &[], &["--stdin"]).expect(0);
    assert_eq!(flush_mode(&place), "cautious");
}

#[test]
fn a_variable_that_is_no_setting_is_pointed_out() {
    let place = Place::new();
    let ran = daemon(&place, "", &[("KIFA_FLUSHMODE", "normal")], &["--stdin"]).expect(0);
    assert!(ran.stderr.contains("KIFA_FLUSHMODE is not a setting"), "{}", ran.stderr);
    let ran = daemon(&place, "", &[("KIFA_PAGER", "more")], &["--stdin"]).expect(0);
    assert!(!ran.stderr.contains("is not a setting"), "{}", ran.stderr);
}

#[test]
fn the_log_is_plain_where_nobody_wants_colour_and_has_no_times_under_systemd() {
    let place = Place::new();
    let ran = daemon(&place, "", &[("KIFA_LOG", "debug")], &["--stdin"]).expect(0);
    assert!(!ran.stderr.contains('\x1b'), "{}", ran.stderr);
    assert!(ran.stderr.contains("sources.stdin is true, from --stdin"), "{}", ran.stderr);
    let ran = daemon(&place, "", &[("JOURNAL_STREAM", "8:1234")], &["--stdin"]).expect(0);
    assert!(ran.stderr.lines().all(|line| line.trim_start().starts_with("INFO ")), "{}", ran.stderr);
    let ran = daemon(&place, "", &[("KIFA_LOG", "error")], &["--stdin"]).expect(0);
    assert_eq!(ran.stderr, "");
}
