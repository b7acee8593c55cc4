//! Cuts a stream of bytes into entries, across any boundaries it is read at.
//!
//! | framing | an entry is |
//! |---|---|
//! | newline | what LF or CR LF ends, without them |
//! | nul | what a zero byte ends, without it |
//! | octet | RFC 6587, section 3.4.1: a decimal length without leading zeros, a space, that many bytes |
//!
//! - Bytes are not interpreted: no encoding, no trimming. Empty lines are skipped; octet counting has none.
//! - A line above the limit is refused once, as soon as that is known, and skipped up to its end; no more than the limit
//!   (and one byte, for a CR) is ever kept of a line. A length that cannot be read ends the stream: nothing tells where
//!   the next entry begins.
//! - Lines that lie within one chunk are not copied, and between two lines nothing is held.
//!
//! Whether a last line without its end counts is the caller's to say: [`Framer::finish`] for standard input,
//! [`Framer::is_within_line`] for connections.
//!
//! Proof: the property tests cut random input at random places and compare with one-piece models.
#![cfg_attr(not(unix), allow(dead_code, reason = "sockets, which need it, are for Unix"))]

use memchr::memchr;

use crate::config::sources::Framing;
use crate::format::ENTRY_PAYLOAD_BYTES_MAX;

/// Longest line, without its line end, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = ENTRY_PAYLOAD_BYTES_MAX;

/// Most digits of a length that is read: more cannot be meant.
const DIGITS_MAX: u32 = 9;

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
    /// What should be a length is none. Nothing that follows can be understood; feed no more.
    Malformed {
        /// Of the frame's first byte in the stream, counted from 0.
        offset: u64,
    },
}

/// Where in a line the framer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Within {
    /// In a line that ends with a delimiter, or in front of one. Its bytes so far are kept.
    Line,
    /// In a line that was refused: its bytes are dropped, up to the delimiter.
    Skipped,
    /// In the length of a counted entry.
    Length { value: usize, digits: u32 },
    /// In a counted entry of this many bytes. Its bytes so far are kept.
    Counted(usize),
    /// In a counted entry that was refused: so many bytes are still to be dropped.
    Dropped(usize),
}

const NO_LENGTH: Within = Within::Length { value: 0, digits: 0 };

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Framer {
    framing: Framing,
    within: Within,
    /// The beginning of a line whose end has not been seen.
    partial: Vec<u8>,
    /// What `partial` holds was handed out as a line.
    is_spent: bool,
    /// Number of the line being read.
    line: u64,
    /// Of the first byte of the line being read.
    line_offset: u64,
    /// Bytes taken so far.
    offset: u64,
    line_bytes_max: usize,
}

impl Framer {
    /// For lines that end with LF.
    pub(crate) fn new() -> Framer {
        Framer::with(Framing::Newline, LINE_BYTES_MAX)
    }

    /// For this framing and longest line.
    pub(crate) fn with(framing: Framing, line_bytes_max: usize) -> Framer {
        let within = if framing == Framing::Octet { NO_LENGTH } else { Within::Line };
        Framer {
            framing,
            within,
            partial: Vec::new(),
            is_spent: false,
            line: 1,
            line_offset: 0,
            offset: 0,
            line_bytes_max,
        }
    }

    /// Takes the next piece of the stream and hands each line that ends in it to `emit`; stops at its first error.
    pub(crate) fn feed<E>(
        &mut self,
        mut chunk: &[u8],
        mut emit: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(frame) = self.next(&mut chunk) {
            emit(frame)?;
        }
        Ok(())
    }

    /// Takes bytes off the front of `input` until a line ends in it or is refused; `None` when it is used up.
    pub(crate) fn next<'a, 'c: 'a>(&'a mut self, input: &mut &'c [u8]) -> Option<Frame<'a>> {
        if std::mem::take(&mut self.is_spent) {
            self.partial = Vec::new();
        }
        match self.framing {
            Framing::Newline => self.next_delimited(b'\n', input),
            Framing::Nul => self.next_delimited(0, input),
            Framing::Octet => self.next_counted(input),
        }
    }

    fn next_delimited<'a, 'c: 'a>(&'a mut self, delimiter: u8, input: &mut &'c [u8]) -> Option<Frame<'a>> {
        loop {
            let Some(end) = memchr(delimiter, input) else { return self.keep(input) };
            let refused = self.refused();
            let tail = self.take(input, end);
            self.take(input, 1);
            self.end_line();
            if std::mem::replace(&mut self.within, Within::Line) == Within::Skipped {
                continue;
            }
            if self.partial.len() + tail.len() > self.line_bytes_max + 1 {
                self.partial = Vec::new();
                return Some(refused);
            }
            let is_joined = !self.partial.is_empty();
            if is_joined {
                self.partial.extend_from_slice(tail);
            }
            let line = if is_joined { &self.partial } else { tail };
            let has_cr = self.framing == Framing::Newline && line.ends_with(b"\r");
            let bytes = line.len() - usize::from(has_cr);
            if bytes > self.line_bytes_max || bytes == 0 {
                self.partial = Vec::new();
            }
            match bytes {
                0 => {}
                _ if bytes > self.line_bytes_max => return Some(refused),
                _ if is_joined => {
                    self.is_spent = true;
                    return Some(Frame::Line(&self.partial[..bytes]));
                }
                _ => return Some(Frame::Line(&tail[..bytes])),
            }
        }
    }

    /// Keeps the beginning of a line for the next chunk, or refuses the line if no line end could save it any more.
    fn keep(&mut self, input: &mut &[u8]) -> Option<Frame<'static>> {
        let tail = self.take(input, input.len());
        if self.within == Within::Skipped || tail.is_empty() {
            return None;
        }
        let bytes = self.partial.len() + tail.len();
        let may_be_cr = self.framing == Framing::Newline && bytes == self.line_bytes_max + 1 && tail.ends_with(b"\r");
        if bytes <= self.line_bytes_max || may_be_cr {
            self.partial.extend_from_slice(tail);
            return None;
        }
        self.refuse();
        Some(self.refused())
    }

    fn next_counted<'a, 'c: 'a>(&'a mut self, input: &mut &'c [u8]) -> Option<Frame<'a>> {
        while !input.is_empty() {
            match self.within {
                Within::Length { value, digits } => {
                    let byte = self.take(input, 1)[0];
                    match byte {
                        b'0'..=b'9' if digits < DIGITS_MAX && (byte, digits) != (b'0', 0) => {
                            let value = value * 10 + usize::from(byte - b'0');
                            self.within = Within::Length { value, digits: digits + 1 };
                        }
                        b' ' if digits > 0 && value > self.line_bytes_max => {
                            self.within = Within::Dropped(value);
                            return Some(self.refused());
                        }
                        b' ' if digits > 0 => self.within = Within::Counted(value),
                        _ => return Some(Frame::Malformed { offset: self.line_offset }),
                    }
                }
                Within::Counted(bytes) => {
                    let missing = bytes - self.partial.len();
                    let tail = self.take(input, missing.min(input.len()));
                    let is_joined = !self.partial.is_empty();
                    if is_joined || tail.len() < missing {
                        self.partial.extend_from_slice(tail);
                    }
                    if tail.len() < missing {
                        return None;
                    }
                    self.within = NO_LENGTH;
                    self.end_line();
                    if !is_joined {
                        return Some(Frame::Line(tail));
                    }
                    self.is_spent = true;
                    return Some(Frame::Line(&self.partial));
                }
                Within::Dropped(left) => {
                    let dropped = self.take(input, left.min(input.len())).len();
                    self.within = Within::Dropped(left - dropped);
                    if dropped == left {
                        self.within = NO_LENGTH;
                        self.end_line();
                    }
                }
                Within::Line | Within::Skipped => unreachable!("these end with a delimiter"),
            }
        }
        None
    }

    fn take<'c>(&mut self, input: &mut &'c [u8], bytes: usize) -> &'c [u8] {
        let (taken, rest) = input.split_at(bytes);
        *input = rest;
        self.offset += bytes as u64;
        taken
    }

    fn end_line(&mut self) {
        self.line += 1;
        self.line_offset = self.offset;
    }

    fn refused(&self) -> Frame<'static> {
        Frame::Refused { line: self.line, offset: self.line_offset }
    }

    /// Gives the line being read up: what is held of it is freed, and the rest will be skipped.
    pub(crate) fn refuse(&mut self) {
        self.within = match self.within {
            Within::Line => Within::Skipped,
            Within::Counted(bytes) => Within::Dropped(bytes - self.partial.len()),
            other => other,
        };
        self.partial = Vec::new();
    }

    /// Ends the stream: a last line without LF is a line, byte for byte (a CR at its end is not a line end).
    pub(crate) fn finish<E>(&mut self, emit: impl FnOnce(Frame<'_>) -> Result<(), E>) -> Result<(), E> {
        match self.partial_bytes() {
            0 => Ok(()),
            bytes if bytes > self.line_bytes_max => emit(self.refused()),
            _ => emit(Frame::Line(&self.partial)),
        }
    }

    /// Bytes read of a line whose end has not been seen.
    pub(crate) fn partial_bytes(&self) -> usize {
        if self.is_spent { 0 } else { self.partial.len() }
    }

    /// Whether a line has begun and not ended, refused or not.
    pub(crate) fn is_within_line(&self) -> bool {
        self.partial_bytes() > 0 || !matches!(self.within, Within::Line | NO_LENGTH)
    }

    /// Memory held for the line being read.
    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.capacity()
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
        Malformed(u64),
    }

    fn see(frame: Frame<'_>, seen: &mut Vec<Seen>) -> Result<(), Infallible> {
        seen.push(match frame {
            Frame::Line(line) => Seen::Line(line.to_vec()),
            Frame::Refused { line, offset } => Seen::Refused(line, offset),
            Frame::Malformed { offset } => Seen::Malformed(offset),
        });
        Ok(())
    }

    fn frames(chunks: &[&[u8]], line_bytes_max: usize) -> Vec<Seen> {
        let mut framer = Framer::with(Framing::Newline, line_bytes_max);
        let mut seen = Vec::new();
        for chunk in chunks {
            let Ok(()) = framer.feed(chunk, |frame| see(frame, &mut seen));
            assert!(framer.partial.len() <= line_bytes_max + 1, "more than the limit is kept");
            assert_eq!(framer.held_bytes() == 0, framer.partial.is_empty(), "memory without bytes");
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
        let mut framer = Framer::with(Framing::Newline, 8);
        let mut seen = Vec::new();
        let Ok(()) = framer.feed(b"123456789", |frame| see(frame, &mut seen));
        assert_eq!(seen, [Seen::Refused(1, 0)]);
        assert_eq!(framer.partial_bytes(), 0);
    }

    /// What comes out of a connection: its last line does not count without its end.
    fn connection(framing: Framing, chunks: &[&[u8]], line_bytes_max: usize) -> (Vec<Seen>, bool) {
        let mut framer = Framer::with(framing, line_bytes_max);
        let mut seen = Vec::new();
        for mut chunk in chunks.iter().copied() {
            while let Some(frame) = framer.next(&mut chunk) {
                let Ok(()) = see(frame, &mut seen);
                if matches!(frame, Frame::Malformed { .. }) {
                    return (seen, false);
                }
            }
            assert!(framer.partial.len() <= line_bytes_max + 1, "more than the limit is kept");
        }
        (seen, framer.is_within_line())
    }

    #[test]
    fn a_zero_byte_ends_a_line_that_may_hold_anything_else() {
        let (seen, within) = connection(Framing::Nul, &[b"a\r\n\0", b"\0b", b"c\r", b"\0d"], 100);
        assert_eq!((seen, within), (vec![line("a\r\n"), line("bc\r")], true));
        let (seen, _) = connection(Framing::Nul, &[b"12345678\0", b"12345678\r\0x\0"], 8);
        assert_eq!(seen, [line("12345678"), Seen::Refused(2, 9), line("x")]);
    }

    #[test]
    fn counted_entries_may_hold_anything_and_a_length_that_is_none_ends_them() {
        let of = |chunks: &[&[u8]]| connection(Framing::Octet, chunks, 8);
        assert_eq!(of(&[b"3 a\nb1 x8 ", b"1234", b"5678"]), (vec![line("a\nb"), line("x"), line("12345678")], false));
        assert_eq!(of(&[b"9 123456789", b"2 ab"]), (vec![Seen::Refused(1, 0), line("ab")], false));
        assert_eq!(of(&[b"1 a11 12345", b"678901", b"2 ab"]).0, [line("a"), Seen::Refused(2, 3), line("ab")]);
        for (input, offset) in
            [("x", 0), ("0 ", 0), ("01 a", 0), (" ", 0), ("1 a 1 b", 3), ("1234567890 ", 0), ("1-", 0)]
        {
            assert_eq!(of(&[input.as_bytes()]).0.last(), Some(&Seen::Malformed(offset)), "{input}");
        }
        for unfinished in ["1", "12 ", "3 ab", "9 1234"] {
            assert!(of(&[unfinished.as_bytes()]).1, "{unfinished}");
        }
    }

    #[test]
    fn a_line_that_is_given_up_frees_its_memory_and_is_skipped_to_its_end() {
        for (framing, start, rest) in [(Framing::Newline, "abc", "def\nx\n"), (Framing::Octet, "6 abc", "def1 x")] {
            let mut framer = Framer::with(framing, 100);
            assert_eq!(framer.next(&mut start.as_bytes()), None);
            assert!(framer.held_bytes() > 0);
            framer.refuse();
            assert_eq!((framer.held_bytes(), framer.is_within_line()), (0, true));
            assert_eq!(framer.next(&mut rest.as_bytes()), Some(Frame::Line(b"x")), "{framing:?}");
        }
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

        #[test]
        fn counted_entries_do_not_depend_on_where_the_stream_is_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9), 0..9),
            cut in 1usize..12,
        ) {
            let mut input = Vec::new();
            let mut expected = Vec::new();
            for (index, payload) in payloads.into_iter().enumerate() {
                let offset = input.len() as u64;
                input.extend_from_slice(format!("{} ", payload.len()).as_bytes());
                input.extend_from_slice(&payload);
                let fits = payload.len() <= 6;
                expected.push(if fits { Seen::Line(payload) } else { Seen::Refused(index as u64 + 1, offset) });
            }
            let chunks: Vec<&[u8]> = input.chunks(cut).collect();
            prop_assert_eq!(connection(Framing::Octet, &chunks, 6), (expected, false));
        }
    }
}
