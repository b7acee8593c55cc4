//! `[LSN] time payload`, safe to look at; with the source, if it is shown, between time and payload, its spaces as `\x20`.
//!
//! Escaped are control bytes (`\x1b`), C1 and bidirectional controls and line separators (`\u{202e}`), and bytes that
//! are not UTF-8 (`\xff`). A backslash of the payload stays as it is, so that JSON stays readable, except where it would
//! be taken for one of these escapes (in front of `x` with two hexadecimal digits, or of `u{`): then it is `\x5c`. So a
//! line can be decoded again from left to right without a doubt.

use regex::bytes::Regex;

use super::runs::{Attention, copy_in_runs, harms_terminal};
use super::{Head, Origin, put_char, put_hex_byte};
use crate::cli::terminal::Paint;
use crate::decimal::put_decimal;

const ATTENTION: Attention = Attention::new(*b"\\\\");
const ATTENTION_AND_SPACE: Attention = Attention::new(*b"\\ ");

pub(super) fn encode(head: Head<'_>, payload: &[u8], out: &mut Vec<u8>) {
    put_head(head, out);
    put_payload(payload, out);
}

/// With what is beside the payload faint, and each match of `highlight` in it.
pub(super) fn encode_painted(head: Head<'_>, payload: &[u8], highlight: Option<&Regex>, out: &mut Vec<u8>) {
    paint(Paint::Faint, out, |out| put_head(head, out));
    let mut done = 0;
    for found in highlight.iter().flat_map(|regex| regex.find_iter(payload)).filter(|found| !found.is_empty()) {
        put_payload(&payload[done..found.start()], out);
        paint(Paint::Match, out, |out| put_payload(found.as_bytes(), out));
        done = found.end();
    }
    put_payload(&payload[done..], out);
}

fn paint(paint: Paint, out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(paint.begin().as_bytes());
    put(out);
    out.extend_from_slice(Paint::END.as_bytes());
}

fn put_head(head: Head<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    put_decimal(head.lsn, out);
    out.extend_from_slice(b"] ");
    out.extend_from_slice(head.time.as_bytes());
    out.push(b' ');
    match head.origin {
        Origin::Hidden => {}
        Origin::None => out.extend_from_slice(b"- "),
        Origin::Name(name) => {
            put_name(name, out);
            out.push(b' ');
        }
    }
}

fn put_payload(payload: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(payload) {
        Ok(text) => put_text(text, out),
        Err(_) => {
            for chunk in payload.utf8_chunks() {
                put_text(chunk.valid(), out);
                chunk.invalid().iter().for_each(|&byte| put_escape(byte, out));
            }
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    copy_in_runs(text, &ATTENTION, out, put_special);
}

fn put_special(character: char, behind: &str, out: &mut Vec<u8>) {
    match character {
        '\\' if reads_as_escape(behind.as_bytes()) => put_escape(b'\\', out),
        _ if !harms_terminal(character) => put_char(character, out),
        _ if character.is_ascii() => put_escape(character as u8, out),
        _ => out.extend_from_slice(character.escape_unicode().to_string().as_bytes()),
    }
}

/// One field, whatever the name holds.
fn put_name(name: &str, out: &mut Vec<u8>) {
    copy_in_runs(name, &ATTENTION_AND_SPACE, out, |character, behind, out| match character {
        ' ' => put_escape(b' ', out),
        _ => put_special(character, behind, out),
    });
}

fn put_escape(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    put_hex_byte(byte, out);
}

/// Whether a backslash in front of these bytes would read as one of our escapes.
fn reads_as_escape(behind: &[u8]) -> bool {
    match behind {
        [b'x', high, low, ..] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        [b'u', b'{', ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::line;
    use proptest::prelude::*;

    fn escaped(payload: &[u8]) -> String {
        let line = String::from_utf8(line(Format::Text, payload)).expect("text is UTF-8");
        line["[1] 2026-01-31 18:30:00 UTC ".len()..].to_owned()
    }

    /// Decodes from left to right, as the module's documentation says.
    fn unescape(text: &str) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), text);
        while let Some(character) = rest.chars().next() {
            let bytes = rest.as_bytes();
            if super::reads_as_escape(bytes.strip_prefix(b"\\").unwrap_or_default()) {
                let (digits, end) = match bytes[1] {
                    b'x' => (&rest[2..4], 4),
                    _ => (&rest[3..rest.find('}').unwrap()], rest.find('}').unwrap() + 1),
                };
                let value = u32::from_str_radix(digits, 16).unwrap();
                match bytes[1] {
                    b'x' => out.push(value as u8),
                    _ => super::put_char(char::from_u32(value).unwrap(), &mut out),
                }
                rest = &rest[end..];
            } else {
                super::put_char(character, &mut out);
                rest = &rest[character.len_utf8()..];
            }
        }
        out
    }

    #[test]
    fn nothing_reaches_the_terminal_that_could_drive_it() {
        assert_eq!(escaped(b"\x1b[2J\x07\r\n\t\x7f"), r"\x1b[2J\x07\x0d\x0a\x09\x7f");
        assert_eq!(
            escaped("\u{9b}2J \u{202e}evil\u{2066} \u{2028}\u{61c}\u{200f}".as_bytes()),
            r"\u{9b}2J \u{202e}evil\u{2066} \u{2028}\u{61c}\u{200f}"
        );
        assert_eq!(escaped(b"caf\xe9 \xff\xc3\xa9"), "caf\\xe9 \\xff\u{e9}");
    }

    #[test]
    fn colour_is_round_what_was_looked_for_and_never_lets_an_entry_bring_its_own() {
        let mut out = Vec::new();
        let head = super::Head { lsn: 1, time: "T", milliseconds: 0, origin: super::Origin::Hidden };
        let regex = regex::bytes::Regex::new("b*").unwrap();
        super::encode_painted(head, b"abb\x1b[0mb\xff", Some(&regex), &mut out);
        let expected = "\x1b[2m[1] T \x1b[0ma\x1b[1;31mbb\x1b[0m\\x1b[0m\x1b[1;31mb\x1b[0m\\xff";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_backslash_is_escaped_only_where_it_would_be_misread() {
        assert_eq!(escaped(br#"{"a":"x\ny\\ \u0041"}"#), r#"{"a":"x\ny\\ \u0041"}"#);
        assert_eq!(escaped(br"\x41 \xg1 \u{41} \"), r"\x5cx41 \xg1 \x5cu{41} \");
        assert_eq!(escaped(b"\\\x01"), r"\\x01");
    }

    proptest! {
        #[test]
        fn every_payload_can_be_decoded_again(payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            "[\\\\xu{}0-9a-f\u{1}\u{9b}]{0,24}".prop_map(String::into_bytes),
        ]) {
            let text = escaped(&payload);
            prop_assert!(!text.chars().any(super::super::runs::harms_terminal));
            prop_assert_eq!(unescape(&text), payload);
        }
    }
}
