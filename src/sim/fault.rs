//! What can be made to go wrong, and when: the one fault model of all simulated tests.
//!
//! A [`Fault`] counts the operations it looks at, from the moment it is planted, at their submission. Faults belong to
//! one life of the machine: a cut or a kill clears them.
//!
//! | kind | on a write | on a sync | on a directory operation | on a read |
//! |---|---|---|---|---|
//! | `Eio` | some of its sectors are written | what it would have covered is clean and not durable, for good | done or not | error |
//! | `NoSpace` | nothing is written | as `Eio` | not done | - |
//! | `ShortWrite` | a true prefix is written; its sync may have been done all the same | - | - | - |
//! | `Interrupted` | nothing is written | some of what it would have covered is durable, the rest may yet be | not done | error |
//! | `FlipBit` | - | - | - | one bit of the result is wrong |
//!
//! `PowerOff` may be planted on any class: it and all others in flight may survive a cut in part, as far as
//! they got, and their completions, like those of whatever is submitted later, are errors.
//!
//! A durable write is a write and a sync: it is in both classes, and fails in the part that the fault's class names
//! (`Any` and `Mutating`: in either, by seed). In every case its completion is an error.

use std::io;

use crate::io::{Durability, Op};

/// Which operations a fault or a counter looks at. An operation is in several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(crate) enum OpClass {
    /// All but `Close`.
    Any,
    /// What can change what a cut leaves: all but reads, lookups and `Close`. Its number is the crash point.
    Mutating,
    /// Writes, durable or not.
    Write,
    /// Data syncs: `SyncData` and durable writes.
    Sync,
    /// Reads of file contents; only the reading side has them.
    Read,
    /// Opening, listing and looking at files, by the backend or the reading side.
    Lookup,
    /// Creation of a file.
    Create,
    /// Rename.
    Rename,
    /// Removal of a name.
    Unlink,
    /// Creation of a directory.
    MakeDir,
    /// Directory sync.
    SyncDir,
}

/// Number of classes.
pub(super) const CLASSES: usize = OpClass::SyncDir as usize + 1;

/// A set of classes, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClassSet(u16);

impl ClassSet {
    /// The reading side's reads.
    pub(super) const READ: ClassSet = ClassSet(1 << OpClass::Any as u16 | 1 << OpClass::Read as u16);
    /// The reading side's lookups and the backend's.
    pub(super) const LOOKUP: ClassSet = ClassSet(1 << OpClass::Any as u16 | 1 << OpClass::Lookup as u16);

    /// The classes that `op` is in.
    pub(super) fn of(op: &Op) -> ClassSet {
        let class = match op {
            Op::Close { .. } => return ClassSet(0),
            Op::Open { .. } => return ClassSet::LOOKUP,
            Op::Create { .. } => OpClass::Create,
            Op::Write { .. } => OpClass::Write,
            Op::SyncData { .. } => OpClass::Sync,
            Op::Rename { .. } => OpClass::Rename,
            Op::Unlink { .. } => OpClass::Unlink,
            Op::MakeDir { .. } => OpClass::MakeDir,
            Op::SyncDir { .. } => OpClass::SyncDir,
        };
        let durable = matches!(op, Op::Write { durability: Durability::Own | Durability::File, .. });
        let sync = if durable { 1 << OpClass::Sync as u16 } else { 0 };
        ClassSet(1 << OpClass::Any as u16 | 1 << OpClass::Mutating as u16 | 1 << class as u16 | sync)
    }

    /// Whether `class` is one of them.
    pub(super) fn has(self, class: OpClass) -> bool {
        self.0 & (1 << class as u16) != 0
    }

    /// Adds one to the counter of each.
    pub(super) fn count(self, counters: &mut [u64; CLASSES]) {
        for (at, counter) in counters.iter_mut().enumerate() {
            *counter += u64::from(self.0 >> at & 1);
        }
    }
}

/// How an operation fails; see the module's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultKind {
    /// The device reports an error.
    Eio,
    /// The device is full.
    NoSpace,
    /// Fewer bytes are written than asked for.
    ShortWrite,
    /// A signal interrupts the operation.
    Interrupted,
    /// A read succeeds with one wrong bit.
    FlipBit,
    /// The machine loses power.
    PowerOff,
}

impl FaultKind {
    /// The error that the caller sees.
    pub(super) fn error(self) -> io::Error {
        match self {
            FaultKind::Eio => io::Error::other("simulated input/output error"),
            FaultKind::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "simulated disk is full"),
            FaultKind::ShortWrite => io::Error::new(io::ErrorKind::WriteZero, "simulated short write"),
            FaultKind::Interrupted => io::Error::new(io::ErrorKind::Interrupted, "simulated interruption"),
            FaultKind::FlipBit => unreachable!("a flipped bit is not reported"),
            FaultKind::PowerOff => io::Error::other("simulated machine has no power"),
        }
    }
}

/// The `nth` matching operation from now on fails; built by [`Fault::nth`], narrowed by the methods.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    class: OpClass,
    kind: FaultKind,
    nth: u64,
    times: u64,
    path: Option<String>,
    seen: u64,
}

impl Fault {
    /// The `nth` operation of `class` (the first is 1) fails by `kind`, once. Panics if `kind` cannot happen to every
    /// operation of the class: short writes are for writes, wrong bits for reads, a full disk not for reads.
    pub(crate) fn nth(class: OpClass, nth: u64, kind: FaultKind) -> Fault {
        let reading = matches!(class, OpClass::Read | OpClass::Lookup | OpClass::Any);
        let fits = match kind {
            FaultKind::Eio | FaultKind::Interrupted | FaultKind::PowerOff => true,
            FaultKind::NoSpace => !reading,
            FaultKind::ShortWrite => class == OpClass::Write,
            FaultKind::FlipBit => class == OpClass::Read,
        };
        assert!(fits && nth > 0, "{kind:?} cannot happen to operation {nth} of class {class:?}");
        Fault { class, kind, nth, times: 1, path: None, seen: 0 }
    }

    /// Every matching operation from the nth on fails.
    pub(crate) fn and_after(mut self) -> Fault {
        self.times = u64::MAX;
        self
    }

    /// The nth matching operation and the one after it fail.
    pub(crate) fn and_next(mut self) -> Fault {
        self.times = 2;
        self
    }

    /// Only operations whose path contains `part` are looked at. A file has the path under which it was opened.
    pub(crate) fn on(mut self, part: &str) -> Fault {
        self.path = Some(part.to_owned());
        self
    }

    /// Counts an operation; whether it is to fail.
    fn strikes(&mut self, classes: ClassSet, path: &str) -> bool {
        if !classes.has(self.class) || self.path.as_deref().is_some_and(|part| !path.contains(part)) {
            return false;
        }
        self.seen += 1;
        self.seen >= self.nth && self.seen - self.nth < self.times
    }
}

/// The planted faults.
#[derive(Default, Debug)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn plant(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Shows an operation to every fault; of those that strike, the first planted wins.
    pub(super) fn strike(&mut self, classes: ClassSet, path: &str) -> Option<(OpClass, FaultKind)> {
        let mut struck = None;
        for fault in &mut self.0 {
            if fault.strikes(classes, path) {
                struck = struck.or(Some((fault.class, fault.kind)));
            }
        }
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_the_nth_of_its_class_and_path_only() {
        let mut faults = Faults::default();
        faults.plant(Fault::nth(OpClass::Read, 2, FaultKind::Eio).on("wal/"));
        let mut strikes = |set, path| faults.strike(set, path).is_some();
        assert!(!strikes(ClassSet::READ, "wal/1"));
        assert!(!strikes(ClassSet::READ, "sst/1"), "another path");
        assert!(!strikes(ClassSet::LOOKUP, "wal/1"), "another class");
        assert!(strikes(ClassSet::READ, "wal/2"));
        assert!(!strikes(ClassSet::READ, "wal/2"), "once");
        faults.plant(Fault::nth(OpClass::Read, 1, FaultKind::Eio).and_after());
        faults.clear();
        assert!(faults.strike(ClassSet::READ, "wal/1").is_none(), "mended");
    }

    #[test]
    fn goes_on_striking_when_told_so() {
        let mut fault = Fault::nth(OpClass::Any, 2, FaultKind::Eio).and_after();
        let strikes: Vec<bool> = (0..4).map(|_| fault.strikes(ClassSet::LOOKUP, "")).collect();
        assert_eq!(strikes, [false, true, true, true]);
    }

    #[test]
    fn strikes_twice_when_told_so() {
        let mut fault = Fault::nth(OpClass::Read, 2, FaultKind::Eio).and_next();
        let strikes = [(); 4].map(|()| fault.strikes(ClassSet::READ, ""));
        assert_eq!(strikes, [false, true, true, false]);
    }

    #[test]
    #[should_panic(expected = "cannot happen")]
    fn refuses_a_short_write_of_a_rename() {
        let _ = Fault::nth(OpClass::Rename, 1, FaultKind::ShortWrite);
    }
}
