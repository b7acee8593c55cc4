//! One JSON object per line: `lsn`, `timestamp`, `timestamp_ms`, `source` (its name, or `null`) if it is shown, `data`, and
//! `encoding` where `data` is not the text.
//!
//! The payload is a JSON string. One that is not UTF-8 is given as base64 (RFC 4648, padded) with
//! `"encoding":"base64"`, so that `data` is never a guess. Text stays UTF-8; only quotes, backslashes and what could
//! drive a terminal are escaped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{HEX_DIGITS, Origin, attention_table, copy_in_runs, harms_terminal, put_char, put_decimal};
use crate::query::EntryRef;

const ATTENTION: [bool; 256] = attention_table(b"\"\\");

pub(super) fn encode(entry: &EntryRef<'_>, time: &str, milliseconds: u64, origin: Origin<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"lsn\":");
    put_decimal(entry.lsn.0, out);
    out.extend_from_slice(b",\"timestamp\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\",\"timestamp_ms\":");
    put_decimal(milliseconds, out);
    match origin {
        Origin::Hidden => {}
        Origin::None => out.extend_from_slice(b",\"source\":null"),
        Origin::Name(name) => {
            out.extend_from_slice(b",\"source\":\"");
            put_text(name, out);
            out.push(b'"');
        }
    }
    out.extend_from_slice(b",\"data\":\"");
    match std::str::from_utf8(entry.payload) {
        Ok(text) => {
            put_text(text, out);
            out.extend_from_slice(b"\"}");
        }
        Err(_) => {
            put_base64(entry.payload, out);
            out.extend_from_slice(b"\",\"encoding\":\"base64\"}");
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    copy_in_runs(text, &ATTENTION, out, |character, _, out| put_special(character, out));
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
