//! The first half of a turn: what was taken goes to the log, and who is confirmed is told.

use super::conn::{Connection, Phase, Role};
use super::control::Ends;
use super::{Net, lines};
use crate::error::Result;
use crate::format::Lsn;

impl Net<'_> {
    /// Hands over, tells who is confirmed, and writes what can be written.
    pub(super) fn advance(&mut self) -> Result<()> {
        self.hub.intake.submit()?;
        self.settle()?;
        self.hand_clients_over()?;
        for at in 0..self.sessions.len() {
            self.poll_session(self.sessions[at])?;
        }
        while let Some(index) = self.listed.pop() {
            self.look_at(index);
        }
        self.hub.intake.submit()?;
        self.log.failure().map_or(Ok(()), Err)
    }

    /// Takes in what the log has confirmed.
    fn settle(&mut self) -> Result<()> {
        while let Some((range, runs)) = self.hub.intake.confirmed()? {
            let durable_lsn = self.log.durable_lsn();
            let mut first = range.first;
            for run in runs {
                let next = Lsn(first.0 + run.entries);
                if let Some((client, number)) = run.client {
                    let last = (number, next.prev());
                    if self.hub.intake.clients.confirm(client, run.entries, last, durable_lsn) {
                        self.hub.settled.push(client);
                    }
                }
                if let Some(owner) = run.owner
                    && let Some(connection) = self.connection(owner)
                {
                    connection.confirm(first, run.entries, run.bytes);
                    self.list(owner.index);
                }
                first = next;
            }
        }
        Ok(())
    }

    /// Puts a connection on the list of those that are looked at before the thread sleeps.
    pub(super) fn list(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if !std::mem::replace(&mut connection.is_listed, true) {
            self.listed.push(index);
        }
    }

    /// Ends connections that another has taken the place of, and lets those speak whose turn it is.
    fn hand_clients_over(&mut self) -> Result<()> {
        while let Some(client) = self.hub.settled.pop() {
            let Some((heir, before)) = self.hub.intake.clients.inherit(client) else { continue };
            self.hub.replaced.extend(before);
            let Some(connection) = self.connection(heir) else { continue };
            let Role::Lines(lines) = &mut connection.role else { continue };
            let unread = lines.greet(client);
            let connection = &mut self.connections[heir.index];
            lines::greet(connection, &mut self.hub, client);
            lines::take(connection, &mut self.hub, &unread)?;
            self.list(heir.index);
        }
        let replaced = std::mem::take(&mut self.hub.replaced).into_iter();
        for owner in replaced.chain(std::mem::take(&mut self.hub.superseded)) {
            let Some(connection) = self.connection(owner).filter(|held| held.phase == Phase::Open) else { continue };
            connection.end(lines::REPLACED);
            self.list(owner.index);
        }
        Ok(())
    }

    fn poll_session(&mut self, index: usize) -> Result<()> {
        let Connection { role, replies, phase, in_flight_bytes, .. } = &mut self.connections[index];
        let Role::Control(session) = role else { return Ok(()) };
        session.poll(&mut Ends { replies, phase, in_flight_bytes }, &mut self.hub)?;
        self.list(index);
        Ok(())
    }

    /// Writes what a connection is owed, queues it to be read if it may be, and lets it go when it is done.
    fn look_at(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.is_listed = false;
        connection.write(self.hub.now);
        match connection.phase {
            Phase::Gone => return self.remove(index),
            Phase::Finishing => {}
            _ if connection.is_held_back(self.hub.limits.connection_bytes_max) => {}
            _ if connection.is_readable && !connection.is_queued => {
                connection.is_queued = true;
                self.ready.push_back(index);
            }
            _ => {}
        }
        if connection.phase != Phase::Open {
            self.set_deadline(index);
        }
        self.count_held(index);
    }
}
