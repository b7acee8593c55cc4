//! A scan: what is at each path now, which files went from one to another, what came between, and what is finished.
//!
//! Everything about the directories is learned behind what is at the paths, and shared among them ([`Listings`]); which files
//! are whose is kept true on the way ([`Known`]).
//!
//! Proof: the property test of `set`.

use std::io;
use std::time::Duration;

use super::Set;
use super::known::Known;
use crate::source::file::generations::Listings;
use crate::source::file::identity::FileId;
use crate::source::file::outlet::Outlet;
use crate::source::file::path::{Follower, Place, is_inside};
use crate::source::file::position::FILES_MAX;
use crate::source::file::report::Report;

impl Set {
    /// Looks at every path: what is new, what has moved, what is gone. Returns whether to look again soon.
    pub(crate) fn scan(&mut self, now: Duration, outlet: &mut dyn Outlet) -> bool {
        assert!(outlet.is_empty() && !self.must_persist, "a scan between two batches");
        if !self.is_start {
            self.expand_patterns(outlet);
        }
        self.restore();
        let at: Vec<io::Result<FileId>> = self.followers.iter().map(Follower::stat).collect();
        let numbers: Vec<Option<FileId>> = at.iter().map(|at| at.as_ref().ok().copied()).collect();
        let (mut known, listings) = (Known::new(&self.followers, &numbers), Listings::default());
        self.move_files(&numbers, &mut known);
        let mut is_unsettled = false;
        for (index, at) in at.into_iter().enumerate() {
            let follower = &mut self.followers[index];
            match at {
                // What is stored of it is not found yet, so what is there cannot be judged.
                Ok(_) if !follower.stored.is_empty() => is_unsettled = true,
                Ok(id) => is_unsettled |= !self.arrive(index, id, now, &listings, &mut known),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if follower.place == Place::Absent {
                        continue;
                    }
                    let left = known
                        .renew(index, follower, None, |follower, is_known| follower.leave(now, &listings, is_known));
                    is_unsettled |= left.is_err();
                }
                Err(error) => follower.fail(&error),
            }
        }
        for (index, follower) in self.followers.iter_mut().enumerate() {
            if follower.may_have_news(now) {
                let checked = known.renew(index, follower, numbers[index], |follower, is_known| {
                    follower.check_news(now, &listings, is_known)
                });
                is_unsettled |= checked.is_err();
            }
        }
        is_unsettled |= self.followers.iter().any(|follower| follower.is_crowded);
        self.is_start = false;
        self.followers.iter_mut().for_each(Follower::check);
        self.retire(now, outlet.age());
        self.must_persist |= self.followers.iter().any(|follower| follower.is_dirty);
        is_unsettled
    }

    /// Opens the files of an earlier run, where that has not been done.
    fn restore(&mut self) {
        if self.followers.iter().all(|follower| follower.stored.is_empty()) {
            return;
        }
        let mut known = Known::new(&self.followers, &[]);
        for (index, follower) in self.followers.iter_mut().enumerate() {
            if follower.stored.is_empty() || !(self.is_start || follower.path.exists()) {
                continue;
            }
            let restored = known.renew(index, follower, None, |follower, is_known| {
                let own: Vec<FileId> = follower.files().collect();
                let restored = follower.restore(is_known);
                // A file that went from one path to another when the daemon was killed may be in both records.
                follower.tails.retain(|tail| own.contains(&tail.id) || !is_known(tail.id));
                restored
            });
            match restored {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => follower.fail(&error),
            }
        }
    }

    /// Hands files over that were renamed from one followed path to another.
    fn move_files(&mut self, at: &[Option<FileId>], known: &mut Known) {
        // Those that must let go of a file to gain one come last: it may be another's to gain.
        let mut order: Vec<usize> = (0..at.len()).collect();
        order.sort_by_key(|&index| self.followers[index].tails.len() >= FILES_MAX);
        for index in order {
            let Some((id, owner)) = at[index].and_then(|id| Some((id, known.owner(id)?))) else { continue };
            if owner == index {
                continue;
            }
            if at[owner] == Some(id) {
                let (path, of) = (self.followers[index].path.clone(), self.followers[owner].path.clone());
                self.followers[index].refuse(Report::Alias { path, of });
                continue;
            }
            let is_wanted = |id| at.contains(&Some(id));
            if !known.renew(index, &mut self.followers[index], None, |follower, _| follower.has_room_beside(is_wanted))
            {
                continue;
            }
            let tail = known.renew(owner, &mut self.followers[owner], None, |from, _| {
                let place = from.files().position(|open| open == id).expect("it is the owner");
                from.is_dirty = true;
                from.tails.remove(place)
            });
            known.renew(index, &mut self.followers[index], None, |follower, _| follower.gain(tail));
        }
    }

    /// There is a file at the path. Returns whether it could be taken in.
    fn arrive(&mut self, index: usize, id: FileId, now: Duration, listings: &Listings, known: &mut Known) -> bool {
        let follower = &mut self.followers[index];
        if follower.current() == Some(id) {
            follower.stay();
            return true;
        }
        if known.owner(id).is_some_and(|owner| owner != index) {
            // An alias; told when it was found.
            return true;
        }
        if is_inside(&follower.path, &self.data_dir) {
            let path = follower.path.clone();
            follower.refuse(Report::LeftAlone { path, why: "it leads into the data directory" });
            return true;
        }
        let adopted =
            known.renew(index, follower, Some(id), |follower, is_known| follower.adopt(id, now, listings, is_known));
        match adopted {
            Ok(()) => {
                follower.stay();
                true
            }
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                follower.fail(&error);
                true
            }
        }
    }

    /// Lets go of what is finished. What is dirty stays until its record is out.
    fn retire(&mut self, now: Duration, age: u64) {
        let (followed, parked) = (&mut self.followed, &mut self.parked);
        let mut left = Vec::new();
        self.followers.retain_mut(|follower| {
            let is_over = follower.retire(now) && !follower.is_dirty;
            if is_over {
                followed.remove(&follower.key);
                let positions = follower.positions(age);
                if !positions.files.is_empty() {
                    parked.insert(follower.key.clone(), positions);
                }
                let source = follower.source;
                left.extend(follower.reports.drain(..).map(|report| (Some(source), report)));
            }
            !is_over
        });
        self.reports.append(&mut left);
        self.forget_oldest();
    }
}
