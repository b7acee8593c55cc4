//! One life of a simulated machine: queue, handles, faults and time around its [`Media`].

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::env::{SimEnv, WALL_NS_AT_START};
use super::fault::{CLASSES, ClassSet, FaultKind, Faults, OpClass};
use super::image::{WHOLE_PAGE, pages_of};
use super::media::{Fate, Flight, Media};
use super::names::Ino;
use super::rng::Rng;
use super::trace::Trace;
use crate::format::BLOCK_BYTES;
use crate::io::{Completion, DirEntry, Durability, Metadata, Op, OpId};

/// Shortest and longest time that an operation adds to the clocks, in nanoseconds.
const LATENCY_NS: (u64, u64) = (20_000, 400_000);

/// A file that a backend has opened.
#[derive(Debug)]
struct Handle {
    backend: u64,
    ino: Ino,
    /// The name it was opened under.
    path: String,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct State {
    pub(super) media: Media,
    pub(super) rng: Rng,
    /// Chooses which bits flip. Apart, so that readers do not disturb the order of completions.
    flips: Rng,
    pub(super) env: SimEnv,
    pub(super) faults: Faults,
    pub(super) trace: Trace,
    pub(super) counters: [u64; CLASSES],
    pub(super) flights: Vec<Flight>,
    /// Operations of a machine without power that a poll has yet to fail; none of them takes effect.
    unheard: Vec<(u64, OpId)>,
    handles: BTreeMap<u64, Handle>,
    next_handle: u64,
    backends: u64,
    /// No power: nothing takes effect any more, every completion is an error, nothing can be read.
    pub(super) off: bool,
}

impl State {
    /// The first life of an empty disk.
    pub(super) fn new(seed: u64) -> State {
        let rng = Rng::new(seed);
        let env = SimEnv::new(WALL_NS_AT_START, 0, rng.fork(1));
        State::boot(Media::new(), rng, env, Trace::after(0))
    }

    /// A machine that starts with what `media` holds.
    pub(super) fn boot(media: Media, rng: Rng, env: SimEnv, trace: Trace) -> State {
        State {
            media,
            flips: rng.fork(2),
            rng,
            env,
            faults: Faults::default(),
            trace,
            counters: [0; CLASSES],
            flights: Vec::new(),
            unheard: Vec::new(),
            handles: BTreeMap::new(),
            next_handle: 1,
            backends: 0,
            off: false,
        }
    }

    /// A number for a new backend.
    pub(super) fn attach(&mut self) -> u64 {
        self.backends += 1;
        self.backends
    }

    /// Completes what a backend has in flight and closes its files; without power it just goes away.
    pub(super) fn detach(&mut self, backend: u64) {
        let mut done = Vec::new();
        while !self.off && self.flights.iter().any(|flight| flight.backend == backend) {
            self.poll(backend, Some(Duration::ZERO), false, &mut done);
        }
        let open: Vec<u64> =
            self.handles.iter().filter(|(_, handle)| handle.backend == backend).map(|(&handle, _)| handle).collect();
        open.into_iter().for_each(|handle| self.close(handle));
    }

    pub(super) fn power_off(&mut self) {
        if !self.off {
            self.off = true;
            self.unheard.extend(self.flights.iter().map(|flight| (flight.backend, flight.id)));
            self.trace.line("= power off".to_owned());
        }
    }

    /// Takes an operation over and decides how it will end. Without power it changes nothing, and fails.
    pub(super) fn submit(&mut self, backend: u64, id: OpId, op: Op) {
        if self.off {
            self.unheard.push((backend, id));
            return;
        }
        let (handle, path, text) = self.describe(&op);
        self.trace.line(format!("+{backend}.{} {text}", id.0));
        let ino = handle.and_then(|handle| self.handles.get(&handle)).map(|handle| handle.ino);
        let mut mine = self.flights.iter().filter(|flight| flight.backend == backend);
        assert!(mine.all(|flight| flight.id != id), "operation {} is in flight already", id.0);
        if matches!(op, Op::Close { .. }) {
            assert!(
                self.flights.iter().all(|flight| flight.ino != ino),
                "{path} is closed under an operation in flight"
            );
        }
        let classes = ClassSet::of(&op);
        classes.count(&mut self.counters);
        let fate = match self.faults.strike(classes, &path) {
            None => Fate::Sound,
            Some((_, FaultKind::PowerOff)) => {
                self.power_off();
                Fate::Sound
            }
            Some((class, kind)) => self.failing_part(&op, classes, class, kind),
        };
        let pages = match &op {
            Op::Write { buf, len, .. } => pages_of(&buf[..(*len).min(buf.len())]),
            _ => Vec::new(),
        };
        let horizon = self.media.stamp;
        let mut flight = Flight { backend, id, op, ino, fate, horizon, pages, early: Vec::new() };
        self.show_early(&mut flight);
        if self.off {
            // It is the one that the power failed at.
            self.unheard.push((backend, id));
        }
        self.flights.push(flight);
    }

    /// Where a fault hits an operation that is a write and a sync.
    fn failing_part(&mut self, op: &Op, classes: ClassSet, class: OpClass, kind: FaultKind) -> Fate {
        let durable_write = matches!(op, Op::Write { .. }) && classes.has(OpClass::Sync);
        let in_sync = match class {
            OpClass::Sync => durable_write,
            OpClass::Any | OpClass::Mutating => durable_write && self.rng.coin(),
            _ => false,
        };
        if in_sync { Fate::FailsInSync(kind) } else { Fate::Fails(kind) }
    }

    /// Lets readers see some sectors of a write before it completes, as a page cache may. Not on a disk of limited
    /// space, where the write may yet be refused.
    fn show_early(&mut self, flight: &mut Flight) {
        let Op::Write { offset, len, .. } = flight.op else { return };
        let whole = offset.is_multiple_of(BLOCK_BYTES as u64) && flight.pages.len() * BLOCK_BYTES == len;
        let Some(ino) = flight.ino.filter(|_| whole && self.media.space_bytes.is_none()) else { return };
        if !self.rng.chance(1, 4) {
            return;
        }
        flight.early = flight.pages.iter().map(|_| self.rng.next_u64() as u8).collect();
        for (at, (page, &sectors)) in flight.pages.iter().zip(&flight.early).enumerate() {
            self.media.file(ino).show(offset / BLOCK_BYTES as u64 + at as u64, page, sectors);
        }
    }

    /// The handle of an operation, the path that faults look at, and its line in the trace.
    fn describe(&self, op: &Op) -> (Option<u64>, String, String) {
        let name = |handle: u64| self.handles.get(&handle).map_or("?".to_owned(), |handle| handle.path.clone());
        let of_file = |handle: u64, verb: &str| (Some(handle), name(handle), format!("{verb} {}", name(handle)));
        let of_path = |path: &String, verb: &str| (None, path.clone(), format!("{verb} {path}"));
        match op {
            Op::Create { path } => of_path(path, "create"),
            Op::Open { path } => of_path(path, "open"),
            Op::Unlink { path } => of_path(path, "unlink"),
            Op::MakeDir { path } => of_path(path, "mkdir"),
            Op::SyncDir { path } => of_path(path, "syncdir"),
            Op::Rename { from, to } => (None, format!("{from} {to}"), format!("rename {from} {to}")),
            Op::Close { file } => of_file(file.0, "close"),
            Op::SyncData { file } => of_file(file.0, "sync"),
            Op::Write { file, offset, len, buf, durability } => {
                let (handle, path, text) = of_file(file.0, "write");
                let crc = crc32fast::hash(&buf[..(*len).min(buf.len())]);
                (handle, path, format!("{text} {offset}+{len} {crc:08x} {durability:?}"))
            }
        }
    }

    /// See [`crate::io::Backend::poll`]; `woken`: the waker was called since the last poll.
    pub(super) fn poll(&mut self, backend: u64, timeout: Option<Duration>, woken: bool, done: &mut Vec<Completion>) {
        if self.off {
            let dead = |id| Completion { id, outcome: Err(FaultKind::PowerOff.error()), buf: None };
            done.extend(self.unheard.extract_if(.., |(of, _)| *of == backend).map(|(_, id)| dead(id)));
            return;
        }
        let mine: Vec<OpId> =
            self.flights.iter().filter(|flight| flight.backend == backend).map(|flight| flight.id).collect();
        if mine.is_empty() {
            if let Some(timeout) = timeout.filter(|_| !woken) {
                self.env.advance(timeout.as_nanos() as u64);
            }
            return;
        }
        if woken && self.rng.coin() {
            return;
        }
        let mut left = mine;
        for _ in 0..1 + self.rng.below(left.len() as u64) {
            let id = left.swap_remove(self.rng.below(left.len() as u64) as usize);
            let at = self.flights.iter().position(|flight| flight.backend == backend && flight.id == id);
            let flight = self.flights.remove(at.expect("the operation is in flight"));
            self.env.advance(LATENCY_NS.0 + self.rng.below(LATENCY_NS.1 - LATENCY_NS.0));
            done.push(self.complete(flight));
        }
    }

    fn complete(&mut self, flight: Flight) -> Completion {
        let effect = self.media.effect(&flight, &mut self.rng);
        let Flight { backend, id, op, .. } = flight;
        let (outcome, buf) = match (effect, op) {
            (Ok(Some(ino)), Op::Create { path } | Op::Open { path }) => (Ok(self.open(backend, ino, path)), None),
            (Ok(_), Op::Close { file }) => {
                self.close(file.0);
                (Ok(0), None)
            }
            (effect, Op::Write { buf, .. }) => (effect.map(|_| 0), Some(buf)),
            (effect, _) => (effect.map(|_| 0), None),
        };
        self.trace.line(match &outcome {
            Ok(value) => format!("-{backend}.{} ok {value}", id.0),
            Err(err) => format!("-{backend}.{} {:?}", id.0, err.kind()),
        });
        Completion { id, outcome, buf }
    }

    fn open(&mut self, backend: u64, ino: Ino, path: String) -> u64 {
        let number = self.next_handle;
        self.next_handle += 1;
        self.media.file(ino).handles += 1;
        self.handles.insert(number, Handle { backend, ino, path });
        number
    }

    fn close(&mut self, handle: u64) {
        if let Some(Handle { ino, .. }) = self.handles.remove(&handle) {
            self.media.file(ino).handles -= 1;
        }
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let bit = self.flips.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
    }

    /// Counts an operation of the reading side; whether a bit of its result is to flip.
    fn look(&mut self, classes: ClassSet, path: &str) -> io::Result<bool> {
        if self.off {
            return Err(FaultKind::PowerOff.error());
        }
        classes.count(&mut self.counters);
        match self.faults.strike(classes, path) {
            None => Ok(false),
            Some((_, FaultKind::FlipBit)) => Ok(true),
            Some((_, kind)) => {
                if kind == FaultKind::PowerOff {
                    self.power_off();
                }
                self.trace.line(format!("r {path} fails: {kind:?}"));
                Err(kind.error())
            }
        }
    }

    /// Opens a file for reading.
    pub(super) fn reader_open(&mut self, path: &str) -> io::Result<Ino> {
        self.look(ClassSet::LOOKUP, path)?;
        self.trace.line(format!("r open {path}"));
        let ino = self.media.names.file(path)?;
        self.media.file(ino).handles += 1;
        Ok(ino)
    }

    /// Reads from an open file.
    pub(super) fn reader_read(&mut self, ino: Ino, path: &str, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let flips = self.look(ClassSet::READ, path)?;
        let read = self.media.file(ino).visible.read(buf, offset);
        if flips {
            self.flip(&mut buf[..read]);
        }
        self.trace.line(format!("r read {path} {offset}+{} {read} {:08x}", buf.len(), crc32fast::hash(&buf[..read])));
        Ok(read)
    }

    /// Lists a directory.
    pub(super) fn reader_list(&mut self, path: &str) -> io::Result<Vec<DirEntry>> {
        self.look(ClassSet::LOOKUP, path)?;
        self.trace.line(format!("r list {path}"));
        let (_, names) = self.media.names.dir(path)?;
        let entry =
            |(name, &ino): (&String, &Ino)| DirEntry { name: name.clone(), is_file: !self.media.names.is_dir(ino) };
        Ok(names.iter().map(entry).collect())
    }

    /// Looks at a file.
    pub(super) fn reader_metadata(&mut self, path: &str) -> io::Result<Metadata> {
        self.look(ClassSet::LOOKUP, path)?;
        self.trace.line(format!("r look {path}"));
        let ino = self.media.names.file(path)?;
        let links = self.media.names.links(ino);
        let file = self.media.file(ino);
        Ok(Metadata { bytes: file.visible.bytes, links: links + file.links_outside })
    }

    /// Length of an open file.
    pub(super) fn reader_bytes(&mut self, ino: Ino, path: &str) -> io::Result<u64> {
        self.look(ClassSet::LOOKUP, path)?;
        Ok(self.media.file(ino).visible.bytes)
    }

    /// Closes a file that was opened for reading.
    pub(super) fn reader_close(&mut self, ino: Ino) {
        self.media.file(ino).handles -= 1;
    }

    /// The disk as a cut finds it: everything in flight may have happened, so all of it is among what may survive.
    pub(super) fn with_flights(&self) -> Media {
        let mut media = self.media.clone();
        for flight in self.flights.iter().filter(|flight| flight.fate != Fate::Fails(FaultKind::NoSpace)) {
            match (&flight.op, flight.ino) {
                (Op::Write { .. }, Some(ino)) => media.write_sectors(ino, flight, |_| WHOLE_PAGE),
                (Op::Create { .. } | Op::Rename { .. } | Op::Unlink { .. } | Op::MakeDir { .. }, _) => {
                    // One that cannot be done, a create of a name that exists, say, changes nothing.
                    drop(media.change_names(&flight.op));
                }
                _ => {}
            }
        }
        media
    }

    /// The disk as a killed process leaves it: each operation in flight happened or did not, a durable write perhaps
    /// without its sync; of a write that did not, what readers had seen of it stays.
    pub(super) fn with_flights_resolved(&self, rng: &mut Rng) -> Media {
        let mut media = self.media.clone();
        let mut flights: Vec<&Flight> = self.flights.iter().collect();
        while !flights.is_empty() {
            let flight = flights.swap_remove(rng.below(flights.len() as u64) as usize);
            let durable = matches!(flight.op, Op::Write { durability: Durability::Own | Durability::File, .. });
            match (rng.below(3), flight.ino) {
                (0, Some(ino)) if matches!(flight.op, Op::Write { .. }) => media.write_sectors(ino, flight, |_| 0),
                (0, _) => {}
                (1, Some(ino)) if durable => media.write_sectors(ino, flight, |_| WHOLE_PAGE),
                // Nobody is left to be told how it ended.
                _ => drop(media.effect(flight, rng)),
            }
        }
        media
    }
}
