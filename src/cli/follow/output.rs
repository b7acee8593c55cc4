//! Standard output of a command that follows: a signal ends the wait for a reader that takes nothing.

use std::io::{self, Write};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags};

use crate::control::wait;
use crate::daemon::signals::Signals;

/// Bytes that a pipe takes without blocking when it says that it takes any (POSIX's least PIPE_BUF is 512, Linux's 4096).
const PIECE_BYTES: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// See the module's page.
pub(super) struct Output<'a> {
    signals: &'a Signals,
    stdout: io::Stdout,
    /// A regular file takes any number of bytes at once.
    is_file: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(signals: &'a Signals) -> Output<'a> {
        let stdout = io::stdout();
        let is_file = rustix::fs::fstat(&stdout)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile);
        Output { signals, stdout, is_file }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = if self.is_file { bytes } else { &bytes[..bytes.len().min(PIECE_BYTES)] };
        loop {
            let mut fds = vec![PollFd::new(&self.stdout, PollFlags::OUT)];
            fds.extend(self.signals.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            wait(&mut fds, None)?;
            let is_ready = !fds[0].revents().is_empty();
            if self.signals.received().is_some() {
                return Err(io::Error::other("a signal ended the wait for the output"));
            }
            if is_ready {
                // Past the standard library's buffer, which would only copy.
                return Ok(rustix::io::write(self.stdout.as_fd(), piece)?);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
