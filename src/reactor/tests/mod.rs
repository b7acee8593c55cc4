//! Regressions of the running log: sequences of events that once lost an entry, gave an LSN twice, made a sound store
//! unreadable or stopped the log.
//!
//! Each test drives a [`Core`] on a simulated machine, turn by turn, to the one moment that matters, and ends the life
//! there. Its comment tells what the lives after it would get wrong without the rule in its name.

mod flushes;
mod full_disk;
mod normal_mode;
mod recovery;
// They look at what is left as `kifa verify` does.
#[cfg(feature = "cli")]
mod retention;
mod rules;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;
use crate::error::Result;
use crate::format::{FlushMode, Gap};
use crate::io::Env;
use crate::options::Options;
use crate::query::{Reader, ScanRange};
use crate::reactor::Core;
use crate::reactor::helper::Inline;
use crate::reactor::open::open;
use crate::reactor::ops::Ops;
use crate::reactor::stage::{Reply, Request};
use crate::reactor::stats::LogStats;
use crate::sim::{CutChoice, SimDisk};

const SECOND_NS: u64 = 1_000_000_000;
/// Longest wait of one turn.
const TICK: Duration = Duration::from_millis(100);
/// Far more turns than any test needs: a log that gets there is waiting for something that never comes.
const TURNS_MAX: u32 = 200_000;

/// A log in one life of a machine.
struct Life {
    disk: SimDisk,
    ops: Rc<Ops>,
    core: Core,
    turns: u32,
}

fn options(flush_mode: FlushMode) -> Options {
    Options { flush_mode, segment_bytes: 64 << 10, memtable_bytes: 64 << 10, ..Options::default() }
}

fn cautious() -> Options {
    options(FlushMode::Cautious)
}

fn normal() -> Options {
    options(FlushMode::Normal)
}

impl Life {
    fn try_open(disk: &SimDisk, options: Options) -> Result<Life> {
        let ops = Ops::new(disk.backend(), Arc::new(disk.env()), Box::new(Inline));
        let core = open(&ops, disk.vfs(), options)?;
        Ok(Life { disk: disk.clone(), ops, core, turns: 0 })
    }

    fn open(disk: &SimDisk, options: Options) -> Life {
        Life::try_open(disk, options).unwrap_or_else(|cause| panic!("the store must open: {cause}"))
    }

    /// One turn and the wait behind it.
    fn step(&mut self) {
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "the log makes no headway");
        self.core.turn().unwrap_or_else(|cause| panic!("the log must go on: {cause}"));
        // Time passes even where nothing is left to wait for.
        let wait = self.core.next_wait().map_or(TICK, |wait| wait.min(TICK));
        self.ops.poll(Some(wait));
    }

    /// Until spares are there and the watermark has caught up: nothing is at risk and nothing under way.
    fn rest(&mut self) {
        self.wait_for_spares();
        while self.core.wal.books.watermark_lsn < self.core.wal.books.released_lsn {
            self.step();
        }
    }

    /// So many turns, or fewer if the power fails.
    fn steps(&mut self, count: u32) {
        for _ in 0..count {
            if !self.disk.powered_off() {
                self.step();
            }
        }
    }

    fn run_for(&mut self, ns: u64) {
        let end_ns = self.disk.env().mono_ns() + ns;
        while self.disk.env().mono_ns() < end_ns {
            self.step();
        }
    }

    /// Hands a batch of `count` entries over; returns its number and its last LSN.
    fn stage(&mut self, count: usize, payload_bytes: usize) -> (u64, u64) {
        let mut batch = Batch::new();
        for _ in 0..count {
            batch.push(&vec![b'x'; payload_bytes]).expect("the payload is short");
        }
        let (seq, range) = self.core.shared().submit(&batch, false).expect("the log is open").expect("there is room");
        (seq, range.last.0)
    }

    /// Whether the group is released.
    fn is_confirmed(&self, seq: u64) -> bool {
        self.is_told(seq, u64::MAX)
    }

    /// Whether the batch of this group, up to this LSN, is confirmed.
    fn is_told(&self, seq: u64, last: u64) -> bool {
        self.core.shared().is_confirmed(seq, crate::format::Lsn(last)).expect("the log goes on")
    }

    /// Appends one entry and waits until it is confirmed; returns its LSN, or `None` if the power fails first.
    fn append(&mut self, payload_bytes: usize) -> Option<u64> {
        let (seq, last) = self.stage(1, payload_bytes);
        while !self.is_confirmed(seq) {
            if self.disk.powered_off() {
                return None;
            }
            self.step();
        }
        Some(last)
    }

    /// Appends entries one by one; returns the LSN of the last.
    fn append_each(&mut self, count: usize, payload_bytes: usize) -> u64 {
        (0..count).map(|_| self.append(payload_bytes).expect("the machine has power")).last().expect("there is one")
    }

    fn active_path(&self) -> String {
        self.core.wal.active.as_ref().expect("the log has entries").path.clone()
    }

    /// Appends entries of a block each until the next one needs another segment.
    fn fill_segment(&mut self) {
        while self.core.wal.active.as_ref().is_none_or(|active| active.bytes_left() > 0) {
            self.append_each(1, 10);
        }
    }

    fn ask(&mut self, request: Request) -> Reply {
        let asked = self.core.shared().request(request).expect("the log is open");
        loop {
            if let Some(reply) = asked.try_take() {
                return reply.expect("the log goes on");
            }
            self.step();
        }
    }

    fn stats(&mut self) -> LogStats {
        match self.ask(Request::Stats) {
            Reply::Stats(stats) => *stats,
            Reply::Done | Reply::Vacuumed(_) => unreachable!("stats are answered with stats"),
        }
    }

    fn wait_for_spares(&mut self) {
        while self.stats().wal_spares < 2 {
            self.step();
        }
    }

    fn close(mut self) {
        self.ask(Request::Close);
    }

    /// The power fails, and nothing survives but what is durable.
    fn lose_all_but_the_durable(self) -> SimDisk {
        self.disk.power_off();
        self.disk.cut(CutChoice::DropAll)
    }

    /// The power fails, and everything survives that readers saw.
    fn lose_power(self) -> SimDisk {
        self.disk.power_off();
        self.disk.cut(CutChoice::KeepAll)
    }
}

/// The LSNs of all entries.
fn lsns(disk: &SimDisk) -> Vec<u64> {
    let reader = Reader::of(disk.vfs(), false);
    let mut scan = reader.scan(ScanRange::default()).expect("the store is sound");
    let mut lsns = Vec::new();
    while let Some(entry) = scan.next_entry().expect("the store is sound") {
        lsns.push(entry.lsn.0);
    }
    lsns
}

fn gaps(disk: &SimDisk) -> Vec<Gap> {
    Reader::of(disk.vfs(), false).stats().expect("the store is sound").gaps
}

/// A power cut takes all that is not durable; the store must open and hold every entry up to `confirmed`, none missing.
fn assert_survives(life: Life, confirmed: u64, what: &str) {
    let next = life.lose_all_but_the_durable();
    if let Err(cause) = Life::try_open(&next, cautious()) {
        panic!("{what}: {cause}");
    }
    assert_eq!(lsns(&next), (1..=confirmed).collect::<Vec<_>>(), "{what}");
}

/// A life on what the last one left confirms one entry, and then the power fails as above.
fn assert_can_be_built_upon(disk: &SimDisk, what: &str) {
    let mut life = Life::open(disk, cautious());
    let confirmed = life.append_each(1, 100);
    assert_survives(life, confirmed, what);
}
