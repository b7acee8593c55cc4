//! A manifest from the files, where the store's own is lost or damaged.
//!
//! - The store is the one that most valid headers name. Files of another one, or under a name that is not theirs, are
//!   strangers.
//! - Tables that another table replaces, or whose LSNs lie inside another one's, are what an unfinished merge left. Of two
//!   that overlap otherwise, the one with more entries counts.
//! - Gaps, clock steps, positions and the retention floor are those of the newest table whose index is good; the log brings
//!   what came after. A floor that rose since is not known: what retention had deleted then counts as missing.
//! - The first live segment is found over the links of the chain: the last one that begins at or below the checkpoint.

use std::collections::BTreeMap;
use std::io;

use super::tables::refuse_newer;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, TableMeta};
use crate::format::segment::{HEADER_BYTES, SegmentHeader};
use crate::format::table::{self, TableFacts};
use crate::format::{BLOCK_BYTES, Lsn, StoreId};
use crate::io::{ReadAt, Vfs};
use crate::sstable::{self, Table, TableError};
use crate::wal::files::{QUARANTINED, WalFiles, name_number};
use crate::{manifest, wal};

/// A manifest as far as the files tell. `None`: nothing here belongs to a store.
pub(crate) fn rebuild(vfs: &dyn Vfs) -> Result<Option<Manifest>> {
    let names = numbered(vfs, sstable::DIR, ".sst")?;
    let Some(store) = store_of(vfs, &names)? else { return Ok(None) };
    let (mut tables, facts) = tables(vfs, &names, store)?;
    tables.retain(|table| facts.values().all(|facts| !facts.replaces.contains(&table.id)));
    tables = without_overlaps(tables);
    let newest = tables.iter().rev().find_map(|table| facts.get(&table.id)).cloned().unwrap_or_default();
    tables.retain(|table| table.last_lsn >= newest.floor_lsn);
    let checkpoint_lsn = tables.last().map_or(Lsn::ZERO, |table| table.last_lsn);
    let found = manifest::find(vfs).map_err(|cause| Error::io("list", ".", cause))?;
    let mut rebuilt = Manifest {
        generation: found.generations.last().copied().unwrap_or(0) + 1,
        checkpoint_lsn,
        floor_lsn: newest.floor_lsn.max(Lsn(1)),
        next_table_id: names.iter().map(|(id, _)| id + 1).max().unwrap_or(1),
        tables,
        gaps: newest.gaps,
        checkpoints: newest.checkpoints,
        clock_steps: newest.clock_steps,
        ..Manifest::birth(store)
    };
    let files = WalFiles::scan(vfs, store, 1)?;
    let generation = files.live.values().map(|segment| segment.header.manifest_generation + 1).max();
    rebuilt.generation = rebuilt.generation.max(generation.unwrap_or(1));
    rebuilt.first_segment = first_segment(&files, &rebuilt);
    Ok(Some(rebuilt))
}

/// Numbers and paths of the files in `dir` that have a name of ours.
fn numbered(vfs: &dyn Vfs, dir: &str, suffix: &str) -> Result<Vec<(u64, String)>> {
    let entries = match vfs.list(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|cause| Error::io("list", dir, cause))?,
    };
    let files = entries.into_iter().filter(|entry| entry.is_file);
    let numbered = |name: String| {
        let own = name.strip_suffix(QUARANTINED).unwrap_or(&name);
        Some((name_number(own, suffix)?, format!("{dir}/{name}")))
    };
    Ok(files.filter_map(|entry| numbered(entry.name)).collect())
}

fn store_of(vfs: &dyn Vfs, tables: &[(u64, String)]) -> Result<Option<StoreId>> {
    let mut votes: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    let mut block = vec![0; BLOCK_BYTES];
    for (_, path) in tables {
        let read = read_start(vfs, path, &mut block)?;
        if let Ok((store, _)) = table::decode_header(&block[..read]) {
            *votes.entry(store.0).or_default() += 1;
        }
    }
    for (_, path) in numbered(vfs, wal::DIR, ".wal")? {
        let read = read_start(vfs, &path, &mut block[..HEADER_BYTES])?;
        if let Ok(header) = SegmentHeader::decode(&block[..read]) {
            *votes.entry(header.store.0).or_default() += 1;
        }
    }
    Ok(votes.into_iter().max_by_key(|&(_, votes)| votes).map(|(store, _)| StoreId(store)))
}

fn read_start(vfs: &dyn Vfs, path: &str, buf: &mut [u8]) -> Result<usize> {
    let file = vfs.open(path).map_err(|cause| Error::io("open", path, cause))?;
    refuse_newer(&*file, path)?;
    file.read_at(buf, 0).map_err(|cause| Error::io("read", path, cause))
}

type Facts = BTreeMap<u64, TableFacts>;

/// Every table of the store, sorted by LSN, and the facts of those whose index is good.
fn tables(vfs: &dyn Vfs, names: &[(u64, String)], store: StoreId) -> Result<(Vec<TableMeta>, Facts)> {
    let (mut tables, mut facts) = (Vec::new(), Facts::new());
    for (id, path) in names {
        let open = || -> Result<Box<dyn ReadAt>> { vfs.open(path).map_err(|cause| Error::io("open", path, cause)) };
        let table = match Table::open(open()?, None, store) {
            Err(TableError::Damaged { .. }) => Table::salvage(open()?, *id, None, store),
            opened => opened,
        };
        match table {
            // A copy under another name is not that table.
            Ok(table) if table.meta().id == *id => {
                if table.meta().checksum != 0 {
                    facts.insert(*id, table.facts().clone());
                }
                tables.push(table.meta().clone());
            }
            Ok(_) | Err(TableError::Damaged { .. }) => {}
            Err(TableError::Io(cause)) => return Err(Error::io("read", path, cause)),
        }
    }
    Ok((tables, facts))
}

fn without_overlaps(mut tables: Vec<TableMeta>) -> Vec<TableMeta> {
    tables.sort_by_key(|table| std::cmp::Reverse((table.entry_count, table.id)));
    let mut kept: Vec<TableMeta> = Vec::new();
    for table in tables {
        let is_apart = |other: &TableMeta| table.last_lsn < other.first_lsn || other.last_lsn < table.first_lsn;
        if kept.iter().all(is_apart) {
            kept.push(table);
        }
    }
    kept.sort_by_key(|table| table.first_lsn);
    kept
}

fn first_segment(files: &WalFiles, rebuilt: &Manifest) -> u64 {
    let Some((_, mut segment)) = files.live.last_key_value() else { return files.number_max.max(1) };
    loop {
        let SegmentHeader { segment: number, first_lsn, prev_end, .. } = segment.header;
        if first_lsn <= rebuilt.checkpoint_lsn.next() || prev_end.segment == 0 || prev_end.segment >= number {
            return number;
        }
        match files.live.get(&prev_end.segment) {
            Some(before) => segment = before,
            // It is missing; what lies before it is still looked at.
            None => return files.live.keys().next().copied().unwrap_or(number).min(prev_end.segment),
        }
    }
}
