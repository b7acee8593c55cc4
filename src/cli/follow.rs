//! `tail -f` and `query -f`: entries as they become durable, until a signal comes or nothing more is wanted.
//!
//! - With a daemon it waits on the daemon's socket and uses no time while nothing happens; without one it looks at the
//!   files now and then, less often the longer nothing happens. The daemon may stop and come back.
//! - What is printed goes out before the next wait. A reader of the output that goes away ends it quietly, also while
//!   nothing happens; a signal ends it also while the output takes nothing.
//! - Each note is told once.
//!
//! Proof: `tests/it/follow.rs`.

#[cfg(unix)]
mod output;
#[cfg(unix)]
mod wake;
#[cfg(not(unix))]
#[path = "follow/elsewhere.rs"]
mod wake;

use std::path::Path;

use super::exit::{Exit, Failure};
use super::filter::Filter;
use super::output::{Format, Printer, Shown};
use super::query::output_failed;
use super::scan::{Stopped, Told, note};
use crate::daemon::signals::Signals;
use crate::error::Error;
use crate::format::Lsn;
use crate::query::{Follow, Notice, Reader, ScanRange};
use wake::{Output, Wake, Woken};

/// Entries between two looks at signals.
const TICK_ENTRIES: u64 = 1024;

/// What is followed, and how it is shown.
pub(super) struct Plan<'a> {
    pub(super) reader: &'a Reader,
    pub(super) dir: &'a Path,
    pub(super) range: ScanRange,
    pub(super) limit: Option<u64>,
    pub(super) filter: Filter,
    pub(super) shown: Shown,
    pub(super) format: Format,
}

/// Signals for a command that follows.
pub(super) fn signals() -> Result<Signals, Failure> {
    Signals::install_for_cleanup().map_err(|error| Failure::read(format!("cannot catch signals: {error}")))
}

/// Follows to the end of the plan. `damaged` places were met before.
pub(super) fn run(plan: Plan<'_>, signals: &Signals, told: Told, damaged: u64) -> Result<Exit, Failure> {
    let output = Output::new(signals);
    let mut session = Session {
        follow: Follow::new(plan.reader, plan.range),
        filter: plan.filter,
        printer: Printer::new(plan.format, plan.shown, output),
        left: plan.limit,
        signals,
        told,
        damaged,
        is_begun: false,
    };
    let mut wake = Wake::new(plan.dir, signals);
    let outcome = session.run(&mut wake);
    if let Some(note) = session.filter.note() {
        session.told.tell(format_args!("note: {note}"));
    }
    match outcome {
        // Not an error of the output: it was waited for when the signal came.
        _ if signals.received().is_some() => Ok(signals.received().map_or(Exit::Done, Exit::of_signal)),
        Ok(()) if session.damaged > 0 => Ok(Exit::ReadFailed),
        Ok(()) => Ok(Exit::Done),
        Err(Stopped::Store(error)) => Err(Failure::read(error)),
        Err(Stopped::Output(error)) => output_failed(&error),
    }
}

struct Session<'a> {
    follow: Follow<'a>,
    filter: Filter,
    printer: Printer<Output<'a>>,
    /// Entries that are still wanted; `None`: all.
    left: Option<u64>,
    signals: &'a Signals,
    told: Told,
    damaged: u64,
    /// The first look was taken.
    is_begun: bool,
}

impl Session<'_> {
    fn run(&mut self, wake: &mut Wake<'_>) -> Result<(), Stopped> {
        loop {
            if wake.look_for_daemon() {
                self.follow.resync();
            }
            let printed = self.print_new(wake.durable_lsn())?;
            self.tell();
            self.printer.write_out().map_err(Stopped::Output)?;
            if self.signals.received().is_some() || self.left == Some(0) || self.follow.is_done() {
                return Ok(());
            }
            if self.follow.is_cut_short() {
                self.told.tell("following ends here: nothing behind the damage can be relied upon");
                self.damaged += 1;
                return Ok(());
            }
            let behind = wake.durable_lsn().filter(|&vouched| self.follow.is_behind(vouched));
            if let Some(lsn) = wake.is_behind_for_long(behind.filter(|_| !printed)) {
                self.told.tell(format_args!(
                    "note: entries up to LSN {lsn} are durable, says the daemon, and not in its files"
                ));
            }
            match wake.wait(behind.is_some(), printed).map_err(Stopped::Output)? {
                Woken::Look => {}
                Woken::Ended => return Ok(()),
            }
        }
    }

    /// Prints what is durable by now; whether there was anything.
    fn print_new(&mut self, vouched: Option<Lsn>) -> Result<bool, Stopped> {
        let mut met = 0;
        while self.left != Some(0) {
            if met % TICK_ENTRIES == 0 && self.signals.received().is_some() {
                break;
            }
            let error = match self.follow.next_named(vouched) {
                Ok(Some((entry, name))) => {
                    met += 1;
                    if self.filter.wants(&entry, name) {
                        self.printer.entry(&entry, name).map_err(Stopped::Output)?;
                        self.left = self.left.map(|left| left - 1);
                    }
                    continue;
                }
                Ok(None) => break,
                Err(error) => error,
            };
            if !matches!(error, Error::Corrupt(_) | Error::Io { .. }) || !self.follow.is_scanning() {
                return Err(Stopped::Store(error));
            }
            // The scan passes the place over.
            self.damaged += 1;
            self.told.tell(error);
        }
        Ok(met > 0)
    }

    fn tell(&mut self) {
        if !std::mem::replace(&mut self.is_begun, true)
            && let Some(unmatched) = self.filter.unmatched(self.follow.source_names())
        {
            self.told.tell(format_args!("note: {unmatched}"));
        }
        for notice in self.follow.take_notices() {
            match notice {
                Notice::Unconfirmed(lsn) => self.told.tell(format_args!(
                    "note: entries from LSN {lsn} on are not proven durable; they come when a daemon has started and decided \
                     about them"
                )),
                notice => self.told.tell(format_args!("note: {}", note(&notice))),
            }
        }
    }
}
