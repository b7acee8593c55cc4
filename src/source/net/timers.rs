//! Whose time is over: connections that say nothing, that do not end their line, that do not read, that do not close.
//!
//! Time runs only while it is the other side's turn: a connection that is not read from because the log has no room gets a
//! new term.
//!
//! Deadlines mostly move away, so none is kept in order: the earliest is remembered, and when it has come all connections
//! are looked at.

use std::time::{Duration, Instant};

use super::Net;
use super::conn::{Connection, Phase, Role};
use crate::config::sources::Limits;

/// How long a connection that is ending may not read what it is owed.
const UNREAD: Duration = Duration::from_secs(60);

impl Connection {
    /// When its time is over, unless something happens.
    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        match self.phase {
            Phase::Open => match (&self.role, self.line_since) {
                (Role::Control(_) | Role::Nobody, _) => None,
                (Role::Lines(_), Some(since)) => limits.line_timeout.map(|timeout| since + timeout),
                (Role::Lines(_), None) => limits.idle_timeout.map(|timeout| self.heard + timeout),
            },
            Phase::Finishing | Phase::Ending => self.replies.is_due().then_some(self.heard + UNREAD),
            Phase::Lingering { until } => Some(until),
            Phase::Gone => None,
        }
    }

    /// Its time is over.
    fn expire(&mut self, limits: &Limits, is_blocked: bool, now: Instant) {
        let is_our_turn = (self.is_readable && !self.replies.is_due()) || self.in_flight_bytes > 0;
        // Bytes that have just come are not waiting for us: a line must end in its time however often one more comes.
        let is_kept_waiting = is_blocked || self.is_held_back(limits.connection_bytes_max);
        match self.phase {
            Phase::Open if is_our_turn && (self.line_since.is_none() || is_kept_waiting) => {
                self.heard = now;
                self.line_since = self.line_since.map(|_| now);
            }
            Phase::Open => {
                let seconds = |limit: Option<Duration>| limit.unwrap_or_default().as_secs();
                match self.line_since {
                    Some(_) => {
                        self.end(&format!("ERR timeout a line must end within {} s", seconds(limits.line_timeout)))
                    }
                    None => self.end(&format!("ERR timeout nothing was said for {} s", seconds(limits.idle_timeout))),
                }
            }
            _ => self.phase = Phase::Gone,
        }
    }
}

impl Net<'_> {
    /// Notes when this connection's time is over, if that is before all others'.
    pub(super) fn set_deadline(&mut self, index: usize) {
        let deadline = self.connections[index].deadline(&self.hub.limits);
        self.next_deadline = self.next_deadline.into_iter().chain(deadline).min();
    }

    /// Ends connections whose time is over.
    pub(super) fn expire(&mut self) {
        let now = self.hub.now;
        if self.next_deadline.is_none_or(|next| now < next) {
            return;
        }
        self.next_deadline = None;
        let limits = self.hub.limits;
        let is_blocked = self.hub.intake.is_blocked();
        let indices: Vec<usize> = self.connections.iter().map(|(index, _)| index).collect();
        for index in indices {
            let connection = &mut self.connections[index];
            if connection.deadline(&limits).is_some_and(|deadline| deadline <= now) {
                let was_open = connection.phase == Phase::Open;
                connection.expire(&limits, is_blocked, now);
                let has_ended = was_open && connection.phase != Phase::Open;
                if has_ended {
                    self.note_timeout(index);
                }
                self.list(index);
            }
            self.set_deadline(index);
        }
    }
}
