//! The daemon's wiring: signals, log, sources, drain.
//!
//! | file | what |
//! |---|---|
//! | `supervise` | the main thread while sources run |
//! | `signals`, `bell`, `wake`, `stop` | who is woken, and by what |
//! | `modes` | changes of the flush mode |
//! | `notify`, `watchdog` | word to the service manager |
//! | `vacuum` | a request of the control socket |
//! | `inherit` | sockets that the service manager has opened |
//! | `metrics` | numbers and health over HTTP |
//!
//! - Signals are caught before the log is opened, so that a SIGTERM during recovery ends cleanly behind it.
//! - Every source is opened before the first line is taken from any; the service manager is told "ready" behind that.
//! - The run ends when every source has ended, by itself or because a stop was requested: by a signal, by the first source
//!   that failed, or by the log's failure. Whatever the reason, what was accepted is confirmed or counted as not stored, and
//!   the log is closed (which makes everything durable) before the outcome is given.
//!
//! It does not print and does not choose exit codes; `cli` does.
//!
//! Proof: `tests/it/daemon.rs`, `tests/it/lifecycle.rs`, `tests/it/systemd.rs`.
// Each source has a thread of its own, started here with a name.
#![allow(clippy::disallowed_methods)]

mod bell;
pub(crate) mod control;
#[cfg(unix)]
mod inherit;
#[cfg(unix)]
mod metrics;
mod modes;
mod notify;
pub(crate) mod signals;
pub(crate) mod stop;
mod supervise;
pub(crate) mod vacuum;
#[cfg(unix)]
pub(crate) mod wake;
mod watchdog;

use std::ffi::OsString;
#[cfg(unix)]
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(unix)]
use std::sync::Arc;
#[cfg(unix)]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use tracing::{debug, info};

use crate::config::sources::APPEND_NAME;
use crate::config::{Config, ConfigError};
use crate::engine::Log;
use crate::error::{Error, Result};
use crate::source::Context;
use crate::source::counters::{Board, Totals};
#[cfg(unix)]
use crate::source::file::Files;
use crate::source::names::Registry;
#[cfg(unix)]
use crate::source::net::{Net, listen::Inherited};
use crate::source::stdin::Stdin;
use bell::Bell;
use control::{LimitControl, ModeControl};
use notify::{Notifier, watchdog_interval};
use signals::{Signal, Signals};
use stop::Stop;
use supervise::{News, Supervisor};
use watchdog::Watchdog;

/// Reads the configuration once more, from where it came.
pub(crate) type Reload<'a> = &'a dyn Fn() -> std::result::Result<Config, ConfigError>;

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
pub(crate) fn run(config: &Config, reload: Reload<'_>, variable: impl Fn(&str) -> Option<OsString>) -> Outcome {
    let nothing = |error| Outcome { end: Err(error), totals: Totals::default() };
    for setting in config.settings() {
        debug!("{setting}");
    }
    #[cfg(unix)]
    let inherited = match inherit::descriptors() {
        Ok(inherited) => inherited,
        Err(error) => return nothing(error),
    };
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return nothing(Error::io("catch", "signals", error)),
    };
    let notifier = Notifier::from_environment(&variable);
    notifier.status("Opening the store");
    let log = match Log::open(&config.data_dir, config.options.clone()) {
        Ok(log) => log,
        Err(error) => {
            notifier.status(&format!("Failed: {error}"));
            return nothing(error);
        }
    };
    info!("{} is open, flush mode {}", config.data_dir.display(), log.flush_mode());
    let names = Registry::new(log.recovered_checkpoints());
    let (board, stop) = (Board::default(), Stop::default());
    let context = Context { log: &log, names: &names, board: &board, stop: &stop };
    let (modes, limits) = (ModeControl::new(config.options.flush_mode), LimitControl::default());
    let watchdog = watchdog_interval(&variable).map(|interval| (interval, Watchdog::default()));
    let end = refuse_unsupported(config).and_then(|()| {
        let metrics = open_metrics(config, context)?;
        let mut sources = Vec::new();
        open_stdin(config, context, &mut sources)?;
        #[cfg(unix)]
        open_files(config, context, &mut sources)?;
        #[cfg(unix)]
        open_sockets(config, context, (&modes, &limits), inherited, &mut sources)?;
        let (modes, limits, signals, notifier) = (&modes, &limits, &signals, &notifier);
        run_sources(sources, context, Service { config, reload, modes, limits, signals, notifier, watchdog, metrics })
    });
    let closed = log.close();
    let end = end.and_then(|end| closed.map(|()| end));
    report(&board, &end);
    if let Err(error) = &end {
        notifier.status(&format!("Failed: {error}"));
    }
    Outcome { end, totals: board.totals() }
}

/// What became of each source's input, for the log.
fn report(board: &Board, end: &Result<End>) {
    let why = match end {
        Ok(End::Input) => "end of input".to_owned(),
        Ok(End::Signal(signal)) => format!("stopped by {signal}"),
        Err(_) => "stopped by a failure".to_owned(),
    };
    info!("{why}: {} entries stored", board.totals().stored);
    for (name, totals) in board.each() {
        let mut text = format!("{name}: {} stored", totals.stored);
        for (count, what) in [
            (totals.refused, "refused"),
            (totals.dropped, "lost before they could be taken"),
            (totals.unconfirmed, "not confirmed"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        // Whoever was not heard of needs no line, but for a source that somebody has configured.
        if totals != Totals::default() || name != APPEND_NAME {
            info!("{text}");
        }
    }
}

/// One line for whoever looks at the service.
fn status(config: &Config, log: &Log) -> String {
    let sources = match config.sources.count() {
        1 => "1 source".to_owned(),
        count => format!("{count} sources"),
    };
    format!("Reading from {sources}, flush mode {}", log.flush_mode())
}

/// What may be changed while sources run.
#[cfg(unix)]
pub(crate) type Controls<'a> = (&'a ModeControl, &'a LimitControl);

/// An open source: runs to its end on a thread of its own.
struct Running<'a> {
    name: &'static str,
    run: Box<dyn FnOnce() -> Result<()> + Send + 'a>,
}

/// Serves metrics until this is requested.
type ServeMetrics<'a> = Box<dyn FnOnce(&Stop) + Send + 'a>;

/// The page of metrics, if one is configured.
#[cfg(unix)]
fn open_metrics<'a>(config: &Config, context: Context<'a>) -> Result<Option<ServeMetrics<'a>>> {
    let Some(address) = &config.metrics else { return Ok(None) };
    let server = metrics::Server::open(address, config.data_dir.clone(), context)?;
    Ok(Some(Box::new(move |stop| server.run(stop))))
}

/// There are no sockets here yet.
#[cfg(not(unix))]
fn open_metrics<'a>(_config: &Config, _context: Context<'a>) -> Result<Option<ServeMetrics<'a>>> {
    Ok(None)
}

/// Standard input.
fn open_stdin<'a>(config: &Config, context: Context<'a>, sources: &mut Vec<Running<'a>>) -> Result<()> {
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
    Ok(())
}

/// All files that are followed, on one thread.
#[cfg(unix)]
fn open_files<'a>(config: &Config, context: Context<'a>, sources: &mut Vec<Running<'a>>) -> Result<()> {
    if !config.sources.files.is_empty() {
        let files = Files::open(&config.sources.files, &config.sources.file_limits, context, &config.data_dir)?;
        sources.push(Running { name: "kifa-files", run: Box::new(move || files.run()) });
    }
    Ok(())
}

/// Listeners, datagram sockets and the control socket. The last alone keeps no daemon running: it ends with the sources.
#[cfg(unix)]
fn open_sockets<'a>(
    config: &Config,
    context: Context<'a>,
    controls: Controls<'a>,
    inherited: Vec<OwnedFd>,
    sources: &mut Vec<Running<'a>>,
) -> Result<()> {
    let net = Net::open(config, context, controls, Inherited::new(inherited)?)?;
    if !net.has_sources() {
        let running = Arc::new(AtomicUsize::new(sources.len()));
        for source in &mut *sources {
            let running = Arc::clone(&running);
            let run = std::mem::replace(&mut source.run, Box::new(|| Ok(())));
            source.run = Box::new(move || {
                let outcome = run();
                if running.fetch_sub(1, Ordering::SeqCst) == 1 {
                    context.stop.request();
                }
                outcome
            });
        }
    }
    sources.push(Running { name: "kifa-net", run: Box::new(move || net.run()) });
    Ok(())
}

/// What can be configured and is not there yet: to take it without an effect would lose somebody's entries.
fn refuse_unsupported(config: &Config) -> Result<()> {
    let sources = &config.sources;
    let unsupported = [
        (cfg!(not(unix)) && !sources.files.is_empty(), "sources.files"),
        (cfg!(not(unix)) && !sources.tcp.is_empty(), "sources.tcp"),
        (cfg!(not(unix)) && !sources.udp.is_empty(), "sources.udp"),
        (cfg!(not(unix)) && !sources.unix.is_empty(), "sources.unix"),
        (cfg!(not(unix)) && config.metrics.is_some(), "daemon.metrics"),
    ];
    match unsupported.iter().find(|(is_asked_for, _)| *is_asked_for) {
        Some((_, key)) => Err(Error::InvalidOption(format!(
            "{key} is not supported on this system by this version of kifa; remove it"
        ))),
        None => Ok(()),
    }
}

/// What the supervisor needs besides the sources' context.
struct Service<'a> {
    config: &'a Config,
    reload: Reload<'a>,
    modes: &'a ModeControl,
    limits: &'a LimitControl,
    signals: &'a Signals,
    notifier: &'a Notifier,
    watchdog: Option<(std::time::Duration, Watchdog)>,
    metrics: Option<ServeMetrics<'a>>,
}

/// Returns when every source has ended: the first error, else the signal, else the end of input.
fn run_sources(sources: Vec<Running<'_>>, context: Context<'_>, service: Service<'_>) -> Result<End> {
    let Context { log, stop, .. } = context;
    let bell = Bell::new().map_err(|cause| Error::io("prepare to wait for", "signals", cause))?;
    let (tell, news) = mpsc::channel();
    let (changes, asked) = mpsc::channel();
    let failure_rings = log.watch(bell.ringer());
    service.notifier.ready(&status(service.config, log));
    let served = Stop::default();
    let outcome = thread::scope(|scope| {
        // Also where a thread cannot be had: the scope waits for all of them.
        let _metrics_end = RequestAtEnd(&served);
        if let Some(serve) = service.metrics {
            start(scope, stop, "kifa-metrics", || serve(&served))?;
        }
        let (done, ring) = (tell.clone(), bell.ringer());
        let control = service.modes;
        start(scope, stop, "kifa-modes", move || {
            modes::run(log, control, &asked, |change| {
                // The receiver waits for sources only; behind them nobody wants to know.
                let _ = done.send(News::Changed(change));
                ring();
            });
        })?;
        let running = sources.len();
        for Running { name, run } in sources {
            let (ended, ring) = (tell.clone(), bell.ringer());
            start(scope, stop, name, move || {
                // The receiver waits for every source.
                let _ = ended.send(News::Ended(caught(name, run)));
                ring();
            })?;
        }
        let supervisor = Supervisor {
            log,
            signals: service.signals,
            stop,
            bell: &bell,
            notifier: service.notifier,
            news,
            changes,
            reload: service.reload,
            limits: service.limits,
            config: service.config.clone(),
            watchdog: service.watchdog,
            running,
            outcome: Ok(End::Input),
            has_no_space: false,
            reloads: 0,
        };
        supervisor.run()
    });
    drop(failure_rings);
    outcome
}

/// Runs a source. One that panics ends as one that fails: the others stop, and what was accepted is stored.
fn caught(name: &str, run: Box<dyn FnOnce() -> Result<()> + Send + '_>) -> Result<()> {
    let panicked = |_| {
        let what = "it panicked, which is a mistake in kifa: please report the message above; restart the daemon";
        Err(Error::io("run", name, std::io::Error::other(what)))
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(panicked)
}

/// Requests a stop when it is dropped.
struct RequestAtEnd<'a>(&'a Stop);

impl Drop for RequestAtEnd<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// Starts a thread of the daemon; if it cannot be had, the ones that run are asked to stop.
fn start<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    stop: &Stop,
    name: &str,
    run: impl FnOnce() + Send + 'scope,
) -> Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, run).map(drop).map_err(|cause| {
        stop.request();
        Error::io("start a thread for", name, cause)
    })
}
