//! What can be made to go wrong, and when. The table is that of the simulated disk (`src/sim/fault.rs` of Kifa):
//!
//! | kind | on a write | on a sync | on a directory operation | on a read |
//! |---|---|---|---|---|
//! | `eio` | some of its sectors are written | what it would have covered is clean and not durable, for good | done or not | error |
//! | `nospace` | nothing is written | as `eio` | not done | - |
//! | `short` | a true prefix is written; the caller is told how much | - | - | - |
//! | `flip` | - | - | - | one bit of the result is wrong |
//! | `power-off` | it is in flight: volatile | it is not done | it is in flight: volatile | error |
//!
//! A fault counts the operations it looks at from the moment it is planted. A power cut clears all faults. A write with
//! O_DSYNC or RWF_DSYNC is a write and a sync: it is in both classes, and a fault of the class `sync` hits its sync.

use rustix::io::Errno;

/// Which operations a fault or a counter looks at. An operation is in several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum OpClass {
    /// All.
    Any,
    /// What can change what a cut leaves: all but reads and lookups.
    Mutating,
    /// Writes, durable or not; also zeroing and setting the length.
    Write,
    /// Syncs of files, and durable writes.
    Sync,
    /// Reads of file contents.
    Read,
    /// Looking at files, and opening and listing them.
    Lookup,
    /// Creation of a file or socket, or of a hard link.
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

/// Every class, in the order of its number, with its name in commands.
pub(crate) const CLASSES: [(OpClass, &str); 11] = [
    (OpClass::Any, "any"),
    (OpClass::Mutating, "mutating"),
    (OpClass::Write, "write"),
    (OpClass::Sync, "sync"),
    (OpClass::Read, "read"),
    (OpClass::Lookup, "lookup"),
    (OpClass::Create, "create"),
    (OpClass::Rename, "rename"),
    (OpClass::Unlink, "unlink"),
    (OpClass::MakeDir, "mkdir"),
    (OpClass::SyncDir, "syncdir"),
];

/// A set of classes, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClassSet(u16);

impl ClassSet {
    /// The classes of an operation whose own one is `class`; `durable` adds the sync of a durable write.
    pub(crate) fn of(class: OpClass, durable: bool) -> ClassSet {
        let mutating = !matches!(class, OpClass::Read | OpClass::Lookup);
        let bit = |class: OpClass, is_in: bool| u16::from(is_in) << class as u16;
        ClassSet(
            bit(OpClass::Any, true) | bit(OpClass::Mutating, mutating) | bit(class, true) | bit(OpClass::Sync, durable),
        )
    }

    fn has(self, class: OpClass) -> bool {
        self.0 & (1 << class as u16) != 0
    }

    /// Adds one to the counter of each.
    pub(crate) fn count(self, counters: &mut [u64; CLASSES.len()]) {
        for (at, counter) in counters.iter_mut().enumerate() {
            *counter += u64::from(self.0 >> at & 1);
        }
    }
}

/// How an operation fails; see the module's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// The device reports an error.
    Eio,
    /// The device is full.
    NoSpace,
    /// Fewer bytes are written than asked for.
    Short,
    /// A read succeeds with one wrong bit.
    Flip,
    /// The machine loses power.
    PowerOff,
}

impl FaultKind {
    pub(crate) fn errno(self) -> Errno {
        if self == FaultKind::NoSpace { Errno::NOSPC } else { Errno::IO }
    }
}

/// The `nth` matching operation from now on fails, and `times - 1` after it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The operations that it looks at.
    pub class: OpClass,
    /// How they fail.
    pub kind: FaultKind,
    /// Number of the first that fails; 1 is the next.
    pub nth: u64,
    /// How many fail.
    pub times: u64,
    /// Only operations whose path below the mount contains this are looked at.
    pub path: Option<String>,
}

impl Fault {
    /// Whether the kind can happen to every operation of the class; else why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let reading = matches!(self.class, OpClass::Read | OpClass::Lookup | OpClass::Any);
        let fits = match self.kind {
            FaultKind::Eio | FaultKind::PowerOff => true,
            FaultKind::NoSpace => !reading,
            FaultKind::Short => self.class == OpClass::Write,
            FaultKind::Flip => self.class == OpClass::Read,
        };
        if fits && self.nth > 0 && self.times > 0 {
            return Ok(());
        }
        Err(format!("{:?} cannot happen to operation {} of class {:?}", self.kind, self.nth, self.class))
    }
}

/// The planted faults.
#[derive(Default, Debug)]
pub(crate) struct Faults(Vec<(Fault, u64)>);

impl Faults {
    pub(crate) fn plant(&mut self, fault: Fault) {
        self.0.push((fault, 0));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether any of them looks at paths.
    pub(crate) fn look_at_paths(&self) -> bool {
        self.0.iter().any(|(fault, _)| fault.path.is_some())
    }

    /// Shows an operation to every fault; of those that strike, the first planted wins: its class and kind.
    pub(crate) fn strike(&mut self, classes: ClassSet, path: &str) -> Option<(OpClass, FaultKind)> {
        let mut first = None;
        for (fault, seen) in &mut self.0 {
            if !classes.has(fault.class) || fault.path.as_deref().is_some_and(|part| !path.contains(part)) {
                continue;
            }
            *seen += 1;
            if *seen >= fault.nth && *seen - fault.nth < fault.times {
                first = first.or(Some((fault.class, fault.kind)));
            }
        }
        first
    }
}
