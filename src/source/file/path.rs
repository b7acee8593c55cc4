//! One path and its files: the one that is there now, and those before it that are not finished.
//!
//! The list is in the order of reading: rotated files first, oldest first, the one that was at the path last. A file is read
//! when those before it have been read to their end; lines that come to a rotated file later are still taken, at once.
//!
//! - A rotated file stays open and looked at until two younger ones are settled, too, or its last name is removed. It is
//!   settled when nothing has come for [`SETTLE`]; an unfinished last line is then stored as it is: its writer is gone, and
//!   half a line tells more than none. Should the other half come after all, it is an entry of its own.
//! - A file whose name was removed is read to its end and let go when it is settled; so is, later, a file of a pattern that
//!   was moved to where no pattern looks.
//! - Whatever changes the list makes the record dirty; the record is the list.
//!
//! Proof: the property test of `set`.

mod copies;
mod restore;
mod turn;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::follow::{Look, Tail};
use super::identity::FileId;
use super::old::{Old, OldFile};
use super::outlet::NAME_RECORD_BYTES;
use super::position::{self, FILES_MAX, Position, Positions};
use super::report::Report;

/// How long nothing must come to a rotated file until it counts as finished.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);
/// How long nothing must come to a file that was moved away and that nothing has replaced.
pub(crate) const SETTLE_MOVED: Duration = Duration::from_secs(60);
/// What a record takes beside its key and value.
const RECORD_OVERHEAD_BYTES: usize = 16;
/// How long after a change of its directory a path's files are looked for once more.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Settled files that stay open, in case a writer has not let go of them.
const LINGERING_MAX: usize = 2;

/// What is at the path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Nobody has looked.
    Unknown,
    /// The last file of the list.
    Here,
    Absent,
    /// Something that cannot be read, or the same file as elsewhere: reported.
    Refused(String),
}

/// What a path has to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    Look(usize),
    /// Take the last line of a finished file.
    Finish(usize),
}

/// What was seen of the directories in which a path's files are.
#[derive(Debug, Default)]
struct Directories {
    /// When they were changed last, by their own account.
    times: Vec<i64>,
    /// When that was seen.
    changed: Duration,
    /// They were looked at late enough after that.
    is_done: bool,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) path: PathBuf,
    pub(crate) key: Vec<u8>,
    /// Whose entries they are.
    pub(crate) source: usize,
    pub(crate) is_pattern: bool,
    pub(crate) tails: Vec<Tail>,
    /// Positions of an earlier run whose files have not been looked for, or were not there.
    pub(crate) stored: Vec<Position>,
    /// Files beside the path that have nothing to be read.
    old: Old,
    /// The last file that is known to have been at the path, where it is not in the list.
    lost: Option<(FileId, i64)>,
    pub(crate) place: Place,
    directories: Directories,
    /// Files that were renamed are being taken in.
    is_turning: bool,
    /// The first file that is found there is read from its end.
    pub(crate) begins_at_end: bool,
    /// There are more rotated files than can be open; reported.
    pub(crate) is_crowded: bool,
    /// The record is not what was handed over last.
    pub(crate) is_dirty: bool,
    /// A file came from another path: this record must not be durable after that path's.
    pub(crate) has_gained: bool,
    /// The batch being collected has entries of it.
    pub(crate) is_in_batch: bool,
    pub(crate) reports: Vec<Report>,
}

impl Follower {
    pub(crate) fn new(path: PathBuf, source: usize, is_pattern: bool, stored: Positions) -> Follower {
        Follower {
            key: position::key(&path),
            path,
            source,
            is_pattern,
            tails: Vec::new(),
            stored: stored.files,
            old: stored.old,
            lost: None,
            place: Place::Unknown,
            directories: Directories::default(),
            is_turning: false,
            begins_at_end: false,
            is_crowded: false,
            is_dirty: false,
            has_gained: false,
            is_in_batch: false,
            reports: Vec::new(),
        }
    }

    /// The files that are open.
    pub(crate) fn files(&self) -> impl Iterator<Item = FileId> {
        self.tails.iter().map(|tail| tail.id)
    }

    pub(crate) fn current(&self) -> Option<FileId> {
        self.tails.last().map(|tail| tail.id)
    }

    /// What the store is to keep.
    pub(crate) fn positions(&self, age: u64) -> Positions {
        let files = match self.stored.is_empty() {
            true => self.tails.iter().map(Tail::position).collect(),
            false => self.stored.clone(),
        };
        Positions { age, files, old: self.old.clone() }
    }

    /// The file that was at the path last, as far as is known.
    fn last_known(&self) -> Option<(FileId, i64)> {
        self.tails.last().map(|tail| (tail.id, tail.seen.mtime_ns)).or(self.lost)
    }

    /// Whether one more file may be taken in; lets go of the oldest that is read to its end if it must.
    pub(crate) fn has_room(&mut self) -> bool {
        self.has_room_beside(|_| false)
    }

    /// As [`Follower::has_room`], without letting go of files that are another's to gain.
    pub(crate) fn has_room_beside(&mut self, is_wanted: impl Fn(FileId) -> bool) -> bool {
        let is_over = |tail: &Tail| !tail.is_ready && !tail.has_unfinished_line() && !is_wanted(tail.id);
        if self.tails.len() >= FILES_MAX
            && let Some(at) = self.tails[..FILES_MAX - 1].iter().position(is_over)
        {
            let tail = self.tails.remove(at);
            self.old.add(OldFile::new(tail.id.ino, tail.head()));
        }
        let has_room = self.tails.len() < FILES_MAX;
        if !has_room && !self.is_crowded {
            self.reports.push(Report::TooManyRotations { path: self.path.clone() });
        }
        self.is_crowded = !has_room;
        has_room
    }

    /// Whether the file at `index` will get no successor in its place: it is not at the path any more.
    fn is_away(&self, index: usize) -> bool {
        index + 1 < self.tails.len() || (self.place == Place::Absent && (self.is_pattern || self.is_removed(index)))
    }

    fn is_removed(&self, index: usize) -> bool {
        self.tails[index].seen.links == 0
    }

    /// What is to be done now, if anything.
    pub(crate) fn work(&self, now: Duration) -> Option<Work> {
        if let Some(at) = self.tails.iter().position(|tail| tail.is_ready) {
            return Some(Work::Look(at));
        }
        let is_finished = |at: &usize| self.tails[*at].has_unfinished_line() && self.is_quiet(*at, now);
        (0..self.tails.len()).find(is_finished).map(Work::Finish)
    }

    /// Whether nothing more is expected of the file.
    fn is_quiet(&self, index: usize, now: Duration) -> bool {
        let tail = &self.tails[index];
        let is_replaced = index + 1 < self.tails.len() || self.is_removed(index);
        let settle = if is_replaced { SETTLE } else { SETTLE_MOVED };
        self.is_away(index) && !tail.is_ready && !tail.is_failing && now.saturating_sub(tail.quiet_since) >= settle
    }

    /// Marks files that are finished and lets go of those that need not be looked at any more. Returns whether the path
    /// itself can be let go: a pattern's, with nothing there; its position stays in the store where a file of it may.
    pub(crate) fn retire(&mut self, now: Duration) -> bool {
        for index in 0..self.tails.len() {
            if !self.tails[index].is_settled && self.is_quiet(index, now) && !self.tails[index].has_unfinished_line() {
                self.tails[index].is_settled = true;
                self.is_dirty = true;
            }
        }
        let settled = self.tails.iter().filter(|tail| tail.is_settled).count();
        let (mut seen, last) = (0, self.tails.len().saturating_sub(1));
        let mut index = 0;
        let before = self.tails.len();
        let last_known = self.last_known();
        let old = &mut self.old;
        self.tails.retain(|tail| {
            seen += usize::from(tail.is_settled);
            let is_last_settled = index < last && settled - seen >= LINGERING_MAX;
            index += 1;
            let is_over = tail.is_settled && (tail.seen.links == 0 || is_last_settled);
            if is_over && tail.seen.links > 0 {
                old.add(OldFile::new(tail.id.ino, tail.head()));
            }
            !is_over
        });
        self.is_dirty |= self.tails.len() < before;
        if self.tails.is_empty() {
            self.lost = last_known;
        }
        let is_over = self.tails.iter().all(|tail| tail.is_settled) && self.stored.is_empty();
        self.is_pattern && self.place == Place::Absent && is_over
    }

    /// What a look at the file at `index` came to.
    pub(crate) fn looked(
        &mut self,
        index: usize,
        outcome: io::Result<Look>,
        before: (u64, u64),
        now: Duration,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> Look {
        let id = self.tails[index].id;
        let outcome = outcome.and_then(|look| match look {
            Look::Other => self.replaced(index, is_known).map(|_| Look::More),
            look => Ok(look),
        });
        // Replaced, it may have a copy in front of it; both are ready then.
        // Or it was let go, as a copy of another.
        let Some(tail) = self.tails.iter_mut().find(|tail| tail.id == id) else { return Look::More };
        match outcome {
            Ok(look) => {
                if std::mem::take(&mut tail.is_failing) {
                    self.reports.push(Report::Recovered { path: tail.path.clone() });
                }
                if tail.reach() != before {
                    (tail.quiet_since, tail.is_settled) = (now, false);
                    self.is_dirty |= tail.offset != before.0;
                }
                tail.is_ready = look != Look::AtEnd;
                look
            }
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                tail.is_ready = false;
                Look::AtEnd
            }
            Err(error) => {
                if !std::mem::replace(&mut tail.is_failing, true) {
                    self.reports.push(Report::Failing { path: tail.path.clone(), what: error.to_string() });
                }
                tail.is_ready = false;
                Look::AtEnd
            }
        }
    }

    /// Takes over a file that was renamed to this path from another. There is room.
    pub(crate) fn gain(&mut self, mut tail: Tail) {
        tail.wake(&self.path);
        self.tails.push(tail);
        (self.is_dirty, self.has_gained) = (true, true);
    }

    /// The last file of the list is at the path.
    pub(crate) fn stay(&mut self) {
        if matches!(std::mem::replace(&mut self.place, Place::Here), Place::Refused(_)) {
            self.reports.push(Report::Recovered { path: self.path.clone() });
        }
        self.begins_at_end = false;
        if let Some(tail) = self.tails.last_mut() {
            self.is_dirty |= std::mem::take(&mut tail.is_settled);
        }
    }

    /// The path cannot be looked at.
    pub(crate) fn fail(&mut self, cause: &io::Error) {
        self.refuse(Report::Failing { path: self.path.clone(), what: cause.to_string() });
    }

    /// Records that the path cannot be read, and says so once.
    pub(crate) fn refuse(&mut self, report: Report) {
        let place = Place::Refused(report.to_string());
        if self.place != place {
            self.reports.push(report);
            self.place = place;
        }
    }

    /// Most bytes that its record and its source's name take in a batch.
    pub(crate) fn record_bytes(&self) -> usize {
        // A copy may be found while its entries are in the batch.
        let files = (self.tails.len() + 2).min(FILES_MAX);
        Positions::encoded_bytes_max(files, self.old.files.len())
            + self.key.len()
            + RECORD_OVERHEAD_BYTES
            + NAME_RECORD_BYTES
    }

    /// What is at the path now: a file's number, nothing, or something that cannot be read.
    pub(crate) fn stat(&self) -> io::Result<FileId> {
        fs::metadata(&self.path).map(|metadata| FileId::of(&metadata))
    }

    /// Looks whether files have changed, without reading them.
    pub(crate) fn check(&mut self) {
        for tail in &mut self.tails {
            // What failed is tried again; that it failed was reported.
            if tail.check().is_err() || tail.is_failing {
                tail.is_ready = true;
            }
        }
    }
}

/// Whether the path leads into this directory, which is given without symbolic links.
pub(crate) fn is_inside(path: &Path, dir: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|path| path.starts_with(dir))
}
