//! Feeding the service manager's watchdog: only while the log can commit.
//!
//! What "can commit" means here, looked at four times in each interval:
//! - The log has not failed. A latched failure ends the feed at once (and the daemon by itself; the watchdog is for the case
//!   that ending hangs).
//! - A request for "everything submitted so far is durable" that was sent at the last look has been answered since. That
//!   takes the reactor turning, the groups in flight written, and, where entries are at risk, a data sync. A reactor
//!   that hangs, or a device that does not come back from a write for a whole interval, ends the feed.
//! - An idle log answers at once, from memory: it is fed, and its device is left in peace.
//! - **A full disk is fed.** The reactor tells every second that it has looked for space in vain. Producers wait and nothing
//!   is lost; a restart would make no room, but would throw away what is on its way and every connection, and the next start
//!   would wait at the same place. The status says what is missing.
//!
//! Sources are not asked: one that is stuck holds nothing of the log back, and a restart would not feed it.
//!
//! `/healthz` of the page of metrics asks the same question (`metrics`).
//!
//! Proof: `tests/it/systemd.rs`: fed while idle and under load, and no more once the log cannot commit.

use std::time::Duration;

use crate::engine::Log;
use crate::reactor::stage::Asked;

/// Looks in each interval: a look that finds the answer of the one before feeds, so the feed comes at least every half.
const LOOKS: u32 = 4;

/// What a look found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Health {
    /// The log can commit.
    Well,
    /// It waits for space on its disk.
    NoSpace,
    /// It has not answered, or has failed.
    Ill,
}

/// The question on its way.
#[derive(Default)]
pub(crate) struct Watchdog {
    asked: Option<Asked>,
}

impl Watchdog {
    /// How long to wait between two looks, for a watchdog of this interval.
    pub(crate) fn pause(interval: Duration) -> Duration {
        (interval / LOOKS).max(Duration::from_millis(1))
    }

    /// Looks at the answer to the last question, and asks the next one if it is there.
    pub(crate) fn look(&mut self, log: &Log) -> Health {
        let health = self.answer(log).unwrap_or_else(|| Watchdog::unanswered(log));
        if health == Health::Well {
            self.ask(log);
        }
        health
    }

    /// Asks whether everything so far is durable.
    pub(crate) fn ask(&mut self, log: &Log) {
        self.asked = log.ask(crate::reactor::stage::Request::Sync).ok();
    }

    /// What the answer to the last question says; `None` where it is not there yet. No question is a good answer.
    pub(crate) fn answer(&mut self, log: &Log) -> Option<Health> {
        if log.failure().is_some() {
            return Some(Health::Ill);
        }
        let Some(asked) = self.asked.take() else { return Some(Health::Well) };
        match asked.try_take() {
            Some(Ok(_)) => Some(Health::Well),
            // The log has failed or is closed since.
            Some(Err(_)) => Some(Health::Ill),
            None => {
                self.asked = Some(asked);
                None
            }
        }
    }

    /// What it means that there is no answer.
    pub(crate) fn unanswered(log: &Log) -> Health {
        if log.waits_for_space() { Health::NoSpace } else { Health::Ill }
    }
}
