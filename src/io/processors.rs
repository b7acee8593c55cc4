//! Where the threads of a log run.
//!
//! Whoever waits for a device is woken on the processor that takes its interrupts, or, for the time of a hop, on another
//! one. Work that computes there is in the way of every confirmation. So helpers keep off that processor, and the reactor
//! and whoever waits for it tend to stay on it, together.
//!
//! Invariants:
//! - A thread never gets a processor that it was not allowed when the log was opened.
//! - A helper keeps off one processor at most, and off none where it has no other. Where appends wait for it, it has all of
//!   them from its next piece of work on.
//! - A log that was not asked for a processor by number is none the worse where the system tells or allows nothing.
//!
//! Proof: the tests below and in `interrupts`; `tests/engine/affinity.rs`.
#![cfg(target_os = "linux")]
// Threads that the simulator knows nothing of, on the machine's own clock.
#![allow(clippy::disallowed_methods)]

mod interrupts;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::options::CpuAffinity;
use interrupts::Interrupts;

/// How long a helper stays where it is, at least.
const STAY: Duration = Duration::from_secs(1);

/// Keeps the reactor, which calls this, on one processor.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let numbers = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    if !numbers.clone().any(|allowed| allowed == cpu) {
        let numbers = numbers.map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(", ");
        return Err(io::Error::other(format!("this thread may run on {numbers}")));
    }
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(None, &only)?)
}

/// Where a helper runs. Made and used by its thread.
pub(crate) struct Placement {
    allowed: CpuSet,
    /// Where it was sent.
    sent: CpuSet,
    keep_off: KeepOff,
    /// The processor it keeps off now.
    kept_off: Option<usize>,
    look_at: Instant,
    /// Times that appends have waited.
    stalls: u64,
}

enum KeepOff {
    Nothing,
    /// The reactor's processor.
    One(usize),
    /// The one that takes most interrupts.
    MostOf(Interrupts),
}

impl Placement {
    /// Of a helper of the log in `dir`.
    pub(crate) fn of_helper(affinity: CpuAffinity, dir: &Path) -> Placement {
        let keep_off = match affinity {
            CpuAffinity::Auto => Interrupts::of_disk_below(dir).map_or(KeepOff::Nothing, KeepOff::MostOf),
            CpuAffinity::Off => KeepOff::Nothing,
            CpuAffinity::Reactor(cpu) => KeepOff::One(cpu),
        };
        Placement::new(keep_off)
    }

    fn new(keep_off: KeepOff) -> Placement {
        // None are known where that is refused, and then it stays where it is.
        let allowed = sched_getaffinity(None).unwrap_or_default();
        Placement { allowed, sent: allowed, keep_off, kept_off: None, look_at: Instant::now(), stalls: 0 }
    }

    /// Looks where to run, before a piece of work; `stalls` times have appends waited for one so far.
    pub(crate) fn look(&mut self, stalls: u64) {
        let now = Instant::now();
        let keep_off = if self.stalls != stalls {
            self.stalls = stalls;
            None
        } else if now < self.look_at {
            return;
        } else {
            match &mut self.keep_off {
                KeepOff::Nothing => None,
                KeepOff::One(cpu) => Some(*cpu),
                KeepOff::MostOf(interrupts) => interrupts.most_on(),
            }
        };
        self.look_at = now + STAY;
        if keep_off != self.kept_off {
            self.kept_off = keep_off;
            self.go();
        }
    }

    fn go(&mut self) {
        match sched_getaffinity(None) {
            // Somebody else has sent it elsewhere (taskset).
            Ok(found) if found != self.sent => self.allowed = found,
            _ => {}
        }
        let mut cpus = self.allowed;
        if let Some(cpu) = self.kept_off.filter(|&cpu| cpu < CpuSet::MAX_CPU) {
            cpus.unset(cpu);
        }
        if cpus.count() > 0 {
            // Where that is refused, it runs where the system puts it.
            let _ = sched_setaffinity(None, &cpus);
            self.sent = cpus;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The processors that this thread may run on.
    fn own() -> Vec<usize> {
        let set = sched_getaffinity(None).expect("it is told");
        (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
    }

    /// Runs `test` on a thread of its own, with the processors that it may use, where these are two or more.
    fn on_a_thread(test: impl FnOnce(Vec<usize>) + Send) {
        std::thread::scope(|scope| {
            scope.spawn(move || match own() {
                cpus if cpus.len() >= 2 => test(cpus),
                _ => println!("SKIPPED: there is one processor only"),
            });
        });
    }

    #[test]
    fn a_helper_keeps_off_one_processor_unless_appends_wait() {
        on_a_thread(|cpus| {
            let mut placement = Placement::new(KeepOff::One(cpus[0]));
            placement.look(0);
            assert_eq!(own(), cpus[1..], "from the first piece of work on");
            placement.look(1);
            assert_eq!(own(), cpus, "appends have waited");
            placement.look_at += Duration::from_secs(3600);
            placement.look(1);
            assert_eq!(own(), cpus, "they waited a moment ago");
            placement.look_at = Instant::now();
            placement.look(2);
            assert_eq!(own(), cpus, "and again");
            placement.look_at = Instant::now();
            placement.look(2);
            assert_eq!(own(), cpus[1..], "and no more");
        });
    }

    #[test]
    fn what_somebody_else_decides_stays() {
        on_a_thread(|cpus| {
            let mut placement = Placement::new(KeepOff::One(cpus[0]));
            placement.look(0);
            let mut only = CpuSet::new();
            only.set(cpus[0]);
            sched_setaffinity(None, &only).expect("it may run there");
            placement.look(1);
            assert_eq!(own(), cpus[..1], "also where appends have waited");
            placement.look_at = Instant::now();
            placement.look(1);
            assert_eq!(own(), cpus[..1]);
        });
    }

    #[test]
    fn a_helper_without_another_processor_stays() {
        on_a_thread(|cpus| {
            pin(cpus[1]).expect("it may run there");
            let mut placement = Placement::new(KeepOff::One(cpus[1]));
            placement.look(0);
            assert_eq!(own(), cpus[1..2]);
            for cpu in [cpus[0], CpuSet::MAX_CPU] {
                let mut placement = Placement::new(KeepOff::One(cpu));
                placement.look(0);
                assert_eq!(own(), cpus[1..2], "it gets none that was not allowed");
            }
        });
    }

    #[test]
    fn no_processor_is_taken_that_is_not_allowed() {
        on_a_thread(|cpus| {
            pin(cpus[0]).expect("it may run there");
            assert_eq!(own(), cpus[..1]);
            for cpu in [cpus[1], 1 << 20] {
                let refusal = pin(cpu).expect_err("it may not run there").to_string();
                assert_eq!(refusal, format!("this thread may run on {}", cpus[0]));
            }
            assert_eq!(own(), cpus[..1]);
        });
    }
}
