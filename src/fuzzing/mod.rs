//! What fuzzing runs: one function per decoder and per parser that bytes or text from outside reach.
//!
//! Each takes any bytes, and panics if a rule is broken: nothing panics by itself, what a decoder accepts its encoder gives
//! back byte for byte, what is returned lies within the bytes given. A decoder sees every input twice, as it is and with its
//! checksums made to fit, or no input would ever get behind them.
//!
//! | target | what it feeds |
//! |---|---|
//! | `entry`, `group`, `record`, `segment` | the write-ahead log, whole groups as replay reads them |
//! | `table`, `table_block` | a table's file (header, blocks, index, footer) as a reader opens it; one block |
//! | `manifest` | the manifest |
//! | `config` | the configuration file and the environment |
//! | `time` | times on the command line |
//! | `framing` | entries out of a stream, in pieces, by each framing |
//! | `protocol` | replies of the control socket, ids and numbered lines of producers |
//! | `control` | requests to the control socket, in pieces |
//!
//! The package in `fuzz/` runs them under libFuzzer; `tests` replays its corpora on any compiler. They are public behind
//! the feature `fuzzing`, which nothing else turns on, because that package is another crate and the decoders are private:
//! making these few functions public keeps it so. A new decoder of bytes from outside gets a target here, a line in
//! [`TARGETS`], a file in `fuzz/fuzz_targets` and seeds in `tests`.

mod log;
mod table;
#[cfg(test)]
mod tests;
#[cfg(feature = "cli")]
mod text;

use std::io;

use crate::format::StoreId;
use crate::io::ReadAt;

pub use log::{entry, group, manifest, record, segment};
pub use table::{table, table_block};
#[cfg(feature = "cli")]
pub use text::{config, framing, time};
#[cfg(all(feature = "cli", unix))]
pub use text::{control, protocol};

/// A target: its name, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("entry", entry),
    ("group", group),
    ("manifest", manifest),
    ("record", record),
    ("segment", segment),
    ("table", table),
    ("table_block", table_block),
    #[cfg(feature = "cli")]
    ("config", config),
    #[cfg(feature = "cli")]
    ("framing", framing),
    #[cfg(all(feature = "cli", unix))]
    ("control", control),
    #[cfg(all(feature = "cli", unix))]
    ("protocol", protocol),
    #[cfg(feature = "cli")]
    ("time", time),
];

/// The store that all records belong to.
const STORE: StoreId = StoreId([0xA5; 16]);

/// Makes a checksum fit.
fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// A number of the bytes' own.
fn get_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |field| u32::from_le_bytes(field.try_into().expect("four bytes are four")))
}

/// As [`get_u32`].
fn get_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |field| u64::from_le_bytes(field.try_into().expect("eight bytes are eight")))
}

/// A file in memory.
struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
