//! Whether the log can commit, asked when somebody wants to know: the question of [`Watchdog`], with the patience of a
//! request.
//!
//! - One question is on its way, however many ask; a good answer stands for a second, so asking often costs the log nothing.
//! - A full disk is no reason to feed the service manager's watchdog less, since a restart makes no room. Whoever monitors
//!   wants to know of it: here it is a failure, with its sentence.

use std::time::{Duration, Instant};

use crate::daemon::watchdog::{Health, Watchdog};
use crate::engine::Log;

/// How long the log may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where it is known to wait for space.
const PATIENCE_NO_SPACE: Duration = Duration::from_secs(1);
/// How long a good answer stands.
const FRESH: Duration = Duration::from_secs(1);

/// The log can commit, or a sentence why it cannot.
pub(super) type Verdict = Result<(), String>;

/// See the module's page.
#[derive(Default)]
pub(super) struct Checkup {
    watchdog: Watchdog,
    /// When the question on its way was asked.
    asked: Option<Instant>,
    well_until: Option<Instant>,
}

impl Checkup {
    /// Whether an answer is on its way.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// When patience ends next. Behind its end only the answer is waited for, and the log tells when it is there.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let asked = self.asked?;
        [asked + PATIENCE_NO_SPACE, asked + PATIENCE].into_iter().find(|end| *end > now)
    }

    /// Takes in what the log has said since.
    pub(super) fn look(&mut self, log: &Log, now: Instant) {
        if self.asked.is_some()
            && let Some(health) = self.watchdog.answer(log)
        {
            self.asked = None;
            self.well_until = (health == Health::Well).then_some(now + FRESH);
        }
    }

    /// What to say to somebody who asks; `None`: the log has a little more time to answer.
    pub(super) fn verdict(&mut self, log: &Log, now: Instant) -> Option<Verdict> {
        if let Some(failure) = log.failure() {
            return Some(Err(failure.to_string()));
        }
        if self.well_until.is_some_and(|until| now < until) {
            return Some(Ok(()));
        }
        if self.asked.is_none() {
            self.watchdog.ask(log);
            self.asked = Some(now);
            // Where nothing is on its way to the disk, the answer may be there already.
            self.look(log, now);
        }
        let Some(asked) = self.asked else {
            return Some(self.well_until.map(drop).ok_or_else(|| "the log has stopped".to_owned()));
        };
        let has_no_space = Watchdog::unanswered(log) == Health::NoSpace;
        let patience = if has_no_space { PATIENCE_NO_SPACE } else { PATIENCE };
        let waited = now.duration_since(asked);
        (waited >= patience).then(|| {
            Err(match has_no_space {
                true => "the log waits for space on its disk: nothing is lost, and producers wait; free some space".to_owned(),
                false => format!(
                    "the log has not answered for {} s whether everything is durable: its device does not come back from a \
                     write, or the log hangs; look at the messages of the kernel (dmesg)",
                    waited.as_secs()
                ),
            })
        })
    }
}
