//! What a new life of the log does with what replay found.
//!
//! Nothing in place above the highest proven durable LSN is trusted: after a mere process kill, or a sync that failed
//! before the restart, such bytes look good and may still be volatile, and syncing them now would be a retried sync. So
//! the groups above it are written anew, with the same LSNs, at the start of the new epoch's first segment; that is made
//! durable; and only then is anybody answered.
//!
//! | how the log ended | what the new epoch does |
//! |---|---|
//! | clean close | goes on in the same segment; nothing is written before the first entry |
//! | unclean, newest segment without a valid group | takes that segment over, with its links, at once if it carries a gap: an epoch that got no entry is superseded |
//! | unclean, groups above the proven LSN | a new segment: groups, data sync, then the header with its own sync |
//! | unclean, normal mode held | a header at once, with the gap of 49 LSNs that may have been confirmed and lost |
//! | unclean, otherwise | a new segment with the first entry |
//!
//! The header goes last because it is what makes the old tail dead: a valid header proves that what it replaces is
//! durable. Bounded: two groups in flight, or 49 entries in at most 1 MiB of groups behind one more group.
//!
//! Proof: `tests`, and the crash campaign in `sim` (cuts inside recovery included).

use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::record::{LogEnd, Record};
use crate::format::{Gap, GapCause, Lsn};
use crate::memtable::MemTable;
use crate::wal::files::WalFiles;
use crate::wal::replay::{Extent, Newest, Replay, Tail, replay};
use crate::wal::writer::AT_RISK_ENTRIES_MAX;

/// A group that nothing on disk proves durable.
#[derive(Clone, Debug)]
pub(crate) struct Unproven {
    /// The end of the log in front of it.
    pub(crate) end_before: LogEnd,
    pub(crate) first_lsn: Lsn,
    pub(crate) entry_count: u32,
    pub(crate) entries: Vec<u8>,
    pub(crate) records: Vec<Record>,
}

/// Everything the write-ahead log says.
pub(crate) struct Recovered {
    pub(crate) replay: Replay,
    /// Entries behind the manifest's checkpoint.
    pub(crate) memtable: MemTable,
    pub(crate) unproven: Vec<Unproven>,
    /// Live segments with the last LSN in each, in order.
    pub(crate) segments: Vec<(u64, String, Lsn)>,
}

/// Reads the log into memory.
pub(crate) fn read(files: &WalFiles, manifest: &Manifest, memtable_bytes: usize) -> Result<Recovered> {
    let mut memtable = MemTable::with_capacity(memtable_bytes);
    let mut unproven: Vec<Unproven> = Vec::new();
    let mut segments: Vec<(u64, String, Lsn)> = Vec::new();
    let checkpoint = manifest.checkpoint_lsn;
    let replay = replay(files, manifest, Extent::Whole, &mut |seen| {
        let group = &seen.group;
        let header = &group.header;
        let mut skipped = 0;
        let mut skipped_bytes = 0;
        for entry in group.entries().take_while(|entry| entry.lsn <= checkpoint) {
            skipped += 1;
            skipped_bytes += entry.encoded_bytes();
        }
        let count = u64::from(header.entry_count) - skipped;
        let first = Lsn(header.first_lsn.0 + skipped);
        memtable.push_entries(&group.entry_bytes()[skipped_bytes..], count, first, header.last_lsn());
        // A group without content is written and synced alone: any group behind it proves it, the marker everything.
        unproven.retain(|kept| !kept.is_proven(seen.durable_lsn) && kept.has_content() && !header.clean_close);
        let kept = Unproven {
            end_before: seen.end_before,
            first_lsn: header.first_lsn,
            entry_count: header.entry_count,
            entries: Vec::new(),
            records: group
                .records()
                .into_iter()
                .filter(|record| !matches!(record, Record::EpochStart { .. }))
                .collect(),
        };
        if !kept.is_proven(seen.durable_lsn) && !header.clean_close {
            unproven.push(Unproven { entries: group.entry_bytes().to_vec(), ..kept });
        }
        match segments.last_mut() {
            Some(last) if last.0 == header.segment => last.2 = header.last_lsn(),
            _ => segments.push((header.segment, seen.segment.path.clone(), header.last_lsn())),
        }
        Ok(())
    })?;
    // A header behind the last group may have proven it: the next segment's, written before anything else was.
    unproven.retain(|kept| !kept.is_proven(replay.durable_lsn));
    Ok(Recovered { replay, memtable, unproven, segments })
}

impl Unproven {
    fn is_proven(&self, durable_lsn: Lsn) -> bool {
        if self.entry_count > 0 {
            return durable_lsn.0 >= self.first_lsn.0 + u64::from(self.entry_count) - 1;
        }
        // It takes no LSN: it is proven when an entry behind it is.
        durable_lsn >= self.first_lsn
    }

    /// Whether it holds anything that has to be written anew. A watermark or a declaration does not, but nothing may link
    /// behind it either.
    pub(crate) fn has_content(&self) -> bool {
        self.entry_count > 0 || !self.records.is_empty()
    }
}

/// How the new epoch begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// In the same segment, behind the clean close.
    Continue { newest: Newest, prev_end: LogEnd },
    /// In a segment of its own.
    NewSegment {
        prev_end: LogEnd,
        gap: Option<Gap>,
        /// A segment without a group, to be taken over.
        takes_over: Option<Newest>,
        /// The header must be durable before anybody is answered.
        at_once: bool,
    },
}

/// Decides by the table of the module's page. Also returns the LSN of the next entry.
pub(crate) fn plan(recovered: &Recovered) -> (Plan, Lsn) {
    let replay = &recovered.replay;
    let Some(newest) = &replay.newest else {
        let plan = Plan::NewSegment { prev_end: replay.end, gap: None, takes_over: None, at_once: false };
        return (plan, replay.next_lsn);
    };
    if replay.tail == Tail::Clean && newest.has_groups && recovered.unproven.is_empty() {
        return (Plan::Continue { newest: newest.clone(), prev_end: replay.end }, replay.next_lsn);
    }
    let new_gap = replay.normal_at_end.then(|| Gap {
        first: replay.next_lsn,
        last: Lsn(replay.next_lsn.0 + AT_RISK_ENTRIES_MAX - 1),
        cause: GapCause::UncleanNormal,
    });
    let next_lsn = new_gap.map_or(replay.next_lsn, |gap| gap.last.next());
    if !newest.has_groups {
        let gap = newest.gap.or(new_gap);
        let plan = Plan::NewSegment {
            prev_end: newest.prev_end,
            gap,
            takes_over: Some(newest.clone()),
            // Also one that is carried: the header that carries it may be seen and not durable.
            at_once: gap.is_some(),
        };
        return (plan, next_lsn);
    }
    let prev_end = recovered.unproven.first().map_or(replay.end, |kept| kept.end_before);
    let at_once = new_gap.is_some() || recovered.unproven.iter().any(Unproven::has_content);
    (Plan::NewSegment { prev_end, gap: new_gap, takes_over: None, at_once }, next_lsn)
}
