//! The decision table of [`super::replay`] and the plans of [`super::recovery`], on logs built by hand.
//!
//! Each test states what a reader would get wrong without the rule it guards.

mod recovery;
mod replay;

use crate::error::{Damage, Error};
use crate::format::entry::{self, Entry};
use crate::format::group::HEADER_BYTES;
use crate::format::manifest::Manifest;
use crate::format::record::{LogEnd, Record};
use crate::format::segment::{SegmentHeader, WrittenBy};
use crate::format::{BLOCK_BYTES, ClockStep, FlushMode, Gap, Lsn, StoreId};
use crate::io::{AlignedBuf, FileId};
use crate::sim::SimDisk;
use crate::wal::files::WalFiles;
use crate::wal::replay::{Extent, Replay, replay};
use crate::wal::writer::{Active, Draft, seal};

pub(crate) const STORE: StoreId = StoreId([7; 16]);
const SEGMENT_BYTES: u64 = 64 << 10;

/// A segment under construction.
pub(crate) struct Segment {
    pub(crate) active: Active,
    pub(crate) bytes: Vec<u8>,
    next: Lsn,
    /// The last one.
    clock_step: Option<ClockStep>,
    /// Of the next group.
    records: Vec<Record>,
}

/// What a group says besides its entries.
#[derive(Clone, Copy)]
pub(crate) struct Says {
    pub(crate) durable: u64,
    pub(crate) mode: FlushMode,
    pub(crate) clean_close: bool,
}

const CAUTIOUS: FlushMode = FlushMode::Cautious;

pub(crate) fn durable(durable: u64) -> Says {
    Says { durable, mode: CAUTIOUS, clean_close: false }
}

pub(crate) fn marker(durable: u64) -> Says {
    Says { clean_close: true, ..self::durable(durable) }
}

impl Segment {
    /// A segment with its header; `salt` is 1000 times its epoch plus its number.
    pub(crate) fn new(segment: u64, epoch: u64, prev_end: LogEnd, durable: u64, gap: Option<Gap>) -> Segment {
        let salt = 1000 * epoch + segment;
        let header = SegmentHeader {
            store: STORE,
            segment,
            epoch,
            first_lsn: prev_end.last_lsn.next(),
            salt,
            manifest_generation: 1,
            segment_bytes: SEGMENT_BYTES,
            durable_lsn: Lsn(durable),
            prev_end,
            gap,
            spare: false,
            flush_mode: CAUTIOUS,
            written_by: WrittenBy::default(),
        };
        let mut bytes = vec![0; SEGMENT_BYTES as usize];
        header.encode(&mut bytes);
        let active = Active {
            file: FileId(0),
            path: super::path(segment),
            segment,
            salt,
            epoch,
            offset: BLOCK_BYTES as u64,
            segment_bytes: SEGMENT_BYTES,
            epoch_start: None,
        };
        let next = gap.map_or(header.first_lsn, |gap| gap.last.next());
        Segment { active, bytes, next, clock_step: None, records: Vec::new() }
    }

    /// Sets the clock to `to_ns` at `lsn`, in the next group.
    pub(crate) fn step_clock(&mut self, lsn: u64, to_ns: u64) {
        let step = ClockStep { lsn: Lsn(lsn), from_ns: self.timestamp_ns(Lsn(lsn)), to_ns };
        self.clock_step = Some(step);
        self.records.push(Record::ClockStep(step));
    }

    /// Entry n is of 1000 + n, or so far behind the last step.
    fn timestamp_ns(&self, lsn: Lsn) -> u64 {
        match self.clock_step.filter(|step| step.lsn <= lsn) {
            Some(step) => step.to_ns + (lsn.0 - step.lsn.0),
            None => 1000 + lsn.0,
        }
    }

    /// Adds a group of `count` entries; returns its offset.
    pub(crate) fn group(&mut self, count: u64, says: Says) -> u64 {
        let mut staged = Vec::new();
        for index in 0..count {
            let lsn = Lsn(self.next.0 + index);
            let payload = format!("entry {lsn}");
            let entry = Entry { lsn, timestamp_ns: self.timestamp_ns(lsn), source: 0, payload: payload.as_bytes() };
            let at = staged.len();
            staged.resize(at + entry.encoded_bytes(), 0);
            entry::stage(&mut staged[at..], &entry, crc32fast::hash(payload.as_bytes()));
        }
        let records = std::mem::take(&mut self.records);
        let records_bytes: usize = records.iter().map(Record::encoded_bytes).sum();
        let mut buf = AlignedBuf::zeroed(HEADER_BYTES + staged.len() + records_bytes);
        buf[HEADER_BYTES..][..staged.len()].copy_from_slice(&staged);
        let draft = Draft {
            first_lsn: self.next,
            entry_count: count as u32,
            entries_bytes: staged.len(),
            records: &records,
            flush_mode: says.mode,
            durable_lsn: Lsn(says.durable),
            clean_close: says.clean_close,
        };
        let offset = self.active.offset;
        let len = seal(&mut buf, STORE, &mut self.active, &draft);
        self.bytes[offset as usize..][..len].copy_from_slice(&buf[..len]);
        self.next = Lsn(self.next.0 + count);
        offset
    }

    /// The end of the log here.
    pub(crate) fn end(&self) -> LogEnd {
        LogEnd {
            segment: self.active.segment,
            salt: self.active.salt,
            offset: self.active.offset,
            last_lsn: self.next.prev(),
        }
    }

    /// Begins another epoch behind `prev_end`, which lies in this segment.
    pub(crate) fn begin_epoch(&mut self, prev_end: LogEnd) {
        let prev_epoch = self.active.epoch;
        self.active.epoch += 1;
        self.active.salt = 1000 * self.active.epoch + self.active.segment;
        self.active.epoch_start = Some(Record::EpochStart { prev_end, prev_epoch });
    }

    /// Damages the group at `offset`, beyond its header's first bytes.
    pub(crate) fn damage(&mut self, offset: u64) {
        self.bytes[offset as usize + 20] ^= 0xFF;
    }

    pub(crate) fn path(&self) -> &str {
        &self.active.path
    }

    fn save(&self, disk: &SimDisk) {
        disk.write_file(&self.active.path, &self.bytes);
    }
}

pub(crate) fn disk_of(segments: &[&Segment]) -> SimDisk {
    let disk = SimDisk::new(1);
    segments.iter().for_each(|segment| segment.save(&disk));
    disk
}

/// Replays all of it; returns the LSNs of the entries with what replay found.
fn replayed(disk: &SimDisk, manifest: &Manifest) -> Result<(Vec<u64>, Replay), Error> {
    replayed_by(disk, manifest, Extent::Whole)
}

/// As [`replayed`], reading no more than this.
fn replayed_by(disk: &SimDisk, manifest: &Manifest, extent: Extent) -> Result<(Vec<u64>, Replay), Error> {
    let files = WalFiles::scan(&*disk.vfs(), STORE, manifest.first_segment)?;
    let mut lsns = Vec::new();
    let replay = replay(&files, manifest, extent, &mut |seen| {
        for entry in seen.group.entries() {
            assert_eq!(entry.payload, format!("entry {}", entry.lsn).as_bytes());
            lsns.push(entry.lsn.0);
        }
        Ok(())
    })?;
    Ok((lsns, replay))
}

fn replay_of(segments: &[&Segment]) -> (Vec<u64>, Replay) {
    replayed(&disk_of(segments), &Manifest::birth(STORE)).expect("the log is sound")
}

fn damage_of(segments: &[&Segment]) -> Damage {
    damage_on(&disk_of(segments), &Manifest::birth(STORE))
}

fn damage_on(disk: &SimDisk, manifest: &Manifest) -> Damage {
    match replayed(disk, manifest) {
        Err(Error::Corrupt(damage)) => *damage,
        other => panic!("expected damage, found {:?}", other.map(|(lsns, _)| lsns)),
    }
}

pub(crate) fn first_segment() -> Segment {
    Segment::new(1, 1, LogEnd::default(), 0, None)
}
