//! Producers that drive a log, as its users do.

use std::thread;
use std::time::{Duration, Instant};

use super::{Histogram, Payloads, ProcessIo, Rate};
use crate::batch::Batch;
use crate::engine::Log;
use crate::error::Result;

/// Producers that wait for each confirmation before they go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocking {
    /// Threads.
    pub producers: usize,
    /// Entries handed over together.
    pub batch: usize,
}

impl Blocking {
    /// Appends for as long as `limit`, each producer at least once; the count is entries. One producer is the calling thread:
    /// in a program it has been there for long, and the system has found out where to run it. Several are new threads.
    ///
    /// # Errors
    /// The log's.
    pub fn run(self, log: &Log, payloads: &Payloads, limit: Duration, latencies: &mut Histogram) -> Result<Rate> {
        let begin = Instant::now();
        let is_over = move |_| begin.elapsed() >= limit;
        if self.producers == 1 {
            return self.produce_here(log, payloads, is_over, latencies);
        }
        let produced: Vec<Result<(u64, Histogram)>> = thread::scope(|scope| {
            let start = |producer| scope.spawn(move || self.produce(log, payloads, producer, is_over));
            let producers: Vec<_> = (0..self.producers).map(start).collect();
            producers.into_iter().map(|thread| thread.join().expect("a producer does not panic")).collect()
        });
        let elapsed = begin.elapsed();
        let mut count = 0;
        for outcome in produced {
            let (batches, own) = outcome?;
            count += batches * self.batch as u64;
            latencies.merge(&own);
        }
        Ok(Rate { count, elapsed })
    }

    /// Appends `batches` batches as the one producer, on the calling thread; the count is entries.
    ///
    /// # Errors
    /// The log's.
    pub fn count(self, log: &Log, payloads: &Payloads, batches: u64, latencies: &mut Histogram) -> Result<Rate> {
        self.produce_here(log, payloads, |done| done >= batches, latencies)
    }

    fn produce_here(
        self,
        log: &Log,
        payloads: &Payloads,
        is_enough: impl Fn(u64) -> bool,
        latencies: &mut Histogram,
    ) -> Result<Rate> {
        let begin = Instant::now();
        let (batches, own) = self.produce(log, payloads, 0, is_enough)?;
        latencies.merge(&own);
        Ok(Rate { count: batches * self.batch as u64, elapsed: begin.elapsed() })
    }

    /// Appends until as many batches are enough.
    fn produce(
        self,
        log: &Log,
        payloads: &Payloads,
        producer: usize,
        is_enough: impl Fn(u64) -> bool,
    ) -> Result<(u64, Histogram)> {
        let mut latencies = Histogram::default();
        let mut batch = Batch::new();
        let mut batches = 0;
        // Producers begin at different entries, so that what they store differs.
        let mut number = producer * 1000;
        let mut now = Instant::now();
        loop {
            if self.batch == 1 {
                log.append(payloads.get(number))?;
            } else {
                batch.clear();
                for entry in 0..self.batch {
                    batch.push(payloads.get(number + entry))?;
                }
                log.submit(&batch)?.wait()?;
            }
            number += self.batch;
            batches += 1;
            let before = std::mem::replace(&mut now, Instant::now());
            latencies.add(now - before);
            if is_enough(batches) {
                return Ok((batches, latencies));
            }
        }
    }
}

/// Submits `entries` entries in batches of `batch`, waiting for room only, and returns when all of them are durable.
///
/// # Errors
/// The log's.
pub fn pipelined(log: &Log, payloads: &Payloads, entries: u64, batch: usize) -> Result<Rate> {
    let begin = Instant::now();
    let mut open = Batch::new();
    let mut last = None;
    let mut number = 0;
    while number < entries {
        open.clear();
        let end = entries.min(number + batch as u64);
        for entry in number..end {
            open.push(payloads.get(entry as usize))?;
        }
        last = Some(log.submit(&open)?);
        number = end;
    }
    // Confirmations come in order, so the last one stands for all.
    last.map(|ticket| ticket.wait()).transpose()?;
    log.sync()?;
    Ok(Rate { count: entries, elapsed: begin.elapsed() })
}

/// As [`pipelined`], for as long as `limit`.
///
/// # Errors
/// The log's.
pub fn pipelined_for(log: &Log, payloads: &Payloads, limit: Duration, batch: usize) -> Result<Rate> {
    const STEP: u64 = 10_000;
    let mut total = Rate::default();
    while total.elapsed < limit {
        let rate = pipelined(log, payloads, STEP, batch)?;
        total = Rate { count: total.count + rate.count, elapsed: total.elapsed + rate.elapsed };
    }
    Ok(total)
}

/// Lets the log's background work come to rest: this process writes nothing for a moment. At most two seconds.
pub fn settle() {
    is_quiet_for(Duration::from_millis(20), Duration::from_secs(2));
}

/// Waits until all is merged that is to be: this process writes nothing for half a second. Whether it came to that within a
/// minute.
#[must_use]
pub fn rest() -> bool {
    is_quiet_for(Duration::from_millis(500), Duration::from_secs(60))
}

fn is_quiet_for(quiet: Duration, limit: Duration) -> bool {
    let begin = Instant::now();
    let mut before = ProcessIo::now();
    while begin.elapsed() < limit {
        thread::sleep(quiet);
        let now = ProcessIo::now();
        if now.written == before.written {
            return true;
        }
        before = now;
    }
    false
}
