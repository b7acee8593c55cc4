//! The log behind the checkpoint, sound or damaged, as parts in LSN order.
//!
//! [`crate::wal::replay`] alone decides whether the log is sound. Where it finds damage, the log is walked once more, and
//! holes are crossed. What makes that safe:
//!
//! - **A hole is crossed only if something proves that it was durable**: an end of the log recorded behind it, a later
//!   group of the same epoch with a durable LSN at or above it, a segment of the same epoch behind it, or a header in front
//!   of it. A hole without proof is a torn tail, and what lies behind that is dead, as in recovery.
//! - What lies behind a recorded end is never looked at. Where the header that recorded the end is lost, and the log goes on
//!   in another epoch, only what its own epoch proves durable is taken: had the next epoch begun there, recovery would have
//!   written the rest anew, and else it may have been superseded. That numbers join proves nothing: those of dead groups
//!   and those of a missing segment are the same.
//! - Inside a damaged range single entries are taken if header and data CRC hold, which bind them to the run's salt and to
//!   their place, and if their LSNs lie between the neighbours'. Records of a damaged group count if all of its entries
//!   were saved: a source that is asked again is better than an entry that is lost.
//! - A segment whose header is lost is taken by its groups, which tell number, epoch and salt.
//!
//! This file walks; `hole` crosses holes, and saves what lies in them.
//!
//! Proof: `tests`, and `tests/engine/damage.rs` from outside.

mod hole;

use std::collections::BTreeMap;

use crate::error::{Damage, Error, Result};
use crate::format::entry::Seed;
use crate::format::facts;
use crate::format::group::GroupHeader;
use crate::format::manifest::Manifest;
use crate::format::record::{LogEnd, Record};
use crate::format::segment::SegmentHeader;
use crate::format::{BLOCK_BYTES, ClockStep, FlushMode, Gap, Lsn, SEGMENT_BYTES_MAX};
use crate::survey::pieces::{self, End, FileKey, Piece};
use crate::survey::{Kind, Wound};
use crate::wal::chain::last_known;
use crate::wal::files::WalFiles;
use crate::wal::reader::{Group, Place, Window, read_group, read_header};
use crate::wal::replay::{Extent, Replay, Tail, replay};

/// A group that counts, to be read (and checked) again when its turn comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GroupRef {
    pub(crate) file: FileKey,
    pub(crate) segment: u64,
    pub(crate) salt: u64,
    pub(crate) offset: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
    /// Smallest and largest timestamp; of a group that was passed by, bounds of them.
    pub(crate) min_ns: u64,
    pub(crate) max_ns: u64,
}

/// An entry saved from a damaged range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LoneEntry {
    pub(crate) file: FileKey,
    pub(crate) seed: Seed,
    pub(crate) bytes: usize,
    pub(crate) lsn: Lsn,
    pub(crate) timestamp_ns: u64,
}

/// What can be read of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Group(GroupRef),
    Entry(LoneEntry),
}

impl Part {
    /// First and last LSN.
    pub(crate) fn lsns(&self) -> (Lsn, Lsn) {
        match self {
            Part::Group(group) => (group.first_lsn, group.last_lsn),
            Part::Entry(entry) => (entry.lsn, entry.lsn),
        }
    }

    /// Smallest and largest timestamp.
    pub(crate) fn times_ns(&self) -> (u64, u64) {
        match self {
            Part::Group(group) => (group.min_ns, group.max_ns),
            Part::Entry(entry) => (entry.timestamp_ns, entry.timestamp_ns),
        }
    }

    /// The group, if it is one.
    pub(crate) fn group(&self) -> Option<&GroupRef> {
        match self {
            Part::Group(group) => Some(group),
            Part::Entry(_) => None,
        }
    }
}

/// What the log says, as far as it can be read.
#[derive(Debug)]
pub(crate) struct LogSurvey {
    /// With entries behind the checkpoint, in LSN order.
    pub(crate) parts: Vec<Part>,
    /// In the order of the log; empty where it is sound.
    pub(crate) wounds: Vec<Wound>,
    /// What replay found, where the log is sound.
    pub(crate) replay: Option<Replay>,
    /// LSN of the next entry, as far as anything tells.
    pub(crate) next_lsn: Lsn,
    pub(crate) durable_lsn: Lsn,
    /// The end cannot be told: so many bytes behind it may have held entries.
    pub(crate) lost_bytes: Option<u64>,
    pub(crate) normal_at_end: bool,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) clock_steps: Vec<ClockStep>,
    pub(crate) checkpoints: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Largest segment number that anything tells of.
    pub(crate) segment_max: u64,
    pub(crate) groups: u64,
    pub(crate) entries: u64,
}

/// Surveys the log. An error other than damage is an error.
pub(crate) fn survey(files: &WalFiles, manifest: &Manifest, extent: Extent) -> Result<LogSurvey> {
    let mut found = Walk::new(files, manifest);
    let outcome = replay(files, manifest, extent, &mut |seen| {
        found.count(&seen.group, FileKey::Live(seen.segment.header.segment));
        Ok(())
    });
    match outcome {
        Ok(replay) => Ok(found.sound(replay)),
        Err(Error::Corrupt(damage)) => Walk::new(files, manifest).run(&damage),
        Err(cause) => Err(cause),
    }
}

/// The run being read.
struct Run {
    epoch: u64,
    salt: u64,
    at: u64,
    marker: Option<u64>,
}

impl Run {
    fn end(&self) -> u64 {
        self.marker.unwrap_or(self.at)
    }

    fn holds(&self, header: &GroupHeader) -> bool {
        (header.epoch, header.salt) == (self.epoch, self.salt)
    }
}

struct Walk<'a> {
    files: &'a WalFiles,
    manifest: &'a Manifest,
    window: Window,
    out: LogSurvey,
    due: Lsn,
    pending_gap: Option<Gap>,
    /// With the last LSN in front of or in their group.
    records: Vec<(Lsn, Record)>,
}

impl<'a> Walk<'a> {
    fn new(files: &'a WalFiles, manifest: &'a Manifest) -> Walk<'a> {
        let checkpoint = manifest.checkpoint_lsn;
        Walk {
            files,
            manifest,
            window: Window::default(),
            out: LogSurvey {
                parts: Vec::new(),
                wounds: Vec::new(),
                replay: None,
                next_lsn: checkpoint.next(),
                durable_lsn: checkpoint,
                lost_bytes: None,
                normal_at_end: false,
                gaps: Vec::new(),
                clock_steps: manifest.clock_steps.clone(),
                checkpoints: manifest.checkpoints.clone(),
                segment_max: files.live.keys().next_back().copied().unwrap_or(0),
                groups: 0,
                entries: 0,
            },
            due: checkpoint.next(),
            pending_gap: None,
            records: Vec::new(),
        }
    }

    fn sound(self, replay: Replay) -> LogSurvey {
        LogSurvey {
            next_lsn: replay.next_lsn,
            durable_lsn: replay.durable_lsn,
            normal_at_end: replay.normal_at_end && replay.tail != Tail::Clean,
            gaps: replay.gaps.clone(),
            clock_steps: replay.clock_steps.clone(),
            checkpoints: replay.checkpoints.clone(),
            replay: Some(replay),
            ..self.out
        }
    }

    fn run(mut self, damage: &Damage) -> Result<LogSurvey> {
        let pieces = pieces::pieces(&mut self.window, self.files, self.manifest)?;
        self.out.segment_max = pieces.last().map_or(0, |piece| piece.number).max(self.out.segment_max);
        for (index, piece) in pieces.iter().enumerate() {
            self.enter(piece, index == 0);
            self.piece(piece)?;
        }
        self.consume_gap();
        let newest = pieces.last().map_or(0, |piece| piece.number);
        if let Some(number) = last_known(self.manifest).filter(|&known| newest < known) {
            let what = "the segment is missing; the manifest knows of it".to_owned();
            self.wound(Kind::SegmentMissing, &crate::wal::path(number), (0, None), (self.due, self.due.prev()), what);
            self.out.segment_max = number;
            self.out.lost_bytes = Some(SEGMENT_BYTES_MAX);
        }
        if self.out.wounds.is_empty() {
            // Replay saw what this walk did not: the end of the log cannot be told.
            self.out.wounds.push(Wound::of(Kind::Log, damage));
            self.out.lost_bytes = Some(SEGMENT_BYTES_MAX);
        }
        self.out.next_lsn = self.due;
        let checkpoint = self.manifest.checkpoint_lsn;
        for (_, record) in self.records {
            match record {
                Record::Checkpoint { key, value } => facts::apply(&mut self.out.checkpoints, key, value),
                Record::ClockStep(step) if step.lsn > checkpoint => self.out.clock_steps.push(step),
                Record::ClockStep(_) | Record::EpochStart { .. } => {}
            }
        }
        self.out.clock_steps.sort_by_key(|step| step.lsn);
        Ok(self.out)
    }

    /// Takes the group over as it is.
    fn count(&mut self, group: &Group<'_>, file: FileKey) {
        let header = &group.header;
        self.out.groups += 1;
        self.out.entries += u64::from(header.entry_count);
        if header.entry_count > 0 && header.last_lsn() > self.manifest.checkpoint_lsn {
            let (min_ns, max_ns) = group.times_ns();
            self.out.parts.push(Part::Group(GroupRef {
                file,
                segment: header.segment,
                salt: header.salt,
                offset: header.offset,
                first_lsn: header.first_lsn,
                last_lsn: header.last_lsn(),
                min_ns,
                max_ns,
            }));
        }
    }

    fn wound(&mut self, kind: Kind, file: &str, range: (u64, Option<u64>), lsns: (Lsn, Lsn), what: String) {
        let lsns = (lsns.0 <= lsns.1).then_some(lsns);
        let (offset, end) = range;
        self.out.wounds.push(Wound { kind, file: file.to_owned(), offset, end, lsns, saved: 0, what });
    }

    fn enter(&mut self, piece: &Piece, first: bool) {
        let path = pieces::path(self.files, piece.file);
        if first {
            self.due = self.manifest.gaps.iter().fold(
                self.due,
                |lsn, gap| {
                    if gap.first == lsn { gap.last.next() } else { lsn }
                },
            );
        }
        let missing = (self.due, piece.first_lsn.prev());
        if piece.header.is_none() {
            let what = format!("its header fails its checks; the groups in it are those of segment {}", piece.number);
            let missing = if piece.begins_damaged { (self.due, self.due.prev()) } else { missing };
            self.wound(Kind::SegmentHeader, path, (0, Some(BLOCK_BYTES as u64)), missing, what);
        }
        if let Some(number) = piece.missing_before {
            let what = format!("the segment is missing; segment {} goes on behind it", piece.number);
            self.wound(Kind::SegmentMissing, &crate::wal::path(number), (0, None), missing, what);
        } else if piece.first_lsn > self.due && piece.header.is_some() {
            let what =
                format!("it begins at LSN {}, and the log before it ends at {}", piece.first_lsn, self.due.prev());
            self.wound(Kind::Log, path, (0, None), missing, what);
        } else if piece.first_lsn < self.due && !first {
            self.drop_from(piece.first_lsn);
        }
        // What lies before the first group that was found may still hold entries.
        if !piece.begins_damaged || piece.first_lsn < self.due {
            self.due = piece.first_lsn;
        }
        self.pending_gap = piece.header.as_ref().and_then(|header| header.gap);
        self.out.normal_at_end = false;
        if let Some(SegmentHeader { durable_lsn, flush_mode, .. }) = piece.header {
            self.out.durable_lsn = self.out.durable_lsn.max(durable_lsn);
            self.out.normal_at_end = flush_mode == FlushMode::Normal;
        }
    }

    /// What was taken from this LSN on was superseded.
    fn drop_from(&mut self, lsn: Lsn) {
        self.out.parts.retain(|part| part.lsns().0 < lsn);
        self.records.retain(|(at, _)| *at < lsn);
    }

    fn piece(&mut self, piece: &Piece) -> Result<()> {
        let mut run = Run { epoch: piece.epoch, salt: piece.salt, at: BLOCK_BYTES as u64, marker: None };
        loop {
            if let End::Recorded(end) = piece.end
                && end.salt == run.salt
                && run.end() >= end.offset
            {
                self.leave(piece, &run, end);
                return Ok(());
            }
            let at = run.at;
            if self.accept(piece, &mut run, at)? || self.accept_behind_lost_marker(piece, &mut run)? {
                continue;
            }
            if !self.cross(piece, &mut run)? {
                self.tail(piece, &run);
                return Ok(());
            }
        }
    }

    /// The end that a later header records.
    fn leave(&mut self, piece: &Piece, run: &Run, end: LogEnd) {
        self.consume_gap();
        if self.due <= end.last_lsn {
            let what = format!("it ends with LSN {}, not with {} as recorded", self.due.prev(), end.last_lsn);
            let path = pieces::path(self.files, piece.file);
            self.wound(Kind::Log, path, (run.at, None), (self.due, end.last_lsn), what);
        }
        self.due = end.last_lsn.next();
    }

    fn consume_gap(&mut self) {
        if let Some(gap) = self.pending_gap.take_if(|gap| gap.first == self.due) {
            self.due = gap.last.next();
            self.out.gaps.push(gap);
        }
    }

    /// Where the next entry would be, were it there: behind a gap that the header carries.
    fn hole_lsn(&self) -> Lsn {
        self.pending_gap.filter(|gap| gap.first == self.due).map_or(self.due, |gap| gap.last.next())
    }

    fn place<'p>(&self, piece: &Piece, offset: u64) -> Place<'p>
    where
        'a: 'p,
    {
        pieces::place(self.files, self.manifest.store, piece.file, piece.number, offset)
    }

    fn accept(&mut self, piece: &Piece, run: &mut Run, at: u64) -> Result<bool> {
        let mut window = std::mem::take(&mut self.window);
        let outcome = read_group(&mut window, &self.place(piece, at));
        let accepted = match &outcome {
            Ok(Ok(group)) if self.belongs(piece, run, group) => {
                self.take_over(piece, run, group);
                true
            }
            _ => false,
        };
        let failed = outcome.err();
        self.window = window;
        failed.map_or(Ok(accepted), Err)
    }

    fn belongs(&self, piece: &Piece, run: &Run, group: &Group<'_>) -> bool {
        let header = &group.header;
        if ![self.due, self.hole_lsn()].contains(&header.first_lsn) {
            return false;
        }
        if run.holds(header) {
            return run.marker.is_none();
        }
        // Behind a gap that is due here, too: the marker that told so may be lost.
        let last_lsn = header.first_lsn.prev();
        let here = LogEnd { segment: piece.number, salt: run.salt, offset: run.end(), last_lsn };
        header.epoch_start
            && header.epoch > run.epoch
            && matches!(group.records().first(), Some(Record::EpochStart { prev_end, .. }) if *prev_end == here)
    }

    fn take_over(&mut self, piece: &Piece, run: &mut Run, group: &Group<'_>) {
        let header = &group.header;
        if header.first_lsn != self.due {
            self.consume_gap();
        }
        self.count(group, piece.file);
        self.records.extend(group.records().into_iter().map(|record| (header.last_lsn(), record)));
        self.out.durable_lsn = self.out.durable_lsn.max(header.durable_lsn);
        self.out.normal_at_end = header.flush_mode == FlushMode::Normal && !header.clean_close;
        self.due = header.last_lsn().next();
        *run = Run {
            epoch: header.epoch,
            salt: header.salt,
            at: header.offset + header.padded_bytes(),
            marker: header.clean_close.then_some(header.offset),
        };
    }

    /// The marker of a clean close may be lost although the next epoch began behind it: it was never needed.
    fn accept_behind_lost_marker(&mut self, piece: &Piece, run: &mut Run) -> Result<bool> {
        if run.marker.is_some() {
            return Ok(false);
        }
        let behind = run.at + BLOCK_BYTES as u64;
        let place = self.place(piece, behind);
        let header = read_header(&mut self.window, &place)?;
        if !header.is_ok_and(|header| header.epoch_start) {
            return Ok(false);
        }
        self.accept(piece, run, behind)
    }

    /// The end of a piece that nothing records.
    fn tail(&mut self, piece: &Piece, run: &Run) {
        let path = pieces::path(self.files, piece.file);
        let file_bytes = self.place(piece, run.at).file_bytes;
        match piece.end {
            End::Recorded(_) => {}
            End::Newest => {
                let prepared = piece.header.map_or(0, |header| header.segment_bytes);
                if file_bytes < prepared {
                    let what = format!("it is {file_bytes} bytes long, and was {prepared} when it was prepared");
                    let none = (self.due, self.due.prev());
                    self.wound(Kind::SegmentShort, path, (file_bytes, None), none, what);
                    self.out.lost_bytes = Some(prepared - run.at.min(file_bytes));
                }
            }
            // Had the next epoch begun right here, it would have written what was not proven anew.
            End::Followed { epoch, first_lsn, .. } => {
                if epoch == run.epoch || run.marker.is_some() {
                    return;
                }
                let proven = self.out.durable_lsn;
                let doubtful = |part: &&Part| part.lsns().0 > proven && part.lsns().0 < first_lsn;
                let Some(first) = self.out.parts.iter().find(doubtful).copied() else { return };
                let offset = match first {
                    Part::Group(group) => group.offset,
                    Part::Entry(entry) => entry.seed.offset,
                };
                let lsns = (first.lsns().0, self.due.prev());
                let what = "its last groups are good, but what followed them is lost, and only that could tell whether \
                            they were superseded";
                self.wound(Kind::Doubtful, path, (offset, Some(run.at)), lsns, what.to_owned());
                self.drop_from(lsns.0);
            }
        }
    }
}
