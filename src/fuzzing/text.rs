//! What people and streams hand over: settings, times, lines.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::cli::time::{TimeText, parse_from, parse_to};
use crate::config::Config;
use crate::config::sources::Framing;
#[cfg(unix)]
use crate::control::parse_reply;
#[cfg(unix)]
use crate::format::ENTRY_PAYLOAD_BYTES_MAX;
use crate::source::framing::{Frame, Framer};
#[cfg(unix)]
use crate::source::net::{clients::is_valid_id, request, split_number};

/// `kifa.toml` up to the first zero byte, then variables as `NAME=value`, one per line.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (toml, variables) = text.split_once('\0').unwrap_or((&text, ""));
    let variables: Vec<(OsString, OsString)> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let file = (PathBuf::from("kifa.toml"), toml.to_owned());
    match Config::of_layers(PathBuf::from("till"), Some(file), &variables, &[]) {
        Ok(config) => config.settings().for_each(|setting| assert!(!setting.is_empty())),
        Err(error) => assert!(!error.message.is_empty()),
    }
}

/// The first eight bytes are now, the rest is a time as somebody typed it.
pub fn time(data: &[u8]) {
    let Some((now, text)) = data.split_first_chunk::<8>() else { return };
    let (now_ns, text) = (u64::from_le_bytes(*now), String::from_utf8_lossy(text));
    let (from, to) = match (parse_from(&text, now_ns), parse_to(&text, now_ns)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(_), Err(_)) => return,
        one => panic!("only one of both bounds is a time: {one:?}"),
    };
    assert!(from <= to);
    let mut printed = TimeText::new();
    for at in [from, to] {
        let second = at - at % 1_000_000_000;
        assert_eq!(parse_from(printed.format(at), now_ns), Ok(second), "what is printed can be read");
    }
}

/// A line, or where one was refused, or could not be found.
#[derive(PartialEq, Eq, Debug)]
enum Seen {
    Line(Vec<u8>),
    Refused(u64, u64),
    Malformed(u64),
}

/// The first byte is the framing, the second the longest line, the third the length of the pieces that the rest arrives
/// in.
pub fn framing(data: &[u8]) {
    let &[framing, line_bytes_max, piece_bytes, ref stream @ ..] = data else { return };
    let framing = [Framing::Newline, Framing::Octet, Framing::Nul][usize::from(framing) % 3];
    let line_bytes_max = usize::from(line_bytes_max);
    let cut = |pieces: &mut dyn Iterator<Item = &[u8]>| framed(framing, line_bytes_max, pieces);
    let seen = cut(&mut stream.chunks(usize::from(piece_bytes).max(1)));
    assert_eq!(seen, cut(&mut [stream].into_iter()), "the pieces do not matter");
    let mut offset = 0;
    for seen in seen {
        match seen {
            Seen::Line(line) => {
                assert!((1..=line_bytes_max).contains(&line.len()));
                let at = stream[offset..].windows(line.len()).position(|window| window == line);
                offset += at.expect("lines are in the stream, in order") + line.len();
            }
            Seen::Refused(line, at) => {
                assert!(line >= 1 && at >= offset as u64 && at < stream.len() as u64);
                offset = at as usize;
            }
            Seen::Malformed(at) => assert!(framing == Framing::Octet && at < stream.len() as u64),
        }
    }
}

fn framed(framing: Framing, line_bytes_max: usize, pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<Seen> {
    let mut framer = Framer::with(framing, line_bytes_max);
    let mut seen = Vec::new();
    let mut emit = |frame: Frame<'_>| {
        seen.push(match frame {
            Frame::Line(line) => Seen::Line(line.to_vec()),
            Frame::Refused { line, offset } => Seen::Refused(line, offset),
            Frame::Malformed { offset } => Seen::Malformed(offset),
        });
        // Nothing behind it can be understood.
        if matches!(frame, Frame::Malformed { .. }) { Err(()) } else { Ok(()) }
    };
    let mut outcome = Ok(());
    for piece in pieces {
        outcome = outcome.and_then(|()| framer.feed(piece, &mut emit));
        assert!(framer.partial_bytes() <= line_bytes_max + 1);
    }
    // Only standard input has lines that the end of the stream ends.
    if outcome.is_ok() && framing == Framing::Newline {
        framer.finish(&mut emit).expect("a line that is read is not malformed");
    }
    seen
}

/// The first byte is the length of the pieces that the requests arrive in.
#[cfg(unix)]
pub fn control(data: &[u8]) {
    let Some((&piece_bytes, stream)) = data.split_first() else { return };
    let seen = requests(&mut stream.chunks(usize::from(piece_bytes).max(1)));
    assert_eq!(seen, requests(&mut [stream].into_iter()), "the pieces do not matter");
}

/// What a session takes out of a stream, in words of its own.
#[cfg(unix)]
fn requests(pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<String> {
    use request::{Next, REQUEST_BYTES_MAX, Requests};
    let (mut requests, mut input, mut seen) = (Requests::default(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        let mut rest = &input[..];
        while let Some(next) = requests.next(&mut rest) {
            seen.push(format!("{next:?}"));
            match next {
                Next::Append(payload) => assert!(payload.len() <= ENTRY_PAYLOAD_BYTES_MAX),
                Next::TooLarge(bytes) => assert!(bytes as usize > ENTRY_PAYLOAD_BYTES_MAX),
                Next::Request(verb, rest) => {
                    assert!(!verb.contains(['\n', ' ']) && verb.len() + rest.len() <= REQUEST_BYTES_MAX);
                }
                Next::Broken(_) => return seen,
            }
        }
        assert!(rest.len() <= REQUEST_BYTES_MAX.max(ENTRY_PAYLOAD_BYTES_MAX));
        input = rest.to_vec();
    }
    seen
}

/// What is said over a socket: a reply, a producer's id, a numbered line.
#[cfg(unix)]
pub fn protocol(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let is_ok = parse_reply(&text).map(|rest| assert!(text.ends_with(&rest))).is_ok();
    assert_eq!(is_ok, text == "OK" || text.starts_with("OK "));
    if let Err(error) = parse_reply(&text) {
        assert!(!error.to_string().contains(char::is_control), "a terminal is not driven by what a stranger says");
    }
    if let Some(id) = std::str::from_utf8(data).ok().filter(|id| is_valid_id(id)) {
        assert!((1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Some((number, payload)) = split_number(data) {
        assert!(number > 0 && !payload.is_empty() && data.ends_with(payload));
        let digits = std::str::from_utf8(&data[..data.len() - payload.len() - 1]).expect("digits are text");
        assert_eq!(digits.trim_start_matches('0'), number.to_string());
    }
}
