//! The merge of neighbouring tables, pulled step by step; see the page of [`super`].
//!
//! Blocks are copied. Only two kinds are decoded and packed anew: small ones (what closed flushes leave at their ends), or a
//! store that is closed after every few entries would keep a block, and an index entry, for each time; and those of another
//! codec than the store is set to.

use std::fmt;
use std::sync::Arc;

use crate::format::StoreId;
use crate::format::manifest::TableMeta;
use crate::format::table::{Codec, TableFacts};
use crate::sstable::{BlockBuf, Chunk, ChunkPool, Table, TableBuilder, TableError};

/// Blocks with fewer raw bytes than this are packed together.
const SMALL_BLOCK_RAW_BYTES: usize = 16 << 10;

/// What a step yields. All bytes of both are to be written, each behind those before, the first at offset 0.
pub(crate) enum Step {
    /// More of the merged table.
    Chunks(Vec<Chunk>),
    /// The rest of it, and what the manifest says of it. The job is over.
    Done(Vec<Chunk>, TableMeta),
}

/// An input that cannot be read. Nothing may be built on what the job has yielded.
#[derive(Debug)]
pub(crate) struct MergeError {
    /// Number of the table.
    pub(crate) table: u64,
    /// What is wrong with it.
    pub(crate) cause: TableError,
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} cannot be merged: {}", self.table, self.cause)
    }
}

/// What the merged table carries for a lost manifest: gaps, positions and floor as of the last LSN of the newest input,
/// and the numbers of all inputs. Tables that an input replaced in its turn lie within its LSN range, and so within the
/// merged table's: who rebuilds a manifest needs no list of them.
pub(crate) fn merged_facts(inputs: &[Table]) -> TableFacts {
    let newest = inputs.last().expect("a merge has inputs");
    TableFacts { replaces: inputs.iter().map(|table| table.meta().id).collect(), ..newest.facts().clone() }
}

/// A merge under way.
pub(crate) struct MergeJob {
    inputs: Vec<Table>,
    facts: TableFacts,
    entry_count: u64,
    /// Taken when the last step is done.
    builder: Option<TableBuilder>,
    /// The next block to read: of which input, and which.
    next: (usize, usize),
    buf: BlockBuf,
}

impl MergeJob {
    /// Merges `inputs` (live tables of one store, neighbours in LSN order) into table `id`, in memory of `pool`.
    ///
    /// # Panics
    /// If there is no input, or they are of several stores or out of order: the manifest, against which they were
    /// opened, holds no such tables.
    pub(crate) fn new(inputs: Vec<Table>, id: u64, codec: Codec, facts: TableFacts, pool: Arc<ChunkPool>) -> MergeJob {
        let store: StoreId = inputs.first().expect("a merge has inputs").store();
        let in_order = |pair: &[Table]| pair[0].store() == store && pair[0].meta().last_lsn < pair[1].meta().first_lsn;
        assert!(inputs.windows(2).all(in_order) && inputs.iter().all(|table| table.store() == store));
        let entry_count = inputs.iter().map(|table| table.meta().entry_count).sum();
        let builder = Some(TableBuilder::new(store, id, codec, pool));
        MergeJob { inputs, facts, entry_count, builder, next: (0, 0), buf: BlockBuf::default() }
    }

    /// Works until there are chunks to write, or the end.
    ///
    /// # Panics
    /// If it is called again after [`Step::Done`] or an error.
    pub(crate) fn step(&mut self) -> Result<Step, MergeError> {
        let mut builder = self.builder.take().expect("a job that has ended is not stepped again");
        while let Some(table) = self.inputs.get(self.next.0) {
            let block = self.next.1;
            self.next = if block + 1 < table.block_count() { (self.next.0, block + 1) } else { (self.next.0 + 1, 0) };
            copy_block(&mut builder, table, block, &mut self.buf)
                .map_err(|cause| MergeError { table: table.meta().id, cause })?;
            if let Some(chunks) = builder.take_chunks() {
                self.builder = Some(builder);
                return Ok(Step::Chunks(chunks));
            }
        }
        let (rest, meta) = builder.finish(&self.facts);
        assert_eq!(meta.entry_count, self.entry_count, "a merge keeps every entry");
        Ok(Step::Done(rest, meta))
    }
}

fn copy_block(builder: &mut TableBuilder, table: &Table, block: usize, buf: &mut BlockBuf) -> Result<(), TableError> {
    let (header, crc) = table.read_raw_block(block, buf)?;
    if header.raw_bytes >= SMALL_BLOCK_RAW_BYTES && builder.keeps(header.codec) {
        builder.push_block(&header, crc, buf.block());
        return Ok(());
    }
    table.decode_block(block, &header, buf)?;
    buf.entries().for_each(|entry| builder.push(&entry));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use proptest::prelude::*;

    use super::*;
    use crate::format::table::{BLOCK_HEADER_BYTES, BLOCK_RAW_BYTES_MAX};
    use crate::format::{BLOCK_BYTES, Gap, GapCause, Lsn};
    use crate::sstable::CHUNK_BYTES;
    use crate::sstable::tests::{MemFile, Owned, STORE, build, build_with, noise, open, read_all, receipts};

    fn table(id: u64, entries: &[Owned]) -> Table {
        open(&build(id, Codec::Lz4, entries).0).expect("the table is good")
    }

    fn merge(inputs: Vec<Table>) -> Result<(Vec<u8>, TableMeta), MergeError> {
        let facts = merged_facts(&inputs);
        run(MergeJob::new(inputs, 9, Codec::Lz4, facts, Arc::default()))
    }

    /// Runs a job to its end; yields the merged file.
    fn run(mut job: MergeJob) -> Result<(Vec<u8>, TableMeta), MergeError> {
        let mut file = Vec::new();
        loop {
            match job.step()? {
                Step::Chunks(chunks) => {
                    assert!(!chunks.is_empty() && chunks.iter().all(|chunk| chunk.len() == CHUNK_BYTES));
                    let bytes = chunks.len() * CHUNK_BYTES;
                    assert!(bytes <= CHUNK_BYTES + BLOCK_HEADER_BYTES + BLOCK_RAW_BYTES_MAX, "memory is bounded");
                    chunks.iter().for_each(|chunk| file.extend_from_slice(chunk));
                }
                Step::Done(rest, meta) => {
                    rest.iter().for_each(|chunk| file.extend_from_slice(chunk));
                    return Ok((file, meta));
                }
            }
        }
    }

    fn verified(file: &[u8], meta: &TableMeta) -> Table {
        let table = Table::open(Box::new(MemFile::of(file)), Some(meta), STORE).expect("the merged table is good");
        table.verify(&mut BlockBuf::default()).expect("the merged table is good");
        table
    }

    #[test]
    fn blocks_of_another_codec_are_packed_anew_and_plain_ones_stay() {
        let lz4 = table(1, &receipts(1, 3000));
        let plain_bytes = build(2, Codec::None, &receipts(3001, 3000)).0;
        let facts = merged_facts(std::slice::from_ref(&lz4));
        let (lz4_bytes, entries) = (lz4.meta().file_bytes, read_all(&lz4));
        let plain = open(&plain_bytes).expect("the table is good");
        let all: Vec<Owned> = entries.into_iter().chain(read_all(&plain)).collect();
        let job = MergeJob::new(vec![lz4, plain], 9, Codec::Zstd, facts, Arc::default());
        let (file, meta) = run(job).expect("the inputs are good");
        let merged = verified(&file, &meta);
        assert_eq!(read_all(&merged), all);
        let codecs: Vec<Codec> = (0..merged.block_count())
            .map(|block| merged.read_raw_block(block, &mut BlockBuf::default()).expect("it is good").0.codec)
            .collect();
        assert!(codecs.contains(&Codec::Zstd) && codecs.contains(&Codec::None) && !codecs.contains(&Codec::Lz4));
        assert!(meta.file_bytes < lz4_bytes + plain_bytes.len() as u64);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn every_entry_is_kept_byte_for_byte_and_in_order(
            tables in prop::collection::vec(
                prop::collection::vec((1..5_u64, any::<u64>(), prop_oneof![0..200_usize, 0..60_000_usize]), 1..60),
                1..6,
            ),
        ) {
            let mut lsn = 0;
            let mut entry = |(step, timestamp_ns, len): (u64, u64, usize)| {
                lsn += step;
                Owned { lsn, timestamp_ns, source: lsn as u16, payload: noise(len, lsn) }
            };
            let tables: Vec<Vec<Owned>> =
                tables.into_iter().map(|parts| parts.into_iter().map(&mut entry).collect()).collect();
            let inputs = tables.iter().enumerate().map(|(id, entries)| table(id as u64 + 1, entries)).collect();
            let (file, meta) = merge(inputs).expect("the inputs are good");
            prop_assert!(read_all(&verified(&file, &meta)) == tables.concat());
        }
    }

    #[test]
    fn large_blocks_are_copied_as_they_are_and_small_ones_packed_together() {
        let large = receipts(1, 4000);
        let (bytes, meta) = build(1, Codec::Lz4, &large);
        let mut inputs = vec![open(&bytes).expect("the table is good")];
        let blocks = inputs[0].block_count();
        let mut entries = large;
        for id in 2..102 {
            let few = receipts(meta.last_lsn.0 + 10 * id, 3);
            inputs.push(table(id, &few));
            entries.extend(few);
        }
        let first_end = inputs[0].block_lsns(0).1;
        let (file, merged) = merge(inputs).expect("the inputs are good");
        let table = verified(&file, &merged);
        assert_eq!(table.block_count(), blocks + 1, "a hundred small blocks became one");
        assert_eq!(table.block_lsns(0).1, first_end);
        let (mut copy, mut original) = (BlockBuf::default(), BlockBuf::default());
        table.read_raw_block(0, &mut copy).expect("the block is good");
        open(&bytes).expect("the table is good").read_raw_block(0, &mut original).expect("the block is good");
        assert!(copy.block() == original.block());
        assert!(read_all(&table) == entries);
    }

    #[test]
    fn facts_are_those_of_the_newest_input_and_name_what_is_replaced() {
        let facts = |last, floor| TableFacts {
            gaps: vec![Gap { first: Lsn(2), last: Lsn(last), cause: GapCause::Damage }],
            checkpoints: [(b"till".to_vec(), vec![last as u8])].into(),
            replaces: vec![1, 2],
            floor_lsn: Lsn(floor),
            ..TableFacts::default()
        };
        let table = |id, first, facts: &TableFacts| {
            open(&build_with(id, Codec::Lz4, &receipts(first, 5), facts).0).expect("the table is good")
        };
        let (older, newer) = (facts(3, 1), facts(4, 8));
        let (file, meta) = merge(vec![table(3, 10, &older), table(4, 20, &newer)]).expect("the inputs are good");
        assert_eq!(*verified(&file, &meta).facts(), TableFacts { replaces: vec![3, 4], ..newer });
    }

    #[test]
    fn a_flipped_bit_in_any_block_of_an_input_is_reported_with_its_table() {
        let (good, meta) = build(6, Codec::Lz4, &receipts(1, 3000));
        let blocks_end = meta.file_bytes as usize - 2 * BLOCK_BYTES;
        for at in (BLOCK_BYTES..blocks_end).step_by(997) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            let damaged = open(&bytes).expect("header, index and footer are good");
            let error = merge(vec![damaged, table(7, &receipts(5000, 3000))]).expect_err("a block is damaged");
            assert_eq!(error.table, 6);
            assert!(matches!(error.cause, TableError::Damaged { offset, .. } if offset <= at as u64), "{error}");
        }
    }

    #[test]
    fn an_input_that_cannot_be_read_is_reported_as_such() {
        let file = MemFile::of(&build(6, Codec::Lz4, &receipts(1, 3000)).0);
        let input = Table::open(Box::new(file.clone()), None, STORE).expect("the table is good");
        file.good_bytes.store(BLOCK_BYTES as u64, Relaxed);
        let error = merge(vec![input]).expect_err("reading fails");
        assert!(matches!(error, MergeError { table: 6, cause: TableError::Io(_) }));
    }

    #[test]
    #[should_panic(expected = "in_order")]
    fn tables_out_of_order_are_never_merged() {
        let _ = merge(vec![table(1, &receipts(10, 5)), table(2, &receipts(14, 5))]);
    }
}
