//! A scan that goes on: what the store holds, then what becomes durable, each entry once, in order, none beyond a hole.
//!
//! It begins with a scan of a whole look, and then walks along the log ([`walk`]), group by group, from where the look
//! ended; only where the walk cannot go on (another life of the log, a segment that was reused because the reader was
//! slow) it takes a whole look again, behind the last entry it returned. A wake-up so costs the groups that are new.
//!
//! - An entry is returned when it is durable: by the word of the daemon (its LSN is handed in), or because a later group or
//!   header on disk proves it. Nothing else is returned, also where no writer is alive: what is not proven then is held
//!   back until the next life of the log has decided.
//! - A walk never steps over LSNs: where it would, a look is taken, which knows about gaps and damage.
//! - A store that was replaced by another one, or by an older copy of itself, is an error, not a continuation.
//! - Memory: as a scan; and one reference per group that is written and not proven durable.
//!
//! Not here: waiting. The caller knows when it is worth calling again.
//!
//! Proof: the tests of this module, and `tests/it/follow.rs`.

mod walk;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::format::facts;
use crate::format::record::Record;
use crate::format::{ClockStep, Lsn, StoreId};
use crate::query::scan::GroupBuf;
use crate::query::view::{View, newest_manifest};
use crate::query::{EntryRef, Notice, Reader, Scan, ScanRange};
use crate::wal::files::{Segment, WalFiles};
use crate::wal::reader::Window;
use walk::{Walk, read_at};

/// See the module's page.
pub(crate) struct Follow<'r> {
    reader: &'r Reader,
    /// What is still to come; its lower end moves.
    range: ScanRange,
    scan: Option<Scan<'r>>,
    walk: Option<Walk>,
    /// Groups walked over that nothing proves durable yet.
    pending: VecDeque<Pending>,
    group: GroupBuf,
    /// Entries of the loaded group that are still to come.
    next: usize,
    window: Window,
    names: BTreeMap<u16, String>,
    store: Option<StoreId>,
    /// Largest LSN that was met, and the largest that something on disk proves durable.
    met: Lsn,
    proven: Lsn,
    /// What the store looked like at the last look; `None` before the first.
    marks: Option<Marks>,
    notices: Vec<Notice>,
    /// The log is damaged where the last look ended.
    is_cut_short: bool,
}

/// What changes when the log goes on in a way that a walk may not find: newest manifest, newest epoch, newest segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Marks {
    generation: u64,
    epoch: u64,
    segment: u64,
}

/// A group that was walked over, to be read (and checked) again when it is durable.
struct Pending {
    segment: Rc<Segment>,
    salt: u64,
    offset: u64,
    last_lsn: Lsn,
}

/// Where the next entry is.
enum Found {
    InScan(usize),
    InGroup(usize),
}

/// What a step along the log came to.
enum Step {
    /// A group is loaded.
    Loaded,
    /// The walk moved on.
    Moved,
    /// There is nothing more for now.
    Nothing,
}

impl<'r> Follow<'r> {
    /// Follows the log of `reader` over `range`, in ascending order.
    pub(crate) fn new(reader: &'r Reader, range: ScanRange) -> Follow<'r> {
        assert!(!range.reverse, "a log grows in one direction");
        Follow {
            reader,
            range,
            scan: None,
            walk: None,
            pending: VecDeque::new(),
            group: GroupBuf::default(),
            next: 0,
            window: Window::default(),
            names: BTreeMap::new(),
            store: None,
            met: Lsn::ZERO,
            proven: Lsn::ZERO,
            marks: None,
            notices: Vec::new(),
            is_cut_short: false,
        }
    }

    /// The next entry that is durable, with the name of its source; `None` if there is none for now. `vouched` is the
    /// durable LSN by the daemon's word, if one is there to ask.
    ///
    /// # Errors
    /// As a scan: behind an error of a table it goes on. [`Follow::is_cut_short`] tells when it does not.
    pub(crate) fn next_named(&mut self, vouched: Option<Lsn>) -> Result<Option<(EntryRef<'_>, Option<&str>)>> {
        let Some(found) = self.find(vouched)? else { return Ok(None) };
        let (entry, scan) = match (found, &self.scan) {
            (Found::InScan(at), Some(scan)) => (scan.entry_ref(at), Some(scan)),
            (Found::InScan(at) | Found::InGroup(at), _) => (EntryRef::from(self.group.entry(at)), None),
        };
        let name = match scan {
            Some(scan) => scan.source_name(entry.source),
            None => self.names.get(&entry.source).map(String::as_str),
        };
        Ok(Some((entry, name)))
    }

    /// Whether everything in the range has come.
    pub(crate) fn is_done(&self) -> bool {
        self.range.from_lsn > self.range.to_lsn
    }

    /// Whether something that is durable by the daemon's word is still to come.
    pub(crate) fn is_behind(&self, vouched: Lsn) -> bool {
        vouched >= self.range.from_lsn && !self.is_done()
    }

    /// Whether an error just now was about a place that the next call passes over.
    pub(crate) fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// Whether the log is damaged where following has come to; nothing behind that is returned.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    /// What the user should know, since the last call.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The names of all sources that are known so far.
    pub(crate) fn source_names(&self) -> impl Iterator<Item = &str> {
        let names = self.scan.as_ref().map_or(&self.names, |scan| &scan.view.names);
        names.values().map(String::as_str)
    }

    /// Forgets the place in the log: another daemon writes to it now. The next call takes a look.
    pub(crate) fn resync(&mut self) {
        self.walk = None;
        self.pending.clear();
        self.marks = None;
    }

    fn find(&mut self, vouched: Option<Lsn>) -> Result<Option<Found>> {
        let mut has_looked = false;
        loop {
            if let Some(scan) = &mut self.scan {
                if let Some(at) = scan.find_next()? {
                    let lsn = scan.entry_ref(at).lsn;
                    self.pass(lsn);
                    return Ok(Some(Found::InScan(at)));
                }
                self.end_scan();
            }
            if let Some(at) = self.next_in_group() {
                return Ok(Some(Found::InGroup(at)));
            }
            if self.is_done() || self.is_cut_short || (self.marks.is_some() && self.is_up_to_date(vouched)) {
                return Ok(None);
            }
            if self.load_group(vouched)? {
                continue;
            }
            if has_looked || !self.needs_look(vouched)? {
                return Ok(None);
            }
            self.look()?;
            has_looked = true;
        }
    }

    /// Everything up to this LSN was met.
    fn pass(&mut self, lsn: Lsn) {
        self.met = self.met.max(lsn);
        self.range.from_lsn = self.range.from_lsn.max(lsn.next());
    }

    fn is_up_to_date(&self, vouched: Option<Lsn>) -> bool {
        vouched.is_some_and(|vouched| !self.is_behind(vouched))
    }

    /// The next wanted entry of the loaded group.
    fn next_in_group(&mut self) -> Option<usize> {
        while self.next < self.group.len() {
            let at = self.next;
            self.next += 1;
            let entry = self.group.entry(at);
            let (lsn, timestamp_ns) = (entry.lsn, entry.timestamp_ns);
            let is_wanted = lsn >= self.range.from_lsn
                && lsn <= self.range.to_lsn
                && (self.range.from_ns..=self.range.to_ns).contains(&timestamp_ns);
            self.pass(lsn);
            if is_wanted {
                return Some(at);
            }
        }
        None
    }

    /// Loads the next group that is durable, from those that wait for it or from the log.
    fn load_group(&mut self, vouched: Option<Lsn>) -> Result<bool> {
        loop {
            let bound = self.proven.max(vouched.unwrap_or_default());
            if let Some(group) = self.pending.pop_front_if(|group| group.last_lsn <= bound) {
                return self.load_pending(&group);
            }
            match self.step(bound)? {
                Step::Loaded => return Ok(true),
                Step::Moved => {}
                Step::Nothing => return Ok(false),
            }
        }
    }

    /// Reads a group again that was walked over before it was durable; `false` if it is gone.
    fn load_pending(&mut self, group: &Pending) -> Result<bool> {
        let store = self.store.expect("a walk begins behind a look");
        let read = read_at(&mut self.window, store, &group.segment, group.offset)?;
        let Some(found) = read.ok().filter(|found| found.header.salt == group.salt) else {
            self.resync();
            return Ok(false);
        };
        self.group.load(&found);
        self.next = 0;
        Ok(true)
    }

    /// Takes the next group of the log; one that is durable and next in turn is loaded at once.
    fn step(&mut self, bound: Lsn) -> Result<Step> {
        let (Some(walk), Some(store)) = (&mut self.walk, self.store) else { return Ok(Step::Nothing) };
        for is_fresh in [false, true] {
            if is_fresh {
                // What was read ahead of the writer shows what was there then.
                self.window.clear();
            }
            let Some(group) = walk.read(&mut self.window, store)? else { continue };
            let header = group.header;
            if header.first_lsn > self.range.from_lsn && self.pending.is_empty() {
                // LSNs are missing in between: they went to a table, or they are a gap.
                self.resync();
                return Ok(Step::Nothing);
            }
            for record in if header.record_count > 0 { group.records() } else { Vec::new() } {
                match record {
                    Record::Checkpoint { key, value } => self.names.extend(facts::source_name(&key, &value)),
                    Record::ClockStep(step) if is_touched(&self.range, &step) => {
                        self.notices.push(Notice::ClockStepped(step));
                    }
                    Record::ClockStep(_) | Record::EpochStart { .. } => {}
                }
            }
            self.proven = self.proven.max(header.durable_lsn);
            walk.pass(&header);
            if header.entry_count == 0 {
                return Ok(Step::Moved);
            }
            if self.pending.is_empty() && header.last_lsn() <= bound.max(self.proven) {
                self.group.load(&group);
                self.next = 0;
                return Ok(Step::Loaded);
            }
            let segment = Rc::clone(&walk.segment);
            self.pending.push_back(Pending {
                segment,
                salt: header.salt,
                offset: header.offset,
                last_lsn: header.last_lsn(),
            });
            return Ok(Step::Moved);
        }
        let Some(next) = walk.successor(&*self.reader.vfs, store)? else { return Ok(Step::Nothing) };
        self.proven = self.proven.max(next.segment.header.durable_lsn);
        self.walk = Some(next);
        Ok(Step::Moved)
    }

    /// Whether there may be something that the walk does not find.
    fn needs_look(&mut self, vouched: Option<Lsn>) -> Result<bool> {
        let Some(marks) = self.marks else { return Ok(true) };
        match vouched {
            Some(_) => Ok(true),
            None => Ok(self.look_at_marks()? != Some(marks)),
        }
    }

    /// `None` where the manifest is being replaced.
    fn look_at_marks(&self) -> Result<Option<Marks>> {
        let vfs = &*self.reader.vfs;
        let Some(manifest) = newest_manifest(vfs, &self.reader.dir)? else { return Ok(None) };
        let files = WalFiles::scan(vfs, manifest.store, manifest.first_segment)?;
        let headers = || files.live.values().map(|segment| &segment.header);
        let epoch = headers().map(|header| header.epoch).max().unwrap_or(0);
        let segment = headers().map(|header| header.segment).max().unwrap_or(0);
        Ok(Some(Marks { generation: manifest.generation, epoch, segment }))
    }

    /// Takes a look at the whole store and scans it behind what was met.
    fn look(&mut self) -> Result<()> {
        // In front of the look: what changes behind this is seen as a change.
        let marks = self.look_at_marks()?;
        let mut view = self.reader.view()?;
        self.check_lineage(&view)?;
        self.store = Some(view.manifest.store);
        self.walk = None;
        self.pending.clear();
        self.window.clear();
        self.marks = marks;
        if let Some(first) = view.unconfirmed.take() {
            view.last_lsn = first.prev();
            self.notices.push(Notice::Unconfirmed(first));
        }
        // Not even what can be saved behind it: the log may be repaired, and then go on another way.
        if let Some((lost, _)) = view.damage.iter().find_map(|wound| wound.lsns) {
            view.last_lsn = view.last_lsn.min(lost.prev());
        }
        if let Some(replay) = &view.replay {
            self.proven = self.proven.max(replay.durable_lsn);
        }
        self.scan = Some(Scan::new(self.reader, self.range, view));
        Ok(())
    }

    fn check_lineage(&self, view: &View) -> Result<()> {
        let cannot = |what: String| Err(Error::io("go on with", &self.reader.dir, io::Error::other(what)));
        if self.store.is_some_and(|store| store != view.manifest.store) {
            return cannot("another store has taken its place".to_owned());
        }
        match &view.replay {
            Some(replay) if replay.next_lsn <= self.met => {
                let (end, met) = (replay.next_lsn.prev(), self.met);
                cannot(format!(
                    "it ends at LSN {end} now, and LSN {met} was there before: an older copy took its place"
                ))
            }
            _ => Ok(()),
        }
    }

    /// The walk begins where the scan has ended.
    fn end_scan(&mut self) {
        let Some(scan) = self.scan.take() else { return };
        let told = scan.notices();
        self.notices.extend(told);
        let mut view = scan.view;
        self.is_cut_short = !view.damage.is_empty();
        if view.last_lsn >= self.range.from_lsn {
            // Also what the range left out, and gaps.
            self.range.from_lsn = view.last_lsn.next();
        }
        self.met = self.met.max(view.last_lsn);
        self.names = std::mem::take(&mut view.names);
        self.walk = Walk::behind(&mut view, self.range.from_lsn);
    }
}

/// Whether a clock step belongs to what the range asks for.
fn is_touched(range: &ScanRange, step: &ClockStep) -> bool {
    let (low, high) = (step.from_ns.min(step.to_ns), step.from_ns.max(step.to_ns));
    (range.from_lsn..=range.to_lsn).contains(&step.lsn) && low <= range.to_ns && high >= range.from_ns
}

#[cfg(test)]
mod tests;
