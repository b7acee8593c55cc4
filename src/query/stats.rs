//! Counting what a store holds.

use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::query::StoreStats;
use crate::query::view::View;
use crate::survey::log::{GroupRef, Part};
use crate::{sstable, wal};

/// Gathers the numbers; a damaged log is an error, because they would be wrong.
pub(super) fn gather(vfs: &dyn Vfs, view: View) -> Result<StoreStats> {
    let View { manifest, files, parts, last_lsn, gaps, replay, damage, writer_alive, .. } = view;
    if let Some(wound) = damage.first() {
        return Err(wound.to_error());
    }
    let replay = replay.expect("a log that was not replayed is damaged");
    let groups: Vec<GroupRef> = parts.iter().filter_map(Part::group).copied().collect();
    let checkpoint = manifest.checkpoint_lsn;
    let memtable_entries =
        groups.iter().map(|group| group.last_lsn.min(last_lsn).0 - group.first_lsn.max(checkpoint.next()).0 + 1).sum();
    let tables = &manifest.tables;
    let lsns = tables.iter().map(|table| (table.first_lsn, table.last_lsn));
    let lsns = lsns.chain(groups.iter().map(|group| (group.first_lsn, group.last_lsn.min(last_lsn))));
    let times = tables.iter().map(|table| (table.min_timestamp_ns, table.max_timestamp_ns));
    let times = times.chain(groups.iter().map(|group| (group.min_ns, group.max_ns)));
    let written_by = replay.newest.as_ref().map(|newest| newest.written_by).unwrap_or_default();
    Ok(StoreStats {
        entries: tables.iter().map(|table| table.entry_count).sum::<u64>() + memtable_entries,
        tables: tables.len(),
        checkpoint_lsn: checkpoint,
        memtable_entries,
        lsns: lsns.reduce(|all, range| (all.0.min(range.0), all.1.max(range.1))),
        timestamps_ns: times.reduce(|all, range| (all.0.min(range.0), all.1.max(range.1))),
        flush_mode: replay.flush_mode,
        wal_segments: replay.segments,
        wal_spares: files.spares.len() + files.released.len(),
        disk_bytes: disk_bytes(vfs)?,
        io_backend: match written_by.io_backend {
            1 => "io_uring",
            2 => "portable",
            3 => "simulated",
            _ => "unknown",
        },
        sync_method: match written_by.sync_method {
            1 => "linked",
            2 => "dsync",
            _ => "unknown",
        },
        direct_io: written_by.direct,
        floor_lsn: manifest.floor_lsn,
        expired: manifest.expired,
        gaps,
        clock_steps: replay.clock_steps,
        writer_alive,
    })
}

fn disk_bytes(vfs: &dyn Vfs) -> Result<u64> {
    let mut bytes = 0;
    for dir in ["", wal::DIR, sstable::DIR] {
        let Ok(entries) = vfs.list(dir) else { continue };
        for entry in entries.into_iter().filter(|entry| entry.is_file) {
            let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
            match vfs.metadata(&path) {
                Ok(metadata) => bytes += metadata.bytes,
                // Replaced or released since it was listed.
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
                Err(cause) => return Err(Error::io("look at", path, cause)),
            }
        }
    }
    Ok(bytes)
}
