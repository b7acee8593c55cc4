//! Who wants to be woken by the log while waiting for something else: threads that sit in `poll`.
//!
//! A condition variable wakes only who waits for it alone. A thread that serves connections waits for the network *and*
//! for its groups; it registers a waker, arms it, looks once more, and sleeps.
//!
//! Invariant: an event that comes after [`Watch::arm`] is either seen by the look that follows arming, or calls the waker.
//! Both sides write first and read second, with a sequentially consistent fence between, so one of them sees the other.
//!
//! While nobody is armed an event costs a fence and a load. The log's failure calls every waker, armed or not: whoever
//! only wants to know of that registers and never arms.
//!
//! Proof: the test below, and `tests/it`.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex};

use crate::io::Waker;

const LOCK: &str = "nothing panics while it holds this lock";

/// A thread's wish to be woken by the log: once after each [`Watch::arm`], when a group was released or taken (there is
/// room), when the durable LSN moved or a request was answered; and when the log failed, armed or not. Dropping it ends the
/// wish.
#[cfg(feature = "cli")]
pub(crate) struct Watch {
    armed: Arc<Armed>,
    watches: Arc<Watches>,
}

struct Armed {
    is_armed: AtomicBool,
    waker: Waker,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Watches {
    /// At least one may be armed.
    any: AtomicBool,
    list: Mutex<Vec<Arc<Armed>>>,
}

impl Watches {
    /// After an event: calls every armed waker, once.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        self.any.swap(false, Ordering::AcqRel);
        for armed in self.list.lock().expect(LOCK).iter() {
            if armed.is_armed.swap(false, Ordering::AcqRel) {
                (armed.waker)();
            }
        }
    }

    /// After the log's failure: calls every waker.
    pub(crate) fn wake_all(&self) {
        self.list.lock().expect(LOCK).iter().for_each(|armed| (armed.waker)());
    }
}

#[cfg(feature = "cli")]
impl Watch {
    pub(crate) fn new(watches: &Arc<Watches>, waker: Waker) -> Watch {
        let armed = Arc::new(Armed { is_armed: AtomicBool::new(false), waker });
        watches.list.lock().expect(LOCK).push(Arc::clone(&armed));
        Watch { armed, watches: Arc::clone(watches) }
    }

    /// From here on the next event calls the waker. Look at tickets and room *after* arming and before sleeping.
    #[cfg(any(unix, test))]
    pub(crate) fn arm(&self) {
        self.armed.is_armed.store(true, Ordering::Relaxed);
        self.watches.any.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

#[cfg(feature = "cli")]
impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.list.lock().expect(LOCK).retain(|held| !Arc::ptr_eq(held, &self.armed));
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn an_armed_waker_is_called_once_and_a_dropped_one_never() {
        let watches = Arc::new(Watches::default());
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let watch = Watch::new(&watches, Arc::new(move || _ = count.fetch_add(1, Ordering::SeqCst)));
        watches.wake();
        assert_eq!(calls.load(Ordering::SeqCst), 0, "not armed");
        watch.arm();
        watches.wake();
        watches.wake();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        watches.wake_all();
        assert_eq!(calls.load(Ordering::SeqCst), 2, "the log failed: armed or not");
        watch.arm();
        drop(watch);
        watches.wake();
        watches.wake_all();
        assert_eq!(calls.load(Ordering::SeqCst), 2, "dropped");
    }
}
