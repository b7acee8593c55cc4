//! A consistent look at a store that may be written to meanwhile: the manifest, and the log behind its checkpoint.
//!
//! The manifest is read first, then the log. If a newer manifest has released a segment that was read, the look is taken
//! anew: released segments may be reused. What lies above the highest durable LSN found is taken, while a writer is alive,
//! as far as it vouches for it (it alone knows); when there is none, as far as it validates, marked unconfirmed.
//!
//! Damage of the log does not end the look: what [`crate::survey`] takes behind it is part of it, and each damaged place is
//! reported when its turn comes. Nor does a manifest that is lost, damaged or old, for those who ask for it
//! ([`Lost::Rebuilt`]): the files tell what they hold, and what is wrong is reported last.
//!
//! Memory: one reference per group of the log behind the checkpoint, which the memtable's size bounds.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::facts::source_names;
use crate::format::manifest::Manifest;
use crate::format::{ClockStep, Gap, Lsn};
use crate::io::Vfs;
use crate::manifest;
use crate::query::vouch::Writer;
use crate::reactor::open::{Ground, merge_gaps, survey};
#[cfg(feature = "cli")]
use crate::survey::log::GroupRef;
use crate::survey::log::{LogSurvey, Part, survey as survey_log};
use crate::survey::tolerant::{Tolerant, Unreadable};
use crate::survey::{Kind, Wound};
use crate::wal::files::WalFiles;
use crate::wal::replay::{Extent, Replay, Tail};

/// How often a look is taken anew before giving up.
const RETRIES_MAX: usize = 100;

/// What becomes of a manifest that is lost, damaged or old.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    /// It is an error.
    Refused,
    /// One is made from the files.
    #[cfg(feature = "cli")]
    Rebuilt,
}

/// See the module's page.
pub(crate) struct View {
    pub(crate) manifest: Manifest,
    pub(crate) files: WalFiles,
    /// What can be read of the log, in LSN order.
    pub(crate) parts: Vec<Part>,
    /// The first group that is found and not to be returned.
    #[cfg(feature = "cli")]
    pub(crate) beyond: Option<GroupRef>,
    /// Largest LSN to return.
    pub(crate) last_lsn: Lsn,
    /// Entries from here on are not proven durable, and nobody is alive to vouch for them.
    pub(super) unconfirmed: Option<Lsn>,
    pub(crate) gaps: Vec<Gap>,
    /// Names of sources by number, as far as the log was read: an entry's is always among them.
    pub(super) names: BTreeMap<u16, String>,
    pub(crate) clock_steps: Vec<ClockStep>,
    /// What replay found; `None` where the log is damaged.
    pub(crate) replay: Option<Replay>,
    /// What cannot be read of the log, in its order; then what is wrong with the manifest.
    pub(crate) damage: Vec<Wound>,
    pub(super) writer_alive: bool,
}

impl View {
    /// Takes a look. Nothing later than `to_ns` is asked for: what is need not be read.
    ///
    /// Damage is believed when it is found twice in a row, in the same place, under the same manifest: beside a running
    /// writer a group may be read before it was written, and one behind it after that.
    pub(super) fn take(vfs: &dyn Vfs, dir: &Path, writer: &Writer, lost: Lost, to_ns: u64) -> Result<View> {
        let mut suspected: Option<(u64, Error)> = None;
        for _ in 0..RETRIES_MAX {
            // What could not be read the last time counts only if it cannot be read this time.
            let unreadable = Unreadable::default();
            let tolerant = Tolerant::new(vfs, unreadable.clone());
            let Some((manifest, wound)) = load_manifest(vfs, &tolerant, dir, lost)? else { continue };
            let generation = manifest.generation;
            let view = View::read(&tolerant, &unreadable, (manifest, wound), writer, to_ns);
            let damage = match &view {
                Ok(view) => view.damage.first().map(Wound::to_error),
                Err(cause @ Error::Corrupt(_)) => Some(cause.clone()),
                Err(cause) if is_not_found(cause) => continue,
                Err(cause) => return Err(cause.clone()),
            };
            match damage {
                Some(damage) if is_same(suspected.as_ref(), generation, &damage) => return view,
                Some(damage) => suspected = Some((generation, damage)),
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
        let first = self.parts.first().and_then(|part| match part {
            Part::Group(group) => Some(group.segment),
            Part::Entry(_) => None,
        });
        first.is_none_or(|first| newest.first_segment <= first)
            && newest.first_segment <= self.files.live.last_key_value().map_or(u64::MAX, |(&number, _)| number)
    }

    fn read(
        vfs: &dyn Vfs,
        unreadable: &Unreadable,
        (manifest, wound): (Manifest, Option<Wound>),
        writer: &Writer,
        to_ns: u64,
    ) -> Result<View> {
        let alive_before = writer.is_alive();
        // Before the log is read: what is durable by then is in the files by then.
        let vouched = if alive_before { writer.durable_lsn() } else { None };
        let join = match manifest::check_join(&manifest) {
            Err(Error::Corrupt(damage)) => Some(Wound::of(Kind::Join, &damage)),
            checked => checked.map(|()| None)?,
        };
        let files = WalFiles::scan(vfs, manifest.store, manifest.first_segment)?;
        let mut log = survey_log(&files, &manifest, Extent::Brief { to_ns })?;
        log.wounds.extend(join.into_iter().chain(wound));
        unreadable.explain(&mut log.wounds);
        let writer_alive = alive_before || writer.is_alive();
        let (last_lsn, unconfirmed) = extent(&manifest, &log, writer_alive.then(|| vouched.unwrap_or_default()));
        #[cfg(feature = "cli")]
        let beyond = log.parts.iter().filter_map(Part::group).find(|group| group.first_lsn > last_lsn).copied();
        log.parts.retain(|part| part.lsns().0 <= last_lsn);
        Ok(View {
            gaps: merge_gaps(&manifest.gaps, &log.gaps, None),
            names: source_names(&log.checkpoints),
            manifest,
            files,
            parts: log.parts,
            #[cfg(feature = "cli")]
            beyond,
            last_lsn,
            unconfirmed,
            clock_steps: log.clock_steps,
            replay: log.replay,
            damage: log.wounds,
            writer_alive,
        })
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

/// The largest LSN to return, and the first unconfirmed one. `vouched` is what a writer says; `None` without one.
fn extent(manifest: &Manifest, log: &LogSurvey, vouched: Option<Lsn>) -> (Lsn, Option<Lsn>) {
    let found = log.parts.last().map_or(manifest.checkpoint_lsn, |part| part.lsns().1);
    let proven = log.durable_lsn.min(found);
    if let Some(vouched) = vouched {
        // Only of what was found and validates: whatever the socket says, no other bytes are returned because of it.
        return (proven.max(vouched.min(found)), None);
    }
    if log.replay.as_ref().is_some_and(|replay| replay.tail == Tail::Clean) {
        return (proven, None);
    }
    (found, (found > proven).then(|| proven.next()))
}

/// Whether there is a manifest, or may be made one; damage is for those who read on.
pub(super) fn check_is_store(vfs: &dyn Vfs, dir: &Path, lost: Lost) -> Result<()> {
    for _ in 0..RETRIES_MAX {
        if load_manifest(vfs, &Tolerant::new(vfs, Unreadable::default()), dir, lost)?.is_some() {
            return Ok(());
        }
    }
    Err(changes_too_fast(dir))
}

fn changes_too_fast(dir: &Path) -> Error {
    Error::io("read", dir, io::Error::other("it changes faster than it can be read"))
}

/// The manifest to read by, and what is wrong with the store's own where this is another one. `None`: replaced meanwhile.
#[cfg_attr(not(feature = "cli"), allow(unused_variables))]
fn load_manifest(
    vfs: &dyn Vfs,
    tolerant: &Tolerant<'_>,
    dir: &Path,
    lost: Lost,
) -> Result<Option<(Manifest, Option<Wound>)>> {
    match lost {
        Lost::Refused => Ok(newest_manifest(vfs, dir)?.map(|manifest| (manifest, None))),
        #[cfg(feature = "cli")]
        Lost::Rebuilt => crate::survey::store::load_manifest(tolerant, dir),
    }
}

pub(super) fn newest_manifest(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Manifest>> {
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
