//! All files: which paths are followed, whose file is whose, in which order they are read, and what the store keeps.
//!
//! - A file is read by one path at a time. One that is renamed from one followed path to another goes over with its offset,
//!   and both records become durable together, or the gaining one first.
//! - The records of all files whose entries are in a batch are in that batch. Between a scan that changed a list and the
//!   next entry, the records go out alone.
//! - A scan happens between two batches only, so a record never says more than the entries in front of it.
//! - Reading goes round: one piece of one file at a time.
//! - The position of a file that nobody follows (a path that left the configuration, a match that is not there) is kept, for
//!   at most [`PARKED_MAX`] paths; beyond it the one that was followed longest ago is forgotten, with a warning. The position
//!   of a file whose last name was removed is dropped when it is read to its end: it cannot come back.
//!
//! Time is handed in, as the time since the daemon started.
//!
//! Proof: the property test in `set/tests.rs`.

mod known;
mod patterns;
mod scan;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::follow::Look;
use super::generations;
use super::glob::Pattern;
use super::identity::FileId;
use super::outlet::{Outlet, no_name};
use super::path::{Follower, Work, is_inside};
use super::position::{self, Positions};
use super::report::Report;
use crate::config::sources::{FileSource, FileStart};
use crate::error::{Error, Result};
use crate::format::facts::Checkpoints;

/// Paths whose positions are kept though nobody follows them.
pub(crate) const PARKED_MAX: usize = 1024;

/// What reading came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Something was read.
    Busy,
    /// There is nothing to read.
    Idle,
    /// The log has no room.
    Blocked,
}

/// A pattern and what it is for.
struct Wanted {
    pattern: Pattern,
    config: FileSource,
}

/// See the module's page.
pub(crate) struct Set {
    followers: Vec<Follower>,
    patterns: Vec<Wanted>,
    /// The keys of all followers.
    followed: BTreeSet<Vec<u8>>,
    /// Positions that nobody follows, by key.
    parked: BTreeMap<Vec<u8>, Positions>,
    /// Keys to be removed from the store.
    forgotten: BTreeSet<Vec<u8>>,
    /// Matches that were reported as left alone.
    left_alone: BTreeSet<PathBuf>,
    /// Directories whose names decide which files there are.
    directories: BTreeSet<PathBuf>,
    /// The data directory, without symbolic links.
    data_dir: PathBuf,
    files_max: usize,
    is_full: bool,
    /// Files that are there now begin where their configuration says; later ones at their beginning.
    is_start: bool,
    /// Whose turn it is.
    turn: usize,
    /// A list changed: its record goes out before anything else.
    must_persist: bool,
    reports: Vec<(Option<usize>, Report)>,
}

impl Set {
    /// Checks everything that can be wrong before anything is read.
    pub(crate) fn open(
        sources: &[FileSource],
        files_max: usize,
        data_dir: &Path,
        checkpoints: &Checkpoints,
        outlet: &mut dyn Outlet,
    ) -> Result<Set> {
        let data_dir = std::fs::canonicalize(data_dir).map_err(|cause| Error::io("open", data_dir, cause))?;
        let mut set = Set {
            followers: Vec::new(),
            patterns: Vec::new(),
            followed: BTreeSet::new(),
            parked: stored_positions(checkpoints)?,
            forgotten: BTreeSet::new(),
            left_alone: BTreeSet::new(),
            directories: BTreeSet::new(),
            data_dir,
            files_max,
            is_full: false,
            is_start: true,
            turn: 0,
            must_persist: false,
            reports: Vec::new(),
        };
        for source in sources {
            let path = std::path::absolute(&source.path).map_err(|cause| Error::io("follow", &source.path, cause))?;
            if source.is_pattern {
                let pattern = Pattern::new(&path);
                pattern.expand().map_err(|cause| Error::io("list", &pattern.base, cause))?;
                set.patterns.push(Wanted { pattern, config: source.clone() });
            } else {
                check_path(&path, &set.data_dir)?;
                let name = outlet.source(&source.source_name(&path.to_string_lossy())).map_err(no_name)?;
                set.follow(path, name, source);
            }
        }
        set.expand_patterns(outlet);
        for index in 0..set.patterns.len() {
            set.follow_parked(index, outlet);
        }
        if set.is_full || set.followers.len() > files_max {
            return Err(Error::InvalidOption(format!(
                "there are more than {files_max} files to follow; name fewer of them, or raise ingester.files_max"
            )));
        }
        set.forget_oldest();
        Ok(set)
    }

    /// Takes what there is to be told since the last call, each with the source it concerns.
    pub(crate) fn take_reports(&mut self) -> Vec<(Option<usize>, Report)> {
        for follower in &mut self.followers {
            let source = follower.source;
            self.reports.extend(follower.reports.drain(..).map(|report| (Some(source), report)));
        }
        std::mem::take(&mut self.reports)
    }

    /// The directories in which files come and go.
    pub(crate) fn directories(&self) -> &BTreeSet<PathBuf> {
        &self.directories
    }

    /// The open files, each with a path it was found at.
    pub(crate) fn files(&self) -> impl Iterator<Item = &super::follow::Tail> {
        self.followers.iter().flat_map(|follower| &follower.tails)
    }

    /// These files have changed.
    pub(crate) fn mark(&mut self, changed: &BTreeSet<FileId>) {
        for tail in self.followers.iter_mut().flat_map(|follower| &mut follower.tails) {
            tail.is_ready |= changed.contains(&tail.id);
        }
    }

    fn follow(&mut self, path: PathBuf, source: usize, config: &FileSource) {
        let key = position::key(&path);
        if !self.followed.insert(key.clone()) {
            return;
        }
        let stored = self.parked.remove(&key).unwrap_or_default();
        self.forgotten.remove(&key);
        let is_new = stored.files.is_empty() && self.is_start && config.start == FileStart::End;
        let mut follower = Follower::new(path, source, config.is_pattern, stored);
        follower.begins_at_end = is_new;
        self.followers.push(follower);
    }

    /// Forgets positions that nobody follows, beyond the limit.
    fn forget_oldest(&mut self) {
        while self.parked.len() > PARKED_MAX {
            let oldest = self.parked.iter().min_by_key(|(_, positions)| positions.age);
            let key = oldest.map(|(key, _)| key.clone()).expect("there are more than none");
            self.parked.remove(&key);
            let path = position::path(&key).unwrap_or(Path::new("")).to_owned();
            self.reports.push((None, Report::Forgotten { path }));
            self.forgotten.insert(key);
            self.must_persist = true;
        }
    }

    /// Hands over records of lists that have changed. Returns false while the log has no room for them.
    pub(crate) fn persist(&mut self, outlet: &mut dyn Outlet) -> Result<bool> {
        while self.must_persist {
            if !self.submit(outlet)? {
                return Ok(false);
            }
            self.must_persist = !self.forgotten.is_empty() || self.followers.iter().any(|follower| follower.is_dirty);
        }
        Ok(true)
    }

    /// Hands over what has been collected, with the records that belong to it. Returns false while the log has no room.
    pub(crate) fn submit(&mut self, outlet: &mut dyn Outlet) -> Result<bool> {
        let age = outlet.age();
        let mut order: Vec<usize> = (0..self.followers.len()).collect();
        order.retain(|&index| self.followers[index].is_in_batch || self.followers[index].is_dirty);
        order.sort_by_key(|&index| {
            let follower = &self.followers[index];
            (!follower.is_in_batch, !follower.has_gained)
        });
        let mut held = Vec::new();
        for index in order {
            let follower = &self.followers[index];
            let has_room = outlet.checkpoint(&follower.key, &follower.positions(age).encode());
            assert!(has_room || !follower.is_in_batch, "room for this record was reserved");
            if !has_room {
                break;
            }
            held.push(index);
        }
        let forgotten: Vec<Vec<u8>> =
            self.forgotten.iter().take_while(|key| outlet.checkpoint(key, b"")).cloned().collect();
        if !outlet.submit()? {
            return Ok(false);
        }
        for index in held {
            let follower = &mut self.followers[index];
            (follower.is_dirty, follower.is_in_batch, follower.has_gained) = (false, false, false);
        }
        for key in forgotten {
            self.forgotten.remove(&key);
        }
        Ok(true)
    }

    /// Reads a piece of the next file that has something.
    pub(crate) fn read(&mut self, now: Duration, chunk: &mut [u8], outlet: &mut dyn Outlet) -> Result<Progress> {
        assert!(!self.must_persist, "records that changed go first");
        let count = self.followers.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            if let Some(work) = self.followers[index].work(now) {
                self.turn = index + 1;
                return self.do_work(index, work, now, chunk, outlet);
            }
        }
        Ok(Progress::Idle)
    }

    fn do_work(
        &mut self,
        index: usize,
        work: Work,
        now: Duration,
        chunk: &mut [u8],
        outlet: &mut dyn Outlet,
    ) -> Result<Progress> {
        if !self.followers[index].is_in_batch && !outlet.reserve(self.followers[index].record_bytes()) {
            if !self.submit(outlet)? {
                return Ok(Progress::Blocked);
            }
            assert!(outlet.reserve(self.followers[index].record_bytes()), "an empty batch has room for a record");
        }
        if let Work::Look(at) = work
            && self.followers[index].tails[at].offset == 0
        {
            let (follower, is_known) = apart(&mut self.followers, index);
            match follower.prepare_first_look(at, now, &is_known) {
                Ok(true) => {
                    self.must_persist = true;
                    return Ok(Progress::Busy);
                }
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    // The next scan sees that it has changed.
                    follower.tails[at].is_ready = false;
                    return Ok(Progress::Busy);
                }
                // Reading says what is wrong.
                Ok(false) | Err(_) => {}
            }
        }
        let follower = &mut self.followers[index];
        let source = follower.source;
        let mut reports = Vec::new();
        let mut is_taken = false;
        let mut take = |line: &[u8]| {
            let has_room = outlet.push(source, line);
            is_taken |= has_room;
            has_room
        };
        let (Work::Look(at) | Work::Finish(at)) = work;
        let before = follower.tails[at].reach();
        let outcome = match work {
            Work::Look(_) => follower.tails[at].look(chunk, &mut reports, &mut take),
            Work::Finish(_) => follower.tails[at].finish(chunk, &mut reports, &mut take),
        };
        follower.reports.append(&mut reports);
        follower.is_in_batch |= is_taken;
        let look = {
            let (follower, is_known) = apart(&mut self.followers, index);
            follower.looked(at, outcome, before, now, &is_known)
        };
        match look {
            Look::Full if !self.submit(outlet)? => Ok(Progress::Blocked),
            _ => Ok(Progress::Busy),
        }
    }
}

/// The follower at `index`, and which files are open at present, its own included. They are gathered when somebody asks.
fn apart(followers: &mut [Follower], index: usize) -> (&mut Follower, impl Fn(FileId) -> bool) {
    let (before, rest) = followers.split_at_mut(index);
    let (follower, behind) = rest.split_first_mut().expect("it is one of them");
    let own: Vec<FileId> = follower.files().collect();
    let open = LazyCell::new(move || {
        let others = before.iter().chain(&*behind).flat_map(Follower::files);
        others.chain(own).collect::<BTreeSet<FileId>>()
    });
    (follower, move |id| open.contains(&id))
}

/// The positions in a store's checkpoints, by key.
fn stored_positions(checkpoints: &Checkpoints) -> Result<BTreeMap<Vec<u8>, Positions>> {
    let mut stored = BTreeMap::new();
    for (key, value) in checkpoints {
        let Some(path) = position::path(key) else { continue };
        let positions = Positions::decode(value).map_err(|cause| {
            Error::InvalidOption(format!(
                "the store's position in {} cannot be used ({cause}); it was written by another version of kifa, which must \
                 go on with this store: reading the file again would double its entries",
                path.display()
            ))
        })?;
        stored.insert(key.clone(), positions);
    }
    Ok(stored)
}

/// Whether a path can be followed: a regular file, or none yet, in a directory that is there, outside the store.
fn check_path(path: &Path, data_dir: &Path) -> Result<()> {
    let refused = |cause: io::Error| Error::io("follow", path, cause);
    let dir = path.parent().unwrap_or(Path::new("/"));
    match generations::open_regular(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Err(error) = std::fs::metadata(dir) {
                let what =
                    format!("its directory {} cannot be used ({error}); create it, or correct the path", dir.display());
                return Err(refused(io::Error::new(error.kind(), what)));
            }
        }
        Err(error) => return Err(refused(error)),
    }
    if is_inside(path, data_dir) || is_inside(dir, data_dir) {
        let what = "it lies in the data directory, whose files are kifa's own";
        return Err(refused(io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
