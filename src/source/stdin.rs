//! Standard input, one entry per line: the main job.
//!
//! - Reads in large chunks. While more input is waiting, batches grow to their limit; when none is, what is there goes
//!   out at once, so a slow producer waits for one sync and a fast one is limited by the device's bandwidth.
//! - On Unix it waits for input and for a stop at the same time, so that a signal ends it while the input is idle. What
//!   has been read as complete lines by then is stored; a line without its end is not, and that is logged.
//! - Elsewhere it reads in the foreground and the program ends with its input, or is killed (which costs nothing that
//!   was confirmed).
//!
//! Proof: `tests/it/daemon.rs`.

use std::io;

use tracing::{debug, warn};

use super::framing::{Frame, Framer, LINE_BYTES_MAX};
use super::{Context, Pipeline};
use crate::config::sources::StdinSource;
use crate::daemon::stop::Stop;
use crate::error::{Error, Result};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Standard input, ready to be read.
pub(crate) struct Stdin<'a> {
    pipeline: Pipeline<'a>,
    stop: &'a Stop,
    wake: platform::Wake,
}

impl<'a> Stdin<'a> {
    /// Takes nothing yet.
    pub(crate) fn open(config: &StdinSource, context: Context<'a>) -> Result<Stdin<'a>> {
        let name = config.name.as_deref().unwrap_or("stdin");
        let source = context.names.id(name).map_err(Error::InvalidOption)?;
        let wake = platform::Wake::new(context.stop).map_err(|cause| Error::io("prepare", "standard input", cause))?;
        platform::prepare(CHUNK_BYTES);
        Ok(Stdin { pipeline: Pipeline::new(context, source), stop: context.stop, wake })
    }

    /// Reads lines until the input ends (true) or a stop is requested, and waits until all of them are confirmed.
    pub(crate) fn run(mut self) -> Result<bool> {
        let outcome = self.read_all();
        if let Err(error) = &outcome {
            // What was read before the input failed is as good as any other; after a failure of the log this fails, too.
            warn!("standard input: {error}");
            if let Err(error) = self.pipeline.drain() {
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
                let bytes = framer.partial_bytes();
                if bytes > 0 {
                    warn!(
                        "{bytes} bytes of a line whose end had not arrived when the daemon was stopped were not stored"
                    );
                }
                self.pipeline.drain()?;
                return Ok(false);
            }
            let Some(bytes) = self.read(&mut chunk)? else { continue };
            if bytes == 0 {
                framer.finish(|frame| take(&mut self.pipeline, frame))?;
                self.pipeline.drain()?;
                return Ok(true);
            }
            framer.feed(&chunk[..bytes], |frame| take(&mut self.pipeline, frame))?;
        }
    }

    /// The next chunk's length, 0 at the end; `None` when there is something else to look at.
    fn read(&mut self, chunk: &mut [u8]) -> Result<Option<usize>> {
        let failed = |error: io::Error| Error::io("read", "standard input", error);
        if !self.wake.is_ready(platform::Wait::No).map_err(failed)? {
            self.pipeline.submit()?;
            self.pipeline.reap()?;
            // While batches are on their way their failure must not go unnoticed, however long the input stays idle.
            let wait = if self.pipeline.is_waiting() { platform::Wait::Briefly } else { platform::Wait::Forever };
            if !self.wake.is_ready(wait).map_err(failed)? {
                return Ok(None);
            }
        }
        match platform::read(chunk) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(None),
            Err(error) => Err(failed(error)),
        }
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

#[cfg(unix)]
mod platform {
    use std::io;
    use std::os::fd::AsFd as _;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use crate::daemon::stop::Stop;
    use crate::daemon::wake::WakePipe;

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

    /// Ends a wait for input when a stop is requested.
    pub(super) struct Wake(WakePipe);

    impl Wake {
        pub(super) fn new(stop: &Stop) -> io::Result<Wake> {
            let pipe = WakePipe::new()?;
            stop.on_request(pipe.waker());
            Ok(Wake(pipe))
        }

        /// Waits for input (true: a read returns at once) or for the request to stop.
        pub(super) fn is_ready(&self, wait: Wait) -> io::Result<bool> {
            let stdin = io::stdin();
            let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(self.0.fd(), PollFlags::IN)];
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
    }

    /// Reads past the buffer of the standard library, which would only copy.
    pub(super) fn read(chunk: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io::stdin().as_fd(), chunk)?)
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io::{self, Read as _};

    use crate::daemon::stop::Stop;

    /// How long to wait for input: reading waits by itself here.
    #[derive(Clone, Copy)]
    pub(super) enum Wait {
        No,
        Briefly,
        Forever,
    }

    pub(super) fn prepare(_bytes: usize) {}

    /// A read cannot be ended here.
    pub(super) struct Wake;

    impl Wake {
        pub(super) fn new(_stop: &Stop) -> io::Result<Wake> {
            Ok(Wake)
        }

        /// Nothing is known of the input, so what has been collected goes out before every read.
        pub(super) fn is_ready(&self, wait: Wait) -> io::Result<bool> {
            Ok(!matches!(wait, Wait::No))
        }
    }

    pub(super) fn read(chunk: &mut [u8]) -> io::Result<usize> {
        io::stdin().lock().read(chunk)
    }
}
