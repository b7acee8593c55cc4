//! An open table: reads header, facts and index once, then one block at a time into a buffer that is used again.

use std::ops::RangeInclusive;

use super::codec::Decompressor;
use super::index::Index;
use super::{TableError, salvage};
use crate::format::entry::Entry;
use crate::format::manifest::TableMeta;
use crate::format::table::{
    self, BLOCK_HEADER_BYTES, BlockHeader, Codec, EntryHead, Footer, IndexEntry, Span, TableFacts,
};
use crate::format::{BLOCK_BYTES, FormatError, Lsn, NUMBER_MAX, StoreId};
use crate::io::ReadAt;

/// See the module's page. Reading needs no `&mut`; each reader brings its own [`BlockBuf`].
pub(crate) struct Table {
    file: Box<dyn ReadAt>,
    store: StoreId,
    meta: TableMeta,
    facts: TableFacts,
    payload_bytes: u64,
    index: Index,
}

/// One block, read and checked; its memory is used again for the next. Empty before the first and after a failed read.
#[derive(Default)]
pub(crate) struct BlockBuf {
    /// Header and stored data.
    block: Vec<u8>,
    /// The entries, where they had to be decompressed.
    decompressed: Vec<u8>,
    decompressor: Decompressor,
    plain: bool,
    /// The entries, without their payloads: decoded once, when the block is checked.
    heads: Vec<EntryHead>,
}

impl Table {
    /// Opens the table in `file`: reads and checks header, index, facts and footer, but no block.
    ///
    /// `expected` is what the manifest says of it; without a manifest (`kifa recover`) the table must hold by itself.
    /// Damage is found twice before it is reported.
    pub(crate) fn open(
        file: Box<dyn ReadAt>,
        expected: Option<&TableMeta>,
        store: StoreId,
    ) -> Result<Table, TableError> {
        let read = || Table::read_parts(&*file, expected, store);
        let (footer, meta, index, facts) = twice(&*file, read)?;
        Ok(Table { file, store, meta, facts, payload_bytes: footer.payload_bytes, index })
    }

    fn read_parts(
        file: &dyn ReadAt,
        expected: Option<&TableMeta>,
        store: StoreId,
    ) -> Result<(Footer, TableMeta, Index, TableFacts), TableError> {
        let lsn = expected.map(|meta| meta.first_lsn);
        let damaged = |offset: u64, what: String| TableError::Damaged { offset, lsn, what };
        let invalid = |offset: u64| move |cause: FormatError| damaged(offset, cause.to_string());

        let file_bytes = file.bytes().map_err(TableError::Io)?;
        if let Some(meta) = expected
            && meta.file_bytes != file_bytes
        {
            return Err(damaged(0, format!("it is {file_bytes} bytes long and should be {}", meta.file_bytes)));
        }
        if file_bytes < 2 * BLOCK_BYTES as u64 || !file_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(damaged(0, format!("it is {file_bytes} bytes long, which no table is")));
        }
        let mut header = vec![0; BLOCK_BYTES];
        read_exact(file, &mut header, 0, lsn)?;
        let (header_store, id) = table::decode_header(&header).map_err(invalid(0))?;
        if header_store != store {
            return Err(damaged(0, format!("it belongs to store {header_store}, not to {store}")));
        }
        let footer_offset = file_bytes - BLOCK_BYTES as u64;
        let mut block = vec![0; BLOCK_BYTES];
        read_exact(file, &mut block, footer_offset, lsn)?;
        let (footer, checksum) = Footer::decode(&block, file_bytes).map_err(invalid(footer_offset))?;
        let meta = footer.table_meta(checksum);
        if (footer.store, footer.table_id) != (store, id) {
            return Err(damaged(footer_offset, "its footer is that of another table".to_owned()));
        }
        if expected.is_some_and(|expected| *expected != meta) {
            return Err(damaged(footer_offset, "it is not the table that the manifest names".to_owned()));
        }
        // Bounded before it is allocated: the footer places the section inside the file and below its ceiling.
        let mut section = vec![0; (footer_offset - footer.meta_offset) as usize];
        read_exact(file, &mut section, footer.meta_offset, lsn)?;
        if footer.sections_crc != table::sections_crc(&header, &section) {
            return Err(invalid(footer.meta_offset)(FormatError::Checksum("header and index")));
        }
        let (index, facts) = table::decode_meta(&section, &footer).map_err(invalid(footer.meta_offset))?;
        Ok((footer, meta, Index(index), facts))
    }

    /// Opens what is left of a table whose header, index or footer is damaged: its blocks are found by reading the file
    /// front to back. A block is its own proof (its CRC names the store); where `expected` tells the table's range, blocks
    /// outside it are passed over. The table has no facts.
    pub(crate) fn salvage(
        file: Box<dyn ReadAt>,
        id: u64,
        expected: Option<&TableMeta>,
        store: StoreId,
    ) -> Result<Table, TableError> {
        let file_bytes = file.bytes().map_err(TableError::Io)?;
        let range = expected.map_or(Lsn(1)..=Lsn(NUMBER_MAX), |meta| meta.first_lsn..=meta.last_lsn);
        let index = salvage::find_blocks(&*file, file_bytes, store, range)?;
        let Some(total) = index.iter().map(|block| block.span).reduce(Span::join) else {
            return Err(TableError::Damaged {
                offset: 0,
                lsn: expected.map(|meta| meta.first_lsn),
                what: "it holds no good data block".to_owned(),
            });
        };
        let found = TableMeta {
            id,
            first_lsn: total.first_lsn,
            last_lsn: total.last_lsn,
            min_timestamp_ns: total.min_timestamp_ns,
            max_timestamp_ns: total.max_timestamp_ns,
            entry_count: total.entry_count,
            file_bytes,
            checksum: 0,
        };
        let meta = expected.cloned().unwrap_or(found);
        Ok(Table { file, store, meta, facts: TableFacts::default(), payload_bytes: 0, index: Index(index) })
    }

    /// What the manifest says of this table.
    pub(crate) fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// What it carries for a lost manifest.
    pub(crate) fn facts(&self) -> &TableFacts {
        &self.facts
    }

    /// The store it belongs to.
    pub(crate) fn store(&self) -> StoreId {
        self.store
    }

    /// Bytes of all payloads, as the footer adds them up.
    #[cfg(any(test, feature = "cli"))]
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// See [`ReadAt::read_ahead`].
    pub(crate) fn read_ahead(&self, is_wanted: bool) {
        self.file.read_ahead(is_wanted);
    }

    /// Number of blocks, at least 1.
    pub(crate) fn block_count(&self) -> usize {
        self.index.0.len()
    }

    /// Blocks that may hold an entry inside both ranges, in LSN order; take them from the back to go down.
    pub(crate) fn blocks(
        &self,
        lsns: RangeInclusive<Lsn>,
        times_ns: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = usize> + use<'_> {
        self.index.blocks(lsns, times_ns)
    }

    /// Where a block lies and what it holds, as the index says.
    pub(crate) fn block_at(&self, block: usize) -> &IndexEntry {
        &self.index.0[block]
    }

    /// Smallest and largest LSN of a block.
    #[cfg(test)]
    pub(crate) fn block_lsns(&self, block: usize) -> (Lsn, Lsn) {
        let span = &self.index.0[block].span;
        (span.first_lsn, span.last_lsn)
    }

    /// Reads a block and checks all of it. After an error `buf` is empty; the next block may be good.
    pub(crate) fn read_block(&self, block: usize, buf: &mut BlockBuf) -> Result<(), TableError> {
        let (header, _) = self.read_raw_block(block, buf)?;
        self.decode_block(block, &header, buf)
    }

    /// Reads a block without decompressing it: CRC, header, and agreement with the index are checked, and its bytes are
    /// [`BlockBuf::block`]. `buf` has no entries then.
    pub(crate) fn read_raw_block(&self, block: usize, buf: &mut BlockBuf) -> Result<(BlockHeader, u32), TableError> {
        twice(&*self.file, || self.read_raw_block_once(block, buf))
    }

    /// As [`read_raw_block`](Table::read_raw_block), believing what is read first: for who wants to know of bits that flip
    /// on their way.
    pub(crate) fn read_raw_block_once(
        &self,
        block: usize,
        buf: &mut BlockBuf,
    ) -> Result<(BlockHeader, u32), TableError> {
        let entry = &self.index.0[block];
        buf.heads.clear();
        buf.block.resize(entry.block_bytes as usize, 0);
        read_exact(&*self.file, &mut buf.block, entry.offset, Some(entry.span.first_lsn))?;
        let (header, crc) = BlockHeader::decode(&buf.block, self.store)
            .map_err(|cause| self.damaged_block(block, cause.to_string()))?;
        if (crc, header.span) != (entry.crc, entry.span) {
            return Err(self.damaged_block(block, "a good data block lies where another one belongs".to_owned()));
        }
        Ok((header, crc))
    }

    /// Decodes what [`read_raw_block`](Table::read_raw_block) left in `buf`.
    pub(crate) fn decode_block(
        &self,
        block: usize,
        header: &BlockHeader,
        buf: &mut BlockBuf,
    ) -> Result<(), TableError> {
        buf.decode(header).map_err(|cause| {
            buf.heads.clear();
            self.damaged_block(block, cause.to_string())
        })
    }

    /// Reads and checks every block, and that together they are what the footer says. What [`open`](Table::open) has
    /// checked (counts and ranges add up over the index) each block is then held against.
    #[cfg(any(test, feature = "cli", feature = "fuzzing"))]
    pub(crate) fn verify(&self, buf: &mut BlockBuf) -> Result<(), TableError> {
        let mut payload_bytes = 0;
        for block in 0..self.block_count() {
            self.read_block(block, buf)?;
            payload_bytes += buf.entries().map(|entry| entry.payload.len() as u64).sum::<u64>();
        }
        self.check_payload_bytes(payload_bytes)
    }

    /// As [`verify`](Table::verify), without decompressing: every byte of the file is one that its builder has sealed. That
    /// is all there is to ask of a table that was opened as the one just built: what lies under the compression was
    /// compared with its entries when the block was packed.
    pub(crate) fn verify_stored(&self, buf: &mut BlockBuf) -> Result<(), TableError> {
        let mut payload_bytes = 0;
        for block in 0..self.block_count() {
            payload_bytes += self.read_raw_block(block, buf)?.0.payload_bytes();
        }
        self.check_payload_bytes(payload_bytes)
    }

    fn check_payload_bytes(&self, payload_bytes: u64) -> Result<(), TableError> {
        if payload_bytes == self.payload_bytes {
            return Ok(());
        }
        Err(TableError::Damaged {
            offset: self.meta.file_bytes - BLOCK_BYTES as u64,
            lsn: None,
            what: format!("it holds {payload_bytes} payload bytes and its footer says {}", self.payload_bytes),
        })
    }

    fn damaged_block(&self, block: usize, what: String) -> TableError {
        let IndexEntry { offset, span, .. } = self.index.0[block];
        TableError::Damaged { offset, lsn: Some(span.first_lsn), what }
    }
}

impl BlockBuf {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// The `at`-th entry, counted from 0.
    pub(crate) fn entry(&self, at: usize) -> Entry<'_> {
        self.heads[at].entry(self.raw())
    }

    /// All entries, in LSN order; from the back in descending order.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> + ExactSizeIterator {
        (0..self.len()).map(|at| self.entry(at))
    }

    /// Number of entries whose LSN is below this one, by binary search: the position of the first that is not.
    pub(crate) fn position(&self, lsn: Lsn) -> usize {
        self.heads.partition_point(|head| head.lsn() < lsn)
    }

    /// Header and stored data of the block.
    pub(crate) fn block(&self) -> &[u8] {
        &self.block
    }

    fn raw(&self) -> &[u8] {
        if self.plain { &self.block[BLOCK_HEADER_BYTES..] } else { &self.decompressed }
    }

    fn decode(&mut self, header: &BlockHeader) -> Result<(), FormatError> {
        self.plain = header.codec == Codec::None;
        if !self.plain {
            let stored = &self.block[BLOCK_HEADER_BYTES..];
            self.decompressor.decompress(header.codec, stored, header.raw_bytes, &mut self.decompressed)?;
        }
        let mut heads = std::mem::take(&mut self.heads);
        let checked = table::scan_entries(self.raw(), &header.span, &mut heads);
        self.heads = heads;
        checked
    }
}

/// Damage is believed when it is found twice: a bit that flipped on its way from the device is right the next time.
fn twice<T>(file: &dyn ReadAt, mut read: impl FnMut() -> Result<T, TableError>) -> Result<T, TableError> {
    match read() {
        Err(TableError::Damaged { .. }) => {
            file.forget();
            read()
        }
        outcome => outcome,
    }
}

/// Fills `buf`. A file that ends before is damaged (it was longer when it was opened); a failing read is not damage.
fn read_exact(file: &dyn ReadAt, buf: &mut [u8], offset: u64, lsn: Option<Lsn>) -> Result<(), TableError> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(&mut buf[filled..], offset + filled as u64) {
            Ok(0) => {
                return Err(TableError::Damaged { offset, lsn, what: FormatError::Truncated.to_string() });
            }
            Ok(read) => filled += read,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(TableError::Io(cause)),
        }
    }
    Ok(())
}
