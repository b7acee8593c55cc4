//! The files of an earlier run, wherever they are now.
//!
//! Proof: the property test of `set`.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::Follower;
use crate::source::file::follow::Tail;
use crate::source::file::generations::{self, Generation, Listings};
use crate::source::file::identity::{FileId, Verdict};
use crate::source::file::position::{FILES_MAX, Position};
use crate::source::file::report::Report;

impl Follower {
    /// Opens the files of an earlier run, wherever they are now. Where none is to be found and nothing is at the path, it
    /// waits: the file system may not be mounted yet.
    ///
    /// # Errors
    /// Where that cannot be told now; of kind `ResourceBusy` where a rotation is going on. Then nothing has changed.
    pub(crate) fn restore(&mut self, is_known: &dyn Fn(FileId) -> bool) -> io::Result<()> {
        let (stored, old, is_dirty) = (self.stored.clone(), self.old.clone(), self.is_dirty);
        let reports = self.reports.len();
        let outcome = self.find_stored(is_known);
        if outcome.is_err() {
            (self.stored, self.old, self.is_dirty, self.lost) = (stored, old, is_dirty, None);
            self.tails.clear();
            self.reports.truncate(reports);
        }
        outcome
    }

    fn find_stored(&mut self, is_known: &dyn Fn(FileId) -> bool) -> io::Result<()> {
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
            if !is_open && self.original_of(tail.id, tail.file())?.is_none() {
                self.take_restored(at, tail);
            }
        }
        Ok(())
    }

    pub(super) fn take_restored(&mut self, at: usize, tail: Tail) {
        self.reports.push(Report::Following { path: tail.path.clone(), offset: tail.offset });
        self.tails.insert(at, tail);
    }

    /// The file that was at the path is nowhere. If one of its number is at the path, that was truncated, or made anew.
    pub(super) fn miss(
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
        let siblings = generations::siblings(&self.path, None, &self.old, &Listings::default())?;
        let copied = self.insert_copy(self.tails.len(), &position, siblings.copy(&position, &is_it)?)?;
        if copied.is_none() {
            self.report_compressed(&siblings, &position);
        }
        match replaced {
            // Else it is taken in as any file at the path once there is room.
            Some(file) if self.tails.len() < FILES_MAX => {
                let copy = copied.map(|(path, _)| path);
                self.reports.push(Report::Truncated { path: self.path.clone(), offset, unread: 0, copy });
                let mut tail = Tail::new(file, &self.path)?;
                tail.restart();
                tail.seen.mtime_ns = position.mtime_ns;
                self.tails.push(tail);
            }
            _ => {
                self.lost = Some((position.id, position.mtime_ns));
                if copied.is_none() {
                    self.reports.push(Report::Lost { path: self.path.clone(), offset });
                }
            }
        }
        Ok(())
    }

    /// Puts a copy of a file in front of the file at `index`, to be read from where that had been read to; returns its path
    /// and how many bytes it has behind there, if any.
    pub(super) fn insert_copy(
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
}
