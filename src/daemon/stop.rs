//! The request to stop: set once, seen by every source.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::io::Waker;

const LOCK: &str = "nothing panics while it holds this lock";

/// Sources stop reading when it is requested, store and confirm what they have accepted, and end.
#[derive(Default)]
pub(crate) struct Stop {
    requested: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Stop {
    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Calls `waker` when it is requested, at once if it has been.
    #[cfg(unix)]
    pub(crate) fn on_request(&self, waker: Waker) {
        self.wakers.lock().expect(LOCK).push(waker);
        if self.is_requested() {
            self.wake();
        }
    }

    pub(crate) fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        self.wakers.lock().expect(LOCK).iter().for_each(|waker| waker());
    }
}
