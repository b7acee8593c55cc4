//! Which files are whose, for the time of a scan: counted once, and kept true while followers take files in and let them go.
//!
//! Proof: the property test of `set`.

use std::collections::BTreeMap;

use super::Follower;
use crate::source::file::identity::FileId;

/// See the module's page.
pub(super) struct Known {
    /// Open files, with the followers that read them.
    owners: BTreeMap<FileId, usize>,
    /// Files that are at the paths of followers, with the number of these paths.
    paths: BTreeMap<FileId, usize>,
}

impl Known {
    /// `at` is what is at the followers' paths.
    pub(super) fn new(followers: &[Follower], at: &[Option<FileId>]) -> Known {
        let mut known = Known { owners: BTreeMap::new(), paths: BTreeMap::new() };
        for (index, follower) in followers.iter().enumerate() {
            known.owners.extend(follower.files().map(|id| (id, index)));
        }
        for id in at.iter().flatten() {
            *known.paths.entry(*id).or_default() += 1;
        }
        known
    }

    /// Who reads this file.
    pub(super) fn owner(&self, id: FileId) -> Option<usize> {
        self.owners.get(&id).copied()
    }

    /// Whether the file is open, or at the path of another than the one at which `own` is.
    fn holds(&self, id: FileId, own: Option<FileId>) -> bool {
        let others = || self.paths.get(&id).is_some_and(|&paths| paths > usize::from(own == Some(id)));
        self.owners.contains_key(&id) || others()
    }

    /// Has the follower at `index` do something that may change which files it reads. It is told which are known: those that
    /// were open before, and those at the paths of others; `own` is the one at its own.
    pub(super) fn renew<T>(
        &mut self,
        index: usize,
        follower: &mut Follower,
        own: Option<FileId>,
        change: impl FnOnce(&mut Follower, &dyn Fn(FileId) -> bool) -> T,
    ) -> T {
        let before: Vec<FileId> = follower.files().collect();
        let outcome = change(follower, &|id| self.holds(id, own));
        for id in before {
            self.owners.remove(&id);
        }
        self.owners.extend(follower.files().map(|id| (id, index)));
        outcome
    }
}
