//! Producers that number their entries: what of theirs is stored, and which connection is theirs.
//!
//! - The last number of a client is a checkpoint record (key `client/ID`, value the number and the LSN of its entry, 8
//!   bytes each, little-endian) in the batch of that entry: entry and number become durable together.
//! - Four positions, never confused: `accepted` (the last number taken), `confirmed`, `durable` (what HELLO tells), and what
//!   is on its way. In normal mode an entry is confirmed before it is durable; a client that was told more than what is
//!   durable would throw away what a power cut can still take.
//! - One connection speaks for a client. A new one waits until nothing of the old one is on its way: only then is it known
//!   what there is to tell.
//! - The table is bounded, and nothing is evicted: a client that was forgotten could store an entry twice.
//!
//! Proof: the tests below, and `tests/it/net_hello.rs`.

use std::collections::{HashMap, VecDeque};

use slab::Slab;

use super::Owner;
use crate::format::Lsn;
use crate::format::facts::Checkpoints;

const KEY_PREFIX: &str = "client/";
/// Longest id, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 64;

/// A client's place in the table. It stays as long as anything of the client is on its way.
pub(super) type ClientKey = usize;

#[derive(Debug)]
struct Client {
    id: Box<str>,
    /// Last number taken; 0 before the first.
    accepted: u64,
    /// Entries taken and not confirmed.
    in_flight: u64,
    /// Last number confirmed, and the LSN of its entry.
    confirmed: Option<(u64, Lsn)>,
    /// Confirmed and perhaps not durable: last number and LSN of each batch. Normal mode allows 49.
    at_risk: VecDeque<(u64, Lsn)>,
    durable: u64,
    speaker: Option<Owner>,
    /// The connection that will speak when nothing is on its way.
    heir: Option<Owner>,
}

/// The answer to HELLO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Greeting {
    /// The connection speaks for this client from now on; `ended` spoke for it, or waited to.
    Now { client: ClientKey, ended: Option<Owner> },
    /// It will, when the client is settled; `ended` waited to before it, `superseded` speaks for it and must not go on.
    Later { client: ClientKey, ended: Option<Owner>, superseded: Option<Owner> },
    /// The table is full.
    Full,
}

/// What to do with a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Store {
        /// The number before it, if numbers between were left out.
        jumped_from: Option<u64>,
    },
    /// It is stored or on its way; with its LSN, where that is still known.
    Duplicate(Option<Lsn>),
}

/// Why a client cannot be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotForgotten {
    Unknown,
    Connected,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Clients {
    table: Slab<Client>,
    by_id: HashMap<Box<str>, ClientKey>,
    clients_max: usize,
}

/// Whether an id has the form that an id must have: 1 to 64 of `A-Z a-z 0-9 . _ : -`.
pub(crate) fn is_valid_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_allowed)
}

/// Key of the record of a client.
pub(super) fn record_key(id: &str) -> Vec<u8> {
    format!("{KEY_PREFIX}{id}").into_bytes()
}

impl Clients {
    /// The clients that the store remembers: all of that is durable.
    pub(super) fn new(checkpoints: &Checkpoints, clients_max: usize) -> Clients {
        let mut clients = Clients { table: Slab::new(), by_id: HashMap::new(), clients_max };
        for (key, value) in checkpoints {
            let Some(id) = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(KEY_PREFIX)) else { continue };
            let Some((number, lsn)) = value.split_first_chunk::<8>() else { continue };
            let Ok(lsn) = lsn.try_into().map(u64::from_le_bytes) else { continue };
            let number = u64::from_le_bytes(*number);
            let client = clients.insert(id);
            let client = &mut clients.table[client];
            (client.accepted, client.durable, client.confirmed) = (number, number, Some((number, Lsn(lsn))));
        }
        clients
    }

    fn insert(&mut self, id: &str) -> ClientKey {
        let client = self.table.insert(Client {
            id: id.into(),
            accepted: 0,
            in_flight: 0,
            confirmed: None,
            at_risk: VecDeque::new(),
            durable: 0,
            speaker: None,
            heir: None,
        });
        self.by_id.insert(id.into(), client);
        client
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn id(&self, client: ClientKey) -> &str {
        &self.table[client].id
    }

    /// A connection wants to speak for a client.
    pub(super) fn hello(&mut self, id: &str, owner: Owner) -> Greeting {
        let client = match self.by_id.get(id) {
            Some(&client) => client,
            None if self.table.len() >= self.clients_max => return Greeting::Full,
            None => self.insert(id),
        };
        let held = &mut self.table[client];
        if held.in_flight > 0 {
            let ended = held.heir.replace(owner);
            return Greeting::Later { client, ended, superseded: held.speaker };
        }
        let ended = held.speaker.replace(owner);
        Greeting::Now { client, ended }
    }

    /// Whether a connection that waits may speak now; then also who spoke until now.
    pub(super) fn inherit(&mut self, client: ClientKey) -> Option<(Owner, Option<Owner>)> {
        let held = &mut self.table[client];
        if held.in_flight > 0 {
            return None;
        }
        let heir = held.heir.take()?;
        Some((heir, held.speaker.replace(heir)))
    }

    /// The last number that is durable, given how far the log is.
    pub(super) fn durable(&mut self, client: ClientKey, durable_lsn: Lsn) -> u64 {
        let held = &mut self.table[client];
        while let Some((number, _)) = held.at_risk.pop_front_if(|(_, lsn)| *lsn <= durable_lsn) {
            held.durable = number;
        }
        held.durable
    }

    /// Whether this connection speaks for the client.
    pub(super) fn is_speaker(&self, client: ClientKey, owner: Owner) -> bool {
        self.table.get(client).is_some_and(|held| held.speaker == Some(owner))
    }

    /// What to do with an entry of this number, which is not 0.
    pub(super) fn judge(&self, client: ClientKey, number: u64) -> Verdict {
        let held = &self.table[client];
        if number <= held.accepted {
            let known = held.confirmed.filter(|(confirmed, _)| *confirmed == number);
            return Verdict::Duplicate(known.map(|(_, lsn)| lsn));
        }
        let is_jump = number > held.accepted + 1 && held.accepted > 0;
        Verdict::Store { jumped_from: is_jump.then_some(held.accepted) }
    }

    /// An entry of this number was taken.
    pub(super) fn accept(&mut self, client: ClientKey, number: u64) {
        let held = &mut self.table[client];
        assert!(number > held.accepted, "numbers rise");
        held.accepted = number;
        held.in_flight += 1;
    }

    /// So many entries are confirmed, the last of them with this number and LSN. Returns whether a connection waits for that.
    pub(super) fn confirm(&mut self, client: ClientKey, entries: u64, last: (u64, Lsn), durable_lsn: Lsn) -> bool {
        let held = &mut self.table[client];
        held.in_flight -= entries;
        held.confirmed = Some(last);
        held.at_risk.push_back(last);
        self.durable(client, durable_lsn);
        let held = &self.table[client];
        held.in_flight == 0 && held.heir.is_some()
    }

    /// A connection is gone. A client that has stored nothing leaves nothing behind.
    pub(super) fn leave(&mut self, client: ClientKey, owner: Owner) {
        // A connection that was replaced may outlive its client, and another may have the key.
        let Some(held) = self.table.get_mut(client) else { return };
        if ![held.speaker, held.heir].contains(&Some(owner)) {
            return;
        }
        for place in [&mut held.speaker, &mut held.heir] {
            place.take_if(|held| *held == owner);
        }
        if held.accepted == 0 && held.speaker.is_none() && held.heir.is_none() {
            self.remove(client);
        }
    }

    /// Takes a client out of the table; the caller removes its record, whose key this returns.
    pub(super) fn forget(&mut self, id: &str) -> Result<Vec<u8>, NotForgotten> {
        let &client = self.by_id.get(id).ok_or(NotForgotten::Unknown)?;
        let held = &self.table[client];
        if held.speaker.is_some() || held.heir.is_some() || held.in_flight > 0 {
            return Err(NotForgotten::Connected);
        }
        self.remove(client);
        Ok(record_key(id))
    }

    fn remove(&mut self, client: ClientKey) {
        let removed = self.table.remove(client);
        self.by_id.remove(&removed.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner = Owner { index: 1, serial: 1 };
    const B: Owner = Owner { index: 2, serial: 2 };
    const C: Owner = Owner { index: 3, serial: 3 };

    fn clients() -> Clients {
        let mut value = 7u64.to_le_bytes().to_vec();
        value.extend_from_slice(&70u64.to_le_bytes());
        let checkpoints =
            Checkpoints::from([(b"client/till".to_vec(), value), (b"source/1".to_vec(), b"stdin".to_vec())]);
        Clients::new(&checkpoints, 2)
    }

    fn greeted(greeting: Greeting) -> ClientKey {
        match greeting {
            Greeting::Now { client, ended: None } => client,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_stored_before_is_a_duplicate_and_its_last_lsn_is_known() {
        let mut clients = clients();
        let till = greeted(clients.hello("till", A));
        assert_eq!(clients.durable(till, Lsn::ZERO), 7);
        assert_eq!(clients.judge(till, 7), Verdict::Duplicate(Some(Lsn(70))));
        assert_eq!(clients.judge(till, 3), Verdict::Duplicate(None));
        assert_eq!(clients.judge(till, 8), Verdict::Store { jumped_from: None });
        assert_eq!(clients.judge(till, 10), Verdict::Store { jumped_from: Some(7) });
    }

    #[test]
    fn hello_tells_what_is_durable_not_what_is_confirmed() {
        let mut clients = clients();
        let till = greeted(clients.hello("till", A));
        for number in 8..=10 {
            clients.accept(till, number);
        }
        assert_eq!(clients.judge(till, 10), Verdict::Duplicate(None), "it is on its way");
        clients.confirm(till, 2, (9, Lsn(81)), Lsn(79));
        assert_eq!(clients.durable(till, Lsn(79)), 7);
        clients.confirm(till, 1, (10, Lsn(82)), Lsn(81));
        assert_eq!(clients.durable(till, Lsn(81)), 9);
        assert_eq!(clients.judge(till, 10), Verdict::Duplicate(Some(Lsn(82))), "confirmed, though not durable");
        assert_eq!(clients.durable(till, Lsn(90)), 10);
    }

    #[test]
    fn who_was_replaced_does_not_speak_and_may_leave_last() {
        let mut clients = clients();
        let fresh = greeted(clients.hello("fresh", A));
        assert_eq!(clients.hello("fresh", B), Greeting::Now { client: fresh, ended: Some(A) });
        assert!(clients.is_speaker(fresh, B) && !clients.is_speaker(fresh, A));
        clients.leave(fresh, B);
        // It had stored nothing, so nothing is left of it.
        clients.leave(fresh, A);
        assert!(!clients.is_speaker(fresh, A));
        let other = greeted(clients.hello("other", C));
        clients.leave(other, A);
        assert!(clients.is_speaker(other, C));
    }

    #[test]
    fn a_new_connection_waits_until_nothing_of_the_old_one_is_on_its_way() {
        let mut clients = clients();
        let till = greeted(clients.hello("till", A));
        clients.accept(till, 8);
        assert_eq!(clients.hello("till", B), Greeting::Later { client: till, ended: None, superseded: Some(A) });
        assert_eq!(clients.inherit(till), None);
        assert_eq!(clients.hello("till", C), Greeting::Later { client: till, ended: Some(B), superseded: Some(A) });
        assert!(clients.confirm(till, 1, (8, Lsn(80)), Lsn(80)));
        assert_eq!(clients.inherit(till), Some((C, Some(A))));
        assert_eq!(clients.hello("till", B), Greeting::Now { client: till, ended: Some(C) });
        clients.leave(till, C);
        clients.leave(till, B);
        assert_eq!(greeted(clients.hello("till", A)), till);
    }

    #[test]
    fn the_table_is_bounded_and_only_forgetting_makes_room() {
        let mut clients = clients();
        let kiosk = greeted(clients.hello("kiosk", A));
        assert_eq!(clients.hello("third", B), Greeting::Full);
        assert_eq!(clients.forget("kiosk"), Err(NotForgotten::Connected));
        clients.leave(kiosk, A);
        assert_eq!(clients.forget("kiosk"), Err(NotForgotten::Unknown), "it had stored nothing");
        assert_eq!(clients.forget("till"), Ok(b"client/till".to_vec()));
        let till = greeted(clients.hello("till", A));
        assert_eq!((clients.durable(till, Lsn(99)), clients.len()), (0, 1));
        clients.accept(till, 1);
        clients.leave(till, A);
        assert_eq!(clients.forget("till"), Err(NotForgotten::Connected), "an entry is on its way");
    }

    #[test]
    fn ids() {
        for id in ["a", "till-1", "A.b_c:9", &"x".repeat(64)] {
            assert!(is_valid_id(id), "{id}");
        }
        for id in ["", "a b", "ä", "a/b", "a\n", &"x".repeat(65)] {
            assert!(!is_valid_id(id), "{id}");
        }
    }
}
