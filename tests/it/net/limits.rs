//! Limits: who reaches one is told and counted, memory stays bounded, and everybody else goes on.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Client, Served, lsn};
use crate::program::{Place, wait_until};

const MIB: usize = 1 << 20;

#[test]
fn two_thousand_idle_connections_cost_little_memory() {
    const CLIENTS: usize = 2000;
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm"]);
    let address = served.address("tcp");
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = Client::new(TcpStream::connect(address).unwrap());
        client.send(format!("{number}: {}\n", "x".repeat(1000)).as_bytes());
        lsn(&client.line());
        clients.push(client);
    }
    assert_eq!(served.status()["connections"], CLIENTS);
    let resident = served.resident_kib();
    assert!(resident <= 40 << 10, "{resident} KiB");
    drop(clients);
    served.stop();
}

#[test]
fn too_many_connections_are_turned_away_with_a_reason() {
    let place = Place::new();
    let served = place.serve_config(
        "[ingester]\nconnections_max = 3\nconnections_per_address_max = 2\n[sources]\ntcp = [\"127.0.0.1:0\"]\n\
         confirm = true\n",
    );
    let mut first = [served.tcp(), served.tcp()];
    for client in &mut first {
        client.send(b"x\n");
        lsn(&client.line());
    }
    let refused = served.tcp().rest();
    assert_eq!(refused, "ERR busy there are as many connections from this address as there may be\n");
    let [gone, mut stays] = first;
    drop(gone);
    wait_until("its place is free", || served.status()["connections"] == 1);
    let mut client = served.tcp();
    client.send(b"y\n");
    lsn(&client.line());
    stays.send(b"z\n");
    lsn(&stays.line());
    assert_eq!(served.status()["connections_refused"], 1);
    let ran = served.stop();
    assert!(ran.stderr.contains("1 connections were turned away"), "{}", ran.stderr);
}

#[test]
fn who_says_nothing_or_never_ends_a_line_is_told_and_disconnected() {
    let place = Place::new();
    let served = place.serve_config(
        "[ingester]\nidle_timeout = \"2s\"\nline_timeout = \"1s\"\n[sources]\ntcp = [\"127.0.0.1:0\"]\nconfirm = true\n",
    );
    let (mut idle, mut slow, mut busy) = (served.tcp(), served.tcp(), served.tcp());
    let start = Instant::now();
    let mut stream = slow.get().try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        // Each byte is within the time, the line is not.
        while stream.write_all(b"x").is_ok() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(slow.last_words(), "ERR timeout a line must end within 1 s\n");
    assert!(start.elapsed() >= Duration::from_secs(1));
    busy.send(b"still there\n");
    lsn(&busy.line());
    assert_eq!(idle.rest(), "ERR timeout nothing was said for 2 s\n");
    assert!(start.elapsed() >= Duration::from_secs(2));
    busy.send(b"and still\n");
    lsn(&busy.line());
    trickle.join().unwrap();
    assert_eq!(served.status()["sources"][0]["refused"], 1);
    served.stop();
}

#[test]
fn limits_that_are_read_again_hold_for_connections_that_are_there() {
    let place = Place::new();
    let config = |limits: &str| format!("[ingester]\n{limits}\n[sources]\ntcp = [\"127.0.0.1:0\"]\nconfirm = true\n");
    let served = place.serve_config(&config("connections_max = 9"));
    let (mut idle, mut other) = (served.tcp(), served.tcp());
    other.send(b"one\n");
    assert_eq!(other.line(), "OK 1");
    let reload = |limits: &str| {
        std::fs::write(place.beside("kifa.toml"), config(limits)).unwrap();
        kill_process(Pid::from_child(&served.child), Signal::HUP).unwrap();
    };
    reload("connections_max = 2");
    wait_until("a third connection is too many", || {
        let mut third = served.tcp();
        third.send(b"two\n");
        third.line().starts_with("ERR busy ")
    });
    reload("connections_max = 2\nidle_timeout = \"1s\"");
    for connection in [&mut idle, &mut other] {
        assert_eq!(connection.rest(), "ERR timeout nothing was said for 1 s\n");
    }
    served.stop();
}

#[test]
fn unfinished_lines_are_bounded_and_the_longest_gives_way() {
    let place = Place::new();
    let served =
        place.serve_config("[ingester]\npartial_buffer_mib = 4\n[sources]\ntcp = [\"127.0.0.1:0\"]\nconfirm = true\n");
    let before = served.resident_kib();
    let mut small = served.tcp();
    small.send(b"the beginning of a small line");
    // Each begins a line that it never ends: far more than there is room for.
    let mut hoarders: Vec<_> = (0..60).map(|_| served.tcp()).collect();
    for hoarder in &mut hoarders {
        hoarder.send(&vec![b'x'; MIB - 1]);
    }
    wait_until("some have given way", || served.status()["sources"][0]["refused"].as_u64().unwrap() >= 50);
    let grown = served.resident_kib().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more");
    small.send(b" and its end\n");
    assert_eq!(small.line(), "OK 1");
    let mut told = 0;
    for mut hoarder in hoarders {
        hoarder.send(b"\nnext\n");
        let answer = hoarder.line();
        if answer.starts_with("ERR unfinished ") {
            told += 1;
            lsn(&hoarder.line());
        } else {
            lsn(&answer);
        }
    }
    assert!(told >= 50, "{told}");
    served.stop();
}

#[test]
fn who_does_not_read_its_answers_is_not_read_from_and_harms_nobody() {
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm"]);
    let before = served.resident_kib();
    let stuck = served.tcp();
    stuck.get().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let lines = b"x\n".repeat(MIB / 2);
    let mut written = 0;
    let outcome = loop {
        match stuck.get().write(&lines) {
            Ok(bytes) => written += bytes,
            Err(error) => break error,
        }
        assert!(written < 512 * MIB, "nothing holds it back");
    };
    assert!(matches!(outcome.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{outcome}");
    let grown = served.resident_kib().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more");
    let mut other = served.tcp();
    other.send(b"other\n");
    lsn(&other.line());
    served.signal(rustix::process::Signal::TERM);
    let start = Instant::now();
    served.end().expect(143);
    assert!(start.elapsed() < Duration::from_secs(20), "it waits for who does not read");
}

/// A daemon in a shell that limits open files.
fn serve_limited(place: &Place, limit: &str) -> Served {
    let script = format!("{limit}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_kifa"), "daemon", "--confirm", "--tcp", "127.0.0.1:0", "-d"]);
    shell.arg(place.store()).stdin(Stdio::null());
    Served::start(&mut shell)
}

#[test]
fn a_soft_limit_on_open_files_is_raised() {
    let place = Place::new();
    let served = serve_limited(&place, "ulimit -S -n 64");
    let mut clients: Vec<_> = (0..200).map(|_| served.tcp()).collect();
    for client in &mut clients {
        client.send(b"x\n");
    }
    for client in &mut clients {
        lsn(&client.line());
    }
    drop(clients);
    served.stop();
}

#[test]
fn connections_do_not_take_the_descriptors_that_the_log_needs() {
    let place = Place::new();
    let served = serve_limited(&place, "ulimit -n 64");
    let mut first = served.tcp();
    first.send(b"first\n");
    assert_eq!(first.line(), "OK 1");
    let mut others: Vec<_> = (0..60).map(|_| served.tcp()).collect();
    let refused = others.iter_mut().rev().take(10).map(|other| other.last_words());
    assert!(refused.into_iter().all(|line| line == "ERR busy the system allows no more open files\n"));
    // Segments, tables and manifests come and go.
    let line = [&[b'x'; MIB - 1][..], b"\n"].concat();
    for _ in 0..48 {
        first.send(&line);
        lsn(&first.line());
    }
    drop(others);
    served.stop();
}

#[test]
fn running_out_of_descriptors_neither_spins_nor_kills() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm", "--segment-size-mib", "1"]);
    let mut first = served.tcp();
    first.send(b"first\n");
    assert_eq!(first.line(), "OK 1");
    let open = std::fs::read_dir(format!("/proc/{}/fd", served.child.id())).unwrap();
    let open: Vec<u64> = open.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let free = (0..).find(|fd| !open.contains(fd)).unwrap();
    let pid = Some(Pid::from_child(&served.child));
    let limit = |current| Rlimit { current: Some(current), maximum: Some(4096) };
    prlimit(pid, Resource::Nofile, limit(free)).unwrap();

    // The log prepares spare files meanwhile; it must wait with that, and not fail.
    let mut others: Vec<_> = (0..100).map(|_| served.tcp()).collect();
    let before = cpu_ticks(&served);
    first.send(b"second\n");
    assert_eq!(first.line(), "OK 2");
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu_ticks(&served) - before;
    assert!(spent < 50, "{spent} ticks in a second");
    // The connection that asked for the status may have left a place behind.
    let dismissed = others.iter_mut().filter_map(|other| {
        other.get().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        other.last_words().starts_with("ERR busy ").then_some(())
    });
    assert!(dismissed.count() >= 98);

    prlimit(pid, Resource::Nofile, limit(4096)).unwrap();
    let mut next = served.tcp();
    next.send(b"third\n");
    assert_eq!(next.line(), "OK 3");
    drop(others);
    served.stop();
}

/// Time on the processor, in hundredths of a second.
fn cpu_ticks(served: &Served) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", served.child.id())).unwrap();
    let (_, behind_name) = stat.rsplit_once(") ").unwrap();
    let mut fields = behind_name.split(' ');
    let user: u64 = fields.nth(11).unwrap().parse().unwrap();
    user + fields.next().unwrap().parse::<u64>().unwrap()
}
