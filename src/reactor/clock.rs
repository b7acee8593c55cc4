//! Timestamps of entries: strictly rising while the clock behaves, honest when it does not.
//!
//! - A backward step of up to a second is smoothed over: time goes on by a nanosecond an entry until the clock catches up.
//! - A larger step either way is followed, and reported as a [`ClockStep`]. A step is told from passing time by the
//!   monotonic clock; across a restart, where there is none, only a step backward can be told.
//!
//! Pure: the clocks are read by the caller.

use crate::format::{ClockStep, Lsn};

const STEP_NS: u64 = 1_000_000_000;

/// The last timestamp given, and where the clocks stood then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stamper {
    last_ns: u64,
    reading: Option<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    wall_ns: u64,
    mono_ns: u64,
}

impl Stamper {
    /// Goes on behind the last timestamp in the store; 0 where there is none.
    pub(crate) fn new(last_ns: u64) -> Stamper {
        Stamper { last_ns, reading: None }
    }

    /// The timestamp of the first of `count` entries (the others follow by a nanosecond each), and the step that it
    /// follows, if there is one.
    pub(crate) fn stamp(&mut self, count: u64, lsn: Lsn, wall_ns: u64, mono_ns: u64) -> (u64, Option<ClockStep>) {
        let expected_ns = match self.reading {
            Some(reading) => reading.wall_ns.saturating_add(mono_ns.saturating_sub(reading.mono_ns)),
            None => wall_ns.max(self.last_ns),
        };
        self.reading = Some(Reading { wall_ns, mono_ns });
        let forward = wall_ns > expected_ns.saturating_add(STEP_NS);
        let backward = wall_ns.saturating_add(STEP_NS) < expected_ns.max(self.last_ns);
        let step = (forward || backward).then_some(ClockStep { lsn, from_ns: expected_ns, to_ns: wall_ns });
        let first_ns = if step.is_some() { wall_ns } else { wall_ns.max(self.last_ns.saturating_add(1)) };
        self.last_ns = first_ns.saturating_add(count.saturating_sub(1));
        (first_ns, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn rises_strictly_when_the_clock_stands_still() {
        let mut stamper = Stamper::new(0);
        assert_eq!(stamper.stamp(3, Lsn(1), 10 * S, 0), (10 * S, None));
        assert_eq!(stamper.stamp(1, Lsn(4), 10 * S, 0), (10 * S + 3, None));
    }

    #[test]
    fn smooths_a_small_backward_step_over() {
        let mut stamper = Stamper::new(0);
        stamper.stamp(1, Lsn(1), 10 * S, 0);
        assert_eq!(stamper.stamp(1, Lsn(2), 10 * S - S / 2, 1), (10 * S + 1, None));
        assert_eq!(stamper.stamp(1, Lsn(3), 11 * S, S + S / 2), (11 * S, None));
    }

    #[test]
    fn follows_a_large_step_either_way_and_reports_it_once() {
        let mut stamper = Stamper::new(0);
        stamper.stamp(1, Lsn(1), 10 * S, 0);
        let step = ClockStep { lsn: Lsn(2), from_ns: 11 * S, to_ns: 1000 * S };
        assert_eq!(stamper.stamp(1, Lsn(2), 1000 * S, S), (1000 * S, Some(step)));
        assert_eq!(stamper.stamp(1, Lsn(3), 1001 * S, 2 * S), (1001 * S, None));
        let step = ClockStep { lsn: Lsn(4), from_ns: 1002 * S, to_ns: 5 * S };
        assert_eq!(stamper.stamp(1, Lsn(4), 5 * S, 3 * S), (5 * S, Some(step)));
        assert_eq!(stamper.stamp(1, Lsn(5), 6 * S, 4 * S), (6 * S, None));
    }

    #[test]
    fn small_steps_that_add_up_are_followed_in_the_end() {
        let mut stamper = Stamper::new(0);
        stamper.stamp(1, Lsn(1), 10 * S, 0);
        assert_eq!(stamper.stamp(1, Lsn(2), 10 * S - 6 * S / 10, 0).1, None);
        assert!(stamper.stamp(1, Lsn(3), 10 * S - 12 * S / 10, 0).1.is_some());
    }

    #[test]
    fn a_long_silence_is_not_a_step() {
        let mut stamper = Stamper::new(0);
        stamper.stamp(1, Lsn(1), 10 * S, 0);
        assert_eq!(stamper.stamp(1, Lsn(2), 100_000 * S, 99_990 * S), (100_000 * S, None));
    }

    #[test]
    fn after_a_restart_only_a_step_backward_can_be_told() {
        assert_eq!(Stamper::new(10 * S).stamp(1, Lsn(9), 99 * S, 5).1, None);
        let step = ClockStep { lsn: Lsn(9), from_ns: 10 * S, to_ns: 3 * S };
        assert_eq!(Stamper::new(10 * S).stamp(1, Lsn(9), 3 * S, 5), (3 * S, Some(step)));
    }
}
