//! Warnings that a stranger can cause: each kind is logged at once, then at most once in ten seconds with the number of those
//! that were left out. A broken client must not fill the disk with what is said about it.

use std::time::{Duration, Instant};

use tracing::warn;

const QUIET: Duration = Duration::from_secs(10);

/// Kinds of warnings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    TurnedAway,
    NoDescriptors,
    NoSocket,
    TooLarge,
    Unfinished,
    TimedOut,
    Malformed,
    Jump,
    Memory,
    ClientsFull,
    Datagram,
    KernelDrops,
}

const KINDS: usize = Kind::KernelDrops as usize + 1;

/// What was said when.
#[derive(Default)]
pub(super) struct Notes {
    slots: [Slot; KINDS],
}

#[derive(Default)]
struct Slot {
    said: Option<Instant>,
    left_out: u64,
}

impl Notes {
    /// Logs a sentence, or counts it.
    pub(super) fn warn(&mut self, kind: Kind, now: Instant, sentence: impl FnOnce() -> String) {
        match self.slots[kind as usize].take_turn(now) {
            None => {}
            Some(0) => warn!("{}", sentence()),
            Some(others) => {
                warn!("{} (and {others} more such events since the last message of this kind)", sentence());
            }
        }
    }
}

impl Slot {
    /// Whether it is time for a message; then how many were left out before it.
    fn take_turn(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now < said + QUIET) {
            self.left_out += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_said_at_most_once_in_ten_seconds() {
        let mut slot = Slot::default();
        let start = Instant::now();
        let seconds = [0, 1, 9, 10, 19, 20, 45];
        let turns = seconds.map(|second| slot.take_turn(start + Duration::from_secs(second)));
        assert_eq!(turns, [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }
}
