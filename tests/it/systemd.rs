//! Talking to a service manager: a socket of the test's own stands in for systemd's. And the files in `systemd/`.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::path::PathBuf;
#[cfg(target_os = "linux")]
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lifecycle::Daemon;
use crate::program::{PATIENCE, Place, make_private_dir};
#[cfg(target_os = "linux")]
use crate::volume::Volume;

/// Where `READY=1` and its like arrive.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn at(path: &Path) -> Manager {
        Manager { socket: UnixDatagram::bind(path).unwrap() }
    }

    /// The next message, if one comes within this time.
    fn next(&self, patience: Duration) -> Option<String> {
        let mut bytes = [0; 4096];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let len = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..len].to_vec()).unwrap())
    }

    /// Waits for a message with this line; what came before it is skipped.
    #[track_caller]
    fn wait_for(&self, line: &str) -> String {
        let mut seen = Vec::new();
        let end = Instant::now() + PATIENCE;
        while let Some(message) = self.next(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
        {
            if message.lines().any(|found| found == line) {
                return message;
            }
            seen.push(message);
        }
        panic!("waited in vain for {line}: {seen:?}");
    }

    /// Number of times the watchdog is fed within this time.
    fn feeds(&self, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut count = 0;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            count += usize::from(self.next(left).is_some_and(|message| message == "WATCHDOG=1"));
        }
        count
    }
}

#[test]
fn a_service_manager_is_told_of_every_step() {
    let place = Place::new();
    make_private_dir(&place.store());
    let file = place.store().join("kifa.toml");
    fs::write(&file, "[sources]\nstdin = true\n").unwrap();
    let manager = Manager::at(&place.beside("notify"));
    let mut daemon = Daemon::start(place.command("daemon", &[]).env("NOTIFY_SOCKET", place.beside("notify")));
    assert_eq!(manager.next(PATIENCE).unwrap(), "STATUS=Opening the store");
    assert_eq!(manager.next(PATIENCE).unwrap(), "READY=1\nSTATUS=Reading from 1 source, flush mode cautious");

    let reload = || {
        daemon.signal(Signal::HUP);
        let message = manager.wait_for("RELOADING=1");
        let began =
            message.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap().parse::<u64>().unwrap();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_us = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000;
        assert!(began <= now_us && now_us - began < 60_000_000, "{message}");
        manager.wait_for("READY=1")
    };
    fs::write(&file, "[sources]\nstdin = true\n[wal]\nflush_mode = \"emergency\"\n").unwrap();
    let ready = reload();
    assert!(ready.ends_with("flush mode emergency"), "ready is said when the mode is in force: {ready}");
    fs::write(&file, "[sources]\nstdin = 7\n").unwrap();
    let failed = reload();
    assert!(failed.contains("; the last reload failed: ") && failed.contains("sources.stdin"), "{failed}");
    fs::write(&file, "[sources]\nstdin = true\n[wal]\nflush_mode = \"emergency\"\n").unwrap();
    assert!(reload().ends_with("flush mode emergency"));

    daemon.signal(Signal::USR2);
    manager.wait_for("STATUS=Reading from 1 source, flush mode emergency");
    daemon.write(b"one\n");
    place.wait_for_entries(1);
    daemon.signal(Signal::TERM);
    let stopping = manager.wait_for("STOPPING=1");
    assert!(stopping.contains("STATUS=Stopping"), "{stopping}");
    daemon.end().expect(143);
    assert_eq!(manager.next(Duration::from_millis(1)), None, "nobody asked for a watchdog");
}

#[cfg(target_os = "linux")]
#[test]
fn the_socket_may_have_an_abstract_name() {
    use std::os::linux::net::SocketAddrExt as _;
    let place = Place::new();
    let name = format!("kifa-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager { socket: UnixDatagram::bind_addr(&address).unwrap() };
    let mut daemon = Daemon::start(place.command("daemon", &["--stdin"]).env("NOTIFY_SOCKET", format!("@{name}")));
    manager.wait_for("READY=1");
    daemon.close_stdin();
    daemon.end().expect(0);
}

#[test]
fn a_service_manager_that_cannot_be_reached_or_does_not_listen_holds_nothing_up() {
    for socket in ["/absent/notify", "vsock:2:1234", "nonsense"] {
        let place = Place::new();
        let mut daemon = Daemon::start(place.command("daemon", &["--stdin"]).env("NOTIFY_SOCKET", socket));
        daemon.wait_for("is open");
        daemon.write(b"one\n");
        daemon.close_stdin();
        let ran = daemon.end().expect(0);
        assert_eq!(ran.stderr.contains("NOTIFY_SOCKET"), !socket.starts_with('/'), "{}", ran.stderr);
    }
    // Nobody takes these messages in; the socket is full after a few dozen.
    let place = Place::new();
    let _manager = Manager::at(&place.beside("notify"));
    let mut command = place.command("daemon", &["--stdin"]);
    command.env("NOTIFY_SOCKET", place.beside("notify")).env("WATCHDOG_USEC", "4000");
    let mut daemon = Daemon::start(&mut command);
    daemon.wait_for("is open");
    std::thread::sleep(Duration::from_millis(1000));
    daemon.write(b"one\n");
    place.wait_for_entries(1);
    daemon.close_stdin();
    daemon.end().expect(0);
}

#[test]
fn the_watchdog_is_fed_while_the_log_is_idle_and_while_it_is_busy() {
    let place = Place::new();
    let manager = Manager::at(&place.beside("notify"));
    let mut command = place.command("daemon", &["--stdin", "--segment-size-mib", "1"]);
    let mut daemon = Daemon::start(command.env("NOTIFY_SOCKET", place.beside("notify")).env("WATCHDOG_USEC", "400000"));
    manager.wait_for("READY=1");
    // A feed for each quarter of the interval; half of them are enough to live.
    let idle = manager.feeds(Duration::from_secs(2));
    assert!((10..=21).contains(&idle), "{idle} feeds in two seconds of idleness");
    let line = format!("{:0500}\n", 7);
    let end = Instant::now() + Duration::from_secs(2);
    let lines = line.repeat(200);
    while Instant::now() < end {
        daemon.write(lines.as_bytes());
    }
    let busy = manager.feeds(Duration::from_millis(1));
    let mut count = busy;
    while let Some(message) = manager.next(Duration::from_millis(1)) {
        count += usize::from(message == "WATCHDOG=1");
    }
    assert!(count >= 8, "{count} feeds in two seconds of load");
    daemon.close_stdin();
    daemon.end().expect(0);
}

#[test]
fn the_watchdog_of_another_process_is_not_ours() {
    let place = Place::new();
    let manager = Manager::at(&place.beside("notify"));
    let mut command = place.command("daemon", &["--stdin"]);
    command.env("NOTIFY_SOCKET", place.beside("notify")).env("WATCHDOG_USEC", "40000").env("WATCHDOG_PID", "1");
    let mut daemon = Daemon::start(&mut command);
    manager.wait_for("READY=1");
    assert_eq!(manager.feeds(Duration::from_millis(300)), 0);
    daemon.close_stdin();
    daemon.end().expect(0);
}

/// A daemon on the volume with a watchdog of 400 ms, ready.
#[cfg(target_os = "linux")]
fn on_volume(place: &Place, volume: &Volume, manager: &Manager) -> Daemon {
    let store = volume.mountpoint.join("data");
    let mut command = crate::program::kifa(&["daemon", "--stdin", "-d", store.to_str().unwrap()]);
    command.args(["--segment-size-mib", "1", "--memtable-threshold-mib", "1"]);
    command.env("NOTIFY_SOCKET", place.beside("notify")).env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::start(&mut command);
    manager.wait_for("READY=1");
    daemon
}

#[cfg(target_os = "linux")]
#[test]
fn the_watchdog_is_not_fed_while_the_log_cannot_commit() {
    let place = Place::new();
    let Some(volume) = Volume::new(&place) else { return };
    let manager = Manager::at(&place.beside("notify"));
    let mut daemon = on_volume(&place, &volume, &manager);
    daemon.write(b"one\n");
    assert!(manager.feeds(Duration::from_secs(1)) >= 5);
    // A device that does not come back: every write waits.
    volume.freeze("-f");
    daemon.write(b"two\n");
    // At most the looks before the write began.
    std::thread::sleep(Duration::from_millis(300));
    while manager.next(Duration::from_millis(1)).is_some() {}
    let feeds = manager.feeds(Duration::from_millis(1500));
    volume.freeze("-u");
    assert_eq!(feeds, 0, "fed while nothing could be written");
    manager.wait_for("WATCHDOG=1");
    daemon.close_stdin();
    daemon.end().expect(0);
}

/// Somebody who writes to a daemon's standard input, and leaves it open.
#[cfg(target_os = "linux")]
type Writer = std::thread::JoinHandle<std::io::Result<ChildStdin>>;

/// A daemon as [`on_volume`] that waits for space: the ballast that fills the volume, and the writer of this many lines of
/// 1000 bytes, which waits, too.
#[cfg(target_os = "linux")]
fn on_full_volume(place: &Place, volume: &Volume, manager: &Manager, lines: usize) -> (Daemon, PathBuf, Writer) {
    use std::io::Write as _;
    let mut daemon = on_volume(place, volume, manager);
    let ballast = volume.fill();
    let mut stdin = daemon.take_stdin();
    let text = format!("{:01000}\n", 7).repeat(lines);
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).map(|()| stdin));
    manager.wait_for("STATUS=Waiting for space on the disk: nothing is lost, producers wait");
    (daemon, ballast, writer)
}

#[cfg(target_os = "linux")]
#[test]
fn the_watchdog_is_fed_while_the_log_waits_for_space() {
    let place = Place::new();
    let Some(volume) = Volume::new(&place) else { return };
    let manager = Manager::at(&place.beside("notify"));
    let (daemon, ballast, writer) = on_full_volume(&place, &volume, &manager, 8000);
    // Longer than the news of a full disk stay fresh.
    let feeds = manager.feeds(Duration::from_secs(7));
    assert!(feeds >= 30, "{feeds} feeds in seven seconds on a full disk");
    fs::remove_file(&ballast).unwrap();
    // It does not end before it has been seen to go on.
    let stdin = writer.join().unwrap().unwrap();
    manager.wait_for("STATUS=Reading from 1 source, flush mode cautious");
    drop(stdin);
    daemon.end().expect(0);
}

/// A drain that waits for space goes on waiting, until somebody insists. The next start has all that was confirmed.
#[cfg(target_os = "linux")]
#[test]
fn a_second_sigint_ends_a_drain_that_cannot_go_on() {
    let place = Place::new();
    let Some(volume) = Volume::new(&place) else { return };
    let manager = Manager::at(&place.beside("notify"));
    let (daemon, ballast, writer) = on_full_volume(&place, &volume, &manager, 50_000);
    daemon.signal(Signal::INT);
    manager.wait_for("STOPPING=1");
    std::thread::sleep(Duration::from_secs(1));
    assert!(Path::new(&format!("/proc/{}/exe", daemon.id())).read_link().is_ok(), "it does not give up by itself");
    let began = Instant::now();
    daemon.signal(Signal::INT);
    daemon.end().expect(130);
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    assert!(writer.join().unwrap().is_err(), "more was written than the disk has space for");
    fs::remove_file(&ballast).unwrap();
    let store = volume.mountpoint.join("data");
    let mut next = crate::program::kifa(&["daemon", "--stdin", "-d", store.to_str().unwrap()]);
    crate::program::feed(&mut next, b"one more\n").expect(0);
}

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
    fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// The assignments of the sample, those behind a `#` included.
fn sample() -> Vec<(String, String)> {
    let text = shipped("kifa.env");
    let lines = text.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    let assignments = lines.filter_map(|line| line.split_once('=')).filter(|(name, _)| name.starts_with("KIFA_"));
    assignments.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn sockets_that_were_promised_and_not_passed_are_an_error() {
    // Without LISTEN_PID they are promised to whoever reads it.
    for pid in ["LISTEN_PID=$$ ", ""] {
        let place = Place::new();
        let kifa = env!("CARGO_BIN_EXE_kifa");
        let command = format!("{pid}LISTEN_FDS=7 exec {kifa} daemon --tcp 127.0.0.1:0 -d data");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command]).current_dir(place.beside("")).stdin(std::process::Stdio::null());
        let ran = shell.env_remove("LISTEN_PID").output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(74), "{stderr}");
        assert!(stderr.contains("LISTEN_FDS promises descriptor "), "{stderr}");
        assert!(!place.store().exists(), "nothing was opened");
    }
}

#[test]
fn the_sample_environment_has_every_setting_and_its_default() {
    let help = crate::program::run(&["daemon", "--help"]).expect(0);
    let lines: Vec<&str> = help.text().lines().map(str::trim).collect();
    let sample = sample();
    let mut settings = 0;
    for (at, line) in lines.iter().enumerate() {
        let Some((key, default)) = line.split_once("; default ").filter(|(key, _)| key.contains('.')) else { continue };
        let variable = lines[at + 1];
        let value = sample.iter().find(|(name, _)| name == variable);
        let (_, value) = value.unwrap_or_else(|| panic!("{key}: {variable} is not in the sample"));
        assert!(default == "none" || value == default, "{variable}={value}, but the default is {default}");
        settings += 1;
    }
    assert_eq!(sample.len(), settings + 2, "KIFA_DATA_DIR, KIFA_LOG and the settings: {sample:?}");
}

#[test]
fn the_sample_environment_is_taken() {
    let place = Place::new();
    // Variables are read before flags: a wrong flag is complained of only behind variables that are right.
    let mut command = place.command("daemon", &["--stdin", "--flush-mode", "wrong"]);
    let ran = crate::program::feed(command.envs(sample().into_iter().filter(|(name, _)| name != "KIFA_DATA_DIR")), b"");
    assert!(ran.expect(64).stderr.contains("--flush-mode"));
}

#[test]
fn the_unit_exposes_little() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut analyze = std::process::Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager"]).arg(units.join("kifa.service"));
    let output = match analyze.output() {
        Ok(output) => output,
        Err(cause) => {
            println!("SKIPPED: systemd-analyze: {cause}");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(overall) = text.lines().find(|line| line.contains("Overall exposure level")) else {
        println!("SKIPPED: systemd-analyze: {}", String::from_utf8_lossy(&output.stderr).trim());
        return;
    };
    let level: f64 = overall.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(level <= 1.0, "{overall}\n{text}");
}

/// What the documentation of the unit promises about exits is what the table of exit codes says.
#[test]
fn the_unit_restarts_what_a_restart_can_mend() {
    let unit = shipped("kifa.service");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap().to_owned();
    assert_eq!(value("RestartPreventExitStatus"), "64 65 73 77 78");
    assert_eq!(value("SuccessExitStatus"), "130 143");
    let help = crate::program::run(&["daemon", "--help"]).expect(0);
    for code in value("RestartPreventExitStatus").split(' ').chain(value("SuccessExitStatus").split(' ')) {
        assert!(help.text().lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))), "{code}");
    }
}

/// Catches a sandbox that takes away what kifa would then quietly do without.
#[test]
fn the_unit_allows_the_calls_that_make_it_fast() {
    let unit = shipped("kifa.service");
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(unit.lines().any(|line| line.starts_with("SystemCallFilter=@") && line.contains(call)), "{call}");
    }
    // Of @resources, which is refused, what helpers need comes behind the refusal.
    let refusal = unit.find("SystemCallFilter=~").unwrap();
    for call in ["setpriority", "sched_setaffinity"] {
        assert!(unit[refusal..].lines().skip(1).any(|line| line.contains(call)), "{call}");
    }
}

/// A daemon that is passed this socket as the service manager passes it: as descriptor 3, with our word for it.
fn activated(place: &Place, socket: impl Into<std::os::fd::OwnedFd>, args: &[&str]) -> std::process::Command {
    let kifa = place.command("daemon", args);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"", "sh"]);
    shell.arg(kifa.get_program()).args(kifa.get_args()).stdin(socket.into());
    shell
}

#[test]
fn clients_of_a_socket_that_systemd_holds_wait_out_a_restart() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let place = Place::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let start = || {
        let mut command = activated(&place, held.try_clone().unwrap(), &["--tcp", &address, "--confirm"]);
        Daemon::start_with_its_stdin(&mut command)
    };
    let send = |line: &str| {
        let mut client = std::net::TcpStream::connect(&address).expect("nobody is refused");
        client.write_all(line.as_bytes()).unwrap();
        client
    };
    let answer = |client| {
        let mut answer = String::new();
        BufReader::new(client).read_line(&mut answer).unwrap();
        answer
    };
    let mut daemon = start();
    daemon.wait_for("is open");
    assert_eq!(answer(send("one\n")), "OK 1\n");
    daemon.signal(Signal::TERM);
    daemon.end().expect(143);
    // Nobody is there now; the client connects all the same.
    let waiting = send("two\n");
    let mut daemon = start();
    daemon.wait_for("is open");
    assert_eq!(answer(waiting), "OK 2\n");
    daemon.signal(Signal::TERM);
    daemon.end().expect(143);
    assert_eq!(place.payloads(), ["one", "two"]);
}

#[test]
fn unix_sockets_and_datagram_sockets_are_taken_over_too() {
    use std::io::Write as _;
    let place = Place::new();
    let path = place.beside("till.sock");
    let held = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut command = activated(&place, held.try_clone().unwrap(), &["--unix", path.to_str().unwrap()]);
    let mut daemon = Daemon::start_with_its_stdin(&mut command);
    daemon.wait_for("is open");
    std::os::unix::net::UnixStream::connect(&path).unwrap().write_all(b"one\n").unwrap();
    place.wait_for_entries(1);
    daemon.signal(Signal::TERM);
    daemon.end().expect(143);
    assert!(path.exists(), "it is the service manager's to remove");

    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let mut command = activated(&place, held.try_clone().unwrap(), &["--udp", &address.to_string()]);
    let mut daemon = Daemon::start_with_its_stdin(&mut command);
    daemon.wait_for("is open");
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"two", address).unwrap();
    place.wait_for_entries(2);
    daemon.signal(Signal::TERM);
    daemon.end().expect(143);
    assert_eq!(place.payloads(), ["one", "two"]);
}

#[test]
fn what_is_passed_and_cannot_be_used_is_an_error() {
    let place = Place::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let output = activated(&place, held, &["--stdin"]).output().unwrap();
    let ran = crate::program::Ran::from(output).expect(78);
    let expected = format!("the socket tcp:{address} was passed to kifa, but nothing is configured for it");
    assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
    let file = fs::File::open("/dev/null").unwrap();
    let ran = crate::program::Ran::from(activated(&place, file, &["--stdin"]).output().unwrap()).expect(74);
    assert!(ran.stderr.contains("descriptor 3 is neither a listening TCP"), "{}", ran.stderr);
}

/// The socket unit and the sample of settings are installed together: what is passed is a source.
#[test]
fn every_socket_of_the_socket_unit_is_a_source_of_the_sample() {
    let (unit, settings) = (shipped("kifa.socket"), shipped("kifa.env"));
    let listens: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("Listen")).collect();
    assert!(!listens.is_empty());
    for listen in listens {
        let (kind, address) = listen.split_once('=').unwrap();
        let variable = match kind {
            "Datagram" => "KIFA_UDP",
            _ if address.starts_with('/') => "KIFA_UNIX",
            _ => "KIFA_TCP",
        };
        assert!(settings.lines().any(|line| line == format!("{variable}={address}")), "{listen}");
    }
}
