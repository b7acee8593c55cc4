//! Sockets: one thread serves all TCP and Unix listeners, UDP sockets and the control socket, and all their connections.
//!
//! | file | what |
//! |---|---|
//! | `listen`, `unix`, `stream` | sockets: opening them, taking connections off them |
//! | `accept` | who is let in |
//! | `advance`, `read` | the two halves of a turn |
//! | `conn` | the life of one connection |
//! | `lines` | what a connection of a source says, and is told |
//! | `clients` | producers that number their entries |
//! | `control`, `request` | the control protocol; taking its requests apart |
//! | `udp` | datagrams |
//! | `intake` | the way into the log |
//! | `hub` | what all connections share |
//! | `timers` | whose time is over |
//! | `notes` | warnings that a stranger can cause |
//!
//! One turn of the loop: hand over what was taken, tell those who are confirmed, sleep until something happens, take
//! connections, read from everybody who has something to say, once each.
//!
//! - The thread never waits for the log. Where it has no room, nothing more is read from anybody; nothing that was taken is
//!   dropped. Connections take turns in a queue, and go on where they were stopped.
//! - One connection is not read from while it has too much on its way, or does not read its answers.
//! - Memory: two buffers for all connections together; what a connection holds (an unfinished line, answers) is counted,
//!   and all of it is bounded by `partial_bytes_max`. At that limit the connection that holds most gives way: its unfinished
//!   line is refused, or, where it does not read its answers, it is closed. So the small ones always go on, and nobody waits
//!   for somebody who never ends.
//! - When a stop is requested: no more connections, no more reading; what was taken is confirmed and told; then the end.
//!
//! Proof: `tests/it/net_*.rs`.
// Timeouts of connections are the machine's time, not the log's.
#![allow(clippy::disallowed_methods)]

mod accept;
mod advance;
pub(crate) mod clients;
mod conn;
mod control;
mod hub;
mod intake;
mod lines;
pub(crate) mod listen;
mod notes;
mod read;
pub(crate) mod request;
mod stream;
mod timers;
mod udp;
mod unix;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use lines::split_number;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token, Waker};
use slab::Slab;
use tracing::{info, warn};

use crate::config::Config;
use crate::daemon::Controls;
use crate::daemon::control::LimitControl;
use crate::daemon::stop::Stop;
use crate::engine::Log;
use crate::error::{Error, Result};
use crate::reactor::watch::Watch;
use crate::source::Context;
use conn::{Connection, LINGER, Role};
use hub::Hub;
use listen::{Inherited, Listener, Service};
use notes::Kind;
use udp::Udp;

/// Bytes read from a connection at once.
const CHUNK_BYTES: usize = 64 << 10;
/// How long producers may take to read their last answers when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often drops of datagrams are looked for, while datagrams come.
const DROPS_EVERY: Duration = Duration::from_secs(1);
/// Name of the source of entries that come by the control socket.
const APPEND_SOURCE: &str = crate::config::sources::APPEND_NAME;
/// Name of the control socket in the data directory.
pub(crate) const CONTROL_SOCKET: &str = "kifa.sock";

const WAKER: Token = Token(0);

/// A connection, told from others that had its place before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    index: usize,
    serial: u64,
}

/// See the module's page.
pub(crate) struct Net<'a> {
    log: &'a Log,
    stop: &'a Stop,
    hub: Hub<'a>,
    changed_limits: &'a LimitControl,
    /// Descriptors that followed files may take.
    files_max: usize,
    poll: Poll,
    events: Events,
    watch: Watch,
    listeners: Vec<Listener>,
    udp: Vec<Udp>,
    connections: Slab<Connection>,
    serial: u64,
    /// Connections of each address.
    hosts: HashMap<IpAddr, usize>,
    /// Control connections, by place.
    sessions: Vec<usize>,
    /// Connections that have something to say, in the order in which they are read.
    ready: VecDeque<usize>,
    /// Connections to be looked at: something of theirs was confirmed, or they can be written to.
    listed: Vec<usize>,
    buf: Box<[u8]>,
    /// What all connections hold.
    held_bytes: usize,
    /// No connection gets a descriptor from here on.
    descriptor_max: u64,
    /// A descriptor that is given up to turn somebody away when there is no other.
    reserve: Option<File>,
    /// No connection's time is over before.
    next_deadline: Option<Instant>,
    drops_looked: Instant,
    /// A stop was requested; then until when answers are waited for, once everything is confirmed.
    is_stopping: bool,
    farewell: Option<Instant>,
}

/// Whether two paths name the same entry of the same directory.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        Some((path.parent()?.canonicalize().ok()?, path.file_name()?.to_owned()))
    };
    place(one).is_some_and(|one| place(other) == Some(one))
}

impl<'a> Net<'a> {
    /// Opens every socket that is configured, and the control socket. Takes nothing yet.
    ///
    /// # Errors
    /// A socket that cannot be opened: which, why, and what to do.
    pub(crate) fn open(
        config: &Config,
        context: Context<'a>,
        (modes, changed_limits): Controls<'a>,
        mut inherited: Inherited,
    ) -> Result<Net<'a>> {
        let limits = config.sources.limits;
        let files_max = if config.sources.files.is_empty() { 0 } else { config.sources.file_limits.files_max };
        let descriptor_max = accept::raise_descriptor_limit(limits.connections_max, files_max);
        let now = Instant::now();
        let mut hub = Hub::new(context, modes, limits, now);
        let mut listeners = Vec::new();
        for listener in &config.sources.tcp {
            let service = lines_service(&mut hub, context, listener, || format!("tcp:{}", listener.address))?;
            listeners.push(Listener::tcp(&listener.address, service, &mut inherited)?);
        }
        let control_socket = config.data_dir.join(CONTROL_SOCKET);
        for listener in &config.sources.unix {
            if is_same_place(&listener.address, &control_socket) {
                return Err(Error::InvalidOption(format!(
                    "{} is the store's control socket (kifa append and kifa ctl use it); choose another path for the source",
                    listener.address.display()
                )));
            }
            let service =
                lines_service(&mut hub, context, listener, || format!("unix:{}", listener.address.display()))?;
            listeners.push(Listener::unix(&listener.address, service, &mut inherited)?);
        }
        let mut udp = Vec::new();
        for socket in &config.sources.udp {
            let name = socket.name.clone().unwrap_or_else(|| format!("udp:{}", socket.address));
            let source = hub.intake.add_source(context, &name)?;
            udp.push(Udp::open(socket, source, limits.udp_buffer_bytes, &mut inherited)?);
        }
        inherited.expect_none_left()?;
        let source = hub.intake.add_source(context, APPEND_SOURCE)?;
        let service = Service::Control { source };
        let control = Listener::control(&control_socket, service, now)?;
        if control.is_wanted() {
            warn!(
                "the disk has no room for {}: until it has, kifa append, ctl and vacuum do not reach this daemon",
                control.label
            );
        }
        listeners.push(control);

        let failed = |cause: io::Error| Error::io("wait for", "sockets", cause);
        let poll = Poll::new().map_err(failed)?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token(1 + index)).map_err(failed)?;
        }
        for (index, udp) in udp.iter_mut().enumerate() {
            udp.register(poll.registry(), Token(1 + listeners.len() + index)).map_err(failed)?;
        }
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(failed)?);
        let wake: crate::io::Waker = Arc::new(move || {
            // It fails only where the poll is gone, and nobody sleeps then.
            let _ = waker.wake();
        });
        context.stop.on_request(Arc::clone(&wake));
        changed_limits.on_change(Arc::clone(&wake));
        Ok(Net {
            log: context.log,
            stop: context.stop,
            hub,
            changed_limits,
            files_max,
            poll,
            events: Events::with_capacity(1024),
            watch: context.log.watch(wake),
            listeners,
            udp,
            connections: Slab::new(),
            serial: 0,
            hosts: HashMap::new(),
            sessions: Vec::new(),
            ready: VecDeque::new(),
            listed: Vec::new(),
            buf: vec![0; CHUNK_BYTES.max(udp::BUFFER_BYTES)].into_boxed_slice(),
            held_bytes: 0,
            descriptor_max,
            reserve: accept::reserve(),
            next_deadline: None,
            drops_looked: now,
            is_stopping: false,
            farewell: None,
        })
    }

    /// Whether there is anything besides the control socket.
    pub(crate) fn has_sources(&self) -> bool {
        self.listeners.len() > 1 || !self.udp.is_empty()
    }

    /// Serves until a stop is requested and everything that was taken is confirmed and told.
    pub(crate) fn run(mut self) -> Result<()> {
        let outcome = self.serve();
        for udp in &mut self.udp {
            udp.look_for_drops(&mut self.hub);
        }
        if self.hub.turned_away > 0 {
            info!("{} connections were turned away", self.hub.turned_away);
        }
        if let Err(error) = &outcome {
            self.tell_everybody(error);
        }
        outcome
    }

    fn serve(&mut self) -> Result<()> {
        loop {
            self.advance()?;
            if self.is_stopping && self.is_settled() {
                self.part();
                return Ok(());
            }
            let timeout = self.timeout()?;
            match self.poll.poll(&mut self.events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("wait for", "sockets", error)),
            }
            self.hub.now = Instant::now();
            self.note_events();
            if let Some(limits) = self.changed_limits.take() {
                self.hub.limits = limits;
                self.descriptor_max = accept::raise_descriptor_limit(limits.connections_max, self.files_max);
                // Every deadline is looked at anew.
                self.next_deadline = Some(self.hub.now);
            }
            self.expire();
            if self.stop.is_requested() {
                self.begin_to_stop();
            } else {
                self.accept();
                self.receive()?;
                self.read()?;
            }
        }
    }

    /// How long to sleep. From here on the log wakes the thread; what it has done before is looked at once more.
    fn timeout(&mut self) -> Result<Option<Duration>> {
        if !self.has_work() {
            self.watch.arm();
            self.advance()?;
        }
        if self.has_work() {
            return Ok(Some(Duration::ZERO));
        }
        if self.is_stopping && self.farewell.is_none() && !self.hub.intake.is_busy() {
            self.farewell = Some(Instant::now() + FAREWELL);
        }
        let paused = self.listeners.iter().filter(|listener| listener.is_ready).filter_map(|held| held.paused_until);
        let looks_for_drops = self.udp.iter().any(Udp::is_suspect).then_some(self.drops_looked + DROPS_EVERY);
        let next = paused.chain(looks_for_drops).chain(self.next_deadline).chain(self.farewell).min();
        Ok(next.map(|next| next.saturating_duration_since(Instant::now())))
    }

    /// Whether there is something to do without waiting for anybody.
    fn has_work(&self) -> bool {
        if self.is_stopping {
            return self.is_settled();
        }
        let has_room = !self.hub.intake.is_blocked();
        self.listeners.iter().any(|listener| listener.is_ready && listener.paused_until.is_none())
            || has_room && (!self.ready.is_empty() || self.udp.iter().any(|udp| udp.is_ready))
    }

    fn note_events(&mut self) {
        let first_udp = 1 + self.listeners.len();
        let first_connection = first_udp + self.udp.len();
        for event in &self.events {
            match event.token() {
                WAKER => {}
                Token(token) if token < first_udp => self.listeners[token - 1].is_ready = true,
                Token(token) if token < first_connection => self.udp[token - first_udp].is_ready = true,
                Token(token) => note(&mut self.connections, &mut self.listed, token - first_connection, event),
            }
        }
    }

    fn token(&self, index: usize) -> Token {
        Token(1 + self.listeners.len() + self.udp.len() + index)
    }

    fn connection(&mut self, owner: Owner) -> Option<&mut Connection> {
        self.connections.get_mut(owner.index).filter(|connection| connection.owner == owner)
    }

    fn remove(&mut self, index: usize) {
        let connection = self.connections.remove(index);
        self.held_bytes -= connection.held_bytes;
        match &connection.role {
            Role::Lines(lines) => {
                self.hub.connections -= 1;
                self.leave_host(connection.peer);
                if let Some(client) = lines.client() {
                    self.hub.intake.clients.leave(client, connection.owner);
                }
            }
            Role::Control(_) => self.sessions.retain(|&held| held != index),
            Role::Nobody => {}
        }
    }

    /// A connection was too slow.
    fn note_timeout(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Role::Lines(lines) = &mut connection.role else { return };
        let source = lines.source();
        let is_within_line = connection.line_since.take().is_some();
        lines.refuse_line();
        if is_within_line {
            self.hub.intake.counters(source).refuse();
        } else {
            self.hub.turned_away += 1;
        }
        let origin = connection.origin();
        let name = self.hub.intake.name(source).to_owned();
        self.hub.warn(Kind::TimedOut, || {
            let what = if is_within_line { "its line did not end" } else { "it said nothing" };
            format!("{name}: {origin} was disconnected: {what} in time")
        });
    }

    /// Stops accepting and reading. Who has entries on the way is told what becomes of them.
    fn begin_to_stop(&mut self) {
        if std::mem::replace(&mut self.is_stopping, true) {
            return;
        }
        self.ready.clear();
        // The sockets go, their places in the numbering of tokens stay.
        self.listeners.iter_mut().for_each(Listener::close);
    }

    /// Whether a daemon that stops may end: everything is confirmed, and told to who listens.
    fn is_settled(&self) -> bool {
        let is_told = |connection: &Connection| connection.replies.is_empty() && !connection.awaits_more();
        !self.hub.intake.is_busy()
            && (self.farewell.is_some_and(|until| self.hub.now >= until)
                || self.connections.iter().all(|(_, connection)| is_told(connection)))
    }

    /// Closes all connections. Closing a socket that holds unread bytes would reset it, and answers that the other side has
    /// not read yet could be lost: who was answered a moment ago, or still sends, may close first. Where nothing is answered,
    /// a reset is the only way to tell that something was not stored.
    fn part(&mut self) {
        if self.poll.poll(&mut self.events, Some(Duration::ZERO)).is_ok() {
            self.note_events();
        }
        let now = Instant::now();
        let until = now + LINGER;
        self.connections
            .retain(|_, connection| connection.is_owed_time(now) && connection.stream.shut_down_writing().is_ok());
        while !self.connections.is_empty() {
            self.connections.retain(|_, connection| !connection.discard(&mut self.buf));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let has_more = self.connections.iter().any(|(_, connection)| connection.is_readable);
            let timeout = if has_more { Duration::ZERO } else { left };
            if self.poll.poll(&mut self.events, Some(timeout)).is_ok() {
                self.note_events();
            }
        }
    }

    /// After a failure of the log: what is not confirmed will not be.
    fn tell_everybody(&mut self, error: &Error) {
        let line = control::stopped_line(error);
        for (_, connection) in &mut self.connections {
            match &mut connection.role {
                Role::Lines(lines) if !lines.confirms() => continue,
                Role::Lines(_) | Role::Nobody => {}
                Role::Control(session) => session.give_up(),
            }
            connection.replies.give_up(&line);
            connection.write(self.hub.now);
        }
    }
}

/// Notes what the system says of a connection.
fn note(connections: &mut Slab<Connection>, listed: &mut Vec<usize>, index: usize, event: &Event) {
    let Some(connection) = connections.get_mut(index) else { return };
    let is_closed = event.is_read_closed() || event.is_error();
    connection.note(event.is_readable(), event.is_writable(), is_closed);
    if !std::mem::replace(&mut connection.is_listed, true) {
        listed.push(index);
    }
}

fn lines_service<'a, A>(
    hub: &mut Hub<'a>,
    context: Context<'a>,
    config: &crate::config::sources::Listener<A>,
    label: impl FnOnce() -> String,
) -> Result<Service> {
    let name = config.name.clone().unwrap_or_else(label);
    let source = hub.intake.add_source(context, &name)?;
    Ok(Service::Lines { source, framing: config.framing, confirm: config.confirm })
}
