//! What is asked of the reactor besides storing entries, and its answers.
//!
//! Whoever asks is answered exactly once: by the reactor, by the failure of the log, or, where the reactor panics with the
//! request in its hands, by the request itself as it is dropped.
//!
//! Proof: `engine`'s tests.

use std::sync::{Arc, Condvar, Mutex};

use super::LOCK;
use crate::error::{Error, Result};
use crate::format::FlushMode;
use crate::reactor::retain::Vacuum;
use crate::reactor::stats::LogStats;
use crate::reactor::watch::Watches;
use crate::retention::Deleted;

/// What a producer asks of the reactor besides storing entries.
#[cfg_attr(not(any(feature = "cli", test)), allow(dead_code, reason = "the program alone asks for a vacuum"))]
pub(crate) enum Request {
    /// Everything staged before is durable when the reply comes.
    Sync,
    /// Another flush mode.
    SetMode(FlushMode),
    /// Counters.
    Stats,
    /// Delete the oldest tables.
    Vacuum(Vacuum),
    /// Write the marker of a clean close and stop.
    Close,
}

/// Answer to a [`Request`].
#[cfg_attr(not(any(feature = "cli", test)), allow(dead_code, reason = "the program alone asks for a vacuum"))]
pub(crate) enum Reply {
    Done,
    Stats(Box<LogStats>),
    Vacuumed(Box<Deleted>),
}

/// A request on its way; it is carried out after the groups up to `after_seq` are released.
pub(crate) struct Pending {
    pub(crate) request: Request,
    pub(crate) after_seq: u64,
    reply: Slot,
    /// Told when it is answered.
    watches: Arc<Watches>,
    is_answered: bool,
}

impl Pending {
    /// With where its reply will be found.
    pub(super) fn new(request: Request, after_seq: u64, watches: Arc<Watches>) -> (Pending, Asked) {
        let reply = Slot::default();
        let asked = Asked(Arc::clone(&reply));
        (Pending { request, after_seq, reply, watches, is_answered: false }, asked)
    }

    pub(crate) fn answer(mut self, reply: Result<Reply>) {
        self.fill(reply);
    }

    fn fill(&mut self, reply: Result<Reply>) {
        *self.reply.0.lock().expect(LOCK) = Some(reply);
        self.reply.1.notify_all();
        self.watches.wake();
        self.is_answered = true;
    }
}

/// Whoever asked is answered even if the reactor panics with the request in its hands.
impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_answered {
            self.fill(Err(Error::Closed));
        }
    }
}

/// Where a reply is left.
type Slot = Arc<(Mutex<Option<Result<Reply>>>, Condvar)>;

/// A reply to come.
pub(crate) struct Asked(Slot);

impl Asked {
    pub(crate) fn wait(self) -> Result<Reply> {
        let mut slot = self.0.0.lock().expect(LOCK);
        loop {
            if let Some(reply) = slot.take() {
                return reply;
            }
            slot = self.0.1.wait(slot).expect(LOCK);
        }
    }

    /// The reply, if it is there.
    #[cfg(any(test, feature = "sim", feature = "cli"))]
    pub(crate) fn try_take(&self) -> Option<Result<Reply>> {
        self.0.0.lock().expect(LOCK).take()
    }
}
