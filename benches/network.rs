//! What do producers get that send lines over TCP and wait for their confirmations?
//!
//! The daemon listens on the loopback interface, with `--confirm`. Each of 8 connections has 64 lines on their way at any
//! time: whoever reads answers sends as many lines again.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kifa::bench::{Histogram, Payloads, turns};

use crate::common::{Bench, floor, per_second, remove};
use crate::program::{BACKEND_FLAGS, kifa};

const CONNECTIONS: usize = 8;
const IN_FLIGHT: usize = 64;

pub(crate) fn run(bench: &mut Bench) {
    if !bench.wants("tcp-confirm") {
        return;
    }
    let dirs = BACKEND_FLAGS.map(|flag| bench.subdir(&format!("tcp-{flag}")));
    let mut daemons = [0, 1].map(|at| {
        let mut command = kifa();
        command.args(["daemon", "--tcp", "127.0.0.1:0", "--confirm", "--io-backend", BACKEND_FLAGS[at], "-d"]);
        let child = command.arg(&dirs[at]).env("KIFA_LOG", "info").stderr(Stdio::piped()).spawn();
        Daemon::connect(child.expect("the program runs")).expect("the daemon listens")
    });
    let (raw_slice, slice) = bench.pick(
        (Duration::from_millis(60), Duration::from_millis(300)),
        (Duration::from_millis(300), Duration::from_secs(2)),
    );
    let mut raw_file = bench.raw_blocks();
    let mut raw = || Ok::<_, io::Error>(raw_file.blocks(raw_slice, &mut Histogram::default())?.per_second());
    let [first, second] = &mut daemons;
    let mut first = || first.drive(&bench.payloads, slice);
    let mut second = || second.drive(&bench.payloads, slice);
    let measured = turns(bench.pick(2, 5), &mut raw, &mut [&mut first, &mut second]).expect("the daemons answer");
    let more = format!("; {CONNECTIONS} connections, {IN_FLIGHT} lines in flight each");
    bench.report_ratios("tcp-confirm", "R", floor(60.0, 150.0), &measured, &more, per_second);
    drop(daemons);
    dirs.iter().for_each(|dir| remove(dir));
}

/// A listening daemon and the connections to it; dropping it kills the daemon.
struct Daemon {
    child: Child,
    connections: Vec<TcpStream>,
}

impl Daemon {
    fn connect(mut child: Child) -> io::Result<Daemon> {
        let mut messages = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            if messages.read_line(&mut line)? == 0 {
                return Err(io::Error::other("the daemon ended before it listened"));
            }
            if let Some((_, address)) = line.trim_end().split_once("listening on tcp:") {
                break address.to_owned();
            }
        };
        // A pipe that nobody empties would stop the daemon at some time.
        thread::spawn(move || io::copy(&mut messages, &mut io::sink()));
        let connect = |_| {
            let connection = TcpStream::connect(&address)?;
            connection.set_nodelay(true)?;
            Ok(connection)
        };
        let connections = (0..CONNECTIONS).map(connect).collect::<io::Result<_>>()?;
        Ok(Daemon { child, connections })
    }

    /// Confirmed lines per second.
    fn drive(&mut self, payloads: &Payloads, limit: Duration) -> io::Result<f64> {
        let begin = Instant::now();
        let counts: Vec<io::Result<u64>> = thread::scope(|scope| {
            let start = |connection| scope.spawn(move || produce(connection, payloads, begin, limit));
            let producers: Vec<_> = self.connections.iter_mut().map(start).collect();
            producers.into_iter().map(|thread| thread.join().expect("a producer does not panic")).collect()
        });
        let count: u64 = counts.into_iter().sum::<io::Result<u64>>()?;
        Ok(count as f64 / begin.elapsed().as_secs_f64())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps lines in flight until the time is over, then waits for the last answers; how many there were.
fn produce(connection: &mut TcpStream, payloads: &Payloads, begin: Instant, limit: Duration) -> io::Result<u64> {
    let mut lines = Vec::new();
    let mut number = 0;
    let mut send = |connection: &mut TcpStream, count: usize| {
        lines.clear();
        for _ in 0..count {
            lines.extend_from_slice(payloads.get(number));
            lines.push(b'\n');
            number += 1;
        }
        connection.write_all(&lines)
    };
    send(connection, IN_FLIGHT)?;
    let (mut outstanding, mut confirmed) = (IN_FLIGHT, 0);
    let mut answers = [0; 4096];
    while outstanding > 0 {
        let bytes = connection.read(&mut answers)?;
        let ends = answers[..bytes].iter().filter(|&&byte| byte == b'\n').count();
        if bytes == 0 || answers[..bytes].contains(&b'E') {
            return Err(io::Error::other("the daemon refused a line or closed the connection"));
        }
        outstanding -= ends;
        confirmed += ends as u64;
        if ends > 0 && begin.elapsed() < limit {
            send(connection, ends)?;
            outstanding += ends;
        }
    }
    Ok(confirmed)
}
