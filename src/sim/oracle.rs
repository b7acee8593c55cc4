//! Knows the promise, and nothing of how it is kept: what producers were told, against what a reader finds.
//!
//! Rules, each a violation when broken:
//! - What a reader finds was submitted, under that LSN, with these bytes and this timestamp; in LSN order, without a hole
//!   other than recorded gaps; a batch whole or not at all.
//! - **durable** entries are found after every end. An entry is durable when it was confirmed in cautious or emergency
//!   mode, a sync, a switch to one of these modes or a close was answered after it was submitted, a second has passed
//!   since it was confirmed, the log's own numbers say so, a reader beside the writer returned it, or a recovery found it.
//! - Of the other **confirmed** entries (normal mode) at most 49 are missing after a power cut or a kill; their LSNs lie in
//!   a recorded gap.
//! - A gap is recorded only after an unclean end in normal mode, holds 49 LSNs, and stays recorded.
//! - LSNs go on behind the last entry or gap: none is given twice, none is skipped without a gap.
//! - From the front an entry is missing only if retention was asked to delete it, and what has expired stays so:
//!   [`super::retention`].
//! - Checkpoints are those of the last surviving batches; clock steps those of the surviving entries.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::batch::LsnRange;
use crate::format::{ClockStep, FlushMode, Gap, Lsn};
use crate::query::EntryRef;
use crate::reactor::clock::Stamper;
use crate::retention::Deleted;
use crate::sim::retention::Asked;
use crate::sim::rule::{Rule, Violation, ensure};

/// Most confirmed entries that normal mode may lose with one power cut or kill.
const LOST_MAX: usize = 49;
/// Longest time that an entry may be confirmed and not durable.
const AGE_NS_MAX: u64 = 1_000_000_000;

/// An entry as a reader found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) lsn: u64,
    pub(crate) timestamp_ns: u64,
    pub(crate) payload: Vec<u8>,
}

impl From<EntryRef<'_>> for Found {
    fn from(entry: EntryRef<'_>) -> Found {
        Found { lsn: entry.lsn.0, timestamp_ns: entry.timestamp_ns, payload: entry.payload.to_vec() }
    }
}

/// All that a reader found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) entries: Vec<Found>,
    /// What it found when it asked for nothing later than this time, and passed by what is.
    pub(crate) up_to: (u64, Vec<Found>),
    pub(crate) gaps: Vec<Gap>,
    pub(crate) clock_steps: Vec<ClockStep>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    Submitted,
    Confirmed { at_ns: u64 },
    Durable,
}

#[derive(Clone, Debug)]
struct Known {
    payload: Rc<[u8]>,
    timestamp_ns: u64,
    trust: Trust,
    /// Last LSN of its batch.
    batch_last: u64,
    /// Of the batch, on its last entry.
    checkpoint: Option<(u8, u64)>,
}

/// Everything that was told to producers of one store. Clones go separate ways, as cuts of one machine do.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    known: BTreeMap<u64, Known>,
    steps: BTreeMap<u64, ClockStep>,
    gaps: Vec<Gap>,
    /// Confirmed and lost.
    lost: BTreeSet<u64>,
    stamper: Stamper,
    next_lsn: u64,
    batches: u64,
    /// Last entry that the last recovery found.
    recovered_lsn: u64,
    /// Normal mode is, was or may be in force.
    may_gap: bool,
    /// It was when the life before ended, and what says that it ended cleanly may yet be lost: the marker of a close that
    /// nobody was told of, seen by a process that has confirmed nothing since.
    may_gap_still: bool,
    retention: Asked,
}

impl Oracle {
    /// Of a store that is not born yet.
    pub(crate) fn new() -> Oracle {
        Oracle {
            known: BTreeMap::new(),
            steps: BTreeMap::new(),
            gaps: Vec::new(),
            lost: BTreeSet::new(),
            stamper: Stamper::default(),
            next_lsn: 1,
            batches: 0,
            recovered_lsn: 0,
            may_gap: false,
            may_gap_still: false,
            retention: Asked::default(),
        }
    }

    /// The number of a new batch: checkpoint value, and what makes its payloads unique.
    pub(crate) fn next_batch(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    /// The last LSN given so far; what is submitted before a request is answered lies at or below it.
    pub(crate) fn last_lsn(&self) -> u64 {
        self.next_lsn - 1
    }

    /// A batch was accepted.
    pub(crate) fn submitted(
        &mut self,
        lsns: LsnRange,
        payloads: Vec<Rc<[u8]>>,
        checkpoint: (u8, u64),
        (wall_ns, mono_ns): (u64, u64),
    ) -> Result<(), Violation> {
        let (first, last) = (lsns.first.0, lsns.last.0);
        ensure!(Lsn, first == self.next_lsn, "LSN {first} was given where {} was due", self.next_lsn);
        ensure!(
            Lsn,
            last + 1 - first == payloads.len() as u64,
            "{} entries got LSNs {first} to {last}",
            payloads.len()
        );
        let lost = self.lost.range(first..=last).next();
        ensure!(Lsn, lost.is_none(), "LSN {lost:?} was confirmed, lost, and is now given again");
        let (timestamp_ns, step) = self.stamper.stamp(payloads.len() as u64, lsns.first, wall_ns, mono_ns);
        self.steps.extend(step.map(|step| (first, step)));
        for (index, payload) in (0..).zip(payloads) {
            let lsn = first + index;
            let checkpoint = (lsn == last).then_some(checkpoint);
            let timestamp_ns = timestamp_ns + index;
            self.retention.submitted(lsn, timestamp_ns);
            let known = Known { payload, timestamp_ns, trust: Trust::Submitted, batch_last: last, checkpoint };
            self.known.insert(lsn, known);
        }
        self.next_lsn = last + 1;
        Ok(())
    }

    /// What retention was asked for.
    pub(crate) fn retention_mut(&mut self) -> &mut Asked {
        &mut self.retention
    }

    /// A deletion was answered.
    pub(crate) fn vacuumed(&mut self, deleted: &Deleted) -> Result<(), Violation> {
        let known = self.known.range(..deleted.floor_lsn.0).count() as u64;
        self.retention.answered(deleted, known)
    }

    /// A batch was confirmed, in this mode, at this monotonic time.
    pub(crate) fn confirmed(&mut self, lsns: LsnRange, mode: FlushMode, at_ns: u64) {
        self.may_gap_still = false;
        for known in self.known.range_mut(lsns.first.0..=lsns.last.0).map(|(_, known)| known) {
            match known.trust {
                Trust::Submitted if mode == FlushMode::Normal => known.trust = Trust::Confirmed { at_ns },
                _ => known.trust = Trust::Durable,
            }
        }
    }

    /// The log has said that everything up to this LSN is durable.
    pub(crate) fn settled(&mut self, lsn: u64) {
        self.known.range_mut(..=lsn).for_each(|(_, known)| known.trust = Trust::Durable);
    }

    /// The machine was suspended for so long: nobody could have synced anything.
    pub(crate) fn stalled(&mut self, ns: u64) {
        for known in self.known.values_mut() {
            if let Trust::Confirmed { at_ns } = &mut known.trust {
                *at_ns += ns;
            }
        }
    }

    /// Normal mode was asked for, or has ended for certain.
    pub(crate) fn set_may_gap(&mut self, may_gap: bool) {
        self.may_gap = may_gap;
    }

    /// The life ends, by a power cut or a kill, at this monotonic time.
    pub(crate) fn ended(&mut self, now_ns: u64) {
        for known in self.known.values_mut() {
            if matches!(known.trust, Trust::Confirmed { at_ns } if at_ns + AGE_NS_MAX < now_ns) {
                known.trust = Trust::Durable;
            }
        }
    }

    /// A reader looked while no writer was alive; nothing is decided by it.
    pub(crate) fn check_at_rest(&self, seen: Option<&Seen>) -> Result<(), Violation> {
        let none = Seen::default();
        let seen = seen.unwrap_or(&none);
        self.check_entries(&seen.entries, false)?;
        check_up_to(seen)?;
        self.check_missing(seen).map(drop)
    }

    /// A reader looked beside the writer.
    pub(crate) fn check_beside_writer(&mut self, seen: &Seen) -> Result<(), Violation> {
        ensure!(Gap, seen.gaps == self.gaps, "gaps were {:?} and are {:?}", self.gaps, seen.gaps);
        check_up_to(seen)?;
        self.check_watched(&seen.entries)
    }

    /// A reader went through the log beside the writer: what it returned is durable, and all that was recovered.
    pub(crate) fn check_watched(&mut self, entries: &[Found]) -> Result<(), Violation> {
        let (last, recovered) = (self.check_entries(entries, true)?, self.recovered_lsn);
        ensure!(
            Agreement,
            last >= recovered,
            "a reader beside the writer ends at LSN {last}, recovery had found {recovered}"
        );
        self.settled(last);
        Ok(())
    }

    /// The log was opened, in this mode; `next_lsn` is what it will give next. What was found is durable from now on.
    pub(crate) fn opened(&mut self, seen: &Seen, mode: FlushMode, next_lsn: Lsn) -> Result<(), Violation> {
        let last = self.check_entries(&seen.entries, false)?;
        let missing = self.check_missing(seen)?;
        self.check_gaps(seen, last, &missing)?;
        self.known.split_off(&(last + 1));
        self.retention.opened(seen.entries.first().map_or(0, |entry| entry.lsn), last);
        self.steps.split_off(&(last + 1));
        let steps: Vec<ClockStep> = self.steps.values().copied().collect();
        ensure!(
            Position,
            seen.clock_steps == steps,
            "clock steps are {:?}, they should be {steps:?}",
            seen.clock_steps
        );
        self.lost.extend(missing);
        self.may_gap_still = (self.may_gap || self.may_gap_still) && self.gaps == seen.gaps;
        self.gaps.clone_from(&seen.gaps);
        self.next_lsn = last.max(seen.gaps.last().map_or(0, |gap| gap.last.0)) + 1;
        ensure!(
            Lsn,
            next_lsn.0 == self.next_lsn,
            "the log goes on with LSN {next_lsn}, behind the last entry {last} and {:?}",
            seen.gaps.last()
        );
        self.settled(last);
        self.recovered_lsn = last;
        self.stamper = Stamper::new(seen.entries.last().map_or(0, |entry| entry.timestamp_ns));
        self.may_gap = mode == FlushMode::Normal;
        Ok(())
    }

    /// The value of each key, as of the last entry.
    pub(crate) fn check_checkpoints(&self, found: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), Violation> {
        let mut expected = BTreeMap::new();
        for (producer, value) in self.known.values().filter_map(|known| known.checkpoint) {
            expected.insert(vec![producer], value.to_le_bytes().to_vec());
        }
        ensure!(Position, *found == expected, "checkpoints are {found:?}, they should be {expected:?}");
        Ok(())
    }

    /// Each entry is one that was submitted, in order, without a hole but what has expired, in front of all or, where it
    /// was `watched`, meanwhile; returns the last LSN.
    fn check_entries(&self, entries: &[Found], watched: bool) -> Result<u64, Violation> {
        let mut expected = self.known.iter().peekable();
        for (at, found) in entries.iter().enumerate() {
            let lsn = found.lsn;
            if at == 0 {
                self.retention.check_first(lsn)?;
            }
            while (at == 0 || watched)
                && expected.next_if(|(due, _)| **due < lsn && self.retention.may_expire(**due)).is_some()
            {}
            let Some((&due, known)) = expected.next() else {
                return Err(Violation::new(Rule::Found, format!("LSN {lsn} was found and never submitted")));
            };
            ensure!(Found, lsn == due, "LSN {lsn} was found where {due} was due");
            ensure!(
                Found,
                *found.payload == *known.payload,
                "LSN {lsn} has {} other bytes than the {} submitted",
                found.payload.len(),
                known.payload.len()
            );
            ensure!(
                Found,
                found.timestamp_ns == known.timestamp_ns,
                "LSN {lsn} has timestamp {}, it was given {}",
                found.timestamp_ns,
                known.timestamp_ns
            );
        }
        let last = entries.last().map_or(0, |found| found.lsn);
        if let Some(known) = self.known.get(&last) {
            ensure!(Found, known.batch_last == last, "a batch up to LSN {} was found up to {last}", known.batch_last);
        }
        Ok(last)
    }

    /// Nothing durable is missing and not too much of the confirmed; returns these.
    fn check_missing(&self, seen: &Seen) -> Result<Vec<u64>, Violation> {
        let last = seen.entries.last().map_or(0, |found| found.lsn);
        let missing = self.known.range(last + 1..);
        let mut confirmed = Vec::new();
        for (&lsn, known) in missing {
            ensure!(
                Durable,
                known.trust != Trust::Durable,
                "LSN {lsn} was durable and is lost; the log ends at {last}"
            );
            if matches!(known.trust, Trust::Confirmed { .. }) {
                confirmed.push(lsn);
            }
        }
        ensure!(
            AtRisk,
            confirmed.len() <= LOST_MAX,
            "{} confirmed entries are lost, behind LSN {last}",
            confirmed.len()
        );
        Ok(confirmed)
    }

    fn check_gaps(&self, seen: &Seen, last: u64, missing: &[u64]) -> Result<(), Violation> {
        let lsns = |gaps: &[Gap]| gaps.iter().flat_map(|gap| gap.first.0..=gap.last.0).collect::<BTreeSet<u64>>();
        let (before, now) = (lsns(&self.gaps), lsns(&seen.gaps));
        let unrecorded = missing.iter().find(|lsn| !now.contains(lsn));
        ensure!(Gap, unrecorded.is_none(), "LSN {unrecorded:?} was confirmed and lost; the gaps are {:?}", seen.gaps);
        let forgotten = before.difference(&now).next();
        ensure!(Gap, forgotten.is_none(), "LSN {forgotten:?} was in a gap; the gaps are {:?}", seen.gaps);
        let new: Vec<u64> = now.difference(&before).copied().collect();
        let is_whole = new.len() == LOST_MAX && new[0] > last;
        ensure!(
            Gap,
            new.is_empty() || is_whole,
            "LSNs {new:?} became a gap; it should hold {LOST_MAX} and follow {last}"
        );
        let may_gap = self.may_gap || self.may_gap_still;
        ensure!(
            Gap,
            new.is_empty() || may_gap,
            "LSNs {:?} to {:?} became a gap without normal mode",
            new[0],
            new.last()
        );
        Ok(())
    }
}

/// Who asks for less gets the same, as far as it goes.
fn check_up_to(seen: &Seen) -> Result<(), Violation> {
    let (to_ns, found) = &seen.up_to;
    let expected = seen.entries.iter().filter(|entry| entry.timestamp_ns <= *to_ns);
    ensure!(
        Agreement,
        expected.eq(found),
        "a reader of everything up to {to_ns} ns finds {} entries, and others than a reader of everything",
        found.len()
    );
    Ok(())
}
