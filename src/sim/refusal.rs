//! A log that refuses appends on a full disk, in the campaign.
//!
//! - What is refused leaves nothing: no entry, and no LSN is skipped.
//! - Whoever is accepted is confirmed, at the latest when there is room again, and what was confirmed stays.
//! - With room again, appending resumes within [`RESUMES_WITHIN`], with nobody's help.
//!
//! The driver asks as [`crate::Log::submit`] does, before it hands a batch over. That the answer to a producer is the right
//! one is not looked at here: `tests/it/full_disk.rs` does.

use std::time::Duration;

use super::rng::Rng;
use super::workload::{Action, Plan};
use crate::options::OnFull;

/// A job looks for room once a second, and then a segment is prepared.
pub(crate) const RESUMES_WITHIN: Duration = Duration::from_secs(10);
/// Longer than a disk stays full.
const UNTIL_ROOM: Duration = Duration::from_secs(6);

/// Workloads with such a seed refuse; the others are what they were before.
pub(crate) fn is_in(seed: u64) -> bool {
    seed % 16 == 7
}

/// Has a store refuse, and fills its disk a few times in its first life.
pub(crate) fn plan(rng: &mut Rng, Plan { options, actions }: &mut Plan) {
    options.on_full = OnFull::Refuse;
    options.memtable_bytes = (4 + rng.below(12) as usize) << 10;
    // A group that extends its segment needs room at once, and is not refused beforehand.
    let bytes_max = options.segment_bytes as usize / 4;
    for action in &mut *actions {
        let Action::Submit { sizes, .. } = action else { continue };
        while sizes.iter().map(|size| size + 64).sum::<usize>() > bytes_max {
            sizes.pop();
        }
        if sizes.is_empty() {
            sizes.push(100);
        }
    }
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(actions.len() as u64 + 1) as usize;
        let batch = |rng: &mut Rng| Action::Submit {
            producer: rng.below(2) as u8,
            sizes: vec![700; 1 + rng.below(4) as usize],
        };
        let mut story = vec![Action::FillDisk { blocks_left: [0, 0, 1, 2, 40][rng.below(5) as usize] }];
        for _ in 0..8 + rng.below(40) {
            story.push(batch(rng));
            story.push(Action::Turn(1 + rng.below(6)));
        }
        story.extend([Action::Idle(UNTIL_ROOM), batch(rng)]);
        if rng.coin() {
            story.push(Action::Await);
        }
        actions.splice(at..at, story);
    }
}
