//! Runs the engine on a simulated machine, one step at a time on one thread, and tells the oracle what producers are
//! told. The reactor's own loop ([`crate::reactor::run`]) without the thread.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Fault;
use super::disk::SimDisk;
use super::oracle::{Found, Oracle, Seen};
use super::refusal::RESUMES_WITHIN;
use super::rule::{Rule, Violation, ensure};
use super::workload::{Action, Plan};
use crate::batch::{Batch, LsnRange};
use crate::error::Error;
use crate::format::{BLOCK_BYTES, FlushMode};
use crate::io::Env;
use crate::options::Options;
use crate::query::{Reader, ScanRange};
use crate::reactor::Core;
use crate::reactor::helper::Inline;
use crate::reactor::open::open;
use crate::reactor::ops::Ops;
use crate::reactor::retain::Vacuum;
use crate::reactor::stage::{Asked, Reply, Request};

/// Steps after which whoever still waits is taken to wait for ever.
const STEPS_MAX: u64 = 50_000;
/// Turns that an engine gets to notice that the power is gone.
const LAST_TURNS: u64 = 32;
const FULL_DISK: Duration = Duration::from_secs(5);

/// Why a life ends before its plan does.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The power failed.
    PowerOff,
    /// The engine refused to open, or latched; or a reader failed.
    Failed(Error),
    /// The engine or a reader reports damage.
    Damaged(Error),
    /// The promise is broken.
    Broken(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        Stop::Broken(violation)
    }
}

/// What a reader finds; `None` where there is no store yet.
pub(crate) fn look(disk: &SimDisk, writer_alive: bool) -> Result<Option<Seen>, Error> {
    let reader = Reader::of(disk.vfs(), writer_alive);
    let entries = match read_up_to(&reader, u64::MAX) {
        Err(Error::NotAStore { .. }) => return Ok(None),
        read => read?,
    };
    let middle_ns = entries.get(entries.len() / 2).map_or(0, |entry| entry.timestamp_ns);
    let up_to = (middle_ns, read_up_to(&reader, middle_ns)?);
    let stats = reader.stats()?;
    Ok(Some(Seen { entries, up_to, gaps: stats.gaps, clock_steps: stats.clock_steps }))
}

/// Entries up to a time.
fn read_up_to(reader: &Reader, to_ns: u64) -> Result<Vec<Found>, Error> {
    let mut scan = reader.scan(ScanRange { to_ns, ..ScanRange::default() })?;
    let mut entries = Vec::new();
    while let Some(entry) = scan.next_entry()? {
        entries.push(Found::from(entry));
    }
    Ok(entries)
}

/// Whether the log opens, with nobody watching.
pub(crate) fn try_open(disk: &SimDisk, options: &Options) -> Result<(), Error> {
    let ops = Ops::new(disk.backend(), Arc::new(disk.env()), Box::new(Inline));
    open(&ops, disk.vfs(), options.clone()).map(drop)
}

/// One life of a log on a machine, between its opening and its end.
pub(crate) struct Driver<'a> {
    disk: SimDisk,
    oracle: &'a mut Oracle,
    options: Options,
    ops: Rc<Ops>,
    core: Core,
    /// Batches on their way.
    tickets: VecDeque<(u64, LsnRange)>,
    /// Requests on their way, each with the last LSN that it covers.
    asked: VecDeque<(Asked, Asks, u64)>,
    /// When the disk has room again.
    room_at_ns: Option<u64>,
    /// After the last turn nothing was in flight and nothing due: it waits for producers.
    at_rest: bool,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Sync,
    Mode(FlushMode),
    Stats,
    Vacuum,
    Close,
}

impl<'a> Driver<'a> {
    /// Opens the log and checks what it recovers; `fault` holds for the opening alone.
    fn open(
        disk: &SimDisk,
        options: &Options,
        fault: Option<Fault>,
        oracle: &'a mut Oracle,
    ) -> Result<Driver<'a>, Stop> {
        let (ops, core) = opened(disk, options, fault, oracle)?;
        Ok(Driver {
            disk: disk.clone(),
            oracle,
            options: options.clone(),
            ops,
            core,
            tickets: VecDeque::new(),
            asked: VecDeque::new(),
            room_at_ns: None,
            at_rest: false,
        })
    }

    /// Lives a whole life. However it ends, the machine has no power then, and what was in flight still is.
    pub(crate) fn live(disk: &SimDisk, plan: &Plan, oracle: &'a mut Oracle) -> Result<(), Stop> {
        Driver::live_behind(disk, plan, None, oracle)
    }

    /// As [`Driver::live`]; `fault` meets the log while it opens, and nobody else.
    pub(crate) fn live_behind(
        disk: &SimDisk,
        plan: &Plan,
        fault: Option<Fault>,
        oracle: &'a mut Oracle,
    ) -> Result<(), Stop> {
        let mut driver = Driver::open(disk, &plan.options, fault, oracle)?;
        for action in &plan.actions {
            let outcome = driver.act(action);
            if outcome.is_err() {
                disk.power_off();
                return outcome;
            }
            if matches!(action, Action::CloseAndOpen | Action::ExitAndOpen) {
                let reopened = driver.reopen()?;
                let Some(reopened) = reopened else { break };
                driver = reopened;
            }
        }
        disk.power_off();
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.disk.env().mono_ns()
    }

    /// Carries one action out.
    pub(crate) fn act(&mut self, action: &Action) -> Result<(), Stop> {
        if self.core.is_closed() {
            return Ok(());
        }
        self.disk.note(&format!("{action:?}"));
        match action {
            Action::Submit { producer, sizes } => self.submit(*producer, sizes),
            Action::Turn(times) => (0..*times).try_for_each(|_| self.step(None)),
            Action::Await => self.wait_until("a batch", |driver| driver.tickets.is_empty()),
            Action::Sync { wait } => self.ask(Request::Sync, Asks::Sync, *wait),
            Action::SetMode { mode, wait } => self.ask(Request::SetMode(*mode), Asks::Mode(*mode), *wait),
            Action::Stats => self.ask(Request::Stats, Asks::Stats, true),
            Action::Look => self.look(),
            Action::Watch => self.watch(),
            Action::Idle(time) => {
                let until_ns = self.now_ns() + time.as_nanos() as u64;
                self.wait_for(until_ns)
            }
            Action::Stall(time) => {
                let ns = time.as_nanos() as u64;
                self.disk.env().advance(ns);
                self.oracle.stalled(ns);
                Ok(())
            }
            Action::Vacuum { keep } => self.vacuum(*keep),
            Action::StepClock(ns) => {
                self.disk.env().step_wall_ns(*ns);
                Ok(())
            }
            Action::FillDisk { blocks_left } => {
                let room = blocks_left * BLOCK_BYTES as u64;
                self.disk.set_space_bytes(Some(self.disk.space_used_bytes() + room));
                self.room_at_ns = Some(self.now_ns() + FULL_DISK.as_nanos() as u64);
                Ok(())
            }
            Action::ExitAndOpen => Ok(()),
            Action::Close | Action::CloseAndOpen => self.close(),
        }
    }

    /// As a log that refuses on a full disk is asked before anything is handed over to it; with room again it must stop.
    fn is_refused(&mut self) -> Result<bool, Stop> {
        let until_ns = self.now_ns() + RESUMES_WITHIN.as_nanos() as u64;
        while self.core.shared().is_refusing() {
            if self.disk.is_limited() {
                self.disk.note("refused");
                return Ok(true);
            }
            ensure!(Progress, self.now_ns() < until_ns, "there is room, and appends are refused");
            self.step(Some(Duration::from_secs(1)))?;
        }
        Ok(false)
    }

    fn submit(&mut self, producer: u8, sizes: &[usize]) -> Result<(), Stop> {
        if self.is_refused()? {
            return Ok(());
        }
        let number = self.oracle.next_batch();
        let mut batch = Batch::new();
        let mut payloads: Vec<Rc<[u8]>> = Vec::new();
        for (index, &size) in sizes.iter().enumerate() {
            let payload = payload(number, index, size);
            if batch.push(&payload).is_ok() {
                payloads.push(payload);
            }
        }
        batch.checkpoint(&[producer], &number.to_le_bytes()).expect("it is short");
        for _ in 0..STEPS_MAX {
            let now = (self.disk.env().wall_ns(), self.now_ns());
            if let Some((seq, lsns)) = self.core.shared().submit(&batch, false).map_err(Stop::Failed)? {
                self.oracle.submitted(lsns, payloads, (producer, number), now)?;
                self.tickets.push_back((seq, lsns));
                return Ok(());
            }
            self.step(None)?;
        }
        Err(Violation::new(Rule::Progress, "a producer waits for room for ever").into())
    }

    fn ask(&mut self, request: Request, asks: Asks, wait: bool) -> Result<(), Stop> {
        if asks == Asks::Mode(FlushMode::Normal) {
            self.oracle.set_may_gap(true);
        }
        let asked = self.core.shared().request(request).map_err(Stop::Failed)?;
        self.asked.push_back((asked, asks, self.oracle.last_lsn()));
        if wait {
            self.wait_until("a request", |driver| driver.asked.is_empty())?;
        }
        Ok(())
    }

    /// The operator names the time of an entry: what was taken before it may go, and nothing else.
    fn vacuum(&mut self, keep: u64) -> Result<(), Stop> {
        let not_before_ns = self.oracle.retention_mut().ask(keep);
        let vacuum = Vacuum { not_before_ns: Some(not_before_ns), ..Vacuum::default() };
        self.ask(Request::Vacuum(vacuum), Asks::Vacuum, true)
    }

    fn look(&mut self) -> Result<(), Stop> {
        let seen = look(&self.disk, true).map_err(failed)?;
        let seen = seen.ok_or_else(|| Violation::new(Rule::Agreement, "a reader finds no store beside the writer"))?;
        Ok(self.oracle.check_beside_writer(&seen)?)
    }

    /// A reader that takes its time, while the log goes on.
    fn watch(&mut self) -> Result<(), Stop> {
        let reader = Reader::of(self.disk.vfs(), true);
        let mut scan = reader.scan(ScanRange::default()).map_err(failed)?;
        let mut entries = Vec::new();
        while let Some(entry) = scan.next_entry().map_err(failed)? {
            entries.push(Found::from(entry));
            if entries.len().is_multiple_of(4) {
                self.step(None)?;
            }
        }
        Ok(self.oracle.check_watched(&entries)?)
    }

    fn close(&mut self) -> Result<(), Stop> {
        self.ask(Request::Close, Asks::Close, true)?;
        self.wait_until("the close", |driver| driver.core.is_closed())?;
        ensure!(Progress, self.tickets.is_empty(), "the log is closed before everything is confirmed");
        Ok(())
    }

    /// The process ends, what it has in flight completes, and another one opens the log; not where a directory is stuck,
    /// for the names that a process makes there are lost with the next cut, whatever it does.
    fn reopen(self) -> Result<Option<Driver<'a>>, Stop> {
        let Driver { disk, oracle, options, ops, core, .. } = self;
        drop((core, ops));
        disk.set_space_bytes(None);
        if disk.is_stuck() {
            return Ok(None);
        }
        oracle.ended(disk.env().mono_ns());
        Driver::open(&disk, &options, None, oracle).map(Some)
    }

    /// A turn of the engine, a look at what it confirms and answers, and a poll of at most `longest`.
    fn step(&mut self, longest: Option<Duration>) -> Result<(), Stop> {
        self.turn()?;
        if self.disk.powered_off() {
            return Err(self.last_turns());
        }
        if self.room_at_ns.is_some_and(|at_ns| at_ns <= self.now_ns()) {
            self.disk.set_space_bytes(None);
            self.room_at_ns = None;
        }
        let wait = self.core.next_wait();
        self.at_rest = wait.is_none() && self.disk.in_flight() == 0;
        self.ops.poll(wait.into_iter().chain(longest).min());
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Stop> {
        let outcome = if self.core.is_closed() { Ok(()) } else { self.core.turn() };
        if let Err(cause) = &outcome {
            self.core.fail(cause.clone());
        }
        self.hear()?;
        outcome.map_err(|cause| if self.disk.powered_off() { Stop::PowerOff } else { Stop::Failed(cause) })
    }

    /// Without power every completion is an error: the engine must stop, and confirm nothing of what was in flight.
    fn last_turns(&mut self) -> Stop {
        for _ in 0..LAST_TURNS {
            self.ops.poll(Some(Duration::ZERO));
            if let Err(stop) = self.turn() {
                return stop;
            }
        }
        Stop::PowerOff
    }

    /// Tells the oracle what producers and askers are told.
    fn hear(&mut self) -> Result<(), Violation> {
        let (mode, now_ns) = (self.core.shared().mode(), self.now_ns());
        while let Some(&(seq, lsns)) = self.tickets.front() {
            if !matches!(self.core.shared().is_confirmed(seq, lsns.last), Ok(true)) {
                break;
            }
            self.oracle.confirmed(lsns, mode, now_ns);
            self.tickets.pop_front();
        }
        while let Some((asked, ..)) = self.asked.front() {
            let Some(reply) = asked.try_take() else { break };
            let (_, asks, lsn) = self.asked.pop_front().expect("there is a front");
            let Ok(reply) = reply else { continue };
            let waiting = self.tickets.front().is_some_and(|(_, lsns)| lsns.first.0 <= lsn);
            ensure!(Progress, !waiting, "a request is answered before what came before it is confirmed");
            self.answered(asks, lsn, reply)?;
        }
        Ok(())
    }

    fn answered(&mut self, asks: Asks, lsn: u64, reply: Reply) -> Result<(), Violation> {
        match asks {
            Asks::Sync => self.oracle.settled(lsn),
            Asks::Mode(FlushMode::Normal) => {}
            Asks::Mode(_) | Asks::Close => {
                let normal_to_come = self.asked.iter().any(|(_, asks, _)| *asks == Asks::Mode(FlushMode::Normal));
                self.oracle.settled(lsn);
                self.oracle.set_may_gap(normal_to_come);
            }
            Asks::Vacuum => {
                let Reply::Vacuumed(deleted) = reply else {
                    return Err(Violation::new(Rule::Progress, "it is not told what was deleted"));
                };
                self.oracle.vacuumed(&deleted)?;
            }
            Asks::Stats => {
                let Reply::Stats(stats) = reply else { return Err(Violation::new(Rule::Progress, "no numbers came")) };
                ensure!(
                    Agreement,
                    stats.durable_lsn <= stats.confirmed_lsn,
                    "more is durable than confirmed: {stats:?}"
                );
                self.oracle.settled(stats.durable_lsn.0);
            }
        }
        Ok(())
    }

    fn wait_until(&mut self, what: &str, mut is_done: impl FnMut(&Self) -> bool) -> Result<(), Stop> {
        for _ in 0..STEPS_MAX {
            if is_done(self) {
                return Ok(());
            }
            self.step(None)?;
            ensure!(Progress, !self.at_rest || is_done(self), "the log sleeps and {what} waits");
        }
        Err(Violation::new(Rule::Progress, format!("{what} waits for ever")).into())
    }

    fn wait_for(&mut self, until_ns: u64) -> Result<(), Stop> {
        while self.now_ns() < until_ns {
            let left = Duration::from_nanos(until_ns - self.now_ns());
            self.step(Some(left))?;
        }
        Ok(())
    }
}

fn failed(cause: Error) -> Stop {
    if matches!(cause, Error::Corrupt(_)) { Stop::Damaged(cause) } else { Stop::Failed(cause) }
}

/// Opens the log on a machine; what a reader found before, the log recovers, and a reader finds after.
fn opened(
    disk: &SimDisk,
    options: &Options,
    fault: Option<Fault>,
    oracle: &mut Oracle,
) -> Result<(Rc<Ops>, Core), Stop> {
    let before = look(disk, false).map_err(failed)?;
    oracle.check_at_rest(before.as_ref())?;
    let ops = Ops::new(disk.backend(), Arc::new(disk.env()), Box::new(Inline));
    let core = match fault {
        Some(fault) => {
            disk.fail(fault);
            let core = open(&ops, disk.vfs(), options.clone());
            disk.mend();
            core
        }
        None => open(&ops, disk.vfs(), options.clone()),
    };
    if disk.powered_off() {
        return Err(Stop::PowerOff);
    }
    if core.is_err() {
        // What is in flight stays there when the backend is dropped.
        disk.power_off();
    }
    let core = core.map_err(failed)?;
    let after = look(disk, true).map_err(failed)?;
    let after = after.ok_or_else(|| Violation::new(Rule::Agreement, "a reader finds no store after opening"))?;
    let before = before.unwrap_or_default().entries;
    ensure!(
        Agreement,
        before == after.entries,
        "a reader found {} entries before recovery and {} after it",
        before.len(),
        after.entries.len()
    );
    if !options.limits().is_off() {
        oracle.retention_mut().ask_for_all();
    }
    oracle.opened(&after, options.flush_mode, core.shared().open_first_lsn())?;
    oracle.check_checkpoints(core.checkpoints())?;
    Ok((ops, core))
}

/// Bytes that tell batch and place, and compress no better than most.
fn payload(batch: u64, index: usize, size: usize) -> Rc<[u8]> {
    let mut word = batch << 20 | index as u64;
    let mut bytes: Vec<u8> = Vec::with_capacity(size + 8);
    bytes.extend_from_slice(&word.to_le_bytes());
    while bytes.len() < size {
        word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        bytes.extend_from_slice(&(word >> 8).to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}
