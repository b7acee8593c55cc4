//! Numbers for a monitoring system, and a check of health, over HTTP: `GET /metrics` and `GET /healthz`.
//!
//! | file | what |
//! |---|---|
//! | `http` | one connection: a request's head in, an answer out |
//! | `health` | whether the log can commit |
//! | `page` | the numbers as Prometheus text |
//! | `store` | what the store takes of its disk |
//!
//! One thread serves all connections and never makes the log wait: it reads what the reactor has left for whoever looks
//! (`reactor::gauges`), and asks the one question of the watchdog without waiting for its answer. So it answers while the
//! reactor hangs, which is when somebody looks.
//!
//! - Bounded: [`CONNECTIONS_MAX`] connections; the one that has been there longest gives way to a new one, so whoever opens
//!   many and says nothing keeps nobody out. 8 KiB of a request's head, ten seconds for a request and its answer, one
//!   answer for each connection.
//! - GET and HEAD only; nothing can be changed from here.
//! - It ends with the sources, behind their last confirmation; it keeps no daemon running.
//!
//! Why these crates: `prometheus` is the encoder of the text format (its official sibling `prometheus-client` writes
//! OpenMetrics only), `httparse` reads the head, as it does in hyper. No small HTTP server is kept up: `tiny_http` has had no
//! release since 2022 and bounds neither connections nor time; what is left to do here are two pages.
//!
//! Proof: `tests/it/metrics.rs`, and the tests of the files.
// Requests are timed by the machine's clock.
#![allow(clippy::disallowed_methods)]

mod health;
mod http;
mod page;
mod store;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use tracing::{info, warn};

use super::stop::Stop;
use crate::engine::Log;
use crate::error::{Error, Result};
use crate::reactor::watch::Watch;
use crate::source::Context;
use crate::source::counters::Board;
use crate::source::net::listen::{cannot_listen, resolve};
use health::Checkup;
use http::{Answer, Connection, Path, Step};
use page::Page;

/// Connections at once. A monitoring system has one or two.
const CONNECTIONS_MAX: usize = 16;
/// How long nothing is accepted when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
/// All connections: they are few, and each is looked at in every turn.
const CONNECTION: Token = Token(2);

/// See the module's page.
pub(super) struct Server<'a> {
    log: &'a Log,
    board: &'a Board,
    poll: Poll,
    waker: Arc<Waker>,
    watch: Watch,
    listener: TcpListener,
    accept_paused_until: Option<Instant>,
    /// The oldest first.
    connections: VecDeque<Connection>,
    checkup: Checkup,
    page: Page,
}

impl<'a> Server<'a> {
    /// Listens on the first of the addresses behind `HOST:PORT` that can be had. Answers nobody yet.
    pub(super) fn open(address: &str, dir: PathBuf, context: Context<'a>) -> Result<Server<'a>> {
        let label = format!("metrics:{address}");
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let mut listener = None;
        for address in resolve(&label, address)? {
            match TcpListener::bind(address) {
                Ok(bound) => {
                    listener = Some(bound);
                    break;
                }
                Err(cause) => failure = cause,
            }
        }
        let mut listener = listener.ok_or_else(|| cannot_listen(&label, failure))?;
        let bound = listener.local_addr().map_err(|cause| cannot_listen(&label, cause))?;
        let failed = |cause: io::Error| Error::io("wait for", "requests of metrics", cause);
        let poll = Poll::new().map_err(failed)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(failed)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(failed)?);
        let page = Page::new(&context.log.stats()?, dir, Instant::now());
        info!("listening on metrics:{bound}");
        Ok(Server {
            log: context.log,
            board: context.board,
            watch: context.log.watch(wake(&waker)),
            poll,
            waker,
            listener,
            accept_paused_until: None,
            connections: VecDeque::new(),
            checkup: Checkup::default(),
            page,
        })
    }

    /// Serves until `stop` is requested. A failure ends the serving and nothing else: payments do not depend on it.
    pub(super) fn run(mut self, stop: &Stop) {
        stop.on_request(wake(&self.waker));
        if let Err(cause) = self.serve(stop) {
            warn!("metrics are served no more: cannot wait for requests: {cause}");
        }
    }

    fn serve(&mut self, stop: &Stop) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        while !stop.is_requested() {
            self.accept();
            self.advance();
            // From here on the log wakes the thread; what it has said before is looked at once more.
            if self.checkup.is_asked() {
                self.watch.arm();
                self.advance();
            }
            let timeout = self.next_deadline().map(|next| next.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Err(cause) if cause.kind() != io::ErrorKind::Interrupted => return Err(cause),
                _ => {}
            }
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let requests = self.connections.iter().map(Connection::deadline);
        requests.chain(self.accept_paused_until).chain(self.checkup.deadline()).min()
    }

    fn accept(&mut self) {
        if self.accept_paused_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.accept_paused_until = None;
        // No more than a round of them in a turn: answering comes first.
        for _ in 0..CONNECTIONS_MAX {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if self.poll.registry().register(&mut stream, CONNECTION, interest).is_err() {
                        continue;
                    }
                    if self.connections.len() == CONNECTIONS_MAX {
                        self.connections.pop_front();
                    }
                    self.connections.push_back(Connection::new(stream, Instant::now()));
                }
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return,
                // The other side is gone, or a signal came.
                Err(cause) if matches!(cause.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(_) => {
                    self.accept_paused_until = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
        // There may be more, and the system does not tell of them again.
        self.accept_paused_until = Some(Instant::now());
    }

    /// Takes every connection as far as it comes without waiting.
    fn advance(&mut self) {
        let now = Instant::now();
        let Server { log, board, connections, checkup, page, .. } = self;
        checkup.look(log, now);
        connections.retain_mut(|connection| {
            loop {
                match connection.step(now) {
                    Step::Asked(Path::Metrics) => connection.answer(&Answer::metrics(page.text(log, board, now)), now),
                    Step::Asked(Path::Health) => match checkup.verdict(log, now) {
                        Some(verdict) => connection.answer(&Answer::health(&verdict), now),
                        None => return true,
                    },
                    Step::Waits => return true,
                    Step::Over => return false,
                }
            }
        });
    }
}

fn wake(waker: &Arc<Waker>) -> crate::io::Waker {
    let waker = Arc::clone(waker);
    Arc::new(move || {
        // It fails only where the poll is gone, and nobody sleeps then.
        let _ = waker.wake();
    })
}
