//! Contents of one simulated file: what readers see, what is durable, and the writes between the two.
//!
//! - `visible` is the page cache: every completed write is in it at once.
//! - `durable` is what the medium holds for certain. Only [`File::sync`] moves writes there.
//! - `dirty` holds, per page, the writes that are not durable, oldest first. At a power cut any of them, or none, may be
//!   what its sectors hold afterwards.
//! - A failed sync marks what it would have covered *clean*: the kernel has forgotten that it needs writing, so later
//!   syncs pass it over and still succeed. Only writing the sectors anew helps.
//! - A write that becomes durable supersedes the older ones in its sectors: they cannot come back.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::format::BLOCK_BYTES;

/// Unit in which a simulated write tears, in bytes.
pub(crate) const SECTOR_BYTES: usize = 512;
/// All sectors of a page; bit `i` stands for sector `i`.
pub(super) const WHOLE_PAGE: u8 = u8::MAX;
/// Sectors in a page.
const PAGE_SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;
const _: () = assert!(PAGE_SECTORS == u8::BITS as usize);

/// One block of a file, shared by all the images and writes that hold it.
pub(super) type Page = Arc<[u8; BLOCK_BYTES]>;

/// The page of `bytes` (exactly one block). Zeros are the bulk of a prepared segment, so they are shared.
fn page_of(bytes: &[u8]) -> Page {
    static ZERO: OnceLock<Page> = OnceLock::new();
    let zero = ZERO.get_or_init(|| Arc::new([0; BLOCK_BYTES]));
    let bytes: &[u8; BLOCK_BYTES] = bytes.try_into().expect("a page is one block");
    if bytes == zero.as_ref() { zero.clone() } else { Arc::new(*bytes) }
}

/// The pages of a block-aligned buffer.
pub(super) fn pages_of(bytes: &[u8]) -> Vec<Page> {
    bytes.chunks_exact(BLOCK_BYTES).map(page_of).collect()
}

/// Which units of a file survive or are lost together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Grain {
    /// 512 bytes: what a disk writes at once.
    Sector,
    /// 4096 bytes: what the page cache writes at once.
    Block,
}

/// Bytes by page; a page that was never written is a hole that reads as zeros.
#[derive(Clone, Default, Debug)]
pub(super) struct Image {
    pages: BTreeMap<u64, Page>,
    pub(super) bytes: u64,
}

impl Image {
    /// A file's contents, of any length.
    pub(super) fn of(bytes: &[u8]) -> Image {
        let mut image = Image::default();
        image.patch(0, bytes);
        image
    }

    /// Takes over the named sectors of `page`, which is number `index` of the file; longer if need be.
    fn put(&mut self, index: u64, page: &Page, sectors: u8) {
        if sectors == WHOLE_PAGE {
            self.pages.insert(index, page.clone());
        } else if sectors != 0 {
            let mine = Arc::make_mut(self.pages.entry(index).or_insert_with(|| page_of(&[0; BLOCK_BYTES])));
            for at in (0..PAGE_SECTORS).filter(|at| sectors >> at & 1 == 1).map(|at| at * SECTOR_BYTES) {
                mine[at..at + SECTOR_BYTES].copy_from_slice(&page[at..at + SECTOR_BYTES]);
            }
        }
        let end = PAGE_SECTORS as u64 - u64::from(sectors.leading_zeros());
        if end > 0 {
            self.bytes = self.bytes.max(index * BLOCK_BYTES as u64 + end * SECTOR_BYTES as u64);
        }
    }

    /// Reads up to `buf.len()` bytes at `offset`; short only at the end.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let len = self.bytes.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (at, piece) in pieces(offset, len) {
            let target = &mut buf[(at - offset) as usize..][..piece];
            match self.pages.get(&(at / BLOCK_BYTES as u64)) {
                Some(page) => target.copy_from_slice(&page[(at % BLOCK_BYTES as u64) as usize..][..piece]),
                None => target.fill(0),
            }
        }
        len
    }

    /// All of it.
    pub(super) fn contents(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes as usize];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Changes bytes at any offset; longer if need be.
    fn patch(&mut self, offset: u64, bytes: &[u8]) {
        for (at, piece) in pieces(offset, bytes.len()) {
            let page = self.pages.entry(at / BLOCK_BYTES as u64).or_insert_with(|| page_of(&[0; BLOCK_BYTES]));
            let from = (at - offset) as usize;
            Arc::make_mut(page)[(at % BLOCK_BYTES as u64) as usize..][..piece]
                .copy_from_slice(&bytes[from..from + piece]);
        }
        self.bytes = self.bytes.max(offset + bytes.len() as u64);
    }

    /// Cuts everything from `bytes` on.
    fn truncate(&mut self, bytes: u64) {
        let rest = (bytes % BLOCK_BYTES as u64) as usize;
        self.pages.split_off(&bytes.div_ceil(BLOCK_BYTES as u64));
        if let Some(last) = self.pages.get_mut(&(bytes / BLOCK_BYTES as u64)) {
            Arc::make_mut(last)[rest..].fill(0);
        }
        self.bytes = self.bytes.min(bytes);
    }
}

/// Splits a range of bytes at page boundaries: offset and length of each piece.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let end = offset + len as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        let start = at;
        at = (at / BLOCK_BYTES as u64 + 1) * BLOCK_BYTES as u64;
        (start < end).then(|| (start, (at.min(end) - start) as usize))
    })
}

/// One write's part of one page, not durable.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// When the write took effect, in the order of the whole disk.
    pub(super) stamp: u64,
    page: Page,
    sectors: u8,
    clean: bool,
}

/// See the module's page.
#[derive(Clone, Default, Debug)]
pub(super) struct File {
    pub(super) visible: Image,
    pub(super) durable: Image,
    dirty: BTreeMap<u64, Vec<Version>>,
    /// Hard links that somebody made outside the store.
    pub(super) links_outside: u64,
    /// Handles; an open file takes space after it was unlinked.
    pub(super) handles: u64,
}

impl File {
    /// A file at rest.
    pub(super) fn at_rest(image: Image, links_outside: u64) -> File {
        File { visible: image.clone(), durable: image, links_outside, ..File::default() }
    }

    /// Lets readers see sectors of a write that has not completed yet.
    pub(super) fn show(&mut self, index: u64, page: &Page, sectors: u8) {
        self.visible.put(index, page, sectors);
    }

    /// A write of the named sectors of a page takes effect.
    pub(super) fn write(&mut self, index: u64, page: &Page, sectors: u8, stamp: u64) {
        if sectors != 0 {
            self.visible.put(index, page, sectors);
            let version = Version { stamp, page: page.clone(), sectors, clean: false };
            self.dirty.entry(index).or_default().push(version);
        }
    }

    /// Makes the covered writes durable, with the length they need; clean ones are passed over.
    pub(super) fn sync(&mut self, mut covers: impl FnMut(&Version) -> bool) {
        let durable = &mut self.durable;
        self.dirty.retain(|&index, versions| {
            let mut left: Vec<Version> = Vec::new();
            for version in versions.drain(..) {
                if version.clean || !covers(&version) {
                    left.push(version);
                    continue;
                }
                durable.put(index, &version.page, version.sectors);
                left.iter_mut().for_each(|older| older.sectors &= !version.sectors);
                left.retain(|older| older.sectors != 0);
            }
            *versions = left;
            !versions.is_empty()
        });
    }

    /// A sync of the covered writes fails: they stay visible, and no later sync makes them durable.
    pub(super) fn fail_sync(&mut self, mut covers: impl FnMut(&Version) -> bool) {
        for version in self.dirty.values_mut().flatten() {
            version.clean |= covers(version);
        }
    }

    /// What a power cut leaves. `choose(n)` picks one of `n` outcomes of a unit, 0 being "nothing of it survived" and
    /// `n - 1` "as readers saw it"; it is asked for the same units whatever it answers.
    pub(super) fn survive(&self, grain: Grain, choose: &mut dyn FnMut(u64) -> u64) -> Image {
        let mut image = self.durable.clone();
        for (&index, versions) in &self.dirty {
            if grain == Grain::Block {
                let survivors = choose(versions.len() as u64 + 1) as usize;
                versions[..survivors].iter().for_each(|version| image.put(index, &version.page, version.sectors));
                continue;
            }
            for sector in (0..PAGE_SECTORS).map(|at| 1_u8 << at) {
                let holders: Vec<&Version> = versions.iter().filter(|version| version.sectors & sector != 0).collect();
                let choice = if holders.is_empty() { 0 } else { choose(holders.len() as u64 + 1) as usize };
                if let Some(survivor) = choice.checked_sub(1) {
                    image.put(index, &holders[survivor].page, sector);
                }
            }
        }
        // The length is metadata of its own: it may survive where the bytes did not, and those then read as zeros.
        if self.visible.bytes > self.durable.bytes && choose(2) == 1 {
            image.bytes = image.bytes.max(self.visible.bytes);
        }
        image
    }

    /// Bytes on the device.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.visible.pages.len() as u64 * BLOCK_BYTES as u64
    }

    /// Of `count` pages from `first` on, those that take new space when written.
    pub(super) fn unallocated_pages(&self, first: u64, count: u64) -> u64 {
        count - self.visible.pages.range(first..first + count).count() as u64
    }

    /// Changes bytes behind everybody's back, in the cache, on the medium and in between.
    pub(super) fn damage(&mut self, offset: u64, bytes: &[u8]) {
        self.visible.patch(offset, bytes);
        self.durable.patch(offset, bytes);
        for (at, piece) in pieces(offset, bytes.len()) {
            for version in self.dirty.get_mut(&(at / BLOCK_BYTES as u64)).into_iter().flatten() {
                let from = (at - offset) as usize;
                Arc::make_mut(&mut version.page)[(at % BLOCK_BYTES as u64) as usize..][..piece]
                    .copy_from_slice(&bytes[from..from + piece]);
            }
        }
    }

    /// Cuts everything from `bytes` on; what is left is at rest.
    pub(super) fn truncate(&mut self, bytes: u64) {
        self.visible.truncate(bytes);
        self.durable = self.visible.clone();
        self.dirty.clear();
    }
}
