//! What a connection of a source says: entries, or, of a producer that numbers them, HELLO and numbered entries.
//!
//! The protocol is described in `docs/protocol.md`; this is the side that answers.
//!
//! - A line is an entry, as it is. Only where a listener confirms can the first line be `HELLO ID`; then every line that
//!   follows is `NUMBER PAYLOAD`.
//! - A line that cannot be an entry is refused in its place in the order. Where it is not clear what the producer means (a
//!   number that is none, a length that is none) the connection ends: to go on would be to guess.
//! - Behind a HELLO that has to wait nothing is interpreted; what was read is kept, and nothing more is read.
//!
//! Proof: `tests/it/net_*.rs`.

use tracing::debug;

use super::clients::{ClientKey, Greeting, ID_BYTES_MAX, Verdict, is_valid_id};
use super::conn::{Connection, Phase, Role};
use super::hub::Hub;
use super::intake::{ENTRY_OVERHEAD_BYTES, Origin, SourceIndex};
use super::notes::Kind;
use crate::config::sources::Framing;
use crate::error::Result;
use crate::source::FULL_LINE;
use crate::source::framing::{Frame, Framer};

/// Room for a number and a space in front of a payload that is as long as the limit allows.
const NUMBER_BYTES_MAX: usize = 21;

/// Room for a HELLO with an id that is too long, so that this can be said.
const HELLO_BYTES_MAX: usize = 256;

/// Who speaks on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Speaker {
    /// Nothing was said yet.
    Unknown,
    Anonymous,
    /// It said HELLO, and waits until its client is settled.
    Waiting(ClientKey),
    Client(ClientKey),
}

/// The state of a connection that brings entries.
#[derive(Debug)]
pub(super) struct Lines {
    source: SourceIndex,
    is_confirmed: bool,
    framer: Framer,
    speaker: Speaker,
    /// Read behind a HELLO that waits.
    unread: Vec<u8>,
    /// A jump of its numbers was logged.
    has_jumped: bool,
}

impl Lines {
    pub(super) fn new(source: SourceIndex, framing: Framing, confirm: bool, line_bytes_max: usize) -> Lines {
        let line_max = if confirm { HELLO_BYTES_MAX.max(line_bytes_max + NUMBER_BYTES_MAX) } else { line_bytes_max };
        Lines {
            source,
            is_confirmed: confirm,
            framer: Framer::with(framing, line_max),
            speaker: Speaker::Unknown,
            unread: Vec::new(),
            has_jumped: false,
        }
    }

    pub(super) fn source(&self) -> SourceIndex {
        self.source
    }

    /// Whether each entry is answered.
    pub(super) fn confirms(&self) -> bool {
        self.is_confirmed
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.speaker, Speaker::Waiting(_))
    }

    pub(super) fn is_within_line(&self) -> bool {
        self.framer.is_within_line()
    }

    /// The client that this connection speaks for, or waits to.
    pub(super) fn client(&self) -> Option<ClientKey> {
        match self.speaker {
            Speaker::Waiting(client) | Speaker::Client(client) => Some(client),
            Speaker::Unknown | Speaker::Anonymous => None,
        }
    }

    /// The client is settled: its numbered entries may come. Returns what has come of them already.
    pub(super) fn greet(&mut self, client: ClientKey) -> Vec<u8> {
        self.speaker = Speaker::Client(client);
        std::mem::take(&mut self.unread)
    }

    /// Frees what is held of an unfinished line, which is skipped.
    pub(super) fn refuse_line(&mut self) {
        self.framer.refuse();
    }

    pub(super) fn line_held_bytes(&self) -> usize {
        self.framer.held_bytes()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.framer.held_bytes() + self.unread.capacity()
    }
}

/// Takes what was read from a connection of a source.
pub(super) fn take(connection: &mut Connection, hub: &mut Hub<'_>, mut input: &[u8]) -> Result<()> {
    let was_within = lines(connection).is_within_line();
    let mut has_ended_one = false;
    // A frame borrows the framer, and everything else of the connection is needed beside it.
    let mut framer = std::mem::replace(&mut lines(connection).framer, Framer::new());
    while connection.phase == Phase::Open {
        let lines = lines(connection);
        if lines.is_waiting() {
            lines.unread.extend_from_slice(input);
            break;
        }
        let Some(frame) = framer.next(&mut input) else { break };
        has_ended_one = true;
        take_frame(connection, hub, frame)?;
    }
    lines(connection).framer = framer;
    connection.line_since = match (lines(connection).is_within_line(), was_within && !has_ended_one) {
        (true, true) => connection.line_since,
        (true, false) => Some(hub.now),
        (false, _) => None,
    };
    Ok(())
}

fn lines(connection: &mut Connection) -> &mut Lines {
    match &mut connection.role {
        Role::Lines(lines) => lines,
        Role::Control(_) | Role::Nobody => unreachable!("only connections of sources get here"),
    }
}

fn take_frame(connection: &mut Connection, hub: &mut Hub<'_>, frame: Frame<'_>) -> Result<()> {
    match frame {
        Frame::Line(line) => take_line(connection, hub, line),
        Frame::Refused { .. } => {
            refuse_too_large(connection, hub);
            Ok(())
        }
        Frame::Malformed { offset } => {
            let origin = connection.origin();
            let name = hub.intake.name(lines(connection).source).to_owned();
            hub.warn(Kind::Malformed, || {
                format!("{name}: {origin} was disconnected: what came at byte {offset} is no length of an entry")
            });
            refuse(connection, hub);
            connection.end("ERR framing an entry begins with its length in decimal digits and a space");
            Ok(())
        }
    }
}

fn take_line(connection: &mut Connection, hub: &mut Hub<'_>, line: &[u8]) -> Result<()> {
    let lines = lines(connection);
    match lines.speaker {
        Speaker::Unknown if lines.is_confirmed && (line == b"HELLO" || line.starts_with(b"HELLO ")) => {
            hello(connection, hub, line.get(6..).unwrap_or_default());
            Ok(())
        }
        Speaker::Unknown | Speaker::Anonymous => {
            lines.speaker = Speaker::Anonymous;
            store(connection, hub, None, line)
        }
        Speaker::Client(client) => take_numbered(connection, hub, client, line),
        Speaker::Waiting(_) => unreachable!("nothing is interpreted behind a HELLO that waits"),
    }
}

/// Counts a refusal.
fn refuse(connection: &mut Connection, hub: &mut Hub<'_>) {
    hub.intake.counters(lines(connection).source).refuse();
}

fn refuse_too_large(connection: &mut Connection, hub: &mut Hub<'_>) {
    let (origin, max) = (connection.origin(), hub.limits.line_bytes_max);
    let name = hub.intake.name(lines(connection).source).to_owned();
    hub.warn(Kind::TooLarge, || format!("{name}: an entry of {origin} is refused: longer than {max} bytes"));
    refuse(connection, hub);
    connection.replies.say(&format!("ERR too-large the entry is longer than {max} bytes"));
}

/// The disk is full. A client that numbers its entries begins anew: were a later number stored, this one never could be.
fn refuse_full(connection: &mut Connection, hub: &mut Hub<'_>, is_numbered: bool) {
    hub.intake.counters(lines(connection).source).refuse_full();
    match is_numbered {
        true => connection.end(FULL_LINE),
        false => connection.replies.say(FULL_LINE),
    }
}

fn store(
    connection: &mut Connection,
    hub: &mut Hub<'_>,
    client: Option<(ClientKey, u64)>,
    payload: &[u8],
) -> Result<()> {
    if payload.len() > hub.limits.line_bytes_max {
        refuse_too_large(connection, hub);
        return Ok(());
    }
    if hub.log.is_refusing() {
        refuse_full(connection, hub, client.is_some());
        return Ok(());
    }
    let owner = connection.owner;
    let lines = lines(connection);
    let (source, is_confirmed) = (lines.source, lines.is_confirmed);
    hub.intake.push(Origin { source, owner: Some(owner), client }, payload)?;
    connection.in_flight_bytes += payload.len() + ENTRY_OVERHEAD_BYTES;
    if is_confirmed {
        connection.replies.await_entry();
    }
    Ok(())
}

fn hello(connection: &mut Connection, hub: &mut Hub<'_>, id: &[u8]) {
    let Some(id) = std::str::from_utf8(id).ok().filter(|id| is_valid_id(id)) else {
        refuse(connection, hub);
        connection.end(&format!("ERR hello an id has 1 to {ID_BYTES_MAX} of the characters A-Z a-z 0-9 . _ : -"));
        return;
    };
    match hub.intake.clients.hello(id, connection.owner) {
        Greeting::Now { client, ended } => {
            hub.replaced.extend(ended);
            lines(connection).speaker = Speaker::Client(client);
            greet(connection, hub, client);
        }
        Greeting::Later { client, ended, superseded } => {
            debug!("{id}: {} waits until its earlier connection is settled", connection.origin());
            hub.replaced.extend(ended);
            hub.superseded.extend(superseded);
            lines(connection).speaker = Speaker::Waiting(client);
        }
        Greeting::Full => {
            let (id, max) = (id.to_owned(), hub.limits.clients_max);
            hub.warn(Kind::ClientsFull, || {
                format!(
                    "the client {id} is turned away: the store remembers {max} clients; forget one (kifa ctl forget-client \
                     ID) or raise ingester.clients_max"
                )
            });
            refuse(connection, hub);
            connection.end(&format!("ERR clients the store remembers {max} clients, and no more are allowed"));
        }
    }
}

/// Tells a client how far it has come.
pub(super) fn greet(connection: &mut Connection, hub: &mut Hub<'_>, client: ClientKey) {
    let number = hub.intake.clients.durable(client, hub.log.durable_lsn());
    connection.replies.say(&format!("OK HELLO {number}"));
}

/// What a connection is told whose client speaks elsewhere.
pub(super) const REPLACED: &str = "ERR replaced another connection has said HELLO for this client";

fn take_numbered(connection: &mut Connection, hub: &mut Hub<'_>, client: ClientKey, line: &[u8]) -> Result<()> {
    let Some((number, payload)) = split_number(line) else {
        refuse(connection, hub);
        connection.end("ERR number a line is NUMBER PAYLOAD: a number from 1 on, a space, and at least one byte");
        return Ok(());
    };
    if !hub.intake.clients.is_speaker(client, connection.owner) {
        // Who speaks now was told of what is stored, and must not find more taken behind that.
        connection.end(REPLACED);
        return Ok(());
    }
    match hub.intake.clients.judge(client, number) {
        Verdict::Duplicate(Some(lsn)) => connection.replies.say(&format!("OK {lsn}")),
        Verdict::Duplicate(None) => connection.replies.say_duplicate(),
        Verdict::Store { jumped_from } => {
            if let Some(before) = jumped_from
                && !std::mem::replace(&mut lines(connection).has_jumped, true)
            {
                let id = hub.intake.clients.id(client).to_owned();
                hub.warn(Kind::Jump, || {
                    format!(
                        "the client {id} jumped from number {before} to {number}; what was between was never received"
                    )
                });
            }
            store(connection, hub, Some((client, number)), payload)?;
        }
    }
    Ok(())
}

/// `NUMBER PAYLOAD`: a decimal number from 1 on, one space, at least one byte.
pub(crate) fn split_number(line: &[u8]) -> Option<(u64, &[u8])> {
    let space = line.iter().take(NUMBER_BYTES_MAX).position(|&byte| byte == b' ')?;
    let (digits, payload) = (&line[..space], &line[space + 1..]);
    if payload.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number > 0).then_some((number, payload))
}

/// The other side has said everything. A line without its end is no entry: over a connection nobody can tell it from one
/// that was cut.
pub(super) fn finish(connection: &mut Connection, hub: &mut Hub<'_>) {
    if connection.phase == Phase::Open {
        refuse_unfinished(connection, hub, "the connection ended within it");
        connection.phase = Phase::Finishing;
    }
}

/// Refuses the line that has begun, if one has.
pub(super) fn refuse_unfinished(connection: &mut Connection, hub: &mut Hub<'_>, why: &str) {
    let origin = connection.origin();
    let lines = lines(connection);
    if !lines.is_within_line() {
        return;
    }
    lines.refuse_line();
    let name = hub.intake.name(lines.source).to_owned();
    hub.warn(Kind::Unfinished, || format!("{name}: the last line of {origin} is not stored: {why}"));
    refuse(connection, hub);
    connection.replies.say(&format!("ERR unfinished the last line is not stored: {why}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_payloads() {
        assert_eq!(split_number(b"1 x"), Some((1, &b"x"[..])));
        assert_eq!(split_number(b"007  x "), Some((7, &b" x "[..])));
        assert_eq!(split_number(b"18446744073709551615 \xff"), Some((u64::MAX, &b"\xff"[..])));
        for line in ["", "1", "1 ", "0 x", "+1 x", "-1 x", "x 1", " 1 x", "18446744073709551616 x", "1\tx", "1e3 x"] {
            assert_eq!(split_number(line.as_bytes()), None, "{line}");
        }
    }
}
