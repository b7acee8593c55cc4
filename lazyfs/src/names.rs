//! Names: what programs see, what is durable, and the changes between the two, in order.
//!
//! The rules are those of the simulated disk (`src/sim/names.rs` of Kifa), with hard links and directories that can be
//! removed and renamed:
//! - A change is one link (create, mkdir and bind are links of something new), unlink (rmdir is one) or rename. It is
//!   durable when each directory it touches was synced after it. Syncing a file makes none of its names durable.
//! - A rename is atomic, also across directories: it is durable, or survives a cut, as a whole or not at all (except
//!   under [`NameCut::Any`], see there). Syncing one of its two directories alone makes nothing of it durable.
//! - A change that becomes durable takes along the older ones that touch the same name, and, if it makes no sense without
//!   them (a directory moved out of its way), all the older ones. Others stay behind.
//! - A directory whose sync failed stays *stuck*: later syncs of it succeed and do nothing, until the next boot.
//!
//! Knows nothing of the disk: whoever makes changes durable gets them as [`Step`]s, to carry out in order.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use rustix::io::Errno;

/// Number of a file, directory or socket. Never used twice while the program runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ino(pub(crate) u64);

/// The directory that is mounted.
pub(crate) const ROOT: Ino = Ino(1);

/// What a power cut does to changes of names that are not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameCut {
    /// Each directory keeps a prefix of its changes, as journalling file systems do; a rename across two directories
    /// survives in both or in neither, and what follows a lost change in any of its directories is lost, too.
    Ordered,
    /// Each change survives or not on its own, as far as it still makes sense (a rename needs the name it moves, an
    /// unlink the file it removes, a create the name to be free). A rename across directories may leave both names.
    Any,
}

/// A name in a directory.
pub(crate) type Key = (Ino, OsString);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Link { at: Key, ino: Ino },
    Unlink { at: Key, ino: Ino },
    Rename { from: Key, to: Key, ino: Ino },
}

impl Change {
    fn keys(&self) -> impl Iterator<Item = &Key> {
        let (first, second) = match self {
            Change::Link { at, .. } | Change::Unlink { at, .. } => (at, None),
            Change::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    pub(crate) fn dirs(&self) -> BTreeSet<Ino> {
        self.keys().map(|key| key.0).collect()
    }

    pub(crate) fn ino(&self) -> Ino {
        match self {
            Change::Link { ino, .. } | Change::Unlink { ino, .. } | Change::Rename { ino, .. } => *ino,
        }
    }

    fn shares_a_name(&self, other: &Change) -> bool {
        self.keys().any(|key| other.keys().any(|theirs| theirs == key))
    }
}

/// A change to carry out on the durable side, and what the new name stood for until then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub(crate) change: Change,
    pub(crate) replaced: Option<Ino>,
}

/// A change that is not durable.
#[derive(Clone, Debug)]
struct Pending {
    change: Change,
    /// Directories that must be synced yet.
    unsynced: BTreeSet<Ino>,
}

/// Names by directory; a directory that nothing names any more may still be in it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tree(BTreeMap<Ino, BTreeMap<OsString, Ino>>);

impl Tree {
    pub(crate) fn get(&self, key: &Key) -> Option<Ino> {
        self.0.get(&key.0)?.get(&key.1).copied()
    }

    /// The names of a directory, made if need be.
    pub(crate) fn names(&mut self, dir: Ino) -> &mut BTreeMap<OsString, Ino> {
        self.0.entry(dir).or_default()
    }

    /// Applies a change if it makes sense here; what the new name stood for until then.
    fn apply(&mut self, change: &Change) -> Option<Option<Ino>> {
        match change {
            Change::Link { at, ino } if self.get(at).is_none() => {
                self.names(at.0).insert(at.1.clone(), *ino);
                Some(None)
            }
            Change::Unlink { at, ino } if self.get(at) == Some(*ino) => {
                self.names(at.0).remove(&at.1);
                Some(None)
            }
            Change::Rename { from, to, ino } if self.get(from) == Some(*ino) && !self.is_inside(to.0, *ino) => {
                self.names(from.0).remove(&from.1);
                Some(self.names(to.0).insert(to.1.clone(), *ino))
            }
            _ => None,
        }
    }

    /// Whether `dir` is `of` or lies below it.
    fn is_inside(&self, dir: Ino, of: Ino) -> bool {
        self.0.contains_key(&of) && self.reachable_from(BTreeSet::from([of])).contains(&dir)
    }

    fn reachable_from(&self, mut seen: BTreeSet<Ino>) -> BTreeSet<Ino> {
        let mut todo: Vec<Ino> = seen.iter().copied().collect();
        while let Some(dir) = todo.pop() {
            for &ino in self.0.get(&dir).into_iter().flat_map(BTreeMap::values) {
                if seen.insert(ino) {
                    todo.push(ino);
                }
            }
        }
        seen
    }
}

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    visible: Tree,
    durable: Tree,
    pending: Vec<Pending>,
    stuck: BTreeSet<Ino>,
}

impl Names {
    /// Names of which all are durable.
    pub(crate) fn at_rest(mut tree: Tree) -> Names {
        tree.names(ROOT);
        Names { visible: tree.clone(), durable: tree, pending: Vec::new(), stuck: BTreeSet::new() }
    }

    /// What a name stands for.
    pub(crate) fn get(&self, dir: Ino, name: &OsStr) -> Option<Ino> {
        self.visible.0.get(&dir)?.get(name).copied()
    }

    pub(crate) fn is_dir(&self, ino: Ino) -> bool {
        self.visible.0.contains_key(&ino)
    }

    /// The names in a directory.
    pub(crate) fn list(&self, dir: Ino) -> impl Iterator<Item = (&OsString, Ino)> {
        self.visible.0.get(&dir).into_iter().flatten().map(|(name, &ino)| (name, ino))
    }

    /// Everything that has a name that programs see.
    pub(crate) fn named(&self) -> BTreeSet<Ino> {
        self.visible.0.values().flat_map(BTreeMap::values).copied().collect()
    }

    /// Number of names that programs see.
    pub(crate) fn links(&self, ino: Ino) -> usize {
        self.visible.0.values().flat_map(BTreeMap::values).filter(|&&named| named == ino).count()
    }

    /// The directory that `dir` is in; its own for the root and for one that has no name.
    pub(crate) fn parent(&self, dir: Ino) -> Ino {
        self.visible.0.iter().find(|(_, names)| names.values().any(|&ino| ino == dir)).map_or(ROOT, |(&at, _)| at)
    }

    /// A path of `ino` below the root, empty for the root itself and for what has no name.
    pub(crate) fn path(&self, ino: Ino) -> PathBuf {
        let mut parts = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let holder = self.visible.0.iter().find_map(|(&dir, names)| {
                names.iter().find(|&(_, &named)| named == at).map(|(name, _)| (dir, name.clone()))
            });
            let Some((dir, name)) = holder else { return PathBuf::new() };
            parts.push(name);
            at = dir;
        }
        parts.iter().rev().collect()
    }

    /// Whether anything names `ino`, or may name it again.
    pub(crate) fn mentions(&self, ino: Ino) -> bool {
        let named = |tree: &Tree| tree.0.values().flat_map(BTreeMap::values).any(|&named| named == ino);
        ino == ROOT
            || named(&self.visible)
            || named(&self.durable)
            || self.pending.iter().any(|pending| pending.change.ino() == ino || pending.change.dirs().contains(&ino))
    }

    /// Forgets a directory that nothing names any more.
    pub(crate) fn forget(&mut self, dir: Ino) {
        self.visible.0.remove(&dir);
        self.durable.0.remove(&dir);
        self.stuck.remove(&dir);
    }

    /// Number of changes that are not durable.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    fn change(&mut self, change: Change) {
        assert!(self.visible.apply(&change).is_some(), "a change was checked before it is made: {change:?}");
        self.pending.push(Pending { unsynced: change.dirs(), change });
    }

    fn dir(&self, dir: Ino) -> Result<(), Errno> {
        if self.is_dir(dir) { Ok(()) } else { Err(Errno::NOTDIR) }
    }

    /// Gives `ino` a name, which must be free.
    pub(crate) fn link(&mut self, at: Key, ino: Ino) -> Result<(), Errno> {
        self.dir(at.0)?;
        if self.visible.get(&at).is_some() {
            return Err(Errno::EXIST);
        }
        self.change(Change::Link { at, ino });
        Ok(())
    }

    /// Makes `ino` a directory under a name, which must be free.
    pub(crate) fn make_dir(&mut self, at: Key, ino: Ino) -> Result<(), Errno> {
        self.link(at, ino)?;
        // Its (empty) contents exist on both sides; only its name decides whether anybody can get there.
        self.visible.names(ino);
        self.durable.names(ino);
        Ok(())
    }

    /// Removes a name, of an empty directory or (`dir` false) of anything else.
    pub(crate) fn unlink(&mut self, at: Key, dir: bool) -> Result<Ino, Errno> {
        self.dir(at.0)?;
        let ino = self.visible.get(&at).ok_or(Errno::NOENT)?;
        match (self.is_dir(ino), dir) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            (true, true) if self.list(ino).next().is_some() => return Err(Errno::NOTEMPTY),
            _ => self.change(Change::Unlink { at, ino }),
        }
        Ok(ino)
    }

    /// Renames; what had the new name is replaced and returned.
    pub(crate) fn rename(&mut self, from: Key, to: Key, no_replace: bool) -> Result<Option<Ino>, Errno> {
        self.dir(from.0)?;
        self.dir(to.0)?;
        let ino = self.visible.get(&from).ok_or(Errno::NOENT)?;
        let target = self.visible.get(&to);
        if let Some(target) = target {
            match (self.is_dir(ino), self.is_dir(target)) {
                _ if no_replace => return Err(Errno::EXIST),
                _ if target == ino => return Ok(None),
                (false, true) => return Err(Errno::ISDIR),
                (true, false) => return Err(Errno::NOTDIR),
                (true, true) if self.list(target).next().is_some() => return Err(Errno::NOTEMPTY),
                _ => {}
            }
        }
        if self.visible.is_inside(to.0, ino) {
            return Err(Errno::INVAL);
        }
        self.change(Change::Rename { from, to, ino });
        Ok(target)
    }

    /// Syncs a directory; the steps this makes durable.
    pub(crate) fn sync_dir(&mut self, dir: Ino) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.stuck.contains(&dir) {
            for pending in &mut self.pending {
                pending.unsynced.remove(&dir);
            }
            while let Some(at) = self.pending.iter().position(|pending| pending.unsynced.is_empty()) {
                self.make_durable(at, &mut steps);
            }
        }
        steps
    }

    /// A sync of a directory fails; one in which nothing was pending loses nothing by it.
    pub(crate) fn fail_sync_dir(&mut self, dir: Ino) {
        if self.pending.iter().any(|pending| pending.unsynced.contains(&dir)) {
            self.stuck.insert(dir);
        }
    }

    /// Makes everything durable but what stuck directories hold back.
    pub(crate) fn settle(&mut self) -> Vec<Step> {
        let dirs: Vec<Ino> = self.visible.0.keys().chain(self.durable.0.keys()).copied().collect();
        dirs.into_iter().flat_map(|dir| self.sync_dir(dir)).collect()
    }

    fn make_durable(&mut self, at: usize, steps: &mut Vec<Step>) {
        let pending = self.pending.remove(at);
        let mut older = at;
        while let Some(before) = (0..older).find(|&at| self.pending[at].change.shares_a_name(&pending.change)) {
            let left = self.pending.len();
            self.make_durable(before, steps);
            older -= left - self.pending.len();
        }
        let mut applied = self.durable.apply(&pending.change);
        while applied.is_none() && older > 0 {
            let left = self.pending.len();
            self.make_durable(0, steps);
            older -= left - self.pending.len();
            applied = self.durable.apply(&pending.change);
        }
        let replaced = applied.expect("durable changes are made in an order that makes sense");
        steps.push(Step { change: pending.change, replaced });
    }

    /// The steps that a power cut lets through. `choose(n)` picks one of `n` outcomes, 0 being "lost" and `n - 1` "as
    /// programs saw it".
    pub(crate) fn survive(&self, cut: NameCut, choose: &mut dyn FnMut(u64) -> u64) -> Vec<Step> {
        let changes = match cut {
            NameCut::Ordered => self.survive_ordered(choose),
            NameCut::Any => self.survive_any(choose),
        };
        let mut tree = self.durable.clone();
        let replaced = |tree: &mut Tree, change: &Change| match change {
            // Only `Any` links to a name that may be taken: the second half of a rename across directories.
            Change::Link { at, .. } => tree.names(at.0).remove(&at.1),
            _ => None,
        };
        let mut steps = Vec::new();
        for change in changes {
            let taken = replaced(&mut tree, &change);
            if let Some(moved) = tree.apply(&change) {
                steps.push(Step { change, replaced: taken.or(moved) });
            }
        }
        steps
    }

    fn survive_ordered(&self, choose: &mut dyn FnMut(u64) -> u64) -> Vec<Change> {
        let mut counts: BTreeMap<Ino, u64> = BTreeMap::new();
        for dir in self.pending.iter().flat_map(|pending| pending.change.dirs()) {
            *counts.entry(dir).or_default() += 1;
        }
        let mut room: BTreeMap<Ino, u64> = counts.iter().map(|(&dir, &count)| (dir, choose(count + 1))).collect();
        let mut tree = self.durable.clone();
        let mut changes = Vec::new();
        for Pending { change, .. } in &self.pending {
            let dirs = change.dirs();
            let survives = dirs.iter().all(|dir| room[dir] > 0) && tree.apply(change).is_some();
            for dir in dirs {
                room.insert(dir, if survives { room[&dir] - 1 } else { 0 });
            }
            changes.extend(survives.then(|| change.clone()));
        }
        changes
    }

    fn survive_any(&self, choose: &mut dyn FnMut(u64) -> u64) -> Vec<Change> {
        let mut tree = self.durable.clone();
        let mut changes = Vec::new();
        for Pending { change, .. } in &self.pending {
            let survivor = match change {
                Change::Rename { from, to, ino } if from.0 != to.0 && !self.is_dir(*ino) => match choose(3) {
                    1 if tree.get(from) == Some(*ino) => {
                        tree.names(to.0).remove(&to.1);
                        Change::Link { at: to.clone(), ino: *ino }
                    }
                    2 => change.clone(),
                    _ => continue,
                },
                _ if choose(2) == 1 => change.clone(),
                _ => continue,
            };
            changes.extend(tree.apply(&survivor).is_some().then_some(survivor));
        }
        changes
    }
}
