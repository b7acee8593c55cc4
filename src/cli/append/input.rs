//! The entries to append: the text of the command line, or the lines of standard input.

use std::ffi::OsString;
use std::io::{self, Read as _};

use super::{Ended, Tally};
use crate::cli::exit::{Exit, Failure};
use crate::source::framing::{Frame, Framer, LINE_BYTES_MAX};

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// See the module's page.
pub(super) struct Input {
    /// What the command line gave, until it is taken.
    text: Option<Vec<u8>>,
    /// Lines of standard input; `None` behind its end, or where it is not read.
    framer: Option<Framer>,
    chunk: Vec<u8>,
    /// Entries handed over so far.
    count: u64,
}

impl Input {
    /// The input that the argument stands for.
    pub(super) fn new(text: OsString) -> Result<Input, Failure> {
        if text == "-" {
            return Ok(Input { text: None, framer: Some(Framer::new()), chunk: vec![0; CHUNK_BYTES], count: 0 });
        }
        if text.is_empty() {
            return Err(Failure::new(Exit::Usage, "the entry is empty; give it a text, or - to read standard input"));
        }
        let text = text.into_encoded_bytes();
        if text.len() > LINE_BYTES_MAX {
            let what = format!("the entry is refused: longer than {LINE_BYTES_MAX} bytes; nothing was stored");
            return Err(Failure::new(Exit::NotStored, what));
        }
        Ok(Input { text: Some(text), framer: None, chunk: Vec::new(), count: 0 })
    }

    /// Whether nothing more comes.
    pub(super) fn is_at_end(&self) -> bool {
        self.text.is_none() && self.framer.is_none()
    }

    /// Whether [`Input::take`] may have to wait for somebody.
    #[cfg(unix)]
    pub(super) fn is_stdin(&self) -> bool {
        self.framer.is_some()
    }

    /// Whether more can be taken without waiting for somebody.
    pub(super) fn has_more(&self) -> bool {
        #[cfg(unix)]
        {
            use rustix::event::{PollFd, PollFlags};
            let stdin = io::stdin();
            let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
            let polled = crate::control::wait(&mut fds, Some(std::time::Duration::ZERO));
            !self.is_at_end() && polled.is_ok() && !fds[0].revents().is_empty()
        }
        // Nothing is known of the input, so nothing waits for it.
        #[cfg(not(unix))]
        false
    }

    /// Reads once and hands over the entries that are whole by then, each with its number.
    pub(super) fn take(
        &mut self,
        tally: &mut Tally,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        if let Some(text) = self.text.take() {
            return each(1, &text);
        }
        let Some(framer) = &mut self.framer else { return Ok(()) };
        let count = &mut self.count;
        let mut take = |frame: Frame<'_>| match frame {
            Frame::Line(line) => {
                *count += 1;
                each(*count, line)
            }
            Frame::Refused { line, offset } => {
                let what = format_args!("line {line} of standard input (from byte {offset} on)");
                tally.refuse(what, format_args!("longer than {LINE_BYTES_MAX} bytes"));
                Ok(())
            }
            Frame::Malformed { .. } => unreachable!("lines have no length in front"),
        };
        match io::stdin().lock().read(&mut self.chunk) {
            Ok(0) => {
                framer.finish(&mut take)?;
                self.framer = None;
                Ok(())
            }
            Ok(bytes) => framer.feed(&self.chunk[..bytes], take),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(()),
            Err(error) => Err(Ended::Failed(Failure::new(Exit::Io, format!("cannot read standard input: {error}")))),
        }
    }
}
