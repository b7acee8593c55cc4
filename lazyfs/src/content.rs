//! Contents of one file: what programs see, what is durable, and the writes between the two.
//!
//! The rules are those of the simulated disk (`src/sim/image.rs` of Kifa), with writes of any length and truncation:
//! - The *durable* bytes are those of a file in the backing directory. Only [`Content::sync`], and a power cut, write
//!   there.
//! - `dirty` holds, per page, the writes that are not durable, oldest first. At a power cut any of them, or none, may be
//!   what its sectors hold afterwards. A write that covers part of a sector is one of the whole sector, as the page cache
//!   makes it one.
//! - A failed sync marks what it would have covered *clean*: the kernel has forgotten that it needs writing, so later
//!   syncs pass it over and still succeed. Only writing the sectors anew helps.
//! - A write that becomes durable supersedes the older ones in its sectors: they cannot come back.
//! - The length is metadata of its own: a sync makes it durable; at a cut it may survive where the bytes did not (they
//!   read as zeros then), and so may a truncation.
//!
//! A page keeps at most [`VERSIONS_MAX`] writes apart; of more, the two oldest become one. That takes outcomes of a
//! power cut away and adds none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

/// Unit in which a write tears, in bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Bytes of a page.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Most writes to one page that are kept apart.
const VERSIONS_MAX: usize = 8;
/// All sectors of a page; bit `i` stands for sector `i`.
const WHOLE_PAGE: u8 = u8::MAX;
const _: () = assert!(PAGE_BYTES / SECTOR_BYTES == u8::BITS as u64);

type Page = Arc<[u8; PAGE_BYTES as usize]>;

fn zero_page() -> Page {
    static ZERO: OnceLock<Page> = OnceLock::new();
    Arc::clone(ZERO.get_or_init(|| Arc::new([0; PAGE_BYTES as usize])))
}

/// Which units of a file survive or are lost together at a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grain {
    /// 512 bytes: what a disk writes at once.
    Sector,
    /// 4096 bytes: what the page cache writes at once.
    Block,
}

/// One write's part of one page, not durable.
#[derive(Debug)]
struct Version {
    /// When the write took effect, in the order of the whole disk.
    stamp: u64,
    page: Page,
    sectors: u8,
    clean: bool,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Content {
    durable: File,
    durable_bytes: u64,
    visible_bytes: u64,
    /// Durable bytes from here on are cut off for whoever looks; a whole number of pages.
    cut_off_at: Option<u64>,
    dirty: BTreeMap<u64, Vec<Version>>,
    versions: u64,
}

/// The sectors of a page that bytes `from..to` of it touch.
fn sectors(from: u64, to: u64) -> u8 {
    (from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES)).fold(0, |mask, at| mask | 1 << at)
}

/// Splits a range of bytes at page boundaries: page, and first and last byte + 1 in it.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        let (page, from) = (at / PAGE_BYTES, at % PAGE_BYTES);
        let to = PAGE_BYTES.min(from + end.saturating_sub(at));
        at += to - from;
        (from < to).then_some((page, from, to))
    })
}

impl Content {
    /// Of a file in the backing directory, opened for reading and writing.
    pub(crate) fn of(durable: File) -> io::Result<Content> {
        let bytes = durable.metadata()?.len();
        Ok(Content {
            durable,
            durable_bytes: bytes,
            visible_bytes: bytes,
            cut_off_at: None,
            dirty: BTreeMap::new(),
            versions: 0,
        })
    }

    /// The length that programs see.
    pub(crate) fn bytes(&self) -> u64 {
        self.visible_bytes
    }

    /// Bytes of volatile pages held.
    pub(crate) fn volatile_bytes(&self) -> u64 {
        self.versions * PAGE_BYTES
    }

    /// Whether a power cut can take anything of it away.
    pub(crate) fn is_volatile(&self) -> bool {
        !self.dirty.is_empty() || self.cut_off_at.is_some() || self.visible_bytes != self.durable_bytes
    }

    /// Reads up to `buf.len()` bytes at `offset`; short only at the end.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = self.visible_bytes.saturating_sub(offset).min(buf.len() as u64);
        let buf = &mut buf[..len as usize];
        let durable_end = self.cut_off_at.unwrap_or(u64::MAX).min(self.durable_bytes);
        let from_disk = durable_end.saturating_sub(offset).min(len) as usize;
        self.durable.read_exact_at(&mut buf[..from_disk], offset)?;
        buf[from_disk..].fill(0);
        let pages = offset / PAGE_BYTES..(offset + len).div_ceil(PAGE_BYTES);
        for (&page, versions) in self.dirty.range(pages) {
            let start = page * PAGE_BYTES;
            for version in versions {
                for (from, to) in runs(version.sectors) {
                    let (from, to) = ((start + from).max(offset), (start + to).min(offset + len));
                    if from < to {
                        let source = &version.page[(from - start) as usize..(to - start) as usize];
                        buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
                    }
                }
            }
        }
        Ok(buf.len())
    }

    /// A write takes effect.
    pub(crate) fn write(&mut self, data: &[u8], offset: u64, stamp: u64) -> io::Result<()> {
        let mut taken = 0;
        for (index, from, to) in pieces(offset, data.len() as u64) {
            let source = &data[taken..taken + (to - from) as usize];
            taken += source.len();
            let mut page = zero_page();
            if (from, to) != (0, PAGE_BYTES) || source.iter().any(|&byte| byte != 0) {
                let bytes = Arc::make_mut(&mut page);
                if !from.is_multiple_of(SECTOR_BYTES) || !to.is_multiple_of(SECTOR_BYTES) {
                    self.read(bytes, index * PAGE_BYTES)?;
                }
                bytes[from as usize..to as usize].copy_from_slice(source);
            }
            self.push(index, Version { stamp, page, sectors: sectors(from, to), clean: false });
        }
        self.visible_bytes = self.visible_bytes.max(offset + data.len() as u64);
        Ok(())
    }

    /// Bytes become zeros; the length stays.
    pub(crate) fn zero(&mut self, offset: u64, len: u64, stamp: u64) -> io::Result<()> {
        let len = self.visible_bytes.saturating_sub(offset).min(len);
        for (page, from, to) in pieces(offset, len) {
            self.write(&zero_page()[from as usize..to as usize], page * PAGE_BYTES + from, stamp)?;
        }
        Ok(())
    }

    fn push(&mut self, index: u64, version: Version) {
        let versions = self.dirty.entry(index).or_default();
        versions.push(version);
        self.versions += 1;
        if versions.len() > VERSIONS_MAX {
            let oldest = versions.remove(0);
            self.versions -= 1;
            let next = &mut versions[0];
            let missing = oldest.sectors & !next.sectors;
            // What a failed sync has left behind stays beyond repair.
            if oldest.clean == next.clean && missing != 0 {
                let bytes = Arc::make_mut(&mut next.page);
                for (from, to) in runs(missing) {
                    bytes[from as usize..to as usize].copy_from_slice(&oldest.page[from as usize..to as usize]);
                }
                next.sectors |= missing;
            } else if missing != 0 {
                versions.insert(0, oldest);
                self.versions += 1;
            }
        }
    }

    /// Sets the length; what is behind it is gone, and zeros if the file grows again.
    pub(crate) fn truncate(&mut self, bytes: u64, stamp: u64) -> io::Result<()> {
        if bytes < self.visible_bytes {
            let whole = bytes.next_multiple_of(PAGE_BYTES);
            if bytes < whole {
                self.zero(bytes, whole - bytes, stamp)?;
            }
            let gone = self.dirty.split_off(&(whole / PAGE_BYTES));
            self.versions -= gone.values().map(|versions| versions.len() as u64).sum::<u64>();
            if whole < self.durable_bytes {
                self.cut_off_at = Some(self.cut_off_at.unwrap_or(u64::MAX).min(whole));
            }
        }
        self.visible_bytes = bytes;
        Ok(())
    }

    /// Makes the length and the covered writes durable; clean ones are passed over.
    pub(crate) fn sync(&mut self, covers: impl Fn(u64) -> bool) -> io::Result<()> {
        if let Some(at) = self.cut_off_at.take() {
            self.durable.set_len(at.min(self.durable_bytes))?;
        }
        self.durable.set_len(self.visible_bytes)?;
        self.durable_bytes = self.visible_bytes;
        let mut dirty = std::mem::take(&mut self.dirty);
        for (&index, versions) in &mut dirty {
            let mut left: Vec<Version> = Vec::new();
            for version in versions.drain(..) {
                if version.clean || !covers(version.stamp) {
                    left.push(version);
                    continue;
                }
                self.put(index, &version, version.sectors, self.visible_bytes)?;
                left.iter_mut().for_each(|older| older.sectors &= !version.sectors);
                left.retain(|older| older.sectors != 0);
            }
            *versions = left;
        }
        dirty.retain(|_, versions| !versions.is_empty());
        self.versions = dirty.values().map(|versions| versions.len() as u64).sum();
        self.dirty = dirty;
        Ok(())
    }

    /// A sync of everything fails: it stays visible, and no later sync makes it durable.
    pub(crate) fn fail_sync(&mut self, covers: impl Fn(u64) -> bool) {
        for version in self.dirty.values_mut().flatten() {
            version.clean |= covers(version.stamp);
        }
    }

    /// Writes sectors of a version to the backing file, up to `end`.
    fn put(&self, index: u64, version: &Version, sectors: u8, end: u64) -> io::Result<()> {
        let start = index * PAGE_BYTES;
        for (from, to) in runs(sectors) {
            let to = to.min(end.saturating_sub(start));
            if from < to {
                self.durable.write_all_at(&version.page[from as usize..to as usize], start + from)?;
            }
        }
        Ok(())
    }

    /// Carries out a power cut: the backing file then holds what survived. `choose(n)` picks one of `n` outcomes of a
    /// unit, 0 being "nothing of it survived" and `n - 1` "as programs saw it".
    pub(crate) fn survive(&self, grain: Grain, choose: &mut dyn FnMut(u64) -> u64) -> io::Result<()> {
        if let Some(at) = self.cut_off_at
            && choose(2) == 1
        {
            self.durable.set_len(at)?;
        }
        let end = self.visible_bytes.max(self.durable_bytes);
        for (&index, versions) in &self.dirty {
            if grain == Grain::Block {
                let survivors = choose(versions.len() as u64 + 1) as usize;
                versions[..survivors].iter().try_for_each(|version| self.put(index, version, version.sectors, end))?;
                continue;
            }
            for sector in (0..u8::BITS).map(|at| 1_u8 << at) {
                let holders: Vec<&Version> = versions.iter().filter(|version| version.sectors & sector != 0).collect();
                let choice = if holders.is_empty() { 0 } else { choose(holders.len() as u64 + 1) as usize };
                if let Some(survivor) = choice.checked_sub(1) {
                    self.put(index, holders[survivor], sector, end)?;
                }
            }
        }
        if self.visible_bytes != self.durable_bytes && choose(2) == 1 {
            self.durable.set_len(self.visible_bytes)?;
        }
        Ok(())
    }

    /// Writes part of a write straight to the backing file, as a device does that loses power in the middle of it.
    pub(crate) fn tear(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.durable.write_all_at(data, offset)
    }
}

/// The runs of neighbouring sectors in a mask: first byte and last + 1.
fn runs(sectors: u8) -> impl Iterator<Item = (u64, u64)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = u32::from(sectors) >> at;
        if sectors == WHOLE_PAGE && at == 0 {
            at = u8::BITS;
            return Some((0, PAGE_BYTES));
        }
        if rest == 0 {
            return None;
        }
        let from = at + rest.trailing_zeros();
        at = from + (rest >> (from - at)).trailing_ones();
        Some((u64::from(from) * SECTOR_BYTES, u64::from(at) * SECTOR_BYTES))
    })
}
