//! Standard input, one entry per line: the main job.
//!
//! - Reads in large chunks. While more input is waiting, batches grow to their limit; when none is, what is there goes
//!   out at once, so a slow producer waits for one sync and a fast one is limited by the device's bandwidth.
//! - On Unix it waits for input, for the log and for a stop at the same time, so that a signal ends it while the input is
//!   idle. What has been read as complete lines by then is stored; a line without its end is not, and that is logged.
//! - Elsewhere it reads in the foreground and the program ends with its input, or is killed (which costs nothing that
//!   was confirmed).
//! - With `--confirm` each line is answered on standard output, in order: `OK LSN` once it is confirmed, or `ERR CODE
//!   REASON`. While answers cannot be written, nothing is read; when nobody is there to read them any more, what was
//!   accepted is stored and the input is left alone.
//!
//! Proof: `tests/it/daemon.rs`, `tests/it/confirm.rs`.

use std::io;

use tracing::{debug, info, warn};

use super::framing::{Frame, Framer, LINE_BYTES_MAX};
use super::{Context, Pipeline};
use crate::config::sources::StdinSource;
use crate::daemon::stop::Stop;
use crate::error::{Error, Result};
use platform::Channels;

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Standard input, ready to be read.
pub(crate) struct Stdin<'a> {
    pipeline: Pipeline<'a>,
    stop: &'a Stop,
    channels: Channels,
}

/// What came of waiting for input.
enum Next {
    /// So many bytes; 0 at the end of the input.
    Bytes(usize),
    /// Something else is to be looked at.
    Other,
    /// Nobody reads the answers any more.
    Deserted,
}

impl<'a> Stdin<'a> {
    /// Takes nothing yet.
    pub(crate) fn open(config: &StdinSource, context: Context<'a>) -> Result<Stdin<'a>> {
        let name = config.name.as_deref().unwrap_or("stdin");
        let source = context.names.id(name).map_err(Error::InvalidOption)?;
        let channels = Channels::new(context.stop, context.log, config.confirm)
            .map_err(|cause| Error::io("prepare", "standard input", cause))?;
        platform::prepare(CHUNK_BYTES);
        let mut pipeline = Pipeline::new(context, source);
        if config.confirm {
            pipeline.confirm_entries();
        }
        Ok(Stdin { pipeline, stop: context.stop, channels })
    }

    /// Reads lines until the input ends (true) or a stop is requested, and waits until all of them are confirmed.
    pub(crate) fn run(mut self) -> Result<bool> {
        let outcome = self.read_all();
        if let Err(error) = &outcome {
            // What was read before the input failed is as good as any other; after a failure of the log this fails, too.
            warn!("standard input: {error}");
            if let Err(error) = self.finish() {
                debug!("the rest was not stored: {error}");
            }
        }
        outcome
    }

    fn read_all(&mut self) -> Result<bool> {
        let mut framer = Framer::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            if self.stop.is_requested() {
                warn_of_unfinished(&framer, "the daemon was stopped");
                self.finish()?;
                return Ok(false);
            }
            match self.next(&mut chunk)? {
                Next::Other => {}
                Next::Bytes(0) => {
                    framer.finish(|frame| take(&mut self.pipeline, frame))?;
                    self.finish()?;
                    return Ok(true);
                }
                Next::Bytes(bytes) => framer.feed(&chunk[..bytes], |frame| take(&mut self.pipeline, frame))?,
                Next::Deserted => {
                    info!(
                        "standard output is closed: nobody is there to be answered, standard input is not read further"
                    );
                    warn_of_unfinished(&framer, "standard output was closed");
                    self.pipeline.drain()?;
                    return Ok(false);
                }
            }
        }
    }

    /// The next chunk, if there is nothing else to do.
    fn next(&mut self, chunk: &mut [u8]) -> Result<Next> {
        let now = self.poll(Wait::No)?;
        if now.is_deserted {
            return Ok(Next::Deserted);
        }
        if now.input {
            return read(chunk);
        }
        self.pipeline.submit()?;
        // From here on the log wakes us: a confirmation that comes now is seen by the look behind this, or ends the wait.
        self.channels.arm(&mut self.pipeline)?;
        if self.stop.is_requested() {
            return Ok(Next::Other);
        }
        let then = self.poll(Wait::Forever)?;
        match then {
            Ready { is_deserted: true, .. } => Ok(Next::Deserted),
            Ready { input: true, .. } => read(chunk),
            _ => Ok(Next::Other),
        }
    }

    /// Looks at input and output, and writes the answers that are known. Input is looked for only where none is left.
    fn poll(&mut self, wait: Wait) -> Result<Ready> {
        self.pipeline.reap()?;
        let is_due = self.pipeline.replies().is_some_and(|replies| replies.is_due());
        let ready = self
            .channels
            .poll(Want { input: !is_due, output: is_due }, wait)
            .map_err(|cause| Error::io("wait for", "standard input", cause))?;
        if !ready.output {
            return Ok(ready);
        }
        let is_deserted = !self.write()?;
        Ok(Ready { is_deserted, ..ready })
    }

    /// Writes as many answers as standard output takes now; false: it is closed.
    fn write(&mut self) -> Result<bool> {
        let Some(replies) = self.pipeline.replies() else { return Ok(true) };
        match platform::write(replies.text()) {
            Ok(bytes) => replies.wrote(bytes),
            Err(error) if is_for_later(&error) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                return Ok(false);
            }
            Err(error) => return Err(Error::io("write to", "standard output", error)),
        }
        Ok(true)
    }

    /// Waits until everything is confirmed, and tells the producer. When a stop is requested, a producer that has not read
    /// for a while is not waited for.
    fn finish(&mut self) -> Result<()> {
        self.pipeline.drain()?;
        while self.pipeline.replies().is_some_and(|replies| replies.is_due()) {
            let wait = if self.stop.is_requested() { Wait::ForOutput } else { Wait::Forever };
            let ready = self
                .channels
                .poll(Want { input: false, output: true }, wait)
                .map_err(|cause| Error::io("wait for", "standard output", cause))?;
            if ready.timed_out || ready.is_deserted || !self.write()? {
                info!("the last answers were not read; their entries are stored");
                return Ok(());
            }
        }
        Ok(())
    }
}

fn read(chunk: &mut [u8]) -> Result<Next> {
    match platform::read(chunk) {
        Ok(bytes) => Ok(Next::Bytes(bytes)),
        Err(error) if is_for_later(&error) => Ok(Next::Other),
        Err(error) => Err(Error::io("read", "standard input", error)),
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

fn warn_of_unfinished(framer: &Framer, when: &str) {
    let bytes = framer.partial_bytes();
    if bytes > 0 {
        warn!("{bytes} bytes of a line whose end had not arrived when {when} were not stored");
    }
}

fn take(pipeline: &mut Pipeline<'_>, frame: Frame<'_>) -> Result<()> {
    match frame {
        Frame::Line(line) => pipeline.push(line),
        Frame::Refused { line, offset } => {
            warn!(
                "line {line} of standard input (from byte {offset} on) is refused: longer than {LINE_BYTES_MAX} bytes"
            );
            pipeline.refuse();
            if let Some(replies) = pipeline.replies() {
                replies.say(&format!("ERR too-large the line is longer than {LINE_BYTES_MAX} bytes"));
            }
            Ok(())
        }
        Frame::Malformed { .. } => unreachable!("lines have no length in front"),
    }
}

/// How long to wait. Where the system cannot tell what is ready, reading and writing wait by themselves.
#[derive(Clone, Copy)]
enum Wait {
    No,
    Forever,
    /// For output that nobody may ever read: five seconds.
    ForOutput,
}

/// What to wait for, besides the log and a stop.
struct Want {
    input: bool,
    output: bool,
}

/// What there is.
#[derive(Clone, Copy, Default)]
struct Ready {
    /// A read returns at once.
    input: bool,
    /// A write returns at once.
    output: bool,
    /// The reading end of standard output is closed; where the system does not tell, writing finds out.
    is_deserted: bool,
    timed_out: bool,
}

#[cfg(unix)]
mod platform {
    use std::io;
    use std::os::fd::AsFd as _;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::{Ready, Wait, Want};
    use crate::daemon::stop::Stop;
    use crate::daemon::wake::WakePipe;
    use crate::engine::Log;
    use crate::error::Result;
    use crate::reactor::watch::Watch;
    use crate::source::Pipeline;

    /// A pipe takes this much without blocking if it takes anything.
    const PIPE_BUF: usize = 4096;

    /// Makes a pipe on standard input as large as a chunk, where the system lets us; it is only faster.
    pub(super) fn prepare(bytes: usize) {
        #[cfg(target_os = "linux")]
        let _ = rustix::pipe::fcntl_setpipe_size(io::stdin(), bytes);
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
    }

    /// Standard input and output, and what ends a wait for them: the log, and a request to stop.
    pub(super) struct Channels {
        wake: WakePipe,
        watch: Watch,
        /// Answers go to standard output.
        answers: bool,
    }

    impl Channels {
        pub(super) fn new(stop: &Stop, log: &Log, answers: bool) -> io::Result<Channels> {
            let wake = WakePipe::new()?;
            stop.on_request(wake.waker());
            let watch = log.watch(wake.waker());
            Ok(Channels { wake, watch, answers })
        }

        /// From here on the log ends a wait when it has moved.
        pub(super) fn arm(&self, pipeline: &mut Pipeline<'_>) -> Result<()> {
            if pipeline.is_waiting() {
                self.watch.arm();
            }
            Ok(())
        }

        pub(super) fn poll(&self, want: Want, wait: Wait) -> io::Result<Ready> {
            let (stdin, stdout) = (io::stdin(), io::stdout());
            // A descriptor whose events are not wanted would still tell of a hang-up, again and again.
            let mut fds = vec![PollFd::from_borrowed_fd(self.wake.fd(), PollFlags::IN)];
            if self.answers {
                let events = if want.output { PollFlags::OUT } else { PollFlags::empty() };
                fds.push(PollFd::new(&stdout, events));
            }
            if want.input {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            let timeout = match wait {
                Wait::No => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
                Wait::ForOutput => Some(Timespec { tv_sec: 5, tv_nsec: 0 }),
                Wait::Forever => None,
            };
            let timed_out = match poll(&mut fds, timeout.as_ref()) {
                Ok(ready) => ready == 0,
                Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
                Err(error) => return Err(error.into()),
            };
            let output = if self.answers { fds[1].revents() } else { PollFlags::empty() };
            // End of file, an error and a file that cannot be polled are found out by reading.
            let input = want.input && fds.last().is_some_and(|input| !input.revents().is_empty());
            let is_woken = !fds[0].revents().is_empty();
            drop(fds);
            if is_woken {
                self.wake.drain();
            }
            let is_deserted = output.intersects(PollFlags::ERR | PollFlags::HUP);
            Ok(Ready { input, output: output.contains(PollFlags::OUT), is_deserted, timed_out })
        }
    }

    /// Reads past the buffer of the standard library, which would only copy.
    pub(super) fn read(chunk: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io::stdin().as_fd(), chunk)?)
    }

    /// Writes what standard output takes without blocking, if it takes anything: all of it where it is an empty pipe.
    pub(super) fn write(text: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        let stdout = stdout.as_fd();
        let room = empty_pipe_bytes(stdout).unwrap_or(PIPE_BUF);
        Ok(rustix::io::write(stdout, &text[..text.len().min(room)])?)
    }

    /// The size of the pipe, if it is one and holds nothing.
    fn empty_pipe_bytes(pipe: std::os::fd::BorrowedFd<'_>) -> Option<usize> {
        #[cfg(target_os = "linux")]
        {
            let bytes = rustix::pipe::fcntl_getpipe_size(pipe).ok()?;
            (rustix::io::ioctl_fionread(pipe).ok()? == 0).then_some(bytes)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = pipe;
            None
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io::{self, Read as _, Write as _};

    use super::{Ready, Wait, Want};
    use crate::daemon::stop::Stop;
    use crate::engine::Log;
    use crate::error::Result;
    use crate::source::Pipeline;

    pub(super) fn prepare(_bytes: usize) {}

    /// A read cannot be ended here.
    pub(super) struct Channels {
        answers: bool,
    }

    impl Channels {
        pub(super) fn new(_stop: &Stop, _log: &Log, answers: bool) -> io::Result<Channels> {
            Ok(Channels { answers })
        }

        /// Nothing can end the read that follows, so a producer that waits for answers gets them before it.
        pub(super) fn arm(&self, pipeline: &mut Pipeline<'_>) -> Result<()> {
            if self.answers { pipeline.drain() } else { Ok(()) }
        }

        /// Nothing is known of the input, so what has been collected goes out before every read.
        pub(super) fn poll(&self, want: Want, wait: Wait) -> io::Result<Ready> {
            let input = want.input && !matches!(wait, Wait::No);
            Ok(Ready { input, output: want.output, ..Ready::default() })
        }
    }

    pub(super) fn read(chunk: &mut [u8]) -> io::Result<usize> {
        io::stdin().lock().read(chunk)
    }

    pub(super) fn write(text: &[u8]) -> io::Result<usize> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text)?;
        stdout.flush()?;
        Ok(text.len())
    }
}
