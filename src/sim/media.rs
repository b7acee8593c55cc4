//! The state of one simulated disk, files and names, and what each operation does to it when it takes effect.
//!
//! Knows nothing of queues, time or chance planted from outside: [`super::state`] decides which operation takes effect
//! when and how it fails, [`super::cut`] what a power cut leaves.

use std::collections::BTreeMap;
use std::io;

use super::fault::FaultKind;
use super::image::{File, Image, Page, Version, WHOLE_PAGE};
use super::names::{Ino, Names, ROOT, Tree};
use super::rng::Rng;
use crate::format::BLOCK_BYTES;
use crate::io::{Durability, Op, OpId};

/// How a submitted operation is going to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// As the disk's state has it.
    Sound,
    /// It fails; a durable write in its write.
    Fails(FaultKind),
    /// A durable write is written whole, and its sync fails.
    FailsInSync(FaultKind),
}

/// An operation between its submission and its completion.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) backend: u64,
    pub(super) id: OpId,
    pub(super) op: Op,
    /// The file that it names by a handle.
    pub(super) ino: Option<Ino>,
    pub(super) fate: Fate,
    /// What took effect before this stamp had been reported when the operation was submitted: a sync covers it.
    pub(super) horizon: u64,
    /// The bytes of a write.
    pub(super) pages: Vec<Page>,
    /// Sectors of each page that readers saw before the completion; empty for none.
    pub(super) early: Vec<u8>,
}

impl Flight {
    /// The file of the handle, which must have been valid.
    fn ino(&self) -> io::Result<Ino> {
        self.ino.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the file is not open"))
    }

    fn early(&self, page: usize) -> u8 {
        self.early.get(page).copied().unwrap_or(0)
    }
}

/// See the module's page.
#[derive(Clone, Debug)]
pub(super) struct Media {
    pub(super) files: BTreeMap<Ino, File>,
    pub(super) names: Names,
    next_ino: u64,
    /// Counts effects; orders writes and changes of names.
    pub(super) stamp: u64,
    /// Bytes the disk holds; `None` for any number.
    pub(super) space_bytes: Option<u64>,
}

impl Media {
    /// An empty disk.
    pub(super) fn new() -> Media {
        let names = Names::at_rest(Tree::default());
        Media { files: BTreeMap::new(), names, next_ino: ROOT.0 + 1, stamp: 0, space_bytes: None }
    }

    /// The same disk after a power cut that left these contents and names.
    pub(super) fn after_cut(&self, contents: BTreeMap<Ino, Image>, tree: Tree) -> Media {
        let alive = tree.reachable();
        let links = |ino: Ino| self.files.get(&ino).map_or(0, |file| file.links_outside);
        let files = contents.into_iter().filter(|(ino, _)| alive.contains(ino));
        let files = files.map(|(ino, image)| (ino, File::at_rest(image, links(ino)))).collect();
        Media { files, names: Names::at_rest(tree), ..*self }
    }

    /// Another disk with what readers of this one see, all of it durable.
    pub(super) fn copied(&self) -> Media {
        let files = self.files.iter().map(|(&ino, file)| (ino, file.visible.clone())).collect();
        let mut copy = self.after_cut(files, self.names.visible().clone());
        copy.files.values_mut().for_each(|file| file.links_outside = 0);
        copy
    }

    /// Forgets handles, and files that nothing names any more or may name again.
    pub(super) fn forget_handles(&mut self) {
        let (visible, after_cut) = self.names.reachable();
        self.files.retain(|ino, _| visible.contains(ino) || after_cut.contains(ino));
        self.files.values_mut().for_each(|file| file.handles = 0);
    }

    /// A number for a new file or directory.
    pub(super) fn new_ino(&mut self) -> Ino {
        self.next_ino += 1;
        Ino(self.next_ino - 1)
    }

    /// The stamp of the next effect.
    pub(super) fn tick(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp - 1
    }

    /// Bytes taken by files that have a name or are open.
    pub(super) fn space_used_bytes(&self) -> u64 {
        let (named, _) = self.names.reachable();
        let held = self.files.iter().filter(|(ino, file)| named.contains(ino) || file.handles > 0);
        held.map(|(_, file)| file.allocated_bytes()).sum()
    }

    /// A file that is known to exist.
    pub(super) fn file(&mut self, ino: Ino) -> &mut File {
        self.files.get_mut(&ino).expect("files live as long as a name or handle of theirs")
    }

    /// Lets an operation take effect, as its fate has it. `Ok` holds the file that `Create` and `Open` yield.
    pub(super) fn effect(&mut self, flight: &Flight, rng: &mut Rng) -> io::Result<Option<Ino>> {
        match flight.fate {
            Fate::Fails(kind) => {
                self.failure(flight, kind, rng);
                return Err(kind.error());
            }
            Fate::FailsInSync(kind) => {
                let ino = self.write(flight)?;
                self.fail_sync(ino, flight, kind, rng);
                return Err(kind.error());
            }
            Fate::Sound => {}
        }
        match &flight.op {
            Op::Open { path } => return self.names.file(path).map(Some),
            Op::Close { .. } => {
                flight.ino()?;
            }
            Op::Write { durability, .. } => {
                let ino = self.write(flight)?;
                if *durability != Durability::None {
                    self.sync(ino, flight, rng);
                }
            }
            Op::SyncData { .. } => self.sync(flight.ino()?, flight, rng),
            Op::SyncDir { path } => self.names.sync_dir(path, flight.horizon, &mut || rng.coin())?,
            Op::Create { .. } | Op::Rename { .. } | Op::Unlink { .. } | Op::MakeDir { .. } => {
                return self.change_names(&flight.op);
            }
        }
        Ok(None)
    }

    /// What an operation does although it fails; see the table of [`super::fault`].
    fn failure(&mut self, flight: &Flight, kind: FaultKind, rng: &mut Rng) {
        match &flight.op {
            Op::Write { durability, .. } => {
                let masks = match kind {
                    FaultKind::Eio => (0..flight.pages.len()).map(|_| rng.next_u64() as u8).collect(),
                    FaultKind::ShortWrite => short(flight.pages.len(), rng),
                    _ => Vec::new(),
                };
                let synced = kind == FaultKind::ShortWrite && *durability != Durability::None && rng.coin();
                if let Some(ino) = flight.ino {
                    self.write_sectors(ino, flight, |page| masks.get(page).copied().unwrap_or(0));
                    if synced {
                        self.sync(ino, flight, rng);
                    }
                }
            }
            Op::SyncData { .. } => {
                if let Some(ino) = flight.ino {
                    self.fail_sync(ino, flight, kind, rng);
                }
            }
            // An interrupted one has done nothing yet, and forgotten nothing.
            Op::SyncDir { .. } if kind == FaultKind::Interrupted => {}
            Op::SyncDir { path } => self.names.fail_sync_dir(path),
            Op::Create { .. } | Op::Rename { .. } | Op::Unlink { .. } | Op::MakeDir { .. } => {
                if kind == FaultKind::Eio && rng.coin() {
                    // The caller is told of the fault whatever became of the change.
                    drop(self.change_names(&flight.op));
                }
            }
            Op::Open { .. } | Op::Close { .. } => {}
        }
    }

    /// Carries out a create, rename, unlink or mkdir.
    pub(super) fn change_names(&mut self, op: &Op) -> io::Result<Option<Ino>> {
        let stamp = self.tick();
        match op {
            Op::Create { path } => {
                let ino = self.new_ino();
                self.names.link(stamp, path, ino)?;
                self.files.insert(ino, File::default());
                return Ok(Some(ino));
            }
            Op::MakeDir { path } => {
                let ino = self.new_ino();
                self.names.make_dir(stamp, path, ino)?;
            }
            Op::Rename { from, to } => self.names.rename(stamp, from, to)?,
            Op::Unlink { path } => self.names.unlink(stamp, path)?,
            _ => unreachable!("the other operations change no name"),
        }
        Ok(None)
    }

    /// Checks and carries out a write, whole.
    fn write(&mut self, flight: &Flight) -> io::Result<Ino> {
        let Op::Write { offset, len, buf, .. } = &flight.op else { unreachable!("only writes have sectors") };
        aligned(*offset, *len, buf.len())?;
        let ino = flight.ino()?;
        if let Some(space_bytes) = self.space_bytes {
            let pages = flight.pages.len() as u64;
            let new_pages = self.file(ino).unallocated_pages(offset / BLOCK_BYTES as u64, pages);
            if new_pages > 0 && self.space_used_bytes() + new_pages * BLOCK_BYTES as u64 > space_bytes {
                self.write_sectors(ino, flight, |_| 0);
                return Err(FaultKind::NoSpace.error());
            }
        }
        self.write_sectors(ino, flight, |_| WHOLE_PAGE);
        Ok(ino)
    }

    /// Writes the sectors that `mask` names of each page, and those that readers have seen already.
    pub(super) fn write_sectors(&mut self, ino: Ino, flight: &Flight, mask: impl Fn(usize) -> u8) {
        let Op::Write { offset, .. } = flight.op else { unreachable!("only writes have sectors") };
        let stamp = self.tick();
        let file = self.file(ino);
        for (at, page) in flight.pages.iter().enumerate() {
            file.write(offset / BLOCK_BYTES as u64 + at as u64, page, mask(at) | flight.early(at), stamp);
        }
    }

    /// The sync of `SyncData`, or of a durable write that just took effect.
    fn sync(&mut self, ino: Ino, flight: &Flight, rng: &mut Rng) {
        let mut covers = self.covered_by(flight, rng);
        self.file(ino).sync(&mut covers);
    }

    /// The same, when it fails.
    fn fail_sync(&mut self, ino: Ino, flight: &Flight, kind: FaultKind, rng: &mut Rng) {
        if kind == FaultKind::Interrupted {
            let mut got_that_far = rng.fork(self.stamp);
            let mut covers = self.covered_by(flight, rng);
            self.file(ino).sync(|version| covers(version) && got_that_far.coin());
        } else {
            let mut covers = self.covered_by(flight, rng);
            self.file(ino).fail_sync(&mut covers);
        }
    }

    /// What a sync covers. Writes reported after it was submitted may be covered or not, page by page.
    fn covered_by<'r>(&self, flight: &'r Flight, rng: &'r mut Rng) -> impl FnMut(&Version) -> bool + use<'r> {
        let (own_stamp, own_only) = match flight.op {
            Op::Write { durability, .. } => (Some(self.stamp - 1), durability == Durability::Own),
            _ => (None, false),
        };
        move |version| Some(version.stamp) == own_stamp || !own_only && (version.stamp < flight.horizon || rng.coin())
    }
}

/// The sectors of a true prefix of `pages` pages.
fn short(pages: usize, rng: &mut Rng) -> Vec<u8> {
    let mut sectors = rng.below((pages * 8).max(1) as u64);
    let mut masks = Vec::new();
    while sectors > 0 {
        masks.push(if sectors >= 8 { WHOLE_PAGE } else { (1 << sectors) - 1 });
        sectors = sectors.saturating_sub(8);
    }
    masks
}

/// What O_DIRECT insists on.
fn aligned(offset: u64, len: usize, capacity: usize) -> io::Result<()> {
    let block = BLOCK_BYTES as u64;
    if offset.is_multiple_of(block) && (len as u64).is_multiple_of(block) && len <= capacity {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "offset and length must be multiples of the block"))
}
