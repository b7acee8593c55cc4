//! The files' way into the log: entries of many sources and the positions behind them, in one batch, without ever waiting.
//!
//! - A batch holds the entries of files together with the record of each of these files, or it is not handed over: that is
//!   what makes every line exactly one entry.
//! - Nothing here blocks. A log without room says so, and the batch stays as it is until there is some.
//! - What was never handed over was never accepted: it is still in its file.
//!
//! Proof: `tests/it/tail.rs`; the property test of `set` runs over an outlet in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::Batch;
use crate::engine::Log;
use crate::error::{Error, Result};
use crate::source::Context;
use crate::source::counters::{Board, Counters};
use crate::source::names::{NAME_BYTES_MAX, Registry, SourceId};
use crate::source::sent::Sent;

/// Room for the record that names a source.
pub(crate) const NAME_RECORD_BYTES: usize = NAME_BYTES_MAX + 64;

/// Where entries and positions go.
pub(crate) trait Outlet {
    /// A number for the source of this name, for [`Outlet::push`]; the same for the same name.
    fn source(&mut self, name: &str) -> Result<usize, String>;
    /// Keeps room for this many bytes of records in the batch; false: submit first.
    fn reserve(&mut self, bytes: usize) -> bool;
    /// Adds a line; false: submit first. Room for its source's name was reserved.
    fn push(&mut self, source: usize, line: &[u8]) -> bool;
    /// Adds a record, or changes its value; false: there is no room. For what was reserved there is.
    fn checkpoint(&mut self, key: &[u8], value: &[u8]) -> bool;
    /// Hands the batch over; false: the log has no room now, and the batch is unchanged.
    fn submit(&mut self) -> Result<bool>;
    /// Whether the batch holds nothing.
    fn is_empty(&self) -> bool;
    /// About how far the log has come: never falls.
    fn age(&self) -> u64;
}

/// One source's name and counters.
struct Source {
    id: SourceId,
    counters: Arc<Counters>,
    /// The name went with a batch of this run, or is in the one being collected.
    is_named: bool,
    /// Entries in the batch being collected.
    entries: u64,
}

/// See the module's page.
pub(crate) struct LogOutlet<'a> {
    log: &'a Log,
    names: &'a Registry,
    board: &'a Board,
    sources: Vec<Source>,
    by_name: BTreeMap<String, usize>,
    batch: Batch,
    /// Bytes of records that are in the batch or will be.
    reserved: usize,
    /// Each with the number of its entries by source.
    sent: Sent<Vec<(usize, u64)>>,
}

impl<'a> LogOutlet<'a> {
    pub(crate) fn new(context: Context<'a>) -> LogOutlet<'a> {
        LogOutlet {
            log: context.log,
            names: context.names,
            board: context.board,
            sources: Vec::new(),
            by_name: BTreeMap::new(),
            batch: Batch::new(),
            reserved: 0,
            sent: Sent::new(),
        }
    }

    pub(crate) fn counters(&self, source: usize) -> &Counters {
        &self.sources[source].counters
    }

    /// Takes in the confirmations that are there, and the log's failure if it has failed.
    pub(crate) fn reap(&mut self) -> Result<()> {
        while let Some((_, entries)) = self.sent.confirmed()? {
            self.confirm(&entries);
        }
        self.log.failure().map_or(Ok(()), Err)
    }

    /// Waits until everything that was handed over is confirmed.
    pub(crate) fn drain(&mut self) -> Result<()> {
        while let Some((_, entries)) = self.sent.wait()? {
            self.confirm(&entries);
        }
        Ok(())
    }

    fn confirm(&self, entries: &[(usize, u64)]) {
        for &(source, entries) in entries {
            self.sources[source].counters.store(entries);
        }
    }
}

impl Outlet for LogOutlet<'_> {
    fn source(&mut self, name: &str) -> Result<usize, String> {
        if let Some(&source) = self.by_name.get(name) {
            return Ok(source);
        }
        let id = self.names.id(name)?;
        let counters = self.board.add(name);
        self.sources.push(Source { id, counters, is_named: false, entries: 0 });
        self.by_name.insert(name.to_owned(), self.sources.len() - 1);
        Ok(self.sources.len() - 1)
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        let has_room = self.reserved + bytes <= Batch::RECORDS_BYTES_MAX;
        if has_room {
            self.reserved += bytes;
        }
        has_room
    }

    fn push(&mut self, source: usize, line: &[u8]) -> bool {
        if !self.batch.fits(line.len()) {
            return false;
        }
        let source = &mut self.sources[source];
        if !source.is_named {
            let (key, name) = source.id.record();
            self.batch.checkpoint(&key, name).expect("room for it was reserved");
            source.is_named = true;
        }
        self.batch.push_from(source.id.number, line).expect("it fits");
        source.entries += 1;
        true
    }

    fn checkpoint(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.batch.checkpoint(key, value).is_ok()
    }

    fn submit(&mut self) -> Result<bool> {
        if self.is_empty() {
            self.reserved = 0;
            return Ok(true);
        }
        self.reap()?;
        if self.sent.is_full() {
            return Ok(false);
        }
        let Some(ticket) = self.log.hand_over(&self.batch, false)? else { return Ok(false) };
        let mut entries = Vec::new();
        for (index, source) in self.sources.iter_mut().enumerate().filter(|(_, source)| source.entries > 0) {
            source.counters.accept(source.entries);
            entries.push((index, std::mem::take(&mut source.entries)));
        }
        self.sent.push(ticket, entries.iter().map(|(_, entries)| entries).sum(), entries);
        self.batch.clear();
        self.reserved = 0;
        Ok(true)
    }

    fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.batch.records().is_empty()
    }

    fn age(&self) -> u64 {
        self.log.confirmed_lsn().0
    }
}

/// The error of a source whose name cannot be had.
pub(crate) fn no_name(what: String) -> Error {
    Error::InvalidOption(what)
}
