//! Where entries come from: each source frames its input and hands batches to the log.
//!
//! | file | what |
//! |---|---|
//! | `stdin` | standard input |
//! | `file` | files that others write, across rotation |
//! | `net` | TCP, UDP and Unix sockets |
//! | `framing` | bytes to lines |
//! | `replies` | what a producer is told, in the order of its entries |
//! | `names` | the numbers of sources, and their names kept with the store |
//! | `sent` | batches on their way |
//! | `counters` | what each source has done |
//!
//! A source is opened before the first line is taken from any ([`Context`] is all it needs), and then runs on a thread of
//! its own until its input ends, a stop is requested, or the log fails.
//!
//! - A source never holds more than one chunk of input, one partial entry and one batch for each stream: a log that cannot
//!   keep up makes the producer wait.
//! - Every ticket is looked at. What was handed over and not confirmed is an error, never a smaller number.
//! - When a stop is requested a source reads no more, and returns when what it has accepted is confirmed.
//!
//! It does not retry: a log that fails stays failed until it is opened anew.
//!
//! Proof: `tests/it/daemon.rs`.

pub(crate) mod counters;
#[cfg(unix)]
pub(crate) mod file;
pub(crate) mod framing;
pub(crate) mod names;
#[cfg(unix)]
pub(crate) mod net;
pub(crate) mod replies;
mod sent;
pub(crate) mod stdin;

use std::sync::Arc;

use crate::batch::{Batch, LsnRange};
use crate::daemon::stop::Stop;
use crate::engine::Log;
use crate::error::{Error, Result};
use counters::{Board, Counters};
use names::{Registry, SourceId};
use replies::Replies;
use sent::Sent;

/// What every source works with.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) log: &'a Log,
    pub(crate) names: &'a Registry,
    pub(crate) board: &'a Board,
    pub(crate) stop: &'a Stop,
}

/// What a producer is told of an entry that is refused because the disk is full.
pub(crate) const FULL_LINE: &str = "ERR full the disk is full; send it again when there is space";

/// One source's way into the log: collects entries into batches and follows them until they are confirmed.
pub(crate) struct Pipeline<'a> {
    log: &'a Log,
    source: SourceId,
    counters: Arc<Counters>,
    batch: Batch,
    /// The source's name went with a batch of this run.
    named: bool,
    /// Each with its number of entries.
    sent: Sent<u64>,
    /// What the producer is told, if it wants to be told.
    replies: Option<Replies>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(context: Context<'a>, source: SourceId) -> Pipeline<'a> {
        let counters = context.board.add(&source.name);
        Pipeline {
            log: context.log,
            source,
            counters,
            batch: Batch::new(),
            named: false,
            sent: Sent::new(),
            replies: None,
        }
    }

    /// From here on every entry is answered.
    pub(crate) fn confirm_entries(&mut self) {
        self.replies = Some(Replies::default());
    }

    /// The answers, if there are any.
    pub(crate) fn replies(&mut self) -> Option<&mut Replies> {
        self.replies.as_mut()
    }

    /// Adds an entry; submits the batch in front of it when that is full. While the disk is full it may be refused.
    pub(crate) fn push(&mut self, payload: &[u8]) -> Result<()> {
        if self.log.is_refusing() {
            self.counters.refuse_full();
            if let Some(replies) = &mut self.replies {
                replies.say(FULL_LINE);
            }
            return Ok(());
        }
        match self.batch.push_from(self.source.number, payload) {
            Err(Error::TooLarge { .. }) if !self.batch.is_empty() => {
                self.submit()?;
                self.batch.push_from(self.source.number, payload)?;
            }
            outcome => outcome?,
        }
        self.counters.accept(1);
        if let Some(replies) = &mut self.replies {
            replies.await_entry();
        }
        Ok(())
    }

    /// Counts a piece of input that is not stored.
    pub(crate) fn refuse(&mut self) {
        self.counters.refuse();
    }

    /// Hands over what has been collected.
    pub(crate) fn submit(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while self.sent.is_full()
            && let Some((range, entries)) = self.sent.wait()?
        {
            self.confirm(range, entries);
        }
        if !self.named {
            let (key, name) = self.source.record();
            self.batch.checkpoint(&key, name)?;
        }
        let entries = self.batch.len() as u64;
        // What was taken before the disk was full is not refused any more.
        let outcome = self.log.hand_over(&self.batch, true);
        self.batch.clear();
        self.sent.push(outcome?.expect("it waited for room"), entries, entries);
        self.named = true;
        self.reap()
    }

    /// Takes in the confirmations that are there, without waiting.
    pub(crate) fn reap(&mut self) -> Result<()> {
        while let Some((range, entries)) = self.sent.confirmed()? {
            self.confirm(range, entries);
        }
        Ok(())
    }

    /// Whether batches are on their way.
    #[cfg(unix)]
    pub(crate) fn is_waiting(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Hands over the rest and waits until everything is confirmed.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.submit()?;
        while let Some((range, entries)) = self.sent.wait()? {
            self.confirm(range, entries);
        }
        Ok(())
    }

    fn confirm(&mut self, range: LsnRange, entries: u64) {
        self.counters.store(entries);
        if let Some(replies) = &mut self.replies {
            replies.confirm(range.first, entries);
        }
    }
}
