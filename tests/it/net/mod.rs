//! The daemon's sockets: a running daemon, and clients that talk to it.

mod control;
mod hello;
mod limits;
mod lines;
mod stop;
mod udp;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Place, Ran, json};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that listens.
pub(crate) struct Served {
    pub(crate) child: Child,
    /// What it listens on, as it says: `tcp:127.0.0.1:43219`.
    labels: Vec<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Place {
    /// Starts a daemon and waits until it listens.
    #[track_caller]
    pub(crate) fn serve(&self, args: &[&str]) -> Served {
        Served::start(self.command("daemon", args).stdin(Stdio::null()))
    }

    /// The same, with this configuration file.
    #[track_caller]
    pub(crate) fn serve_config(&self, config: &str) -> Served {
        let path = self.beside("kifa.toml");
        std::fs::write(&path, config).unwrap();
        self.serve(&["-c", path.to_str().unwrap()])
    }
}

impl Served {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Served {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let stderr = child.stderr.take().unwrap();
        let (tell, told) = mpsc::channel();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let mut lines = BufReader::new(stderr);
            while matches!(lines.read_line(&mut text), Ok(bytes) if bytes > 0) {
                if let Some((_, label)) = text.trim_end().rsplit_once("listening on ") {
                    let label = label.lines().next().unwrap_or_default().to_owned();
                    let _ = tell.send(label);
                }
            }
            text
        });
        let mut served = Served { child, labels: Vec::new(), stderr: Some(stderr) };
        served.wait_for_control_socket(&told);
        served
    }

    /// It is opened last.
    #[track_caller]
    fn wait_for_control_socket(&mut self, told: &Receiver<String>) {
        loop {
            match told.recv_timeout(PATIENCE) {
                Ok(label) if self.labels.last() == Some(&label) => {}
                Ok(label) => self.labels.push(label),
                Err(_) => panic!("it does not listen: {}", self.stderr.take().unwrap().join().unwrap()),
            }
            if self.labels.last().unwrap().ends_with("/kifa.sock") {
                return;
            }
        }
    }

    /// The address of a kind that it listens on.
    #[track_caller]
    pub(crate) fn address(&self, kind: &str) -> SocketAddr {
        let address = self.labels.iter().find_map(|label| label.strip_prefix(kind)?.strip_prefix(':'));
        address.expect("it listens").parse().unwrap()
    }

    #[track_caller]
    pub(crate) fn tcp(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.address("tcp")).unwrap())
    }

    #[track_caller]
    pub(crate) fn control(&self) -> Client<UnixStream> {
        unix(Path::new(self.labels.last().unwrap().strip_prefix("unix:").unwrap()))
    }

    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        let mut control = self.control();
        control.send(b"STATUS\n");
        json(control.line().strip_prefix("OK ").unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ran {
        let code = self.child.wait().unwrap().code();
        let mut stdout = Vec::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_end(&mut stdout).unwrap();
        }
        Ran { code, stdout, stderr: self.stderr.take().unwrap().join().unwrap() }
    }

    /// Stops it, and expects it to have ended cleanly.
    #[track_caller]
    pub(crate) fn stop(self) -> Ran {
        self.signal(Signal::TERM);
        self.end().expect(143)
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A test that fails leaves nothing behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub(crate) fn unix(path: &Path) -> Client<UnixStream> {
    Client::new(UnixStream::connect(path).unwrap())
}

/// One end of a connection to the daemon.
pub(crate) struct Client<S> {
    stream: BufReader<S>,
}

pub(crate) trait Connected: Read + Write + Sized {
    fn prepare(&self);
    fn end_writing(&self);
}

impl Connected for TcpStream {
    fn prepare(&self) {
        self.set_read_timeout(Some(PATIENCE)).unwrap();
        self.set_write_timeout(Some(PATIENCE)).unwrap();
        self.set_nodelay(true).unwrap();
    }

    fn end_writing(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Connected for UnixStream {
    fn prepare(&self) {
        self.set_read_timeout(Some(PATIENCE)).unwrap();
        self.set_write_timeout(Some(PATIENCE)).unwrap();
    }

    fn end_writing(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl<S: Connected> Client<S> {
    pub(crate) fn new(stream: S) -> Client<S> {
        stream.prepare();
        Client { stream: BufReader::new(stream) }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// The next answer, without its line end; empty where the connection has ended.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[track_caller]
    pub(crate) fn lines(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    pub(crate) fn end_writing(&self) {
        self.stream.get_ref().end_writing();
    }

    /// Everything up to the end of the connection.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).unwrap();
        rest
    }

    /// What arrives until the connection ends, however it ends.
    pub(crate) fn last_words(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        String::from_utf8(rest).unwrap()
    }

    pub(crate) fn get(&self) -> &S {
        self.stream.get_ref()
    }
}

/// The LSN of an `OK`.
#[track_caller]
pub(crate) fn lsn(answer: &str) -> u64 {
    answer.strip_prefix("OK ").and_then(|lsn| lsn.parse().ok()).unwrap_or_else(|| panic!("{answer:?} is not OK"))
}

/// The data of each entry in hexadecimal digits, by LSN.
#[track_caller]
pub(crate) fn stored(place: &Place) -> Vec<(u64, Vec<u8>)> {
    let ran = place.run("query", &["-o", "hex"]);
    assert!(matches!(ran.code, Some(0 | 1)), "stderr: {}", ran.stderr);
    let entry = |line: &str| {
        let (lsn, data) = (&line[..16], &line.as_bytes()[34..]);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        (u64::from_str_radix(lsn, 16).unwrap(), data.chunks(2).map(byte).collect())
    };
    ran.text().lines().map(entry).collect()
}
