//! Which source an entry came from: shown, and selected by.

use kifa::{Log, Options};

use crate::program::{Place, Ran, feed};

/// LSNs 1 and 2 from standard input, 3 from the library, 4 to 6 from `append`.
fn place() -> Place {
    let place = Place::with_lines(&["a", "b"]);
    let log = Log::open(place.store(), Options::default()).unwrap();
    log.append(b"c").unwrap();
    log.close().unwrap();
    feed(&mut place.command("append", &["-"]), b"d\ne\nf\n").expect(0);
    place
}

fn data(ran: &Ran) -> Vec<&str> {
    ran.text().lines().map(|line| line.rsplit(' ').next().unwrap()).collect()
}

#[test]
fn sources_are_selected_by_patterns_before_limits_count() {
    let place = place();
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--source", "stdin"], &["a", "b"]),
        (&["--source", "app*"], &["d", "e", "f"]),
        (&["--source", "*"], &["a", "b", "d", "e", "f"]),
        (&["--source", "-"], &["c"]),
        (&["--source", "-", "--source", "s[a-z]???"], &["a", "b", "c"]),
        (&["--source", "append", "-n", "2"], &["d", "e"]),
        (&["--source", "append", "-n", "2", "-r"], &["f", "e"]),
        (&["--source", "stdin", "-n", "1", "-r"], &["b"]),
        (&["--source", "append", "--after-lsn", "4"], &["e", "f"]),
    ];
    for (args, expected) in cases {
        let ran = place.run("query", args).expect(0);
        assert_eq!((data(&ran), ran.stderr.as_str()), (expected.to_vec(), ""), "{args:?}");
    }
    let tail = place.run("tail", &["-n", "2", "--source", "stdin"]).expect(0);
    assert_eq!(data(&tail), ["a", "b"]);
    let exported = place.run("export", &["-o", "-", "--format", "hex", "--source", "stdin"]).expect(0);
    assert_eq!(exported.text().lines().count(), 2);
}

#[test]
fn a_pattern_that_nothing_is_named_like_is_pointed_out() {
    let place = place();
    let ran = place.run("query", &["--source", "tcp:*", "--source", "stdin"]).expect(0);
    let expected = "kifa: note: no source has a name like \"tcp:*\"; known are: \"stdin\", \"append\"\n";
    assert_eq!((data(&ran), ran.stderr.as_str()), (vec!["a", "b"], expected));
    let ran = place.run("query", &["--source", "tcp:*"]).expect(1);
    assert_eq!(ran.stderr, expected);
    place.run("query", &["--source", "["]).expect(2);
    place.run("query", &["--source", ""]).expect(2);
}

#[test]
fn each_format_shows_the_source_and_leaves_the_payload_alone() {
    let place = place();
    let of = |format: &str| {
        place.run("query", &["-o", format, "--show-source", "--from-lsn", "2", "--to-lsn", "3"]).expect(0)
    };
    let text = of("text");
    let fields: Vec<Vec<&str>> = text.text().lines().map(|line| line.split(' ').skip(4).collect()).collect();
    assert_eq!(fields, [["stdin", "b"], ["-", "c"]]);
    let json: Vec<_> = of("json").text().lines().map(crate::program::json).collect();
    assert!(json[0]["source"] == "stdin" && json[1]["source"].is_null() && json[1]["data"] == "c", "{json:?}");
    let csv = of("csv");
    let lines: Vec<&str> = csv.text().lines().collect();
    assert_eq!(lines[0], "lsn,timestamp,timestamp_ms,source,data");
    assert!(lines[1].ends_with(",\"stdin\",\"b\"") && lines[2].ends_with(",,\"c\""), "{lines:?}");
    let hex = of("hex");
    assert!(hex.text().contains(" 737464696e 62\n") && hex.text().contains(" - 63\n"), "{}", hex.text());
}

#[test]
fn names_are_known_before_and_behind_a_table() {
    let place = Place::new();
    let input: String = (0..30_000).map(|number| format!("{number:0100}\n")).collect();
    place.daemon(input.as_bytes(), &["--segment-size-mib", "1", "--memtable-threshold-mib", "1"]).expect(0);
    place.run("append", &["x"]).expect(0);
    let shown = |args: &[&str]| place.run("query", args).expect(0).text().lines().count();
    assert_eq!(shown(&["--source", "stdin"]), 30_000);
    assert_eq!(shown(&["--source", "append"]), 1);
}
