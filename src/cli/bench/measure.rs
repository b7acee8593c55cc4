//! The cases of `kifa bench`, each in turns with the raw device.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::bench::load::{Blocking, pipelined_for, settle};
use crate::bench::{Histogram, Measured, PAYLOAD_BYTES, Payloads, Place, Raw, available_bytes, turns};
use crate::engine::Log;
use crate::error::Error;
use crate::format::FlushMode;
use crate::io::SyncMethod;
use crate::options::{IoBackend, Options};

/// Length of the raw file: as long as a segment.
const RAW_BYTES: u64 = 16 << 20;
/// Longest slice: how long a signal may go unnoticed.
const SLICE_MAX: Duration = Duration::from_millis(250);
/// Slices of one round, raw ones included, and those that come once.
const ROUND_SLICES: u32 = 2 * (CANDIDATES.len() + CASES.len()) as u32 + 2;
const SINGLE_SLICES: u32 = 2 + CASES.len() as u32;
/// What must be free before each slice: more than the fastest device takes in one.
const FREE_BYTES_MIN: u64 = 512 << 20;

/// Ways of making an append durable, to choose from.
const CANDIDATES: [(IoBackend, SyncMethod); 4] = [
    (IoBackend::Uring, SyncMethod::Dsync),
    (IoBackend::Uring, SyncMethod::Linked),
    (IoBackend::Portable, SyncMethod::Dsync),
    (IoBackend::Portable, SyncMethod::Linked),
];

/// What is measured over the best of them.
const CASES: [(FlushMode, Blocking); 5] = [
    (FlushMode::Cautious, Blocking { producers: 2, batch: 1 }),
    (FlushMode::Cautious, Blocking { producers: 8, batch: 1 }),
    (FlushMode::Cautious, Blocking { producers: 64, batch: 1 }),
    (FlushMode::Cautious, Blocking { producers: 1, batch: 50 }),
    (FlushMode::Normal, Blocking { producers: 1, batch: 1 }),
];
/// Entries of a batch of the pipelined case.
const PIPELINED_BATCH: usize = 100;

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Stopped {
    /// A signal came.
    Asked,
    /// The sentence for the user.
    Failed(String),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Stopped {
        Stopped::Failed(error.to_string())
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        match error.kind() {
            io::ErrorKind::Interrupted => Stopped::Asked,
            _ => Stopped::Failed(format!("the raw device failed: {error}")),
        }
    }
}

/// A way of making appends durable, as the log names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Way {
    pub(super) backend: &'static str,
    pub(super) method: SyncMethod,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.backend, self.method)
    }
}

/// One blocking producer in cautious mode over one way.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) way: Way,
    pub(super) measured: Measured,
    pub(super) latencies: Histogram,
}

/// A case over the best way.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) mode: FlushMode,
    pub(super) load: Blocking,
    pub(super) measured: Measured,
    pub(super) latencies: Histogram,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) is_direct: bool,
    /// The file system is known to honour a durable write.
    pub(super) honours_dsync: bool,
    /// Latencies of the raw loop, and bytes per second of writing and reading.
    pub(super) raw: Histogram,
    pub(super) raw_per_second: f64,
    pub(super) write_bandwidth: f64,
    pub(super) read_bandwidth: f64,
    /// What `auto` comes to here.
    pub(super) auto: Way,
    /// The best one first.
    pub(super) candidates: Vec<Candidate>,
    pub(super) cases: Vec<Case>,
    /// Entries per second, and the ratio of their payload bytes to the write bandwidth.
    pub(super) pipelined: Measured,
}

/// What every slice needs.
struct Run<'a> {
    dir: &'a Path,
    payloads: Payloads,
    slice: Duration,
    rounds: usize,
    raw: RefCell<Raw>,
    raw_latencies: RefCell<Histogram>,
    go_on: &'a dyn Fn() -> bool,
    progress: &'a ProgressBar,
}

/// Measures everything inside `dir`, for about `seconds`. `go_on` is asked before each slice.
pub(super) fn all(
    dir: &Path,
    seconds: u64,
    go_on: &dyn Fn() -> bool,
    progress: &ProgressBar,
) -> Result<Found, Stopped> {
    let total = Duration::from_secs(seconds);
    let slice = (total / (ROUND_SLICES + SINGLE_SLICES)).min(SLICE_MAX);
    let slices = (total.as_nanos() / slice.as_nanos()) as u32;
    let rounds = ((slices - SINGLE_SLICES) / ROUND_SLICES).max(1);
    progress.set_length(u64::from(rounds * ROUND_SLICES + SINGLE_SLICES));
    check_room(dir)?;
    let run = Run {
        dir,
        payloads: Payloads::new(PAYLOAD_BYTES),
        slice,
        rounds: rounds as usize,
        raw: RefCell::new(Raw::create(dir, "raw", RAW_BYTES, go_on)?),
        raw_latencies: RefCell::default(),
        go_on,
        progress,
    };
    let auto = run.auto()?;
    let candidates = run.candidates()?;
    let Some(best) = candidates.first() else {
        return Err(Stopped::Failed("no backend can write here".to_owned()));
    };
    let log = run.open("cases", best.way)?;
    let cases = CASES.iter().map(|&(mode, load)| run.case(&log, mode, load)).collect::<Result<_, _>>()?;
    log.set_flush_mode(FlushMode::Cautious)?;
    let (pipelined, write_bandwidth) = run.pipelined(&log)?;
    log.close()?;
    let read_bandwidth = run.timed("raw reads", || Ok(run.raw.borrow_mut().read(slice)?.per_second()))?;
    let raw_per_second = candidates[0].measured.raw;
    let (is_direct, raw) = (run.raw.borrow().is_direct(), run.raw_latencies.into_inner());
    Ok(Found {
        place: Place::of(dir),
        is_direct,
        honours_dsync: honours_dsync(dir),
        raw,
        raw_per_second,
        write_bandwidth,
        read_bandwidth,
        auto,
        candidates,
        cases,
        pipelined,
    })
}

#[cfg(target_os = "linux")]
fn honours_dsync(dir: &Path) -> bool {
    crate::io::fs::StoreDir::open(dir).is_ok_and(|dir| dir.honours_dsync())
}

#[cfg(not(target_os = "linux"))]
fn honours_dsync(_dir: &Path) -> bool {
    false
}

/// A log on a full disk waits for room; this refuses to begin.
fn check_room(dir: &Path) -> Result<(), Stopped> {
    match available_bytes(dir) {
        Some(bytes) if bytes < FREE_BYTES_MIN => {
            let (has, needs) = (bytes >> 20, FREE_BYTES_MIN >> 20);
            Err(Stopped::Failed(format!("only {has} MiB are free here; {needs} are needed, for the time it takes")))
        }
        _ => Ok(()),
    }
}

impl Run<'_> {
    /// A slice of something: shown, not begun when it should stop or the disk is about to be full.
    fn timed(&self, what: &str, slice: impl FnOnce() -> Result<f64, Stopped>) -> Result<f64, Stopped> {
        if !(self.go_on)() {
            return Err(Stopped::Asked);
        }
        check_room(self.dir)?;
        self.progress.set_message(what.to_owned());
        let outcome = slice();
        self.progress.inc(1);
        outcome
    }

    fn raw_blocks(&self) -> Result<f64, Stopped> {
        self.timed("raw device", || {
            let mut latencies = self.raw_latencies.borrow_mut();
            Ok(self.raw.borrow_mut().blocks(self.slice, &mut latencies)?.per_second())
        })
    }

    fn blocking(&self, log: &Log, load: Blocking, latencies: &mut Histogram) -> Result<f64, Stopped> {
        let Blocking { producers, batch } = load;
        self.timed(&format!("{:?}, {producers} producers, batches of {batch}", log.flush_mode()), || {
            let rate = load.run(log, &self.payloads, self.slice, latencies)?;
            settle();
            Ok(rate.per_second())
        })
    }

    fn open(&self, name: &str, way: Way) -> Result<Log, Error> {
        let backend = if way.backend == "portable" { IoBackend::Portable } else { IoBackend::Uring };
        self.open_with(name, backend, way.method)
    }

    fn open_with(&self, name: &str, io_backend: IoBackend, sync_method: SyncMethod) -> Result<Log, Error> {
        let log = Log::open(self.dir.join(name), Options { io_backend, sync_method, ..Options::default() })?;
        settle();
        Ok(log)
    }

    /// What the settings come to when they are left alone.
    fn auto(&self) -> Result<Way, Stopped> {
        let log = self.open_with("auto", IoBackend::Auto, SyncMethod::Auto)?;
        let way = way(&log)?;
        log.close()?;
        Ok(way)
    }

    /// One blocking producer over each way that can be had, the best one first.
    fn candidates(&self) -> Result<Vec<Candidate>, Stopped> {
        let mut logs = Vec::new();
        for (number, (backend, method)) in CANDIDATES.into_iter().enumerate() {
            // A way that this system does not have is not a candidate.
            if let Ok(log) = self.open_with(&format!("way-{number}"), backend, method) {
                logs.push((way(&log)?, log, Histogram::default()));
            }
        }
        let ways: Vec<Way> = logs.iter().map(|(way, ..)| *way).collect();
        let load = Blocking { producers: 1, batch: 1 };
        let mut slices: Vec<_> =
            logs.iter_mut().map(|(_, log, latencies)| move || self.blocking(log, load, latencies)).collect();
        let mut subjects: Vec<crate::bench::Slice<'_, Stopped>> =
            slices.iter_mut().map(|slice| slice as crate::bench::Slice<'_, Stopped>).collect();
        let measured = turns(self.rounds, &mut || self.raw_blocks(), &mut subjects)?;
        drop(slices);
        let mut candidates = Vec::new();
        for ((way, measured), (_, log, latencies)) in ways.into_iter().zip(measured).zip(logs) {
            log.close()?;
            candidates.push(Candidate { way, measured, latencies });
        }
        candidates.sort_by(|a, b| b.measured.ratio.total_cmp(&a.measured.ratio));
        Ok(candidates)
    }

    fn case(&self, log: &Log, mode: FlushMode, load: Blocking) -> Result<Case, Stopped> {
        log.set_flush_mode(mode)?;
        let mut latencies = Histogram::default();
        let mut subject = || self.blocking(log, load, &mut latencies);
        let mut measured = turns(self.rounds, &mut || self.raw_blocks(), &mut [&mut subject])?;
        let measured = measured.remove(0);
        Ok(Case { mode, load, measured, latencies })
    }

    /// Pipelined appends against sequential raw writes; the write bandwidth, too.
    fn pipelined(&self, log: &Log) -> Result<(Measured, f64), Stopped> {
        let mut stream =
            || self.timed("raw device, sequential", || Ok(self.raw.borrow_mut().stream(self.slice)?.per_second()));
        let mut subject = || {
            self.timed("pipelined", || {
                let rate = pipelined_for(log, &self.payloads, self.slice, PIPELINED_BATCH)?;
                settle();
                Ok(rate.per_second() * PAYLOAD_BYTES as f64)
            })
        };
        let bytes = turns(self.rounds, &mut stream, &mut [&mut subject])?.remove(0);
        let bandwidth = bytes.raw;
        Ok((Measured { value: bytes.value / PAYLOAD_BYTES as f64, ..bytes }, bandwidth))
    }
}

fn way(log: &Log) -> Result<Way, Error> {
    let stats = log.stats()?;
    Ok(Way { backend: stats.io_backend, method: stats.sync_method })
}
