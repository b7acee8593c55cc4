//! `kifa append`: through a daemon, without one, and when the daemon goes away in between.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kifa::{FlushMode, Log, Options};

use crate::program::{Place, Ran, feed, json, kifa};
use crate::standin::{Daemon, Server, StandIn};

fn append(place: &Place, args: &[&str]) -> Command {
    place.command("append", args)
}

fn ran(mut command: Command) -> Ran {
    Ran::from(command.output().unwrap())
}

fn normal() -> Options {
    let mut options = Options::default();
    options.flush_mode = FlushMode::Normal;
    options
}

#[test]
fn without_a_daemon_it_makes_the_store_and_goes_on_in_it() {
    let place = Place::new();
    assert_eq!(ran(append(&place, &["one"])).expect(0).text(), "1\n");
    assert_eq!(ran(append(&place, &["two words"])).expect(0).text(), "2\n");
    let two = feed(&mut append(&place, &["-"]), b"three\r\n\n\x00\xff\nlast").expect(0);
    assert_eq!((two.text(), two.stderr.as_str()), ("3\n4\n5\n", ""));
    let shown = place.run("query", &["-o", "json", "--show-source"]).expect(0);
    let entries: Vec<_> = shown.text().lines().map(json).collect();
    assert!(entries.iter().all(|entry| entry["source"] == "append"), "{entries:?}");
    assert_eq!((entries[1]["data"].as_str(), entries[3]["data"].as_str()), (Some("two words"), Some("AP8=")));
    assert!(place.run("stats", &[]).expect(0).text().contains("Flush mode: Cautious"));
}

#[test]
fn what_it_does_not_store_it_says() {
    let place = Place::new();
    let refused = ran(append(&place, &[""])).expect(64);
    assert!(refused.stderr.contains("empty"), "{}", refused.stderr);
    ran(append(&place, &[])).expect(64);
    ran(kifa(&["append", "text"])).expect(64);
    assert!(!place.store().exists(), "a mistake creates nothing");
    assert_eq!(feed(&mut append(&place, &["-"]), b"").expect(0).text(), "");

    let mut input = b"a\n".to_vec();
    input.resize(input.len() + (1 << 20) + 1, b'x');
    input.extend_from_slice(b"\nb\n");
    let ran = feed(&mut append(&place, &["-"]), &input).expect(1);
    assert_eq!(ran.text(), "1\n2\n");
    assert!(ran.stderr.contains("line 2 of standard input (from byte 2 on) is refused"), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("kifa: 1 refused; 2 entries are durable, the last as LSN 2\n"), "{}", ran.stderr);

    let foreign = Place::new();
    std::fs::create_dir(foreign.store()).unwrap();
    std::fs::write(foreign.store().join("letter.txt"), "Dear Sir").unwrap();
    let refused = self::ran(append(&foreign, &["x"])).expect(73);
    assert!(refused.stderr.contains("is not a kifa store"), "{}", refused.stderr);
}

#[cfg(unix)]
#[test]
fn text_may_be_any_bytes_and_begin_with_a_dash() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::new();
    let mut command = append(&place, &["--"]);
    ran_with(command.arg(std::ffi::OsStr::from_bytes(b"-3\n\xff"))).expect(0);
    assert!(place.run("query", &["-o", "hex"]).expect(0).text().ends_with(" 2d330aff\n"));
}

fn ran_with(command: &mut Command) -> Ran {
    Ran::from(command.output().unwrap())
}

#[test]
fn beside_a_daemon_it_goes_through_it_and_a_query_shows_it_at_once() {
    for options in [Options::default(), normal()] {
        let place = Place::new();
        let daemon = StandIn::start(&place.store(), options);
        for number in 1..=20u64 {
            let text = format!("entry {number}");
            assert_eq!(ran(append(&place, &[&text])).expect(0).text(), format!("{number}\n"));
            assert!(daemon.log.durable_lsn().0 >= number, "it is durable when it is printed");
            assert_eq!(place.payloads().len() as u64, number, "a reader sees it at once");
        }
        let socket = place.store().join("kifa.sock");
        let through = kifa(&["append", "--socket", socket.to_str().unwrap(), "by socket"]);
        assert_eq!(ran(through).expect(0).text(), "21\n");
        daemon.stop();
        assert_eq!(place.payloads().len(), 21);
    }
}

#[test]
fn a_query_shows_it_at_once_beside_the_daemon_in_every_mode() {
    for mode in ["normal", "cautious", "emergency"] {
        let place = Place::new();
        let daemon = Daemon::start(&place, &["--flush-mode", mode]);
        for number in 1..=20usize {
            assert_eq!(ran(append(&place, &["an entry"])).expect(0).text(), format!("{number}\n"));
            assert_eq!(place.payloads().len(), number, "{mode}");
        }
        let shown = place.run("query", &["--source", "append", "-n", "1", "--show-source"]).expect(0);
        assert!(shown.text().ends_with(" append an entry\n"), "{}", shown.text());
        daemon.stop();
        assert_eq!(place.payloads().len(), 20);
    }
}

#[test]
fn a_stream_is_pipelined_in_order_in_every_mode() {
    let lines: Vec<String> = (1..=20_000).map(|number| format!("line {number} {}", "x".repeat(number % 200))).collect();
    let input = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let lsns: String = (1..=20_000).map(|lsn| format!("{lsn}\n")).collect();
    for options in [Options::default(), normal()] {
        let place = Place::new();
        let daemon = StandIn::start(&place.store(), options);
        let ran = feed(&mut append(&place, &["-"]), input.as_bytes()).expect(0);
        assert!(ran.text() == lsns, "each LSN once, in order");
        assert!(daemon.log.durable_lsn().0 >= 20_000);
        daemon.stop();
        assert!(place.payloads() == lines);
    }
    for mode in ["normal", "cautious"] {
        let place = Place::new();
        let daemon = Daemon::start(&place, &["--flush-mode", mode]);
        assert!(
            feed(&mut append(&place, &["-"]), input.as_bytes()).expect(0).text() == lsns,
            "{mode}, the daemon itself"
        );
        daemon.stop();
        assert!(place.payloads() == lines);
    }
    let place = Place::new();
    assert!(feed(&mut append(&place, &["-"]), input.as_bytes()).expect(0).text() == lsns, "directly");
    assert!(place.payloads() == lines);
}

#[test]
fn a_slow_producer_is_told_each_lsn_while_the_input_is_open() {
    for with_daemon in [true, false] {
        let place = Place::new();
        let daemon = with_daemon.then(|| StandIn::start(&place.store(), Options::default()));
        let mut command = append(&place, &["-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut stdin = child.stdin.take().unwrap();
        for number in 1..=3 {
            stdin.write_all(b"a line\n").unwrap();
            let mut answer = String::new();
            answers.read_line(&mut answer).unwrap();
            assert_eq!(answer, format!("{number}\n"));
        }
        drop(stdin);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        if let Some(daemon) = daemon {
            daemon.stop();
        }
    }
}

#[test]
fn an_output_that_nobody_reads_does_not_keep_entries_from_being_stored() {
    let place = Place::new();
    let mut command = append(&place, &["-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..2000 {
        stdin.write_all(b"a line\n").unwrap();
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.payloads().len(), 2000);
}

#[test]
fn a_daemon_that_is_just_starting_or_stopping_costs_time_and_no_entry() {
    let place = Place::new();
    ran(append(&place, &["first"])).expect(0);
    // A writer without a socket: a daemon in recovery.
    let log = Log::open(place.store(), Options::default()).unwrap();
    let waiting = append(&place, &["second"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(150));
    log.close().unwrap();
    let daemon = StandIn::start(&place.store(), Options::default());
    Ran::from(waiting.wait_with_output().unwrap()).expect(0);
    daemon.stop();
    assert_eq!(place.payloads(), ["first", "second"]);

    let log = Log::open(place.store(), Options::default()).unwrap();
    let begin = Instant::now();
    let locked = ran(append(&place, &["--wait", "1", "third"])).expect(75);
    assert!(locked.stderr.contains("is locked by") && begin.elapsed() >= Duration::from_secs(1), "{locked:?}");
    log.close().unwrap();
    let absent = ran(kifa(&["append", "--wait", "0", "--socket", "/absent/kifa.sock", "x"])).expect(69);
    assert!(absent.stderr.contains("no daemon is running"), "{}", absent.stderr);
}

#[test]
fn appends_while_daemons_come_and_go_are_stored_once_each() {
    let place = Place::new();
    ran(append(&place, &["0"])).expect(0);
    let store = place.store();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let restarts = std::thread::spawn(move || {
        let mut lives = 0;
        while stopped.try_recv().is_err() {
            let mut daemon = kifa(&["daemon", "--stdin", "-d", store.to_str().unwrap()])
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(60));
            drop(daemon.stdin.take());
            // One that found an append at the lock gave up after two seconds.
            assert!(matches!(daemon.wait().unwrap().code(), Some(0 | 75)));
            lives += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        lives
    });
    let mut stored = vec!["0".to_owned()];
    for number in 1..=150 {
        let ran = ran(append(&place, &[&number.to_string()]));
        match ran.code {
            Some(0) => stored.push(number.to_string()),
            // It was on its way when the daemon ended: stored or not, at most once.
            Some(76) => {}
            _ => panic!("{ran:?}"),
        }
    }
    stop.send(()).unwrap();
    assert!(restarts.join().unwrap() > 3);
    let found = place.payloads();
    let unique: std::collections::BTreeSet<_> = found.iter().collect();
    assert_eq!(unique.len(), found.len(), "each at most once");
    assert!(stored.iter().all(|entry| unique.contains(entry)), "what was confirmed is there");
}

/// Reads a line and, of an APPEND, the payload.
fn request(reader: &mut impl std::io::BufRead) -> Option<String> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    if let Some(bytes) = line.trim().strip_prefix("APPEND ") {
        let mut payload = vec![0; bytes.parse().unwrap()];
        reader.read_exact(&mut payload).ok()?;
    }
    Some(line)
}

#[test]
fn a_connection_that_breaks_behind_the_entry_leaves_it_in_doubt_and_it_is_not_sent_again() {
    let place = Place::new();
    ran(append(&place, &["first"])).expect(0);
    let appends = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&appends);
    let server = Server::start(&place.store(), move |stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(line) = request(&mut reader) {
            if line.starts_with("APPEND") {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                return;
            }
            (&stream).write_all(b"OK 1\n").unwrap();
        }
    });
    let ran = ran(append(&place, &["second"])).expect(76);
    assert!(ran.stderr.contains("whether 1 more is stored is not known"), "{}", ran.stderr);
    assert_eq!(appends.load(std::sync::atomic::Ordering::SeqCst), 1);
    drop(server);
    assert_eq!(place.payloads(), ["first"]);
}

#[test]
fn what_was_settled_before_the_break_is_told_apart_from_what_is_in_doubt() {
    let place = Place::new();
    ran(append(&place, &["first"])).expect(0);
    // Answers two entries and the question behind them, and reads on without an answer until the second piece came.
    let server = Server::start(&place.store(), move |stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut lsn = 1;
        while let Some(line) = request(&mut reader) {
            if line.starts_with("APPEND") && lsn == 3 {
                return;
            }
            lsn += u64::from(line.starts_with("APPEND"));
            (&stream).write_all(format!("OK {lsn}\n").as_bytes()).unwrap();
        }
    });
    let mut child =
        append(&place, &["-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a\nb\n").unwrap();
    let mut two = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut two).unwrap();
    assert_eq!(&two, b"2\n3\n");
    stdin.write_all(b"c\nd\n").unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap()).expect(76);
    let expected = "2 entries are durable, the last as LSN 3, whether 2 more are stored is not known: look behind that with \
                    kifa query --after-lsn 3";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    drop(server);
}

#[test]
fn a_daemon_that_breaks_before_its_first_word_was_sent_nothing() {
    let place = Place::new();
    ran(append(&place, &["first"])).expect(0);
    let server = Server::start(&place.store(), drop);
    let waiting = append(&place, &["second"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(150));
    drop(server);
    assert_eq!(Ran::from(waiting.wait_with_output().unwrap()).expect(0).text(), "2\n");
    assert_eq!(place.payloads(), ["first", "second"]);
}

#[test]
fn a_refusal_is_told_and_the_rest_goes_on_but_a_failing_log_leaves_doubt() {
    let answers = |code: &'static str| {
        move |stream: std::os::unix::net::UnixStream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lsn = 1;
            while let Some(line) = request(&mut reader) {
                let answer = match line.starts_with("APPEND") {
                    true if lsn == 2 => {
                        lsn += 1;
                        format!("ERR {code} \x1b[2Jno\n")
                    }
                    is_append => {
                        lsn += u64::from(is_append);
                        format!("OK {lsn}\n")
                    }
                };
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
        }
    };
    let place = Place::new();
    std::fs::create_dir(place.store()).unwrap();
    let _full = Server::start(&place.store(), answers("full"));
    let ran = feed(&mut append(&place, &["-"]), b"a\nb\nc\n").expect(71);
    assert_eq!(ran.text(), "2\n4\n");
    assert!(ran.stderr.contains("entry 2 is refused") && !ran.stderr.contains('\x1b'), "{}", ran.stderr);

    let place = Place::new();
    std::fs::create_dir(place.store()).unwrap();
    let _stopped = Server::start(&place.store(), answers("stopped"));
    let ran = feed(&mut append(&place, &["-"]), b"a\nb\nc\n").expect(76);
    assert!(ran.stderr.contains("whether 3 more are stored is not known"), "{}", ran.stderr);
}
