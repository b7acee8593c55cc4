//! RFC 4180: a header line, text fields quoted, quotes doubled; line ends are LF. Bytes are carried as they are.
//!
//! A spreadsheet takes a field that starts with `=`, `+`, `-`, `@`, TAB, CR or LF for a formula (or trims its way to
//! one) and would run what a stranger wrote into the log. Such data gets a `'` in front, inside the quotes. So does data
//! that starts with `'` itself: whoever needs the exact bytes drops one leading `'`. The source, if it is shown, is a field
//! in front of the data, treated alike; an entry without a source has an empty one. Fields of JSON (`--fields`) are columns in
//! place of the data.

use serde_json::value::RawValue;

use super::{Head, Origin, Shown, reading};
use crate::cli::filter::Path;
use crate::decimal::put_decimal;

pub(super) fn begin(shown: &Shown, out: &mut Vec<u8>) {
    out.extend_from_slice(b"lsn,timestamp,timestamp_ms");
    if shown.source {
        out.extend_from_slice(b",source");
    }
    match &shown.fields {
        None => out.extend_from_slice(b",data"),
        Some(paths) => {
            for path in paths {
                out.push(b',');
                put_name(path.text(), out);
            }
        }
    }
    out.push(b'\n');
}

pub(super) fn encode(head: Head<'_>, payload: &[u8], out: &mut Vec<u8>) {
    put_head(head, out);
    out.push(b',');
    put_field(payload, out);
}

/// What lies at each path: text quoted; numbers, `true` and `false` as they are; arrays and objects as quoted JSON; nothing
/// for `null` and for what is not there.
pub(super) fn encode_fields(head: Head<'_>, paths: &[Path], json: Option<&RawValue>, out: &mut Vec<u8>) {
    put_head(head, out);
    for path in paths {
        out.push(b',');
        let Some(found) = json.and_then(|json| reading::find(json, path)) else { continue };
        match found.get().as_bytes() {
            b"null" => {}
            [b'"', ..] => match reading::string(found) {
                Some(text) => put_field(text.as_bytes(), out),
                // It has half a character, which nothing but JSON can carry.
                None => put_field(found.get().as_bytes(), out),
            },
            structure @ [b'{' | b'[', ..] => put_field(structure, out),
            plain => out.extend_from_slice(plain),
        }
    }
}

fn put_head(head: Head<'_>, out: &mut Vec<u8>) {
    put_decimal(head.lsn, out);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(head.time.as_bytes());
    out.extend_from_slice(b"\",");
    put_decimal(head.milliseconds, out);
    match head.origin {
        Origin::Hidden => {}
        Origin::None => out.push(b','),
        Origin::Name(name) => {
            out.push(b',');
            put_field(name.as_bytes(), out);
        }
    }
}

/// A column's name: quoted where it must be.
fn put_name(name: &str, out: &mut Vec<u8>) {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
    if is_plain { out.extend_from_slice(name.as_bytes()) } else { put_field(name.as_bytes(), out) }
}

fn put_field(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if matches!(bytes.first(), Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r' | b'\n' | b'\'')) {
        out.push(b'\'');
    }
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'"', rest) {
        out.extend_from_slice(&rest[..=at]);
        out.push(b'"');
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::line;
    use proptest::prelude::*;

    const BEFORE: &[u8] = b"1,\"2026-01-31 18:30:00 UTC\",1769884200000,\"";

    fn field(payload: &[u8]) -> Vec<u8> {
        let line = line(Format::Csv, payload);
        assert!(line.starts_with(BEFORE) && line.ends_with(b"\""));
        line[BEFORE.len()..line.len() - 1].to_vec()
    }

    #[test]
    fn a_formula_is_not_run_by_a_spreadsheet() {
        for start in ["=", "+", "-", "@", "\t", "\r", "\n", "'"] {
            assert_eq!(field(format!("{start}1+1").as_bytes()), format!("'{start}1+1").as_bytes());
        }
        assert_eq!(field(b"a=1"), b"a=1");
        assert_eq!(field(b""), b"");
    }

    proptest! {
        #[test]
        fn any_payload_reads_back(payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            "[=+'\",\r\na]{0,12}".prop_map(String::into_bytes),
        ]) {
            let field = field(&payload);
            let mut decoded = Vec::new();
            let mut bytes = field.iter().copied();
            while let Some(byte) = bytes.next() {
                if byte == b'"' {
                    prop_assert_eq!(bytes.next(), Some(b'"'), "a lone quote would end the field");
                }
                decoded.push(byte);
            }
            prop_assert_eq!(decoded.strip_prefix(b"'").unwrap_or(&decoded), payload);
        }
    }
}
