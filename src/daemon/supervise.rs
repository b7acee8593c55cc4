//! The daemon's main thread while sources run: signals, endings of sources, the log's failure, reloads, the watchdog.
//!
//! It sleeps until one of them rings and does nothing that takes long: changes of the flush mode wait on a thread of their
//! own ([`super::modes`]). The configuration is read here, once for all SIGHUPs of the same moment.
//!
//! A source that ends by itself leaves the others running. The first one that fails, a failure of the log (noticed at once,
//! also while everything is idle) and a signal stop all of them.
// The watchdog's looks are timed by the machine's own clock, as the service manager times them.
#![allow(clippy::disallowed_methods)]

use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::bell::Bell;
use super::control::LimitControl;
use super::modes::Change;
use super::notify::Notifier;
use super::signals::{Signal, Signals};
use super::stop::Stop;
use super::watchdog::{Health, Watchdog};
use super::{End, Reload};
use crate::config::Config;
use crate::engine::Log;
use crate::error::{Error, Result};

/// What another thread has to say.
pub(super) enum News {
    /// A source has ended.
    Ended(Result<()>),
    /// A change of the flush mode is done.
    Changed(Change),
}

/// Everything the supervisor looks at.
pub(super) struct Supervisor<'a> {
    pub(super) log: &'a Log,
    pub(super) signals: &'a Signals,
    pub(super) stop: &'a Stop,
    pub(super) bell: &'a Bell,
    pub(super) notifier: &'a Notifier,
    pub(super) news: Receiver<News>,
    /// Where changes of the flush mode are asked for.
    pub(super) changes: Sender<Change>,
    pub(super) reload: Reload<'a>,
    /// For the thread that serves connections.
    pub(super) limits: &'a LimitControl,
    /// What is in force: settings that need a restart stay as they were at the start.
    pub(super) config: Config,
    pub(super) watchdog: Option<(Duration, Watchdog)>,
    /// Sources that have not ended.
    pub(super) running: usize,
    pub(super) outcome: Result<End>,
    /// What the last look of the watchdog found.
    pub(super) has_no_space: bool,
    /// Reloads whose change of the flush mode is on its way.
    pub(super) reloads: usize,
}

impl Supervisor<'_> {
    /// Returns when every source has ended: the first error, else the signal, else the end of input.
    pub(super) fn run(mut self) -> Result<End> {
        let mut next_look = Instant::now();
        while self.running > 0 {
            let timeout = self.watchdog.is_some().then(|| next_look.saturating_duration_since(Instant::now()));
            if let Err(cause) = self.bell.wait(self.signals, timeout) {
                self.end(Err(Error::io("wait for", "signals", cause)));
            }
            for signal in self.signals.take() {
                self.on_signal(signal);
            }
            self.take_news();
            if let Some(cause) = self.log.failure().filter(|_| self.outcome.is_ok()) {
                self.notifier.status(&format!("Failed: {cause}"));
                self.end(Err(cause));
            }
            if let Some((interval, watchdog)) = &mut self.watchdog
                && next_look <= Instant::now()
            {
                next_look = Instant::now() + Watchdog::pause(*interval);
                let health = watchdog.look(self.log);
                self.on_health(health);
            }
        }
        self.outcome
    }

    fn on_health(&mut self, health: Health) {
        if health == Health::Ill {
            return;
        }
        self.notifier.watchdog();
        let has_no_space = health == Health::NoSpace;
        if std::mem::replace(&mut self.has_no_space, has_no_space) != has_no_space && !self.stop.is_requested() {
            let waiting = "Waiting for space on the disk: nothing is lost, producers wait".to_owned();
            self.notifier.status(&if has_no_space { waiting } else { self.status() });
        }
    }

    fn take_news(&mut self) {
        loop {
            match self.news.try_recv() {
                Ok(News::Ended(outcome)) => {
                    self.running -= 1;
                    if let Err(cause) = outcome {
                        self.end(Err(cause));
                    }
                }
                Ok(News::Changed(Change::Reconfigured(_))) => {
                    self.reloads -= 1;
                    if self.reloads == 0 {
                        self.reloaded();
                    }
                }
                Ok(News::Changed(_)) => self.notifier.status(&self.status()),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Stops every source. The first error counts, else the first signal.
    fn end(&mut self, outcome: Result<End>) {
        if self.outcome.is_ok() && (outcome.is_err() || !self.stop.is_requested()) {
            self.outcome = outcome;
        }
        if !self.stop.is_requested() {
            self.notifier.stopping("Stopping: storing what was accepted");
            self.stop.request();
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Interrupt | Signal::Terminate => self.end(Ok(End::Signal(signal))),
            Signal::User1 => self.change(Change::Stricter),
            Signal::User2 => self.change(Change::Configured),
            Signal::Hangup => self.on_hangup(),
        }
    }

    fn change(&self, change: Change) {
        // The thread behind it lives as long as this sender.
        let _ = self.changes.send(change);
    }

    fn on_hangup(&mut self) {
        if self.stop.is_requested() {
            return;
        }
        self.notifier.reloading();
        let new = match (self.reload)() {
            Ok(new) => new,
            Err(error) => {
                error!("the configuration stays as it was: {}", error.message);
                self.notifier.ready(&format!("{}; the last reload failed: {}", self.status(), error.message));
                return;
            }
        };
        let differences = self.config.adopt(&new);
        if differences.is_empty() {
            info!("the configuration was read again: nothing has changed");
        }
        for difference in &differences {
            if difference.is_live {
                info!("the configuration was read again: {difference}");
            } else {
                warn!("the configuration was read again: {difference}; that needs a restart");
            }
        }
        // Limits that need a restart stay in this configuration as they were.
        self.limits.change(self.config.sources.limits);
        if differences.iter().any(|difference| difference.key.is_flush_mode()) {
            self.reloads += 1;
            self.change(Change::Reconfigured(new.options.flush_mode));
        } else {
            self.reloaded();
        }
    }

    fn reloaded(&self) {
        self.notifier.ready(&self.status());
    }

    fn status(&self) -> String {
        super::status(&self.config, self.log)
    }
}
