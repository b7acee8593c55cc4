//! What reading commands share: the range, the scan that goes on behind damage, and the notes about its result.

use std::collections::VecDeque;
use std::io;

use super::args::Selection;
use super::complain;
use super::exit::Failure;
use super::filter::Filter;
use super::time::TimeText;
use crate::error::Error;
use crate::format::{ClockStep, Gap, GapCause, Lsn};
use crate::query::{EntryRef, Notice, Scan, ScanRange};

/// Notes of one kind, or damaged places, that are named one by one; the rest is counted.
const NAMED_MAX: u64 = 20;

/// What a scan came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    pub(crate) entries: u64,
    /// Places that cannot be read.
    pub(crate) damaged: u64,
}

/// Why a scan was given up.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Its output failed.
    Output(io::Error),
    /// The store failed in a way that nothing comes behind.
    Store(Error),
}

/// The range that was asked for; one that is turned round is a mistake rather than an empty result.
pub(crate) fn range(selection: &Selection) -> Result<ScanRange, Failure> {
    let mut range = ScanRange { reverse: selection.reverse, ..ScanRange::default() };
    range.from_lsn = selection.from_lsn.map_or(range.from_lsn, Lsn);
    if let Some(after) = selection.after_lsn {
        range.from_lsn = Lsn(after.saturating_add(1));
    }
    range.to_lsn = selection.to_lsn.map_or(range.to_lsn, Lsn);
    range.from_ns = selection.from_time.unwrap_or(range.from_ns);
    range.to_ns = selection.to_time.unwrap_or(range.to_ns);
    if range.from_lsn > range.to_lsn {
        let (from, to) = (range.from_lsn, range.to_lsn);
        return Err(Failure::read(format!("the range is empty: --from-lsn {from} is above --to-lsn {to}")));
    }
    if range.from_ns > range.to_ns {
        let (mut from, mut to) = (TimeText::new(), TimeText::new());
        let (from, to) = (from.format(range.from_ns), to.format(range.to_ns));
        return Err(Failure::read(format!("the range is empty: --from-time {from} is after --to-time {to}")));
    }
    Ok(range)
}

/// Hands up to `limit` entries that the filter lets through to `each`, with the names of their sources. Damaged places are
/// named on stderr and passed over.
pub(crate) fn drive(
    scan: &mut Scan,
    filter: &mut Filter,
    limit: Option<u64>,
    each: impl FnMut(&EntryRef<'_>, Option<&str>) -> io::Result<()>,
) -> Result<Found, Stopped> {
    drive_telling(scan, filter, limit, each, &mut Told::default())
}

/// As [`drive`], behind something that may have told a part of it already.
pub(crate) fn drive_telling(
    scan: &mut Scan,
    filter: &mut Filter,
    limit: Option<u64>,
    mut each: impl FnMut(&EntryRef<'_>, Option<&str>) -> io::Result<()>,
    told: &mut Told,
) -> Result<Found, Stopped> {
    if let Some(note) = filter.unmatched(scan.source_names()) {
        told.tell(format_args!("note: {note}"));
    }
    let mut found = Found::default();
    while limit.is_none_or(|limit| found.entries < limit) {
        match scan.next_named() {
            Ok(Some((entry, name))) => {
                if filter.wants(&entry, name) {
                    each(&entry, name).map_err(Stopped::Output)?;
                    found.entries += 1;
                }
            }
            Ok(None) => break,
            Err(error @ (Error::Corrupt(_) | Error::Io { .. })) => {
                found.damaged += 1;
                if found.damaged <= NAMED_MAX {
                    told.tell(error);
                }
            }
            Err(error) => return Err(Stopped::Store(error)),
        }
    }
    if found.damaged > NAMED_MAX {
        complain(format_args!("{} more places cannot be read", found.damaged - NAMED_MAX));
    }
    notes(&scan.notices(), |note| told.tell(note));
    if let Some(note) = filter.note() {
        told.tell(format_args!("note: {note}"));
    }
    Ok(found)
}

/// Sentences for stderr, each said once.
#[derive(Debug, Default)]
pub(crate) struct Told {
    said: VecDeque<String>,
}

impl Told {
    /// Most sentences that are remembered: a log that is followed for years has many notes, and none comes back late.
    const SAID_MAX: usize = 256;

    /// Says it, unless it was said.
    pub(crate) fn tell(&mut self, sentence: impl ToString) {
        let sentence = sentence.to_string();
        if self.said.contains(&sentence) {
            return;
        }
        complain(&sentence);
        if self.said.len() == Told::SAID_MAX {
            self.said.pop_front();
        }
        self.said.push_back(sentence);
    }
}

/// One line for each notice; beyond [`NAMED_MAX`] of a kind one line for all the others of it.
fn notes(notices: &[Notice], mut line: impl FnMut(String)) {
    let mut kinds: Vec<(std::mem::Discriminant<Notice>, u64)> = Vec::new();
    for notice in notices {
        let kind = std::mem::discriminant(notice);
        let at = kinds.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
            kinds.push((kind, 0));
            kinds.len() - 1
        });
        kinds[at].1 += 1;
        if kinds[at].1 <= NAMED_MAX {
            line(format!("note: {}", note(notice)));
        }
    }
    for (_, count) in kinds.into_iter().filter(|(_, count)| *count > NAMED_MAX) {
        line(format!("note: and {} more like these; kifa stats lists them", count - NAMED_MAX));
    }
}

pub(crate) fn note(notice: &Notice) -> String {
    match notice {
        Notice::Unconfirmed(lsn) => {
            format!("entries from LSN {lsn} on are not proven durable; the next start of the daemon decides about them")
        }
        Notice::ClockStepped(step) => format!("the clock stepped {}; times around it do not compare", clock_step(step)),
        Notice::Gap(gap) => format!("no entries have LSN {}", self::gap(gap)),
        Notice::Expired { floor_lsn, until_ns: 0 } => {
            format!("entries below LSN {floor_lsn} have expired: retention has deleted them")
        }
        Notice::Expired { floor_lsn, until_ns } => {
            let mut until = TimeText::new();
            let until = until.format(*until_ns);
            format!("entries below LSN {floor_lsn}, taken until {until}, have expired: retention has deleted them")
        }
    }
}

/// `51 to 99: an unclean end in normal mode`.
pub(crate) fn gap(gap: &Gap) -> String {
    format!("{} to {}: {}", gap.first, gap.last, gap_cause(gap.cause))
}

/// A gap's cause, as part of a sentence.
pub(crate) fn gap_cause(cause: GapCause) -> &'static str {
    match cause {
        GapCause::UncleanNormal => "an unclean end in normal mode; up to 49 confirmed entries may have been lost",
        GapCause::Damage => "the operator accepted the loss of a damaged range",
    }
}

/// `at LSN 7 from A to B`.
pub(crate) fn clock_step(step: &ClockStep) -> String {
    let (mut from, mut to) = (TimeText::new(), TimeText::new());
    format!("at LSN {} from {} to {}", step.lsn, from.format(step.from_ns), to.format(step.to_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(lsns: (u64, u64), times: (u64, u64)) -> Selection {
        let (from_lsn, to_lsn) = (Some(lsns.0), Some(lsns.1));
        let (from_time, to_time) = (Some(times.0), Some(times.1));
        Selection { from_lsn, to_lsn, from_time, to_time, reverse: true, ..Selection::default() }
    }

    #[test]
    fn a_range_that_is_turned_round_is_a_mistake() {
        assert!(range(&selection((5, 3), (0, 1))).unwrap_err().message.contains("--from-lsn 5 is above --to-lsn 3"));
        let error = range(&selection((1, 1), (2_000_000_000, 0))).unwrap_err();
        assert!(error.message.contains("--from-time 1970-01-01 00:00:02 UTC is after"), "{error:?}");
        let range = range(&selection((3, 5), (7, 8))).unwrap();
        assert_eq!((range.from_lsn, range.to_lsn, range.from_ns, range.to_ns), (Lsn(3), Lsn(5), 7, 8));
        assert!(range.reverse);
    }

    #[test]
    fn notes_are_one_line_each_and_do_not_flood() {
        let step = ClockStep { lsn: Lsn(7), from_ns: 0, to_ns: 1_769_884_200_000_000_000 };
        let gap = Gap { first: Lsn(51), last: Lsn(99), cause: GapCause::UncleanNormal };
        let mut notices = vec![Notice::ClockStepped(step); 25];
        notices.extend([
            Notice::Gap(gap),
            Notice::Unconfirmed(Lsn(120)),
            Notice::Expired { floor_lsn: Lsn(3), until_ns: 1 },
        ]);
        let mut lines = Vec::new();
        notes(&notices, |line| lines.push(line));
        assert_eq!(lines.len(), 20 + 3 + 1);
        let expected = "note: the clock stepped at LSN 7 from 1970-01-01 00:00:00 UTC to 2026-01-31 18:30:00 UTC; \
            times around it do not compare";
        assert_eq!(lines[0], expected);
        assert!(lines[20].starts_with("note: no entries have LSN 51 to 99: an unclean end"), "{}", lines[20]);
        assert_eq!(lines[23], "note: and 5 more like these; kifa stats lists them");
    }
}
