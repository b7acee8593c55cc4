//! Ends the ring's wait from another thread.
//!
//! One state says whether the backend sleeps. Only a call that finds it asleep writes to the eventfd, so a storm of calls
//! costs one system call, and calls while it is busy cost none. A call that finds it busy leaves a mark that the next wait
//! sees before it begins.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};

use crate::io::Waker;

/// The backend is busy, and nobody has called since its last wait.
const BUSY: u8 = 0;
/// The backend sleeps, or is about to.
const ASLEEP: u8 = 1;
/// Somebody has called.
const CALLED: u8 = 2;

pub(super) struct WakeState {
    shared: Arc<Shared>,
}

struct Shared {
    state: AtomicU8,
    eventfd: OwnedFd,
}

impl WakeState {
    pub(super) fn new() -> std::io::Result<WakeState> {
        // Blocking on purpose: a read of it in the ring waits for the count instead of failing.
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(WakeState { shared: Arc::new(Shared { state: AtomicU8::new(BUSY), eventfd }) })
    }

    /// The request that completes when the eventfd is written to. The kernel writes 8 bytes to `count`.
    pub(super) fn read_entry(&self, count: *mut u8) -> squeue::Entry {
        opcode::Read::new(Fd(self.shared.eventfd.as_raw_fd()), count, 8).build()
    }

    /// Announces a wait. False if somebody has called meanwhile: then there is nothing to wait for.
    pub(super) fn fall_asleep(&self) -> bool {
        let state = &self.shared.state;
        if state.compare_exchange(BUSY, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return true;
        }
        self.wake_up();
        false
    }

    /// Ends a wait; true if somebody has called. What the caller did before calling is visible from here on.
    pub(super) fn wake_up(&self) -> bool {
        self.shared.state.swap(BUSY, Ordering::AcqRel) == CALLED
    }

    /// Writes to the eventfd, whatever the state.
    pub(super) fn ring(&self) {
        self.shared.ring();
    }

    pub(super) fn waker(&self) -> Waker {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || {
            if shared.state.swap(CALLED, Ordering::AcqRel) == ASLEEP {
                shared.ring();
            }
        })
    }
}

impl Shared {
    fn ring(&self) {
        // It cannot fail: the descriptor is open, and the count is far below its limit. A signal repeats it.
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(&self.eventfd, &1u64.to_ne_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(wake: &WakeState) -> u64 {
        // Leaves one in the eventfd, so that reading it never blocks.
        wake.ring();
        let mut bytes = [0; 8];
        rustix::io::read(&wake.shared.eventfd, &mut bytes).expect("the eventfd can be read");
        u64::from_ne_bytes(bytes) - 1
    }

    #[test]
    fn only_the_first_call_to_a_sleeper_costs_a_write() {
        let wake = WakeState::new().expect("an eventfd");
        let waker = wake.waker();
        (0..1000).for_each(|_| waker());
        assert_eq!(count(&wake), 0, "nobody sleeps");
        assert!(!wake.fall_asleep(), "a call before the wait is not lost");
        assert!(wake.fall_asleep(), "and ends one wait only");
        (0..1000).for_each(|_| waker());
        assert_eq!(count(&wake), 1, "one call wakes, the others find it woken");
        assert!(wake.wake_up());
        assert!(wake.fall_asleep());
        assert!(!wake.wake_up(), "nobody called during this wait");
    }
}
