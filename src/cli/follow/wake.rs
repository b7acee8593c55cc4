//! What a follower waits for: the daemon's word, a change of the files, a signal, the end of its output.
//!
//! With a daemon a connection with a standing request (`FOLLOW`) tells each rise of the durable LSN. Without one, or where
//! it does not answer, the files are looked at in growing intervals, and the daemon is looked for as often.
// A follower paces itself by the machine's own clock.
#![allow(clippy::disallowed_methods)]

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

pub(super) use super::output::Output;
use crate::control::{Connection, ControlError, REPLY_BYTES_MAX, parse_reply, wait};
use crate::daemon::signals::Signals;
use crate::format::Lsn;

/// Shortest and longest interval between two looks at the files.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long the daemon may take to accept, and to give its first answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// How long something that listens and does not answer as a daemon is left alone.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// How long files may be behind the daemon's word before that is worth a note.
const BEHIND_LONG: Duration = Duration::from_secs(5);

/// Why a wait is over.
pub(super) enum Woken {
    /// It is worth looking.
    Look,
    /// A signal came, or nobody reads the output any more.
    Ended,
}

/// See the module's page.
pub(super) struct Wake<'a> {
    dir: &'a Path,
    signals: &'a Signals,
    daemon: Option<Connection>,
    durable_lsn: Option<Lsn>,
    /// The daemon is not looked for before this.
    look_at: Instant,
    pause: Duration,
    behind_since: Option<Instant>,
}

impl<'a> Wake<'a> {
    pub(super) fn new(dir: &'a Path, signals: &'a Signals) -> Wake<'a> {
        let (look_at, pause) = (Instant::now(), PAUSE_MIN);
        Wake { dir, signals, daemon: None, durable_lsn: None, look_at, pause, behind_since: None }
    }

    /// Up to where the log is durable by the daemon's word.
    pub(super) fn durable_lsn(&self) -> Option<Lsn> {
        self.durable_lsn
    }

    /// Connects if there is no connection; whether there is a new one.
    pub(super) fn look_for_daemon(&mut self) -> bool {
        if self.daemon.is_some() || Instant::now() < self.look_at {
            return false;
        }
        match self.connect() {
            Ok(()) => true,
            Err(cause) => {
                let again = if matches!(cause, ControlError::Absent) { Duration::ZERO } else { SILENT_FOR };
                self.look_at = Instant::now() + again;
                false
            }
        }
    }

    fn connect(&mut self) -> Result<(), ControlError> {
        let mut daemon = Connection::open_store(self.dir, ANSWER_WITHIN)?;
        let answer = daemon.request("FOLLOW", REPLY_BYTES_MAX, ANSWER_WITHIN)?;
        self.durable_lsn = Some(parse_lsn(answer)?);
        self.daemon = Some(daemon);
        Ok(())
    }

    /// The LSN that has been out of reach for long, if one is.
    pub(super) fn is_behind_for_long(&mut self, behind: Option<Lsn>) -> Option<Lsn> {
        let lsn = match behind {
            Some(lsn) => lsn,
            None => {
                self.behind_since = None;
                return None;
            }
        };
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        (since.elapsed() >= BEHIND_LONG).then_some(lsn)
    }

    /// Waits until it is worth looking again. `is_behind`: the files do not hold yet what the daemon has told of.
    pub(super) fn wait(&mut self, is_behind: bool, has_printed: bool) -> io::Result<Woken> {
        self.pause = if has_printed { PAUSE_MIN } else { (self.pause * 2).min(PAUSE_MAX) };
        let stdout = io::stdout();
        // Asked for nothing, a descriptor still tells that its other end is gone.
        let mut fds = vec![PollFd::new(&stdout, PollFlags::empty())];
        fds.extend(self.daemon.iter().map(|daemon| PollFd::from_borrowed_fd(daemon.fd(), PollFlags::IN)));
        fds.extend(self.signals.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = (self.daemon.is_none() || is_behind).then_some(self.pause);
        wait(&mut fds, timeout)?;
        let is_gone = fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
        let has_word = self.daemon.is_some() && !fds[1].revents().is_empty();
        if self.signals.received().is_some() || is_gone {
            return Ok(Woken::Ended);
        }
        if has_word && self.hear().is_err() {
            // It has stopped; whoever comes next may answer at once.
            (self.daemon, self.durable_lsn) = (None, None);
            (self.look_at, self.pause) = (Instant::now(), PAUSE_MIN);
        }
        Ok(Woken::Look)
    }

    /// Takes in what the daemon said.
    fn hear(&mut self) -> Result<(), ControlError> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let is_open = daemon.receive()?;
        while let Some(line) = daemon.next_line(REPLY_BYTES_MAX)? {
            self.durable_lsn = Some(parse_lsn(parse_reply(&line)?)?).max(self.durable_lsn);
        }
        if is_open { Ok(()) } else { Err(ControlError::Broken) }
    }
}

fn parse_lsn(text: String) -> Result<Lsn, ControlError> {
    text.parse().map(Lsn).map_err(|_| ControlError::Garbled(text))
}
