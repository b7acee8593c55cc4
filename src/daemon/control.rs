//! What can be changed while the daemon runs, by whoever may: the control socket, signals, a new configuration.
#![cfg_attr(not(unix), allow(dead_code, reason = "sockets, which need it, are for Unix"))]

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::config::sources::Limits;
use crate::engine::Log;
use crate::error::Result;
use crate::format::FlushMode;
use crate::io::Waker;
use crate::reactor::stage::{Asked, Request};

/// Limits of connections that were changed, until the thread that serves them takes them over.
#[derive(Default)]
pub(crate) struct LimitControl {
    changed: Mutex<Option<Limits>>,
    waker: OnceLock<Waker>,
}

impl LimitControl {
    /// Who is to be woken by a change.
    pub(crate) fn on_change(&self, waker: Waker) {
        // There is one thread for sockets, and it is prepared once.
        let _ = self.waker.set(waker);
    }

    /// Puts other limits in force.
    pub(crate) fn change(&self, limits: Limits) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(limits);
        if let Some(wake) = self.waker.get() {
            wake();
        }
    }

    /// What has changed since the last call.
    pub(crate) fn take(&self) -> Option<Limits> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The flush mode that is configured, beside the one in force (which the log knows).
#[derive(Debug)]
pub(crate) struct ModeControl {
    configured: AtomicU8,
}

/// A change of the flush mode on its way.
pub(crate) struct ModeChange {
    /// The mode in force when it was asked for.
    pub(crate) old: FlushMode,
    pub(crate) new: FlushMode,
    /// Answered when the new mode is in force.
    pub(crate) asked: Asked,
}

impl ModeControl {
    pub(crate) fn new(configured: FlushMode) -> ModeControl {
        ModeControl { configured: AtomicU8::new(configured as u8) }
    }

    /// The mode that the configuration names.
    pub(crate) fn configured(&self) -> FlushMode {
        FlushMode::from_u8(self.configured.load(Ordering::Relaxed)).expect("only modes are stored")
    }

    /// Another mode is configured from now on.
    pub(crate) fn reconfigure(&self, mode: FlushMode) {
        self.configured.store(mode as u8, Ordering::Relaxed);
    }

    /// Asks for a flush mode, without waiting until it is in force.
    pub(crate) fn ask(&self, log: &Log, new: FlushMode) -> Result<ModeChange> {
        let old = log.flush_mode();
        Ok(ModeChange { old, new, asked: log.ask(Request::SetMode(new))? })
    }
}
