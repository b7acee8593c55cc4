//! The second half of a turn: reading from everybody who has something to say, within the limit on memory.

use super::conn::{Connection, Phase, Read, Role};
use super::control::Ends;
use super::hub::Hub;
use super::notes::Kind;
use super::{CHUNK_BYTES, DROPS_EVERY, Net, lines};
use crate::error::Result;

impl Net<'_> {
    /// Reads from everybody who has something to say, once each, while there is room.
    pub(super) fn read(&mut self) -> Result<()> {
        for _ in 0..self.ready.len() {
            if self.hub.intake.is_blocked() {
                // A batch is full: there may well be room for it.
                self.hub.intake.submit()?;
            }
            if self.hub.intake.is_blocked() {
                return Ok(());
            }
            let Some(index) = self.ready.pop_front() else { return Ok(()) };
            let Some(connection) = self.connections.get_mut(index) else { continue };
            connection.is_queued = false;
            if connection.phase == Phase::Finishing || connection.is_held_back(self.hub.limits.connection_bytes_max) {
                continue;
            }
            self.read_from(index)?;
            self.list(index);
        }
        Ok(())
    }

    fn read_from(&mut self, index: usize) -> Result<()> {
        let (connection, hub) = (&mut self.connections[index], &mut self.hub);
        match connection.read(&mut self.buf[..CHUNK_BYTES]) {
            Read::Nothing => return Ok(()),
            Read::Bytes(_) if connection.phase != Phase::Open => return Ok(()),
            Read::End if connection.phase == Phase::Ending => return Ok(()),
            Read::End | Read::Failed if connection.phase != Phase::Open => connection.phase = Phase::Gone,
            Read::Bytes(bytes) => {
                connection.heard = hub.now;
                let chunk = &self.buf[..bytes];
                match connection.role {
                    Role::Lines(_) => lines::take(connection, hub, chunk)?,
                    Role::Control(_) | Role::Nobody => take_requests(connection, hub, chunk)?,
                }
                self.set_deadline(index);
            }
            Read::End => match connection.role {
                Role::Lines(_) => lines::finish(connection, hub),
                Role::Control(_) | Role::Nobody => connection.phase = Phase::Finishing,
            },
            Read::Failed => {
                if let Role::Lines(_) = connection.role {
                    lines::refuse_unfinished(connection, hub, "the connection broke within it");
                }
                connection.phase = Phase::Gone;
            }
        }
        self.count_held(index);
        self.limit_memory();
        Ok(())
    }

    /// Counts what a connection holds by now.
    pub(super) fn count_held(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let held_bytes = connection.count_held_bytes();
        self.held_bytes = self.held_bytes + held_bytes - std::mem::replace(&mut connection.held_bytes, held_bytes);
    }

    /// Keeps what all connections hold within its limit.
    fn limit_memory(&mut self) {
        while self.held_bytes > self.hub.limits.partial_bytes_max {
            let largest = self.connections.iter().max_by_key(|(_, connection)| connection.held_bytes);
            let Some(index) = largest.map(|(index, _)| index) else { return };
            let connection = &mut self.connections[index];
            match &mut connection.role {
                Role::Lines(lines) if lines.line_held_bytes() * 2 >= connection.held_bytes => {
                    lines::refuse_unfinished(connection, &mut self.hub, "unfinished lines take too much memory");
                }
                _ => {
                    let origin = connection.origin();
                    self.hub.warn(Kind::Memory, || format!("{origin} was disconnected: it does not read its answers"));
                    connection.phase = Phase::Gone;
                    connection.replies = Default::default();
                }
            }
            self.count_held(index);
            self.list(index);
        }
    }

    pub(super) fn receive(&mut self) -> Result<()> {
        for udp in &mut self.udp {
            udp.receive(&mut self.hub, &mut self.buf)?;
        }
        if self.hub.now >= self.drops_looked + DROPS_EVERY {
            self.drops_looked = self.hub.now;
            for udp in &mut self.udp {
                udp.look_for_drops(&mut self.hub);
            }
        }
        Ok(())
    }
}

fn take_requests(connection: &mut Connection, hub: &mut Hub<'_>, chunk: &[u8]) -> Result<()> {
    let Connection { role, replies, phase, in_flight_bytes, .. } = connection;
    match role {
        Role::Control(session) => session.take(&mut Ends { replies, phase, in_flight_bytes }, hub, chunk),
        Role::Lines(_) | Role::Nobody => Ok(()),
    }
}
