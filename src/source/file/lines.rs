//! Cuts a piece of a file into lines, from an offset on, and says how far it came.
//!
//! The rules are those of [`framing`](crate::source::framing); what is different is who keeps an unfinished line: the
//! file does. So nothing is kept here, and the caller comes back with the same bytes and more behind them.
//!
//! - Takes lines until they end, or until the taker has no room; what it refused is not consumed.
//! - A line that is too long is refused once, as soon as that is known; its rest is skipped, in this call and the next.
//!
//! Proof: the property test lets a file grow in random steps and compares with a one-piece model.

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Piece<'a> {
    /// A line, not empty.
    Line(&'a [u8]),
    /// A line that is too long, by the offset of its first byte; nothing of it is handed over.
    Refused(u64),
}

/// What the bytes at an offset begin with that is not to become an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Skip {
    #[default]
    Nothing = 0,
    /// The rest of a line that was refused.
    Line = 1,
    /// Zero bytes that nobody wrote: a hole in front of a writer that went on at its old offset, or what a power cut left.
    Zeros = 2,
}

/// How far it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cut {
    /// Bytes that are done with.
    pub(crate) consumed: usize,
    pub(crate) skip: Skip,
    /// Zero bytes skipped.
    pub(crate) zeros: usize,
    /// The taker had no room.
    pub(crate) is_full: bool,
}

/// Cuts `data`; offsets of refused lines are relative to it. `take` says whether it took the piece.
pub(crate) fn cut(data: &[u8], skip: Skip, line_bytes_max: usize, take: &mut dyn FnMut(Piece<'_>) -> bool) -> Cut {
    let mut cut = Cut { consumed: 0, skip, zeros: 0, is_full: false };
    if cut.skip == Skip::Zeros {
        cut.zeros = data.iter().position(|&byte| byte != 0).unwrap_or(data.len());
        cut.consumed = cut.zeros;
        if cut.zeros < data.len() {
            cut.skip = Skip::Nothing;
        }
    }
    if cut.skip == Skip::Line {
        let Some(end) = memchr::memchr(b'\n', data) else { return Cut { consumed: data.len(), ..cut } };
        (cut.consumed, cut.skip) = (end + 1, Skip::Nothing);
    }
    let start = cut.consumed;
    for end in memchr::memchr_iter(b'\n', &data[start..]).map(|end| start + end) {
        let line = &data[cut.consumed..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_taken = match line.len() {
            0 => true,
            bytes if bytes > line_bytes_max => take(Piece::Refused(cut.consumed as u64)),
            _ => take(Piece::Line(line)),
        };
        if !is_taken {
            return Cut { is_full: true, ..cut };
        }
        cut.consumed = end + 1;
    }
    let rest = &data[cut.consumed..];
    let may_end_with_cr = rest.len() == line_bytes_max + 1 && rest.ends_with(b"\r");
    if rest.len() > line_bytes_max && !may_end_with_cr {
        match take(Piece::Refused(cut.consumed as u64)) {
            true => (cut.consumed, cut.skip) = (data.len(), Skip::Line),
            false => cut.is_full = true,
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 6;

    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Seen {
        Line(Vec<u8>),
        Refused(u64),
    }

    fn seen(piece: Piece<'_>, base: usize) -> Seen {
        match piece {
            Piece::Line(line) => Seen::Line(line.to_vec()),
            Piece::Refused(offset) => Seen::Refused(base as u64 + offset),
        }
    }

    /// Cuts a file that grows by these steps, with a taker that has room for `room` pieces at a time.
    fn grow(input: &[u8], steps: &[usize], room: usize) -> Vec<Seen> {
        let (mut all, mut offset, mut len, mut skip) = (Vec::new(), 0, 0, Skip::Nothing);
        for step in steps.iter().chain([&input.len()]) {
            len = (len + step).min(input.len());
            loop {
                let mut left = room;
                let cut = cut(&input[offset..len], skip, MAX, &mut |piece| {
                    let has_room = left > 0;
                    if has_room {
                        left -= 1;
                        all.push(seen(piece, offset));
                    }
                    has_room
                });
                offset += cut.consumed;
                skip = cut.skip;
                if !cut.is_full {
                    break;
                }
            }
        }
        all
    }

    /// The rules, for a file that is there as a whole; an unfinished last line counts only where it is too long.
    fn model(input: &[u8]) -> Vec<Seen> {
        let mut all = Vec::new();
        let mut offset = 0;
        let mut pieces = input.split(|&byte| byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let is_ended = pieces.peek().is_some();
            // A CR may yet turn out to belong to the line's end.
            let text =
                if is_ended || piece.len() == MAX + 1 { piece.strip_suffix(b"\r").unwrap_or(piece) } else { piece };
            if text.len() > MAX {
                all.push(Seen::Refused(offset));
            } else if is_ended && !text.is_empty() {
                all.push(Seen::Line(text.to_vec()));
            }
            offset += piece.len() as u64 + 1;
        }
        all
    }

    #[test]
    fn zeros_are_skipped_once_and_only_in_front() {
        let mut lines = Vec::new();
        let mut take = |piece: Piece<'_>| {
            lines.push(seen(piece, 0));
            true
        };
        let result = cut(b"\0\0\0\0\0\0\0\0\0", Skip::Zeros, MAX, &mut take);
        assert_eq!(result, Cut { consumed: 9, skip: Skip::Zeros, zeros: 9, is_full: false });
        let result = cut(b"\0\0a\0\n\0\nb", Skip::Zeros, MAX, &mut take);
        assert_eq!(result, Cut { consumed: 7, skip: Skip::Nothing, zeros: 2, is_full: false });
        assert_eq!(lines, [Seen::Line(b"a\0".to_vec()), Seen::Line(b"\0".to_vec())]);
    }

    #[test]
    fn a_line_at_the_limit_is_taken_with_either_end_and_one_above_is_refused_at_its_place() {
        let line = |text: &str| Seen::Line(text.as_bytes().to_vec());
        assert_eq!(
            grow(b"123456\r\n123456\n12345\r\r\n", &[7, 1, 6], 9),
            [line("123456"), line("123456"), line("12345\r")]
        );
        assert_eq!(grow(b"a\n1234567\nb\n", &[5, 3, 1], 9), [line("a"), Seen::Refused(2), line("b")]);
        assert_eq!(grow(b"a\n123456\r7\nb\n", &[9], 1), [line("a"), Seen::Refused(2), line("b")]);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_file_grows(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x'), any::<u8>()], 0..80),
            steps in proptest::collection::vec(0usize..12, 0..20),
            room in 1usize..4,
        ) {
            prop_assert_eq!(grow(&input, &steps, room), model(&input));
        }
    }
}
