//! Entries as text, JSON, CSV or hex: pure encoders into a buffer that is reused, and the printer that empties it.
//!
//! - Nothing is allocated per entry, and nothing is formatted through `std::fmt`.
//! - What an entry holds cannot drive the terminal in text and JSON: control bytes, bidirectional controls and line
//!   separators are escaped. CSV carries the bytes as they are; hex has no others.
//! - Every output ends with LF after each entry, CSV included (RFC 4180 says CR LF; every reader takes LF).
//!
//! Proof: the tests of each encoder; `json` and `csv` are read back, `text` is decoded again.

mod csv;
mod hex;
mod json;
mod runs;
mod text;

use std::io::{self, StdoutLock, Write};

use regex::bytes::Regex;

use crate::cli::filter::{Path, json as reading};
use crate::cli::sources;
use crate::cli::time::TimeText;
use crate::query::EntryRef;

/// Bytes collected before they are written out.
const FLUSH_BYTES: usize = 128 << 10;

/// How entries are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// LSN, time and payload; bytes that would harm a terminal as \xNN or \u{NNNN}
    Text,
    /// One JSON object per line; payloads that are not UTF-8 as base64, marked by "encoding":"base64"
    Json,
    /// RFC 4180 with a header line; a ' in front of data that a spreadsheet would take for a formula
    Csv,
    /// LSN, milliseconds since 1970 and payload in hexadecimal digits
    Hex,
}

/// What is shown of each entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// Its source.
    pub(crate) source: bool,
    /// In place of its payload, what lies at these paths of its JSON; for the formats json and csv.
    pub(crate) fields: Option<Vec<Path>>,
    /// The text format has colour: what is beside the payload is faint.
    pub(crate) color: bool,
    /// What is looked for, shown where there is colour.
    pub(crate) highlight: Option<Regex>,
}

/// Encodes entries one after another.
#[derive(Debug)]
pub(crate) struct Encoder {
    format: Format,
    shown: Shown,
    time: TimeText,
}

/// A line without its payload.
#[derive(Clone, Copy)]
struct Head<'a> {
    lsn: u64,
    time: &'a str,
    /// Since 1970.
    milliseconds: u64,
    origin: Origin<'a>,
}

/// What is shown of where an entry came from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// Nothing: it was not asked for.
    Hidden,
    /// That it has no source.
    None,
    Name(&'a str),
}

impl Encoder {
    pub(crate) fn new(format: Format, shown: Shown) -> Encoder {
        Encoder { format, shown, time: TimeText::new() }
    }

    /// Appends what comes before the first entry.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if self.format == Format::Csv {
            csv::begin(&self.shown, out);
        }
    }

    /// Appends one entry with its line end. `name` is its source's; a source without one is shown by its number.
    pub(crate) fn entry(&mut self, entry: &EntryRef<'_>, name: Option<&str>, out: &mut Vec<u8>) {
        let number;
        let origin = match (entry.source, name) {
            _ if !self.shown.source => Origin::Hidden,
            (0, _) => Origin::None,
            (_, Some(name)) => Origin::Name(name),
            (unnamed, None) => {
                number = sources::unnamed(unnamed);
                Origin::Name(&number)
            }
        };
        let milliseconds = entry.timestamp_ns / 1_000_000;
        let head = Head { lsn: entry.lsn.0, time: self.time.format(entry.timestamp_ns), milliseconds, origin };
        match (self.format, &self.shown.fields) {
            (Format::Text, _) if self.shown.color => {
                text::encode_painted(head, entry.payload, self.shown.highlight.as_ref(), out)
            }
            (Format::Text, _) => text::encode(head, entry.payload, out),
            (Format::Json, None) => json::encode(head, entry.payload, out),
            (Format::Json, Some(paths)) => json::encode_fields(head, paths, reading::parse(entry.payload), out),
            (Format::Csv, None) => csv::encode(head, entry.payload, out),
            (Format::Csv, Some(paths)) => csv::encode_fields(head, paths, reading::parse(entry.payload), out),
            (Format::Hex, _) => hex::encode(head, entry.payload, out),
        }
        out.push(b'\n');
    }
}

/// Prints entries to `target` in large writes.
pub(crate) struct Printer<W: Write> {
    encoder: Encoder,
    out: Vec<u8>,
    target: W,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(format: Format, shown: Shown, target: W) -> Printer<W> {
        let encoder = Encoder::new(format, shown);
        let mut printer = Printer { encoder, out: Vec::with_capacity(2 * FLUSH_BYTES), target };
        printer.encoder.begin(&mut printer.out);
        printer
    }

    pub(crate) fn entry(&mut self, entry: &EntryRef<'_>, name: Option<&str>) -> io::Result<()> {
        self.encoder.entry(entry, name, &mut self.out);
        if self.out.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Writes what has been collected: nothing more comes for now.
    pub(crate) fn write_out(&mut self) -> io::Result<()> {
        self.flush()?;
        self.target.flush()
    }

    /// Writes what is left and hands the target back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.write_out()?;
        Ok(self.target)
    }
}

/// Standard output, its pipe (if it is one) enlarged to take several buffers at once: fewer changes between the two
/// processes. That it cannot be is no error.
pub(crate) fn stdout() -> StdoutLock<'static> {
    let stdout = io::stdout().lock();
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(&stdout, 8 * FLUSH_BYTES);
    stdout
}

/// Prints a text. That its reader has closed the pipe is what `| head` does, and no error.
pub(crate) fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

const HEX_DIGITS: [u8; 16] = *b"0123456789abcdef";

/// Appends two hexadecimal digits.
fn put_hex_byte(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]);
}

/// Text from outside (a file name, an error of the system) with what would drive a terminal escaped.
pub(crate) fn escaped(text: &str) -> String {
    let escape = |character: char| match runs::harms_terminal(character) {
        true => character.escape_unicode().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escape).collect()
}

/// `1 entry`, `3 entries`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Appends a character as it is.
fn put_char(character: char, out: &mut Vec<u8>) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::Lsn;

    /// 2026-01-31 18:30:00 UTC, the moment of the documentation's examples.
    pub(crate) const EXAMPLE_NS: u64 = 1_769_884_200_000_000_000;

    /// One entry through an encoder, without its line end.
    pub(crate) fn line(format: Format, payload: &[u8]) -> Vec<u8> {
        encoded(format, false, (0, None), payload)
    }

    /// The same with the source shown, by number and name.
    fn line_from(format: Format, source: (u16, Option<&str>), payload: &[u8]) -> String {
        String::from_utf8(encoded(format, true, source, payload)).expect("the payload is UTF-8")
    }

    fn encoded(format: Format, show: bool, (source, name): (u16, Option<&str>), payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let entry = EntryRef { lsn: Lsn(1), timestamp_ns: EXAMPLE_NS, source, payload };
        Encoder::new(format, Shown { source: show, ..Shown::default() }).entry(&entry, name, &mut out);
        assert_eq!(out.pop(), Some(b'\n'));
        out
    }

    #[test]
    fn the_source_is_a_field_of_its_own_and_no_source_shows_as_none() {
        let tcp = (2, Some("tcp:127.0.0.1:5514"));
        let all = |source| {
            [Format::Text, Format::Json, Format::Csv, Format::Hex].map(|format| line_from(format, source, b"x"))
        };
        assert_eq!(
            all(tcp),
            [
                "[1] 2026-01-31 18:30:00 UTC tcp:127.0.0.1:5514 x",
                r#"{"lsn":1,"timestamp":"2026-01-31 18:30:00 UTC","timestamp_ms":1769884200000,"source":"tcp:127.0.0.1:5514","data":"x"}"#,
                r#"1,"2026-01-31 18:30:00 UTC",1769884200000,"tcp:127.0.0.1:5514","x""#,
                "0000000000000001 0000019c1551ac40 7463703a3132372e302e302e313a35353134 78",
            ]
        );
        assert_eq!(
            all((0, None)),
            [
                "[1] 2026-01-31 18:30:00 UTC - x",
                r#"{"lsn":1,"timestamp":"2026-01-31 18:30:00 UTC","timestamp_ms":1769884200000,"source":null,"data":"x"}"#,
                r#"1,"2026-01-31 18:30:00 UTC",1769884200000,,"x""#,
                "0000000000000001 0000019c1551ac40 - 78",
            ]
        );
        assert!(line_from(Format::Text, (7, None), b"x").ends_with(" UTC #7 x"));
    }

    #[test]
    fn a_source_name_can_neither_drive_the_terminal_nor_look_like_two_fields() {
        let named = |format, name| line_from(format, (1, Some(name)), b"x");
        assert_eq!(named(Format::Text, "my file\x1b[2J"), "[1] 2026-01-31 18:30:00 UTC my\\x20file\\x1b[2J x");
        assert!(named(Format::Json, "a\"\x1b").contains(r#""source":"a\"\u001b","#));
        assert!(named(Format::Csv, "=a\"b").contains(r#","'=a""b","#));
    }

    #[test]
    fn the_examples_of_the_documentation() {
        let payload = br#"{"txn":"TXN-001","amount":5000}"#;
        let text = |format| String::from_utf8(line(format, payload)).unwrap();
        assert_eq!(text(Format::Text), r#"[1] 2026-01-31 18:30:00 UTC {"txn":"TXN-001","amount":5000}"#);
        assert_eq!(
            text(Format::Json),
            r#"{"lsn":1,"timestamp":"2026-01-31 18:30:00 UTC","timestamp_ms":1769884200000,"data":"{\"txn\":\"TXN-001\",\"amount\":5000}"}"#
        );
        assert_eq!(
            text(Format::Csv),
            r#"1,"2026-01-31 18:30:00 UTC",1769884200000,"{""txn"":""TXN-001"",""amount"":5000}""#
        );
        assert!(text(Format::Hex).starts_with("0000000000000001 0000019c1551ac40 7b2274786e223a22"));
    }

    #[test]
    fn ordinary_text_of_any_script_is_printed_as_it_is() {
        let text = "Malipo 500 — ክፍያ, оплата, 支払い, مدفوعات, “ok” €5 🧾 ÿ";
        for format in [Format::Text, Format::Json, Format::Csv] {
            let line = String::from_utf8(line(format, text.as_bytes())).unwrap();
            assert!(line.contains(text), "{format:?}: {line}");
        }
    }

    #[test]
    fn a_printer_writes_the_header_even_without_entries() {
        let written =
            |format, source| Printer::new(format, Shown { source, ..Shown::default() }, Vec::new()).finish().unwrap();
        assert_eq!(written(Format::Csv, false), b"lsn,timestamp,timestamp_ms,data\n");
        assert_eq!(written(Format::Csv, true), b"lsn,timestamp,timestamp_ms,source,data\n");
        assert!(written(Format::Json, false).is_empty());
    }
}
