//! Holes: what proves that one was durable, where the log goes on behind it, and the single entries that are saved from inside.
//!
//! The rules are those of [`super`]; nothing here decides where a log ends.
//!
//! Proof: `survey::tests`.

use super::{LoneEntry, Part, Run, Walk};
use crate::error::Result;
use crate::format::entry::{self, Seed};
use crate::format::group::{self, GroupHeader};
use crate::format::record::{LogEnd, Record};
use crate::format::{BLOCK_BYTES, ENTRY_PAYLOAD_BYTES_MAX, Lsn};
use crate::survey::Kind;
use crate::survey::pieces::{self, End, FileKey, Piece};
use crate::wal::reader::{Place, Window, read_group, read_header, search_headers};

impl Walk<'_> {
    /// Goes on behind the hole, if something proves that it was durable; `false` where the piece ends.
    pub(super) fn cross(&mut self, piece: &Piece, run: &mut Run) -> Result<bool> {
        let recorded = match piece.end {
            End::Recorded(end) => Some(end),
            End::Followed { .. } | End::Newest => None,
        };
        let here_ends = recorded.filter(|end| end.salt == run.salt);
        let (next, proven) = self.look_behind(piece, run, recorded, here_ends)?;
        let file_bytes = self.place(piece, run.at).file_bytes;
        let (to, bound) = match (next, recorded) {
            _ if !proven => return Ok(false),
            (Some(next), _) => (next.offset, next.first_lsn),
            (None, Some(end)) => (end.offset, end.last_lsn.next()),
            (None, None) => match piece.end {
                // Nothing is missing in between, and yet the numbers do not join: the last groups are lost.
                End::Followed { first_lsn, is_missing: false, .. } if first_lsn > self.hole_lsn() => {
                    (file_bytes, first_lsn)
                }
                End::Followed { .. } => return Ok(false),
                End::Newest | End::Recorded(_) => {
                    self.out.lost_bytes = Some(file_bytes.saturating_sub(run.at));
                    (file_bytes, self.out.durable_lsn.max(self.due.prev()).next())
                }
            },
        };
        let path = pieces::path(self.files, piece.file);
        let what = self.why(piece, run)?;
        let missing = (self.hole_lsn(), bound.prev());
        self.wound(Kind::Group, path, (run.at, Some(to)), missing, what);
        let salts = self.salts(piece, run, next.as_ref(), recorded, here_ends.is_some())?;
        let saved = self.save(piece, run, to, bound, &salts)?;
        self.out.wounds.last_mut().expect("pushed just now").saved = saved;
        if self.pending_gap.is_some_and(|gap| gap.last < bound) {
            self.due = self.pending_gap.map_or(self.due, |gap| gap.first);
            self.consume_gap();
        }
        self.due = bound;
        run.at = to;
        run.marker = None;
        if let Some(next) = next {
            (run.epoch, run.salt) = (next.epoch, next.salt);
            return Ok(true);
        }
        // The recorded end may be that of a later run of this segment, all of which is lost.
        run.salt = recorded.map_or(run.salt, |end| end.salt);
        Ok(recorded.is_some())
    }

    /// The next group behind the hole that may count, and whether anything proves that the hole was durable.
    fn look_behind(
        &mut self,
        piece: &Piece,
        run: &Run,
        recorded: Option<LogEnd>,
        here_ends: Option<LogEnd>,
    ) -> Result<(Option<GroupHeader>, bool)> {
        let hole_lsn = self.hole_lsn();
        let sealed = matches!(piece.end, End::Followed { epoch, .. } if epoch == run.epoch);
        let mut proven = recorded.is_some() || sealed || self.out.durable_lsn >= hole_lsn;
        let mut next: Option<GroupHeader> = None;
        let behind = self.place(piece, run.at + BLOCK_BYTES as u64);
        let limit = recorded.map_or(behind.file_bytes, |end| end.offset).saturating_sub(behind.offset);
        let (due, number) = (self.due, piece.number);
        search_headers(&mut self.window, &behind, limit, |header| {
            let ours = run.holds(header) || (header.epoch > run.epoch && here_ends.is_none());
            if header.segment != number || !ours || header.first_lsn < due {
                return false;
            }
            next.get_or_insert(*header);
            proven |= header.durable_lsn >= hole_lsn || (header.clean_close && header.epoch == run.epoch);
            proven
        })?;
        Ok((next, proven))
    }

    /// What is wrong where the run stands.
    fn why(&mut self, piece: &Piece, run: &Run) -> Result<String> {
        let place = self.place(piece, run.at);
        Ok(match read_group(&mut self.window, &place)? {
            Err(why) => format!("a group fails its checks: {why}"),
            Ok(_) => "a good group lies where another one belongs".to_owned(),
        })
    }

    /// Salts of the runs that the hole may hold entries of: this one's, and those of later epochs that go on behind it in
    /// the same segment.
    fn salts(
        &mut self,
        piece: &Piece,
        run: &Run,
        next: Option<&GroupHeader>,
        recorded: Option<LogEnd>,
        is_last_run: bool,
    ) -> Result<Vec<u64>> {
        let mut salts = vec![run.salt];
        if !is_last_run {
            let place = self.place(piece, run.at);
            let here = read_header(&mut self.window, &place)?.ok().filter(|here| here.epoch > run.epoch);
            salts.extend(here.iter().chain(next).map(|header| header.salt));
            salts.extend(recorded.map(|end| end.salt));
            salts.sort_unstable();
            salts.dedup();
        }
        Ok(salts)
    }

    /// Saves single entries from the run's position to `to`; returns how many. Their LSNs lie below `bound`.
    fn save(&mut self, piece: &Piece, run: &Run, to: u64, bound: Lsn, salts: &[u64]) -> Result<u64> {
        let mut window = std::mem::take(&mut self.window);
        let place = self.place(piece, run.at);
        let header = read_header(&mut window, &place)?.ok().filter(|header| salts.contains(&header.salt));
        let mut saved: Vec<LoneEntry> = Vec::new();
        let mut at = run.at;
        while at + entry::OVERHEAD_BYTES as u64 <= to.min(place.file_bytes) {
            let lsn_min = saved.last().map_or(self.hole_lsn(), |last| last.lsn.next());
            let mut here = None;
            for &salt in salts {
                let found = lone_entry(&mut window, &place, piece.file, Seed { salt, offset: at }, to)?;
                here = here.or(found.filter(|entry| (lsn_min..bound).contains(&entry.lsn)));
            }
            at += here.map_or(1, |entry| entry.bytes as u64);
            saved.extend(here);
        }
        if let Some(header) = header.filter(|header| is_whole(header, &saved)) {
            let records = lone_records(&mut window, &place, &header)?;
            self.records.extend(records.into_iter().map(|record| (header.last_lsn(), record)));
        }
        self.window = window;
        let checkpoint = self.manifest.checkpoint_lsn;
        self.out.entries += saved.len() as u64;
        self.out.parts.extend(saved.iter().filter(|entry| entry.lsn > checkpoint).map(|entry| Part::Entry(*entry)));
        Ok(saved.len() as u64)
    }
}

/// Whether all entries of this group were saved.
fn is_whole(header: &GroupHeader, saved: &[LoneEntry]) -> bool {
    let inside = |entry: &&LoneEntry| (header.first_lsn..=header.last_lsn()).contains(&entry.lsn);
    saved.iter().filter(inside).count() == header.entry_count as usize
}

/// The entry that starts at `seed.offset`, if one does.
fn lone_entry(window: &mut Window, place: &Place<'_>, file: FileKey, seed: Seed, to: u64) -> Result<Option<LoneEntry>> {
    let left = to.min(place.file_bytes) - seed.offset;
    let head = window.get(place.path, place.file, seed.offset, entry::HEADER_BYTES)?;
    let Some(payload_bytes) = entry::payload_bytes(head, seed) else { return Ok(None) };
    let len = entry::OVERHEAD_BYTES + payload_bytes;
    if payload_bytes > ENTRY_PAYLOAD_BYTES_MAX || len as u64 > left {
        return Ok(None);
    }
    let bytes = window.get(place.path, place.file, seed.offset, len)?;
    Ok(entry::decode(bytes, seed).ok().map(|entry| LoneEntry {
        file,
        seed,
        bytes: len,
        lsn: entry.lsn,
        timestamp_ns: entry.timestamp_ns,
    }))
}

/// The records of a damaged group, up to the first bad one.
fn lone_records(window: &mut Window, place: &Place<'_>, header: &GroupHeader) -> Result<Vec<Record>> {
    let mut offset = header.offset + (group::HEADER_BYTES + header.entries_bytes as usize) as u64;
    let bytes = window.get(place.path, place.file, offset, header.records_bytes as usize)?;
    let (mut rest, mut records) = (bytes, Vec::new());
    while let Ok((record, len)) = Record::decode(rest, Seed { salt: header.salt, offset }) {
        records.push(record);
        rest = &rest[len..];
        offset += len as u64;
    }
    Ok(records)
}
