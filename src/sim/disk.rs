//! The handle to a simulated machine, and its two faces: [`Backend`] and [`Vfs`].

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::env::SimEnv;
use super::fault::{Fault, FaultKind, OpClass};
use super::image::{File, Image};
use super::names::Ino;
use super::state::State;
use crate::io::{Backend, BackendInfo, Completion, DirEntry, Metadata, Op, OpId, ReadAt, SyncMethod, Vfs, Waker};

/// A simulated machine in one of its lives: disk, clocks, faults. Clones are the same machine.
///
/// [`SimDisk::cut`] and [`SimDisk::kill`] end the life and return the next one, another machine. The handles of the old
/// one then complete everything with an error, its readers get errors, and neither can touch the new one.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// A machine with an empty disk; `seed` decides everything that is left to chance.
    pub(crate) fn new(seed: u64) -> SimDisk {
        SimDisk::running(State::new(seed))
    }

    pub(super) fn running(state: State) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// A panic of a test while it held the lock does not hide the disk from what it unwinds through.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The side that changes the disk. Dropping it completes what it has in flight, unless the power is off.
    pub(crate) fn backend(&self) -> Box<dyn Backend + Send> {
        let number = self.state().attach();
        Box::new(SimBackend { disk: self.clone(), number, woken: Arc::default() })
    }

    /// The side that reads it: what a page cache would show.
    pub(crate) fn vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(SimVfs(self.clone()))
    }

    /// This life's clocks and random numbers.
    pub(crate) fn env(&self) -> SimEnv {
        self.state().env.clone()
    }

    /// Plants a fault; it counts from now on.
    pub(crate) fn fail(&self, fault: Fault) {
        self.state().faults.plant(fault);
    }

    /// No fault that was planted so far strikes any more, a planned power failure included.
    pub(crate) fn mend(&self) {
        self.state().faults.clear();
    }

    /// The power fails when the `nth` mutating operation from now on is submitted. That one and all in flight may then
    /// survive in part, none succeeds.
    pub(crate) fn power_off_at(&self, nth: u64) {
        self.fail(Fault::nth(OpClass::Mutating, nth, FaultKind::PowerOff));
    }

    /// The power fails now.
    pub(crate) fn power_off(&self) {
        self.state().power_off();
    }

    /// Whether this life is over: nothing takes effect any more, whatever is submitted fails.
    pub(crate) fn powered_off(&self) -> bool {
        self.state().off
    }

    /// Whether the sync of a directory failed: nothing that happens to its names becomes durable before the next boot.
    pub(crate) fn is_stuck(&self) -> bool {
        self.state().media.names.is_stuck()
    }

    /// From now on the disk holds so many bytes, whole blocks counted; a write that needs more fails with `StorageFull`,
    /// overwriting what is there does not. `None`: no limit. What readers saw of writes in flight is not undone.
    pub(crate) fn set_space_bytes(&self, space_bytes: Option<u64>) {
        self.state().media.space_bytes = space_bytes;
    }

    /// Whether there is such a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.state().media.space_bytes.is_some()
    }

    /// Bytes taken by files that have a name or are open.
    pub(crate) fn space_used_bytes(&self) -> u64 {
        self.state().media.space_used_bytes()
    }

    /// Mutating operations submitted in this life: the number of crash points a run has.
    pub(crate) fn ops_total(&self) -> u64 {
        self.ops(OpClass::Mutating)
    }

    /// Operations of a class submitted in this life.
    pub(crate) fn ops(&self, class: OpClass) -> u64 {
        self.state().counters[class as usize]
    }

    /// Operations submitted and not completed.
    pub(crate) fn in_flight(&self) -> usize {
        self.state().flights.len()
    }

    /// Adds a line of the test's own to the trace.
    pub(crate) fn note(&self, text: &str) {
        self.state().trace.line(format!("= {text}"));
    }

    /// The newest lines of this life's trace. The same seed and the same calls give the same text, byte for byte.
    pub(crate) fn trace_text(&self) -> String {
        self.state().trace.text()
    }

    /// Hash over every line of the trace, also of the lives before this one.
    pub(crate) fn trace_hash(&self) -> u64 {
        self.state().trace.hash()
    }
}

/// Looking at the disk from outside, and damaging it: neither traced nor counted, open to a machine without power.
/// The paths of damage must exist, else they panic: a test that damages nothing is none.
impl SimDisk {
    /// Paths of all files that readers see, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let state = self.state();
        let mut files = Vec::new();
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            let (_, names) = state.media.names.dir(&dir).expect("it was found as a directory");
            for (name, &ino) in names {
                let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
                if state.media.names.is_dir(ino) { dirs.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    /// Contents of a file as readers see it; `None` if it has no such name.
    pub(crate) fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        let mut state = self.state();
        let ino = state.media.names.file(path).ok()?;
        Some(state.media.file(ino).visible.contents())
    }

    /// Contents of a file as the medium holds it for certain; the name is looked up as readers see it.
    pub(crate) fn durable_file(&self, path: &str) -> Option<Vec<u8>> {
        let mut state = self.state();
        let ino = state.media.names.file(path).ok()?;
        Some(state.media.file(ino).durable.contents())
    }

    /// Puts a file there, durable with its name and directories, replacing one of that name. All pending changes of
    /// names become durable with it.
    pub(crate) fn write_file(&self, path: &str, bytes: &[u8]) {
        let mut state = self.state();
        let media = &mut state.media;
        for (slash, _) in path.match_indices('/') {
            let (stamp, ino) = (media.tick(), media.new_ino());
            media.names.make_dir(stamp, &path[..slash], ino).expect("the directories of the path can be made");
        }
        if media.names.resolve(path).is_ok() {
            let stamp = media.tick();
            media.names.unlink(stamp, path).expect("what is replaced is a file");
        }
        let (stamp, ino) = (media.tick(), media.new_ino());
        media.names.link(stamp, path, ino).expect("the name is free and its directory exists");
        media.names.settle();
        media.files.insert(ino, File::at_rest(Image::of(bytes), 0));
    }

    /// Removes a file for good. All pending changes of names become durable with it.
    pub(crate) fn remove(&self, path: &str) {
        let mut state = self.state();
        let stamp = state.media.tick();
        state.media.names.unlink(stamp, path).expect("the file exists");
        state.media.names.settle();
    }

    /// Flips bit `bit` (0 to 7) of byte `at` of a file, in the cache and on the medium.
    pub(crate) fn flip_bit(&self, path: &str, at: u64, bit: u8) {
        self.damage(path, |file| {
            let mut byte = [0];
            assert_eq!(file.visible.read(&mut byte, at), 1, "the file has no byte {at}");
            file.damage(at, &[byte[0] ^ 1 << bit]);
        });
    }

    /// Overwrites bytes of a file, in the cache and on the medium, also behind its end.
    pub(crate) fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) {
        self.damage(path, |file| file.damage(offset, bytes));
    }

    /// Cuts a file off; what is left of it is durable.
    pub(crate) fn truncate(&self, path: &str, bytes: u64) {
        self.damage(path, |file| file.truncate(bytes));
    }

    /// Gives a file `links` hard links outside the store (a backup).
    pub(crate) fn set_links_outside(&self, path: &str, links: u64) {
        self.damage(path, |file| file.links_outside = links);
    }

    fn damage(&self, path: &str, how: impl FnOnce(&mut File)) {
        let mut state = self.state();
        let ino = state.media.names.file(path).expect("the file exists");
        how(state.media.file(ino));
    }
}

struct SimBackend {
    disk: SimDisk,
    number: u64,
    woken: Arc<AtomicBool>,
}

impl Backend for SimBackend {
    fn submit(&mut self, id: OpId, op: Op) {
        self.disk.state().submit(self.number, id, op);
    }

    fn poll(&mut self, timeout: Option<Duration>, done: &mut Vec<Completion>) {
        let woken = self.woken.swap(false, Ordering::AcqRel);
        self.disk.state().poll(self.number, timeout, woken, done);
    }

    fn waker(&self) -> Waker {
        let woken = self.woken.clone();
        Arc::new(move || woken.store(true, Ordering::Release))
    }

    fn info(&self) -> BackendInfo {
        // The method is only a name here: the disk obeys the durability of each operation alone.
        BackendInfo { name: "simulated", sync_method: SyncMethod::Dsync, direct: true }
    }
}

impl Drop for SimBackend {
    fn drop(&mut self) {
        self.disk.state().detach(self.number);
    }
}

struct SimVfs(SimDisk);

impl Vfs for SimVfs {
    fn open(&self, path: &str) -> io::Result<Box<dyn ReadAt>> {
        let ino = self.0.state().reader_open(path)?;
        Ok(Box::new(SimFile { disk: self.0.clone(), ino, path: path.to_owned() }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.0.state().reader_list(dir)
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        self.0.state().reader_metadata(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space_bytes = self.0.state().media.space_bytes;
        Ok(space_bytes.map_or(u64::MAX, |space| space.saturating_sub(self.0.space_used_bytes())))
    }
}

struct SimFile {
    disk: SimDisk,
    ino: Ino,
    path: String,
}

impl ReadAt for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.state().reader_read(self.ino, &self.path, buf, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.disk.state().reader_bytes(self.ino, &self.path)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.state().reader_close(self.ino);
    }
}
