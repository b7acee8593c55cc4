//! Virtual time and seeded randomness: what the engine gets in place of the machine's.
//!
//! Time stands still except when a poll waits, an operation completes, or a test moves it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rng::Rng;
use crate::io::Env;

/// Where the wall clock of a new machine stands: 2026-01-31 18:30:00 UTC, in nanoseconds since the Unix epoch.
pub(crate) const WALL_NS_AT_START: u64 = 1_769_884_200_000_000_000;

/// Clocks and random numbers of one life of a simulated machine. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct SimEnv(Arc<Mutex<Clocks>>);

#[derive(Debug)]
struct Clocks {
    wall_ns: u64,
    mono_ns: u64,
    rng: Rng,
}

impl SimEnv {
    pub(super) fn new(wall_ns: u64, mono_ns: u64, rng: Rng) -> SimEnv {
        SimEnv(Arc::new(Mutex::new(Clocks { wall_ns, mono_ns, rng })))
    }

    fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `ns` pass on both clocks.
    pub(crate) fn advance(&self, ns: u64) {
        let mut clocks = self.clocks();
        clocks.wall_ns = clocks.wall_ns.saturating_add(ns);
        clocks.mono_ns = clocks.mono_ns.saturating_add(ns);
    }

    /// Sets the wall clock, as an operator or NTP would; monotonic time does not notice.
    pub(crate) fn set_wall_ns(&self, wall_ns: u64) {
        self.clocks().wall_ns = wall_ns;
    }

    /// Steps the wall clock by `ns`, forwards or backwards, not below the epoch.
    pub(crate) fn step_wall_ns(&self, ns: i64) {
        let mut clocks = self.clocks();
        clocks.wall_ns = clocks.wall_ns.saturating_add_signed(ns);
    }
}

impl Env for SimEnv {
    fn wall_ns(&self) -> u64 {
        self.clocks().wall_ns
    }

    fn mono_ns(&self) -> u64 {
        self.clocks().mono_ns
    }

    fn random_u64(&self) -> u64 {
        self.clocks().rng.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_step_leaves_monotonic_time_alone() {
        let env = SimEnv::new(1_000, 5, Rng::new(1));
        env.advance(10);
        env.step_wall_ns(-400);
        assert_eq!((env.wall_ns(), env.mono_ns()), (610, 15));
        env.step_wall_ns(-4_000);
        assert_eq!((env.wall_ns(), env.mono_ns()), (0, 15));
        env.set_wall_ns(7);
        assert_eq!((env.clone().wall_ns(), env.mono_ns()), (7, 15));
    }
}
