//! `kifa snapshot`: a consistent copy of a store, also of one that is written to, which opens as a store of its own.
//!
//! It is a reader's look at one moment: the tables that the manifest names, and of the log behind them what is durable
//! (by the daemon's word, too). Tables never change, so they are shared where the file system can: cloned (FICLONE), else
//! linked, else copied. Segments are written to and used again, so nothing of the log is shared: its entries go to a table
//! of the copy's own, and the copy begins with an empty log.
//!
//! - LSNs, timestamps, sources, positions, gaps, clock steps and the retention floor are those of the source as of the last
//!   entry. The copy has the source's id, for its tables carry it; they are two branches from there on.
//! - It is made under a temporary name beside its final one. Every file and its name are durable before the manifest is
//!   written, the manifest is durable before the directory gets its name, and so is that. A cut before the manifest leaves
//!   a directory that nobody opens; one before the last rename a hidden one.
//! - Both stores only ever unlink their own names of a linked table, and write to none.
//! - A table that is merged away meanwhile, or a segment that is used again, begins the look anew.
//!
//! Not here: damaged stores (`recover`).
//!
//! Proof: `tests/it/snapshot.rs`.
// A table is linked under both of its paths; the seam knows of one store only.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::compaction::Step;
use crate::error::{Error, Result};
use crate::format::facts::{self, Checkpoints};
use crate::format::manifest::{Manifest, TableMeta};
use crate::format::record::Record;
use crate::format::table::{Codec, TableFacts};
use crate::format::{ClockStep, Lsn};
use crate::io::Vfs;
use crate::io::fs::StoreDir;
use crate::query::{Reader, View};
use crate::reactor::maintain::{Source, write_table};
use crate::reactor::ops::Ops;
use crate::recover::fresh::{FIRST_SEGMENT, Target, make_empty_store};
use crate::sstable::{BlockBuf, Table, TableBuilder};
use crate::survey::log::Part;
use crate::survey::pieces::place;
use crate::wal::reader::{Window, read_group};
use crate::{manifest, sstable, wal};

/// How often the store may move on in the middle of it.
const ATTEMPTS_MAX: u32 = 20;

/// What was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) entries: u64,
    pub(crate) last_lsn: Lsn,
    /// Tables that share their bytes with the source's.
    pub(crate) cloned: u64,
    /// Tables that are the source's own files under a second name.
    pub(crate) linked: u64,
    /// Tables that were written, the log's included.
    pub(crate) copied: u64,
    /// Bytes of all tables.
    pub(crate) bytes: u64,
}

/// Takes a snapshot of the store in `source`.
///
/// # Errors
/// As [`Reader::open`]; [`Error::Corrupt`] where the store is damaged; [`Error::Io`]. Nothing is left then.
pub(crate) fn take(source: &Path, target: &Target) -> Result<Taken> {
    let reader = Reader::open(source)?;
    for _ in 0..ATTEMPTS_MAX {
        let taken = build(&reader, source, target.temporary());
        match taken {
            Ok(Some(taken)) => return target.publish().map(|()| taken),
            Ok(None) => target.discard(),
            Err(cause) => {
                target.discard();
                return Err(cause);
            }
        }
    }
    Err(Error::io("copy", source, io::Error::other("it changes faster than it can be copied; try again")))
}

/// One attempt; `None`: the store has moved on.
fn build(reader: &Reader, source: &Path, dir: &Path) -> Result<Option<Taken>> {
    let view = reader.view()?;
    if let Some(wound) = view.damage.first() {
        return Err(wound.to_error());
    }
    let within = |cause| crate::engine::within(dir, cause);
    let (ops, vfs) = make_empty_store(dir)?;
    let mut taken = Taken { last_lsn: view.last_lsn, ..Taken::default() };
    let stores = Stores {
        from: StoreDir::open(source).map_err(|cause| Error::io("open", source, cause))?,
        to: StoreDir::open(dir).map_err(|cause| Error::io("open", dir, cause))?,
        paths: (source, dir),
    };
    for table in &view.manifest.tables {
        if !stores.share(table, &*vfs, &view.manifest, &mut taken)? {
            return is_gone(reader, &view, table).map(|()| None);
        }
    }
    ops.block_on(ops.sync_dir(sstable::DIR)).map_err(within)?;
    let Some(mut manifest) = copy_log(&ops, &vfs, view, &mut taken).map_err(within)? else { return Ok(None) };
    manifest.generation += 1;
    taken.entries = manifest.tables.iter().map(|table| table.entry_count).sum();
    taken.bytes = manifest.tables.iter().map(|table| table.file_bytes).sum();
    ops.block_on(manifest::write(&ops, &manifest)).map_err(within)?;
    Ok(Some(taken))
}

/// A table that is not there is gone for a reason, which a newer manifest knows; else it is damage.
fn is_gone(reader: &Reader, view: &View, table: &TableMeta) -> Result<()> {
    if reader.view()?.manifest.generation > view.manifest.generation {
        return Ok(());
    }
    let what = "the manifest names it, and it is missing";
    Err(Error::corrupt(&sstable::path(table.id), 0, Some(table.first_lsn), what))
}

/// Both directories.
struct Stores<'a> {
    from: StoreDir,
    to: StoreDir,
    paths: (&'a Path, &'a Path),
}

impl Stores<'_> {
    /// Gives the copy this table; `false`: it is not there any more.
    fn share(&self, table: &TableMeta, vfs: &dyn Vfs, manifest: &Manifest, taken: &mut Taken) -> Result<bool> {
        let path = sstable::path(table.id);
        let shown = |op, at: &Path, cause| Error::io(op, at.join(&path), cause);
        let file = match self.from.open_read(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(cause) => return Err(shown("open", self.paths.0, cause)),
        };
        let mut copy = self.to.create(&path).map_err(|cause| shown("create", self.paths.1, cause))?;
        let mut was_copied = false;
        if clone(&copy, &file).is_ok() {
            taken.cloned += 1;
        } else {
            drop(copy);
            self.to.unlink(&path).map_err(|cause| shown("remove", self.paths.1, cause))?;
            match fs::hard_link(self.paths.0.join(&path), self.paths.1.join(&path)) {
                Ok(()) => {
                    taken.linked += 1;
                    return self.check(table, vfs, manifest, false).map(|()| true);
                }
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
                // Another file system, one without links, too many links: then it is copied.
                Err(_) => {}
            }
            copy = self.to.create(&path).map_err(|cause| shown("create", self.paths.1, cause))?;
            io::copy(&mut &file, &mut &copy).map_err(|cause| shown("write", self.paths.1, cause))?;
            (was_copied, taken.copied) = (true, taken.copied + 1);
        }
        copy.sync_all().map_err(|cause| shown("sync", self.paths.1, cause))?;
        self.check(table, vfs, manifest, was_copied).map(|()| true)
    }

    /// The copy is that table, whole; one that was written is read back, block by block.
    fn check(&self, table: &TableMeta, vfs: &dyn Vfs, manifest: &Manifest, deep: bool) -> Result<()> {
        let path = sstable::path(table.id);
        let file = vfs.open(&path).map_err(|cause| Error::io("open", self.paths.1.join(&path), cause))?;
        let found = Table::open(file, Some(table), manifest.store).map_err(|cause| cause.into_error(&path))?;
        match deep {
            true => found.verify(&mut BlockBuf::default()).map_err(|cause| cause.into_error(&path)),
            false => Ok(()),
        }
    }
}

/// Has `to` share the bytes of `from`, where the file system can.
#[cfg(target_os = "linux")]
fn clone(to: &File, from: &File) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(to, from)?)
}

#[cfg(not(target_os = "linux"))]
fn clone(_to: &File, _from: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What the log says behind the tables, as of the last entry that is taken.
struct Facts {
    checkpoints: Checkpoints,
    clock_steps: Vec<ClockStep>,
}

/// Writes the entries of the log as a table; the manifest of the copy. `None`: a segment was used again meanwhile.
fn copy_log(ops: &Rc<Ops>, vfs: &Arc<dyn Vfs>, view: View, taken: &mut Taken) -> Result<Option<Manifest>> {
    let Some(facts) = facts_of(&view)? else { return Ok(None) };
    let source = view.manifest.clone();
    let gap_end = view.gaps.last().map_or(Lsn::ZERO, |gap| gap.last);
    let mut copy = Manifest {
        checkpoint_lsn: view.last_lsn.max(gap_end).max(source.checkpoint_lsn),
        first_segment: FIRST_SEGMENT,
        newest_segment: FIRST_SEGMENT - 1,
        gaps: view.gaps.clone(),
        checkpoints: facts.checkpoints,
        clock_steps: facts.clock_steps,
        ..source.clone()
    };
    if view.parts.is_empty() {
        return Ok(Some(copy));
    }
    let table_facts = TableFacts {
        gaps: copy.gaps.clone(),
        checkpoints: copy.checkpoints.clone(),
        clock_steps: copy.clock_steps.clone(),
        replaces: Vec::new(),
        floor_lsn: copy.floor_lsn,
    };
    let id = copy.next_table_id;
    let mut builder = Some(TableBuilder::new(source.store, id, Codec::Lz4, Arc::clone(&ops.chunks)));
    let (mut parts, mut window) = (view.parts.clone().into_iter(), Window::default());
    let source: Source = Box::new(move || {
        let open = builder.as_mut().expect("there is no step behind the last one");
        for part in parts.by_ref() {
            let entries = with_group(&view, &part, &mut window, |group| {
                let is_wanted = |lsn: Lsn| lsn > view.manifest.checkpoint_lsn && lsn <= view.last_lsn;
                group.entries().filter(|entry| is_wanted(entry.lsn)).for_each(|entry| open.push(&entry));
            })?;
            if entries.is_none() {
                return Err(moved_on());
            }
            if let Some(chunks) = open.take_chunks() {
                return Ok(Step::Chunks(chunks));
            }
        }
        let (rest, meta) = builder.take().expect("as above").finish(&table_facts);
        Ok(Step::Done(rest, meta))
    });
    match ops.block_on(write_table(ops, vfs, copy.store, id, source)) {
        Ok(meta) => copy.add(Some(meta)),
        Err(cause) if is_moved_on(&cause) => return Ok(None),
        Err(cause) => return Err(cause),
    }
    taken.copied += 1;
    Ok(Some(copy))
}

const MOVED_ON: &str = "a segment was used again while it was read";

fn moved_on() -> Error {
    Error::io("read", "the log", io::Error::other(MOVED_ON))
}

fn is_moved_on(cause: &Error) -> bool {
    matches!(cause, Error::Io { source, .. } if source.to_string() == MOVED_ON)
}

/// Positions and clock steps as of the last entry. What lies behind it may not be durable, and a position that is ahead of
/// the entries would lose some when the copy is used.
fn facts_of(view: &View) -> Result<Option<Facts>> {
    if let (Some(replay), true) = (&view.replay, view.beyond.is_none()) {
        let clock_steps = view.clock_steps.clone();
        return Ok(Some(Facts { checkpoints: replay.checkpoints.clone(), clock_steps }));
    }
    let manifest = &view.manifest;
    let mut facts = Facts { checkpoints: manifest.checkpoints.clone(), clock_steps: manifest.clock_steps.clone() };
    let mut window = Window::default();
    for part in &view.parts {
        let records = with_group(view, part, &mut window, |group| group.records())?;
        let Some(records) = records else { return Ok(None) };
        for record in records {
            match record {
                Record::Checkpoint { key, value } => facts::apply(&mut facts.checkpoints, key, value),
                Record::ClockStep(step) if step.lsn > manifest.checkpoint_lsn && step.lsn <= view.last_lsn => {
                    facts.clock_steps.push(step);
                }
                Record::ClockStep(_) | Record::EpochStart { .. } => {}
            }
        }
    }
    Ok(Some(facts))
}

/// Reads a group again; `None` if it is gone.
fn with_group<T>(
    view: &View,
    part: &Part,
    window: &mut Window,
    take: impl FnOnce(&wal::reader::Group<'_>) -> T,
) -> Result<Option<T>> {
    let Part::Group(group) = part else { unreachable!("single entries are saved from damaged logs only") };
    let place = place(&view.files, view.manifest.store, group.file, group.segment, group.offset);
    let read = read_group(window, &place)?;
    Ok(read.ok().filter(|found| found.header.salt == group.salt).map(|found| take(&found)))
}
