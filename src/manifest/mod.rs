//! The live set of tables and segments: loading it, and replacing it.
//!
//! Invariants:
//! - The newest manifest is the one with the highest generation; the name carries it, the header decides. A legal crash
//!   cannot leave an invalid newest manifest, so one is corruption, never a reason to fall back to an older one.
//! - A manifest is replaced whole: temporary file, data sync, rename, directory sync, and only then is the old one removed
//!   and the new one believed by this process.
//! - Edits are made one at a time, each on top of the last durable manifest.
//! - The rename of the first manifest is the birth of a store.
//! - A full disk keeps nobody from replacing it: see [`reserve`].
//!
//! Not here: what an edit means (the jobs in `reactor` decide), rebuilding a lost manifest.
//!
//! Proof: `tests`, and the crash campaign in `sim`.

pub(crate) mod reserve;
#[cfg(test)]
mod tests;

use std::cell::{Cell, Ref, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use crate::error::{Error, Result};
use crate::format::manifest::{BODY_BYTES_MAX, Manifest};
use crate::format::{BLOCK_BYTES, FormatError, Lsn};
use crate::io::{AlignedBuf, Durability, FileId, Vfs};
use crate::reactor::ops::Ops;
use crate::reactor::space::is_no_space;

const PREFIX: &str = "MANIFEST-";
const TEMPORARY: &str = ".tmp";

pub(crate) fn path(generation: u64) -> String {
    format!("{PREFIX}{generation:010}")
}

/// The generation in a name like `MANIFEST-0000000007`.
pub(crate) fn name_generation(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    if digits.len() < 10 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// What the store's directory holds, as far as manifests are concerned.
pub(crate) struct Found {
    /// Generations, ascending.
    pub(crate) generations: Vec<u64>,
    /// Left under a temporary name.
    pub(crate) temporary: Vec<String>,
}

/// Lists the manifests in the store's directory.
pub(crate) fn find(vfs: &dyn Vfs) -> io::Result<Found> {
    let mut found = Found { generations: Vec::new(), temporary: Vec::new() };
    for entry in vfs.list("")?.into_iter().filter(|entry| entry.is_file) {
        if let Some(generation) = name_generation(&entry.name) {
            found.generations.push(generation);
        } else if entry.name == reserve::TEMPORARY
            || entry.name.strip_suffix(TEMPORARY).and_then(name_generation).is_some()
        {
            found.temporary.push(entry.name);
        }
    }
    found.generations.sort_unstable();
    Ok(found)
}

/// Reads and checks the manifest of one generation; `None` where the file is gone (replaced meanwhile). Damage is found
/// twice before it is reported.
pub(crate) fn read(vfs: &dyn Vfs, generation: u64) -> Result<Option<Manifest>> {
    match read_once(vfs, generation, false) {
        Err(Error::Corrupt(_)) => read_once(vfs, generation, true),
        outcome => outcome,
    }
}

fn read_once(vfs: &dyn Vfs, generation: u64, from_device: bool) -> Result<Option<Manifest>> {
    let path = path(generation);
    let Some(bytes) = read_bytes(vfs, &path, from_device)? else { return Ok(None) };
    let damaged = |why: FormatError| Error::corrupt(&path, 0, None, format!("the newest manifest is invalid: {why}"));
    let manifest = Manifest::decode(&bytes).map_err(damaged)?;
    if manifest.generation != generation {
        return Err(damaged(FormatError::Field("generation")));
    }
    Ok(Some(manifest))
}

/// Whether the manifest of this generation was written by a newer kifa: then it is not damaged.
#[cfg(feature = "cli")]
pub(crate) fn is_newer(vfs: &dyn Vfs, generation: u64) -> bool {
    let bytes = read_bytes(vfs, &path(generation), false);
    bytes.is_ok_and(|bytes| bytes.is_some_and(|bytes| matches!(Manifest::decode(&bytes), Err(FormatError::Version(_)))))
}

/// The bytes of a manifest's file, up to the longest that a decoder believes; `None` where it is gone.
pub(crate) fn read_bytes(vfs: &dyn Vfs, path: &str, from_device: bool) -> Result<Option<Vec<u8>>> {
    let file = match vfs.open(path) {
        Ok(file) => {
            if from_device {
                file.forget();
            }
            file
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io("open", path, cause)),
    };
    let io_error = |cause| Error::io("read", path, cause);
    let bytes_max = (BODY_BYTES_MAX + 2 * BLOCK_BYTES) as u64;
    let mut bytes = vec![0; file.bytes().map_err(io_error)?.min(bytes_max) as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64).map_err(io_error)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(Some(bytes))
}

/// The manifest in force and the right to replace it.
pub(crate) struct ManifestStore {
    ops: Rc<Ops>,
    current: RefCell<Manifest>,
    editing: Cell<bool>,
}

impl ManifestStore {
    pub(crate) fn new(ops: Rc<Ops>, current: Manifest) -> ManifestStore {
        ManifestStore { ops, current: RefCell::new(current), editing: Cell::new(false) }
    }

    /// Whether the next manifest is being written.
    pub(crate) fn is_editing(&self) -> bool {
        self.editing.get()
    }

    /// The last durable manifest.
    pub(crate) fn current(&self) -> Ref<'_, Manifest> {
        self.current.borrow()
    }

    /// Replaces the manifest by what `edit` makes of it; returns when the new one is durable.
    pub(crate) async fn edit(&self, edit: impl FnOnce(&mut Manifest)) -> Result<()> {
        let edited = self.try_edit(|manifest| {
            edit(manifest);
            true
        });
        edited.await.map(drop)
    }

    /// As [`ManifestStore::edit`], unless `edit` finds on what is there by then that there is nothing to be done, and
    /// returns `false`; the outcome says which.
    pub(crate) async fn try_edit(&self, edit: impl FnOnce(&mut Manifest) -> bool) -> Result<bool> {
        poll_fn(|_| if self.editing.get() { Poll::Pending } else { Poll::Ready(()) }).await;
        let mut next = self.current.borrow().clone();
        if !edit(&mut next) {
            return Ok(false);
        }
        self.editing.set(true);
        next.generation += 1;
        let outcome = write_anyhow(&self.ops, &next, || self.ops.lacks_reserve.set(true)).await;
        if outcome.is_ok() {
            let before = self.current.replace(next).generation;
            // An old manifest that stays does no harm: the newest one counts, and the next open removes the others.
            let _ = self.ops.unlink(&path(before)).await;
        }
        self.editing.set(false);
        outcome.map(|()| true)
    }
}

/// Makes `manifest` the store's newest one, durably. Where the disk is full, it takes the [`reserve`]'s place.
pub(crate) async fn write(ops: &Rc<Ops>, manifest: &Manifest) -> Result<()> {
    write_anyhow(ops, manifest, || ()).await
}

/// As [`write`](fn@write); `taken` is told when the reserve is gone.
async fn write_anyhow(ops: &Rc<Ops>, manifest: &Manifest, taken: impl FnOnce()) -> Result<()> {
    let path = path(manifest.generation);
    let temporary = format!("{path}{TEMPORARY}");
    ops.unlink(&temporary).await?;
    let filled = async {
        let file = ops.create(&temporary).await?;
        fill(ops, manifest, (file, &temporary), 0).await
    };
    match filled.await {
        Err(cause) if is_no_space(&cause) && reserve::take(ops, &temporary).await? => {
            taken();
            let file = ops.open(&temporary).await?;
            fill(ops, manifest, (file, &temporary), reserve::BYTES).await?;
        }
        filled => filled?,
    }
    ops.rename(&temporary, &path).await?;
    ops.sync_dir("").await
}

/// Writes the manifest, with zeros behind it up to `bytes_min`, and closes the file.
async fn fill(ops: &Rc<Ops>, manifest: &Manifest, (file, path): (FileId, &str), bytes_min: usize) -> Result<()> {
    let mut encoded = manifest.encode();
    encoded.resize(encoded.len().max(bytes_min), 0);
    let bytes = AlignedBuf::from_bytes(&encoded);
    let len = bytes.len();
    let written = async {
        ops.write((file, path), 0, bytes, len, Durability::None).await?;
        ops.sync_data((file, path)).await
    };
    let written = written.await;
    ops.close(file).await;
    written
}

/// Removes manifests that a newer one superseded, and what was left under temporary names.
pub(crate) async fn tidy(ops: &Rc<Ops>, found: &Found, generation: u64) -> Result<()> {
    for name in &found.temporary {
        ops.unlink(name).await?;
    }
    for &old in found.generations.iter().filter(|&&old| old < generation) {
        ops.unlink(&path(old)).await?;
    }
    Ok(())
}

/// Checks that the floor, the tables and the gaps join without a hole up to the checkpoint.
pub(crate) fn check_join(manifest: &Manifest) -> Result<()> {
    let mut next = manifest.floor_lsn;
    let mut gaps = manifest.gaps.iter().peekable();
    let mut skip_gaps = |next: &mut Lsn| {
        while let Some(gap) = gaps.next_if(|gap| gap.first <= *next) {
            *next = (*next).max(gap.last.next());
        }
    };
    for table in &manifest.tables {
        skip_gaps(&mut next);
        if table.first_lsn > next {
            let what = format!("it names no table for LSNs {next} to {}", table.first_lsn.prev());
            return Err(Error::corrupt(&path(manifest.generation), 0, Some(next), what));
        }
        next = next.max(table.last_lsn.next());
    }
    skip_gaps(&mut next);
    if next <= manifest.checkpoint_lsn {
        let what = format!("it names no table for LSNs {next} to {}", manifest.checkpoint_lsn);
        return Err(Error::corrupt(&path(manifest.generation), 0, Some(next), what));
    }
    Ok(())
}
