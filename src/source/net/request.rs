//! Takes the requests of a control connection out of what was read: lines, and the payloads that some announce.
//!
//! - What it is fed may end anywhere: what is not whole stays in the input.
//! - A line has at most [`REQUEST_BYTES_MAX`] bytes, a payload at most those of an entry: no more is ever waited for.
//! - A payload above that is skipped as it comes, and never held.
//!
//! What a request means is the session's ([`super::control`]).
//!
//! Proof: `tests`, the fuzzing target `control`, and `tests/it/net_control.rs`.

use crate::format::ENTRY_PAYLOAD_BYTES_MAX;

/// Longest request, in bytes, without its line end.
pub(crate) const REQUEST_BYTES_MAX: usize = 4096;

/// What comes next in a stream of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next<'a> {
    /// The payload of an `APPEND`.
    Append(&'a [u8]),
    /// An `APPEND` of so many bytes, which are more than an entry takes: they are skipped.
    TooLarge(u32),
    /// Any other request: its first word, and what follows the space behind it.
    Request(&'a str, &'a str),
    /// What follows cannot be understood; why.
    Broken(&'static str),
}

/// Where in the stream it is.
#[derive(Default)]
pub(crate) struct Requests {
    /// Bytes of payload that an `APPEND` has announced and that have not come.
    payload_bytes: Option<usize>,
    /// Bytes of a payload that was refused.
    skip_bytes: usize,
}

impl Requests {
    /// Takes the next request off `input`; `None` until there is more of it.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Next<'a>> {
        loop {
            let skipped = self.skip_bytes.min(input.len());
            self.skip_bytes -= skipped;
            *input = &input[skipped..];
            if let Some(bytes) = self.payload_bytes {
                let (payload, rest) = input.split_at_checked(bytes)?;
                *input = rest;
                self.payload_bytes = None;
                return Some(Next::Append(payload));
            }
            let line = match take_line(input)? {
                Ok(line) => line,
                Err(why) => return Some(Next::Broken(why)),
            };
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            if verb != "APPEND" {
                return Some(Next::Request(verb, rest));
            }
            match rest.parse::<u32>() {
                Ok(bytes) if bytes as usize <= ENTRY_PAYLOAD_BYTES_MAX => self.payload_bytes = Some(bytes as usize),
                Ok(bytes) => {
                    self.skip_bytes = bytes as usize;
                    return Some(Next::TooLarge(bytes));
                }
                Err(_) => return Some(Next::Broken("the form is: APPEND BYTES")),
            }
        }
    }
}

/// Takes a line off `input`; `None` until its end is there.
fn take_line<'a>(input: &mut &'a [u8]) -> Option<Result<&'a str, &'static str>> {
    let Some(end) = memchr::memchr(b'\n', &input[..input.len().min(REQUEST_BYTES_MAX + 1)]) else {
        return (input.len() > REQUEST_BYTES_MAX).then_some(Err("a request is a line of at most 4096 bytes"));
    };
    let (line, rest) = input.split_at(end);
    *input = &rest[1..];
    Some(std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| "a request is UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut input: &[u8]) -> (Vec<Next<'_>>, &[u8]) {
        let mut requests = Requests::default();
        let mut seen = Vec::new();
        while let Some(next) = requests.next(&mut input) {
            seen.push(next);
            if matches!(next, Next::Broken(_)) {
                break;
            }
        }
        (seen, input)
    }

    #[test]
    fn lines_and_payloads_follow_one_another() {
        let (seen, rest) = all(b"SYNC\nAPPEND 3\na\nbFLUSH-MODE normal\r\nAPPEND 0\nFORGET a b\nAPPEND 2\nx");
        let expected = [
            Next::Request("SYNC", ""),
            Next::Append(b"a\nb"),
            Next::Request("FLUSH-MODE", "normal"),
            Next::Append(b""),
            Next::Request("FORGET", "a b"),
        ];
        assert_eq!((seen.as_slice(), rest), (&expected[..], &b"x"[..]));
    }

    #[test]
    fn a_payload_that_is_too_large_is_skipped_and_what_follows_is_understood() {
        let bytes = ENTRY_PAYLOAD_BYTES_MAX as u32 + 1;
        let mut input = format!("APPEND {bytes}\n").into_bytes();
        input.resize(input.len() + bytes as usize, b'\n');
        input.extend_from_slice(b"SYNC\n");
        assert_eq!(all(&input), (vec![Next::TooLarge(bytes), Next::Request("SYNC", "")], &b""[..]));
    }

    #[test]
    fn what_is_no_request_breaks_the_stream_off() {
        let broken = |input: &[u8]| matches!(all(input).0.last(), Some(Next::Broken(_)));
        assert!(
            broken(b"APPEND\n") && broken(b"APPEND -1\n") && broken(b"APPEND 1 \n") && broken(b"APPEND 9999999999\n")
        );
        assert!(broken(b"\xff\n"));
        assert!(broken(&[b'x'; REQUEST_BYTES_MAX + 1]), "no line end can save it");
        assert_eq!(all(&[b'x'; REQUEST_BYTES_MAX]).0, [], "one can");
    }
}
