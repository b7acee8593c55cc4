//! Retention in the campaign: what an operator asks for, and what may be missing because of it.
//!
//! - An entry may be missing from the front only if it lies below a floor that was asked for. An operator names a time, so
//!   that is every entry before the first one of that time or later; a limit that is configured asks for everything.
//! - What was answered has expired for good: no later life finds it.
//! - The answer tells what it was: no entry more or fewer.

use std::collections::VecDeque;
use std::time::Duration;

use super::rng::Rng;
use super::rule::{Violation, ensure};
use super::workload::{Action, Plan};
use crate::retention::Deleted;

/// What was asked for, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Entries below this LSN may be missing.
    asked_floor: u64,
    /// Entries below this LSN have expired, by the word of the log.
    floor: u64,
    /// LSN and timestamp of every entry from the floor on.
    times: VecDeque<(u64, u64)>,
    /// Entries that answers have told of.
    deleted: u64,
    /// Something was deleted without an answer: by a limit, or before a cut.
    is_partly_told: bool,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked { asked_floor: 1, floor: 1, times: VecDeque::new(), deleted: 0, is_partly_told: false }
    }
}

impl Asked {
    /// An entry got this LSN and this timestamp.
    pub(crate) fn submitted(&mut self, lsn: u64, timestamp_ns: u64) {
        self.times.push_back((lsn, timestamp_ns));
    }

    /// Everything may go but the newest `keep` entries: the time to name.
    pub(crate) fn ask(&mut self, keep: u64) -> u64 {
        let kept = usize::try_from(keep).unwrap_or(usize::MAX).min(self.times.len());
        let oldest = self.times.len() - kept;
        let Some(not_before_ns) = self.times.get(oldest).or(self.times.back()).map(|time| time.1) else { return 0 };
        let first_kept = self.times.iter().find(|time| time.1 >= not_before_ns).expect("it is one of them");
        self.asked_floor = self.asked_floor.max(first_kept.0);
        not_before_ns
    }

    /// A limit is configured: how much it comes to is the engine's to say.
    pub(crate) fn ask_for_all(&mut self) {
        self.asked_floor = u64::MAX;
        self.is_partly_told = true;
    }

    pub(crate) fn may_expire(&self, lsn: u64) -> bool {
        lsn < self.asked_floor
    }

    /// The log says what it has deleted; of the entries that were ever submitted `below_floor` lie below the floor.
    pub(crate) fn answered(&mut self, deleted: &Deleted, below_floor: u64) -> Result<(), Violation> {
        let floor = deleted.floor_lsn.0;
        let asked = self.asked_floor;
        ensure!(Agreement, floor <= asked, "the floor is {floor}, and only what lies below {asked} was to go");
        ensure!(Agreement, floor >= self.floor, "the floor was {} and is {floor}", self.floor);
        self.deleted += deleted.entries;
        ensure!(
            Agreement,
            self.is_partly_told || self.deleted == below_floor,
            "{} entries were deleted, and {below_floor} lie below {floor}",
            self.deleted
        );
        self.floor = floor;
        Ok(())
    }

    /// What a reader found first.
    pub(crate) fn check_first(&self, lsn: u64) -> Result<(), Violation> {
        ensure!(Agreement, lsn >= self.floor, "LSN {lsn} was found, and everything below {} had expired", self.floor);
        Ok(())
    }

    /// A recovery found these; nobody may have been told that the others have gone.
    pub(crate) fn opened(&mut self, first: u64, last: u64) {
        self.is_partly_told |= first > self.floor;
        self.floor = self.floor.max(first);
        self.times.retain(|time| (first..=last).contains(&time.0));
    }
}

/// Workloads with such a seed have retention; the others are what they were before there was any.
pub(crate) fn is_in(seed: u64) -> bool {
    seed % 16 == 13
}

/// Puts retention into the first life of a store.
pub(crate) fn plan(rng: &mut Rng, Plan { options, actions }: &mut Plan) {
    options.memtable_bytes = (4 + rng.below(12) as usize) << 10;
    if rng.chance(1, 4) {
        options.retention_max_bytes = Some((64 + rng.below(256)) << 10);
    }
    if rng.chance(1, 8) {
        options.retention_min_free_bytes = Some(rng.below(64) << 10);
    }
    if rng.chance(3, 4) {
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(actions.len() as u64 + 1) as usize;
            let keep = [0, 1, 5, 50][rng.below(4) as usize];
            let batch = Action::Submit { producer: 0, sizes: vec![700; 8] };
            let mut story = vec![batch; 2 + rng.below(6) as usize];
            // So much goes to tables, if there is time for it.
            story.push(Action::Idle(Duration::from_millis(rng.below(2000))));
            story.push(Action::Vacuum { keep });
            actions.splice(at..at, story);
        }
    }
}
