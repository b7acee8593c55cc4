//! `kifa daemon --stdin`: framing through the program, refusal, drain on a signal, one writer.

use std::fs;
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Place, Ran, json, make_private_dir, wait_until};

const MIB: usize = 1 << 20;

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn end(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

#[test]
fn lines_are_bytes_with_any_line_end_and_a_last_one_without() {
    let place = Place::new();
    place.daemon(b"\n\r\na\r\n b \n\n\n\x00\xff\xfe\nlast", &[]).expect(0);
    let printed = place.run("query", &["-o", "hex"]).expect(0);
    let data: Vec<&str> = printed.text().lines().map(|line| &line[34..]).collect();
    assert_eq!(data, ["61", "206220", "00fffe", "6c617374"]);
}

#[test]
fn no_input_is_a_store_without_entries() {
    let place = Place::new();
    place.daemon(b"", &[]).expect(0);
    place.run("query", &[]).expect(1);
    assert!(place.run("stats", &[]).expect(0).text().contains("  Time range: none\n"));
}

#[test]
fn a_line_that_is_too_long_is_refused_with_its_place_and_the_rest_goes_on() {
    let place = Place::new();
    let mut input = b"first\n\n".to_vec();
    input.resize(input.len() + MIB, b'x');
    input.extend_from_slice(b"\r\n");
    let offset = input.len();
    input.resize(input.len() + MIB + 1, b'y');
    input.extend_from_slice(b"\nlast\n");
    let ran = place.daemon(&input, &[]).expect(1);
    let place_of_it = format!("line 4 of standard input (from byte {offset} on) is refused");
    assert!(ran.stderr.contains(&place_of_it), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("kifa: 1 line refused, 3 entries stored\n"), "{}", ran.stderr);
    let payloads = place.payloads();
    assert_eq!(payloads.iter().map(String::len).collect::<Vec<_>>(), [5, MIB, 4]);
    assert!(payloads[1].bytes().all(|byte| byte == b'x'));
}

#[test]
fn a_signal_drains_while_the_input_is_idle() {
    for (number, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let place = Place::new();
        let mut daemon = place.start(&[]);
        daemon.stdin.as_mut().unwrap().write_all(b"one\ntwo\nhal").unwrap();
        place.wait_for_entries(2);
        signal(&daemon, number);
        let stdin = daemon.stdin.take();
        let ran = end(daemon).expect(code);
        drop(stdin);
        assert!(ran.stderr.contains("3 bytes of a line whose end had not arrived"), "{}", ran.stderr);
        assert_eq!(place.payloads(), ["one", "two"]);
    }
}

#[test]
fn a_signal_in_the_middle_of_a_flood_stores_every_line_that_was_read() {
    const LINE_BYTES: usize = 101;
    let place = Place::new();
    // The test keeps the reading end, so that what the daemon has not read can be counted behind its end.
    let (mut rest, mut input) = std::io::pipe().unwrap();
    let mut command = place.command("daemon", &["--stdin"]);
    let daemon = command.stdin(rest.try_clone().unwrap()).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let (written, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, stopped) = (Arc::clone(&written), Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        let lines = format!("{:0100}\n", 7).repeat(2000);
        while !stopped.load(Ordering::SeqCst) {
            input.write_all(lines.as_bytes()).unwrap();
            counted.fetch_add(lines.len(), Ordering::SeqCst);
        }
    });
    wait_until("the daemon reads", || written.load(Ordering::SeqCst) > 8 * MIB);
    signal(&daemon, Signal::TERM);
    end(daemon).expect(143);
    stop.store(true, Ordering::SeqCst);
    let left = std::io::copy(&mut rest, &mut std::io::sink()).unwrap() as usize;
    writer.join().unwrap();
    let read = written.load(Ordering::SeqCst) - left;
    let stats = json(place.run("stats", &["-o", "json"]).expect(0).text());
    assert_eq!(stats["entries"].as_u64(), Some((read / LINE_BYTES) as u64));
    let printed = place.run("query", &["-o", "text"]).expect(0);
    assert!(printed.text().lines().all(|line| line.ends_with(&format!(" {:0100}", 7))));
}

#[test]
fn a_line_is_stored_while_the_producer_is_silent() {
    let place = Place::new();
    let mut daemon = place.start(&[]);
    for entries in 1..=3 {
        daemon.stdin.as_mut().unwrap().write_all(b"a line\n").unwrap();
        place.wait_for_entries(entries);
    }
    drop(daemon.stdin.take());
    end(daemon).expect(0);
    assert_eq!(place.payloads().len(), 3);
}

#[test]
fn a_second_writer_is_told_who_holds_the_store_and_changes_nothing() {
    let place = Place::new();
    let mut daemon = place.start(&[]);
    daemon.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    place.wait_for_entries(1);
    let ran = place.daemon(b"two\n", &[]).expect(75);
    let expected = format!("is locked by process {}", daemon.id());
    assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
    drop(daemon.stdin.take());
    end(daemon).expect(0);
    assert_eq!(place.payloads(), ["one"]);
}

#[test]
fn a_directory_of_somebody_else_is_not_made_a_store() {
    let place = Place::new();
    make_private_dir(&place.store());
    fs::write(place.store().join("letter.txt"), "Dear Sir").unwrap();
    let before = place.snapshot();
    let ran = place.daemon(b"one\n", &[]).expect(73);
    assert!(ran.stderr.contains("is not a kifa store"), "{}", ran.stderr);
    assert_eq!(place.snapshot(), before);
    fs::write(place.beside("file"), "").unwrap();
    let under_a_file = place.beside("file/data");
    let ran = crate::program::run(&["daemon", "--stdin", "-d", under_a_file.to_str().unwrap()]);
    assert!(matches!(ran.code, Some(73 | 74)), "{ran:?}");
}

#[test]
fn input_that_cannot_be_read_is_an_error() {
    let place = Place::new();
    let directory = fs::File::open(place.dir()).unwrap();
    let ran = Ran::from(place.command("daemon", &["--stdin"]).stdin(directory).output().unwrap()).expect(74);
    assert!(ran.stderr.contains("kifa: cannot read standard input: "), "{}", ran.stderr);
    place.run("query", &[]).expect(1);
}

#[test]
fn many_lines_arrive_whole_and_in_order() {
    let place = Place::new();
    let mut input = Vec::new();
    for number in 0..200_000 {
        input.extend_from_slice(format!("{number}:{:width$}\n", "", width = number % 300).as_bytes());
    }
    place.daemon(&input, &["--segment-size-mib", "1", "--memtable-threshold-mib", "1"]).expect(0);
    let printed = place.run("query", &["-o", "json"]).expect(0);
    let mut lines = input.split(|&byte| byte == b'\n');
    for (number, line) in printed.text().lines().enumerate() {
        let object = json(line);
        assert_eq!(object["lsn"].as_u64(), Some(number as u64 + 1));
        assert_eq!(object["data"].as_str().map(str::as_bytes), lines.next());
    }
    assert_eq!(lines.next(), Some(&b""[..]), "every line was stored");
}
