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

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::follow::{Look, Tail};
use super::generations::{self, Generation, Siblings};
use super::identity::{FileId, Marks, Verdict, judge, mtime_ns as mtime_ns_of};
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

    /// Opens the files of an earlier run, wherever they are now. Where none is to be found and nothing is at the path, it
    /// waits: the file system may not be mounted yet.
    pub(crate) fn restore(&mut self, is_known: &dyn Fn(FileId) -> bool) -> io::Result<()> {
        let at_path = match generations::open_regular(&self.path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let find = |position: &Position| generations::find(&self.path, position.id, position.offset, &position.prints);
        let found: Vec<_> = self.stored.iter().map(find).collect();
        if at_path.is_none() && found.iter().all(Option::is_none) {
            return Ok(());
        }
        let stored = std::mem::take(&mut self.stored);
        let last = stored.len() - 1;
        let mut untouched = Vec::new();
        self.is_dirty = true;
        for (index, (mut position, found)) in stored.into_iter().zip(found).enumerate() {
            let Some((generation, verdict)) = found else {
                if index == last {
                    self.miss(position, at_path.as_ref(), is_known)?;
                } else if !position.is_settled {
                    self.reports.push(Report::Lost { path: self.path.clone(), offset: position.offset });
                }
                continue;
            };
            let marks = match verdict {
                Verdict::Same(marks) => marks,
                Verdict::Shortened { len, marks } => {
                    let (path, offset) = (generation.path.clone(), position.offset);
                    self.reports.push(Report::Shortened { path, offset, len, unread: 0 });
                    position.offset = len;
                    marks
                }
                Verdict::Other => unreachable!("such a file is not found"),
            };
            let tail = Tail::restored(generation.file, &generation.path, &position, marks)?;
            if index < last && tail.offset == 0 {
                untouched.push((self.tails.len(), tail));
            } else {
                self.take_restored(self.tails.len(), tail);
            }
        }
        // Of these nothing was taken: that they are the same, only their numbers say, and a copy may have the number of a
        // file that was removed.
        for (at, tail) in untouched.into_iter().rev() {
            let is_open = is_known(tail.id) || self.tails.iter().any(|other| other.id == tail.id);
            if !is_open && self.copied_from(tail.id, tail.file())?.or(self.held_by(tail.id, tail.file())?).is_none() {
                self.take_restored(at, tail);
            }
        }
        Ok(())
    }

    fn take_restored(&mut self, at: usize, tail: Tail) {
        self.reports.push(Report::Following { path: tail.path.clone(), offset: tail.offset });
        self.tails.insert(at, tail);
    }

    /// The file that was at the path is nowhere. If one of its number is at the path, that was truncated, or made anew.
    fn miss(
        &mut self,
        position: Position,
        at_path: Option<&File>,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> io::Result<()> {
        let is_same_number = |file: &File| Ok::<_, io::Error>(file.metadata().map(|found| FileId::of(&found))?.ino);
        let replaced = match at_path {
            Some(file) if is_same_number(file)? == position.id.ino => Some(file.try_clone()?),
            _ => None,
        };
        let is_open = |id: FileId| is_known(id) || self.tails.iter().any(|tail| tail.id == id);
        let is_it = |id: FileId| is_open(id) || id.ino == position.id.ino;
        let offset = position.offset;
        let copy = generations::siblings(&self.path, None, &self.old)?.copy(&position, &is_it)?;
        let copied = self.insert_copy(self.tails.len(), &position, copy)?;
        match replaced {
            Some(file) => {
                let copy = copied.map(|(path, _)| path);
                self.reports.push(Report::Truncated { path: self.path.clone(), offset, unread: 0, copy });
                let mut tail = Tail::new(file, &self.path)?;
                tail.restart();
                tail.seen.mtime_ns = position.mtime_ns;
                self.tails.push(tail);
            }
            None => {
                self.lost = Some((position.id, position.mtime_ns));
                if copied.is_none() {
                    self.reports.push(Report::Lost { path: self.path.clone(), offset });
                }
            }
        }
        Ok(())
    }

    /// The file that was at the path last, as far as is known.
    fn last_known(&self) -> Option<(FileId, i64)> {
        self.tails.last().map(|tail| (tail.id, tail.seen.mtime_ns)).or(self.lost)
    }

    /// Puts a copy of a file in front of the file at `index`, to be read from where that had been read to; returns its path
    /// and how many bytes it has behind there, if any.
    fn insert_copy(
        &mut self,
        index: usize,
        position: &Position,
        copy: Option<(Generation, Verdict)>,
    ) -> io::Result<Option<(PathBuf, u64)>> {
        let Some((generation, verdict)) = copy else { return Ok(None) };
        let before = self.tails.len();
        if !self.has_room() {
            return Ok(None);
        }
        // To make room an older one may have gone.
        let index = index.saturating_sub(before - self.tails.len());
        let mut position = position.clone();
        let marks = match verdict {
            Verdict::Same(marks) => marks,
            // The file was read further than the copy goes.
            Verdict::Shortened { len, marks } => {
                position.offset = len;
                marks
            }
            Verdict::Other => return Ok(None),
        };
        let rest = generation.file.metadata()?.len().saturating_sub(position.offset);
        let mut tail = Tail::restored(generation.file, &generation.path, &position, marks)?;
        tail.is_settled = false;
        // Also where there is nothing to read in it: so it is known.
        self.tails.insert(index, tail);
        Ok((rest > 0).then_some((generation.path, rest)))
    }

    /// Takes the file that was just seen at the path into the list, behind those that came between.
    ///
    /// # Errors
    /// Of kind `ResourceBusy` where it is being rotated away.
    pub(crate) fn adopt(&mut self, id: FileId, now: Duration, is_known: &dyn Fn(FileId) -> bool) -> io::Result<()> {
        if !self.has_room() {
            return Ok(());
        }
        let siblings = self.siblings()?;
        let file = generations::open_regular(&self.path)?;
        // The names and the file must be of one moment: what was rotated away between would be read behind it.
        if FileId::of(&file.metadata()?) != id {
            return Err(generations::busy());
        }
        if let Some(at) = self.tails.iter().position(|tail| tail.id == id) {
            // It was moved away and came back.
            let mut tail = self.tails.remove(at);
            tail.wake(&self.path);
            self.tails.push(tail);
            self.is_dirty = true;
            return Ok(());
        }
        let is_other = |other: FileId| other == id || is_known(other);
        let is_news = self.place != Place::Absent;
        let is_complete = self.take_between(&siblings, now, &is_other, is_news)?;
        self.wake_all(now);
        self.is_dirty = true;
        if !is_complete || !self.has_room() {
            return Ok(());
        }
        let mut tail = Tail::new(file, &self.path)?;
        tail.quiet_since = now;
        if self.begins_at_end {
            tail.skip_to_end()?;
        }
        self.reports.push(Report::Following { path: self.path.clone(), offset: tail.offset });
        self.tails.push(tail);
        // Those that were let go of to make room count as known there, and are old since.
        let mut old = siblings.old(&|other| is_other(other) || self.tails.iter().any(|tail| tail.id == other));
        self.note(&siblings);
        self.old.files.iter().rev().for_each(|file| old.add(*file));
        self.old = old;
        self.lost = None;
        Ok(())
    }

    /// The files beside the path, as they were while what is known of the path was true.
    fn siblings_in_place(&self) -> io::Result<Siblings> {
        let siblings = self.siblings()?;
        let is_true = match self.place {
            Place::Here => self.is_in_place(),
            Place::Absent => self.is_absent(),
            // Nothing is known of it.
            Place::Unknown | Place::Refused(_) => true,
        };
        if is_true { Ok(siblings) } else { Err(generations::busy()) }
    }

    /// Whether the last file of the list is at the path now.
    fn is_in_place(&self) -> bool {
        self.stat().is_ok_and(|id| self.current() == Some(id))
    }

    /// Whether nothing is at the path now.
    fn is_absent(&self) -> bool {
        self.stat().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    fn siblings(&self) -> io::Result<Siblings> {
        self.siblings_of(self.last_known().map(|(id, _)| id))
    }

    fn siblings_of(&self, rotated: Option<FileId>) -> io::Result<Siblings> {
        match generations::siblings(&self.path, rotated, &self.old) {
            // A directory may be searched by those who may not list it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Siblings::default()),
            outcome => outcome,
        }
    }

    /// Old files that are gone need not be known any more; those that were written to are known as they are now.
    fn note(&mut self, siblings: &Siblings) {
        self.old.files = self.old.files.iter().filter_map(|file| siblings.renew(*file)).collect();
        let path = |path: &Path| Report::WrittenLate { path: path.to_owned() };
        let known = self.reports.len();
        self.reports.extend(siblings.grown().map(path));
        self.is_dirty |= self.reports.len() > known;
    }

    /// Takes the files in that came behind the last one that is known and are not at the path any more. Returns whether all
    /// had room.
    fn take_between(
        &mut self,
        siblings: &Siblings,
        now: Duration,
        is_known: &dyn Fn(FileId) -> bool,
        is_news: bool,
    ) -> io::Result<bool> {
        let Some((before, mtime_ns)) = self.last_known() else { return Ok(true) };
        let is_open = |id: FileId| is_known(id) || self.tails.iter().any(|tail| tail.id == id);
        let between = siblings.news(mtime_ns, &is_open)?;
        if let Some(tail) = self.tails.last_mut().filter(|tail| tail.id == before) {
            if is_news {
                let path = self.path.clone();
                // Where that cannot be told, it has not been removed.
                let _ = tail.check();
                self.reports.push(match tail.seen.links {
                    0 => Report::Removed { path },
                    _ => Report::Rotated { path, old: siblings.rotated.clone() },
                });
            }
            tail.path = siblings.rotated.clone().unwrap_or_else(|| tail.path.clone());
        }
        if is_news {
            let compressed = siblings.compressed_news(mtime_ns).into_iter();
            self.reports.extend(compressed.map(|path| Report::Compressed { path, of: self.path.clone() }));
        }
        if !between.is_empty() {
            self.wake_all(now);
        }
        self.is_turning = true;
        let outcome = self.insert_generations(self.tails.len(), between, now, is_known);
        self.is_turning = false;
        outcome
    }

    /// The files are to be read to their end again before what comes behind them.
    fn wake_all(&mut self, now: Duration) {
        for tail in &mut self.tails {
            (tail.is_ready, tail.is_settled, tail.quiet_since) = (true, false, now);
        }
    }

    /// Puts files in front of the one at `index`, to be read from their beginning; copies of files that were read are read on
    /// from there, or left alone while the original is whole. Returns whether all had room.
    fn insert_generations(
        &mut self,
        index: usize,
        generations: Vec<Generation>,
        now: Duration,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> io::Result<bool> {
        let mut behind = self.tails.len() - index;
        for generation in generations {
            let copied = self.copied_from(generation.id, &generation.file)?;
            let original = match copied {
                Some(at) => Some(at),
                None => self.held_by(generation.id, &generation.file)?,
            };
            if let Some(at) = original
                && self.tails[at].is_whole()?
            {
                self.leave_copy(at, &generation);
                continue;
            }
            if let Some(at) = copied {
                let is_behind = at >= self.tails.len() - behind;
                behind += usize::from(self.replaced(at, is_known)? && is_behind);
                continue;
            }
            if !self.has_room() {
                return Ok(false);
            }
            let mut tail = Tail::new(generation.file, &generation.path)?;
            tail.quiet_since = now;
            tail.may_grow_into_copy = tail.file().metadata()?.len() == 0;
            self.reports.push(Report::Following { path: generation.path, offset: 0 });
            self.tails.insert(self.tails.len().saturating_sub(behind), tail);
            self.is_dirty = true;
        }
        Ok(true)
    }

    /// What a copy has, its original has, too. Where copies are what rotation makes, that is nothing to speak of; beside
    /// files that are renamed it may be a mistake, which somebody should be able to see.
    fn leave_copy(&mut self, original: usize, generation: &Generation) {
        if self.is_turning {
            let (path, of) = (generation.path.clone(), self.tails[original].path.clone());
            self.reports.push(Report::TakenForCopy { path, of });
            self.old.add(generation.note);
            self.is_dirty = true;
        }
    }

    /// The file of the list that has everything that this one has, now. One that has nothing yet may become anything.
    fn held_by(&self, id: FileId, file: &File) -> io::Result<Option<usize>> {
        let len = file.metadata()?.len();
        let marks = Marks::read(file, len)?;
        for (at, tail) in self.tails.iter().enumerate().filter(|(_, tail)| len > 0 && tail.id != id) {
            if Marks::read(tail.file(), len)? == marks {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The file of the list that this one is a copy of.
    fn copied_from(&self, id: FileId, file: &File) -> io::Result<Option<usize>> {
        for (at, tail) in self.tails.iter().enumerate().filter(|(_, tail)| tail.offset > 0 && tail.id != id) {
            let position = tail.position();
            if judge(file, position.offset, &position.prints)? != Verdict::Other {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Whether the file at `index`, which was empty when it was taken in, must not be looked at: it still is, or it has become
    /// a copy of another. Such a one is let go; it is news once more when its original is not whole any more.
    fn is_growing_copy(&mut self, index: usize) -> io::Result<bool> {
        let tail = &self.tails[index];
        if !tail.may_grow_into_copy || index + 1 == self.tails.len() {
            return Ok(false);
        }
        let (id, file) = (tail.id, tail.file());
        if file.metadata()?.len() == 0 {
            self.tails[index].is_ready = false;
            return Ok(true);
        }
        let is_copy = self.copied_from(id, file)?.or(self.held_by(id, file)?).is_some();
        if is_copy {
            self.tails.remove(index);
            self.directories.is_done = false;
            self.is_dirty = true;
        }
        Ok(is_copy)
    }

    /// Before the first byte of a file is taken. Returns whether the list has changed, or the file is not to be read yet.
    ///
    /// # Errors
    /// Of kind `ResourceBusy` where a rotation is going on: the file must not be read now.
    pub(crate) fn prepare_first_look(
        &mut self,
        index: usize,
        now: Duration,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> io::Result<bool> {
        Ok(self.take_missed_copies(index, now, is_known)? || self.is_growing_copy(index)?)
    }

    /// The writer of a file may have filled it and moved the content to copies more than once. They are files named like
    /// rotated ones, unknown, and not older than the last look.
    fn take_missed_copies(
        &mut self,
        index: usize,
        now: Duration,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> io::Result<bool> {
        let tail = &self.tails[index];
        if index + 1 < self.tails.len() || !tail.may_have_lost_its_beginning()? {
            return Ok(false);
        }
        let mtime_ns = tail.seen.mtime_ns;
        let siblings = self.siblings_of(None)?;
        if self.place == Place::Here && !self.is_in_place() {
            return Err(generations::busy());
        }
        let found = siblings.news(mtime_ns, is_known)?;
        let before = self.tails.len();
        self.insert_generations(index, found, now, is_known)?;
        Ok(self.tails.len() > before)
    }

    /// Whether the directory has changed, so that files of the log may have come and gone between two looks. It is looked at
    /// once more after a change: another that follows the look at once may carry the same time.
    pub(crate) fn may_have_news(&mut self, now: Duration) -> bool {
        if self.tails.is_empty() {
            return false;
        }
        let directories = generations::directories(&self.path);
        let times = directories.iter().filter_map(|dir| fs::metadata(dir).ok()).map(|dir| mtime_ns_of(&dir)).collect();
        if self.directories.times != times {
            self.directories = Directories { times, changed: now, is_done: false };
        }
        !self.directories.is_done
    }

    /// Takes in files of the log that have come and gone between two looks.
    pub(crate) fn check_news(&mut self, now: Duration, is_known: &dyn Fn(FileId) -> bool) -> io::Result<()> {
        let Some((_, mtime_ns)) = self.last_known() else { return Ok(()) };
        let siblings = self.siblings_in_place()?;
        let news = siblings.news(mtime_ns, is_known)?;
        self.note(&siblings);
        let index = self.tails.len() - usize::from(self.place == Place::Here);
        let is_complete = self.insert_generations(index, news, now, is_known)?;
        self.directories.is_done = is_complete && now.saturating_sub(self.directories.changed) >= LOOK_AGAIN;
        Ok(())
    }

    /// Whether one more file may be taken in; lets go of the oldest that is read to its end if it must.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.tails.len() >= FILES_MAX
            && let Some(at) =
                self.tails[..FILES_MAX - 1].iter().position(|tail| !tail.is_ready && !tail.has_unfinished_line())
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
        let tail = self.tails.iter_mut().find(|tail| tail.id == id).expect("who is ready is not let go of");
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

    /// The file at `index` is not what was read: it lost its end, or begins anew. Returns whether a copy of what it was is in
    /// front of it now.
    fn replaced(&mut self, index: usize, is_known: &dyn Fn(FileId) -> bool) -> io::Result<bool> {
        let tail = &mut self.tails[index];
        tail.is_ready = true;
        let (position, unread, path) = (tail.position(), tail.unread(), tail.path.clone());
        let offset = position.offset;
        self.is_dirty = true;
        if let Some(len) = tail.shorten()? {
            self.reports.push(Report::Shortened { path, offset, len, unread });
            return Ok(false);
        }
        // A copy that was being made was nobody's until now.
        let is_growing = |tail: &&Tail| tail.may_grow_into_copy && tail.offset == 0 && tail.id != position.id;
        let rotated = self.tails.split_last().map_or(&[][..], |(_, rotated)| rotated);
        let growing: Vec<FileId> = rotated.iter().filter(is_growing).map(|tail| tail.id).collect();
        self.tails.retain(|tail| !growing.contains(&tail.id));
        self.directories.is_done &= growing.is_empty();
        let is_known = |id: FileId| is_known(id) && !growing.contains(&id);
        let is_open = |id: FileId| is_known(id) || self.tails.iter().any(|tail| tail.id == id);
        let copy = generations::siblings(&self.path, None, &self.old)?.copy(&position, &is_open)?;
        if copy.is_some() && self.tails.len() >= FILES_MAX && !self.has_room() {
            // It stays as it is until there is some.
            return Err(generations::busy());
        }
        let index =
            self.tails.iter().position(|tail| tail.id == position.id).expect("it is not let go of while it is ready");
        self.tails[index].restart();
        let copy_id = copy.as_ref().map(|(generation, _)| generation.id);
        let copied = self.insert_copy(index, &position, copy)?;
        let (copy, rest) = copied.map_or((None, 0), |(path, rest)| (Some(path), rest));
        self.reports.push(Report::Truncated { path, offset, unread: unread.saturating_sub(rest), copy });
        Ok(self.tails.iter().any(|tail| Some(tail.id) == copy_id))
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

    /// There is nothing at the path. Files that were there since the last look are looked for among the rotated ones.
    pub(crate) fn leave(&mut self, now: Duration, is_known: &dyn Fn(FileId) -> bool) -> io::Result<()> {
        self.begins_at_end = false;
        if self.tails.is_empty() && !self.is_pattern {
            let path = self.path.clone();
            self.reports.push(match self.stored.last() {
                Some(position) => Report::Away { path, offset: position.offset },
                None => Report::Waiting { path },
            });
        }
        if self.last_known().is_some() {
            let siblings = self.siblings()?;
            if !self.is_absent() {
                return Err(generations::busy());
            }
            self.take_between(&siblings, now, is_known, true)?;
            self.wake_all(now);
        }
        self.place = Place::Absent;
        Ok(())
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
