//! Signals, reloads and endings of `kifa daemon`, seen from outside.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{PATIENCE, Place, Ran, json, make_private_dir};

/// A daemon whose log lines can be waited for.
pub(crate) struct Daemon {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command) -> Daemon {
        Daemon::start_with_its_stdin(command.stdin(Stdio::piped()))
    }

    /// Where the command has a standard input of its own.
    pub(crate) fn start_with_its_stdin(command: &mut Command) -> Daemon {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let stdin = child.stdin.take();
        Daemon { child, stdin, lines, seen: Vec::new() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("it is open").write_all(bytes).unwrap();
    }

    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("it is open")
    }

    pub(crate) fn close_stdin(&mut self) {
        drop(self.stdin.take());
    }

    /// Waits for the next line of the log that has this in it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(what) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("waited in vain for \"{what}\"; the log:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// Waits for the end; the whole log is in `stderr`.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ran {
        let mut seen = std::mem::take(&mut self.seen);
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("waited in vain for the end; the log:\n{}", seen.join("\n")),
            }
        }
        let code = self.child.wait().unwrap().code();
        Ran { code, stdout: Vec::new(), stderr: seen.join("\n") }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(place: &Place, args: &[&str]) -> Daemon {
    let mut daemon = Daemon::start(&mut place.command("daemon", args));
    daemon.wait_for("is open");
    daemon
}

fn flush_mode(place: &Place) -> String {
    let stats = place.run("stats", &["-o", "json"]).expect(0);
    json(stats.text())["flush_mode"].as_str().unwrap().to_owned()
}

#[test]
fn sigusr1_goes_to_the_next_stricter_mode_and_sigusr2_back() {
    let place = Place::new();
    let mut daemon = start(&place, &["--stdin", "--flush-mode", "normal"]);
    daemon.signal(Signal::USR1);
    daemon.wait_for("flush mode normal → cautious (SIGUSR1)");
    daemon.write(b"one\n");
    place.wait_for_entries(1);
    daemon.signal(Signal::USR1);
    daemon.wait_for("flush mode cautious → emergency (SIGUSR1)");
    daemon.signal(Signal::USR1);
    daemon.wait_for("flush mode stays emergency (SIGUSR1)");
    daemon.signal(Signal::USR2);
    daemon.wait_for("flush mode emergency → normal (SIGUSR2)");
    daemon.write(b"two\n");
    place.wait_for_entries(2);
    assert_eq!(flush_mode(&place), "normal");
    daemon.close_stdin();
    daemon.end().expect(0);
    assert_eq!(place.payloads(), ["one", "two"]);
}

/// Each request is a step of its own, also while the log is busy, and those that came before the end are carried out.
#[test]
fn changes_of_the_mode_under_load_lose_no_entry_and_no_request() {
    let place = Place::new();
    let mut daemon = start(&place, &["--stdin", "--flush-mode", "normal", "--segment-size-mib", "1"]);
    let mut stdin = daemon.stdin.take().unwrap();
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
    let writer = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            let number = count.load(Ordering::SeqCst);
            let lines: String = (number..number + 500).map(|number| format!("{number}\n")).collect();
            stdin.write_all(lines.as_bytes()).unwrap();
            count.fetch_add(500, Ordering::SeqCst);
        }
        stdin
    });
    for _ in 0..20 {
        daemon.signal(Signal::USR1);
        daemon.wait_for("normal → cautious");
        daemon.signal(Signal::USR1);
        daemon.wait_for("cautious → emergency");
        daemon.signal(Signal::USR2);
        daemon.wait_for("emergency → normal");
    }
    stop.store(true, Ordering::SeqCst);
    let stdin = writer.join().unwrap();
    place.wait_for_entries(written.load(Ordering::SeqCst) as usize);
    daemon.signal(Signal::USR1);
    daemon.signal(Signal::TERM);
    let ran = daemon.end().expect(143);
    drop(stdin);
    assert_eq!(ran.stderr.matches("normal → cautious (SIGUSR1)").count(), 21, "{}", ran.stderr);
    let payloads = place.payloads();
    assert_eq!(payloads.len() as u64, written.load(Ordering::SeqCst));
    assert!(payloads.iter().enumerate().all(|(number, line)| *line == number.to_string()));
}

#[test]
fn sighup_puts_what_it_can_into_effect_and_names_the_rest() {
    let place = Place::new();
    make_private_dir(&place.store());
    let file = place.store().join("kifa.toml");
    let write = |text: &str| fs::write(&file, format!("[sources]\nstdin = true\n{text}")).unwrap();
    write("[wal]\nflush_mode = \"normal\"\n");
    let mut daemon = start(&place, &[]);

    daemon.signal(Signal::HUP);
    daemon.wait_for("the configuration was read again: nothing has changed");

    write(
        "[wal]\nflush_mode = \"emergency\"\nsegment_size_mib = 2\n[ingester]\nidle_timeout = \"10s\"\nclients_max = 7\n",
    );
    daemon.signal(Signal::HUP);
    let line = daemon.wait_for("wal.flush_mode");
    let expected = format!("wal.flush_mode: normal → emergency, from {} line 4", file.display());
    assert!(line.ends_with(&expected), "{line}");
    assert!(daemon.wait_for("wal.segment_size_mib: 16 → 2, from ").ends_with("; that needs a restart"));
    assert!(daemon.wait_for("ingester.idle_timeout: 24h → 10s, from ").ends_with("kifa.toml line 7"));
    assert!(daemon.wait_for("ingester.clients_max: 1024 → 7, from ").ends_with("; that needs a restart"));
    daemon.wait_for("flush mode normal → emergency (the configuration was read again)");

    // What needs a restart is named until there was one; what is in force is not named again.
    daemon.signal(Signal::HUP);
    assert!(daemon.wait_for("was read again: ").contains("wal.segment_size_mib"));
    daemon.wait_for("ingester.clients_max");

    for (wrong, what) in [
        ("[wal]\nflush_mode = \"norml\"\n", "line 4: wal.flush_mode is \"norml\"; it must be one of"),
        ("[wal]\nsegment_size_mib = 4\n[ingester]\nidle = 3\n", "unknown key \"ingester.idle\""),
        ("[wal", "line 3: not valid TOML"),
    ] {
        write(wrong);
        daemon.signal(Signal::HUP);
        let line = daemon.wait_for("the configuration stays as it was: ");
        assert!(line.contains(what), "{line}");
    }

    // The configured mode is the one of the last good file.
    daemon.signal(Signal::USR2);
    daemon.wait_for("flush mode stays emergency (SIGUSR2)");
    daemon.write(b"one\n");
    place.wait_for_entries(1);
    assert_eq!(flush_mode(&place), "emergency");
    daemon.close_stdin();
    daemon.end().expect(0);
}

#[test]
fn a_flag_still_wins_when_the_file_is_read_again() {
    let place = Place::new();
    make_private_dir(&place.store());
    let mut daemon = start(&place, &["--stdin", "--flush-mode", "normal"]);
    fs::write(place.store().join("kifa.toml"), "[wal]\nflush_mode = \"emergency\"\n").unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for("the configuration was read again: nothing has changed");
    daemon.close_stdin();
    let ran = daemon.end().expect(0);
    assert!(!ran.stderr.contains('→'), "{}", ran.stderr);
}

#[test]
fn no_signal_with_a_meaning_ends_a_busy_daemon() {
    let place = Place::new();
    let input = format!("{:0200}\n", 7).repeat(100_000);
    let mut daemon = start(&place, &["--stdin"]);
    let mut stdin = daemon.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        stdin.write_all(input.as_bytes()).unwrap();
        stdin
    });
    for _ in 0..200 {
        for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
            daemon.signal(signal);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(writer.join().unwrap());
    daemon.end().expect(0);
    let stats = json(place.run("stats", &["-o", "json"]).expect(0).text());
    assert_eq!(stats["entries"].as_u64(), Some(100_000));
}

#[test]
fn the_end_tells_what_became_of_each_source() {
    let place = Place::new();
    let mut input = b"one\ntwo\n".to_vec();
    input.resize(input.len() + (1 << 20) + 1, b'x');
    let ran = place.daemon(&input, &[]).expect(1);
    assert!(ran.stderr.contains("end of input: 2 entries stored"), "{}", ran.stderr);
    assert!(ran.stderr.contains("stdin: 2 stored, 1 refused"), "{}", ran.stderr);
}

/// A daemon with nothing to do learns of a signal from the signal, not from looking now and then.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_daemon_sleeps() {
    let place = Place::new();
    let mut daemon = start(&place, &["--stdin"]);
    daemon.write(b"one\n");
    place.wait_for_entries(1);
    let switches = || -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
        let count = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        tasks.map(|task| count(task.unwrap())).sum()
    };
    // In hundredths of a second; the name in front of the numbers has no space in it.
    let cpu = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.id())).unwrap();
        stat.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    // The watermark of the idle log is written after a second.
    std::thread::sleep(Duration::from_millis(1500));
    let before = (switches(), cpu());
    std::thread::sleep(Duration::from_secs(2));
    let (woken, busy) = (switches() - before.0, cpu() - before.1);
    assert!(woken <= 10, "{woken} wake-ups of an idle daemon in two seconds");
    assert!(busy <= 5, "{busy}0 ms of work of an idle daemon in two seconds");
    let began = Instant::now();
    daemon.signal(Signal::TERM);
    let ran = daemon.end().expect(143);
    assert!(ran.stderr.contains("stopped by SIGTERM"), "{}", ran.stderr);
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Nobody submits anything: the failure is met by a change of the mode, and no source runs into it.
#[cfg(target_os = "linux")]
#[test]
fn a_failure_of_an_idle_log_ends_the_daemon_at_once() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let place = Place::new();
    let mut daemon = Daemon::start(&mut place.command("daemon", &["--stdin"]));
    daemon.wait_for("is open");
    daemon.write(b"one\n");
    place.wait_for_entries(1);
    let limit = Rlimit { current: Some(0), maximum: Some(0) };
    prlimit(Some(Pid::from_child(&daemon.child)), Resource::Fsize, limit).unwrap();
    let began = Instant::now();
    daemon.signal(Signal::USR1);
    let ran = daemon.end().expect(74);
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    assert!(ran.stderr.contains("kifa: the log stopped after a failure"), "{}", ran.stderr);
    assert_eq!(place.payloads(), ["one"]);
    place.daemon(b"two\n", &[]).expect(0);
    assert_eq!(place.payloads(), ["one", "two"]);
}

#[test]
fn the_end_of_one_source_leaves_the_others_running() {
    let place = Place::new();
    let socket = place.beside("till.sock");
    let mut daemon = start(&place, &["--stdin", "--unix", socket.to_str().unwrap()]);
    daemon.write(b"one\n");
    daemon.close_stdin();
    daemon.wait_for("standard input has ended");
    std::os::unix::net::UnixStream::connect(&socket).unwrap().write_all(b"two\n").unwrap();
    place.wait_for_entries(2);
    daemon.signal(Signal::INT);
    let ran = daemon.end().expect(130);
    assert!(ran.stderr.contains("stopped by SIGINT: 2 entries stored"), "{}", ran.stderr);
    assert!(ran.stderr.contains("stdin: 1 stored"), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("unix:{}: 1 stored", socket.display())), "{}", ran.stderr);
    assert_eq!(place.payloads(), ["one", "two"]);
}
