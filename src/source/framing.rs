//! Cuts a stream of bytes into lines, across any boundaries it is read at.
//!
//! - A line ends with LF or CR LF, which do not belong to it. Bytes are not interpreted: no encoding, no trimming.
//! - Empty lines are skipped. A last line without LF counts ([`Framer::finish`]).
//! - A line above [`LINE_BYTES_MAX`] is refused once, as soon as that is known, and skipped up to its end; no more than
//!   the limit (and one byte, for a CR) is ever kept of a line.
//! - Lines that lie within one chunk are not copied.
//!
//! Proof: the property test cuts random input at random places and compares with a one-piece model.

use crate::format::ENTRY_PAYLOAD_BYTES_MAX;

/// Longest line, without its line end, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = ENTRY_PAYLOAD_BYTES_MAX;

/// What the framer found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Frame<'a> {
    /// A line, not empty.
    Line(&'a [u8]),
    /// A line that is too long; nothing of it is handed over.
    Refused {
        /// Counted from 1, empty lines included.
        line: u64,
        /// Of its first byte in the stream, counted from 0.
        offset: u64,
    },
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Framer {
    /// The beginning of a line whose end has not been seen.
    partial: Vec<u8>,
    /// The line being read was refused; its bytes are dropped.
    skipping: bool,
    /// Number of the line being read.
    line: u64,
    /// Of the first byte of the line being read.
    line_offset: u64,
    /// Bytes fed so far.
    offset: u64,
    line_bytes_max: usize,
}

impl Framer {
    pub(crate) fn new() -> Framer {
        Framer::with_limit(LINE_BYTES_MAX)
    }

    fn with_limit(line_bytes_max: usize) -> Framer {
        Framer { partial: Vec::new(), skipping: false, line: 1, line_offset: 0, offset: 0, line_bytes_max }
    }

    /// Takes the next piece of the stream and hands each line that ends in it to `emit`; stops at its first error.
    pub(crate) fn feed<E>(&mut self, chunk: &[u8], mut emit: impl FnMut(Frame<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            self.end_line(&chunk[start..end], &mut emit)?;
            start = end + 1;
            self.line += 1;
            self.line_offset = self.offset + start as u64;
        }
        self.offset += chunk.len() as u64;
        self.keep(&chunk[start..], &mut emit)
    }

    /// Ends the line being read with the bytes before its LF.
    fn end_line<E>(&mut self, tail: &[u8], emit: &mut impl FnMut(Frame<'_>) -> Result<(), E>) -> Result<(), E> {
        if std::mem::take(&mut self.skipping) {
            return Ok(());
        }
        let refused = Frame::Refused { line: self.line, offset: self.line_offset };
        if self.partial.len() + tail.len() > self.line_bytes_max + 1 {
            self.partial.clear();
            return emit(refused);
        }
        let line = if self.partial.is_empty() {
            tail
        } else {
            self.partial.extend_from_slice(tail);
            &self.partial
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let outcome = match line.len() {
            0 => Ok(()),
            bytes if bytes > self.line_bytes_max => emit(refused),
            _ => emit(Frame::Line(line)),
        };
        self.partial.clear();
        outcome
    }

    /// Keeps the beginning of a line for the next chunk, or refuses the line if no line end could save it any more.
    fn keep<E>(&mut self, tail: &[u8], emit: &mut impl FnMut(Frame<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.skipping || tail.is_empty() {
            return Ok(());
        }
        let bytes = self.partial.len() + tail.len();
        let may_end_with_cr = bytes == self.line_bytes_max + 1 && tail.ends_with(b"\r");
        if bytes <= self.line_bytes_max || may_end_with_cr {
            self.partial.extend_from_slice(tail);
            return Ok(());
        }
        self.partial.clear();
        self.skipping = true;
        emit(Frame::Refused { line: self.line, offset: self.line_offset })
    }

    /// Ends the stream: a last line without LF is a line, byte for byte (a CR at its end is not a line end).
    pub(crate) fn finish<E>(&mut self, emit: impl FnOnce(Frame<'_>) -> Result<(), E>) -> Result<(), E> {
        match self.partial.len() {
            0 => Ok(()),
            bytes if bytes > self.line_bytes_max => emit(Frame::Refused { line: self.line, offset: self.line_offset }),
            _ => emit(Frame::Line(&self.partial)),
        }
    }

    /// Bytes read of a line whose end has not been seen.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.partial.len()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Seen {
        Line(Vec<u8>),
        Refused(u64, u64),
    }

    fn see(frame: Frame<'_>, seen: &mut Vec<Seen>) -> Result<(), Infallible> {
        seen.push(match frame {
            Frame::Line(line) => Seen::Line(line.to_vec()),
            Frame::Refused { line, offset } => Seen::Refused(line, offset),
        });
        Ok(())
    }

    fn frames(chunks: &[&[u8]], line_bytes_max: usize) -> Vec<Seen> {
        let mut framer = Framer::with_limit(line_bytes_max);
        let mut seen = Vec::new();
        for chunk in chunks {
            let Ok(()) = framer.feed(chunk, |frame| see(frame, &mut seen));
            assert!(framer.partial.len() <= line_bytes_max + 1, "more than the limit is kept");
        }
        let Ok(()) = framer.finish(|frame| see(frame, &mut seen));
        seen
    }

    fn line(text: &str) -> Seen {
        Seen::Line(text.as_bytes().to_vec())
    }

    #[test]
    fn line_ends_empty_lines_and_a_last_line_without_one() {
        let seen = frames(&[b"a\nb\r\n\n\r\n c \r\r\n\xff\0", b"\xfe\nlast"], 100);
        let odd = Seen::Line(b"\xff\0\xfe".to_vec());
        assert_eq!(seen, [line("a"), line("b"), line(" c \r"), odd, line("last")]);
        assert_eq!(frames(&[b"a\r", b"\nb\r"], 100), [line("a"), line("b\r")]);
        assert_eq!(frames(&[b"", b"\n", b"\n"], 100), []);
    }

    #[test]
    fn a_line_at_the_limit_is_taken_and_one_above_is_refused_with_its_place() {
        assert_eq!(frames(&[b"12345678\r\n"], 8), [line("12345678")]);
        assert_eq!(frames(&[b"12345678", b"\r", b"\n1"], 8), [line("12345678"), line("1")]);
        assert_eq!(frames(&[b"ab\n123456789\ncd\n"], 8), [line("ab"), Seen::Refused(2, 3), line("cd")]);
        assert_eq!(frames(&[b"ab\n1234", b"5678\r9", b"0\n\ncd"], 8), [line("ab"), Seen::Refused(2, 3), line("cd")]);
        assert_eq!(frames(&[b"\n12345678\r"], 8), [Seen::Refused(2, 1)]);
        assert_eq!(frames(&[b"123456789", b"", b"still the same line"], 8), [Seen::Refused(1, 0)]);
    }

    #[test]
    fn a_refused_line_is_reported_before_it_ends() {
        let mut framer = Framer::with_limit(8);
        let mut seen = Vec::new();
        let Ok(()) = framer.feed(b"123456789", |frame| see(frame, &mut seen));
        assert_eq!(seen, [Seen::Refused(1, 0)]);
        assert_eq!(framer.partial_bytes(), 0);
    }

    /// The rules, without chunks.
    fn model(input: &[u8], line_bytes_max: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        let (mut offset, mut number) = (0, 1);
        let mut pieces = input.split(|&byte| byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let ended = pieces.peek().is_some();
            let text = if ended { piece.strip_suffix(b"\r").unwrap_or(piece) } else { piece };
            if text.len() > line_bytes_max {
                seen.push(Seen::Refused(number, offset));
            } else if !text.is_empty() {
                seen.push(Seen::Line(text.to_vec()));
            }
            offset += piece.len() as u64 + 1;
            number += 1;
        }
        seen
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_where_the_stream_is_cut(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x'), any::<u8>()], 0..80),
            cuts in proptest::collection::vec(1usize..12, 80),
        ) {
            let mut chunks = Vec::new();
            let (mut rest, mut cuts) = (&input[..], cuts.into_iter());
            while !rest.is_empty() {
                let (chunk, behind) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                chunks.push(chunk);
                rest = behind;
            }
            prop_assert_eq!(frames(&chunks, 6), model(&input, 6));
        }
    }
}
