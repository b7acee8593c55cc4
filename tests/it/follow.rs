//! `tail`, `tail -f` and `query -f`: each entry once, in order, whatever the daemon does meanwhile.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use kifa::{Batch, Log, Options};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{PATIENCE, Place, Ran, wait_until};
use crate::standin::{Daemon, StandIn};

/// A follower, and the lines it prints.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(place: &Place, command: &str, args: &[&str]) -> Follower {
        let mut child = place
            .command(command, args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(()) = send.send(line.unwrap()) else { return };
            }
        });
        Follower { child, lines }
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line comes")
    }

    /// The last word of each of the next lines.
    #[track_caller]
    fn words(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line().rsplit(' ').next().unwrap().to_owned()).collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it by SIGINT; what it printed behind the lines that were taken, and what it said.
    #[track_caller]
    fn end(mut self) -> (Vec<String>, String) {
        self.signal(Signal::INT);
        let code = self.child.wait().unwrap().code();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(code, Some(130), "{stderr}");
        (self.lines.iter().collect(), stderr)
    }
}

fn append(place: &Place, texts: &[&str]) {
    for text in texts {
        place.run("append", &[text]).expect(0);
    }
}

fn data(ran: &Ran) -> Vec<&str> {
    ran.text().lines().map(|line| line.rsplit(' ').next().unwrap()).collect()
}

#[test]
fn tail_shows_the_newest_oldest_of_them_first() {
    let place = Place::with_lines(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]);
    append(&place, &["m"]);
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &["d", "e", "f", "g", "h", "i", "j", "k", "l", "m"]),
        (&["-n", "2"], &["l", "m"]),
        (&["-n", "99"], &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"]),
        (&["--after-lsn", "10"], &["k", "l", "m"]),
        (&["--after-lsn", "10", "-n", "1"], &["m"]),
        (&["-n", "2", "--source", "stdin"], &["k", "l"]),
        (&["-n", "1", "--since", "1h"], &["m"]),
    ];
    for (args, expected) in cases {
        let ran = place.run("tail", args).expect(0);
        assert_eq!((data(&ran), ran.stderr.as_str()), (expected.to_vec(), ""), "{args:?}");
    }
    place.run("tail", &["-n", "0"]).expect(1);
    place.run("tail", &["--after-lsn", "13"]).expect(1);
    let csv = place.run("tail", &["-n", "1", "-o", "csv"]).expect(0);
    assert!(csv.text().starts_with("lsn,timestamp,timestamp_ms,data\n13,"), "{}", csv.text());
    place.run("tail", &["--lines", "x"]).expect(2);
    place.run("query", &["-f", "-r"]).expect(2);
}

#[test]
fn entries_come_as_they_become_durable_with_a_daemon() {
    let place = Place::with_lines(&["a", "b", "c"]);
    let daemon = StandIn::start(&place.store(), Options::default());
    let follower = Follower::start(&place, "tail", &["-f", "-n", "2"]);
    assert_eq!(follower.words(2), ["b", "c"]);
    for number in 0..20 {
        let word = format!("w{number}");
        let begin = Instant::now();
        daemon.log.append(word.as_bytes()).unwrap();
        assert_eq!(follower.words(1), [word]);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    assert_eq!(follower.end(), (vec![], String::new()));
    daemon.stop();
}

#[test]
fn the_daemon_may_be_absent_come_stop_and_come_back() {
    let place = Place::with_lines(&["a"]);
    let follower = Follower::start(&place, "query", &["-f"]);
    assert_eq!(follower.words(1), ["a"]);
    for life in 0..3 {
        let daemon = StandIn::start(&place.store(), Options::default());
        let word = format!("daemon{life}");
        daemon.log.append(word.as_bytes()).unwrap();
        assert_eq!(follower.words(1), [word]);
        daemon.stop();
        append(&place, &["directly"]);
        assert_eq!(follower.words(1), ["directly"]);
        // A writer without a socket.
        let log = Log::open(place.store(), Options::default()).unwrap();
        log.append(b"embedded").unwrap();
        assert_eq!(follower.words(1), ["embedded"]);
        log.close().unwrap();
    }
    assert_eq!(follower.end(), (vec![], String::new()));
}

#[test]
fn a_killed_daemon_and_the_next_one_leave_each_entry_once() {
    use std::io::Write as _;
    let place = Place::with_lines(&["first"]);
    let follower = Follower::start(&place, "tail", &["-f", "-o", "hex"]);
    follower.line();
    let mut sent = 0;
    for _ in 0..10 {
        let mut daemon = place.start(&[]);
        let mut stdin = daemon.stdin.take().unwrap();
        for _ in 0..20 {
            for _ in 0..50 {
                sent += 1;
                let _ = stdin.write_all(format!("{sent:0100}\n").as_bytes());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
    place.daemon(b"last\n", &[]).expect(0);
    let expected = place.run("query", &["-o", "hex", "--after-lsn", "1"]).expect(0);
    let followed: Vec<String> = (0..expected.text().lines().count()).map(|_| follower.line()).collect();
    assert!(followed.iter().map(String::as_str).eq(expected.text().lines()), "each entry once, in order");
    let (rest, _) = follower.end();
    assert_eq!(rest, [""; 0]);
}

#[test]
fn a_daemon_at_full_speed_is_followed_once_in_order() {
    use std::io::Write as _;
    let place = Place::with_lines(&["first"]);
    let mut daemon = Daemon::start(&place, &[]);
    let mut child = place.command("query", &["-f", "-o", "hex"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stdin = daemon.child.stdin.take().unwrap();
    const COUNT: u64 = 200_000;
    let writer = std::thread::spawn(move || {
        let mut input = String::new();
        for number in 2..=COUNT {
            input.push_str(&format!("{number:0150}\n"));
        }
        stdin.write_all(input.as_bytes()).unwrap();
        stdin
    });
    for lsn in 1..=COUNT {
        let line = lines.next().unwrap().unwrap();
        assert_eq!(&line[..16], format!("{lsn:016x}"));
    }
    drop(writer.join().unwrap());
    Ran::from(daemon.child.wait_with_output().unwrap()).expect(0);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(lines.next().is_none());
}

#[test]
fn a_follower_that_falls_behind_goes_on_through_the_tables() {
    let place = Place::with_lines(&["first"]);
    let mut options = Options::default();
    (options.segment_bytes, options.memtable_bytes) = (1 << 20, 256 << 10);
    let daemon = StandIn::start(&place.store(), options);
    // Nobody takes its output until everything is written and has gone to tables.
    let mut command = place.command("query", &["-f", "-o", "hex"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut expected = 1;
    let mut check = |lines: &mut std::io::Lines<BufReader<ChildStdout>>, count: u64| {
        for _ in 0..count {
            let line = lines.next().unwrap().unwrap();
            assert_eq!(&line[..16], format!("{expected:016x}"));
            expected += 1;
        }
    };
    check(&mut lines, 1);
    for _ in 0..3 {
        for _ in 0..100 {
            let mut batch = Batch::new();
            for _ in 0..100 {
                batch.push(&[b'x'; 300]).unwrap();
            }
            daemon.log.submit(&batch).unwrap();
        }
        daemon.log.sync().unwrap();
        check(&mut lines, 10_000);
    }
    daemon.stop();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap()).expect(143);
    assert_eq!(ran.stderr, "");
}

#[test]
fn filters_limits_and_ends_apply_to_what_comes() {
    let place = Place::with_lines(&["a"]);
    let all: Vec<Follower> = [
        &["-f", "--source", "append", "--show-source"][..],
        &["-f", "-n", "2"],
        &["-f", "--to-lsn", "3"],
        &["-f", "--after-lsn", "3", "-o", "json"],
    ]
    .iter()
    .map(|args| Follower::start(&place, "query", args))
    .collect();
    assert_eq!(all[1].words(1), ["a"]);
    append(&place, &["b"]);
    place.daemon(b"c\n", &[]).expect(0);
    append(&place, &["d"]);
    let [append, two, up_to, behind] = <[Follower; 4]>::try_from(all).ok().unwrap();
    assert_eq!(append.words(2), ["b", "d"]);
    assert_eq!(two.words(1), ["b"]);
    assert_eq!(up_to.words(3), ["a", "b", "c"]);
    assert!(behind.line().starts_with("{\"lsn\":4,"));
    for mut done in [two, up_to] {
        assert_eq!(done.child.wait().unwrap().code(), Some(0), "it ends by itself");
        assert!(done.lines.recv().is_err());
    }
    let (rest, stderr) = append.end();
    assert_eq!(rest, [""; 0]);
    assert_eq!(stderr, "kifa: note: no source has a name like \"append\"; known are: \"stdin\"\n");
    assert_eq!(behind.end(), (vec![], String::new()));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly_also_while_nothing_happens() {
    let place = Place::with_lines(&["a"]);
    for with_daemon in [true, false] {
        let daemon = with_daemon.then(|| StandIn::start(&place.store(), Options::default()));
        let mut child = place.command("tail", &["-f"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 2];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        let ran = Ran::from(child.wait_with_output().unwrap()).expect(0);
        assert_eq!(ran.stderr, "");
        if let Some(daemon) = daemon {
            daemon.stop();
        }
    }
}

#[test]
fn a_signal_ends_it_also_while_nobody_takes_its_output() {
    let lines: Vec<String> = (0..20_000).map(|number| format!("a line of some length, number {number}")).collect();
    let place = Place::with_lines(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = place.command("query", &["-f"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 1];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_quiet_follow_uses_no_time() {
    let place = Place::with_lines(&["a"]);
    for with_daemon in [true, false] {
        let daemon = with_daemon.then(|| StandIn::start(&place.store(), Options::default()));
        let follower = Follower::start(&place, "tail", &["-f"]);
        follower.line();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", follower.child.id())).unwrap();
        // Clock ticks in user and system mode, fields 14 and 15: hundredths of a second.
        let ticks = || {
            stat()
                .rsplit(')')
                .next()
                .unwrap()
                .split(' ')
                .skip(12)
                .take(2)
                .map(|t| t.parse::<u64>().unwrap())
                .sum::<u64>()
        };
        let before = ticks();
        std::thread::sleep(Duration::from_secs(3));
        let used = ticks() - before;
        assert!(used <= 6, "{used} ticks in 3 s, with a daemon: {with_daemon}");
        follower.end();
        if let Some(daemon) = daemon {
            daemon.stop();
        }
    }
}

#[test]
fn damage_ends_following_with_2() {
    let place = Place::with_lines(&["the first entry"]);
    place.daemon(b"the second entry\nthe third entry\n", &[]).expect(0);
    for (path, _) in place.snapshot() {
        let Ok(mut bytes) = std::fs::read(&path) else { continue };
        if let Some(at) = bytes.windows(16).position(|window| window == b"the second entry") {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let mut follower = Follower::start(&place, "query", &["-f"]);
    assert!(follower.line().ends_with("the first entry"));
    let mut stderr = String::new();
    follower.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(follower.child.wait().unwrap().code(), Some(2));
    assert!(stderr.contains("LSN 2") && stderr.contains("following ends here"), "{stderr}");
    wait_until("it has ended", || follower.lines.recv().is_err());
}
