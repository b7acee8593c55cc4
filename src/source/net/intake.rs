//! The way of everybody's entries into the log: entries of many connections in one batch, and whose they were.
//!
//! - One batch takes the entries of a whole turn of the loop, of any number of connections and sources, so that a group
//!   commit serves them all. A batch that is full is closed, and another begun.
//! - The log never makes the loop wait: a batch for which there is no room stays here, in its place in the order, and
//!   nothing more is read meanwhile ([`Intake::is_blocked`]). At most a few batches stay: what one read can amount to.
//! - With the first entry of a source goes the name of the source, with the last entry of a client in a batch its number.
//!
//! Proof: `tests/it/net_*.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Owner;
use super::clients::{ClientKey, Clients, ID_BYTES_MAX, record_key};
use crate::batch::{Batch, LsnRange};
use crate::engine::Log;
use crate::error::{Error, Result};
use crate::format::record::HEADER_BYTES;
use crate::source::Context;
use crate::source::counters::Counters;
use crate::source::names::{NAME_BYTES_MAX, SourceId};
use crate::source::sent::Sent;

/// Most bytes of a record that this module makes: header, key length, key, value.
const RECORD_BYTES: usize =
    HEADER_BYTES + 2 + 16 + if NAME_BYTES_MAX > ID_BYTES_MAX { NAME_BYTES_MAX } else { ID_BYTES_MAX };
/// What an entry takes of a batch beside its payload, in bytes: what a connection may have on its way counts it, too.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = crate::format::entry::OVERHEAD_BYTES;

/// A source in this module's list.
pub(super) type SourceIndex = usize;

/// Where an entry comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) source: SourceIndex,
    /// Who is told when it is confirmed.
    pub(super) owner: Option<Owner>,
    /// Whose number it has.
    pub(super) client: Option<(ClientKey, u64)>,
}

/// Neighbouring entries of the same origin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) source: SourceIndex,
    pub(super) owner: Option<Owner>,
    /// The client, and the number of the last entry.
    pub(super) client: Option<(ClientKey, u64)>,
    pub(super) entries: u64,
    /// Payloads and overhead.
    pub(super) bytes: usize,
}

struct Source {
    id: SourceId,
    counters: Arc<Counters>,
    /// Its name went with a batch of this run.
    is_named: bool,
}

/// A batch with the runs it consists of, in order.
#[derive(Default)]
struct Load {
    batch: Batch,
    runs: Vec<Run>,
}

/// See the module's page.
pub(super) struct Intake<'a> {
    log: &'a Log,
    pub(super) clients: Clients,
    sources: Vec<Source>,
    open: Load,
    /// Last number of each client in the open batch, and the place of its entry.
    numbers: BTreeMap<ClientKey, (u64, usize)>,
    /// Sources whose name goes with the open batch.
    names: usize,
    /// Closed batches, oldest first, for which there was no room yet.
    closed: VecDeque<Load>,
    sent: Sent<Vec<Run>>,
    spare: Vec<Batch>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(log: &'a Log, clients_max: usize) -> Intake<'a> {
        Intake {
            log,
            clients: Clients::new(log.recovered_checkpoints(), clients_max),
            sources: Vec::new(),
            open: Load::default(),
            numbers: BTreeMap::new(),
            names: 0,
            closed: VecDeque::new(),
            sent: Sent::new(),
            spare: Vec::new(),
        }
    }

    /// Adds a source of this name.
    pub(super) fn add_source(&mut self, context: Context<'a>, name: &str) -> Result<SourceIndex> {
        let id = context.names.id(name).map_err(Error::InvalidOption)?;
        self.sources.push(Source { id, counters: context.board.add(name), is_named: false });
        Ok(self.sources.len() - 1)
    }

    pub(super) fn counters(&self, source: SourceIndex) -> &Counters {
        &self.sources[source].counters
    }

    pub(super) fn name(&self, source: SourceIndex) -> &str {
        &self.sources[source].id.name
    }

    /// Takes an entry; its payload is at most 1 MiB. Ask [`Intake::is_blocked`] before reading more.
    pub(super) fn push(&mut self, origin: Origin, payload: &[u8]) -> Result<()> {
        let new_client = origin.client.filter(|(client, _)| !self.numbers.contains_key(client));
        let records = self.names + self.numbers.len() + usize::from(new_client.is_some()) + 1;
        if !self.open.batch.fits(payload.len()) || records * RECORD_BYTES > Batch::RECORDS_BYTES_MAX {
            self.close_batch()?;
        }
        let source = &mut self.sources[origin.source];
        self.open.batch.push_from(source.id.number, payload)?;
        source.counters.accept(1);
        if !source.is_named {
            let (key, name) = source.id.record();
            self.open.batch.checkpoint(&key, name)?;
            source.is_named = true;
            self.names += 1;
        }
        if let Some((client, number)) = origin.client {
            self.clients.accept(client, number);
            self.numbers.insert(client, (number, self.open.batch.len() - 1));
        }
        let bytes = payload.len() + ENTRY_OVERHEAD_BYTES;
        let is_same = |run: &&mut Run| {
            let clients = (run.client.map(|(client, _)| client), origin.client.map(|(client, _)| client));
            run.owner == origin.owner && run.source == origin.source && clients.0 == clients.1
        };
        match self.open.runs.last_mut().filter(is_same) {
            Some(run) => {
                run.client = origin.client;
                run.entries += 1;
                run.bytes += bytes;
            }
            None => self.open.runs.push(Run {
                source: origin.source,
                owner: origin.owner,
                client: origin.client,
                entries: 1,
                bytes,
            }),
        }
        Ok(())
    }

    /// Removes a client's record, behind everything that was taken before.
    pub(super) fn remove_record(&mut self, key: &[u8]) -> Result<()> {
        self.close_batch()?;
        self.open.batch.checkpoint(key, b"")?;
        self.close_batch()
    }

    fn close_batch(&mut self) -> Result<()> {
        for (client, (number, entry)) in std::mem::take(&mut self.numbers) {
            let key = record_key(self.clients.id(client));
            self.open.batch.checkpoint_with_lsn(&key, &number.to_le_bytes(), entry)?;
        }
        self.names = 0;
        if self.open.batch.is_empty() && self.open.batch.records().is_empty() {
            return Ok(());
        }
        let next = Load { batch: self.spare.pop().unwrap_or_default(), runs: Vec::new() };
        self.closed.push_back(std::mem::replace(&mut self.open, next));
        Ok(())
    }

    /// Hands over what has been taken, as far as there is room.
    pub(super) fn submit(&mut self) -> Result<()> {
        if self.closed.is_empty() {
            self.close_batch()?;
        }
        while let Some(load) = self.closed.front() {
            let Some(ticket) = self.log.hand_over(&load.batch, false)? else { return Ok(()) };
            let Load { mut batch, runs } = self.closed.pop_front().expect("there is a front");
            self.sent.push(ticket, runs.iter().map(|run| run.entries).sum(), runs);
            if self.spare.is_empty() {
                batch.clear();
                self.spare.push(batch);
            }
            if self.closed.is_empty() {
                self.close_batch()?;
            }
        }
        Ok(())
    }

    /// Whether the log has no room at present. Nothing more may be taken then; what is refused for want of space may come.
    pub(super) fn is_blocked(&self) -> bool {
        !self.closed.is_empty() && !self.log.is_refusing()
    }

    /// Whether everything that was taken has been handed over.
    pub(super) fn is_handed_over(&self) -> bool {
        self.closed.is_empty() && self.open.runs.is_empty()
    }

    /// Whether something was taken and not confirmed.
    pub(super) fn is_busy(&self) -> bool {
        !self.sent.is_empty() || !self.is_handed_over()
    }

    /// The oldest batch, if it is confirmed: its LSNs and its runs.
    ///
    /// # Errors
    /// The log has failed, and nothing more will be confirmed.
    pub(super) fn confirmed(&mut self) -> Result<Option<(LsnRange, Vec<Run>)>> {
        let confirmed = self.sent.confirmed()?;
        for run in confirmed.iter().flat_map(|(_, runs)| runs) {
            self.sources[run.source].counters.store(run.entries);
        }
        Ok(confirmed)
    }
}
