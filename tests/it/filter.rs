//! Filters on what entries hold: `--grep`, `--where`, `--fields`, `--count`, in every command that prints entries.

use std::fs;

use crate::program::{Place, Ran, json};

const LINES: [&str; 6] = [
    r#"{"txn":"TXN-1","amount":50,"status":"completed","customer":{"name":"Asha"}}"#,
    "printer out of paper",
    r#"{"txn":"TXN-2","amount":100.0,"status":"declined"}"#,
    r#"{"txn":"TXN-3","amount":9007199254740993,"status":"completed","ok":true,"note":null}"#,
    "DECLINED by host",
    r#"{"txn":"=cmd","amount":-5,"items":[{"price":1},{"price":2}]}"#,
];

fn lsns(ran: &Ran) -> Vec<u64> {
    ran.text().lines().map(|line| json(line)["lsn"].as_u64().unwrap()).collect()
}

#[track_caller]
fn query(place: &Place, args: &[&str], expected: &[u64]) -> String {
    let ran = place.run("query", &[&["-o", "json"], args].concat());
    assert_eq!(ran.code, Some(if expected.is_empty() { 1 } else { 0 }), "{args:?}: {}", ran.stderr);
    assert_eq!(lsns(&ran), expected, "{args:?}");
    ran.stderr
}

#[test]
fn entries_are_selected_by_an_expression() {
    let place = Place::with_lines(&LINES);
    query(&place, &["-g", "declined"], &[3]);
    query(&place, &["--grep", "declined", "--ignore-case"], &[3, 5]);
    query(&place, &["-vig", "declined|paper"], &[1, 4, 6]);
    query(&place, &["-g", "^TXN"], &[]);
    query(&place, &["-g", "TXN", "-r", "-n", "2"], &[4, 3]);
    query(&place, &["-g", "TXN", "--from-lsn", "2", "--source", "stdin"], &[3, 4]);
}

#[test]
fn entries_are_selected_by_fields_and_what_is_not_json_is_counted() {
    let place = Place::with_lines(&LINES);
    let note = "kifa: note: 2 entries are not JSON, so that no --where matches\n";
    assert_eq!(query(&place, &["--where", "amount>=100"], &[3, 4]), note);
    assert_eq!(query(&place, &["--where", "amount>=100", "--where", "status=completed"], &[4]), note);
    query(&place, &["--where", "amount=9007199254740992"], &[]);
    query(&place, &["--where", "customer.name=Asha"], &[1]);
    query(&place, &["--where", "items.1.price=2"], &[6]);
    query(&place, &["--where", "ok=true", "--where", "note=null"], &[4]);
    query(&place, &["--where", "status!=completed"], &[3]);
    assert_eq!(query(&place, &["--where", "amount<100", "-g", "Asha"], &[1]), "", "the expression comes first");
}

#[test]
fn count_is_a_number_alone() {
    let place = Place::with_lines(&LINES);
    let count = |args: &[&str]| place.run("query", &[&["--count"], args].concat());
    assert_eq!(count(&[]).expect(0).text(), "6\n");
    assert_eq!(count(&["-g", "TXN", "-n", "2"]).expect(0).text(), "2\n");
    assert_eq!(count(&["--where", "amount>1e300"]).expect(1).text(), "0\n");
    for args in [["-f"], ["--show-source"], ["-ojson"]] {
        assert!(count(&args).expect(2).stderr.contains("cannot be used with"), "{args:?}");
    }
}

#[test]
fn fields_are_columns() {
    let place = Place::with_lines(&LINES);
    let ran = place.run("query", &["-o", "csv", "--fields", "txn,amount,customer.name,ok,items"]).expect(0);
    let lines: Vec<&str> = ran.text().lines().map(|line| line.splitn(4, ',').nth(3).unwrap()).collect();
    let expected = [
        "txn,amount,customer.name,ok,items",
        r#""TXN-1",50,"Asha",,"#,
        ",,,,",
        r#""TXN-2",100.0,,,"#,
        r#""TXN-3",9007199254740993,,true,"#,
        ",,,,",
        r#""'=cmd",-5,,,"[{""price"":1},{""price"":2}]""#,
    ];
    assert_eq!(lines, expected);
    assert_eq!(ran.stderr, "kifa: note: 2 entries are not JSON and without fields\n");

    let args = ["-o", "json", "--where", "txn=TXN-3", "--show-source", "--fields", "amount,note,status,absent"];
    let ran = place.run("query", &args).expect(0);
    let object = r#""source":"stdin","fields":{"amount":9007199254740993,"note":null,"status":"completed"}}"#;
    assert!(ran.text().trim_end().ends_with(object), "{}", ran.text());
    for format in ["text", "hex"] {
        let ran = place.run("query", &["-o", format, "--fields", "txn"]).expect(2);
        assert!(ran.stderr.contains("add --format csv or json"), "{}", ran.stderr);
    }
}

#[test]
fn fields_cannot_drive_the_terminal() {
    let place = Place::new();
    let entry = "{\"a\":{\"x\":\"\u{9b}2J\u{202e}\"},\t\"b\":\"\\u001b[2J\"}\n";
    place.daemon(entry.as_bytes(), &[]).expect(0);
    let ran = place.run("query", &["-o", "json", "--fields", "a,b"]).expect(0);
    assert!(!ran.text().chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{:?}", ran.text());
    assert_eq!(json(ran.text())["fields"]["a"]["x"], "\u{9b}2J\u{202e}");
}

#[test]
fn the_other_commands_take_them_too() {
    let place = Place::with_lines(&LINES);
    let ran = place.run("tail", &["-n", "2", "-o", "json", "--where", "amount>0"]).expect(0);
    assert_eq!((lsns(&ran), ran.stderr.lines().count()), (vec![3, 4], 1));
    assert_eq!(lsns(&place.run("tail", &["-n", "1", "-o", "json", "-g", "TXN"]).expect(0)), [4]);
    let file = place.beside("out.csv");
    let args = ["-o", file.to_str().unwrap(), "--format", "csv", "-g", "TXN", "--fields", "amount"];
    place.run("export", &args).expect(0);
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 4);
    assert_eq!(lsns(&place.run("export", &["-o", "-", "-vg", "TXN"]).expect(0)), [2, 5, 6]);
    let followed = place.run("query", &["-f", "--to-lsn", "5", "-o", "json", "--where", "amount>99"]);
    assert_eq!(lsns(&followed.expect(0)), [3, 4]);
}

#[test]
fn mistakes_are_sentences() {
    let place = Place::with_lines(&LINES);
    let cases: [(&[&str], &str); 8] = [
        (&["-g", "a("], "kifa: the regular expression of --grep cannot be used: unclosed group\n"),
        (&["-g", "(a{1000}){1000}"], "it takes more than 4 MiB of memory"),
        (&["-v"], "--grep <REGEX>"),
        (&["-i"], "--grep <REGEX>"),
        (&["--where", "amount"], "there is nothing behind the field amount; write one of = != < <= > >="),
        (&["--where", "amount>=1_000"], "1_000 is not a number"),
        (&["--where", "ok>true"], "true is neither above nor below anything"),
        (&["--fields", "a,,b"], "where the name of a field should be"),
    ];
    for command in ["query", "tail"] {
        for (args, expected) in &cases {
            let ran = place.run(command, args).expect(2);
            assert!(ran.stderr.starts_with("kifa: ") && ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        }
    }
}
