//! Tables as a whole: round trips, streaming, damage of every kind. Also the helpers that other tests build tables with.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::format::entry::Entry;
use crate::format::facts::Counts;
use crate::format::manifest::TableMeta;
use crate::format::table::{
    self, BLOCK_HEADER_BYTES, BlockHeader, Codec, ENTRY_HEAD_BYTES, Footer, IndexEntry, Span, TableFacts,
};
use crate::format::{BLOCK_BYTES, ClockStep, ENTRY_PAYLOAD_BYTES_MAX, Gap, GapCause, StoreId, block_ceil};
use crate::io::{AlignedBuf, ReadAt};

pub(crate) const STORE: StoreId = StoreId([0xA5; 16]);

/// A file in memory. Reads beyond `good_bytes` fail as a bad sector does.
#[derive(Clone)]
pub(crate) struct MemFile {
    bytes: Arc<Vec<u8>>,
    pub(crate) good_bytes: Arc<AtomicU64>,
}

impl MemFile {
    pub(crate) fn of(bytes: &[u8]) -> MemFile {
        MemFile { bytes: Arc::new(bytes.to_vec()), good_bytes: Arc::new(AtomicU64::new(u64::MAX)) }
    }
}

impl ReadAt for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset + buf.len() as u64 > self.good_bytes.load(Relaxed) {
            return Err(io::Error::other("bad sector"));
        }
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        // Short, as a read may be: callers must come back for the rest.
        let len = rest.len().min(buf.len()).min(100_000);
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }
}

/// An entry that owns its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owned {
    pub(crate) lsn: u64,
    pub(crate) timestamp_ns: u64,
    pub(crate) source: u16,
    pub(crate) payload: Vec<u8>,
}

impl Owned {
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry { lsn: Lsn(self.lsn), timestamp_ns: self.timestamp_ns, source: self.source, payload: &self.payload }
    }
}

impl From<Entry<'_>> for Owned {
    fn from(entry: Entry<'_>) -> Owned {
        Owned {
            lsn: entry.lsn.0,
            timestamp_ns: entry.timestamp_ns,
            source: entry.source,
            payload: entry.payload.to_vec(),
        }
    }
}

/// `count` receipts with LSNs from `first` on, a second apart.
pub(crate) fn receipts(first: u64, count: u64) -> Vec<Owned> {
    let receipt = |lsn: u64| Owned {
        lsn,
        timestamp_ns: lsn * 1_000_000_000,
        source: (lsn % 3) as u16,
        payload: format!("{{\"txn\":\"TXN-{lsn:06}\",\"amount\":{}}}", lsn * 37 % 9973).into_bytes(),
    };
    (first..first + count).map(receipt).collect()
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut byte = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..len).map(|_| byte()).collect()
}

pub(crate) fn build_with(id: u64, codec: Codec, entries: &[Owned], facts: &TableFacts) -> (Vec<u8>, TableMeta) {
    let mut builder = TableBuilder::new(STORE, id, codec, Arc::default());
    entries.iter().for_each(|entry| builder.push(&entry.entry()));
    let (chunks, meta) = builder.finish(facts);
    (chunks.iter().flat_map(|chunk| chunk.to_vec()).collect(), meta)
}

/// The same, as chunks are written by and by, in memory that held something else.
fn build_in_junk(id: u64, codec: Codec, entries: &[Owned], facts: &TableFacts) -> Vec<u8> {
    let pool = Arc::new(ChunkPool::default());
    let junk = || {
        let mut buf = AlignedBuf::zeroed(CHUNK_BYTES);
        buf.fill(0xA5);
        buf
    };
    (0..4).for_each(|_| pool.give(junk()));
    let mut builder = TableBuilder::new(STORE, id, codec, Arc::clone(&pool));
    let mut file = Vec::new();
    for entry in entries {
        builder.push(&entry.entry());
        for chunk in builder.take_chunks().into_iter().flatten() {
            assert_eq!(chunk.len(), CHUNK_BYTES, "all but the last are full");
            file.extend_from_slice(&chunk);
            drop(chunk);
            pool.give(junk());
        }
    }
    let rest = builder.finish(facts).0;
    assert!(rest.iter().all(|chunk| chunk.len().is_multiple_of(BLOCK_BYTES) && !chunk.is_empty()));
    rest.iter().for_each(|chunk| file.extend_from_slice(chunk));
    file
}

pub(crate) fn build(id: u64, codec: Codec, entries: &[Owned]) -> (Vec<u8>, TableMeta) {
    build_with(id, codec, entries, &TableFacts::default())
}

pub(crate) fn open(bytes: &[u8]) -> Result<Table, TableError> {
    Table::open(Box::new(MemFile::of(bytes)), None, STORE)
}

pub(crate) fn read_all(table: &Table) -> Vec<Owned> {
    let mut buf = BlockBuf::default();
    let mut entries = Vec::new();
    for block in 0..table.block_count() {
        table.read_block(block, &mut buf).expect("the block is good");
        entries.extend(buf.entries().map(Owned::from));
    }
    entries
}

fn open_and_verify(bytes: &[u8]) -> Result<(), TableError> {
    open(bytes)?.verify(&mut BlockBuf::default())
}

/// What is asked of a table that was just built.
fn open_and_verify_stored(bytes: &[u8]) -> Result<(), TableError> {
    open(bytes)?.verify_stored(&mut BlockBuf::default())
}

/// What the damage is said to be; panics if there is none.
#[track_caller]
fn damage(result: Result<(), TableError>) -> String {
    match result {
        Err(TableError::Damaged { what, .. }) => what,
        other => panic!("expected damage, got {other:?}"),
    }
}

fn rich_facts() -> TableFacts {
    TableFacts {
        gaps: vec![Gap { first: Lsn(2), last: Lsn(4), cause: GapCause::UncleanNormal }],
        checkpoints: [(b"/var/log/till".to_vec(), vec![1, 2, 3])].into(),
        clock_steps: vec![ClockStep { lsn: Lsn(1), from_ns: 3, to_ns: 9_000_000_000 }],
        replaces: vec![5, 6],
        floor_lsn: Lsn(1),
    }
}

prop_compose! {
    /// Entries with gaps in their LSNs and any times; some empty, some of 1 MiB, compressible or not.
    fn any_entries()(
        parts in prop::collection::vec(
            (prop_oneof![9 => 1..4_u64, 1 => 1..1_u64 << 40], any::<u64>(), any::<u16>(),
             prop_oneof![2 => Just(0), 40 => 0..300_usize, 10 => 0..70_000_usize, 1 => Just(ENTRY_PAYLOAD_BYTES_MAX)],
             any::<bool>()),
            1..120,
        ),
    ) -> Vec<Owned> {
        let mut lsn = 0;
        parts.into_iter().map(|(step, timestamp_ns, source, len, random)| {
            lsn += step;
            let payload = if random { noise(len, lsn) } else { vec![b'k'; len] };
            Owned { lsn, timestamp_ns, source, payload }
        }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_entry_comes_back_byte_for_byte(
        entries in any_entries(), lz4 in any::<bool>(), probe in any::<prop::sample::Index>(),
    ) {
        let codec = if lz4 { Codec::Lz4 } else { Codec::None };
        let (bytes, meta) = build_with(7, codec, &entries, &rich_facts());
        prop_assert!(bytes == build_in_junk(7, codec, &entries, &rich_facts()), "bytes depend on the chunks");
        let table = Table::open(Box::new(MemFile::of(&bytes)), Some(&meta), STORE).expect("the table is good");
        table.verify(&mut BlockBuf::default()).expect("the table is good");
        prop_assert!(read_all(&table) == entries);
        prop_assert_eq!(table.facts(), &rich_facts());
        prop_assert_eq!(meta.file_bytes, bytes.len() as u64);
        prop_assert_eq!(meta.entry_count, entries.len() as u64);
        prop_assert_eq!(table.payload_bytes(), entries.iter().map(|entry| entry.payload.len() as u64).sum::<u64>());

        let wanted = probe.get(&entries);
        let mut buf = BlockBuf::default();
        let mut blocks = table.blocks(Lsn(wanted.lsn)..=Lsn(wanted.lsn), 0..=u64::MAX);
        let block = blocks.next().expect("a block has it");
        prop_assert_eq!(blocks.next(), None);
        table.read_block(block, &mut buf).expect("the block is good");
        let at = buf.position(Lsn(wanted.lsn));
        prop_assert!(Owned::from(buf.entry(at)) == *wanted);
        prop_assert_eq!(buf.position(Lsn(wanted.lsn + 1)), at + 1);
    }

    #[test]
    fn a_search_skips_no_entry_however_the_clock_jumped(
        entries in any_entries(), lsns in any::<(u64, u64)>(), times_ns in any::<(u64, u64)>(),
    ) {
        let last = entries.last().expect("there are entries").lsn;
        let (from, to) = (lsns.0 % (last + 2), lsns.1 % (last + 2));
        let inside = |entry: &Owned| {
            (from..=to).contains(&entry.lsn) && (times_ns.0..=times_ns.1).contains(&entry.timestamp_ns)
        };
        let table = open(&build(1, Codec::Lz4, &entries).0).expect("the table is good");
        let mut buf = BlockBuf::default();
        let mut found = Vec::new();
        for block in table.blocks(Lsn(from)..=Lsn(to), times_ns.0..=times_ns.1).rev() {
            table.read_block(block, &mut buf).expect("the block is good");
            found.extend(buf.entries().rev().map(Owned::from).filter(inside));
        }
        found.reverse();
        prop_assert!(found == entries.into_iter().filter(inside).collect::<Vec<_>>());
    }

    #[test]
    fn forged_entries_never_panic(at in any::<prop::sample::Index>(), junk in prop::collection::vec(any::<u8>(), 1..30)) {
        let (mut raw, header) = two_entries();
        for (offset, byte) in junk.iter().enumerate() {
            let at = (at.index(raw.len()) + offset) % raw.len();
            raw[at] = *byte;
        }
        let _ = open_and_verify(&forge(&raw, header));
        let header = BlockHeader { codec: Codec::Lz4, raw_bytes: raw.len() + 40, ..header };
        let _ = open_and_verify(&forge(&raw, header));
    }
}

#[test]
fn compression_is_used_where_it_helps_and_only_there() {
    let stores = |payload: Vec<u8>| {
        build(1, Codec::Lz4, &[Owned { lsn: 1, timestamp_ns: 1, source: 0, payload }]).1.file_bytes as usize
    };
    assert!(stores(vec![b'0'; ENTRY_PAYLOAD_BYTES_MAX]) < 32 << 10);
    let incompressible = stores(noise(ENTRY_PAYLOAD_BYTES_MAX, 3));
    assert!((ENTRY_PAYLOAD_BYTES_MAX..ENTRY_PAYLOAD_BYTES_MAX + 5 * BLOCK_BYTES).contains(&incompressible));
}

#[test]
fn chunks_are_taken_when_they_are_full_and_a_pool_keeps_few() {
    let pool = Arc::new(ChunkPool::default());
    let mut builder = TableBuilder::new(STORE, 1, Codec::None, Arc::clone(&pool));
    assert!(builder.take_chunks().is_none(), "only the header is there");
    // Blocks of one entry each: all but the last, which is open, are stored.
    let large = |lsn| Owned { lsn, timestamp_ns: 1, source: 0, payload: vec![b'x'; ENTRY_PAYLOAD_BYTES_MAX] };
    (1..=4).for_each(|lsn| builder.push(&large(lsn).entry()));
    assert_eq!(builder.finished_bytes() / CHUNK_BYTES, 12);
    let chunks = builder.take_chunks().expect("twelve are full");
    assert_eq!(chunks.len(), 12);
    assert!(builder.take_chunks().is_none(), "never empty");
    assert!(builder.finished_bytes() < CHUNK_BYTES);
    for chunk in chunks {
        pool.give(chunk.into_parts().0);
    }
    let kept = pool.kept_count();
    assert!((1..12).contains(&kept), "{kept} are kept");
    pool.clear();
    assert_eq!(pool.kept_count(), 0);
}

#[test]
#[should_panic(expected = "LSNs rise strictly")]
fn an_lsn_that_does_not_rise_is_never_written() {
    let entry = receipts(3, 1).remove(0);
    let mut builder = TableBuilder::new(STORE, 1, Codec::None, Arc::default());
    builder.push(&entry.entry());
    builder.push(&entry.entry());
}

fn small_table() -> Vec<u8> {
    let mut entries = receipts(1, 2);
    entries.push(Owned { lsn: 5, timestamp_ns: 3, source: 9, payload: vec![b'x'; 90] });
    entries.push(Owned { lsn: 6 + (1 << 33), timestamp_ns: 4, source: 9, payload: Vec::new() });
    let (bytes, _) = build_with(7, Codec::Lz4, &entries, &rich_facts());
    assert_eq!(open(&bytes).expect("the table is good").block_count(), 2);
    open_and_verify(&bytes).expect("the table is good");
    open_and_verify_stored(&bytes).expect("the table is good");
    bytes
}

#[test]
fn every_flipped_bit_is_found() {
    let mut bytes = small_table();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!damage(open_and_verify(&bytes)).is_empty(), "bit {bit}");
        assert!(!damage(open_and_verify_stored(&bytes)).is_empty(), "bit {bit}, without decompressing");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_truncation_is_found_and_so_is_what_was_added() {
    let mut bytes = small_table();
    for len in 0..bytes.len() {
        damage(open_and_verify(&bytes[..len]));
    }
    bytes.extend_from_slice(&[0; BLOCK_BYTES]);
    damage(open_and_verify(&bytes));
}

#[test]
fn a_failing_read_is_not_damage() {
    let file = MemFile::of(&build(1, Codec::None, &receipts(1, 4000)).0);
    let table = Table::open(Box::new(file.clone()), None, STORE).expect("the table is good");
    let mut buf = BlockBuf::default();
    table.read_block(0, &mut buf).expect("the block is good");
    file.good_bytes.store(BLOCK_BYTES as u64 + 10, Relaxed);
    assert!(matches!(table.read_block(0, &mut buf), Err(TableError::Io(_))));
    assert_eq!(buf.len(), 0, "what the buffer held before is not taken for the block");
    assert!(matches!(Table::open(Box::new(file), None, STORE), Err(TableError::Io(_))));
}

#[test]
fn another_table_or_store_is_not_taken_for_this_one() {
    let (bytes, meta) = build(7, Codec::Lz4, &receipts(1, 50));
    let (other, _) = build(7, Codec::Lz4, &receipts(2, 50));
    let open_as =
        |bytes: &[u8], meta: &TableMeta, store| Table::open(Box::new(MemFile::of(bytes)), Some(meta), store).map(drop);
    open_as(&bytes, &meta, STORE).expect("the table is good");
    assert!(damage(open_as(&bytes, &meta, StoreId([1; 16]))).contains("belongs to store"));
    assert!(damage(open_as(&other, &meta, STORE)).contains("manifest"));
    let longer = TableMeta { file_bytes: meta.file_bytes + 4096, ..meta.clone() };
    assert!(damage(open_as(&bytes, &longer, STORE)).contains("long"));
    let mut mixed = bytes.clone();
    mixed[..BLOCK_BYTES].copy_from_slice(&table::encode_header(STORE, 8));
    assert!(damage(open_as(&mixed, &meta, STORE)).contains("another table"));
}

#[test]
fn a_good_block_in_the_wrong_place_is_found() {
    let (mut bytes, _) = build(1, Codec::None, &receipts(1, 4000));
    let mut twin = receipts(1, 4000);
    twin[0].payload[9] ^= 1;
    let (twin, _) = build(1, Codec::None, &twin);
    let stored = u32::from_le_bytes(*bytes[BLOCK_BYTES + 20..].first_chunk().expect("a block follows the header"));
    let end = BLOCK_BYTES + BLOCK_HEADER_BYTES + stored as usize;
    bytes[BLOCK_BYTES..end].copy_from_slice(&twin[BLOCK_BYTES..end]);
    assert!(damage(open_and_verify(&bytes)).contains("another one belongs"));
}

/// Raw bytes of two entries, and the header of their block.
fn two_entries() -> (Vec<u8>, BlockHeader) {
    let entries = receipts(10, 2);
    let mut raw = Vec::new();
    entries.iter().for_each(|entry| table::encode_entry(&mut raw, Lsn(10), &entry.entry()));
    let span = Span::of(&entries[0].entry()).join(Span::of(&entries[1].entry()));
    let header = BlockHeader { codec: Codec::None, raw_bytes: raw.len(), span };
    (raw, header)
}

/// A table of one block with these stored bytes, all checksums right.
fn forge(stored: &[u8], header: BlockHeader) -> Vec<u8> {
    forge_with(stored, header, |_| (), |_| ())
}

fn forge_with(
    stored: &[u8],
    header: BlockHeader,
    change_meta: impl FnOnce(&mut [u8]),
    change_footer: impl FnOnce(&mut Footer),
) -> Vec<u8> {
    let mut file = table::encode_header(STORE, 1);
    let mut block = vec![0; BLOCK_HEADER_BYTES];
    block.extend_from_slice(stored);
    let crc = header.seal(&mut block, STORE);
    file.extend_from_slice(&block);
    let index = [IndexEntry { offset: BLOCK_BYTES as u64, block_bytes: block.len() as u32, crc, span: header.span }];
    let facts = TableFacts::default();
    let meta_offset = file.len();
    let meta_bytes = table::meta_bytes(1, &facts);
    let mut meta = vec![0; block_ceil((meta_offset + meta_bytes) as u64) as usize - meta_offset];
    table::encode_meta(&mut meta, &index, &facts);
    change_meta(&mut meta);
    let mut footer = Footer {
        store: STORE,
        table_id: 1,
        meta_offset: meta_offset as u64,
        meta_bytes: meta_bytes as u64,
        block_count: 1,
        counts: Counts::default(),
        replaced_count: 0,
        sections_crc: table::sections_crc(&file[..BLOCK_BYTES], &meta),
        span: header.span,
        floor_lsn: Lsn(1),
        payload_bytes: header.payload_bytes(),
    };
    change_footer(&mut footer);
    file.extend_from_slice(&meta);
    file.extend_from_slice(&footer.encode().0);
    file
}

#[test]
fn each_field_inside_a_block_is_checked_even_when_its_checksum_is_right() {
    let (raw, header) = two_entries();
    open_and_verify(&forge(&raw, header)).expect("the unchanged forgery is good");
    let second = ENTRY_HEAD_BYTES + receipts(10, 1)[0].payload.len();
    // Bytes of the second entry's head, and what is found wrong with them.
    let cases: [(&str, usize, u8, &str); 8] = [
        ("LSN does not rise", 0, 0, "entry LSN"),
        ("LSN above the block's last", 0, 2, "range of a block"),
        ("LSN beyond 64 bits", 3, 0xFF, "range of a block"),
        ("reserved", 6, 1, "reserved"),
        ("timestamp outside the block's range", 15, 1, "range of a block"),
        ("payload longer than the block", 16, 200, "ends too early"),
        ("payload shorter than the block", 16, 3, "reserved"),
        ("payload above 1 MiB", 18, 0x11, "payload length"),
    ];
    for (case, at, byte, expected) in cases {
        let mut raw = raw.clone();
        raw[second + at] = byte;
        let what = damage(open_and_verify(&forge(&raw, header)));
        assert!(what.contains(expected), "{case}: {what}");
    }
    let change = |change: fn(&mut Span)| {
        let mut header = header;
        change(&mut header.span);
        damage(open_and_verify(&forge(&raw, header)))
    };
    assert!(change(|span| span.last_lsn = Lsn(12)).contains("range of a block"));
    assert!(change(|span| span.first_lsn = Lsn(u64::MAX - 1)).contains("LSN range"));
    assert!(change(|span| span.min_timestamp_ns -= 1).contains("range of a block"));
    assert!(change(|span| span.max_timestamp_ns += 1).contains("range of a block"));
    assert!(change(|span| span.entry_count = 1).contains("range of a block"));
    let beyond_64_bits =
        change(|span| *span = Span { entry_count: 1, first_lsn: Lsn(u64::MAX), last_lsn: Lsn(u64::MAX), ..*span });
    assert!(beyond_64_bits.contains("entry LSN"));
}

#[test]
fn compressed_data_that_is_no_lz4_block_or_of_another_length_is_found() {
    let (raw, header) = two_entries();
    let lz4 = |raw_bytes| BlockHeader { codec: Codec::Lz4, raw_bytes, ..header };
    assert!(damage(open_and_verify(&forge(&[0xFF; 40], lz4(100)))).contains("compressed data"));
    let stored = lz4_flex::block::compress(&[b'k'; 1000]);
    assert!(damage(open_and_verify(&forge(&stored, lz4(2000)))).contains("raw length"));
    assert!(damage(open_and_verify(&forge(&stored, lz4(500)))).contains("compressed data"));
    assert!(damage(open_and_verify(&forge(&raw, lz4(raw.len() + 1)))).contains("compressed data"));
}

#[test]
fn lengths_and_counts_that_lie_are_refused_before_anything_is_allocated() {
    let (raw, header) = two_entries();
    let footer = |change: fn(&mut Footer)| damage(open_and_verify(&forge_with(&raw, header, |_| (), change)));
    assert!(footer(|footer| footer.meta_bytes = 1 << 40).contains("meta offset and length"));
    assert!(footer(|footer| footer.meta_bytes = u64::MAX).contains("meta offset and length"));
    assert!(footer(|footer| footer.meta_offset = u64::MAX - 9).contains("meta offset and length"));
    assert!(footer(|footer| footer.meta_offset -= 1).contains("header and index"));
    assert!(footer(|footer| footer.block_count = u32::MAX).contains("block count"));
    assert!(footer(|footer| footer.block_count = 0).contains("block count"));
    assert!(footer(|footer| footer.meta_bytes += 1).contains("meta length"));
    assert!(footer(|footer| footer.replaced_count = u32::MAX).contains("too early"));
    assert!(footer(|footer| footer.counts.checkpoints = u32::MAX).contains("too early"));
    assert!(footer(|footer| footer.span.last_lsn = Lsn(12)).contains("of the table"));
    assert!(footer(|footer| footer.span.entry_count = 1).contains("of the table"));
    assert!(footer(|footer| footer.payload_bytes += 1).contains("payload bytes"));

    let meta = |change: fn(&mut [u8])| damage(open_and_verify(&forge_with(&raw, header, change, |_| ())));
    assert!(meta(|meta| meta[0] = 1).contains("block offset"));
    assert!(meta(|meta| meta[8..12].fill(0xFF)).contains("block length"));
    assert!(meta(|meta| meta[8] += 1).contains("block length"));
    assert!(meta(|meta| meta[60] = 1).contains("reserved"));
    assert!(meta(|meta| meta[48] ^= 1).contains("another one belongs"));
}
