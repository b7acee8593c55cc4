//! Batches that a source has handed over and not heard of yet, oldest first, each with what the source wants to know of it
//! when it is confirmed.
//!
//! - They are looked at in their order, each once. The log confirms in the same order.
//! - A batch was given as many LSNs as it has entries, or the numbers that producers are told would be wrong.
//!
//! Proof: the tests of whoever uses it: `tests/it/daemon.rs`, `tests/it/tail.rs`, `tests/it/net`.

use std::collections::VecDeque;

use crate::batch::LsnRange;
use crate::engine::Ticket;
use crate::error::Result;

/// Batches that one source may have on their way; more would only queue in front of the engine's own limit.
const BATCHES_MAX: usize = 256;

/// See the module's page.
pub(super) struct Sent<T> {
    batches: VecDeque<(Ticket, T)>,
}

impl<T> Sent<T> {
    pub(super) fn new() -> Sent<T> {
        Sent { batches: VecDeque::new() }
    }

    /// Adds a batch of so many entries.
    pub(super) fn push(&mut self, ticket: Ticket, entries: u64, about: T) {
        let given = ticket.entries();
        assert_eq!(given, entries, "a batch of {entries} entries was given {given} LSNs");
        self.batches.push_back((ticket, about));
    }

    #[cfg(unix)]
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether the source does well to wait before it hands over more.
    pub(super) fn is_full(&self) -> bool {
        self.batches.len() >= BATCHES_MAX
    }

    /// The oldest batch, if it is confirmed. Does not wait.
    ///
    /// # Errors
    /// The log has failed, and nothing more will be confirmed.
    pub(super) fn confirmed(&mut self) -> Result<Option<(LsnRange, T)>> {
        match self.batches.front() {
            Some((ticket, _)) if ticket.is_done() => self.wait(),
            _ => Ok(None),
        }
    }

    /// Waits until the oldest batch is confirmed; `None`: there is none.
    ///
    /// # Errors
    /// As [`Sent::confirmed`].
    pub(super) fn wait(&mut self) -> Result<Option<(LsnRange, T)>> {
        let Some((ticket, about)) = self.batches.pop_front() else { return Ok(None) };
        Ok(Some((ticket.wait()?, about)))
    }
}
