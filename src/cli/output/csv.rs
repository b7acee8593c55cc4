//! RFC 4180: a header line, text fields quoted, quotes doubled; line ends are LF. Bytes are carried as they are.
//!
//! A spreadsheet takes a field that starts with `=`, `+`, `-`, `@`, TAB, CR or LF for a formula (or trims its way to
//! one) and would run what a stranger wrote into the log. Such data gets a `'` in front, inside the quotes. So does data
//! that starts with `'` itself: whoever needs the exact bytes drops one leading `'`. The source, if it is shown, is a field
//! in front of the data, treated alike; an entry without a source has an empty one.

use super::{Origin, put_decimal};
use crate::query::EntryRef;

pub(super) fn begin(show_source: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"lsn,timestamp,timestamp_ms,");
    out.extend_from_slice(if show_source { b"source,data\n" } else { b"data\n" });
}

pub(super) fn encode(entry: &EntryRef<'_>, time: &str, milliseconds: u64, origin: Origin<'_>, out: &mut Vec<u8>) {
    put_decimal(entry.lsn.0, out);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\",");
    put_decimal(milliseconds, out);
    out.push(b',');
    match origin {
        Origin::Hidden => {}
        Origin::None => out.push(b','),
        Origin::Name(name) => {
            put_field(name.as_bytes(), out);
            out.push(b',');
        }
    }
    put_field(entry.payload, out);
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
