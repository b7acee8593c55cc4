//! Where entries come from: each source frames its input and hands batches to the log through a [`Pipeline`].
//!
//! - A source never holds more than one chunk of input, one partial entry and one batch: a log that cannot keep up makes
//!   [`Pipeline::push`] wait, and so the producer.
//! - Every ticket is looked at. What was handed over and not confirmed is an error, never a smaller number.
//!
//! It does not retry: a log that fails stays failed until it is opened anew.
//!
//! Proof: `tests/it/daemon.rs`.

pub(crate) mod framing;
pub(crate) mod stdin;

use std::collections::VecDeque;

use crate::batch::Batch;
use crate::engine::{Log, Ticket};
use crate::error::{Error, Result};

/// Batches that one source may have on their way; more would only queue in front of the engine's own limit.
const TICKETS_MAX: usize = 256;

/// One source's way into the log: collects entries into batches and follows them until they are confirmed.
pub(crate) struct Pipeline<'a> {
    log: &'a Log,
    batch: Batch,
    /// Batches on their way, oldest first, each with its number of entries.
    tickets: VecDeque<(Ticket, u64)>,
    stored: u64,
    /// Entries of a batch that the log did not take.
    rejected: u64,
    refused: u64,
}

/// What became of a source's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    /// Entries confirmed.
    pub(crate) stored: u64,
    /// Entries handed over, or about to be, that were not confirmed. Not 0 only after an error.
    pub(crate) unconfirmed: u64,
    /// Pieces of input that were refused, each reported when it was met.
    pub(crate) refused: u64,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(log: &'a Log) -> Pipeline<'a> {
        Pipeline { log, batch: Batch::new(), tickets: VecDeque::new(), stored: 0, rejected: 0, refused: 0 }
    }

    /// Adds an entry; submits the batch in front of it when that is full.
    pub(crate) fn push(&mut self, payload: &[u8]) -> Result<()> {
        match self.batch.push(payload) {
            Err(Error::TooLarge { .. }) if !self.batch.is_empty() => {
                self.submit()?;
                self.batch.push(payload)
            }
            outcome => outcome,
        }
    }

    /// Counts a piece of input that is not stored.
    pub(crate) fn refuse(&mut self) {
        self.refused += 1;
    }

    /// Hands over what has been collected.
    pub(crate) fn submit(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while self.tickets.len() >= TICKETS_MAX {
            self.wait_for_oldest()?;
        }
        let entries = self.batch.len() as u64;
        let outcome = self.log.submit(&self.batch);
        self.batch.clear();
        match outcome {
            Ok(ticket) => self.tickets.push_back((ticket, entries)),
            Err(error) => {
                self.rejected += entries;
                return Err(error);
            }
        }
        self.reap()
    }

    /// Takes in the confirmations that are there, without waiting.
    pub(crate) fn reap(&mut self) -> Result<()> {
        while self.tickets.front().is_some_and(|(ticket, _)| ticket.is_done()) {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    /// Whether batches are on their way.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.tickets.is_empty()
    }

    /// Hands over the rest and waits until everything is confirmed.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.submit()?;
        while self.is_waiting() {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    fn wait_for_oldest(&mut self) -> Result<()> {
        let Some((ticket, entries)) = self.tickets.front() else { return Ok(()) };
        let range = ticket.wait()?;
        let given = range.last.0 - range.first.0 + 1;
        assert_eq!(given, *entries, "a batch of {entries} entries was given {given} LSNs");
        self.stored += entries;
        self.tickets.pop_front();
        Ok(())
    }

    pub(crate) fn totals(&self) -> Totals {
        let on_their_way: u64 = self.tickets.iter().map(|(_, entries)| entries).sum();
        let unconfirmed = on_their_way + self.rejected + self.batch.len() as u64;
        Totals { stored: self.stored, unconfirmed, refused: self.refused }
    }
}
