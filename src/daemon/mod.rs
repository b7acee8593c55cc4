//! The daemon's wiring: signals, log, sources, drain.
//!
//! - Signals are caught before the log is opened, so that a SIGTERM during recovery ends cleanly behind it.
//! - Every source is opened before the first line is taken from any.
//! - The run ends when every source has ended, by itself or because a stop was requested: by a signal, or by the first
//!   source that failed. Whatever the reason, what was accepted is confirmed or counted as not stored, and the log is closed
//!   (which makes everything durable) before the outcome is given.
//!
//! It does not print and does not choose exit codes; `cli` does.
//!
//! Proof: `tests/it/daemon.rs`.
// Each source has a thread of its own, started here with a name.
#![allow(clippy::disallowed_methods)]

pub(crate) mod signals;
pub(crate) mod stop;
#[cfg(unix)]
pub(crate) mod wake;

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use tracing::{debug, info};

use crate::config::Config;
use crate::engine::Log;
use crate::error::{Error, Result};
use crate::source::Context;
use crate::source::counters::{Board, Totals};
use crate::source::names::Registry;
use crate::source::stdin::Stdin;
use signals::{Signal, Signals};
use stop::Stop;

/// Why a daemon ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Its inputs ended.
    Input,
    /// It was told to stop.
    Signal(Signal),
}

/// How a run of the daemon ended: its sources' end, or the first error.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: Result<End>,
    pub(crate) totals: Totals,
}

/// Runs until the inputs end, a signal arrives or the log fails.
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
    info!("{} is open, flush mode {:?}", config.data_dir.display(), log.flush_mode());
    let names = Registry::new(log.recovered_checkpoints());
    let (board, stop) = (Board::default(), Stop::default());
    let context = Context { log: &log, names: &names, board: &board, stop: &stop };
    let end = open_sources(config, context).and_then(|sources| run_sources(sources, &signals, &stop));
    let totals = board.totals();
    let closed = log.close();
    let end = end.and_then(|end| closed.map(|()| end));
    match &end {
        Ok(End::Input) => info!("end of input: {} entries stored", totals.stored),
        Ok(End::Signal(signal)) => info!("stopped by {signal}: {} entries stored", totals.stored),
        Err(_) => {}
    }
    Outcome { end, totals }
}

/// An open source: runs to its end on a thread of its own.
struct Running<'a> {
    name: &'static str,
    run: Box<dyn FnOnce() -> Result<()> + Send + 'a>,
}

fn open_sources<'a>(config: &Config, context: Context<'a>) -> Result<Vec<Running<'a>>> {
    let mut sources = Vec::new();
    refuse_unsupported(config)?;
    if let Some(stdin) = &config.sources.stdin {
        let stdin = Stdin::open(stdin, context)?;
        let run = move || {
            if stdin.run()? {
                info!("standard input has ended");
            }
            Ok(())
        };
        sources.push(Running { name: "kifa-stdin", run: Box::new(run) });
    }
    Ok(sources)
}

/// What can be configured and is not there yet: to take it without an effect would lose somebody's entries.
fn refuse_unsupported(config: &Config) -> Result<()> {
    let sources = &config.sources;
    let unsupported = [
        (!sources.files.is_empty(), "files"),
        (!sources.tcp.is_empty(), "tcp"),
        (!sources.udp.is_empty(), "udp"),
        (!sources.unix.is_empty(), "unix"),
        (sources.stdin.as_ref().is_some_and(|stdin| stdin.confirm), "confirm"),
    ];
    match unsupported.iter().find(|(is_asked_for, _)| *is_asked_for) {
        Some((_, key)) => {
            Err(Error::InvalidOption(format!("sources.{key} is not supported by this version of kifa; remove it")))
        }
        None => Ok(()),
    }
}

/// Returns when every source has ended: the first error, else the signal, else the end of input.
fn run_sources(sources: Vec<Running<'_>>, signals: &Signals, stop: &Stop) -> Result<End> {
    let (ended, endings) = mpsc::channel();
    thread::scope(|scope| {
        for Running { name, run } in sources {
            let ended = ended.clone();
            let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, move || {
                // The receiver waits for every sender.
                let _ = ended.send(run());
            });
            if let Err(cause) = thread {
                stop.request();
                return Err(Error::io("start a thread for", name, cause));
            }
        }
        drop(ended);
        supervise(&endings, signals, stop)
    })
}

/// How often signals are looked at while sources run.
const TICK: Duration = Duration::from_millis(20);

fn supervise(endings: &Receiver<Result<()>>, signals: &Signals, stop: &Stop) -> Result<End> {
    let mut outcome = Ok(End::Input);
    loop {
        match endings.recv_timeout(TICK) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                outcome = outcome.and(Err(error));
                stop.request();
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return outcome,
        }
        if let Some(signal) = signals.received()
            && !stop.is_requested()
        {
            outcome = outcome.map(|_| End::Signal(signal));
            stop.request();
        }
    }
}
