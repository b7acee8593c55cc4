//! Rotation: another file is at the path, or none, and those that came between are beside it.
//!
//! What is known of the path and the names beside it must be of one moment, or a file would be put behind its successor:
//! where the path has changed while its directory was listed, it is looked at again.
//!
//! Proof: the property test of `set`, and rotation under load in `tests/it/tail.rs`.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::copies::Original;
use super::{Directories, Follower, LOOK_AGAIN, Place};
use crate::source::file::follow::Tail;
use crate::source::file::generations::{self, Generation, Listings, Siblings};
use crate::source::file::identity::{FileId, mtime_ns as mtime_ns_of};
use crate::source::file::report::Report;

impl Follower {
    /// Takes the file that was just seen at the path into the list, behind those that came between.
    ///
    /// # Errors
    /// Of kind `ResourceBusy` where it is being rotated away.
    pub(crate) fn adopt(
        &mut self,
        id: FileId,
        now: Duration,
        listings: &Listings,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> io::Result<()> {
        if !self.has_room() {
            return Ok(());
        }
        let siblings = self.siblings(listings)?;
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

    /// There is nothing at the path. Files that were there since the last look are looked for among the rotated ones.
    pub(crate) fn leave(
        &mut self,
        now: Duration,
        listings: &Listings,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> io::Result<()> {
        self.begins_at_end = false;
        if self.tails.is_empty() && !self.is_pattern {
            let path = self.path.clone();
            self.reports.push(match self.stored.last() {
                Some(position) => Report::Away { path, offset: position.offset },
                None => Report::Waiting { path },
            });
        }
        if self.last_known().is_some() {
            let siblings = self.siblings(listings)?;
            if !self.is_absent() {
                return Err(generations::busy());
            }
            self.take_between(&siblings, now, is_known, true)?;
            self.wake_all(now);
        }
        self.place = Place::Absent;
        Ok(())
    }

    /// The files beside the path, as they were while what is known of the path was true.
    fn siblings_in_place(&self, listings: &Listings) -> io::Result<Siblings> {
        let siblings = self.siblings(listings)?;
        let is_true = match self.place {
            Place::Here => self.is_in_place(),
            Place::Absent => self.is_absent(),
            // Nothing is known of it.
            Place::Unknown | Place::Refused(_) => true,
        };
        if is_true { Ok(siblings) } else { Err(generations::busy()) }
    }

    /// Whether the last file of the list is at the path now.
    pub(super) fn is_in_place(&self) -> bool {
        self.stat().is_ok_and(|id| self.current() == Some(id))
    }

    /// Whether nothing is at the path now.
    pub(super) fn is_absent(&self) -> bool {
        self.stat().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    fn siblings(&self, listings: &Listings) -> io::Result<Siblings> {
        self.siblings_of(self.last_known().map(|(id, _)| id), listings)
    }

    pub(super) fn siblings_of(&self, rotated: Option<FileId>, listings: &Listings) -> io::Result<Siblings> {
        match generations::siblings(&self.path, rotated, &self.old, listings) {
            // A directory may be searched by those who may not list it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Siblings::default()),
            outcome => outcome,
        }
    }

    /// Old files that are gone need not be known any more; those that were written to are known as they are now.
    pub(super) fn note(&mut self, siblings: &Siblings) {
        self.old.files = self.old.files.iter().filter_map(|file| siblings.renew(*file)).collect();
        let path = |path: &Path| Report::WrittenLate { path: path.to_owned() };
        let known = self.reports.len();
        self.reports.extend(siblings.grown().map(path));
        self.is_dirty |= self.reports.len() > known;
    }

    /// Takes the files in that came behind the last one that is known and are not at the path any more. Returns whether all
    /// had room.
    pub(super) fn take_between(
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
    pub(super) fn wake_all(&mut self, now: Duration) {
        for tail in &mut self.tails {
            (tail.is_ready, tail.is_settled, tail.quiet_since) = (true, false, now);
        }
    }

    /// Puts files in front of the one at `index`, to be read from their beginning; copies of files that were read are read on
    /// from there, or left alone while the original is whole. Returns whether all had room.
    pub(super) fn insert_generations(
        &mut self,
        index: usize,
        generations: Vec<Generation>,
        now: Duration,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> io::Result<bool> {
        let mut behind = self.tails.len() - index;
        for generation in generations {
            let original = self.original_of(generation.id, &generation.file)?;
            if let Some(Original::Read(at) | Original::Holder(at)) = original
                && self.tails[at].is_whole()?
            {
                self.leave_copy(at, &generation);
                continue;
            }
            if let Some(Original::Read(at)) = original {
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
    pub(crate) fn check_news(
        &mut self,
        now: Duration,
        listings: &Listings,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> io::Result<()> {
        let Some((_, mtime_ns)) = self.last_known() else { return Ok(()) };
        let siblings = self.siblings_in_place(listings)?;
        let news = siblings.news(mtime_ns, is_known)?;
        self.note(&siblings);
        let index = self.tails.len() - usize::from(self.place == Place::Here);
        let is_complete = self.insert_generations(index, news, now, is_known)?;
        self.directories.is_done = is_complete && now.saturating_sub(self.directories.changed) >= LOOK_AGAIN;
        Ok(())
    }
}
