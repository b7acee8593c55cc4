//! SIGTERM under load from every source: what was confirmed is there, and what was accepted is there.

use std::io::Write as _;
use std::net::UdpSocket;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Client, Connected, Served, lsn, stored, unix};
use crate::program::{Place, wait_until};

/// Sends numbered lines as fast as it can and collects what it is told, until the connection ends.
fn flood<S: Connected + Send + 'static>(
    client: Client<S>,
    mut writer: S,
    name: String,
) -> std::thread::JoinHandle<Vec<(u64, Vec<u8>)>> {
    let text = name.clone();
    let writing = std::thread::spawn(move || {
        for line in 0.. {
            if writer.write_all(format!("{text} {line}\n").as_bytes()).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let mut client = client;
        let answers = client.last_words();
        drop(client);
        writing.join().unwrap();
        // A connection that is cut may leave a part of an answer.
        let whole = answers.split_inclusive('\n').filter(|answer| answer.ends_with('\n'));
        whole
            .enumerate()
            .map(|(line, answer)| (lsn(answer.trim_end()), format!("{name} {line}").into_bytes()))
            .collect()
    })
}

#[test]
fn everything_confirmed_and_everything_accepted_is_there() {
    let place = Place::new();
    let path = place.beside("s");
    let mut command =
        place.command("daemon", &["--stdin", "--tcp", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--confirm"]);
    command.arg("--unix").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut served = Served::start(&mut command);

    let mut floods = Vec::new();
    for number in 0..3 {
        let client = served.tcp();
        let writer = client.get().try_clone().unwrap();
        floods.push(flood(client, writer, format!("tcp-{number}")));
        let client = unix(&path);
        let writer = client.get().try_clone().unwrap();
        floods.push(flood(client, writer, format!("unix-{number}")));
    }
    let mut stdin = served.child.stdin.take().unwrap();
    let lines = std::thread::spawn(move || {
        let mut line = 0;
        while stdin.write_all(format!("stdin {line}\n").as_bytes()).is_ok() {
            line += 1;
        }
    });
    let mut stdout = served.child.stdout.take().unwrap();
    let answers = std::thread::spawn(move || {
        let mut answers = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut answers).unwrap();
        answers
    });
    let is_over = Arc::new(AtomicBool::new(false));
    let (address, over) = (served.address("udp"), Arc::clone(&is_over));
    let datagrams = std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut number = 0;
        while !over.load(Ordering::SeqCst) {
            let _ = socket.send_to(format!("udp {number}").as_bytes(), address);
            number += 1;
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    wait_until("every source stores", || {
        let status = served.status();
        let sources = status["sources"].as_array().unwrap();
        sources.iter().filter(|source| source["stored"].as_u64() > Some(500)).count() == 4
    });
    let ran = served.stop();
    is_over.store(true, Ordering::SeqCst);
    datagrams.join().unwrap();
    lines.join().unwrap();

    assert!(!ran.stderr.contains("not confirmed"), "{}", ran.stderr);
    let stored = stored(&place);
    let said =
        ran.stderr.lines().find_map(|line| line.strip_suffix(" entries stored")?.rsplit(' ').next()?.parse().ok());
    assert_eq!(said, Some(stored.len()), "{}", ran.stderr);
    let holds = |(lsn, line): &(u64, Vec<u8>)| {
        stored.binary_search_by_key(lsn, |(lsn, _)| *lsn).is_ok_and(|at| stored[at].1 == *line)
    };
    for flood in floods {
        let told = flood.join().unwrap();
        assert!(told.len() > 50 && told.iter().all(holds));
        // Everything that was accepted from a connection was confirmed to it.
        let name = told[0].1.split(|&byte| byte == b' ').next().unwrap();
        let count = stored.iter().filter(|(_, line)| line.starts_with(name) && line[name.len()] == b' ').count();
        assert_eq!(count, told.len(), "{}", String::from_utf8_lossy(name));
    }
    let answers = answers.join().unwrap();
    let told: Vec<_> = answers.lines().enumerate().map(|(n, a)| (lsn(a), format!("stdin {n}").into_bytes())).collect();
    assert!(told.len() > 50 && told.iter().all(holds));
}

#[test]
fn who_reads_its_answers_late_still_gets_those_of_everything_that_was_accepted() {
    let place = Place::new();
    let served = place.serve(&["--tcp", "127.0.0.1:0", "--confirm"]);
    let mut client = served.tcp();
    client.get().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let lines = b"x\n".repeat(64 << 10);
    // Until nothing more is read from it, because it does not read.
    while client.get().write(&lines).is_ok() {}
    served.signal(rustix::process::Signal::TERM);
    std::thread::sleep(Duration::from_millis(500));
    let answers = client.last_words();
    served.end().expect(143);
    let told: Vec<u64> = answers.lines().map(lsn).collect();
    let count = told.len() as u64;
    assert!(told.into_iter().eq(1..=count));
    assert_eq!(stored(&place).len() as u64, count);
}
