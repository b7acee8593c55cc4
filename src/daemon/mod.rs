//! The daemon's wiring: signals, log, sources, drain.
//!
//! - Signals are caught before the log is opened, so that a SIGTERM during recovery ends cleanly behind it.
//! - However it ends, everything that was accepted is confirmed or counted as not stored, and the log is closed (which
//!   makes everything durable) before the outcome is given.
//!
//! It does not print and does not choose exit codes; `cli` does.
//!
//! Proof: `tests/it/daemon.rs`.

pub(crate) mod signals;

use tracing::{debug, info, warn};

use crate::config::Config;
use crate::engine::Log;
use crate::error::{Error, Result};
use crate::source::stdin::{self, End};
use crate::source::{Pipeline, Totals};
use signals::Signals;

/// How a run of the daemon ended: its sources' end, or the first error.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: Result<End>,
    pub(crate) totals: Totals,
}

/// Runs until the input ends, a signal arrives or the log fails.
pub(crate) fn run(config: &Config) -> Outcome {
    let nothing = |error| Outcome { end: Err(error), totals: Totals::default() };
    for setting in config.settings() {
        debug!("{setting}");
    }
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return nothing(Error::io("catch", "signals", error)),
    };
    let log = match Log::open(&config.data_dir, config.options.clone()) {
        Ok(log) => log,
        Err(error) => return nothing(error),
    };
    info!("{} is open, flush mode {:?}; reading standard input", config.data_dir.display(), log.flush_mode());
    let mut pipeline = Pipeline::new(&log);
    let end = stdin::run(&mut pipeline, &signals);
    if let Err(error) = &end {
        // What was read before the input failed is as good as any other; after a failure of the log this fails, too.
        warn!("stopping: {error}");
        if let Err(error) = pipeline.drain() {
            debug!("the rest was not stored: {error}");
        }
    }
    let totals = pipeline.totals();
    let closed = log.close();
    let end = end.and_then(|end| closed.map(|()| end));
    match &end {
        Ok(End::Input) => info!("end of input: {} entries stored", totals.stored),
        Ok(End::Signal(signal)) => info!("stopped by {signal}: {} entries stored", totals.stored),
        Err(_) => {}
    }
    Outcome { end, totals }
}
