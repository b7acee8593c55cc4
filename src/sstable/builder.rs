//! Builds a table front to back: CPU work and memory only; the caller writes what it yields.
//!
//! The bytes depend on what is pushed alone, not on when or in which portions they are taken.

use std::sync::Arc;

use crate::format::entry::Entry;
use crate::format::facts::Counts;
use crate::format::manifest::TableMeta;
use crate::format::table::{
    self, BLOCK_HEADER_BYTES, BLOCK_RAW_BYTES_MAX, BlockHeader, Codec, ENTRY_HEAD_BYTES, Footer, IndexEntry,
    META_BYTES_MAX, Span, TableFacts,
};
use crate::format::{StoreId, block_ceil};
use crate::sstable::chunk::{Chunk, ChunkPool, Chunks};
use crate::sstable::codec::Compressor;

/// Raw bytes of entries at which a block is closed; only an entry that is larger by itself exceeds it.
pub(crate) const BLOCK_RAW_BYTES: usize = 64 << 10;

const _: () = assert!(BLOCK_RAW_BYTES <= BLOCK_RAW_BYTES_MAX);

/// See the module's page. Call [`take_chunks`](TableBuilder::take_chunks) often: what is not taken stays in memory.
pub(crate) struct TableBuilder {
    store: StoreId,
    id: u64,
    compressor: Compressor,
    header: Vec<u8>,
    /// Entries of the open block, before the codec, and what they cover.
    raw: Vec<u8>,
    open: Option<Span>,
    /// The last block as it is stored, for its memory.
    stored: Vec<u8>,
    finished: Chunks,
    /// Length of the file so far.
    end: u64,
    index: Vec<IndexEntry>,
    /// Of closed blocks.
    total: Option<Span>,
    payload_bytes: u64,
}

impl TableBuilder {
    /// Starts the table with this number, in memory of this pool.
    pub(crate) fn new(store: StoreId, id: u64, codec: Codec, pool: Arc<ChunkPool>) -> TableBuilder {
        let header = table::encode_header(store, id);
        let mut finished = Chunks::new(pool);
        finished.append(&header);
        TableBuilder {
            store,
            id,
            compressor: Compressor::new(codec),
            raw: Vec::with_capacity(BLOCK_RAW_BYTES),
            open: None,
            stored: Vec::new(),
            finished,
            end: header.len() as u64,
            header,
            index: Vec::new(),
            total: None,
            payload_bytes: 0,
        }
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// If its LSN is not above every LSN before it, or its payload above 1 MiB.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) {
        self.assert_rising(&Span::of(entry));
        if let Some(open) = self.open {
            let full = self.raw.len() + ENTRY_HEAD_BYTES + entry.payload.len() > BLOCK_RAW_BYTES;
            if full || entry.lsn.0 - open.first_lsn.0 > u64::from(u32::MAX) {
                self.close_block();
            }
        }
        let open = self.open.map_or_else(|| Span::of(entry), |open| open.join(Span::of(entry)));
        table::encode_entry(&mut self.raw, open.first_lsn, entry);
        self.open = Some(open);
    }

    /// Whether a block stored this way is to be copied, or packed anew with this table's codec. A plain one stays plain:
    /// it was tried.
    pub(crate) fn keeps(&self, codec: Codec) -> bool {
        codec == self.compressor.codec() || codec == Codec::None
    }

    /// Adds a block of another table of this store as it is, without decoding it. `block` is its header and stored data,
    /// as checked by [`BlockHeader::decode`], which yielded `header` and `crc`; the CRC is carried over, not computed anew,
    /// so that damage in memory on the way does not get a good checksum.
    ///
    /// # Panics
    /// If its LSNs are not above every LSN before them.
    pub(crate) fn push_block(&mut self, header: &BlockHeader, crc: u32, block: &[u8]) {
        self.assert_rising(&header.span);
        self.close_block();
        self.finished.append(block);
        self.add_to_index(header, crc, block.len());
    }

    /// Bytes that are finished and not taken.
    pub(crate) fn finished_bytes(&self) -> usize {
        self.finished.bytes()
    }

    /// Takes the chunks that are finished, to be written behind all that were taken before; the first one belongs to
    /// offset 0. `None` while there are none.
    pub(crate) fn take_chunks(&mut self) -> Option<Vec<Chunk>> {
        self.finished.take()
    }

    /// Ends the table: the last bytes of the file, all of which are to be written, and what the manifest says of it.
    ///
    /// # Panics
    /// If it has no entry, or more blocks and facts than a reader believes (256 MiB of meta section).
    pub(crate) fn finish(mut self, facts: &TableFacts) -> (Vec<Chunk>, TableMeta) {
        self.close_block();
        let span = self.total.expect("a table has at least one entry");
        let meta_offset = self.end;
        let meta_bytes = table::meta_bytes(self.index.len(), facts) as u64;
        assert!(meta_bytes <= META_BYTES_MAX, "the meta section stays readable");
        let mut meta = vec![0; (block_ceil(meta_offset + meta_bytes) - meta_offset) as usize];
        table::encode_meta(&mut meta, &self.index, facts);
        self.finished.append(&meta);
        let footer = Footer {
            store: self.store,
            table_id: self.id,
            meta_offset,
            meta_bytes,
            block_count: self.index.len() as u32,
            counts: Counts::of(&facts.gaps, &facts.checkpoints, &facts.clock_steps),
            replaced_count: facts.replaces.len() as u32,
            sections_crc: table::sections_crc(&self.header, &meta),
            span,
            floor_lsn: facts.floor_lsn,
            payload_bytes: self.payload_bytes,
        };
        let (footer_block, checksum) = footer.encode();
        self.finished.append(&footer_block);
        (self.finished.finish(), footer.table_meta(checksum))
    }

    fn assert_rising(&self, next: &Span) {
        let last = self.open.or(self.total).map(|span| span.last_lsn);
        assert!(last.is_none_or(|last| last < next.first_lsn), "LSNs rise strictly within a table");
    }

    fn close_block(&mut self) {
        let Some(span) = self.open.take() else { return };
        self.stored.clear();
        self.stored.resize(BLOCK_HEADER_BYTES, 0);
        let codec = self.compressor.append(&self.raw, &mut self.stored);
        let header = BlockHeader { codec, raw_bytes: self.raw.len(), span };
        let crc = header.seal(&mut self.stored, self.store);
        self.finished.append(&self.stored);
        self.raw.clear();
        self.add_to_index(&header, crc, self.stored.len());
    }

    fn add_to_index(&mut self, header: &BlockHeader, crc: u32, block_bytes: usize) {
        let entry = IndexEntry { offset: self.end, block_bytes: block_bytes as u32, crc, span: header.span };
        self.end = entry.end();
        self.index.push(entry);
        self.total = Some(self.total.map_or(header.span, |total| total.join(header.span)));
        self.payload_bytes += header.payload_bytes();
    }
}
