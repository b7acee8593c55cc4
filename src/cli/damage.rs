//! How `verify` and `recover` tell of damage: place, LSNs, what it means, what to do.

use serde::Serialize;

use super::output::{counted, escaped};
use crate::format::Lsn;
use crate::survey::strangers::Note;
use crate::survey::{Kind, Wound};

/// Ranges that a screen names one by one; JSON names all.
const RANGES_MAX: usize = 20;

/// What a kind of damage means for the entries.
pub(crate) fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Manifest => {
            "the list of the store's files is lost; the files themselves say what they hold, and were read by that"
        }
        Kind::Join => "no file and no recorded gap accounts for these entries",
        Kind::TableMissing => "the entries of that table are gone, unless the file is found elsewhere",
        Kind::TableEdge => "the table cannot be opened as a whole; its good blocks can be read all the same",
        Kind::Block => "the entries of that block cannot be read; the others of the table can",
        Kind::SegmentMissing => "what was in that file is gone, unless the file is found elsewhere",
        Kind::SegmentHeader => "the file has lost its header; the groups in it were read without",
        Kind::SegmentShort => "somebody or something has cut the file; entries may have been lost with its end",
        Kind::Group => "these entries were durable once and cannot be read any more",
        Kind::Doubtful => "returning entries that were superseded would be worse than leaving them out",
        Kind::Log => "the log does not join here; what lies behind may be out of reach",
        Kind::Unreadable => "the device has lost this part; whether it held entries cannot be told",
        Kind::Unstable => "the device, its cable or the memory fails now and then; the bytes themselves are good",
    }
}

/// What to do about it.
pub(crate) fn action(kind: Kind) -> &'static str {
    match kind {
        Kind::TableMissing | Kind::SegmentMissing => {
            "look for the file in a backup or in lost+found and put it back under its name; else kifa recover"
        }
        Kind::Unreadable => "copy the directory to another device before it gets worse; then kifa recover on the copy",
        Kind::Unstable => "check the device and its connection; copy the directory to another one; verify again",
        Kind::Manifest => "put it back from a backup of this very state, or let kifa recover rebuild it",
        _ => "keep a copy of the directory; then kifa recover --to NEW, or kifa recover --accept to go on in place",
    }
}

/// `LSN 7`, `LSNs 7 to 9`, `none`.
pub(crate) fn lsns(range: Option<(Lsn, Lsn)>) -> String {
    match range {
        None => "not known".to_owned(),
        Some((first, last)) if first == last => format!("{first}"),
        Some((first, last)) => format!("{first} to {last}"),
    }
}

/// `1 to 3, 7, 9 to 12`, and how many more.
pub(crate) fn ranges(ranges: &[(Lsn, Lsn)]) -> String {
    let mut text: Vec<String> = ranges.iter().take(RANGES_MAX).map(|&range| lsns(Some(range))).collect();
    if ranges.len() > RANGES_MAX {
        text.push(format!("and {} more ranges (--format json lists all)", ranges.len() - RANGES_MAX));
    }
    text.join(", ")
}

/// LSNs in all ranges together.
pub(crate) fn count(ranges: &[(Lsn, Lsn)]) -> u64 {
    ranges.iter().map(|(first, last)| last.0 - first.0 + 1).sum()
}

/// A wound as a paragraph.
pub(crate) fn paragraph(wound: &Wound, number: usize, total: usize, lines: &mut Vec<String>) {
    let place = match wound.end {
        Some(end) => format!("offset {} to {end}", wound.offset),
        None => format!("offset {}", wound.offset),
    };
    lines.push(format!("Damage {number} of {total}: {}, {place}", escaped(&wound.file)));
    lines.push(format!("  LSNs:    {}", lsns(wound.lsns)));
    lines.push(format!("  What:    {}", escaped(&wound.what)));
    if wound.saved > 0 {
        let entries = counted(wound.saved, "single entry", "single entries");
        lines.push(format!("  Saved:   {entries} in it can be read all the same"));
    }
    lines.push(format!("  Meaning: {}", meaning(wound.kind)));
    lines.push(format!("  Do:      {}", action(wound.kind)));
}

/// A wound as JSON; the keys are a promise to scripts.
#[derive(Serialize)]
pub(crate) struct JsonWound<'w> {
    kind: &'static str,
    file: &'w str,
    offset: u64,
    end: Option<u64>,
    first_lsn: Option<u64>,
    last_lsn: Option<u64>,
    saved_entries: u64,
    what: &'w str,
    meaning: &'static str,
    action: &'static str,
}

impl<'w> From<&'w Wound> for JsonWound<'w> {
    fn from(wound: &'w Wound) -> JsonWound<'w> {
        JsonWound {
            kind: name(wound.kind),
            file: &wound.file,
            offset: wound.offset,
            end: wound.end,
            first_lsn: wound.lsns.map(|lsns| lsns.0.0),
            last_lsn: wound.lsns.map(|lsns| lsns.1.0),
            saved_entries: wound.saved,
            what: &wound.what,
            meaning: meaning(wound.kind),
            action: action(wound.kind),
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Manifest => "manifest",
        Kind::Join => "join",
        Kind::TableMissing => "table_missing",
        Kind::TableEdge => "table_index",
        Kind::Block => "table_block",
        Kind::SegmentMissing => "segment_missing",
        Kind::SegmentHeader => "segment_header",
        Kind::SegmentShort => "segment_short",
        Kind::Group => "log_range",
        Kind::Doubtful => "log_doubtful",
        Kind::Log => "log",
        Kind::Unreadable => "unreadable",
        Kind::Unstable => "unstable",
    }
}

/// A range of LSNs as JSON.
#[derive(Serialize)]
pub(crate) struct JsonRange {
    first_lsn: u64,
    last_lsn: u64,
}

impl From<&(Lsn, Lsn)> for JsonRange {
    fn from((first, last): &(Lsn, Lsn)) -> JsonRange {
        JsonRange { first_lsn: first.0, last_lsn: last.0 }
    }
}

/// A note as JSON.
#[derive(Serialize)]
pub(crate) struct JsonNote<'n> {
    file: &'n str,
    what: &'n str,
}

impl<'n> From<&'n Note> for JsonNote<'n> {
    fn from(note: &'n Note) -> JsonNote<'n> {
        JsonNote { file: &note.file, what: &note.what }
    }
}
