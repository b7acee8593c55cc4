//! The control socket, `DATA_DIR/kifa.sock`: the other commands of this program talk to the daemon through it.
//!
//! Requests are lines (LF) of at most 4 KiB, answered in order, each by one line; pipelining is welcome. The socket is its
//! owner's alone.
//!
//! | request | answer |
//! |---|---|
//! | `APPEND BYTES` LF, then so many bytes | `OK LSN`, when the entry is confirmed by the flush mode in force |
//! | `DURABLE` | `OK LSN`: everything up to there is durable |
//! | `FOLLOW` | the same at once, and again whenever it has risen, until the client closes; what it sends is ignored |
//! | `SYNC` | `OK LSN`, when everything that was taken before is durable |
//! | `STATUS` | `OK` and a JSON object in one line |
//! | `FLUSH-MODE normal`, `cautious`, `emergency` or `default` | `OK OLD NEW`, when the new mode is in force |
//! | `VACUUM NANOSECONDS BYTES do` or `dry` | `OK` and a JSON object in one line, when the oldest tables are deleted (or would be): those whose newest entry is older than a time since the Unix epoch, and as many as make the store no larger than so many bytes; `-` for either is no goal |
//! | `FORGET ID` | `OK ID`, when the removal of the client's number is durable |
//!
//! Everything else is answered `ERR CODE REASON`. After `ERR protocol` the connection is closed: what follows cannot be
//! understood.
//!
//! - Nothing here waits for the log: what takes time is asked for, and looked at again when the log has moved.
//!
//! Proof: `tests/it/net_control.rs`.

use std::collections::VecDeque;

use serde_json::json;

use super::clients::{NotForgotten, is_valid_id};
use super::conn::Phase;
use super::hub::Hub;
use super::intake::{ENTRY_OVERHEAD_BYTES, Origin, SourceIndex};
use super::request::{Next, Requests};
use super::{Owner, clients};
use crate::daemon::control::ModeChange;
use crate::daemon::vacuum;
use crate::error::{Error, Result};
use crate::format::{ENTRY_PAYLOAD_BYTES_MAX, FlushMode, Lsn};
use crate::reactor::retain::Vacuum;
use crate::reactor::stage::{Asked, Reply, Request};
use crate::reactor::stats::LogStats;
use crate::source::FULL_LINE;
use crate::source::replies::Replies;

/// Requests of a connection that may be on their way; beyond them reading pauses.
const PENDING_MAX: usize = 1024;

/// A request whose answer is not known yet.
enum Pending {
    /// The LSN, once it is confirmed.
    Entry(Option<Lsn>),
    /// Everything taken before becomes durable. Asked for when it has been handed over; then what to say.
    Sync { asked: Option<Asked>, forgotten: Option<String> },
    /// Asked for in its turn, so that it knows of what was taken before.
    Status(Option<Asked>),
    /// Asked for in its turn: the answer names the mode before it.
    Mode(FlushMode, Option<ModeChange>),
    /// Asked for in its turn.
    Vacuum(Vacuum, Option<Asked>),
    /// How much is durable, as of the answer.
    Durable,
    /// An answer that waits for those before it.
    Line(String),
}

/// A connection of the control socket.
pub(super) struct Session {
    owner: Owner,
    source: SourceIndex,
    input: Vec<u8>,
    requests: Requests,
    pending: VecDeque<Pending>,
    /// The client follows, and was told this.
    told: Option<Lsn>,
}

/// What a connection has besides its session.
pub(super) struct Ends<'a> {
    pub(super) replies: &'a mut Replies,
    pub(super) phase: &'a mut Phase,
    pub(super) in_flight_bytes: &'a mut usize,
}

impl Session {
    /// Entries that come this way have the source `append`.
    pub(super) fn new(owner: Owner, source: SourceIndex) -> Session {
        Session {
            owner,
            source,
            input: Vec::new(),
            requests: Requests::default(),
            pending: VecDeque::new(),
            told: None,
        }
    }

    /// Takes what was read.
    pub(super) fn take(&mut self, ends: &mut Ends<'_>, hub: &mut Hub<'_>, input: &[u8]) -> Result<()> {
        if self.told.is_some() {
            return Ok(());
        }
        self.input.extend_from_slice(input);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        // What follows FOLLOW is ignored, wherever the reading of it ended.
        while *ends.phase == Phase::Open && self.told.is_none() && self.take_next(ends, hub, &mut rest)? {}
        if *ends.phase == Phase::Open && self.told.is_none() {
            self.input = rest.to_vec();
        }
        self.poll(ends, hub)
    }

    /// Takes the next request off `input`, if it is whole.
    fn take_next(&mut self, ends: &mut Ends<'_>, hub: &mut Hub<'_>, input: &mut &[u8]) -> Result<bool> {
        let pending = match self.requests.next(input) {
            None => return Ok(false),
            Some(Next::Append(_)) if hub.log.is_refusing() => {
                hub.intake.counters(self.source).refuse_full();
                Pending::Line(FULL_LINE.to_owned())
            }
            Some(Next::Append(payload)) => {
                hub.intake.push(Origin { source: self.source, owner: Some(self.owner), client: None }, payload)?;
                *ends.in_flight_bytes += payload.len() + ENTRY_OVERHEAD_BYTES;
                Pending::Entry(None)
            }
            Some(Next::TooLarge(bytes)) => {
                hub.intake.counters(self.source).refuse();
                let max = ENTRY_PAYLOAD_BYTES_MAX;
                Pending::Line(format!("ERR too-large {bytes} bytes are more than an entry takes ({max})"))
            }
            Some(Next::Request(verb, rest)) => return self.answer(ends, hub, verb, rest),
            Some(Next::Broken(why)) => {
                self.break_off(ends, why);
                return Ok(true);
            }
        };
        self.pending.push_back(pending);
        Ok(true)
    }

    fn answer(&mut self, ends: &mut Ends<'_>, hub: &mut Hub<'_>, verb: &str, rest: &str) -> Result<bool> {
        let pending = match (verb, rest) {
            ("DURABLE", "") => Pending::Durable,
            ("FOLLOW", "") => {
                self.told = Some(Lsn::ZERO);
                Pending::Durable
            }
            ("SYNC", "") => Pending::Sync { asked: None, forgotten: None },
            ("STATUS", "") => Pending::Status(None),
            ("FLUSH-MODE", name) => match mode(name, hub) {
                Some(mode) => Pending::Mode(mode, None),
                None => Pending::Line("ERR mode a flush mode is normal, cautious, emergency or default".to_owned()),
            },
            ("VACUUM", goal) => match vacuum::parse(goal) {
                Some(vacuum) => Pending::Vacuum(vacuum, None),
                None => Pending::Line("ERR vacuum the form is: VACUUM NANOSECONDS|- BYTES|- do|dry".to_owned()),
            },
            ("FORGET", id) => forget(hub, id)?,
            _ => {
                self.break_off(ends, "unknown request");
                return Ok(true);
            }
        };
        self.pending.push_back(pending);
        Ok(true)
    }

    /// What follows cannot be understood.
    fn break_off(&mut self, ends: &mut Ends<'_>, why: &str) {
        self.pending.push_back(Pending::Line(format!("ERR protocol {why}")));
        *ends.phase = Phase::Ending;
    }

    /// The next APPENDs are confirmed.
    pub(super) fn confirm(&mut self, first: Lsn, entries: u64) {
        let mut awaited = self.pending.iter_mut().filter_map(|pending| match pending {
            Pending::Entry(lsn @ None) => Some(lsn),
            _ => None,
        });
        for lsn in first.0..first.0 + entries {
            *awaited.next().expect("every entry that was taken is awaited") = Some(Lsn(lsn));
        }
    }

    /// Answers what can be answered by now.
    pub(super) fn poll(&mut self, ends: &mut Ends<'_>, hub: &mut Hub<'_>) -> Result<()> {
        while let Some(front) = self.pending.front_mut() {
            let line = match front {
                Pending::Durable => {
                    let durable_lsn = hub.log.durable_lsn();
                    self.told = self.told.map(|_| durable_lsn);
                    Some(format!("OK {durable_lsn}"))
                }
                other => other.poll(hub)?,
            };
            let Some(line) = line else { break };
            ends.replies.say(&line);
            self.pending.pop_front();
        }
        if let Some(told) = &mut self.told
            && self.pending.is_empty()
            && !ends.replies.is_due()
            && *told < hub.log.durable_lsn()
        {
            *told = hub.log.durable_lsn();
            ends.replies.say(&format!("OK {told}"));
        }
        Ok(())
    }

    /// The log has failed: nothing that is pending will be answered otherwise.
    pub(super) fn give_up(&mut self) {
        self.pending.clear();
    }

    pub(super) fn awaits_more(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn is_held_back(&self) -> bool {
        self.pending.len() >= PENDING_MAX
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.input.capacity()
    }
}

impl Pending {
    /// The answer, if it is known.
    fn poll(&mut self, hub: &mut Hub<'_>) -> Result<Option<String>> {
        Ok(match self {
            Pending::Line(line) => Some(std::mem::take(line)),
            Pending::Entry(lsn) => lsn.map(|lsn| format!("OK {lsn}")),
            Pending::Sync { asked, forgotten } => {
                if asked.is_none() && hub.intake.is_handed_over() {
                    *asked = Some(hub.log.ask(Request::Sync)?);
                }
                let Some(reply) = asked.as_ref().and_then(Asked::try_take) else { return Ok(None) };
                reply?;
                Some(match forgotten {
                    Some(id) => format!("OK {id}"),
                    None => format!("OK {}", hub.log.durable_lsn()),
                })
            }
            Pending::Status(asked) => {
                let asked = match asked {
                    Some(asked) => asked,
                    None => asked.insert(hub.log.ask(Request::Stats)?),
                };
                match asked.try_take().transpose()? {
                    Some(Reply::Stats(stats)) => Some(format!("OK {}", status(hub, &stats))),
                    Some(Reply::Done | Reply::Vacuumed(_)) => {
                        unreachable!("a request for numbers is answered with numbers")
                    }
                    None => None,
                }
            }
            Pending::Vacuum(vacuum, asked) => {
                let asked = match asked {
                    Some(asked) => asked,
                    None => asked.insert(hub.log.ask(Request::Vacuum(*vacuum))?),
                };
                match asked.try_take().transpose()? {
                    Some(Reply::Vacuumed(deleted)) => {
                        let outcome = vacuum::Outcome::new(&deleted, vacuum.dry_run);
                        Some(format!("OK {}", json!(outcome)))
                    }
                    Some(Reply::Done | Reply::Stats(_)) => unreachable!("a vacuum is answered with what it came to"),
                    None => None,
                }
            }
            Pending::Durable => unreachable!("what is told is remembered, so the session answers it"),
            Pending::Mode(mode, change) => {
                let change = match change {
                    Some(change) => change,
                    None => change.insert(hub.modes.ask(hub.log, *mode)?),
                };
                let Some(reply) = change.asked.try_take() else { return Ok(None) };
                reply?;
                tracing::info!("flush mode {} → {} (control socket)", change.old, change.new);
                Some(format!("OK {} {}", change.old, change.new))
            }
        })
    }
}

fn mode(name: &str, hub: &Hub<'_>) -> Option<FlushMode> {
    match name {
        "normal" => Some(FlushMode::Normal),
        "cautious" => Some(FlushMode::Cautious),
        "emergency" => Some(FlushMode::Emergency),
        "default" => Some(hub.modes.configured()),
        _ => None,
    }
}

fn forget(hub: &mut Hub<'_>, id: &str) -> Result<Pending> {
    Ok(Pending::Line(match hub.intake.clients.forget(id) {
        Ok(key) => {
            hub.intake.remove_record(&key)?;
            return Ok(Pending::Sync { asked: None, forgotten: Some(id.to_owned()) });
        }
        Err(NotForgotten::Connected) => {
            format!("ERR client {id} is connected, or entries of it are on their way; end it first")
        }
        Err(NotForgotten::Unknown) if is_valid_id(id) => format!("ERR client {id} is not known"),
        Err(NotForgotten::Unknown) => {
            format!("ERR client an id has 1 to {} of the characters A-Z a-z 0-9 . _ : -", clients::ID_BYTES_MAX)
        }
    }))
}

/// What the daemon is doing, as one line of JSON. Its keys are a promise to scripts.
fn status(hub: &Hub<'_>, stats: &LogStats) -> String {
    let sources: Vec<_> = hub
        .board
        .each()
        .into_iter()
        .map(|(name, totals)| {
            json!({
                "name": name,
                "stored": totals.stored,
                "unconfirmed": totals.unconfirmed,
                "refused": totals.refused,
                "dropped": totals.dropped,
            })
        })
        .collect();
    json!({
        "pid": std::process::id(),
        "uptime_s": hub.now.duration_since(hub.started).as_secs(),
        "flush_mode": stats.flush_mode.to_string(),
        "configured_flush_mode": hub.modes.configured().to_string(),
        "confirmed_lsn": stats.confirmed_lsn.0,
        "durable_lsn": stats.durable_lsn.0,
        "checkpoint_lsn": stats.checkpoint_lsn.0,
        "floor_lsn": stats.floor_lsn.0,
        "memtable_entries": stats.memtable_entries,
        "tables": stats.tables,
        "wal_segments": stats.wal_segments,
        "wal_spares": stats.wal_spares,
        "groups": stats.groups,
        "entries": stats.entries,
        "wal_bytes": stats.wal_bytes,
        "syncs": stats.syncs,
        "io_backend": stats.io_backend,
        "sync_method": stats.sync_method.to_string(),
        "direct_io": stats.direct_io,
        "connections": hub.connections,
        "connections_refused": hub.turned_away,
        "clients": hub.intake.clients.len(),
        "sources": sources,
    })
    .to_string()
}

/// What a connection is told when the log has failed.
pub(super) fn stopped_line(error: &Error) -> String {
    let reason = error.to_string().replace(['\n', '\r'], " ");
    format!("ERR stopped whether what was not answered is stored is known after a restart: {reason}")
}
