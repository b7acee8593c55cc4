//! Following where there are no Unix sockets: the files are looked at in growing intervals.
// A follower paces itself by the machine's own clock.
#![allow(clippy::disallowed_methods)]

use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use crate::daemon::signals::Signals;
use crate::format::Lsn;

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Why a wait is over.
pub(super) enum Woken {
    /// It is worth looking.
    Look,
    /// A signal came.
    Ended,
}

/// Standard output.
pub(super) struct Output<'a>(io::Stdout, PhantomData<&'a Signals>);

impl<'a> Output<'a> {
    pub(super) fn new(_signals: &'a Signals) -> Output<'a> {
        Output(io::stdout(), PhantomData)
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Paces the looks.
pub(super) struct Wake<'a> {
    signals: &'a Signals,
    pause: Duration,
}

impl<'a> Wake<'a> {
    pub(super) fn new(_dir: &'a Path, signals: &'a Signals) -> Wake<'a> {
        Wake { signals, pause: PAUSE_MIN }
    }

    /// Never: nobody is asked.
    pub(super) fn durable_lsn(&self) -> Option<Lsn> {
        None
    }

    /// Whether there is a new one: never.
    pub(super) fn look_for_daemon(&mut self) -> bool {
        false
    }

    /// Never: nobody's word is ahead of the files.
    pub(super) fn is_behind_for_long(&mut self, _behind: Option<Lsn>) -> Option<Lsn> {
        None
    }

    pub(super) fn wait(&mut self, _is_behind: bool, has_printed: bool) -> io::Result<Woken> {
        self.pause = if has_printed { PAUSE_MIN } else { (self.pause * 2).min(PAUSE_MAX) };
        std::thread::sleep(self.pause);
        Ok(if self.signals.received().is_some() { Woken::Ended } else { Woken::Look })
    }
}
