//! Standard input, one entry per line: the main job.
//!
//! - Reads in large chunks. While more input is waiting, batches grow to their limit; when none is, what is there goes
//!   out at once, so a slow producer waits for one sync and a fast one is limited by the device's bandwidth.
//! - On Unix it waits for input and for a signal at the same time, so that a signal ends it while the input is idle. What
//!   has been read as complete lines by then is stored; a line without its end is not, and that is logged.
//! - Elsewhere it reads in the foreground and the program ends with its input, or is killed (which costs nothing that
//!   was confirmed).
//!
//! Proof: `tests/it/daemon.rs`.

use std::io;

use tracing::warn;

use super::Pipeline;
use super::framing::{Frame, Framer, LINE_BYTES_MAX};
use crate::daemon::signals::{Signal, Signals};
use crate::error::{Error, Result};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a source ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Its input ended.
    Input,
    /// It was told to stop.
    Signal(Signal),
}

/// Reads lines until the input ends or a signal arrives, and waits until all of them are confirmed.
pub(crate) fn run(pipeline: &mut Pipeline<'_>, signals: &Signals) -> Result<End> {
    let mut framer = Framer::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    platform::prepare(CHUNK_BYTES);
    loop {
        if let Some(signal) = signals.received() {
            let bytes = framer.partial_bytes();
            if bytes > 0 {
                warn!("{bytes} bytes of a line whose end had not arrived by {signal} were not stored");
            }
            pipeline.drain()?;
            return Ok(End::Signal(signal));
        }
        let Some(bytes) = read(&mut chunk, pipeline, signals)? else { continue };
        if bytes == 0 {
            framer.finish(|frame| take(pipeline, frame))?;
            pipeline.drain()?;
            return Ok(End::Input);
        }
        framer.feed(&chunk[..bytes], |frame| take(pipeline, frame))?;
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
            Ok(())
        }
    }
}

/// The next chunk's length, 0 at the end; `None` when there is something else to look at.
fn read(chunk: &mut [u8], pipeline: &mut Pipeline<'_>, signals: &Signals) -> Result<Option<usize>> {
    let failed = |error: io::Error| Error::io("read", "standard input", error);
    if !platform::is_ready(signals, platform::Wait::No).map_err(failed)? {
        pipeline.submit()?;
        pipeline.reap()?;
        // While batches are on their way their failure must not go unnoticed, however long the input stays idle.
        let wait = if pipeline.is_waiting() { platform::Wait::Briefly } else { platform::Wait::Forever };
        if !platform::is_ready(signals, wait).map_err(failed)? {
            return Ok(None);
        }
    }
    match platform::read(chunk) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(unix)]
mod platform {
    use std::io;
    use std::os::fd::AsFd as _;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use crate::daemon::signals::Signals;

    /// How long to wait for input.
    #[derive(Clone, Copy)]
    pub(super) enum Wait {
        No,
        Briefly,
        Forever,
    }

    /// Makes a pipe on standard input as large as a chunk, where the system lets us; it is only faster.
    pub(super) fn prepare(bytes: usize) {
        #[cfg(target_os = "linux")]
        let _ = rustix::pipe::fcntl_setpipe_size(io::stdin(), bytes);
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
    }

    /// Waits for input (true: a read returns at once) or for a signal.
    pub(super) fn is_ready(signals: &Signals, wait: Wait) -> io::Result<bool> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(signals.wake(), PollFlags::IN)];
        let timeout = match wait {
            Wait::No => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
            Wait::Briefly => Some(Timespec { tv_sec: 0, tv_nsec: 10_000_000 }),
            Wait::Forever => None,
        };
        match poll(&mut fds, timeout.as_ref()) {
            // End of file, an error and a file that cannot be polled are found out by reading.
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads past the buffer of the standard library, which would only copy.
    pub(super) fn read(chunk: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io::stdin().as_fd(), chunk)?)
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io::{self, Read as _};

    use crate::daemon::signals::Signals;

    /// How long to wait for input: reading waits by itself here.
    #[derive(Clone, Copy)]
    pub(super) enum Wait {
        No,
        Briefly,
        Forever,
    }

    pub(super) fn prepare(_bytes: usize) {}

    /// Nothing is known of the input, so what has been collected goes out before every read.
    pub(super) fn is_ready(_signals: &Signals, wait: Wait) -> io::Result<bool> {
        Ok(!matches!(wait, Wait::No))
    }

    pub(super) fn read(chunk: &mut [u8]) -> io::Result<usize> {
        io::stdin().lock().read(chunk)
    }
}
