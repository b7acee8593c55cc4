//! Names of a simulated disk: what readers see, what is durable, and the changes between the two, in order.
//!
//! - A change is one create, mkdir, unlink or rename. It is durable when each directory it touches was synced after it.
//! - A rename is atomic, also across directories: it is durable, or survives a cut, as a whole or not at all (except
//!   under [`NameCut::Any`], see there). Syncing one of its two directories alone makes nothing of it durable.
//! - A change that becomes durable takes along the older ones that touch the same name, in any directory; a file system
//!   cannot store the second without the first. Others of the directory that are not covered stay behind.
//! - A directory whose sync failed stays *stuck*: later syncs of it succeed and do nothing, until the next boot.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Number of a file or directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ino(pub(super) u64);

/// The store's own directory.
pub(super) const ROOT: Ino = Ino(0);

/// What a power cut does to changes of names that are not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NameCut {
    /// Each directory keeps a prefix of its changes, as journalling file systems do; a rename across two directories
    /// survives in both or in neither, and what follows a lost change in any of its directories is lost, too.
    Ordered,
    /// Each change survives or not on its own, as far as it still makes sense (a rename needs the name it moves, an
    /// unlink the file it removes, a create the name to be free). A rename across directories may leave both names.
    Any,
}

type Key = (Ino, String);

#[derive(Clone, Debug)]
enum Change {
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

    fn dirs(&self) -> BTreeSet<Ino> {
        self.keys().map(|key| key.0).collect()
    }

    fn shares_a_name(&self, other: &Change) -> bool {
        self.keys().any(|key| other.keys().any(|theirs| theirs == key))
    }
}

/// A change that is not durable.
#[derive(Clone, Debug)]
struct Pending {
    stamp: u64,
    change: Change,
    /// Directories that must be synced yet.
    unsynced: BTreeSet<Ino>,
}

/// Names by directory; a directory that nothing names any more may still be in it.
#[derive(Clone, Default, Debug)]
pub(super) struct Tree(BTreeMap<Ino, BTreeMap<String, Ino>>);

impl Tree {
    fn get(&self, key: &Key) -> Option<Ino> {
        self.0.get(&key.0)?.get(&key.1).copied()
    }

    fn names(&mut self, dir: Ino) -> &mut BTreeMap<String, Ino> {
        self.0.entry(dir).or_default()
    }

    /// Applies a change if it makes sense here; whether it did.
    fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Link { at, ino } if self.get(at).is_none() => {
                self.names(at.0).insert(at.1.clone(), *ino);
            }
            Change::Unlink { at, ino } if self.get(at) == Some(*ino) => {
                self.names(at.0).remove(&at.1);
            }
            Change::Rename { from, to, ino } if self.get(from) == Some(*ino) => {
                self.names(from.0).remove(&from.1);
                self.names(to.0).insert(to.1.clone(), *ino);
            }
            _ => return false,
        }
        true
    }

    /// Everything that has a name, directly or through a directory that has one, and the root.
    pub(super) fn reachable(&self) -> BTreeSet<Ino> {
        self.reachable_from(BTreeSet::from([ROOT]))
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

    /// Number of names of `ino` in directories that can be reached.
    fn links(&self, ino: Ino) -> u64 {
        let dirs = self.reachable();
        let names = self.0.iter().filter(|(dir, _)| dirs.contains(dir)).flat_map(|(_, names)| names.values());
        names.filter(|&&named| named == ino).count() as u64
    }
}

/// See the module's page.
#[derive(Clone, Debug)]
pub(super) struct Names {
    visible: Tree,
    durable: Tree,
    pending: Vec<Pending>,
    stuck: BTreeSet<Ino>,
}

impl Names {
    /// A disk at rest with the names of `tree`; the root always exists.
    pub(super) fn at_rest(mut tree: Tree) -> Names {
        tree.0.entry(ROOT).or_default();
        let alive = tree.reachable();
        tree.0.retain(|dir, _| alive.contains(dir));
        Names { visible: tree.clone(), durable: tree, pending: Vec::new(), stuck: BTreeSet::new() }
    }

    /// The names as readers see them.
    pub(super) fn visible(&self) -> &Tree {
        &self.visible
    }

    /// What `path` names now.
    pub(super) fn resolve(&self, path: &str) -> io::Result<Ino> {
        if path.is_empty() {
            return Ok(ROOT);
        }
        self.visible.get(&self.key(path)?).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The directory that `path` names now, with its names.
    pub(super) fn dir(&self, path: &str) -> io::Result<(Ino, &BTreeMap<String, Ino>)> {
        let ino = self.resolve(path)?;
        let names = self.visible.0.get(&ino).ok_or(io::ErrorKind::NotADirectory)?;
        Ok((ino, names))
    }

    /// The file that `path` names now.
    pub(super) fn file(&self, path: &str) -> io::Result<Ino> {
        let ino = self.resolve(path)?;
        if self.is_dir(ino) { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(ino) }
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        self.visible.0.contains_key(&ino)
    }

    pub(super) fn links(&self, ino: Ino) -> u64 {
        self.visible.links(ino)
    }

    /// Everything that has a name now, or may have one after a cut.
    pub(super) fn reachable(&self) -> (BTreeSet<Ino>, BTreeSet<Ino>) {
        let mut roots = BTreeSet::from([ROOT]);
        for pending in &self.pending {
            match &pending.change {
                Change::Link { ino, .. } | Change::Unlink { ino, .. } | Change::Rename { ino, .. } => {
                    roots.insert(*ino)
                }
            };
        }
        (self.visible.reachable(), self.durable.reachable_from(roots))
    }

    fn key(&self, path: &str) -> io::Result<Key> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok((self.dir(parent)?.0, name.to_owned()))
    }

    fn change(&mut self, stamp: u64, change: Change) {
        assert!(self.visible.apply(&change), "a change was checked before it is made");
        self.pending.push(Pending { stamp, unsynced: change.dirs(), change });
    }

    /// Gives `ino` its first name, which must be free.
    pub(super) fn link(&mut self, stamp: u64, path: &str, ino: Ino) -> io::Result<()> {
        let at = self.key(path)?;
        if self.visible.get(&at).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(stamp, Change::Link { at, ino });
        Ok(())
    }

    /// Makes a directory; one that exists is a success.
    pub(super) fn make_dir(&mut self, stamp: u64, path: &str, ino: Ino) -> io::Result<()> {
        match self.link(stamp, path, ino) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => self.dir(path).map(|_| ()).map_err(|_| err),
            Err(err) => Err(err),
            Ok(()) => {
                // Its (empty) contents exist on both sides; only its name decides whether anybody can get there.
                self.visible.names(ino);
                self.durable.names(ino);
                Ok(())
            }
        }
    }

    /// Removes the name of a file.
    pub(super) fn unlink(&mut self, stamp: u64, path: &str) -> io::Result<()> {
        let ino = self.file(path)?;
        let at = self.key(path)?;
        self.change(stamp, Change::Unlink { at, ino });
        Ok(())
    }

    /// Renames a file; a file of the new name is replaced.
    pub(super) fn rename(&mut self, stamp: u64, from: &str, to: &str) -> io::Result<()> {
        let ino = self.file(from)?;
        let (from, to) = (self.key(from)?, self.key(to)?);
        match self.visible.get(&to) {
            Some(target) if target == ino => return Ok(()),
            Some(target) if self.is_dir(target) => return Err(io::ErrorKind::IsADirectory.into()),
            _ => self.change(stamp, Change::Rename { from, to, ino }),
        }
        Ok(())
    }

    /// Syncs a directory: changes before `horizon` for certain, of those after it the first few that `more` says yes to.
    pub(super) fn sync_dir(&mut self, path: &str, horizon: u64, more: &mut dyn FnMut() -> bool) -> io::Result<()> {
        let (dir, _) = self.dir(path)?;
        if self.stuck.contains(&dir) {
            return Ok(());
        }
        for pending in self.pending.iter_mut().filter(|pending| pending.unsynced.contains(&dir)) {
            if pending.stamp >= horizon && !more() {
                break;
            }
            pending.unsynced.remove(&dir);
        }
        while let Some(at) = self.pending.iter().position(|pending| pending.unsynced.is_empty()) {
            self.make_durable(at);
        }
        Ok(())
    }

    /// A sync of a directory fails; a directory in which nothing was pending loses nothing by it.
    pub(super) fn fail_sync_dir(&mut self, path: &str) {
        if let Ok((dir, _)) = self.dir(path)
            && self.pending.iter().any(|pending| pending.unsynced.contains(&dir))
        {
            self.stuck.insert(dir);
        }
    }

    /// Whether a directory is stuck.
    pub(super) fn is_stuck(&self) -> bool {
        !self.stuck.is_empty()
    }

    fn make_durable(&mut self, at: usize) {
        let pending = self.pending.remove(at);
        let mut before = 0;
        while before < self.pending.len() && self.pending[before].stamp < pending.stamp {
            if self.pending[before].change.shares_a_name(&pending.change) {
                self.make_durable(before);
                before = 0;
            } else {
                before += 1;
            }
        }
        assert!(self.durable.apply(&pending.change), "durable changes were made in an order that makes sense");
    }

    /// Makes every change durable.
    pub(super) fn settle(&mut self) {
        while !self.pending.is_empty() {
            self.make_durable(0);
        }
    }

    /// The names that a power cut leaves. `choose` as in [`super::image::File::survive`].
    pub(super) fn survive(&self, cut: NameCut, choose: &mut dyn FnMut(u64) -> u64) -> Tree {
        match cut {
            NameCut::Ordered => self.survive_ordered(choose),
            NameCut::Any => self.survive_any(choose),
        }
    }

    fn survive_ordered(&self, choose: &mut dyn FnMut(u64) -> u64) -> Tree {
        let mut counts: BTreeMap<Ino, u64> = BTreeMap::new();
        for dir in self.pending.iter().flat_map(|pending| pending.change.dirs()) {
            *counts.entry(dir).or_default() += 1;
        }
        let mut room: BTreeMap<Ino, u64> = counts.iter().map(|(&dir, &count)| (dir, choose(count + 1))).collect();
        let mut tree = self.durable.clone();
        for Pending { change, .. } in &self.pending {
            let dirs = change.dirs();
            let survives = dirs.iter().all(|dir| room[dir] > 0) && tree.apply(change);
            for dir in dirs {
                room.insert(dir, if survives { room[&dir] - 1 } else { 0 });
            }
        }
        tree
    }

    fn survive_any(&self, choose: &mut dyn FnMut(u64) -> u64) -> Tree {
        let mut tree = self.durable.clone();
        for Pending { change, .. } in &self.pending {
            match change {
                Change::Rename { from, to, ino } if from.0 != to.0 => match choose(3) {
                    1 if tree.get(from) == Some(*ino) => {
                        tree.names(to.0).insert(to.1.clone(), *ino);
                    }
                    2 => {
                        tree.apply(change);
                    }
                    _ => {}
                },
                _ => {
                    if choose(2) == 1 {
                        tree.apply(change);
                    }
                }
            }
        }
        tree
    }
}
