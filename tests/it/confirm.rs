//! `kifa daemon --stdin --confirm`: an application runs the daemon as a co-process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Place, Ran, feed, wait_until};

const MIB: usize = 1 << 20;

fn ok(lsns: std::ops::RangeInclusive<u64>) -> String {
    lsns.map(|lsn| format!("OK {lsn}\n")).collect()
}

#[test]
fn every_entry_is_answered_in_its_place_and_a_refusal_in_its() {
    let place = Place::new();
    let mut input = b"one\n\n\r\ntwo\r\n".to_vec();
    input.resize(input.len() + MIB + 1, b'x');
    input.extend_from_slice(b"\nthree\nlast");
    let ran: Ran = feed(place.command("daemon", &["--stdin", "--confirm"]).args(["--flush-mode", "normal"]), &input);
    let ran = ran.expect(1);
    assert_eq!(ran.text(), "OK 1\nOK 2\nERR too-large the line is longer than 1048576 bytes\nOK 3\nOK 4\n");
    assert_eq!(place.payloads(), ["one", "two", "three", "last"]);
}

#[test]
fn a_conversation_of_single_lines() {
    let place = Place::new();
    let mut daemon = place.start(&["--confirm"]);
    let mut answers = BufReader::new(daemon.stdout.take().unwrap());
    let mut stdin = daemon.stdin.take().unwrap();
    for lsn in 1..=200 {
        stdin.write_all(b"an entry\n").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, format!("OK {lsn}\n"));
    }
    drop(stdin);
    let ran = Ran::from(daemon.wait_with_output().unwrap()).expect(0);
    assert!(ran.stderr.contains("200 entries stored"), "{}", ran.stderr);
}

#[test]
fn many_lines_are_answered_each_once() {
    let place = Place::new();
    let input = b"x\n".repeat(300_000);
    let ran: Ran = feed(&mut place.command("daemon", &["--stdin", "--confirm"]), &input);
    assert!(ran.expect(0).text() == ok(1..=300_000));
}

#[test]
fn answers_that_are_not_read_hold_the_input_back_and_do_not_keep_a_stopped_daemon() {
    let place = Place::new();
    let mut daemon = place.start(&["--confirm"]);
    let mut stdin = daemon.stdin.take().unwrap();
    rustix::io::ioctl_fionbio(&stdin, true).unwrap();
    let lines = b"x\n".repeat(32 << 10);
    let (mut written, mut silent_since) = (0, Instant::now());
    while silent_since.elapsed() < Duration::from_secs(1) {
        match stdin.write(&lines) {
            Ok(bytes) => (written, silent_since) = (written + bytes, Instant::now()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        assert!(written < 64 * MIB, "nothing holds it back");
    }
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    let mut stdout = daemon.stdout.take().unwrap();
    let code = daemon.wait().unwrap().code();
    assert_eq!(code, Some(143));
    let mut answers = String::new();
    stdout.read_to_string(&mut answers).unwrap();
    // The last answer may be cut: nobody took it.
    let whole = answers.rfind('\n').map_or("", |end| &answers[..=end]);
    let count = whole.lines().count() as u64;
    assert!(count > 1000 && whole == ok(1..=count));
    let stats = crate::program::json(place.run("stats", &["-o", "json"]).expect(0).text());
    assert!(stats["entries"].as_u64().unwrap() >= count);
}

#[test]
fn a_reader_that_is_gone_ends_the_daemon_and_what_was_accepted_is_stored() {
    let place = Place::new();
    let mut daemon = place.start(&["--confirm"]);
    let mut stdin = daemon.stdin.take().unwrap();
    let mut answers = BufReader::new(daemon.stdout.take().unwrap());
    stdin.write_all(b"one\ntwo\n").unwrap();
    let mut answer = String::new();
    answers.read_line(&mut answer).unwrap();
    answers.read_line(&mut answer).unwrap();
    drop(answers);
    // It ends although its input is open and idle.
    wait_until("it has ended", || daemon.try_wait().unwrap().is_some());
    drop(stdin);
    let ran = Ran::from(daemon.wait_with_output().unwrap()).expect(0);
    assert!(ran.stderr.contains("standard output is closed"), "{}", ran.stderr);
    assert_eq!(place.payloads(), ["one", "two"]);
}
