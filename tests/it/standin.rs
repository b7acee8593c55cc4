//! Daemons for those who talk to one: the real one; a stand-in whose log is in this process, so that a test knows what is
//! durable when; and servers that answer wrongly.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use kifa::{FlushMode, Log, Options};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Place, Ran, wait_until};

/// A running daemon that reads from its standard input, which stays open.
pub(crate) struct Daemon {
    pub(crate) child: Child,
}

impl Daemon {
    /// Returns when its socket is there.
    #[track_caller]
    pub(crate) fn start(place: &Place, args: &[&str]) -> Daemon {
        // A socket that an earlier one left behind says nothing.
        let _ = std::fs::remove_file(place.store().join("kifa.sock"));
        let child = place.start(args);
        wait_until("the daemon listens", || place.store().join("kifa.sock").exists());
        Daemon { child }
    }

    /// Ends it by SIGTERM.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        // Waiting closes the input that it holds; the end of it would race with the signal.
        let input = self.child.stdin.take();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        Ran::from(self.child.wait_with_output().unwrap()).expect(143);
        drop(input);
    }
}

/// Listens on the socket of the store in `dir` and hands each connection to `serve`, on a thread of its own.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(dir: &Path, serve: impl Fn(UnixStream) + Send + Sync + 'static) -> Server {
        let path = dir.join("kifa.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        let serve = Arc::clone(&serve);
                        std::thread::spawn(move || serve(stream));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Server { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A daemon of the log in `dir`.
pub(crate) struct StandIn {
    pub(crate) log: Arc<Log>,
    is_closing: Arc<AtomicBool>,
    server: Option<Server>,
}

impl StandIn {
    pub(crate) fn start(dir: &Path, options: Options) -> StandIn {
        let log = Arc::new(Log::open(dir, options).unwrap());
        let is_closing = Arc::new(AtomicBool::new(false));
        let (served, closing) = (Arc::clone(&log), Arc::clone(&is_closing));
        let server = Server::start(dir, move |stream| serve(&served, stream, &closing));
        StandIn { log, is_closing, server: Some(server) }
    }

    /// As a daemon stops: connections end, the log is closed.
    pub(crate) fn stop(mut self) {
        self.is_closing.store(true, Ordering::SeqCst);
        drop(self.server.take());
        let mut log = self.log;
        loop {
            match Arc::try_unwrap(log) {
                Ok(log) => return log.close().unwrap(),
                Err(shared) => log = shared,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn serve(log: &Log, stream: UnixStream, is_closing: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while !is_closing.load(Ordering::SeqCst) {
        match reader.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) if line.ends_with('\n') => {}
            _ => continue,
        }
        let request = std::mem::take(&mut line);
        let mut words = request.split_whitespace();
        let answer = match (words.next(), words.next()) {
            (Some("APPEND"), Some(bytes)) => {
                let mut payload = vec![0; bytes.parse().unwrap()];
                stream.set_read_timeout(None).unwrap();
                reader.read_exact(&mut payload).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                match log.append(&payload) {
                    Ok(lsn) => format!("OK {lsn}\n"),
                    Err(error) => format!("ERR too-large {error}\n"),
                }
            }
            (Some("DURABLE"), None) => format!("OK {}\n", log.durable_lsn()),
            (Some("SYNC"), None) => {
                log.sync().unwrap();
                format!("OK {}\n", log.durable_lsn())
            }
            (Some("FOLLOW"), None) => return follow(log, stream, is_closing),
            (Some("STATUS"), None) => format!(
                "OK {{\"pid\":{},\"uptime_s\":5,\"durable_lsn\":{},\"confirmed_lsn\":{},\"flush_mode\":\"{}\",\
                 \"configured_flush_mode\":\"cautious\",\"connections\":1,\
                 \"sources\":[{{\"name\":\"append\",\"stored\":7,\"unconfirmed\":0,\"refused\":1,\"dropped\":0}}]}}\n",
                std::process::id(),
                log.durable_lsn(),
                log.confirmed_lsn(),
                name(log.flush_mode()),
            ),
            (Some("FLUSH-MODE"), Some(mode)) => {
                let old = log.flush_mode();
                let new = match mode {
                    "normal" => FlushMode::Normal,
                    "emergency" => FlushMode::Emergency,
                    _ => FlushMode::Cautious,
                };
                log.set_flush_mode(new).unwrap();
                format!("OK {} {}\n", name(old), name(new))
            }
            (Some("FORGET"), Some("till-7")) => "OK till-7\n".to_owned(),
            (Some("FORGET"), Some(_)) => "ERR client no such client\n".to_owned(),
            _ => "ERR protocol what is that\n".to_owned(),
        };
        if (&stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn name(mode: FlushMode) -> &'static str {
    match mode {
        FlushMode::Normal => "normal",
        FlushMode::Cautious => "cautious",
        FlushMode::Emergency => "emergency",
    }
}

fn follow(log: &Log, stream: UnixStream, is_closing: &AtomicBool) {
    let mut told = None;
    while !is_closing.load(Ordering::SeqCst) {
        let durable = log.durable_lsn();
        if told != Some(durable) {
            told = Some(durable);
            if (&stream).write_all(format!("OK {durable}\n").as_bytes()).is_err() {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
