//! One JSON object per line: `lsn`, `timestamp`, `timestamp_ms`, `source` (its name, or `null`) if it is shown, `data`, and
//! `encoding` where `data` is not the text.
//!
//! The payload is a JSON string. One that is not UTF-8 is given as base64 (RFC 4648, padded) with
//! `"encoding":"base64"`, so that `data` is never a guess. Text stays UTF-8; only quotes, backslashes and what could
//! drive a terminal are escaped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use serde_json::value::RawValue;

use super::runs::{Attention, are_printable_ascii, copy_in_runs, harms_terminal};
use super::{HEX_DIGITS, Head, Origin, put_char, reading};
use crate::cli::filter::Path;
use crate::decimal::put_decimal;

const ATTENTION: Attention = Attention::new(*b"\"\\");
/// For JSON that is copied: nothing of its own is special.
const ATTENTION_TO_HARM: Attention = Attention::new([0, 0]);

/// What lies at each path, as it is written in the payload; a path that leads nowhere is left out.
pub(super) fn encode_fields(head: Head<'_>, paths: &[Path], json: Option<&RawValue>, out: &mut Vec<u8>) {
    put_head(head, out);
    out.extend_from_slice(b",\"fields\":{");
    let found = paths.iter().filter_map(|path| Some((path, reading::find(json?, path)?)));
    for (at, (path, value)) in found.enumerate() {
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        put_text(path.text(), out);
        out.extend_from_slice(b"\":");
        copy_in_runs(value.get(), &ATTENTION_TO_HARM, out, |character, _, out| match character {
            // Between tokens: in a string they would be no JSON.
            '\n' | '\r' | '\t' => out.push(b' '),
            _ => put_special(character, out),
        });
    }
    out.extend_from_slice(b"}}");
}

pub(super) fn encode(head: Head<'_>, payload: &[u8], out: &mut Vec<u8>) {
    put_head(head, out);
    out.extend_from_slice(b",\"data\":\"");
    match std::str::from_utf8(payload) {
        Ok(text) => {
            put_text(text, out);
            out.extend_from_slice(b"\"}");
        }
        Err(_) => {
            put_base64(payload, out);
            out.extend_from_slice(b"\",\"encoding\":\"base64\"}");
        }
    }
}

fn put_head(head: Head<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"lsn\":");
    put_decimal(head.lsn, out);
    out.extend_from_slice(b",\"timestamp\":\"");
    out.extend_from_slice(head.time.as_bytes());
    out.extend_from_slice(b"\",\"timestamp_ms\":");
    put_decimal(head.milliseconds, out);
    match head.origin {
        Origin::Hidden => {}
        Origin::None => out.extend_from_slice(b",\"source\":null"),
        Origin::Name(name) => {
            out.extend_from_slice(b",\"source\":\"");
            put_text(name, out);
            out.push(b'"');
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    if are_printable_ascii(text.as_bytes()) {
        return put_printable_ascii(text.as_bytes(), out);
    }
    copy_in_runs(text, &ATTENTION, out, |character, _, out| put_special(character, out));
}

/// Text of which only quotes and backslashes are escaped. JSON in JSON, which most payloads are, has one every few bytes:
/// too many for runs, so eight bytes are taken at once and written whole, with the next write over what was too much.
fn put_printable_ascii(text: &[u8], out: &mut Vec<u8>) {
    /// Bytes taken before they are handed on; twice as many, and what is too much, fit the buffer.
    const PART_BYTES: usize = 96;
    let mut buf = [0; 2 * PART_BYTES + 8];
    for part in text.chunks(PART_BYTES) {
        let mut len = 0;
        let (words, tail) = part.as_chunks::<8>();
        for &word in words {
            let mut word = u64::from_le_bytes(word);
            let mut marks = equal_bytes(word, b'"') | equal_bytes(word, b'\\');
            let mut left = 8;
            while marks != 0 {
                let before = marks.trailing_zeros() / 8;
                buf[len..len + 8].copy_from_slice(&word.to_le_bytes());
                len += before as usize;
                word >>= 8 * before;
                buf[len] = b'\\';
                buf[len + 1] = word as u8;
                len += 2;
                // In two steps: all eight bytes at once would be more than a shift takes.
                (word, marks) = (word >> 8, marks >> (8 * before) >> 8);
                left -= before as usize + 1;
            }
            buf[len..len + 8].copy_from_slice(&word.to_le_bytes());
            len += left;
        }
        for &byte in tail {
            if matches!(byte, b'"' | b'\\') {
                buf[len] = b'\\';
                len += 1;
            }
            buf[len] = byte;
            len += 1;
        }
        out.extend_from_slice(&buf[..len]);
    }
}

/// The highest bit of each byte of `word` that is `byte`; exact, no byte's answer runs into the next.
fn equal_bytes(word: u64, byte: u8) -> u64 {
    const LOWS: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    let zero_where_equal = word ^ u64::from_ne_bytes([byte; 8]);
    !(((zero_where_equal & LOWS) + LOWS) | zero_where_equal | LOWS)
}

fn put_special(character: char, out: &mut Vec<u8>) {
    match character {
        '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        _ if harms_terminal(character) => {
            // All of them are below U+10000: one UTF-16 unit.
            let unit = character as u32;
            out.extend_from_slice(b"\\u");
            out.extend([12, 8, 4, 0].map(|shift| HEX_DIGITS[(unit >> shift & 15) as usize]));
        }
        _ => put_char(character, out),
    }
}

fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[at..]).expect("the space was computed for it");
    out.truncate(at + written);
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::line;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_that_are_not_utf8_are_base64_and_say_so() {
        let line = String::from_utf8(line(Format::Json, b"\xff\x00\xfe\xe9")).unwrap();
        assert!(line.ends_with(r#","data":"/wD+6Q==","encoding":"base64"}"#), "{line}");
    }

    #[test]
    fn controls_are_escaped_and_other_text_is_not() {
        let line = String::from_utf8(line(Format::Json, "\"\\\n\u{1b}\u{9b}\u{202e}é€".as_bytes())).unwrap();
        assert!(line.ends_with(r#""data":"\"\\\n\u001b\u009b\u202eé€"}"#), "{line}");
    }

    proptest! {
        #[test]
        fn any_payload_reads_back(payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            any::<String>().prop_map(String::into_bytes),
            "[ -~]{0,300}".prop_map(String::into_bytes),
            "[a\"\\\\]{0,300}".prop_map(String::into_bytes),
        ]) {
            let value: serde_json::Value = serde_json::from_slice(&line(Format::Json, &payload)).expect("valid JSON");
            let data = value["data"].as_str().unwrap();
            let decoded = match value.get("encoding") {
                None => data.as_bytes().to_vec(),
                Some(encoding) => {
                    prop_assert_eq!(encoding, "base64");
                    STANDARD.decode(data).unwrap()
                }
            };
            prop_assert_eq!(decoded, payload);
        }
    }
}
