//! Files that were truncated, and the copies that were made of them before.
//!
//! Proof: the property test of `set`, and copytruncate under load in `tests/it/tail.rs`.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::{Follower, Place};
use crate::source::file::follow::Tail;
use crate::source::file::generations::{self, Generation, Listings, Siblings};
use crate::source::file::identity::{FileId, Marks, Verdict, judge};
use crate::source::file::position::{FILES_MAX, Position};
use crate::source::file::report::Report;

/// The file of the list, by its place, that another is a copy of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Original {
    /// The copy has what was read of it.
    Read(usize),
    /// It has all that the copy has.
    Holder(usize),
}

impl Follower {
    /// What a copy has, its original has, too. Where copies are what rotation makes, that is nothing to speak of; beside
    /// files that are renamed it may be a mistake, which somebody should be able to see.
    pub(super) fn leave_copy(&mut self, original: usize, generation: &Generation) {
        if self.is_turning {
            let (path, of) = (generation.path.clone(), self.tails[original].path.clone());
            self.reports.push(Report::TakenForCopy { path, of });
            self.old.add(generation.note);
            self.is_dirty = true;
        }
    }

    /// What this file is a copy of, if it is one. Whole files are compared only where what was read does not tell.
    pub(super) fn original_of(&self, id: FileId, file: &File) -> io::Result<Option<Original>> {
        if let Some(at) = self.copied_from(id, file)? {
            return Ok(Some(Original::Read(at)));
        }
        Ok(self.held_by(id, file)?.map(Original::Holder))
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
    pub(super) fn is_growing_copy(&mut self, index: usize) -> io::Result<bool> {
        let tail = &self.tails[index];
        if !tail.may_grow_into_copy || index + 1 == self.tails.len() {
            return Ok(false);
        }
        if tail.file().metadata()?.len() == 0 {
            self.tails[index].is_ready = false;
            return Ok(true);
        }
        let is_copy = self.is_copy_of_another(index)?;
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
    pub(super) fn take_missed_copies(
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
        let siblings = self.siblings_of(None, &Listings::default())?;
        if self.place == Place::Here && !self.is_in_place() {
            return Err(generations::busy());
        }
        let found = siblings.news(mtime_ns, is_known)?;
        let before = self.tails.len();
        self.insert_generations(index, found, now, is_known)?;
        Ok(self.tails.len() > before)
    }

    /// Whether the file at `index` has the bytes of another of the list.
    fn is_copy_of_another(&self, index: usize) -> io::Result<bool> {
        let tail = &self.tails[index];
        Ok(self.original_of(tail.id, tail.file())?.is_some())
    }

    /// A rotated file was written over with a copy of its successor: it is a copy from now on, and news once its original is
    /// not whole any more.
    fn let_go_of_overwritten(&mut self, index: usize, unread: u64) {
        let tail = self.tails.remove(index);
        if unread > 0 {
            self.reports.push(Report::TakenBack { path: tail.path, offset: tail.offset, bytes: unread });
        }
        self.directories.is_done = false;
    }

    /// Where no copy was found, a compressed one may hold what is missing.
    pub(super) fn report_compressed(&mut self, siblings: &Siblings, position: &Position) {
        // It carries the time of what was compressed: from before or after the last look.
        let compressed = siblings.compressed_news(position.mtime_ns - 1).into_iter();
        self.reports.extend(compressed.map(|path| Report::Compressed { path, of: self.path.clone() }));
    }

    /// The file at `index` is not what was read: it lost its end, or begins anew. Returns whether a copy of what it was is in
    /// front of it now.
    pub(super) fn replaced(&mut self, index: usize, is_known: &dyn Fn(FileId) -> bool) -> io::Result<bool> {
        let tail = &mut self.tails[index];
        tail.is_ready = true;
        let (position, unread, path) = (tail.position(), tail.unread(), tail.path.clone());
        let offset = position.offset;
        self.is_dirty = true;
        if let Some(len) = tail.shorten()? {
            self.reports.push(Report::Shortened { path, offset, len, unread });
            return Ok(false);
        }
        if index + 1 < self.tails.len() && self.is_copy_of_another(index)? {
            self.let_go_of_overwritten(index, unread);
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
        let siblings = generations::siblings(&self.path, None, &self.old, &Listings::default())?;
        let copy = siblings.copy(&position, &is_open)?;
        if copy.is_none() {
            self.report_compressed(&siblings, &position);
        }
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
}
