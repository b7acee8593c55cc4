//! Appending without a daemon: this process is the one that writes to the store, for as long as it takes.

use std::collections::VecDeque;
use std::path::Path;

use super::input::Input;
use super::{Ended, SOURCE_NAME, Tally};
use crate::batch::Batch;
use crate::cli::exit::{Exit, Failure};
use crate::config::Config;
use crate::engine::{Log, Ticket};
use crate::error::Error;
use crate::format::{FlushMode, Lsn};
use crate::source::names::{Registry, SourceId};

/// Batches on their way; more would only queue in front of the engine's own limit.
const TICKETS_MAX: usize = 64;

/// Opens the store, as the daemon would but for the flush mode: an LSN is printed when its entry is durable, so only
/// cautious mode has nothing at risk for it. The inner error is that somebody else holds the lock.
pub(super) fn open(dir: &Path) -> Result<Result<Log, Failure>, Ended> {
    let variables: Vec<_> = std::env::vars_os().collect();
    let config = Config::load_without_sources(dir.to_owned(), &variables)
        .map_err(|error| Ended::Failed(Failure::new(Exit::Config, error.message)))?;
    let mut options = config.options;
    options.flush_mode = FlushMode::Cautious;
    match Log::open(dir, options) {
        Ok(log) => Ok(Ok(log)),
        Err(error @ Error::Locked { .. }) => Ok(Err(Failure::new(Exit::Locked, error.to_string()))),
        Err(error) => Err(Ended::Failed(failed(&error))),
    }
}

fn failed(error: &Error) -> Failure {
    Failure::new(Exit::of_daemon_error(error), error.to_string())
}

/// Takes everything to the log, and closes it.
pub(super) fn deliver(log: Log, input: &mut Input, tally: &mut Tally) -> Result<(), Ended> {
    let source = Registry::new(log.recovered_checkpoints())
        .id(SOURCE_NAME)
        .map_err(|why| Ended::Failed(Failure::new(Exit::Config, why)))?;
    let mut way = Way { log: &log, source, is_named: false, batch: Batch::new(), tickets: VecDeque::new() };
    let delivered = way.deliver(input, tally);
    let closed = log.close().map_err(|error| Ended::Failed(failed(&error)));
    delivered.and(closed)
}

struct Way<'a> {
    log: &'a Log,
    source: SourceId,
    /// The source's name went with a batch of this run.
    is_named: bool,
    batch: Batch,
    /// Batches on their way, oldest first.
    tickets: VecDeque<Ticket>,
}

impl Way<'_> {
    fn deliver(&mut self, input: &mut Input, tally: &mut Tally) -> Result<(), Ended> {
        while !input.is_at_end() {
            // A chunk may make several batches; what is left of it does not wait for the next.
            let taken = input.take(tally, |_, entry| self.push(entry));
            self.submit()?;
            taken?;
            self.settle(tally, if input.has_more() { TICKETS_MAX } else { 0 })?;
            tally.print();
        }
        self.settle(tally, 0)
    }

    fn push(&mut self, entry: &[u8]) -> Result<(), Ended> {
        if !self.batch.fits(entry.len()) {
            self.submit()?;
        }
        self.batch.push_from(self.source.number, entry).map_err(|error| Ended::Failed(failed(&error)))
    }

    fn submit(&mut self) -> Result<(), Ended> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let named = match self.is_named {
            true => Ok(()),
            false => {
                let (key, name) = self.source.record();
                self.batch.checkpoint(&key, name)
            }
        };
        let submitted = named.and_then(|()| self.log.submit(&self.batch));
        self.batch.clear();
        match submitted {
            Ok(ticket) => {
                self.is_named = true;
                self.tickets.push_back(ticket);
                Ok(())
            }
            Err(error) if self.tickets.is_empty() => Err(Ended::Failed(failed(&error))),
            Err(error) => Err(self.unknown(&error)),
        }
    }

    /// Waits for the oldest batches, until no more than `left` are on their way.
    fn settle(&mut self, tally: &mut Tally, left: usize) -> Result<(), Ended> {
        while self.tickets.len() > left || self.tickets.front().is_some_and(Ticket::is_done) {
            let Some(ticket) = self.tickets.front() else { return Ok(()) };
            match ticket.wait() {
                Ok(lsns) => (lsns.first.0..=lsns.last.0).for_each(|lsn| tally.settle(Lsn(lsn))),
                Err(error) => return Err(self.unknown(&error)),
            }
            self.tickets.pop_front();
        }
        Ok(())
    }

    /// The log failed while batches were on their way.
    fn unknown(&self, error: &Error) -> Ended {
        Ended::Unknown { entries: self.tickets.iter().map(Ticket::entries).sum(), why: error.to_string() }
    }
}
