//! Follows the log from the manifest's first live segment to its end, and decides where that is.
//!
//! # The chain
//! Each segment's header names the end of the log before it ([`LogEnd`]: segment, salt, offset, last LSN). Replay goes
//! backward over these links from the newest header to the first live segment, then reads forward. What lies behind a
//! recorded end is dead. An epoch that goes on in the same segment after a clean close is linked the same way, by the
//! epoch-start record of its first group; its link ends *before* the marker, so that a marker lost later does no harm.
//!
//! # The end
//! A group that fails its checks before a recorded end, or a segment missing from the chain, is **corruption**. In the
//! newest segment, where nothing records the end, a group that fails its checks, first LSN x:
//!
//! | what is found behind it | verdict |
//! |---|---|
//! | a valid group header of this or a later epoch whose durable LSN >= x, or its clean-close marker | corruption: x was durable |
//! | a valid group header at or above x in a file without a valid header | corruption: such a header was durable before |
//! | x is at or below the manifest's checkpoint, or what the segment's header calls durable | corruption, for the same reason |
//! | anything else | torn tail: the log ends here; nothing behind the hole is replayed |
//!
//! No group is ever submitted with a durable LSN >= x before x is durable, so a legal power cut cannot produce the first
//! row. What stays ambiguous is rot in the last group or two before an unclean end: nothing proves them durable.
//!
//! Readers use the same code, and read less ([`Extent::Brief`], `passed`): a bounded search behind the end, and of groups
//! that hold nothing they are asked for only the headers.
//!
//! Proof: `tests`, and the crash campaign in `sim`.

mod passed;
mod tail;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::format::facts;
use crate::format::manifest::Manifest;
use crate::format::record::{LogEnd, Record};
use crate::format::segment::WrittenBy;
use crate::format::{BLOCK_BYTES, ClockStep, ENTRY_PAYLOAD_BYTES_MAX, FlushMode, FormatError, Gap, Lsn, StoreId};
use crate::planted::{Bug, planted};
use crate::wal::chain::chain;
use crate::wal::files::{Segment, WalFiles};
use crate::wal::reader::{Group, Place, Window, read_body, read_header, search_headers};
use crate::wal::writer::AT_RISK_BYTES_MAX;

/// The segment the log ends in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Newest {
    pub(crate) segment: u64,
    pub(crate) path: String,
    /// Of the last run.
    pub(crate) salt: u64,
    pub(crate) epoch: u64,
    /// Behind the last valid group, the marker of a clean close included.
    pub(crate) offset: u64,
    /// As it was prepared: a group that extended it may have left any length, and one that is not durable.
    pub(crate) segment_bytes: u64,
    /// Its header's links, for whoever takes over a segment without a group.
    pub(crate) prev_end: LogEnd,
    pub(crate) gap: Option<Gap>,
    pub(crate) has_groups: bool,
    pub(crate) written_by: WrittenBy,
}

/// How the log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tail {
    /// With the marker of a clean close, or before anything was written.
    Clean,
    /// Without one; nothing that looks like ours follows.
    Open,
    /// A group fails its checks, or valid ones follow behind a hole: the bytes that were cut.
    Torn { bytes: u64 },
}

/// What replay found.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// LSN of the next entry.
    pub(crate) next_lsn: Lsn,
    /// Highest LSN that something on disk proves durable.
    pub(crate) durable_lsn: Lsn,
    /// Behind the last group that counts (before the marker of a clean close).
    pub(crate) end: LogEnd,
    pub(crate) tail: Tail,
    /// Entries may have been confirmed ahead of durable when the log ended.
    pub(crate) normal_at_end: bool,
    /// Mode of the last group.
    pub(crate) flush_mode: FlushMode,
    pub(crate) epoch_max: u64,
    pub(crate) newest: Option<Newest>,
    /// Gaps carried by headers, in order; the manifest may know some of them already.
    pub(crate) gaps: Vec<Gap>,
    pub(crate) clock_steps: Vec<ClockStep>,
    pub(crate) checkpoints: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) last_timestamp_ns: u64,
    pub(crate) segments: usize,
}

/// A group that counts.
pub(crate) struct Seen<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) group: Group<'a>,
    /// Highest LSN proven durable so far, by this group too.
    pub(crate) durable_lsn: Lsn,
    /// The end the log would have without this group.
    pub(crate) end_before: LogEnd,
}

/// Sees every group that counts, in order.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(&Seen<'_>) -> Result<()>;

/// How much of the log is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    /// All of it: who builds upon the log, or vouches for it.
    Whole,
    /// What it takes to know its entries behind the tables, up to a time: damage to what is in tables anyway, or later, is
    /// passed over (but for sectors beside a header that the device cannot read), and the search for proof behind the end
    /// does not go on to the end of the segment.
    Brief {
        /// Largest timestamp that is asked for.
        to_ns: u64,
    },
}

/// Bytes behind the end of the log in which a reader searches for proof that it is damaged: two groups of the largest size
/// that the reactor makes.
///
/// That is where the first proof lies. At most two groups are in flight, so what follows the group that fails and the one
/// behind it was submitted when the first was durable, and says so. In normal mode at most [`AT_RISK_BYTES_MAX`] and the
/// group whose sync covers them come before that.
pub(crate) const BRIEF_SEARCH_BYTES: u64 = 2 * (ENTRY_PAYLOAD_BYTES_MAX as u64 + (136 << 10));
const _: () = assert!(2 * AT_RISK_BYTES_MAX <= BRIEF_SEARCH_BYTES);

impl Extent {
    /// Bytes that are searched behind the end of the log for proof that it is damaged.
    fn search_bytes(self) -> u64 {
        match self {
            Extent::Whole => u64::MAX,
            Extent::Brief { .. } => BRIEF_SEARCH_BYTES,
        }
    }
}

/// Replays the log.
pub(crate) fn replay(files: &WalFiles, manifest: &Manifest, extent: Extent, visit: Visit<'_>) -> Result<Replay> {
    let (chain, damage) = chain(files, manifest);
    let mut walk = Walk {
        files,
        store: manifest.store,
        window: Window::default(),
        extent,
        checkpoint_lsn: manifest.checkpoint_lsn,
        out: Replay {
            next_lsn: manifest.checkpoint_lsn.next(),
            durable_lsn: manifest.checkpoint_lsn,
            end: end_of_tables(manifest),
            tail: Tail::Clean,
            normal_at_end: false,
            flush_mode: FlushMode::Cautious,
            epoch_max: files.live.values().map(|segment| segment.header.epoch).max().unwrap_or(0),
            newest: None,
            gaps: Vec::new(),
            clock_steps: manifest.clock_steps.clone(),
            checkpoints: manifest.checkpoints.clone(),
            last_timestamp_ns: 0,
            segments: chain.len(),
        },
        run: Run::default(),
        pending_gap: None,
        known_gaps: &manifest.gaps,
        proven_lsn: Lsn::ZERO,
    };
    if extent != Extent::Whole {
        let headless = files.headless.iter().map(|headless| &headless.file);
        files.live.values().map(|segment| &segment.file).chain(headless).for_each(|file| file.read_ahead(false));
    }
    walk.look_ahead(&chain)?;
    if chain.is_empty() {
        walk.search_headless((0, 0), manifest.checkpoint_lsn.next())?;
    }
    for (index, link) in chain.iter().enumerate() {
        walk.segment(&files.live[&link.segment], link.end, index == 0, visit)?;
    }
    damage.map_or(Ok(walk.out), Err)
}

/// What the first segment behind the tables links to, where there is none yet.
fn end_of_tables(manifest: &Manifest) -> LogEnd {
    if manifest.checkpoint_lsn == Lsn::ZERO || manifest.first_segment == 1 {
        return LogEnd::default();
    }
    let segment = manifest.first_segment - 1;
    LogEnd { segment, salt: 0, offset: BLOCK_BYTES as u64, last_lsn: manifest.checkpoint_lsn }
}

/// The run being read.
#[derive(Default)]
struct Run {
    epoch: u64,
    salt: u64,
    offset: u64,
    /// Offset of the clean-close marker, if that was the last group.
    marker: Option<u64>,
    segment_has_groups: bool,
    epoch_has_groups: bool,
}

impl Run {
    /// Behind the last group that counts.
    fn end(&self) -> u64 {
        self.marker.unwrap_or(self.offset)
    }
}

struct Walk<'a> {
    files: &'a WalFiles,
    store: StoreId,
    window: Window,
    extent: Extent,
    checkpoint_lsn: Lsn,
    out: Replay,
    run: Run,
    pending_gap: Option<Gap>,
    /// The manifest's.
    known_gaps: &'a [Gap],
    /// What headers further on prove durable, as far as they were looked at.
    proven_lsn: Lsn,
}

/// `lsn`, or behind the gaps that begin there.
fn behind_gaps(lsn: Lsn, gaps: &[Gap]) -> Lsn {
    gaps.iter().fold(lsn, |lsn, gap| if gap.first == lsn { gap.last.next() } else { lsn })
}

impl Walk<'_> {
    fn segment(&mut self, segment: &Segment, end: Option<LogEnd>, first: bool, visit: Visit<'_>) -> Result<()> {
        self.enter(segment, first)?;
        loop {
            if let Some(end) = end
                && end.salt == self.run.salt
                && end.offset == self.run.end()
            {
                return self.leave(segment, end);
            }
            let failure = match self.next_group(segment, visit)? {
                Ok(()) => continue,
                Err(why) => why,
            };
            if let Some(end) = end {
                let what =
                    format!("a group fails its checks ({failure}), and the log goes on to offset {}", end.offset);
                return Err(self.corrupt(segment, what));
            }
            if planted(Bug::TailKept) && self.skip_hole(segment)? {
                continue;
            }
            return self.decide_tail(segment, failure);
        }
    }

    /// The wrong thing of [`Bug::TailKept`]: moves on to the next group of this run.
    fn skip_hole(&mut self, segment: &Segment) -> Result<bool> {
        let mut next = None;
        let behind = self.place(segment, self.run.offset + BLOCK_BYTES as u64);
        search_headers(&mut self.window, &behind, u64::MAX, |header| {
            next = (header.salt == self.run.salt).then_some((header.offset, header.first_lsn));
            next.is_some()
        })?;
        if let Some((offset, first_lsn)) = next {
            (self.run.offset, self.out.next_lsn) = (offset, first_lsn);
        }
        Ok(next.is_some())
    }

    fn enter(&mut self, segment: &Segment, first: bool) -> Result<()> {
        let header = &segment.header;
        if first {
            // The segment that carried a gap behind the checkpoint may be released with everything before it.
            let due = behind_gaps(self.out.next_lsn, self.known_gaps);
            if header.first_lsn > due {
                let (from, to) = (due, header.first_lsn.prev());
                let what = format!("the log starts at LSN {}; LSNs {from} to {to} are in no table", header.first_lsn);
                return Err(Error::corrupt(&segment.path, 0, Some(from), what));
            }
            self.out.next_lsn = header.first_lsn;
        } else if header.first_lsn != self.out.next_lsn {
            let what = format!(
                "its first LSN is {}, the log before it ends at {}",
                header.first_lsn,
                self.out.next_lsn.prev()
            );
            return Err(Error::corrupt(&segment.path, 0, Some(self.out.next_lsn), what));
        }
        let same_epoch = header.epoch == self.run.epoch;
        // The group that declared it may lie in a segment that was released.
        let normal = header.flush_mode == FlushMode::Normal;
        self.out.normal_at_end |= normal;
        self.run = Run {
            epoch: header.epoch,
            salt: header.salt,
            offset: BLOCK_BYTES as u64,
            marker: None,
            segment_has_groups: false,
            epoch_has_groups: normal || (same_epoch && self.run.epoch_has_groups),
        };
        self.pending_gap = header.gap;
        self.out.durable_lsn = self.out.durable_lsn.max(header.durable_lsn);
        self.out.end = self.end_here(segment);
        Ok(())
    }

    fn end_here(&self, segment: &Segment) -> LogEnd {
        LogEnd {
            segment: segment.header.segment,
            salt: self.run.salt,
            offset: self.run.end(),
            last_lsn: self.out.next_lsn.prev(),
        }
    }

    /// The end of a segment that another one follows.
    fn leave(&mut self, segment: &Segment, end: LogEnd) -> Result<()> {
        self.consume_gap();
        if self.out.next_lsn != end.last_lsn.next() {
            let what = format!("it ends with LSN {}, not with {} as recorded", self.out.next_lsn.prev(), end.last_lsn);
            return Err(self.corrupt(segment, what));
        }
        Ok(())
    }

    fn consume_gap(&mut self) {
        if let Some(gap) = self.pending_gap.take_if(|gap| gap.first == self.out.next_lsn) {
            self.out.next_lsn = gap.last.next();
            self.out.gaps.push(gap);
        }
    }

    fn place<'s>(&self, segment: &'s Segment, offset: u64) -> Place<'s> {
        Place {
            store: self.store,
            path: &segment.path,
            file: &*segment.file,
            file_bytes: segment.bytes,
            segment: segment.header.segment,
            offset,
        }
    }

    /// Accepts the next group, or says why there is none. That is believed when two reads say so: a bit that flipped on its
    /// way from the device must not cut the log.
    fn next_group(&mut self, segment: &Segment, visit: Visit<'_>) -> Result<Result<(), FormatError>> {
        let offset = self.run.offset;
        let mut failure = Ok(());
        for again in [false, true] {
            failure = self.try_at(segment, again, |walk, window| walk.accept_at(window, segment, offset, visit))?;
            if failure.is_ok() {
                return Ok(failure);
            }
        }
        // The marker of a clean close may be lost although the next epoch began behind it: it was never needed.
        let behind = offset + BLOCK_BYTES as u64;
        for again in [false, true] {
            if self.run.marker.is_none()
                && self
                    .try_at(segment, again, |walk, window| walk.accept_start_at(window, segment, behind, visit))?
                    .is_ok()
            {
                return Ok(Ok(()));
            }
        }
        Ok(failure)
    }

    /// Tries with the window; `again`: from the device.
    fn try_at<T>(
        &mut self,
        segment: &Segment,
        again: bool,
        attempt: impl FnOnce(&mut Self, &mut Window) -> Result<T>,
    ) -> Result<T> {
        let mut window = std::mem::take(&mut self.window);
        if again {
            segment.file.forget();
            window.clear();
        }
        let outcome = attempt(self, &mut window);
        self.window = window;
        outcome
    }

    /// As `accept_at`, but only the first group of an epoch.
    fn accept_start_at(
        &mut self,
        window: &mut Window,
        segment: &Segment,
        offset: u64,
        visit: Visit<'_>,
    ) -> Result<Result<(), FormatError>> {
        match read_header(window, &self.place(segment, offset))? {
            Ok(header) if header.epoch_start => self.accept_at(window, segment, offset, visit),
            Ok(_) => Ok(Err(FormatError::Field("epoch"))),
            Err(why) => Ok(Err(why)),
        }
    }

    fn accept_at(
        &mut self,
        window: &mut Window,
        segment: &Segment,
        offset: u64,
        visit: Visit<'_>,
    ) -> Result<Result<(), FormatError>> {
        let place = self.place(segment, offset);
        let header = match read_header(window, &place)? {
            Ok(header) => header,
            Err(why) => return Ok(Err(why)),
        };
        let group = match self.pass(window, &place, header)? {
            Some(group) => group,
            None => match read_body(window, &place, header)? {
                Ok(group) => group,
                Err(why) => return Ok(Err(why)),
            },
        };
        let gap = self.pending_gap.filter(|gap| gap.first == self.out.next_lsn);
        let expected = [Some(self.out.next_lsn), gap.map(|gap| gap.last.next())];
        if !expected.contains(&Some(header.first_lsn)) {
            return Ok(Err(FormatError::Field("first LSN")));
        }
        let end_before = self.end_here(segment);
        if header.epoch == self.run.epoch && header.salt == self.run.salt && self.run.marker.is_none() {
            if offset != self.run.offset {
                return Ok(Err(FormatError::Field("place")));
            }
        } else if self.links(segment, &group) {
            self.run = Run {
                epoch: header.epoch,
                salt: header.salt,
                epoch_has_groups: false,
                ..std::mem::take(&mut self.run)
            };
        } else {
            return Ok(Err(FormatError::Field("epoch")));
        }
        if header.first_lsn != self.out.next_lsn {
            self.consume_gap();
        }
        let end_before = LogEnd { last_lsn: header.first_lsn.prev(), ..end_before };
        self.advance(segment, &group, offset);
        visit(&Seen { segment, group, durable_lsn: self.out.durable_lsn, end_before })?;
        Ok(Ok(()))
    }

    /// Whether `group` begins the epoch that goes on behind what was read so far: behind the gap that is due there, too.
    fn links(&self, segment: &Segment, group: &Group<'_>) -> bool {
        let here = LogEnd { last_lsn: group.header.first_lsn.prev(), ..self.end_here(segment) };
        group.header.epoch_start
            && group.header.epoch > self.run.epoch
            && matches!(group.records().first(), Some(Record::EpochStart { prev_end, .. }) if *prev_end == here)
    }

    fn advance(&mut self, segment: &Segment, group: &Group<'_>, offset: u64) {
        let header = &group.header;
        self.out.durable_lsn = self.out.durable_lsn.max(header.durable_lsn);
        self.out.next_lsn = header.last_lsn().next();
        self.out.flush_mode = header.flush_mode;
        self.out.epoch_max = self.out.epoch_max.max(header.epoch);
        self.run.marker = header.clean_close.then_some(offset);
        self.run.offset = offset + header.padded_bytes();
        self.run.segment_has_groups = true;
        self.run.epoch_has_groups = true;
        self.out.normal_at_end = header.flush_mode == FlushMode::Normal && !header.clean_close;
        if let Some(last) = group.entries().last() {
            self.out.last_timestamp_ns = last.timestamp_ns;
        }
        for record in group.records() {
            match record {
                Record::Checkpoint { key, value } => facts::apply(&mut self.out.checkpoints, key, value),
                Record::ClockStep(step) if step.lsn > self.checkpoint_lsn => self.out.clock_steps.push(step),
                Record::ClockStep(_) | Record::EpochStart { .. } => {}
            }
        }
        self.out.end = self.end_here(segment);
    }

    fn corrupt(&self, segment: &Segment, what: String) -> Error {
        Error::corrupt(&segment.path, self.run.offset, Some(self.out.next_lsn), what)
    }
}
