//! A whole store, surveyed: manifest, tables, log, strangers, and what is missing.
//!
//! Beside a running writer the store changes while it is read. Tables are checked once each, by id; where one is gone, or
//! the manifest was replaced, the survey goes on by the new one. Damage of the log is believed when it is found twice in a
//! row in the same place under the same manifest; without a writer, damage that is gone on the second reading is reported
//! as such.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::log::{self, LogSurvey};
use super::rebuild::rebuild;
use super::strangers::{Note, notes};
use super::tables::{Checked, Depth, check};
use super::tolerant::{Tolerant, Unreadable};
use super::{Kind, Wound};
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, TableMeta};
use crate::format::{Gap, Lsn};
use crate::io::Vfs;
use crate::manifest;
use crate::reactor::open::{Ground, merge_gaps, survey as look};
use crate::wal::chain::is_older;
use crate::wal::files::WalFiles;
use crate::wal::replay::Extent;

/// How often the survey begins anew because the store has changed.
const ROUNDS_MAX: usize = 100;

/// See the module's page.
pub(crate) struct StoreSurvey {
    pub(crate) manifest: Manifest,
    /// The store's own manifest is lost or damaged, and this one was made from the files.
    pub(crate) rebuilt: bool,
    /// As the manifest lists them.
    pub(crate) tables: Vec<(TableMeta, Checked)>,
    pub(crate) files: WalFiles,
    pub(crate) log: LogSurvey,
    /// All of them: manifest, tables, log.
    pub(crate) wounds: Vec<Wound>,
    pub(crate) notes: Vec<Note>,
    /// The manifest's and the log's.
    pub(crate) gaps: Vec<Gap>,
    /// LSN ranges that nothing explains and nothing holds.
    pub(crate) missing: Vec<(Lsn, Lsn)>,
    pub(crate) writer_alive: bool,
}

/// What the survey is told.
pub(crate) struct How<'h> {
    pub(crate) dir: &'h Path,
    pub(crate) is_writer_alive: &'h dyn Fn() -> bool,
    pub(crate) deep: bool,
    /// Told of bytes read, and of the bytes of all tables.
    pub(crate) progress: &'h mut dyn FnMut(u64, u64),
}

/// Surveys the store behind `vfs`. An error is one that says nothing about the store's bytes.
pub(crate) fn take(vfs: &dyn Vfs, how: &mut How<'_>) -> Result<StoreSurvey> {
    let unreadable = Unreadable::default();
    let vfs = Tolerant::new(vfs, unreadable.clone());
    let mut checked: BTreeMap<u64, (TableMeta, Checked)> = BTreeMap::new();
    let mut suspected: Option<(u64, Vec<Wound>)> = None;
    for _ in 0..ROUNDS_MAX {
        let alive = (how.is_writer_alive)();
        let Some((manifest, lost)) = load_manifest(&vfs, how.dir)? else { continue };
        if !check_tables(&vfs, &manifest, how, &mut checked)? {
            continue;
        }
        let (files, log) = match read_log(&vfs, &manifest) {
            Err(cause) if is_not_found(&cause) => continue,
            outcome => outcome?,
        };
        let generation = manifest.generation;
        if lost.is_none() && is_replaced(&vfs, generation)? {
            continue;
        }
        let writer_alive = alive || (how.is_writer_alive)();
        let believed = suspected.take().filter(|(before, _)| *before == generation).map(|(_, wounds)| wounds);
        let is_believed = believed.as_ref() == Some(&log.wounds) || believed.is_none() && log.wounds.is_empty();
        if !is_believed && (writer_alive || !log.wounds.is_empty()) {
            suspected = Some((generation, log.wounds));
            continue;
        }
        let mut wounds: Vec<Wound> = lost.iter().cloned().collect();
        if !is_believed {
            wounds.extend(believed.into_iter().flatten().map(unstable));
        }
        let tables = manifest.tables.iter().filter_map(|meta| checked.remove(&meta.id)).collect();
        let mut survey = StoreSurvey {
            gaps: merge_gaps(&manifest.gaps, &log.gaps, None),
            rebuilt: lost.is_some(),
            notes: notes(&vfs, &manifest, &files, writer_alive)?,
            manifest,
            tables,
            files,
            log,
            wounds,
            missing: Vec::new(),
            writer_alive,
        };
        survey.conclude(&unreadable);
        return Ok(survey);
    }
    Err(Error::io("read", how.dir, io::Error::other("it changes faster than it can be read")))
}

impl StoreSurvey {
    fn conclude(&mut self, unreadable: &Unreadable) {
        self.wounds.extend(self.tables.iter().flat_map(|(_, checked)| checked.wounds.iter().cloned()));
        self.wounds.extend(self.log.wounds.iter().cloned());
        self.missing = self.find_missing();
        if let Err(Error::Corrupt(damage)) = manifest::check_join(&self.manifest) {
            let at = damage.lsn.unwrap_or_default();
            let hole = self.missing.iter().find(|(first, last)| (*first..=*last).contains(&at)).copied();
            self.wounds.push(Wound { lsns: hole, ..Wound::of(Kind::Join, &damage) });
        }
        let log_before = self.wounds.len();
        unreadable.explain(&mut self.wounds);
        let ends_unread = |wound: &Wound| self.files.live.values().any(|segment| segment.path == wound.file);
        if let Some(wound) = self.wounds[log_before..].iter().find(|wound| ends_unread(wound)) {
            // Nothing tells what stood in a range of the log that cannot be read and that no group spans.
            let bytes = wound.end.map_or(0, |end| end - wound.offset);
            self.log.lost_bytes = Some(self.log.lost_bytes.unwrap_or(0).max(bytes));
        }
    }

    /// What lies between the floor and the end of the log, and is neither read nor a recorded gap.
    fn find_missing(&self) -> Vec<(Lsn, Lsn)> {
        let tables = self.tables.iter().flat_map(|(_, checked)| checked.good.iter().copied());
        let parts = self.log.parts.iter().map(log::Part::lsns);
        let gaps = self.gaps.iter().map(|gap| (gap.first, gap.last));
        let mut known: Vec<(Lsn, Lsn)> = tables.chain(parts).chain(gaps).collect();
        known.sort_unstable();
        let mut missing = Vec::new();
        let mut due = self.manifest.floor_lsn;
        for (first, last) in known.into_iter().chain([(self.log.next_lsn, self.log.next_lsn)]) {
            if first > due {
                missing.push((due, first.prev()));
            }
            due = due.max(last.next());
        }
        missing
    }

    /// Entries that can be read.
    pub(crate) fn entries(&self) -> u64 {
        let tables: u64 = self.tables.iter().map(|(_, checked)| checked.entries).sum();
        let log = self.log.parts.iter().map(log::Part::lsns);
        let checkpoint = self.manifest.checkpoint_lsn;
        tables + log.map(|(first, last)| last.0 - first.max(checkpoint.next()).0 + 1).sum::<u64>()
    }
}

/// Bad once, good once.
fn unstable(wound: Wound) -> Wound {
    let what = format!("it was bad when it was read first ({}), and good when it was read again", wound.what);
    Wound { kind: Kind::Unstable, lsns: None, what, ..wound }
}

/// The newest manifest; or one from the files, with what is wrong with the store's own. `None`: replaced meanwhile.
pub(crate) fn load_manifest(vfs: &Tolerant<'_>, dir: &Path) -> Result<Option<(Manifest, Option<Wound>)>> {
    let found = manifest::find(vfs).map_err(|cause| Error::io("list", dir, cause))?;
    let damage = match found.generations.last() {
        Some(&newest) => match manifest::read(vfs, newest) {
            Ok(None) => return Ok(None),
            Ok(Some(manifest)) => match find_older(vfs, &manifest)? {
                Some(_) if is_replaced(vfs, newest)? => return Ok(None),
                Some(damage) => damage,
                None => return Ok(Some((manifest, None))),
            },
            Err(Error::Corrupt(damage)) if manifest::is_newer(vfs, newest) => return Err(Error::Corrupt(damage)),
            Err(Error::Corrupt(damage)) => Wound::of(Kind::Manifest, &damage),
            Err(cause) => return Err(cause),
        },
        None => {
            let file = "MANIFEST-*".to_owned();
            let what = "the manifest is missing, and files of a store are here".to_owned();
            Wound { kind: Kind::Manifest, file, offset: 0, end: None, lsns: None, saved: 0, what }
        }
    };
    if let Some(rebuilt) = rebuild(vfs)? {
        return Ok(Some((rebuilt, Some(damage))));
    }
    if let Some(cause) = vfs.unreadable().to_error() {
        // Whether it is a store cannot be told.
        return Err(cause);
    }
    let found = match look(vfs) {
        Ok(Ground::Foreign(found)) => found,
        Ok(Ground::Empty) => "it holds no manifest".to_owned(),
        Ok(Ground::Store) | Err(Error::Corrupt(_)) => {
            format!("{}: {}, and no file of a store is left that could tell what it held", damage.file, damage.what)
        }
        Err(cause) => return Err(cause),
    };
    Err(Error::NotAStore { dir: dir.to_path_buf(), found })
}

/// What is wrong with a manifest that is older than the segments.
fn find_older(vfs: &dyn Vfs, manifest: &Manifest) -> Result<Option<Wound>> {
    let files = match WalFiles::scan(vfs, manifest.store, manifest.first_segment) {
        Err(cause) if is_not_found(&cause) => return Ok(None),
        files => files?,
    };
    Ok(match is_older(&files, manifest) {
        Some(Error::Corrupt(damage)) => Some(Wound::of(Kind::Manifest, &damage)),
        _ => None,
    })
}

/// Checks the tables that were not checked yet. `false`: one is gone, and so is the manifest that named it.
fn check_tables(
    vfs: &dyn Vfs,
    manifest: &Manifest,
    how: &mut How<'_>,
    checked: &mut BTreeMap<u64, (TableMeta, Checked)>,
) -> Result<bool> {
    let total: u64 = manifest.tables.iter().map(|table| table.file_bytes).sum();
    for meta in &manifest.tables {
        if checked.get(&meta.id).is_some_and(|(known, _)| known == meta) {
            continue;
        }
        let mut progress = |bytes| (how.progress)(bytes, total);
        let found = check(vfs, manifest.store, meta, &mut Depth { deep: how.deep, progress: &mut progress })?;
        if found.is_missing && is_replaced(vfs, manifest.generation)? {
            return Ok(false);
        }
        checked.insert(meta.id, (meta.clone(), found));
    }
    Ok(true)
}

fn read_log(vfs: &dyn Vfs, manifest: &Manifest) -> Result<(WalFiles, LogSurvey)> {
    let files = WalFiles::scan(vfs, manifest.store, manifest.first_segment)?;
    let log = log::survey(&files, manifest, Extent::Whole)?;
    Ok((files, log))
}

fn is_replaced(vfs: &dyn Vfs, generation: u64) -> Result<bool> {
    let found = manifest::find(vfs).map_err(|cause| Error::io("list", ".", cause))?;
    Ok(found.generations.last().is_some_and(|&newest| newest > generation))
}

/// A file was released or replaced between two steps.
fn is_not_found(cause: &Error) -> bool {
    matches!(cause, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
