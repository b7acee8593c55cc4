//! Operations as futures, on one thread: how the reactor's jobs are written as straight-line code.
//!
//! There is no executor to speak of: the reactor polls every job after each round of completions, and a job that waits
//! for an operation finds it in its slot. Dropping a future whose operation is in flight abandons the slot; the buffer
//! stays with the backend until the completion arrives.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker as TaskWaker};
use std::time::Duration;

use slab::Slab;

use crate::error::Error;
use crate::io::{AlignedBuf, Backend, BackendInfo, Completion, Durability, Env, FileId, Op, OpId, Waker};
use crate::planted::{Bug, planted};
use crate::reactor::helper::{Helper, Lane};
use crate::sstable::ChunkPool;

/// What an error says of a directory that could not be synced.
pub(crate) const SYNC_DIR: &str = "sync directory";

/// Drives two futures at once, to the end of both.
pub(crate) async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut a, mut b) = (None, None);
    poll_fn(|context| {
        if a.is_none() {
            a = ready(first.as_mut().poll(context));
        }
        if b.is_none() {
            b = ready(second.as_mut().poll(context));
        }
        match (a.take(), b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            waiting => {
                (a, b) = waiting;
                Poll::Pending
            }
        }
    })
    .await
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// The backend, the clock and the helper, as seen by jobs.
pub(crate) struct Ops {
    backend: RefCell<Box<dyn Backend>>,
    slots: RefCell<Slab<Slot>>,
    done: RefCell<Vec<Completion>>,
    /// Deadlines that jobs sleep until, in monotonic nanoseconds.
    timers: RefCell<Vec<u64>>,
    /// When a job last found no space on the disk, in monotonic nanoseconds; 0: never.
    pub(crate) no_space_ns: Cell<u64>,
    /// An edit has taken the manifest's reserve, and it is not made anew yet.
    pub(crate) lacks_reserve: Cell<bool>,
    /// Jobs that have found no space, and look again.
    pub(crate) waiting_for_space: Cell<u32>,
    /// Memory of tables that are built.
    pub(crate) chunks: Arc<ChunkPool>,
    pub(crate) env: Arc<dyn Env>,
    helper: Box<dyn Helper>,
}

enum Slot {
    Pending,
    Done(Completion),
    Abandoned,
}

/// An operation in flight; resolves to its outcome and its buffer.
pub(crate) struct OpFuture {
    ops: Rc<Ops>,
    key: Option<usize>,
}

impl Ops {
    pub(crate) fn new(backend: Box<dyn Backend>, env: Arc<dyn Env>, helper: Box<dyn Helper>) -> Rc<Ops> {
        Rc::new(Ops {
            backend: RefCell::new(backend),
            slots: RefCell::default(),
            done: RefCell::default(),
            timers: RefCell::default(),
            no_space_ns: Cell::new(0),
            lacks_reserve: Cell::new(false),
            waiting_for_space: Cell::new(0),
            chunks: Arc::default(),
            env,
            helper,
        })
    }

    pub(crate) fn info(&self) -> BackendInfo {
        self.backend.borrow().info()
    }

    pub(crate) fn waker(&self) -> Waker {
        self.backend.borrow().waker()
    }

    /// Takes completions; waits for one as [`Backend::poll`] does.
    pub(crate) fn poll(&self, timeout: Option<Duration>) {
        let mut done = self.done.borrow_mut();
        self.backend.borrow_mut().poll(timeout, &mut done);
        let mut slots = self.slots.borrow_mut();
        for completion in done.drain(..) {
            let key = completion.id.0 as usize;
            match slots[key] {
                Slot::Pending => slots[key] = Slot::Done(completion),
                Slot::Abandoned => drop(slots.remove(key)),
                Slot::Done(_) => panic!("an operation completed twice"),
            }
        }
    }

    pub(crate) fn submit(self: &Rc<Self>, mut op: Op) -> OpFuture {
        if planted(Bug::NoDataSync)
            && let Op::Write { durability, .. } = &mut op
        {
            *durability = Durability::None;
        }
        let key = self.slots.borrow_mut().insert(Slot::Pending);
        self.backend.borrow_mut().submit(OpId(key as u64), op);
        OpFuture { ops: Rc::clone(self), key: Some(key) }
    }

    /// Drives one future to its end, with nothing else going on: recovery and close.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut context = Context::from_waker(TaskWaker::noop());
        loop {
            self.expire_timers();
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            let timeout = self.next_timer().map(|deadline| self.until(deadline));
            self.poll(timeout);
        }
    }

    /// Time left until a monotonic deadline.
    pub(crate) fn until(&self, deadline_ns: u64) -> Duration {
        Duration::from_nanos(deadline_ns.saturating_sub(self.env.mono_ns()))
    }

    /// The earliest deadline a job sleeps until.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        self.timers.borrow().iter().min().copied()
    }

    /// Forgets deadlines that have passed. Call it before polling jobs: they look at the clock themselves.
    pub(crate) fn expire_timers(&self) {
        let now = self.env.mono_ns();
        self.timers.borrow_mut().retain(|&deadline| deadline > now);
    }

    /// Has the reactor turn at this time, in monotonic nanoseconds.
    pub(crate) fn wake_at(&self, deadline_ns: u64) {
        self.timers.borrow_mut().push(deadline_ns);
    }

    /// Resolves after `duration`.
    pub(crate) async fn sleep(&self, duration: Duration) {
        let deadline = self.env.mono_ns() + duration.as_nanos() as u64;
        self.timers.borrow_mut().push(deadline);
        poll_fn(|_| if self.env.mono_ns() < deadline { Poll::Pending } else { Poll::Ready(()) }).await;
    }

    /// Appends wait for work of the helper.
    pub(crate) fn hurry(&self) {
        self.helper.hurry();
    }

    /// Runs `work` on the helper; a panic there goes on here.
    pub(crate) async fn offload<T: Send + 'static>(&self, lane: Lane, work: impl FnOnce() -> T + Send + 'static) -> T {
        let slot = Arc::new(Mutex::new(None));
        let (filled, waker) = (Arc::clone(&slot), self.waker());
        let work = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            *filled.lock().expect("nothing panics while it holds this lock") = Some(outcome);
            waker();
        });
        self.helper.run(lane, work);
        let outcome = poll_fn(|_| match slot.lock().expect("as above").take() {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        })
        .await;
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    pub(crate) async fn create(self: &Rc<Self>, path: &str) -> Result<FileId, Error> {
        let outcome = self.submit(Op::Create { path: path.to_owned() }).await.0;
        outcome.map(FileId).map_err(|cause| Error::io("create", path, cause))
    }

    pub(crate) async fn open(self: &Rc<Self>, path: &str) -> Result<FileId, Error> {
        let outcome = self.submit(Op::Open { path: path.to_owned() }).await.0;
        outcome.map(FileId).map_err(|cause| Error::io("open", path, cause))
    }

    pub(crate) async fn close(self: &Rc<Self>, file: FileId) {
        // Closing loses nothing that was synced; an error has no reader.
        let _ = self.submit(Op::Close { file }).await;
    }

    /// Writes the first `len` bytes of `buf`; returns the buffer.
    pub(crate) async fn write(
        self: &Rc<Self>,
        (file, path): (FileId, &str),
        offset: u64,
        buf: AlignedBuf,
        len: usize,
        durability: Durability,
    ) -> Result<AlignedBuf, Error> {
        let (outcome, buf) = self.submit(Op::Write { file, offset, buf, len, durability }).await;
        outcome.map_err(|cause| Error::io("write", path, cause))?;
        Ok(buf.expect("a write hands its buffer back"))
    }

    pub(crate) async fn sync_data(self: &Rc<Self>, (file, path): (FileId, &str)) -> Result<(), Error> {
        if planted(Bug::NoDataSync) {
            return Ok(());
        }
        let mut outcome = self.submit(Op::SyncData { file }).await.0;
        if planted(Bug::RetriedSync) && outcome.is_err() {
            outcome = self.submit(Op::SyncData { file }).await.0;
        }
        outcome.map(drop).map_err(|cause| Error::io("sync", path, cause))
    }

    pub(crate) async fn make_dir(self: &Rc<Self>, path: &str) -> Result<(), Error> {
        let outcome = self.submit(Op::MakeDir { path: path.to_owned() }).await.0;
        outcome.map(drop).map_err(|cause| Error::io("create directory", path, cause))
    }

    pub(crate) async fn rename(self: &Rc<Self>, from: &str, to: &str) -> Result<(), Error> {
        let outcome = self.submit(Op::Rename { from: from.to_owned(), to: to.to_owned() }).await.0;
        outcome.map(drop).map_err(|cause| Error::io("rename", from, cause))
    }

    /// Removes a name; one that is gone already is a success.
    pub(crate) async fn unlink(self: &Rc<Self>, path: &str) -> Result<(), Error> {
        match self.submit(Op::Unlink { path: path.to_owned() }).await.0 {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, cause)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn sync_dir(self: &Rc<Self>, path: &str) -> Result<(), Error> {
        if planted(Bug::NoDirectorySync) {
            return Ok(());
        }
        let outcome = self.submit(Op::SyncDir { path: path.to_owned() }).await.0;
        let shown = if path.is_empty() { "." } else { path };
        outcome.map(drop).map_err(|cause| Error::io(SYNC_DIR, shown, cause))
    }
}

impl Future for OpFuture {
    type Output = (io::Result<u64>, Option<AlignedBuf>);

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.key.expect("a future is not polled after it is ready");
        let mut slots = self.ops.slots.borrow_mut();
        if !matches!(slots[key], Slot::Done(_)) {
            return Poll::Pending;
        }
        let Slot::Done(completion) = slots.remove(key) else { unreachable!("looked just now") };
        drop(slots);
        self.key = None;
        Poll::Ready((completion.outcome, completion.buf))
    }
}

impl OpFuture {
    /// The outcome, if it is there.
    pub(crate) fn try_take(&mut self) -> Option<(io::Result<u64>, Option<AlignedBuf>)> {
        match Pin::new(self).poll(&mut Context::from_waker(TaskWaker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }
}

impl Drop for OpFuture {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut slots = self.ops.slots.borrow_mut();
        if matches!(slots[key], Slot::Done(_)) {
            slots.remove(key);
        } else {
            slots[key] = Slot::Abandoned;
        }
    }
}
