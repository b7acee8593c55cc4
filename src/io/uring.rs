//! The io_uring backend: one ring, owned and used by the thread that opened it.
//!
//! # How a durable write is lowered
//! | request | `linked` | `dsync` |
//! |---|---|---|
//! | `Durability::None` | write | write |
//! | `Durability::Own` | write, linked to fdatasync | one write with RWF_DSYNC |
//! | `Durability::File` | write, linked to fdatasync | the same |
//!
//! RWF_DSYNC covers the write it rides on and nothing else, so it never serves `File`. On extents that are written
//! already both are equally durable. The kernel runs a linked fsync on a worker thread, and `dsync` saves the way there and
//! back; how much that is worth beside the device's own flush depends on the device, so a bench must tell, not this page.
//!
//! [`SyncMethod::Auto`] is `dsync` where the file system is one whose direct write path is known to honour the flag (ext4,
//! XFS, btrfs, F2FS) and accepts O_DIRECT, else `linked`: a FUSE or network file system may ignore the flag and report
//! success. This is decided by the type of file system and not by trying, because a trial write can only show that the
//! flag was *accepted*, never that it was honoured; and every kernel with this ring (5.11) knows the flag (4.7).
//! Whoever asks for `dsync` by name gets it on any file system, and answers for it.
//!
//! # Invariants
//! - A chain is a success only if the write stored every byte **and** the sync returned 0. Some file systems (FUSE) report
//!   a sync as done behind a short write. The link is never IOSQE_IO_HARDLINK, which syncs after a failed write.
//! - A chain enters the kernel in one submission: it is queued only when both halves have room. If the kernel takes the
//!   first half alone all the same (it ran out of memory between the two), the sync was not behind the write, and the
//!   chain counts as failed whatever its halves report.
//! - An operation's buffer, paths and file live in the slab until its last completion is here, and nobody touches them
//!   meanwhile. Dropping the backend waits for that: closing a ring does not stop what is in flight. Where waiting is
//!   impossible (the kernel refuses to be entered), the memory is leaked rather than freed.
//! - No more requests are in the kernel than the completion queue has room for; further operations wait in a backlog.
//! - A signal interrupts a wait, never a submission: what was consumed is gone from the queue, so entering again only
//!   waits again.
//!
//! Operations reach the kernel at the next poll at the latest. Creating, opening and closing files and making directories
//! is done on the spot, as it would be in the kernel.
//!
//! Proof: `conformance`; the tests below for the split chain, the lock and the drop.
// Waits here are the kernel's, and end with a completion; nothing of them is simulated.
#![allow(clippy::disallowed_methods)]
#![allow(unsafe_code)]

mod flight;
mod probe;
mod wake;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, squeue};
use slab::Slab;

use super::fs::{FileTable, StoreDir};
use super::{AlignedBuf, Backend, BackendInfo, Completion, Op, OpId, SyncMethod, Waker};
use flight::Flight;
pub(crate) use probe::unavailable;
use wake::WakeState;

/// Size of the submission queue: more than the reactor ever queues between two polls.
const SQ_ENTRIES: u32 = 64;
/// Size of the completion queue, and so the limit of requests in the kernel.
const CQ_ENTRIES: u32 = 256;
/// Requests of one operation, at most: a write and its sync.
const CHAIN_ENTRIES: usize = 2;
/// Marks the completion of the read that waits for the waker; all others carry slab key and half.
const WAKE: u64 = u64::MAX;
/// Longest single wait, so that no caller's timeout is beyond what the kernel takes.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// See the module's page.
pub(crate) struct UringBackend {
    ring: IoUring,
    dir: StoreDir,
    files: FileTable,
    method: SyncMethod,
    /// Whether the kernel has renameat and unlinkat as ring operations.
    ring_names: bool,
    /// Operations that wait for room in the queues, in order of submission.
    backlog: VecDeque<Flight>,
    /// Operations of which the queues or the kernel hold at least one request.
    flights: Slab<Flight>,
    /// What lies in the submission queue, oldest first; tells how far the kernel got.
    queued: VecDeque<u64>,
    /// Requests queued whose completion has not been reaped.
    outstanding: usize,
    ready: Vec<Completion>,
    wake: WakeState,
    /// Where the kernel puts the waker's count. Never read, and not touched while `wake_armed`.
    wake_count: AlignedBuf,
    wake_armed: bool,
    /// The error that made the ring unusable.
    dead: Option<i32>,
}

impl UringBackend {
    /// Sets a ring up and proves that it works. Errors say why io_uring cannot be had; see [`unavailable`].
    pub(crate) fn open(dir: StoreDir, method: SyncMethod) -> io::Result<UringBackend> {
        let ring = probe::best_ring()?;
        let ring_names = probe::check(&ring)?;
        UringBackend::over(ring, ring_names, dir, method)
    }

    fn over(ring: IoUring, ring_names: bool, dir: StoreDir, method: SyncMethod) -> io::Result<UringBackend> {
        let direct = dir.probe_direct();
        let method = match method {
            SyncMethod::Auto if direct && dir.honours_dsync() => SyncMethod::Dsync,
            SyncMethod::Auto => SyncMethod::Linked,
            chosen => chosen,
        };
        Ok(UringBackend {
            ring,
            dir,
            files: FileTable::new(direct),
            method,
            ring_names,
            backlog: VecDeque::new(),
            flights: Slab::new(),
            queued: VecDeque::new(),
            outstanding: 0,
            ready: Vec::new(),
            wake: WakeState::new()?,
            wake_count: AlignedBuf::zeroed(8),
            wake_armed: false,
            dead: None,
        })
    }

    fn finish(&mut self, id: OpId, outcome: io::Result<u64>, buf: Option<AlignedBuf>) {
        self.ready.push(Completion { id, outcome, buf });
    }

    /// Queues operations from the backlog as far as there is room.
    fn start_backlog(&mut self) {
        while self.dead.is_none() && !self.backlog.is_empty() && self.make_room(CHAIN_ENTRIES) {
            let flight = self.backlog.pop_front().expect("the loop looked");
            let key = self.flights.insert(flight);
            let entries = self.flights[key].entries(key, self.method);
            self.push(key, &entries);
        }
    }

    /// Whether `entries` more requests fit into both queues; hands the submission queue to the kernel if that helps.
    fn make_room(&mut self, entries: usize) -> bool {
        if self.outstanding + entries > CQ_ENTRIES as usize {
            return false;
        }
        if self.queued.len() + entries > SQ_ENTRIES as usize {
            self.enter(0, None);
        }
        self.dead.is_none() && self.queued.len() + entries <= SQ_ENTRIES as usize
    }

    fn push(&mut self, key: usize, entries: &[squeue::Entry]) {
        // SAFETY: the entries were built by `Flight::entries` for the flight at `key`. Every pointer in them leads into
        // heap memory that this flight owns (an `AlignedBuf` or an `Rc<CStr>`; moving the flight inside the slab does not
        // move what it owns), with a length checked against the buffer's. Their descriptors belong to `File`s that the
        // flight or `self.dir` holds. The flight leaves the slab in `complete` only, after as many completions as it had
        // entries, or is leaked in `die`; nothing reads or writes its memory in between. `drop` waits for all of it.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        pushed.expect("make_room found room for the whole chain");
        for half in 0..entries.len() {
            self.queued.push_back(flight::user_data(key, half));
        }
        self.outstanding += entries.len();
    }

    /// Queues the read that the waker ends, unless it is there already.
    fn arm_wake(&mut self) {
        if self.wake_armed || !self.make_room(1) {
            return;
        }
        let entry = self.wake.read_entry(self.wake_count.as_mut_ptr()).user_data(WAKE);
        // SAFETY: the kernel writes 8 bytes to `wake_count`, a heap block of 4 KiB that `self` owns and touches only here,
        // where no such read is under way (`wake_armed`). It is freed after `drop` has seen the read's completion, or
        // leaked in `die`. The eventfd belongs to `self.wake`, which lives as long.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("make_room found room");
        self.queued.push_back(WAKE);
        self.outstanding += 1;
        self.wake_armed = true;
    }

    /// Hands the submission queue to the kernel and waits for `want` completions, at most for `limit`. Comes back early
    /// after a signal or when the kernel took less than everything; callers loop until they have what they wait for.
    fn enter(&mut self, want: usize, limit: Option<Duration>) {
        let submitter = self.ring.submitter();
        let entered = match limit {
            None => submitter.submit_and_wait(want),
            Some(limit) => {
                let limit = Timespec::from(limit);
                submitter.submit_with_args(want, &SubmitArgs::new().timespec(&limit))
            }
        };
        self.note_consumed();
        match entered.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)) {
            // EBUSY: completions overflowed, which NODROP keeps until the caller has reaped. It cannot happen, as no more
            // requests are let in than the queue holds; if it does, reaping is the answer.
            Ok(_) | Err(libc::ETIME | libc::EINTR | libc::EBUSY) => {}
            // The kernel has no memory for requests right now. Nothing was lost: what it did not take is still queued.
            Err(libc::EAGAIN) => thread::sleep(Duration::from_millis(1)),
            Err(errno) => self.die(errno),
        }
    }

    /// Drops from `queued` what the kernel has taken, and condemns a chain of which it took the first half alone.
    fn note_consumed(&mut self) {
        let left = self.ring.submission().len();
        while self.queued.len() > left {
            self.queued.pop_front();
        }
        if let Some((key, 1)) = self.queued.front().and_then(|&user_data| flight::key_and_half(user_data)) {
            self.flights[key].split = true;
        }
    }

    /// Takes every completion that is there.
    fn reap(&mut self) {
        if self.dead.is_some() {
            return;
        }
        let cqes: Vec<(u64, i32)> = self.ring.completion().map(|cqe| (cqe.user_data(), cqe.result())).collect();
        let mut wake_result = 0;
        for (user_data, result) in cqes {
            self.outstanding -= 1;
            match flight::key_and_half(user_data) {
                Some((key, half)) => self.complete(key, half, result),
                None => {
                    self.wake_armed = false;
                    wake_result = result;
                }
            }
        }
        // Without a waker the next wait might never end. An interrupted read is merely armed again.
        if wake_result < 0 && wake_result != -libc::EINTR {
            self.die(-wake_result);
        }
    }

    fn complete(&mut self, key: usize, half: usize, result: i32) {
        if !self.flights[key].record(half, result) {
            return;
        }
        let flight = self.flights.remove(key);
        self.finish(flight.id, flight.outcome(), flight.buf);
    }

    /// The kernel refuses to be entered: nobody will ever learn how the operations in flight ended, and their memory
    /// cannot be freed.
    fn die(&mut self, errno: i32) {
        self.dead = Some(errno);
        for flight in mem::take(&mut self.flights) {
            let flight = mem::ManuallyDrop::new(flight.1);
            self.finish(flight.id, Err(io::Error::from_raw_os_error(errno)), None);
        }
        for flight in mem::take(&mut self.backlog) {
            self.finish(flight.id, Err(io::Error::from_raw_os_error(errno)), flight.buf);
        }
        mem::forget(mem::replace(&mut self.wake_count, AlignedBuf::zeroed(8)));
        self.queued.clear();
        self.outstanding = 0;
    }

    /// Waits once for a completion, the waker or the end of `limit`; says whether the waker was called.
    fn wait(&mut self, limit: Duration) -> bool {
        if self.dead.is_some() {
            // Nothing can come any more. The caller has its errors and is about to stop; it must only not spin.
            thread::sleep(limit.min(Duration::from_millis(10)));
            return true;
        }
        self.arm_wake();
        if !self.wake.fall_asleep() {
            self.enter(0, None);
            return true;
        }
        self.enter(1, Some(limit));
        self.wake.wake_up()
    }
}

impl Backend for UringBackend {
    fn submit(&mut self, id: OpId, op: Op) {
        let outcome = match op {
            Op::Create { path } => self.files.insert(self.dir.create(&path)),
            Op::Open { path } => self.files.insert(self.dir.open_rw(&path)),
            Op::Close { file } => self.files.close(file),
            Op::MakeDir { path } => self.dir.make_dir(&path).map(|()| 0),
            Op::Rename { from, to } if !self.ring_names => self.dir.rename(&from, &to).map(|()| 0),
            Op::Unlink { path } if !self.ring_names => self.dir.unlink(&path).map(|()| 0),
            op => match (Flight::prepare(id, op, &self.files, &self.dir), self.dead) {
                (Ok(flight), None) => {
                    self.backlog.push_back(flight);
                    return self.start_backlog();
                }
                (Ok(flight), Some(errno)) => {
                    return self.finish(id, Err(io::Error::from_raw_os_error(errno)), flight.buf);
                }
                (Err((error, buf)), _) => return self.finish(id, Err(error), buf),
            },
        };
        self.finish(id, outcome, None);
    }

    fn poll(&mut self, timeout: Option<Duration>, done: &mut Vec<Completion>) {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            self.reap();
            self.start_backlog();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Completions in hand, or no time to wait: what is queued goes on its way all the same.
            let over = !self.ready.is_empty() || left == Some(Duration::ZERO);
            if over && self.dead.is_none() && (self.ready.is_empty() || !self.queued.is_empty()) {
                self.enter(0, None);
                self.reap();
            }
            if over || self.wait(left.unwrap_or(WAIT_MAX).min(WAIT_MAX)) {
                self.reap();
                done.append(&mut self.ready);
                return;
            }
        }
    }

    fn waker(&self) -> Waker {
        self.wake.waker()
    }

    fn info(&self) -> BackendInfo {
        BackendInfo { name: "io_uring", sync_method: self.method, direct: self.files.direct() }
    }

    /// Registers the file in the ring. The kernel lets go of it only when the last request of the ring has ended, so the
    /// lock on it outlives even a killed process until then.
    fn hold(&mut self, lock: &File) {
        let submitter = self.ring.submitter();
        // Fails if nothing is registered yet, which is the rule.
        let _ = submitter.unregister_files();
        if let Err(error) = submitter.register_files(&[lock.as_raw_fd()]) {
            tracing::warn!(
                "cannot register the lock file in the ring, so it may be free before the last write: {error}"
            );
        }
    }
}

impl Drop for UringBackend {
    fn drop(&mut self) {
        // Ends the read that waits for the waker.
        self.wake.ring();
        while self.dead.is_none() && (self.outstanding > 0 || !self.backlog.is_empty()) {
            self.start_backlog();
            self.enter(1, None);
            self.reap();
        }
        // Everything has ended, so the lock may go now rather than when the kernel gets round to tearing the ring down.
        let _ = self.ring.submitter().unregister_files();
    }
}

#[cfg(test)]
mod tests;
