//! The tables that a manifest names, block by block.

use std::io;

use super::{Kind, Wound};
use crate::error::{Error, Result};
use crate::format::manifest::TableMeta;
use crate::format::table;
use crate::format::{BLOCK_BYTES, FormatError, Lsn, StoreId};
use crate::io::Vfs;
use crate::sstable::{self, BlockBuf, Table, TableError};

/// What one table holds.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) wounds: Vec<Wound>,
    /// LSN ranges of its good blocks.
    pub(crate) good: Vec<(Lsn, Lsn)>,
    pub(crate) blocks: u64,
    /// In good blocks.
    pub(crate) entries: u64,
    /// The file is not there.
    pub(crate) is_missing: bool,
    /// Timestamps that are not above their predecessor's, with the LSN of the first; looked for in a deep check.
    pub(crate) times_back: Vec<Lsn>,
}

/// How thoroughly, and who is told of bytes read.
pub(crate) struct Depth<'p> {
    /// Decompress each block and check each entry in it.
    pub(crate) deep: bool,
    pub(crate) progress: &'p mut dyn FnMut(u64),
}

/// Reads and checks a table. An error is one that says nothing about the bytes.
pub(crate) fn check(vfs: &dyn Vfs, store: StoreId, meta: &TableMeta, depth: &mut Depth<'_>) -> Result<Checked> {
    let missing = sstable::path(meta.id);
    let (path, file) = match sstable::open_file(vfs, meta.id) {
        Ok(opened) => opened,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let what = "the manifest names it, and it is missing".to_owned();
            let wound = edge(Kind::TableMissing, &missing, meta, (0, None), what);
            return Ok(Checked { wounds: vec![wound], is_missing: true, ..Checked::default() });
        }
        Err(cause) => return Err(Error::io("open", &missing, cause)),
    };
    refuse_newer(&*file, &path)?;
    let (table, mut checked) = match Table::open(file, Some(meta), store) {
        Ok(table) => (table, Checked::default()),
        Err(TableError::Io(cause)) => return Err(Error::io("read", &path, cause)),
        Err(TableError::Damaged { offset, what, .. }) => {
            let mut wound = edge(Kind::TableEdge, &path, meta, (offset, None), what);
            match salvage(vfs, store, meta)? {
                Ok(table) => (table, Checked { wounds: vec![wound], ..Checked::default() }),
                Err(what) => {
                    wound.what = format!("{}; {what}", wound.what);
                    return Ok(Checked { wounds: vec![wound], ..Checked::default() });
                }
            }
        }
    };
    check_blocks(&table, &path, depth, &mut checked)?;
    Ok(checked)
}

/// What is left of a table that cannot be opened, or why nothing is.
fn salvage(vfs: &dyn Vfs, store: StoreId, meta: &TableMeta) -> Result<Result<Table, String>> {
    let (path, file) =
        sstable::open_file(vfs, meta.id).map_err(|cause| Error::io("open", sstable::path(meta.id), cause))?;
    match Table::salvage(file, meta.id, Some(meta), store) {
        Ok(table) => Ok(Ok(table)),
        Err(TableError::Io(cause)) => Err(Error::io("read", &path, cause)),
        Err(TableError::Damaged { what, .. }) => Ok(Err(what)),
    }
}

/// Opens a table that has good blocks, with or without its index; its path, too.
pub(crate) fn open_whole_or_not(vfs: &dyn Vfs, store: StoreId, meta: &TableMeta) -> Result<(String, Table)> {
    let (path, file) =
        sstable::open_file(vfs, meta.id).map_err(|cause| Error::io("open", sstable::path(meta.id), cause))?;
    if let Ok(table) = Table::open(file, Some(meta), store) {
        return Ok((path, table));
    }
    let table = salvage(vfs, store, meta)?.map_err(|what| Error::corrupt(&path, 0, Some(meta.first_lsn), what))?;
    Ok((path, table))
}

fn edge(kind: Kind, path: &str, meta: &TableMeta, (offset, end): (u64, Option<u64>), what: String) -> Wound {
    let lsns = Some((meta.first_lsn, meta.last_lsn));
    Wound { kind, file: path.to_owned(), offset, end, lsns, saved: 0, what }
}

/// A table of a newer format is no damage, and nobody must take it for that.
pub(super) fn refuse_newer(file: &dyn crate::io::ReadAt, path: &str) -> Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let read = file.read_at(&mut block, 0).map_err(|cause| Error::io("read", path, cause))?;
    match table::decode_header(&block[..read]) {
        Err(newer @ FormatError::Version(_)) => Err(Error::io(
            "read",
            path,
            io::Error::new(io::ErrorKind::Unsupported, format!("{newer}; use a newer kifa")),
        )),
        _ => Ok(()),
    }
}

fn check_blocks(table: &Table, path: &str, depth: &mut Depth<'_>, checked: &mut Checked) -> Result<()> {
    let mut buf = BlockBuf::default();
    let (mut payload_bytes, mut last_ns, is_whole) = (0, 0, checked.wounds.is_empty());
    for block in 0..table.block_count() {
        let entry = *table.block_at(block);
        let outcome = match read_block(table, block, &mut buf, depth.deep) {
            Err(TableError::Damaged { .. }) => again(table, block, &mut buf, depth.deep, path, checked),
            outcome => outcome,
        };
        (depth.progress)(u64::from(entry.block_bytes));
        match outcome {
            Ok(()) => {
                checked.blocks += 1;
                checked.entries += entry.span.entry_count;
                checked.good.push((entry.span.first_lsn, entry.span.last_lsn));
                for entry in buf.entries() {
                    payload_bytes += entry.payload.len() as u64;
                    if entry.timestamp_ns <= last_ns {
                        checked.times_back.push(entry.lsn);
                    }
                    last_ns = entry.timestamp_ns;
                }
            }
            Err(TableError::Io(cause)) => return Err(Error::io("read", path, cause)),
            Err(TableError::Damaged { offset, what, .. }) => checked.wounds.push(Wound {
                kind: Kind::Block,
                file: path.to_owned(),
                offset,
                end: Some(entry.end()),
                lsns: Some((entry.span.first_lsn, entry.span.last_lsn)),
                saved: 0,
                what,
            }),
        }
    }
    if depth.deep && is_whole && checked.wounds.is_empty() && payload_bytes != table.payload_bytes() {
        let what = format!("it holds {payload_bytes} payload bytes and its footer says {}", table.payload_bytes());
        let offset = table.meta().file_bytes - BLOCK_BYTES as u64;
        checked.wounds.push(Wound { lsns: None, ..edge(Kind::TableEdge, path, table.meta(), (offset, None), what) });
    }
    Ok(())
}

/// One reading; damage is not read again here, so that [`again`] can tell.
fn read_block(table: &Table, block: usize, buf: &mut BlockBuf, deep: bool) -> Result<(), TableError> {
    let (header, _) = table.read_raw_block_once(block, buf)?;
    if deep { table.decode_block(block, &header, buf) } else { Ok(()) }
}

/// Damage is read a second time: bytes that are bad once and good once tell of the device, not of the file.
fn again(
    table: &Table,
    block: usize,
    buf: &mut BlockBuf,
    deep: bool,
    path: &str,
    checked: &mut Checked,
) -> Result<(), TableError> {
    let outcome = read_block(table, block, buf, deep);
    if outcome.is_ok() {
        let entry = table.block_at(block);
        let what = "a block was bad when it was read first, and good when it was read again".to_owned();
        let range = (entry.offset, Some(entry.end()));
        checked.wounds.push(Wound { lsns: None, ..edge(Kind::Unstable, path, table.meta(), range, what) });
    }
    outcome
}
