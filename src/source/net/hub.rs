//! What all connections share.

use std::time::Instant;

use super::Owner;
use super::clients::ClientKey;
use super::intake::Intake;
use super::notes::{Kind, Notes};
use crate::config::sources::Limits;
use crate::daemon::control::ModeControl;
use crate::engine::Log;
use crate::source::Context;
use crate::source::counters::Board;

/// See the module's page.
pub(super) struct Hub<'a> {
    pub(super) log: &'a Log,
    pub(super) board: &'a Board,
    pub(super) modes: &'a ModeControl,
    pub(super) limits: Limits,
    pub(super) intake: Intake<'a>,
    /// As of the last time the loop woke.
    pub(super) now: Instant,
    pub(super) started: Instant,
    notes: Notes,
    /// Connections that speak for a client no more.
    pub(super) replaced: Vec<Owner>,
    /// Connections that are about to: they may not go on.
    pub(super) superseded: Vec<Owner>,
    /// Clients of whom nothing is on its way, and for whom a connection waits.
    pub(super) settled: Vec<ClientKey>,
    /// Connections of sources, and those that were turned away since the start.
    pub(super) connections: usize,
    pub(super) turned_away: u64,
}

impl<'a> Hub<'a> {
    pub(super) fn new(context: Context<'a>, modes: &'a ModeControl, limits: Limits, now: Instant) -> Hub<'a> {
        Hub {
            log: context.log,
            board: context.board,
            modes,
            limits,
            intake: Intake::new(context.log, limits.clients_max),
            now,
            started: now,
            notes: Notes::default(),
            replaced: Vec::new(),
            superseded: Vec::new(),
            settled: Vec::new(),
            connections: 0,
            turned_away: 0,
        }
    }

    /// Logs what a stranger can cause.
    pub(super) fn warn(&mut self, kind: Kind, sentence: impl FnOnce() -> String) {
        self.notes.warn(kind, self.now, sentence);
    }
}
