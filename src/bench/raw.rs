//! The bare device, through one file that is written completely before anything is measured: no engine, no ring, one
//! thread, one request at a time.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Histogram, Rate};
use crate::format::BLOCK_BYTES;
use crate::io::AlignedBuf;
use crate::io::fs::{self, StoreDir};

/// Bytes of one request of the sequential loops.
const STREAM_BYTES: usize = 1 << 20;

/// See the module's page.
pub struct Raw {
    file: File,
    bytes: u64,
    at: u64,
    direct: bool,
    buf: AlignedBuf,
}

impl Raw {
    /// Creates the file `name` in `dir`, of `bytes` (rounded up to a MiB), fully written and durable. `go_on` is asked
    /// after every MiB.
    ///
    /// # Errors
    /// The file is there already, or the device fails; `Interrupted` where `go_on` said no.
    pub fn create(dir: &Path, name: &str, bytes: u64, go_on: &dyn Fn() -> bool) -> io::Result<Raw> {
        let file = StoreDir::open(dir)?.create(name)?;
        let direct = fs::make_direct(&file);
        let bytes = bytes.max(1).next_multiple_of(STREAM_BYTES as u64);
        let mut buf = AlignedBuf::zeroed(STREAM_BYTES);
        // Not zeros: a device, or the host of a virtual one, may treat those as a special case.
        let mut word = 0x9E37_79B9_7F4A_7C15_u64;
        for chunk in buf.chunks_exact_mut(8) {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let mut raw = Raw { file, bytes, at: 0, direct, buf };
        while raw.at < bytes {
            if !go_on() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            raw.write(STREAM_BYTES)?;
        }
        fs::sync_data(&raw.file)?;
        Ok(raw)
    }

    /// Whether it bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// R: blocks of 4 KiB, each written and synced before the next, for as long as `limit`; at least one.
    ///
    /// # Errors
    /// The device fails.
    pub fn blocks(&mut self, limit: Duration, latencies: &mut Histogram) -> io::Result<Rate> {
        self.synced(BLOCK_BYTES, limit, latencies)
    }

    /// As [`Raw::blocks`], `count` of them.
    ///
    /// # Errors
    /// The device fails.
    pub fn count_blocks(&mut self, count: u64, latencies: &mut Histogram) -> io::Result<Rate> {
        let begin = Instant::now();
        for _ in 0..count {
            self.one_synced(BLOCK_BYTES, latencies)?;
        }
        Ok(Rate { count, elapsed: begin.elapsed() })
    }

    /// BW: 1 MiB at a time, each written and synced before the next; the count is bytes.
    ///
    /// # Errors
    /// The device fails.
    pub fn stream(&mut self, limit: Duration) -> io::Result<Rate> {
        let rate = self.synced(STREAM_BYTES, limit, &mut Histogram::default())?;
        Ok(Rate { count: rate.count * STREAM_BYTES as u64, ..rate })
    }

    /// Reads the file from its beginning, 1 MiB at a time; the count is bytes.
    ///
    /// # Errors
    /// The device fails.
    pub fn read(&mut self, limit: Duration) -> io::Result<Rate> {
        read_slice(&self.file, self.bytes, &mut self.buf, limit)
    }

    fn synced(&mut self, len: usize, limit: Duration, latencies: &mut Histogram) -> io::Result<Rate> {
        let begin = Instant::now();
        let mut count = 0;
        loop {
            self.one_synced(len, latencies)?;
            count += 1;
            let elapsed = begin.elapsed();
            if elapsed >= limit {
                return Ok(Rate { count, elapsed });
            }
        }
    }

    fn one_synced(&mut self, len: usize, latencies: &mut Histogram) -> io::Result<()> {
        let begin = Instant::now();
        self.write(len)?;
        fs::sync_data(&self.file)?;
        latencies.add(begin.elapsed());
        Ok(())
    }

    /// Writes at the next place of the file, round and round.
    fn write(&mut self, len: usize) -> io::Result<()> {
        if self.at + len as u64 > self.bytes {
            self.at = 0;
        }
        let written = fs::write_at(&self.file, &self.buf[..len], self.at)?;
        if written != len {
            return Err(fs::short_write(written, len));
        }
        self.at += len as u64;
        Ok(())
    }
}

/// Reads files of the directory `dir` one after the other, past the page cache where that is possible, 1 MiB at a time
/// and from the first again behind the last, for as long as `limit`; the count is bytes.
///
/// # Errors
/// A file cannot be opened or read, or all of them are empty.
pub fn read_bandwidth(dir: &Path, names: &[String], limit: Duration) -> io::Result<Rate> {
    let dir = StoreDir::open(dir)?;
    let mut buf = AlignedBuf::zeroed(STREAM_BYTES);
    let mut total = Rate::default();
    for name in names.iter().cycle() {
        let file = dir.open_rw(name)?;
        fs::make_direct(&file);
        let bytes = file.metadata()?.len();
        let rate = read_slice(&file, bytes, &mut buf, limit.saturating_sub(total.elapsed))?;
        if rate.count == 0 && total.count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} is empty")));
        }
        total = Rate { count: total.count + rate.count, elapsed: total.elapsed + rate.elapsed };
        if total.elapsed >= limit {
            break;
        }
    }
    Ok(total)
}

/// Reads a file once from front to back, as far as `limit` allows.
fn read_slice(file: &File, bytes: u64, buf: &mut AlignedBuf, limit: Duration) -> io::Result<Rate> {
    let begin = Instant::now();
    let mut at = 0;
    while at < bytes && (at == 0 || begin.elapsed() < limit) {
        let read = fs::read_full(file, buf, at)?;
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(Rate { count: at, elapsed: begin.elapsed() })
}
