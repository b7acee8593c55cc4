//! One machine's disk: everything that programs see through the mount, what of it is durable, and what a power cut or a
//! planted fault makes of it. Knows nothing of FUSE; a test can drive it directly.
//!
//! - Each operation is carried out whole, one after the other. A sync covers what was carried out before it.
//! - Without power every operation is an error, and stays one for files that were opened before: numbers are never used
//!   twice, and the power comes back to a volume that is read anew from the backing directory.
//! - Volatile pages take at most `volatile_bytes_max` of memory. What would not fit is written back, as a kernel short of
//!   memory does: legal, but a power cut takes less away then, so it is counted ([`Volume::report`]).
//! - Modes and owners are durable at once; times are not kept.
//!
//! Proof: `volume_tests`, one test per rule.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::backing::Backing;
use crate::content::Content;
use crate::cut::Survivors;
use crate::fault::{CLASSES, ClassSet, Fault, FaultKind, Faults, OpClass};
use crate::names::{Ino, Names, ROOT, Step, Tree};
use crate::rng::Rng;
use crate::torn::Torn;

/// Most changes of names that are not durable; of more, all become so, as if the kernel had written them back.
const PENDING_MAX: usize = 1 << 16;

/// Settings of a volume that outlive a power cut.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of volatile pages held in memory, at least one page.
    pub volatile_bytes_max: u64,
    /// Bytes that files may take together; `None` for what the backing directory has.
    pub space_bytes: Option<u64>,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Syncs are acknowledged and not done.
    pub lie: bool,
    /// What the next power cuts let through.
    pub survivors: Survivors,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            volatile_bytes_max: 512 << 20,
            space_bytes: None,
            read_only: false,
            lie: false,
            survivors: Survivors::None,
        }
    }
}

/// What a number stands for.
#[derive(Debug)]
pub(crate) enum Kind {
    File(Content),
    /// The directory in the backing directory.
    Dir(File),
    Socket,
}

/// A file, directory or socket.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: SystemTime,
    /// Open handles; an open file lives on without a name.
    handles: u64,
}

impl Node {
    fn dir(&self) -> Option<&File> {
        match &self.kind {
            Kind::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    /// The length of a file, 0 of anything else.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::File(content) => content.bytes(),
            _ => 0,
        }
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct Volume {
    pub(crate) backing: Backing,
    pub(crate) nodes: BTreeMap<Ino, Node>,
    pub(crate) names: Names,
    next_ino: u64,
    /// Counts effects; orders writes.
    pub(crate) stamp: u64,
    volatile_bytes: u64,
    written_back: u64,
    counters: [u64; CLASSES.len()],
    pub(crate) faults: Faults,
    pub(crate) torn: Vec<Torn>,
    pub(crate) settings: Settings,
    pub(crate) rng: Rng,
    off: bool,
    /// Power cuts so far.
    cuts: u64,
    log: bool,
}

impl Volume {
    /// Takes a directory over as the durable side. Nothing else may use it meanwhile.
    pub fn open(root: &Path, settings: Settings, log: bool) -> io::Result<Volume> {
        let mut volume = Volume {
            backing: Backing::open(root)?,
            nodes: BTreeMap::new(),
            names: Names::at_rest(Tree::default()),
            next_ino: ROOT.0 + 1,
            stamp: 0,
            volatile_bytes: 0,
            written_back: 0,
            counters: [0; CLASSES.len()],
            faults: Faults::default(),
            torn: Vec::new(),
            settings,
            rng: Rng::new(0),
            off: false,
            cuts: 0,
            log,
        };
        volume.boot()?;
        Ok(volume)
    }

    /// Reads names and files from the backing directory: all of it is durable.
    pub(crate) fn boot(&mut self) -> io::Result<()> {
        self.backing = Backing::open(self.backing.root())?;
        self.nodes.clear();
        let mut tree = Tree::default();
        let mut links = BTreeMap::new();
        let root = self.backing.open_root()?;
        let stat = root.metadata()?;
        self.nodes.insert(ROOT, known(Kind::Dir(root), &stat));
        let mut todo = vec![ROOT];
        while let Some(at) = todo.pop() {
            tree.names(at);
            let dir = self.nodes[&at].dir().expect("only directories are waiting").try_clone()?;
            for found in self.backing.list(&dir)? {
                let ino = self.new_ino();
                let kind = if found.kind == FileType::Directory {
                    todo.push(ino);
                    Kind::Dir(self.backing.open_dir(&dir, &found.name)?)
                } else if let Some(&known) = links.get(&(found.stat.dev(), found.stat.ino())) {
                    tree.names(at).insert(found.name, known);
                    continue;
                } else {
                    links.insert((found.stat.dev(), found.stat.ino()), ino);
                    self.backing.adopt(&dir, &found.name, ino)?;
                    self.kind_of_staged(ino, found.kind)?
                };
                self.nodes.insert(ino, known(kind, &found.stat));
                tree.names(at).insert(found.name, ino);
            }
        }
        self.names = Names::at_rest(tree);
        self.volatile_bytes = 0;
        self.faults.clear();
        self.torn.clear();
        self.off = false;
        Ok(())
    }

    fn kind_of_staged(&self, ino: Ino, kind: FileType) -> io::Result<Kind> {
        Ok(match kind {
            FileType::Directory => Kind::Dir(self.backing.open_new_dir(ino)?),
            FileType::Socket => Kind::Socket,
            _ => Kind::File(Content::of(self.backing.open_file(ino)?)?),
        })
    }

    fn new_ino(&mut self) -> Ino {
        self.next_ino += 1;
        Ino(self.next_ino - 1)
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp - 1
    }

    /// The object behind a number.
    pub(crate) fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::STALE)
    }

    pub(crate) fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::STALE)
    }

    pub(crate) fn content(&mut self, ino: Ino) -> Result<&mut Content, Errno> {
        match &mut self.node_mut(ino)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Dir(_) => Err(Errno::ISDIR),
            Kind::Socket => Err(Errno::NXIO),
        }
    }

    pub(crate) fn has_power(&self) -> Result<(), Errno> {
        if self.off { Err(Errno::IO) } else { Ok(()) }
    }

    /// Counts an operation on `ino`, or on `name` in it; how it is to fail.
    pub(crate) fn begin(
        &mut self,
        (class, durable): (OpClass, bool),
        ino: Ino,
        name: Option<&OsStr>,
    ) -> Result<Option<(OpClass, FaultKind)>, Errno> {
        self.has_power()?;
        self.node(ino)?;
        let classes = ClassSet::of(class, durable);
        classes.count(&mut self.counters);
        let path = if self.log || self.faults.look_at_paths() {
            let dir = self.names.path(ino);
            name.map_or(dir.clone(), |name| dir.join(name)).to_string_lossy().into_owned()
        } else {
            String::new()
        };
        let strike = self.faults.strike(classes, &path);
        if self.log {
            let number = self.counters[OpClass::Mutating as usize];
            let fails = strike.map_or(String::new(), |(_, kind)| format!(" fails: {kind:?}"));
            eprintln!("{number} {class:?}{} {path:?}{fails}", if durable { "+Sync" } else { "" });
        }
        let writes = !matches!(class, OpClass::Read | OpClass::Lookup | OpClass::Sync | OpClass::SyncDir);
        if writes && self.settings.read_only {
            return Err(Errno::ROFS);
        }
        Ok(strike)
    }

    /// A fault of an operation that has been carried out as far as it goes: a power cut happens now.
    pub(crate) fn fail(&mut self, kind: FaultKind) -> Errno {
        if kind == FaultKind::PowerOff
            && let Err(error) = self.power_off()
        {
            eprintln!("the power cut was not carried out: {error}");
        }
        kind.errno()
    }

    /// Cuts the power now: what survives besides what is durable is in the backing directory, and every operation fails
    /// until [`Volume::power_on`].
    pub fn power_off(&mut self) -> io::Result<()> {
        if self.off {
            return Ok(());
        }
        self.off = true;
        self.cuts += 1;
        let survivors = self.settings.survivors.drawn_for(self.cuts);
        self.survive(survivors)?;
        self.nodes.clear();
        self.volatile_bytes = 0;
        Ok(())
    }

    /// Switches the power on again, if it was off.
    pub fn power_on(&mut self) -> io::Result<()> {
        if self.off { self.boot() } else { Ok(()) }
    }

    /// Makes everything durable, as an orderly shutdown does.
    pub fn settle(&mut self) -> io::Result<()> {
        if self.off {
            return Ok(());
        }
        for step in self.names.settle() {
            self.carry_out(&step)?;
        }
        self.write_back()
    }

    /// Ends an orderly life: everything is durable, the staging directory is gone.
    pub fn close(&mut self) -> io::Result<()> {
        self.settle()?;
        self.off = true;
        self.nodes.clear();
        self.backing.close()
    }

    /// Makes all data durable, but no names.
    pub(crate) fn write_back(&mut self) -> io::Result<()> {
        for node in self.nodes.values_mut() {
            if let Kind::File(content) = &mut node.kind {
                content.sync(|_| true)?;
            }
        }
        self.recount();
        Ok(())
    }

    fn recount(&mut self) {
        self.volatile_bytes = self.nodes.values().map(volatile_bytes).sum();
    }

    /// Keeps the account of volatile memory after a change of one file.
    pub(crate) fn account(&mut self, before: u64, ino: Ino) -> Result<(), Errno> {
        let now = self.nodes.get(&ino).map_or(0, volatile_bytes);
        self.volatile_bytes = self.volatile_bytes + now - before;
        if self.volatile_bytes > self.settings.volatile_bytes_max {
            self.written_back += self.volatile_bytes;
            self.write_back().map_err(|error| errno(&error))?;
        }
        Ok(())
    }

    /// Bytes of volatile pages of one file.
    pub(crate) fn volatile_of(&self, ino: Ino) -> u64 {
        self.nodes.get(&ino).map_or(0, volatile_bytes)
    }

    /// Carries a change out on the durable side.
    pub(crate) fn carry_out(&self, step: &Step) -> io::Result<()> {
        self.backing.carry_out(step, &|ino| self.nodes.get(&ino).and_then(Node::dir))
    }

    /// Makes something new; it has no name yet.
    pub(crate) fn make(&mut self, kind: FileType, mode: u32, owner: (u32, u32)) -> Result<Ino, Errno> {
        let ino = self.new_ino();
        let made = self.backing.make(ino, kind).and_then(|()| self.kind_of_staged(ino, kind));
        let kind = made.map_err(|error| errno(&error))?;
        let node = Node { kind, mode, uid: owner.0, gid: owner.1, modified: now(), handles: 0 };
        self.nodes.insert(ino, node);
        self.set_mode(ino, mode, owner)?;
        Ok(ino)
    }

    /// Sets mode and owner.
    pub(crate) fn set_mode(&mut self, ino: Ino, mode: u32, owner: (u32, u32)) -> Result<(), Errno> {
        let node = self.node(ino)?;
        self.backing.set_mode(node.dir(), ino, mode, owner).map_err(|error| errno(&error))?;
        let node = self.node_mut(ino)?;
        (node.mode, node.uid, node.gid) = (mode, owner.0, owner.1);
        Ok(())
    }

    /// One more handle is open.
    pub(crate) fn hold(&mut self, ino: Ino) -> Result<(), Errno> {
        self.node_mut(ino)?.handles += 1;
        Ok(())
    }

    /// A handle was closed.
    pub fn release(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&Ino(ino)) {
            node.handles = node.handles.saturating_sub(1);
            self.forget_unnamed(Ino(ino));
        }
    }

    /// Forgets what nothing names, or can name again, and nobody has open.
    pub(crate) fn forget_unnamed(&mut self, ino: Ino) {
        let unused = self.nodes.get(&ino).is_some_and(|node| node.handles == 0);
        if !unused || self.names.mentions(ino) {
            return;
        }
        let is_dir = self.names.is_dir(ino);
        self.volatile_bytes -= self.volatile_of(ino);
        self.nodes.remove(&ino);
        self.names.forget(ino);
        if let Err(error) = self.backing.forget(ino, is_dir) {
            eprintln!("file {} is left in the staging directory: {error}", ino.0);
        }
    }

    /// Forgets what the steps took the last name of.
    pub(crate) fn forget_after(&mut self, steps: &[Step]) {
        for step in steps {
            self.forget_unnamed(step.change.ino());
            step.replaced.into_iter().for_each(|ino| self.forget_unnamed(ino));
            step.change.dirs().into_iter().for_each(|dir| self.forget_unnamed(dir));
        }
    }

    /// Keeps the number of volatile changes of names bounded.
    pub(crate) fn bound_names(&mut self) -> Result<(), Errno> {
        if self.names.pending() <= PENDING_MAX {
            return Ok(());
        }
        self.written_back += 1;
        let steps = self.names.settle();
        for step in &steps {
            self.carry_out(step).map_err(|error| errno(&error))?;
        }
        self.forget_after(&steps);
        Ok(())
    }

    /// Bytes that files take that have a name or are open, holes included, in whole pages.
    pub(crate) fn space_used_bytes(&self) -> u64 {
        let named = self.names.named();
        let held = self.nodes.iter().filter(|(ino, node)| node.handles > 0 || named.contains(ino));
        held.map(|(_, node)| node.bytes().next_multiple_of(crate::content::PAGE_BYTES)).sum()
    }

    /// Bytes in all and free, by the space limit, else of the backing directory.
    pub fn space(&self) -> Result<(u64, u64), Errno> {
        self.has_power()?;
        if let Some(space_bytes) = self.settings.space_bytes {
            return Ok((space_bytes, space_bytes.saturating_sub(self.space_used_bytes())));
        }
        let stat = rustix::fs::statvfs(self.backing.root())?;
        Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
    }

    /// The settings, to change them.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Plants a fault; an error says why it cannot happen.
    pub fn plant(&mut self, fault: Fault) -> Result<(), String> {
        fault.check()?;
        self.faults.plant(fault);
        Ok(())
    }

    /// Removes all planted faults.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
        self.torn.clear();
    }

    /// Operations of a class since the volume was opened.
    pub fn count(&self, class: OpClass) -> u64 {
        self.counters[class as usize]
    }

    /// One line per fact: power, what is volatile, the counters.
    pub fn report(&self) -> Vec<String> {
        let volatile = |node: &&Node| matches!(&node.kind, Kind::File(content) if content.is_volatile());
        let mut lines = vec![
            format!("power={}", if self.off { "off" } else { "on" }),
            format!("cuts={}", self.cuts),
            format!("volatile_bytes={}", self.volatile_bytes),
            format!("volatile_files={}", self.nodes.values().filter(volatile).count()),
            format!("volatile_names={}", self.names.pending()),
            format!("written_back={}", self.written_back),
        ];
        lines.extend(CLASSES.iter().zip(self.counters).map(|((_, name), count)| format!("ops_{name}={count}")));
        lines
    }

    /// A line for each file that a power cut can take something from: its path and how many bytes of pages it holds.
    pub fn unsynced(&self) -> Vec<String> {
        let volatile = |(&ino, node): (&Ino, &Node)| match &node.kind {
            Kind::File(content) if content.is_volatile() => {
                let path = self.names.path(ino);
                Some(format!("{}: {} bytes", path.display(), content.volatile_bytes()))
            }
            _ => None,
        };
        self.nodes.iter().filter_map(volatile).collect()
    }
}

fn volatile_bytes(node: &Node) -> u64 {
    match &node.kind {
        Kind::File(content) => content.volatile_bytes(),
        _ => 0,
    }
}

fn known(kind: Kind, stat: &std::fs::Metadata) -> Node {
    let modified = stat.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Node { kind, mode: stat.mode() & 0o7777, uid: stat.uid(), gid: stat.gid(), modified, handles: 0 }
}

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// The number of an error of the backing directory.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
