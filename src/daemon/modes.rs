//! Changes of the flush mode, in the order they were asked for, on a thread of their own.
//!
//! A change waits for the log (for the groups in flight, on a full disk for room), so whoever takes signals must not wait
//! for it. Each change is carried out against the mode that is in force when its turn comes: two requests for the next
//! stricter mode are two steps. Requests that were taken before the daemon stops are carried out before the log is closed.
//!
//! Proof: `tests/it/lifecycle.rs`.

use std::sync::mpsc::Receiver;

use tracing::{error, info};

use super::control::ModeControl;
use crate::engine::Log;
use crate::format::FlushMode;

/// A change that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// To the next stricter mode.
    Stricter,
    /// Back to the configured mode.
    Configured,
    /// The configured mode is this one from now on; also puts it in force.
    Reconfigured(FlushMode),
}

/// Carries changes out until their sender is gone; calls `done` after each, whether it succeeded or not.
pub(crate) fn run(log: &Log, control: &ModeControl, changes: &Receiver<Change>, mut done: impl FnMut(Change)) {
    while let Ok(change) = changes.recv() {
        if let Change::Reconfigured(mode) = change {
            control.reconfigure(mode);
        }
        let old = log.flush_mode();
        let (new, why) = match change {
            Change::Stricter => (stricter(old), "SIGUSR1"),
            Change::Configured => (control.configured(), "SIGUSR2"),
            Change::Reconfigured(mode) => (mode, "the configuration was read again"),
        };
        match log.set_flush_mode(new) {
            Ok(()) if old == new => info!("flush mode stays {new} ({why})"),
            Ok(()) => info!("flush mode {old} → {new} ({why})"),
            Err(cause) => error!("flush mode {old} could not be changed to {new} ({why}): {cause}"),
        }
        done(change);
    }
}

/// The next stricter mode; the strictest stays.
fn stricter(mode: FlushMode) -> FlushMode {
    match mode {
        FlushMode::Normal => FlushMode::Cautious,
        FlushMode::Cautious | FlushMode::Emergency => FlushMode::Emergency,
    }
}
