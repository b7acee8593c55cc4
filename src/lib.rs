//! Kifa: a crash-proof local log for payment terminals and mobile-money agents.
//!
//! Entries go in, entries come out, and **every confirmed write survives power failure**.
//!
//! ```no_run
//! use kifa::{Log, Options, Reader, ScanRange};
//!
//! let log = Log::open("till-1", Options::default())?;
//! let lsn = log.append(br#"{"txn":"TXN-001","amount":5000}"#)?; // durable when this returns
//! log.close()?;
//!
//! let reader = Reader::open("till-1")?;
//! let mut scan = reader.scan(ScanRange::default())?;
//! while let Some(entry) = scan.next_entry()? {
//!     println!("[{}] {}", entry.lsn, String::from_utf8_lossy(entry.payload));
//! }
//! # Ok::<(), kifa::Error>(())
//! ```
//!
//! # Three words
//! - **written**: the bytes were handed to the device.
//! - **durable**: a data sync that began after the write completed has succeeded.
//! - **confirmed**: the producer was told "yes": [`Log::append`] or [`Ticket::wait`] returned.
//!
//! # The promise
//! - **cautious** (default): confirmed implies durable. **emergency**: the same, with the merging of tables paused.
//!   **normal**: entries are confirmed as they are accepted, at most 49 ahead of durable, and none stays unsynced for
//!   longer than a second.
//! - After any power cut or kill: confirmed ⊆ recovered ⊆ submitted, in order, each entry once, byte for byte; in normal
//!   mode at most 49 confirmed entries may be missing, and the log says which: their LSNs are a recorded [`Gap`].
//! - An LSN that a producer may have been told is never given to another entry.
//! - Damage is never silent: bytes that were once provably durable and cannot be read any more are [`Error::Corrupt`], with
//!   file, offset and LSN, and nothing is overwritten. A torn tail of unconfirmed bytes is cut and counted.
//! - A device that acknowledges a cache flush it has not done cannot be defended against, only detected.
//!
//! # The way of an entry
//! ```text
//!  stdin   file tail   tcp   udp   unix socket    │  another program
//!    └─────────┴────────┴─────┴────────┘          │  Log::append, Log::submit, from any thread
//!      kifa daemon: framing, answers              │
//!                     └───────────────┬───────────┘
//!                                     │  staged into the open group's buffer, under a short lock that gives
//!                                     │  LSN and timestamp; no room: the producer waits
//!                                     ▼
//!                             ┌───────────────┐   one thread; the only one that submits storage I/O
//!                             │    reactor    │   stage → group → write and sync → confirm → memtable
//!                             └───────┬───────┘
//!       wal/*.wal   segments ◄────────┼────────► sst/*.sst   tables: a frozen memtable, built on a helper
//!                                     │                      thread, written by the reactor; merged later
//!                                     └────────► MANIFEST-*  which tables are live, and where the log goes on
//!
//!  Reader: any process, any time, no lock: manifest, tables, then the segments behind them
//! ```
//!
//! While one sync is on its way, everything that arrives becomes the next group: one write, one sync, all its producers
//! confirmed together. A table is durable and read back before the manifest names it, and the manifest is durable before the
//! segments behind it are released: no step of that can lose an entry, and none has to be finished before the power goes.
//!
//! # Where to read on
//! Data flows down this list, and so do the arrows between modules:
//!
//! | module | what |
//! |---|---|
//! | `cli`, `config` | the program `kifa`: arguments, settings, output, exit codes |
//! | `daemon`, `source` | sources and how they end together; framing, confirmations, sockets, files |
//! | `engine` | the public life of a log: lock, recovery, append, close |
//! | `query` | reading: a look at the store, and scans over it |
//! | `survey`, `recover` | what of a damaged store can be read; going on from it |
//! | `reactor` | the one thread: group commit, release in order, memtables, spare segments |
//! | `compaction` | which tables are merged, and how |
//! | `wal` | segments, and the decision where a log ends |
//! | `memtable`, `sstable`, `manifest` | what is not in a table yet; tables; the live set of them |
//! | `format` | every byte on disk: the layout tables are there and nowhere else |
//! | `io` | the seam to the disk: io_uring, or `pwrite` with a data sync; directories, locks |
//! | `bench`, `sim` | beside them: measuring, and the disk that loses power, for tests |
//!
//! # As a part of another program
//! ```toml
//! kifa = { version = "0.1", default-features = false }
//! ```
//! The feature `cli` (on by default) is the program and everything that only the program needs. Without it the library brings
//! 17 crates on 64-bit Linux, all of them Rust, and starts four threads for each open log. `sim` and `fuzzing` are for Kifa's
//! own tests. `examples/embed.rs` is a whole program.
//!
//! These threads hand memory to each other, of which glibc's allocator keeps some for each of them: a program that should not
//! grow by ten megabytes and more under load sets `MALLOC_ARENA_MAX=1` and `MALLOC_MMAP_THRESHOLD_=131072`, or calls `mallopt`,
//! as `kifa` does. A tenth of the speed of a full load is the price of the second.

// Tests look at the real machine; what must be simulated is fenced off in everything else (clippy.toml).
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod batch;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod bench;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod compaction;
#[cfg(feature = "cli")]
mod config;
#[cfg(unix)]
mod control;
#[cfg(feature = "cli")]
mod daemon;
#[cfg(feature = "cli")]
mod decimal;
mod engine;
mod error;
mod format;
// What fuzzing needs of the decoders, and tests of fuzzing's corpora.
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(feature = "fuzzing"), allow(unreachable_pub))]
#[doc(hidden)]
pub mod fuzzing;
mod io;
mod manifest;
mod memtable;
mod options;
mod planted;
mod query;
mod reactor;
#[cfg(feature = "cli")]
mod recover;
mod retention;
#[cfg(feature = "cli")]
mod snapshot;
// The example drives only a part of what the tests use, and is all that needs anything of it to be public.
#[cfg(any(test, feature = "sim"))]
#[cfg_attr(not(test), allow(dead_code, unused_imports))]
#[cfg_attr(not(feature = "sim"), allow(unreachable_pub))]
mod sim;
#[cfg(feature = "cli")]
mod source;
mod sstable;
mod survey;
mod wal;

pub use batch::{Batch, LsnRange};
pub use engine::{Log, Ticket};
pub use error::{Damage, Error, Result};
pub use format::manifest::Expired;
pub use format::{ClockStep, ENTRY_PAYLOAD_BYTES_MAX, FlushMode, Gap, GapCause, Lsn};
pub use io::SyncMethod;
pub use options::{Compression, CpuAffinity, IoBackend, OnFull, Options};
pub use query::{EntryRef, Notice, Reader, Scan, ScanRange, StoreStats};
pub use reactor::stats::{LogStats, RecoveryStats};
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use sim::campaign::{bug_names, plant_bug, run_case, run_seed};
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use sim::report::{Broken, Depth, Report};
