use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::EnterFlags;

use super::*;
use crate::format::BLOCK_BYTES;
use crate::io::conformance::{self, Disk, uring_refused};
use crate::io::fs::RealVfs;
use crate::io::lock::StoreLock;
use crate::io::{Durability, FileId, Vfs};

struct Bench {
    dir: tempfile::TempDir,
    backend: UringBackend,
    file: FileId,
}

/// A backend with one open file named `file`.
fn bench(method: SyncMethod) -> Bench {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = StoreDir::open(dir.path()).expect("the directory opens");
    let mut backend = UringBackend::open(store, method).expect("io_uring works here");
    backend.submit(OpId(0), Op::Create { path: "file".to_owned() });
    let file = FileId(*wait_for(&mut backend, 1)[0].outcome.as_ref().expect("the file is new"));
    Bench { dir, backend, file }
}

fn wait_for(backend: &mut UringBackend, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    while done.len() < count {
        backend.poll(Some(Duration::from_secs(20)), &mut done);
    }
    done
}

fn write(file: FileId, block: u64, durability: Durability) -> Op {
    let buf = AlignedBuf::from_bytes(&[(block as u8).wrapping_add(1); BLOCK_BYTES]);
    Op::Write { file, offset: block * BLOCK_BYTES as u64, buf, len: BLOCK_BYTES, durability }
}

#[test]
fn a_chain_that_the_kernel_took_in_two_parts_is_not_durable() {
    if uring_refused() {
        return;
    }
    let mut bench = bench(SyncMethod::Linked);
    bench.backend.submit(OpId(1), write(bench.file, 0, Durability::Own));
    // What a kernel does that runs out of memory between the two halves.
    // SAFETY: no argument is passed, and what is queued is as valid as when it was pushed.
    let taken = unsafe { bench.backend.ring.submitter().enter::<u8>(1, 0, EnterFlags::empty().bits(), None) };
    assert_eq!(taken.expect("the kernel takes the write"), 1);
    bench.backend.note_consumed();
    let done = wait_for(&mut bench.backend, 1);
    let error = done[0].outcome.as_ref().expect_err("the sync was not behind the write");
    assert!(error.to_string().contains("without the sync"), "{error}");
    assert!(done[0].buf.is_some());
}

#[test]
fn requests_are_what_the_table_says() {
    const WRITE: u8 = io_uring::opcode::Write::CODE;
    const FSYNC: u8 = io_uring::opcode::Fsync::CODE;
    const LINK: u8 = 1 << 2;
    const DATASYNC: u32 = 1;
    const PLAIN: (u8, u8, u32) = (WRITE, 0, 0);
    const DSYNC: (u8, u8, u32) = (WRITE, 0, libc::RWF_DSYNC as u32);
    const CHAIN: [(u8, u8, u32); 2] = [(WRITE, LINK, 0), (FSYNC, 0, DATASYNC)];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = StoreDir::open(dir.path()).expect("the directory opens");
    let mut files = FileTable::new(false);
    let file = FileId(files.insert(store.create("file")).expect("the file is new"));
    let requests = |method, op| -> Vec<(u8, u8, u32)> {
        let mut flight = Flight::prepare(OpId(1), op, &files, &store).map_err(|(error, _)| error).expect("it is right");
        let entries = flight.entries(3, method).into_iter().map(|entry| {
            // SAFETY: an entry is the kernel's struct of 64 bytes, all of them initialised, and no bytes are invalid.
            let bytes: [u8; 64] = unsafe { mem::transmute(entry) };
            // Operation, flags, and the flags of the operation, where io_uring.h has them.
            (bytes[0], bytes[1], u32::from_ne_bytes(bytes[28..32].try_into().expect("four bytes")))
        });
        entries.collect()
    };
    let (linked, dsync) = (SyncMethod::Linked, SyncMethod::Dsync);
    assert_eq!(requests(linked, write(file, 0, Durability::None)), [PLAIN]);
    assert_eq!(requests(linked, write(file, 0, Durability::Own)), CHAIN);
    assert_eq!(requests(linked, write(file, 0, Durability::File)), CHAIN);
    assert_eq!(requests(dsync, write(file, 0, Durability::None)), [PLAIN]);
    assert_eq!(requests(dsync, write(file, 0, Durability::Own)), [DSYNC]);
    assert_eq!(requests(dsync, write(file, 0, Durability::File)), CHAIN);
    assert_eq!(requests(linked, Op::SyncData { file }), [(FSYNC, 0, DATASYNC)]);
    assert_eq!(requests(linked, Op::SyncDir { path: String::new() }), [(FSYNC, 0, 0)]);
}

#[test]
fn a_failed_sync_fails_the_write() {
    if uring_refused() {
        return;
    }
    for method in [SyncMethod::Linked, SyncMethod::Dsync] {
        let mut bench = bench(method);
        // It takes every write and refuses every sync.
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = FileId(bench.backend.files.insert(null).expect("Linux has it"));
        let mut outcome = |op| {
            bench.backend.submit(OpId(9), op);
            wait_for(&mut bench.backend, 1).remove(0).outcome.map_err(|error| error.raw_os_error())
        };
        assert_eq!(outcome(write(null, 0, Durability::None)), Ok(0));
        assert_eq!(outcome(write(null, 0, Durability::File)), Err(Some(libc::EINVAL)));
        assert_eq!(outcome(Op::SyncData { file: null }), Err(Some(libc::EINVAL)));
        if method == SyncMethod::Linked {
            assert_eq!(outcome(write(null, 0, Durability::Own)), Err(Some(libc::EINVAL)));
        }
    }
}

#[test]
fn a_chain_is_never_queued_in_two_parts() {
    if uring_refused() {
        return;
    }
    let mut bench = bench(SyncMethod::Linked);
    // An odd number of single requests, so that chains do not fall on the end of the queue by themselves.
    bench.backend.submit(OpId(1), write(bench.file, 0, Durability::None));
    let chains = 3 * u64::from(CQ_ENTRIES);
    for id in 2..2 + chains {
        bench.backend.submit(OpId(id), write(bench.file, id % 64, Durability::Own));
        assert!(bench.backend.outstanding <= CQ_ENTRIES as usize);
        assert!(bench.backend.queued.len() <= SQ_ENTRIES as usize);
    }
    let done = wait_for(&mut bench.backend, 1 + chains as usize);
    for completion in done {
        assert_eq!(completion.outcome.expect("every chain is whole"), 0);
    }
}

#[test]
fn dropping_waits_for_everything_that_was_submitted() {
    if uring_refused() {
        return;
    }
    let mut bench = bench(SyncMethod::Linked);
    // Arms the waker's read, which the drop has to end.
    bench.backend.poll(Some(Duration::from_millis(1)), &mut Vec::new());
    assert!(bench.backend.wake_armed);
    let blocks = 2 * u64::from(CQ_ENTRIES);
    for block in 0..blocks {
        bench.backend.submit(OpId(block), write(bench.file, block, Durability::None));
    }
    drop(bench.backend);
    let vfs = RealVfs::open(bench.dir.path()).expect("the directory opens");
    let file = vfs.open("file").expect("the file is there");
    let mut bytes = vec![0; blocks as usize * BLOCK_BYTES];
    assert_eq!(file.read_at(&mut bytes, 0).expect("it can be read"), bytes.len());
    for (block, bytes) in bytes.chunks(BLOCK_BYTES).enumerate() {
        assert!(bytes.iter().all(|&byte| byte == (block as u8).wrapping_add(1)), "block {block}");
    }
}

#[test]
fn the_ring_keeps_the_lock_until_it_is_done() {
    if uring_refused() {
        return;
    }
    let mut bench = bench(SyncMethod::Linked);
    let lock = StoreLock::acquire(bench.dir.path(), Duration::ZERO).expect("nobody else is there");
    bench.backend.hold(lock.file());
    drop(lock);
    let refused = StoreLock::acquire(bench.dir.path(), Duration::from_millis(50));
    assert!(refused.is_err(), "the ring still has the file");
    drop(bench.backend);
    StoreLock::acquire(bench.dir.path(), Duration::from_secs(20)).expect("the ring has let go");
}

#[test]
fn a_ring_that_cannot_be_entered_fails_what_it_has_and_frees_nothing() {
    if uring_refused() {
        return;
    }
    let mut bench = bench(SyncMethod::Linked);
    bench.backend.submit(OpId(1), write(bench.file, 0, Durability::Own));
    bench.backend.die(libc::EPERM);
    bench.backend.submit(OpId(2), write(bench.file, 1, Durability::Own));
    let done = wait_for(&mut bench.backend, 2);
    for completion in &done {
        let error = completion.outcome.as_ref().expect_err("the ring is dead");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
    assert!(done[0].buf.is_none(), "the kernel may have it");
    assert!(done[1].buf.is_some(), "the kernel never saw it");
    let begin = Instant::now();
    bench.backend.poll(Some(Duration::from_secs(20)), &mut Vec::new());
    assert!(begin.elapsed() < Duration::from_secs(10), "nothing will ever come");
}

/// A kernel that knows none of the newer flags and operations.
struct OlderKernel(tempfile::TempDir);

impl Disk for OlderKernel {
    fn backend(&self) -> Box<dyn Backend> {
        let ring = probe::plain_ring().expect("io_uring works here");
        let dir = StoreDir::open(self.0.path()).expect("the directory opens");
        Box::new(UringBackend::over(ring, false, dir, SyncMethod::Auto).expect("an eventfd"))
    }

    fn vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(RealVfs::open(self.0.path()).expect("the directory opens"))
    }

    fn root(&self) -> Option<&Path> {
        Some(self.0.path())
    }
}

#[test]
fn a_plain_ring_conforms() {
    if uring_refused() {
        return;
    }
    conformance::run(&|| Box::new(OlderKernel(tempfile::tempdir().expect("a temporary directory"))));
}

extern "C" fn take_note(_signal: libc::c_int) {}

#[test]
fn signals_interrupt_neither_a_wait_nor_an_operation() {
    if uring_refused() {
        return;
    }
    let mut bench = bench(SyncMethod::Linked);
    // SAFETY: the handler does nothing, which any signal handler may; without SA_RESTART the wait is interrupted. The
    // struct is plain data, valid when zeroed.
    let old = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = take_note as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut())
    };
    assert_eq!(old, 0, "the handler is installed");
    // SAFETY: it only asks for this thread's name.
    let this_thread = unsafe { libc::pthread_self() };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            while !stop.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(30) {
                // SAFETY: the thread lives until this scope ends, because it waits for us.
                assert_eq!(unsafe { libc::pthread_kill(this_thread, libc::SIGUSR2) }, 0);
                thread::sleep(Duration::from_micros(100));
            }
        });
        for id in 0..200 {
            bench.backend.submit(OpId(id), write(bench.file, id % 8, Durability::Own));
            let done = wait_for(&mut bench.backend, 1);
            assert_eq!((done.len(), done[0].id), (1, OpId(id)));
            assert_eq!(*done[0].outcome.as_ref().expect("a signal is no failure"), 0);
        }
        let begin = Instant::now();
        let mut done = Vec::new();
        bench.backend.poll(Some(Duration::from_millis(50)), &mut done);
        assert!(done.is_empty(), "each operation completes once");
        assert!(begin.elapsed() >= Duration::from_millis(50), "the wait goes on after a signal");
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn auto_picks_dsync_only_where_it_is_known_to_hold() {
    if uring_refused() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = StoreDir::open(dir.path()).expect("the directory opens");
    let expected = if store.probe_direct() && store.honours_dsync() { SyncMethod::Dsync } else { SyncMethod::Linked };
    let backend = UringBackend::open(store, SyncMethod::Auto).expect("io_uring works here");
    assert_eq!(backend.info().sync_method, expected);
    for foreign in ["/proc", "/dev/shm"] {
        let store = StoreDir::open(foreign.as_ref()).expect("Linux has it");
        assert!(!store.honours_dsync(), "{foreign}");
    }
}
