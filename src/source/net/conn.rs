//! One connection: its socket, what it is owed, and where in its life it is.
//!
//! ```text
//! Open ──end of input──▶ Finishing ──everything answered──▶ Gone
//!   └──refused, too slow, replaced──▶ Ending ──everything answered──▶ Lingering ──the other side closes, or 2 s──▶ Gone
//! ```
//! A connection lingers so that its last line arrives: closing a socket that holds unread bytes would reset it, and the
//! other side could lose what it has not read.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Owner;
use super::control::Session;
use super::lines::Lines;
use super::stream::Stream;
use crate::format::Lsn;
use crate::source::replies::Replies;

/// How long the other side may take to close after the last line.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Who has said something or was answered so recently is in the middle of something.
const RECENTLY: Duration = Duration::from_millis(100);

/// Reads from one connection before it is another's turn, where what is read is discarded.
const DISCARDS: usize = 16;

/// See the module's page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Open,
    /// The other side has sent everything; it is still answered.
    Finishing,
    /// Its input is discarded; what it is owed goes out, and then nothing more.
    Ending,
    Lingering {
        until: Instant,
    },
    Gone,
}

/// What a connection is for.
pub(super) enum Role {
    Lines(Lines),
    Control(Box<Session>),
    /// It was turned away.
    Nobody,
}

/// See the module's page.
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) owner: Owner,
    pub(super) peer: Option<SocketAddr>,
    pub(super) role: Role,
    pub(super) replies: Replies,
    pub(super) phase: Phase,
    /// Bytes of entries that were taken and not confirmed.
    pub(super) in_flight_bytes: usize,
    /// There may be something to read: only a read finds out that there is not.
    pub(super) is_readable: bool,
    is_writable: bool,
    /// The other side has closed its writing end, behind what is to be read.
    is_read_closed: bool,
    /// It is in the queue of connections that are to be read.
    pub(super) is_queued: bool,
    /// It is in the list of connections that are to be looked at.
    pub(super) is_listed: bool,
    /// When it last said something, or was let go on.
    pub(super) heard: Instant,
    /// Since when the line that it has begun is on its way.
    pub(super) line_since: Option<Instant>,
    /// What it holds, as last counted.
    pub(super) held_bytes: usize,
}

/// What came of a read.
pub(super) enum Read {
    Bytes(usize),
    End,
    Nothing,
    Failed,
}

impl Connection {
    pub(super) fn new(stream: Stream, owner: Owner, peer: Option<SocketAddr>, role: Role, now: Instant) -> Connection {
        Connection {
            stream,
            owner,
            peer,
            role,
            replies: Replies::default(),
            phase: Phase::Open,
            in_flight_bytes: 0,
            // The first event may have come before the registration.
            is_readable: true,
            is_writable: true,
            is_read_closed: false,
            is_queued: false,
            is_listed: false,
            heard: now,
            line_since: None,
            held_bytes: 0,
        }
    }

    /// Where it comes from, for messages.
    pub(super) fn origin(&self) -> String {
        self.peer.map_or_else(|| "a local process".to_owned(), |peer| peer.to_string())
    }

    /// Notes what the system said of it.
    pub(super) fn note(&mut self, readable: bool, writable: bool, read_closed: bool) {
        self.is_readable |= readable || read_closed;
        self.is_writable |= writable;
        self.is_read_closed |= read_closed;
    }

    /// Reads once. A short read has emptied the socket, unless its end is behind it.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Read {
        match self.stream.read(buf) {
            Ok(0) => {
                self.is_readable = false;
                Read::End
            }
            Ok(bytes) => {
                self.is_readable = bytes == buf.len() || self.is_read_closed;
                Read::Bytes(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                Read::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Read::Nothing,
            Err(_) => Read::Failed,
        }
    }

    /// Writes what is known, as far as the socket takes it.
    pub(super) fn write(&mut self, now: Instant) {
        while self.is_writable && self.replies.is_due() && self.phase != Phase::Gone {
            match self.stream.write(self.replies.text()) {
                Ok(bytes) => {
                    self.replies.wrote(bytes);
                    self.heard = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What it was owed it cannot get any more; what was taken from it is stored all the same.
                Err(_) => self.phase = Phase::Gone,
            }
        }
        let is_settled = self.replies.is_empty() && !self.awaits_more();
        match self.phase {
            Phase::Finishing if is_settled => self.phase = Phase::Gone,
            Phase::Ending if is_settled => self.linger(now),
            _ => {}
        }
    }

    /// Whether it is owed more than its answers know of.
    pub(super) fn awaits_more(&self) -> bool {
        match &self.role {
            Role::Lines(_) | Role::Nobody => false,
            Role::Control(session) => session.awaits_more(),
        }
    }

    fn linger(&mut self, now: Instant) {
        let shut = self.stream.shut_down_writing();
        self.phase = if shut.is_ok() { Phase::Lingering { until: now + LINGER } } else { Phase::Gone };
    }

    /// Says a last line, in its place behind what the connection is still owed.
    pub(super) fn end(&mut self, line: &str) {
        self.replies.say(line);
        self.phase = Phase::Ending;
    }

    /// Its next entries are confirmed.
    pub(super) fn confirm(&mut self, first: Lsn, entries: u64, bytes: usize) {
        self.in_flight_bytes -= bytes;
        match &mut self.role {
            Role::Lines(lines) if lines.confirms() => self.replies.confirm(first, entries),
            Role::Lines(_) | Role::Nobody => {}
            Role::Control(session) => session.confirm(first, entries),
        }
    }

    /// Whether its last answers may still be on their way, at the end of a daemon.
    pub(super) fn is_owed_time(&self, now: Instant) -> bool {
        let is_answered = match &self.role {
            Role::Lines(lines) => lines.confirms(),
            Role::Control(_) | Role::Nobody => true,
        };
        is_answered && (self.is_readable || now < self.heard + RECENTLY)
    }

    /// Discards what has come; whether the other side has closed.
    pub(super) fn discard(&mut self, buf: &mut [u8]) -> bool {
        for _ in 0..DISCARDS {
            match self.read(buf) {
                Read::Bytes(_) => {}
                Read::Nothing => return false,
                Read::End | Read::Failed => return true,
            }
        }
        false
    }

    /// Whether nothing more may be read from it for now. What it has to read itself comes first: who does not read answers
    /// is not read from.
    pub(super) fn is_held_back(&self, in_flight_bytes_max: usize) -> bool {
        let is_waiting = match &self.role {
            Role::Lines(lines) => lines.is_waiting(),
            Role::Control(session) => session.is_held_back(),
            Role::Nobody => false,
        };
        self.phase == Phase::Open
            && (is_waiting || self.in_flight_bytes >= in_flight_bytes_max || self.replies.is_due())
    }

    /// Memory it holds beyond itself.
    pub(super) fn count_held_bytes(&self) -> usize {
        let input = match &self.role {
            Role::Lines(lines) => lines.held_bytes(),
            Role::Control(session) => session.held_bytes(),
            Role::Nobody => 0,
        };
        input + self.replies.held_bytes()
    }
}
