//! Who is let in: limits on connections, and what happens when descriptors run out.
//!
//! - The soft limit on open files is raised as far as it is needed and allowed. The last descriptors are the log's: a
//!   connection that would take one of them is turned away, because a log that cannot open its next file stops.
//! - Whoever is turned away is told why, in one line, and counted.
//! - When the system has no descriptor left all the same, one that was kept in reserve is given up for a moment, to take the
//!   connection and turn it away; then accepting pauses. Connections that are open go on meanwhile.
//!
//! Proof: `tests/it/net_limits.rs`.

use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use mio::{Interest, Token};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use super::conn::{Connection, Role};
use super::control::Session;
use super::lines::Lines;
use super::listen::{ROOM_LOOKED_FOR, Service, host};
use super::notes::Kind;
use super::stream::Stream;
use super::{Net, Owner};

/// Descriptors that the process needs besides connections and followed files: the log's, standard streams, listeners.
const DESCRIPTORS_OWN: u64 = 96;
/// The last descriptors below the limit, which no connection gets.
const DESCRIPTORS_KEPT: u64 = 24;
/// Connections taken from one listener in one turn.
const TURN_MAX: usize = 64;
/// Connections that were turned away and are waited for to read why, beyond the limit.
const DISMISSED_MAX: usize = 64;
/// Control connections.
const SESSIONS_MAX: usize = 64;
/// How long accepting pauses when there is no descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// Raises the soft limit on open files to what so many connections and `files` need; returns the descriptor from which on
/// no connection is let in.
pub(super) fn raise_descriptor_limit(connections_max: usize, files: usize) -> u64 {
    let others = DESCRIPTORS_OWN + (SESSIONS_MAX + DISMISSED_MAX + files) as u64;
    let wanted = connections_max as u64 + others;
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current else { return u64::MAX };
    let mut allowed = current;
    if current < wanted {
        let target = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum: limit.maximum }).is_ok() {
            allowed = target;
        }
        if allowed < wanted {
            warn!(
                "the system allows {allowed} open files, which may not be enough for {connections_max} connections; raise the \
                 limit to {wanted} (ulimit -n, LimitNOFILE)"
            );
        }
    }
    allowed.saturating_sub(DESCRIPTORS_KEPT)
}

/// A descriptor to be given up.
pub(super) fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

impl Net<'_> {
    /// Takes the connections that wait, from each listener a few.
    pub(super) fn accept(&mut self) {
        for at in 0..self.listeners.len() {
            let listener = &mut self.listeners[at];
            if listener.paused_until.is_some_and(|until| self.hub.now < until) {
                continue;
            }
            listener.paused_until = None;
            if listener.is_wanted() {
                if let Err(error) = listener.open_again(self.poll.registry(), Token(1 + at), self.hub.now) {
                    listener.paused_until = Some(self.hub.now + ROOM_LOOKED_FOR);
                    self.hub.warn(Kind::NoSocket, || format!("{error}; trying again"));
                }
                continue;
            }
            for _ in 0..TURN_MAX {
                let listener = &mut self.listeners[at];
                if !listener.is_ready {
                    break;
                }
                match listener.accept() {
                    Ok((stream, peer)) => self.admit(at, stream, peer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.is_ready = false,
                    // It was gone before it was taken, or a signal came.
                    Err(error) if Errno::from_io_error(&error) == Some(Errno::CONNABORTED) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.pause(at, &error);
                        break;
                    }
                }
            }
        }
    }

    /// Accepting does not go on like this for now.
    fn pause(&mut self, at: usize, error: &io::Error) {
        let label = self.listeners[at].label.clone();
        self.hub.warn(Kind::NoDescriptors, || format!("{label} cannot take a connection: {error}; trying again"));
        let is_out = is_out_of_descriptors(error);
        for _ in 0..TURN_MAX {
            if !is_out || self.reserve.take().is_none() {
                break;
            }
            let waiting = self.listeners[at].accept();
            let has_come = waiting.is_ok();
            if let Ok((stream, _)) = waiting {
                self.hub.turned_away += 1;
                dismiss_at_once(stream, "ERR busy the system has no more open files at present\n");
            }
            self.reserve = reserve();
            if !has_come {
                break;
            }
        }
        self.listeners[at].paused_until = Some(self.hub.now + PAUSE);
    }

    fn admit(&mut self, at: usize, stream: Stream, peer: Option<SocketAddr>) {
        let service = self.listeners[at].service;
        // The lowest free descriptor is taken first: a high one means that few are left.
        let is_last = u64::try_from(stream.as_raw_fd()).is_ok_and(|descriptor| descriptor >= self.descriptor_max);
        let objection =
            if is_last { Some("the system allows no more open files") } else { self.objection(service, peer) };
        if let Some(reason) = objection {
            return self.turn_away(at, stream, peer, reason, is_last);
        }
        self.serial += 1;
        let owner = Owner { index: self.connections.vacant_key(), serial: self.serial };
        let role = match service {
            Service::Lines { source, framing, confirm } => {
                Role::Lines(Lines::new(source, framing, confirm, self.hub.limits.line_bytes_max))
            }
            Service::Control { source } => Role::Control(Box::new(Session::new(owner, source))),
        };
        if !self.add(Connection::new(stream, owner, peer, role, self.hub.now)) {
            return;
        }
        match service {
            Service::Lines { .. } => {
                self.hub.connections += 1;
                if let Some(peer) = peer {
                    *self.hosts.entry(host(peer)).or_default() += 1;
                }
            }
            Service::Control { .. } => self.sessions.push(owner.index),
        }
        self.set_deadline(owner.index);
    }

    /// Why a connection is not let in, if it is not.
    fn objection(&self, service: Service, peer: Option<SocketAddr>) -> Option<&'static str> {
        match service {
            Service::Control { .. } => {
                (self.sessions.len() >= SESSIONS_MAX).then_some("there are as many control connections as there may be")
            }
            Service::Lines { .. } if self.hub.connections >= self.hub.limits.connections_max => {
                Some("there are as many connections as there may be")
            }
            Service::Lines { .. } => {
                let of_host = peer.and_then(|peer| self.hosts.get(&host(peer))).copied().unwrap_or(0);
                (of_host >= self.hub.limits.connections_per_address_max)
                    .then_some("there are as many connections from this address as there may be")
            }
        }
    }

    fn turn_away(&mut self, at: usize, stream: Stream, peer: Option<SocketAddr>, reason: &str, is_last: bool) {
        self.hub.turned_away += 1;
        let label = self.listeners[at].label.clone();
        self.hub.warn(Kind::TurnedAway, || {
            let origin = peer.map_or_else(|| "a local process".to_owned(), |peer| peer.to_string());
            format!("{label}: {origin} was turned away: {reason}")
        });
        let is_crowded = self.connections.len() >= self.hub.limits.connections_max + SESSIONS_MAX + DISMISSED_MAX;
        if is_last || is_crowded {
            return dismiss_at_once(stream, &format!("ERR busy {reason}\n"));
        }
        self.serial += 1;
        let owner = Owner { index: self.connections.vacant_key(), serial: self.serial };
        let mut connection = Connection::new(stream, owner, peer, Role::Nobody, self.hub.now);
        connection.end(&format!("ERR busy {reason}"));
        self.add(connection);
    }

    /// Watches over a connection; false where that fails, which ends it.
    fn add(&mut self, mut connection: Connection) -> bool {
        let index = connection.owner.index;
        let token = self.token(index);
        let interests = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut connection.stream, token, interests) {
            self.hub.warn(Kind::NoDescriptors, || format!("a connection cannot be watched over: {error}"));
            return false;
        }
        let placed = self.connections.insert(connection);
        assert_eq!(placed, index, "the place was vacant");
        self.list(index);
        true
    }

    /// One connection less from this address.
    pub(super) fn leave_host(&mut self, peer: Option<SocketAddr>) {
        let Some(peer) = peer else { return };
        if let Entry::Occupied(mut count) = self.hosts.entry(host(peer)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Says why, as well as can be done without waiting.
fn dismiss_at_once(mut stream: Stream, line: &str) {
    // What was sent and not read would reset the connection, and the line could be lost.
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write(line.as_bytes());
    let _ = stream.shut_down_writing();
}
