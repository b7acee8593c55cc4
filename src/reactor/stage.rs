//! Where producers and the reactor meet: the open group, and the word about groups that were released.
//!
//! Producers lay their entries straight into the buffer of the open group, under a short lock that also gives LSNs and
//! timestamps, so that LSN order is staging order. The reactor takes the open group away as a whole when it is ready to
//! write it.
//!
//! Invariants:
//! - A batch lies in one group, whole.
//! - Memory is bounded: one open buffer, and at most `channel_capacity` batches that are staged and not released.
//! - A group is released exactly once, in the order of its sequence number; after a failure none is released any more.
//! - A batch is confirmed when its group is released or, in normal mode, when its last LSN is at most `confirmable_lsn`: the
//!   reactor grants that up to 49 entries ahead of durable, and only while nothing can keep it from writing the open group.
//!   The grant goes down only over LSNs that nobody has yet, so what is confirmed stays so, and confirmations are in LSN
//!   order whichever way they come.
//! - Nobody waits for ever: whoever waits is woken by the release of its group, or by the failure of the log.
//!
//! Wake-ups: one notification per group, on one of four condition variables chosen by sequence number. At most four
//! groups exist at once (open, two in flight, one just released), so a waiter is woken for its own group only.
//!
//! Proof: the tests of this module, `engine`, and the crash campaign in `sim`.

mod open;
mod request;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use crate::batch::{Batch, LsnRange};
use crate::error::{Error, Result};
use crate::format::group::HEADER_BYTES;
use crate::format::record::Record;
use crate::format::{BLOCK_BYTES, FlushMode, Lsn};
use crate::io::{AlignedBuf, Env, Waker};
use crate::reactor::gauges::Gauges;
#[cfg(feature = "cli")]
use crate::reactor::watch::Watch;
use crate::reactor::watch::Watches;
use crate::wal::replay::BRIEF_SEARCH_BYTES;
use open::Stage;
pub(crate) use request::{Asked, Pending, Reply, Request};

/// Room for the records of one group, beyond the largest batch.
const RECORDS_BYTES_MAX: usize = 64 << 10;
/// Bytes of a group buffer: header, largest batch, records.
pub(crate) const GROUP_BUFFER_BYTES: usize =
    (HEADER_BYTES + Batch::BYTES_MAX + RECORDS_BYTES_MAX).next_multiple_of(BLOCK_BYTES);
const _: () = assert!(2 * GROUP_BUFFER_BYTES as u64 <= BRIEF_SEARCH_BYTES, "the first proof of damage is searched for");
/// A second group is submitted behind one in flight once it has this many bytes: smaller ones gain more by waiting for
/// company than by overlapping.
pub(crate) const OVERLAP_BYTES_MIN: usize = 256 << 10;

/// A group taken from the stage, not yet bound to its place in the log.
pub(crate) struct StagedGroup {
    pub(crate) seq: u64,
    /// Entries lie behind [`HEADER_BYTES`].
    pub(crate) buf: AlignedBuf,
    pub(crate) entries_bytes: usize,
    pub(crate) entry_count: u32,
    /// Of the first entry, or of the next one where there is none.
    pub(crate) first_lsn: Lsn,
    pub(crate) records: Vec<Record>,
    pub(crate) batches: usize,
    /// When its first batch was staged, in monotonic nanoseconds.
    pub(crate) since_ns: u64,
}

/// What the open group holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OpenGroup {
    /// Of entries and records.
    pub(crate) bytes: usize,
    pub(crate) entries: u64,
    /// Some of its entries are confirmed already.
    pub(crate) has_confirmed: bool,
}

/// See the module's page.
pub(crate) struct Shared {
    stage: Mutex<Stage>,
    room: Condvar,
    released: AtomicU64,
    release_lock: Mutex<()>,
    release_wakes: [Condvar; 4],
    failure: OnceLock<Arc<Error>>,
    /// Largest LSN released, and durable.
    released_lsn: AtomicU64,
    durable_lsn: AtomicU64,
    /// Entries up to this LSN are confirmed when they are staged. Changed under the stage's lock.
    confirmable_lsn: AtomicU64,
    /// Producers waiting for their confirmation.
    confirmations_awaited: AtomicUsize,
    watches: Arc<Watches>,
    pub(crate) gauges: Gauges,
    /// The flush mode in force.
    mode: AtomicU8,
    /// When a job last found no space on the disk, in monotonic nanoseconds; 0: never.
    no_space_ns: AtomicU64,
    /// Nothing more is to be accepted until there is space on the disk.
    is_refusing: AtomicBool,
    batches_max: usize,
    env: Arc<dyn Env>,
    waker: Waker,
}

const LOCK: &str = "nothing panics while it holds this lock";

/// What is on its way to the disk.
#[cfg(all(feature = "cli", unix))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Load {
    /// Batches handed over and not confirmed, and how many there may be.
    pub(crate) batches: usize,
    pub(crate) batches_max: usize,
    /// Threads that wait for room.
    pub(crate) producers_waiting: usize,
    /// How long the oldest entry has waited for its confirmation, in nanoseconds; 0: none waits.
    pub(crate) oldest_unconfirmed_ns: u64,
}

/// How the stage begins its life.
pub(crate) struct Start {
    pub(crate) next_lsn: Lsn,
    pub(crate) last_timestamp_ns: u64,
    pub(crate) mode: FlushMode,
    pub(crate) batches_max: usize,
}

impl Shared {
    pub(crate) fn new(start: &Start, env: Arc<dyn Env>, waker: Waker) -> Shared {
        Shared {
            stage: Mutex::new(Stage::new(start)),
            room: Condvar::new(),
            released: AtomicU64::new(0),
            release_lock: Mutex::new(()),
            release_wakes: Default::default(),
            failure: OnceLock::new(),
            released_lsn: AtomicU64::new(0),
            durable_lsn: AtomicU64::new(0),
            confirmable_lsn: AtomicU64::new(0),
            confirmations_awaited: AtomicUsize::new(0),
            watches: Arc::default(),
            gauges: Gauges::default(),
            mode: AtomicU8::new(start.mode as u8),
            no_space_ns: AtomicU64::new(0),
            is_refusing: AtomicBool::new(false),
            batches_max: start.batches_max,
            env,
            waker,
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().expect(LOCK)
    }

    fn failed(&self) -> Result<()> {
        match self.failure.get() {
            Some(cause) => Err(Error::Stopped(Arc::clone(cause))),
            None => Ok(()),
        }
    }

    pub(crate) fn mode(&self) -> FlushMode {
        FlushMode::from_u8(self.mode.load(Ordering::Acquire)).expect("only modes are stored")
    }

    /// Largest LSN that is durable. In cautious mode, at least every LSN whose confirmation has been seen.
    pub(crate) fn durable_lsn(&self) -> Lsn {
        Lsn(self.durable_lsn.load(Ordering::Acquire))
    }

    /// Largest LSN that is confirmed.
    pub(crate) fn confirmed_lsn(&self) -> Lsn {
        let stage = self.stage();
        let ahead = self.confirmable_lsn.load(Ordering::Acquire).min(stage.next_lsn.0 - 1);
        Lsn(self.released_lsn.load(Ordering::Acquire).max(ahead))
    }

    /// Whether nothing more is to be accepted for want of space. Whoever hands something over looks at it first; what was
    /// taken before that is handed over all the same.
    pub(crate) fn is_refusing(&self) -> bool {
        self.is_refusing.load(Ordering::Acquire)
    }

    /// See [`Shared::is_refusing`].
    pub(crate) fn set_refusing(&self, is_refusing: bool) {
        if self.is_refusing.swap(is_refusing, Ordering::AcqRel) != is_refusing {
            match is_refusing {
                true => tracing::warn!("the disk is full: appends are refused until there is space"),
                false => tracing::info!("there is space again: appends are accepted"),
            }
            // Who waits with more in hand may look again: producers for room, sources for something to do.
            drop(self.stage());
            self.room.notify_all();
            self.watches.wake();
        }
    }

    /// Whether the reactor has met a full disk within this time: it looks again every second.
    #[cfg(feature = "cli")]
    pub(crate) fn had_no_space_within(&self, time: std::time::Duration) -> bool {
        let last_ns = self.no_space_ns.load(Ordering::Relaxed);
        last_ns != 0 && u128::from(self.env.mono_ns().saturating_sub(last_ns)) <= time.as_nanos()
    }

    /// How much is on its way.
    #[cfg(all(feature = "cli", unix))]
    pub(crate) fn load(&self) -> Load {
        let in_flight_ns = self.gauges.numbers().unconfirmed_since_ns;
        let stage = self.stage();
        // In normal mode entries of the open group may be confirmed already.
        let is_confirmed = self.confirmable_lsn.load(Ordering::Acquire) >= stage.next_lsn.0 - 1;
        let open_ns = (!stage.is_empty() && !is_confirmed).then_some(stage.since_ns);
        let oldest_ns = open_ns.into_iter().chain((in_flight_ns != 0).then_some(in_flight_ns)).min();
        Load {
            batches: stage.batches_outstanding,
            batches_max: self.batches_max,
            producers_waiting: stage.waiting,
            oldest_unconfirmed_ns: oldest_ns.map_or(0, |since_ns| self.env.mono_ns().saturating_sub(since_ns)),
        }
    }

    /// Why the log has stopped, if it has.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failed().err()
    }

    /// Registers a watch; see [`Watch`].
    #[cfg(feature = "cli")]
    pub(crate) fn watch(&self, waker: Waker) -> Watch {
        Watch::new(&self.watches, waker)
    }

    // The producers' side.

    /// Stages a batch and returns the sequence number of its group and its LSNs. Waits while there is no room, unless
    /// `wait` is off: then `None`.
    pub(crate) fn submit(&self, batch: &Batch, wait: bool) -> Result<Option<(u64, LsnRange)>> {
        assert!(!batch.is_empty() || !batch.records().is_empty(), "an empty batch never reaches the stage");
        let mut stage = self.stage();
        loop {
            self.failed()?;
            if stage.closing {
                return Err(Error::Closed);
            }
            if stage.batches_outstanding < self.batches_max && stage.has_room(batch) {
                break;
            }
            if !wait {
                return Ok(None);
            }
            stage.waiting += 1;
            stage = self.room.wait(stage).expect(LOCK);
            stage.waiting -= 1;
        }
        if !stage.is_within_limit(batch) {
            // A batch that is larger than the room that was promised may have to wait for a segment.
            self.revoke(&stage);
        }
        let range = stage.push(batch, self.env.wall_ns(), self.env.mono_ns());
        let seq = stage.seq;
        let open_bytes = stage.body_bytes();
        let wake = stage.wake_at.take_if(|wake_at| open_bytes >= *wake_at).is_some();
        drop(stage);
        if wake {
            (self.waker)();
        }
        Ok(Some((seq, range)))
    }

    /// Whether a batch is confirmed (then `Ok(true)`), or never will be: by the sequence number of its group and its last
    /// LSN.
    pub(crate) fn is_confirmed(&self, seq: u64, last: Lsn) -> Result<bool> {
        if self.released.load(Ordering::Acquire) >= seq || self.confirmable_lsn.load(Ordering::Acquire) >= last.0 {
            return Ok(true);
        }
        self.failed()?;
        Ok(false)
    }

    /// Waits until a batch is confirmed.
    pub(crate) fn wait_confirmed(&self, seq: u64, last: Lsn) -> Result<()> {
        if self.is_confirmed(seq, last)? {
            return Ok(());
        }
        let mut guard = self.release_lock.lock().expect(LOCK);
        self.confirmations_awaited.fetch_add(1, Ordering::Relaxed);
        let outcome = loop {
            match self.is_confirmed(seq, last) {
                Ok(false) => guard = self.release_wakes[(seq % 4) as usize].wait(guard).expect(LOCK),
                outcome => break outcome.map(drop),
            }
        };
        self.confirmations_awaited.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    /// Hands a request over.
    pub(crate) fn request(&self, request: Request) -> Result<Asked> {
        let mut stage = self.stage();
        self.failed()?;
        if stage.closing {
            return Err(Error::Closed);
        }
        stage.closing = matches!(request, Request::Close);
        // What is staged behind a request waits for it, however long that takes.
        self.revoke(&stage);
        let after_seq = if stage.is_empty() { stage.seq - 1 } else { stage.seq };
        let (pending, asked) = Pending::new(request, after_seq, Arc::clone(&self.watches));
        stage.requests.push_back(pending);
        stage.wake_at = None;
        drop(stage);
        (self.waker)();
        Ok(asked)
    }

    // The reactor's side.

    /// Takes the open group away, leaving `spare` in its place, if `is_right` says so of its bytes and entries: producers
    /// may have added to it since it was looked at. Else hands `spare` back. There must be something in the group.
    pub(crate) fn take_group(
        &self,
        spare: AlignedBuf,
        is_right: impl FnOnce(OpenGroup) -> bool,
    ) -> Result<StagedGroup, AlignedBuf> {
        let mut stage = self.stage();
        assert!(!stage.is_empty(), "only the reactor takes groups, and it looked");
        if !is_right(self.open_group(&stage)) {
            return Err(spare);
        }
        // The next group's room is not known yet.
        self.revoke(&stage);
        let buf = std::mem::replace(&mut stage.buf, spare);
        let group = StagedGroup {
            seq: stage.seq,
            buf,
            entries_bytes: std::mem::take(&mut stage.entries_bytes),
            entry_count: std::mem::take(&mut stage.entry_count),
            first_lsn: stage.first_lsn,
            records: std::mem::take(&mut stage.records),
            batches: std::mem::take(&mut stage.batches),
            since_ns: stage.since_ns,
        };
        stage.records_bytes = 0;
        stage.seq += 1;
        stage.first_lsn = stage.next_lsn;
        let wake = stage.waiting > 0;
        drop(stage);
        if wake {
            self.room.notify_all();
        }
        self.watches.wake();
        Ok(group)
    }

    /// Sets the size the open group should not grow beyond: what is left of the segment.
    pub(crate) fn limit_group(&self, body_bytes_max: usize) {
        self.stage().body_bytes_max = body_bytes_max.min(GROUP_BUFFER_BYTES - HEADER_BYTES);
    }

    /// The open group; `None` where it is empty.
    pub(crate) fn open(&self) -> Option<OpenGroup> {
        let stage = self.stage();
        (!stage.is_empty()).then(|| self.open_group(&stage))
    }

    fn open_group(&self, stage: &Stage) -> OpenGroup {
        OpenGroup {
            bytes: stage.body_bytes(),
            entries: u64::from(stage.entry_count),
            has_confirmed: stage.entry_count > 0 && self.confirmable_lsn.load(Ordering::Acquire) >= stage.first_lsn.0,
        }
    }

    /// Lets entries up to `lsn` be confirmed when they are staged, unless a request waits.
    pub(crate) fn grant(&self, lsn: Lsn) {
        let stage = self.stage();
        let held = self.confirmable_lsn.load(Ordering::Acquire);
        let is_too_large = stage.body_bytes() > stage.body_bytes_max;
        if stage.closing || !stage.requests.is_empty() || is_too_large || held >= lsn.0 {
            return;
        }
        self.confirmable_lsn.store(lsn.0, Ordering::Release);
        drop(stage);
        // Whoever looked before the grant sleeps by now, or will look again.
        drop(self.release_lock.lock().expect(LOCK));
        if self.confirmations_awaited.load(Ordering::Relaxed) > 0 {
            self.release_wakes.iter().for_each(Condvar::notify_all);
        }
        self.watches.wake();
    }

    /// Ends the grant for entries that are not staged yet.
    pub(crate) fn end_grant(&self) {
        self.revoke(&self.stage());
    }

    fn revoke(&self, stage: &Stage) {
        let before = self.confirmable_lsn.load(Ordering::Acquire);
        self.confirmable_lsn.store(before.min(stage.next_lsn.0 - 1), Ordering::Release);
    }

    /// LSN of the first entry of the open group, whether it has one yet or not.
    pub(crate) fn open_first_lsn(&self) -> Lsn {
        self.stage().first_lsn
    }

    /// The request that may be carried out now that groups up to `released` are.
    pub(crate) fn take_request(&self, released: u64) -> Option<Pending> {
        let mut stage = self.stage();
        stage.requests.pop_front_if(|pending| pending.after_seq <= released)
    }

    /// Whether the reactor may sleep: no request is due, and the open group has less than `wake_at` bytes. From here on
    /// producers wake it when that changes.
    pub(crate) fn prepare_wait(&self, wake_at: usize, released: u64) -> bool {
        let mut stage = self.stage();
        let request = stage.requests.front().is_some_and(|pending| pending.after_seq <= released);
        if request || (!stage.is_empty() && stage.body_bytes() >= wake_at) {
            return false;
        }
        stage.wake_at = Some(wake_at);
        true
    }

    /// Confirms the group: its producers are told.
    pub(crate) fn release(&self, seq: u64, batches: usize) {
        {
            let _guard = self.release_lock.lock().expect(LOCK);
            let before = self.released.swap(seq, Ordering::Release);
            assert_eq!(before + 1, seq, "groups are released in order, each once");
        }
        self.release_wakes[(seq % 4) as usize].notify_all();
        let mut stage = self.stage();
        stage.batches_outstanding -= batches;
        let wake = stage.waiting > 0;
        drop(stage);
        if wake {
            self.room.notify_all();
        }
        self.watches.wake();
    }

    /// Makes known how far the log has come.
    pub(crate) fn publish(&self, released: Lsn, durable: Lsn) {
        self.released_lsn.store(released.0, Ordering::Release);
        if self.durable_lsn.swap(durable.0, Ordering::AcqRel) != durable.0 {
            self.watches.wake();
        }
    }

    /// Makes known when a job last found no space.
    pub(crate) fn note_no_space(&self, no_space_ns: u64) {
        self.no_space_ns.store(no_space_ns, Ordering::Relaxed);
    }

    pub(crate) fn set_mode(&self, mode: FlushMode) {
        self.mode.store(mode as u8, Ordering::Release);
    }

    /// Stops the log: every waiter gets the error, nothing more is accepted. The first cause stays.
    pub(crate) fn fail(&self, cause: Error) {
        let cause = Arc::clone(self.failure.get_or_init(|| Arc::new(cause)));
        let mut stage = self.stage();
        stage.closing = true;
        for pending in stage.requests.drain(..) {
            pending.answer(Err(Error::Stopped(Arc::clone(&cause))));
        }
        drop(stage);
        self.room.notify_all();
        drop(self.release_lock.lock().expect(LOCK));
        self.release_wakes.iter().for_each(Condvar::notify_all);
        self.watches.wake_all();
    }
}
