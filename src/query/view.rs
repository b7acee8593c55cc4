//! A consistent look at a store that may be written to meanwhile: the manifest, and the log behind its checkpoint.
//!
//! The manifest is read first, then the log. If a newer manifest has released a segment that was read, the look is taken
//! anew: released segments may be reused. What lies above the highest durable LSN found is left out while a writer is
//! alive (it alone knows), and taken as far as it validates, marked unconfirmed, when there is none.
//!
//! Memory: one reference per group of the log behind the checkpoint, which the memtable's size bounds.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::facts::{source_name, source_names};
use crate::format::manifest::Manifest;
use crate::format::record::Record;
use crate::format::{Gap, Lsn};
use crate::io::Vfs;
use crate::manifest;
use crate::reactor::open::{Ground, merge_gaps, survey};
use crate::wal::files::WalFiles;
use crate::wal::replay::{Replay, Tail, replay};

/// Bytes that are searched behind the end of the log for proof that it is damaged. The writer searches all of it.
const SEARCH_BYTES: u64 = 4 << 20;
/// How often a look is taken anew before giving up.
const RETRIES_MAX: usize = 100;

/// A group of the log, to be read (and checked) again when its turn comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupRef {
    pub(super) segment: u64,
    pub(super) salt: u64,
    pub(super) offset: u64,
    pub(super) first_lsn: Lsn,
    pub(super) last_lsn: Lsn,
    pub(super) min_ns: u64,
    pub(super) max_ns: u64,
}

/// See the module's page.
pub(super) struct View {
    pub(super) manifest: Manifest,
    pub(super) files: WalFiles,
    pub(super) groups: Vec<GroupRef>,
    /// Largest LSN to return.
    pub(super) last_lsn: Lsn,
    /// Entries from here on are not proven durable, and nobody is alive to vouch for them.
    pub(super) unconfirmed: Option<Lsn>,
    pub(super) gaps: Vec<Gap>,
    /// Names of sources by number, as far as the log was read: an entry's is always among them.
    pub(super) names: BTreeMap<u16, String>,
    /// What of the log was understood; `None` where damage cut it short.
    pub(super) replay: Option<Replay>,
    pub(super) damage: Option<Error>,
    pub(super) writer_alive: bool,
}

impl View {
    /// Takes a look.
    ///
    /// Damage is believed when it is found twice in a row, in the same place, under the same manifest: beside a running
    /// writer a group may be read before it was written, and one behind it after that.
    pub(super) fn take(vfs: &dyn Vfs, dir: &Path, is_writer_alive: &dyn Fn() -> bool) -> Result<View> {
        let mut suspected: Option<(u64, Error)> = None;
        for _ in 0..RETRIES_MAX {
            let alive_before = is_writer_alive();
            let Some(manifest) = newest_manifest(vfs, dir)? else { continue };
            let generation = manifest.generation;
            let view = View::read(vfs, manifest, alive_before, is_writer_alive);
            let damage = match &view {
                Ok(view) => view.damage.as_ref(),
                Err(cause @ Error::Corrupt(_)) => Some(cause),
                Err(cause) if is_not_found(cause) => continue,
                Err(cause) => return Err(cause.clone()),
            };
            match damage {
                Some(damage) if is_same(suspected.as_ref(), generation, damage) => return view,
                Some(damage) => suspected = Some((generation, damage.clone())),
                None => {
                    let newest = newest_manifest(vfs, dir)?;
                    if let (Ok(view), Some(newest)) = (view, newest)
                        && view.is_untouched_by(&newest)
                    {
                        return Ok(view);
                    }
                }
            }
        }
        Err(changes_too_fast(dir))
    }

    /// No segment that was read has been released since.
    fn is_untouched_by(&self, newest: &Manifest) -> bool {
        self.groups.first().is_none_or(|first| newest.first_segment <= first.segment)
            && newest.first_segment <= self.files.live.last_key_value().map_or(u64::MAX, |(&number, _)| number)
    }

    fn read(vfs: &dyn Vfs, manifest: Manifest, alive: bool, is_writer_alive: &dyn Fn() -> bool) -> Result<View> {
        manifest::check_join(&manifest)?;
        let files = WalFiles::scan(vfs, manifest.store, manifest.first_segment)?;
        let mut groups = Vec::new();
        let mut names = source_names(&manifest.checkpoints);
        let outcome = replay(&files, &manifest, SEARCH_BYTES, &mut |seen| {
            let header = &seen.group.header;
            if header.record_count > 0 {
                names.extend(seen.group.records().iter().filter_map(named));
            }
            if header.entry_count > 0 && header.last_lsn() > manifest.checkpoint_lsn {
                let times = || seen.group.entries().map(|entry| entry.timestamp_ns);
                groups.push(GroupRef {
                    segment: header.segment,
                    salt: header.salt,
                    offset: header.offset,
                    first_lsn: header.first_lsn,
                    last_lsn: header.last_lsn(),
                    min_ns: times().min().unwrap_or(0),
                    max_ns: times().max().unwrap_or(0),
                });
            }
            Ok(())
        });
        let writer_alive = alive || is_writer_alive();
        let (replay, damage) = match outcome {
            Ok(replay) => (Some(replay), None),
            Err(cause @ Error::Corrupt(_)) => (None, Some(cause)),
            Err(cause) => return Err(cause),
        };
        let (last_lsn, unconfirmed) = extent(&manifest, &groups, replay.as_ref(), writer_alive);
        groups.retain(|group: &GroupRef| group.first_lsn <= last_lsn);
        let gaps = merge_gaps(&manifest.gaps, replay.as_ref().map_or(&[], |replay| &replay.gaps), None);
        Ok(View { manifest, files, groups, last_lsn, unconfirmed, gaps, names, replay, damage, writer_alive })
    }
}

/// The source that a record names. A name is never taken back.
fn named(record: &Record) -> Option<(u16, String)> {
    match record {
        Record::Checkpoint { key, value } => source_name(key, value),
        Record::EpochStart { .. } | Record::ClockStep(_) => None,
    }
}

/// A file was released or replaced between two steps of a look.
fn is_not_found(cause: &Error) -> bool {
    matches!(cause, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn is_same(suspected: Option<&(u64, Error)>, generation: u64, damage: &Error) -> bool {
    let Some((before, Error::Corrupt(suspected))) = suspected else { return false };
    matches!(damage, Error::Corrupt(damage) if *before == generation && damage == suspected)
}

/// The largest LSN to return, and the first unconfirmed one.
fn extent(manifest: &Manifest, groups: &[GroupRef], replay: Option<&Replay>, writer_alive: bool) -> (Lsn, Option<Lsn>) {
    let found = groups.last().map_or(manifest.checkpoint_lsn, |group| group.last_lsn);
    let Some(replay) = replay else { return (found, None) };
    let proven = replay.durable_lsn.min(found);
    if writer_alive || replay.tail == Tail::Clean {
        return (proven, None);
    }
    (found, (found > proven).then(|| proven.next()))
}

/// Whether there is a manifest; damage is for those who read on.
pub(super) fn check_is_store(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    for _ in 0..RETRIES_MAX {
        if newest_manifest(vfs, dir)?.is_some() {
            return Ok(());
        }
    }
    Err(changes_too_fast(dir))
}

fn changes_too_fast(dir: &Path) -> Error {
    Error::io("read", dir, io::Error::other("it changes faster than it can be read"))
}

fn newest_manifest(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Manifest>> {
    let found = match manifest::find(vfs) {
        Ok(found) => found,
        Err(cause) => return Err(Error::io("list", dir, cause)),
    };
    let Some(&newest) = found.generations.last() else {
        return Err(match survey(vfs)? {
            Ground::Foreign(found) => Error::NotAStore { dir: dir.to_path_buf(), found },
            Ground::Empty | Ground::Store => {
                Error::NotAStore { dir: dir.to_path_buf(), found: "it holds no manifest".to_owned() }
            }
        });
    };
    manifest::read(vfs, newest)
}
