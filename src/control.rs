//! The client's side of the control protocol: one connection to a running daemon's socket.
//!
//! The daemon listens on `kifa.sock` in its store's directory. Requests and replies are lines; replies come in the order
//! of the requests, `OK` with what was asked for or `ERR` with a code and a reason.
//!
//! - Nothing here waits for ever: connecting and each wait for a reply have a deadline (a backlog that is full, or a
//!   process that listens and says nothing, costs that much and no more).
//! - Nothing is created. A path that is too long for a socket address (108 bytes) is reached through its open directory.
//! - What the other side says is a claim. A reply has a longest length, and is text for people only behind
//!   [`printable`].
//!
//! It does not decide what a broken connection means; only the caller knows what it had sent.
//!
//! Proof: the tests below, and `tests/it` beside a daemon.
// A client waits for another process of its own machine, on the machine's own clock.
#![allow(clippy::disallowed_methods)]

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

/// Name of the socket, in the store's directory.
pub(crate) const SOCKET_NAME: &str = "kifa.sock";
/// Longest reply to a short request, in bytes.
pub(crate) const REPLY_BYTES_MAX: usize = 4096;
/// How long to wait before a full backlog is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(5);
/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ControlError {
    /// Nobody listens there.
    Absent,
    /// The socket cannot be used; permission, for example.
    Io(io::Error),
    /// No answer within this time.
    TimedOut(Duration),
    /// The connection ended before the answer was there.
    Broken,
    /// The daemon said no; it did nothing, unless the code says otherwise.
    Refused { code: String, reason: String },
    /// The answer is not one.
    Garbled(String),
}

impl std::fmt::Display for ControlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ControlError::Absent => f.write_str("no daemon is running there"),
            ControlError::Io(cause) => cause.fmt(f),
            ControlError::TimedOut(time) => write!(f, "the daemon gave no answer within {} s", time.as_secs_f32()),
            ControlError::Broken => f.write_str("the daemon closed the connection"),
            ControlError::Refused { code, reason } => {
                write!(f, "the daemon refused: {} ({})", printable(reason), printable(code))
            }
            ControlError::Garbled(line) => {
                write!(f, "what answers on the socket is not a kifa daemon: {:?}", printable(line))
            }
        }
    }
}

/// Text of somebody else, safe to look at, and not too long.
pub(crate) fn printable(text: &str) -> String {
    let shown = |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
    text.chars().take(512).map(shown).collect()
}

/// A connection to a daemon.
pub(crate) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    /// Bytes of `received` that were handed out.
    taken: usize,
}

impl Connection {
    /// Connects to the daemon of the store in `dir`. The name is not followed if it is a symbolic link.
    pub(crate) fn open_store(dir: &Path, timeout: Duration) -> Result<Connection, ControlError> {
        let path = dir.join(SOCKET_NAME);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.file_type().is_socket() => Connection::open(&path, timeout),
            Ok(_) => Err(ControlError::Absent),
            Err(cause) => Err(absent_or(cause)),
        }
    }

    /// Connects to the socket at `path`.
    pub(crate) fn open(path: &Path, timeout: Duration) -> Result<Connection, ControlError> {
        let end = Instant::now() + timeout;
        let (address, _directory) = address(path).map_err(absent_or)?;
        loop {
            match connect(&address) {
                Ok(stream) => return Ok(Connection { stream, received: Vec::new(), taken: 0 }),
                Err(Errno::AGAIN | Errno::INTR) if Instant::now() < end => std::thread::sleep(RETRY_EVERY),
                Err(Errno::AGAIN | Errno::INTR) => return Err(ControlError::TimedOut(timeout)),
                Err(errno) => return Err(absent_or(errno.into())),
            }
        }
    }

    /// Sends a request and waits for its reply, which must be the only one under way; returns what follows `OK`.
    pub(crate) fn request(
        &mut self,
        line: &str,
        reply_bytes_max: usize,
        timeout: Duration,
    ) -> Result<String, ControlError> {
        let end = Instant::now() + timeout;
        let mut rest = format!("{line}\n").into_bytes();
        loop {
            if !rest.is_empty() {
                let written = self.write(&rest).map_err(broken_or)?;
                rest.drain(..written);
            }
            if let Some(reply) = self.next_line(reply_bytes_max)? {
                return parse_reply(&reply);
            }
            let left = end.checked_duration_since(Instant::now()).ok_or(ControlError::TimedOut(timeout))?;
            let mut fds = [PollFd::from_borrowed_fd(self.fd(), wanted(!rest.is_empty()))];
            wait(&mut fds, Some(left)).map_err(ControlError::Io)?;
            if fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.receive()? {
                // What came before the end counts.
                return match self.next_line(reply_bytes_max)? {
                    Some(reply) => parse_reply(&reply),
                    None => Err(ControlError::Broken),
                };
            }
        }
    }

    /// Takes in what has arrived, without waiting; `false` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Result<bool, ControlError> {
        self.received.drain(..self.taken);
        self.taken = 0;
        let filled = self.received.len();
        self.received.resize(filled + CHUNK_BYTES, 0);
        let outcome = (&self.stream).read(&mut self.received[filled..]);
        self.received.truncate(filled + *outcome.as_ref().unwrap_or(&0));
        match outcome {
            Ok(0) => Ok(false),
            Ok(_) => Ok(true),
            Err(cause) if matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(cause) => Err(broken_or(cause)),
        }
    }

    /// The next whole line that has been taken in, without its end.
    pub(crate) fn next_line(&mut self, bytes_max: usize) -> Result<Option<String>, ControlError> {
        let waiting = &self.received[self.taken..];
        let end = waiting.iter().position(|&byte| byte == b'\n');
        if end.unwrap_or(waiting.len()) > bytes_max {
            let start = String::from_utf8_lossy(&waiting[..64.min(waiting.len())]).into_owned();
            return Err(ControlError::Garbled(start));
        }
        let Some(end) = end else { return Ok(None) };
        let line = String::from_utf8_lossy(&waiting[..end]).into_owned();
        self.taken += end + 1;
        Ok(Some(line))
    }

    /// Sends what fits, without waiting; 0 where nothing does.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (&self.stream).write(bytes) {
            Err(cause) if matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            outcome => outcome,
        }
    }

    /// For `poll`, beside other descriptors.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What to poll a connection for.
pub(crate) fn wanted(has_output: bool) -> PollFlags {
    if has_output { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
}

/// Waits until a descriptor is ready or the time is over (`None`: no limit). A signal ends the wait early.
pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What follows `OK`, or the error that the reply is.
pub(crate) fn parse_reply(line: &str) -> Result<String, ControlError> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "OK" => Ok(rest.to_owned()),
        "ERR" => {
            let (code, reason) = rest.split_once(' ').unwrap_or((rest, "it gave no reason"));
            Err(ControlError::Refused { code: code.to_owned(), reason: reason.to_owned() })
        }
        _ => Err(ControlError::Garbled(line.to_owned())),
    }
}

fn absent_or(cause: io::Error) -> ControlError {
    match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
            ControlError::Absent
        }
        _ => ControlError::Io(cause),
    }
}

fn broken_or(cause: io::Error) -> ControlError {
    match cause.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ControlError::Broken,
        _ => ControlError::Io(cause),
    }
}

/// The address of a path; where the path is too long for one, through its directory, which must stay open until then.
fn address(path: &Path) -> io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
    match SocketAddrUnix::new(path) {
        Ok(address) => Ok((address, None)),
        #[cfg(target_os = "linux")]
        Err(Errno::NAMETOOLONG) => {
            use rustix::fs::{Mode, OFlags};
            use std::os::fd::AsRawFd as _;
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let directory =
                rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let through = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
            Ok((SocketAddrUnix::new(through)?, Some(directory)))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Connects without waiting for room in the backlog.
fn connect(address: &SocketAddrUnix) -> rustix::io::Result<UnixStream> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::connect(&socket, address)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(20);

    /// A server that answers each line by what the function says, until it says nothing.
    fn serve(dir: &Path, answer: impl Fn(&str) -> Option<String> + Send + 'static) {
        let listener = UnixListener::bind(dir.join(SOCKET_NAME)).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let Some(answer) = answer(&line.unwrap()) else { return };
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
        });
    }

    fn ask(dir: &Path, line: &str, timeout: Duration) -> Result<String, ControlError> {
        Connection::open_store(dir, timeout)?.request(line, REPLY_BYTES_MAX, timeout)
    }

    #[test]
    fn replies_are_ok_err_or_not_replies() {
        let cases = [
            ("OK 12\n", "Ok(\"12\")"),
            ("OK\n", "Ok(\"\")"),
            ("ERR full no room left\n", "Err(Refused { code: \"full\", reason: \"no room left\" })"),
            ("220 mail.example.org\n", "Err(Garbled(\"220 mail.example.org\"))"),
            ("OK 12", "Err(Broken)"),
        ];
        for (reply, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let sent = std::sync::atomic::AtomicBool::new(false);
            serve(dir.path(), move |line| {
                assert_eq!(line, "DURABLE");
                // A reply without an end is all that comes.
                let again = sent.swap(true, std::sync::atomic::Ordering::SeqCst);
                (!again).then(|| reply.to_owned())
            });
            let mut connection = Connection::open_store(dir.path(), LATE).unwrap();
            if !reply.ends_with('\n') {
                let unfinished = connection.request("DURABLE", REPLY_BYTES_MAX, SOON);
                assert!(matches!(unfinished, Err(ControlError::TimedOut(_))));
            }
            let found = connection.request("DURABLE", REPLY_BYTES_MAX, LATE);
            assert_eq!(format!("{found:?}"), expected);
        }
    }

    #[test]
    fn an_endless_reply_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        serve(dir.path(), |_| Some("x".repeat(1 << 20)));
        assert!(matches!(ask(dir.path(), "DURABLE", LATE), Err(ControlError::Garbled(_))));
    }

    #[test]
    fn who_listens_and_says_nothing_or_does_not_even_accept_costs_a_bounded_time() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap();
        assert!(matches!(ask(dir.path(), "DURABLE", SOON), Err(ControlError::TimedOut(_))));
        let mut full = Vec::new();
        let outcome = loop {
            match Connection::open_store(dir.path(), SOON) {
                Ok(connection) if full.len() < 10_000 => full.push(connection),
                outcome => break outcome.map(drop),
            }
        };
        assert!(matches!(outcome, Err(ControlError::TimedOut(_) | ControlError::Absent)), "{outcome:?}");
        drop(listener);
        assert!(matches!(ask(dir.path(), "DURABLE", SOON), Err(ControlError::Absent)), "a stale socket");
    }

    #[test]
    fn what_is_no_socket_of_the_directory_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let absent = || matches!(Connection::open_store(dir.path(), SOON), Err(ControlError::Absent));
        assert!(absent(), "nothing");
        std::fs::write(dir.path().join(SOCKET_NAME), "").unwrap();
        assert!(absent(), "a file");
        std::fs::remove_file(dir.path().join(SOCKET_NAME)).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        serve(elsewhere.path(), |_| Some("OK 1\n".to_owned()));
        std::os::unix::fs::symlink(elsewhere.path().join(SOCKET_NAME), dir.path().join(SOCKET_NAME)).unwrap();
        assert!(absent(), "a symbolic link");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_long_path_is_reached_through_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let bound = dir.path().join(SOCKET_NAME);
        serve(dir.path(), |_| Some("OK 7\n".to_owned()));
        std::fs::rename(bound, long.join(SOCKET_NAME)).unwrap();
        assert_eq!(ask(&long, "DURABLE", LATE).unwrap(), "7");
    }

    #[test]
    fn errors_are_sentences_that_cannot_drive_the_terminal() {
        let refused = ControlError::Refused { code: "x\x1b".to_owned(), reason: "\x1b[2Jno".to_owned() };
        assert!(!refused.to_string().contains('\x1b'));
        assert_eq!(printable(&"x".repeat(1000)).len(), 512);
    }
}
