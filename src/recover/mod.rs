//! Going on from a damaged store: everything good is kept, what is missing becomes a recorded gap, and no number is given
//! twice.
//!
//! | file | what |
//! |---|---|
//! | [`Plan`] | what is kept, what is missing, and where the numbers go on (this page) |
//! | [`copy`] | good entries from tables and log into new tables |
//! | [`fresh`] | `--to`: a new store beside the damaged one, which is not touched |
//! | [`accept`] | `--accept`: the same store goes on, the damaged files in `quarantine/` |
//!
//! Invariants:
//! - What the survey called good is copied, all of it, or nothing is changed: a block that was good and cannot be read a
//!   moment later is an error.
//! - Every LSN up to the plan's last is an entry, a gap recorded before, or part of a gap recorded now with the cause
//!   `Damage`. Where the end of the log cannot be told, the numbers that entries in the lost bytes may have had are skipped.
//! - The renamed manifest is the one step that counts. Before it there is the damaged store and tables that nobody names;
//!   behind it there is the new one.
//! - Nothing is deleted, and no damaged file is changed.
//!
//! Proof: `tests` (accept, cut at every operation), `tests/it/recover.rs`.

pub(crate) mod accept;
mod copy;
pub(crate) mod fresh;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::facts::Checkpoints;
use crate::format::{ClockStep, Gap, GapCause, Lsn, entry};
use crate::io::fs::{RealEnv, RealVfs, open_backend};
use crate::io::{Backend, Env, SyncMethod, Vfs};
use crate::options::IoBackend;
use crate::reactor::helper::Inline;
use crate::reactor::open::merge_gaps;
use crate::reactor::ops::Ops;
use crate::survey::store::StoreSurvey;
use crate::survey::{Kind, Wound};
use crate::wal::writer::AT_RISK_ENTRIES_MAX;

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The last number that is accounted for; the log goes on behind it.
    pub(crate) last_lsn: Lsn,
    pub(crate) floor_lsn: Lsn,
    /// Those of before and those of now, up to the last entry.
    pub(crate) gaps: Vec<Gap>,
    /// What is skipped behind the last entry: where a new log begins, and nowhere else.
    pub(crate) end_gap: Option<Gap>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) clock_steps: Vec<ClockStep>,
    /// Numbers whose entries cannot be read.
    pub(crate) missing: Vec<(Lsn, Lsn)>,
    /// Numbers behind the last entry that may have been given: the end of the log cannot be told.
    pub(crate) skipped: Option<(Lsn, Lsn)>,
}

impl Plan {
    /// What is to be done about this store.
    pub(crate) fn of(survey: &StoreSurvey) -> Plan {
        let log = &survey.log;
        let next = log.next_lsn;
        let behind = |count: u64| (next, Lsn(next.0 + count - 1));
        let skipped = log.lost_bytes.map(|bytes| behind(bytes / entry::OVERHEAD_BYTES as u64 + 1));
        let may_be_lost = (log.normal_at_end && skipped.is_none()).then(|| behind(AT_RISK_ENTRIES_MAX));
        let gap = |cause: GapCause| move |(first, last): (Lsn, Lsn)| Gap { first, last, cause };
        let new = skipped.map(gap(GapCause::Damage)).or(may_be_lost.map(gap(GapCause::UncleanNormal)));
        let missing: Vec<Gap> = survey.missing.iter().copied().map(gap(GapCause::Damage)).collect();
        Plan {
            last_lsn: new.map_or(next.prev(), |gap| gap.last),
            floor_lsn: survey.manifest.floor_lsn,
            gaps: merge_gaps(&survey.gaps, &missing, None),
            end_gap: new,
            checkpoints: log.checkpoints.clone(),
            clock_steps: log.clock_steps.clone(),
            missing: survey.missing.clone(),
            skipped,
        }
    }

    /// All gaps, where a new log begins.
    pub(crate) fn all_gaps(&self) -> Vec<Gap> {
        merge_gaps(&self.gaps, &[], self.end_gap)
    }
}

/// Whether this is damage that stays, rather than a device that fails now and then.
pub(crate) fn is_lasting(wound: &Wound) -> bool {
    wound.kind != Kind::Unstable
}

/// Opens a store's directory for writing, by the portable backend and without a reactor, and for reading.
pub(crate) fn open_dir(dir: &Path) -> Result<(Rc<Ops>, Arc<dyn Vfs>)> {
    let (backend, _) = open_backend(dir, IoBackend::Portable, SyncMethod::Auto)
        .map_err(|cause| Error::io("start I/O in", dir, cause))?;
    let vfs = RealVfs::open(dir).map_err(|cause| Error::io("open", dir, cause))?;
    Ok((ops(backend, Arc::new(RealEnv)), Arc::new(vfs)))
}

/// Operations without a reactor: CPU work runs where it is asked for.
fn ops(backend: Box<dyn Backend>, env: Arc<dyn Env>) -> Rc<Ops> {
    Ops::new(backend, env, Box::new(Inline))
}
