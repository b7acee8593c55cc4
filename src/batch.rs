//! Entries to be handed over together.

use crate::error::{Error, Result};
use crate::format::bytes::crc32;
use crate::format::entry::{self, Entry, OVERHEAD_BYTES};
use crate::format::record::Record;
use crate::format::{ENTRY_PAYLOAD_BYTES_MAX, Lsn};

/// Entries to be handed over together: stored all or none, with consecutive LSNs, in one group.
///
/// ```
/// let mut batch = kifa::Batch::new();
/// batch.push(br#"{"txn":"TXN-001","amount":5000}"#)?;
/// batch.push(br#"{"txn":"TXN-002","amount":1250}"#)?;
/// assert_eq!(batch.len(), 2);
/// # Ok::<(), kifa::Error>(())
/// ```
#[derive(Clone, Default, Debug)]
pub struct Batch {
    /// Entries as they will lie in the group, but for LSNs, timestamps and seals.
    bytes: Vec<u8>,
    count: usize,
    records: Vec<Record>,
    /// Records whose value ends with the LSN of an entry: the places of both in the batch.
    lsn_records: Vec<(usize, usize)>,
}

impl Batch {
    /// Most bytes a batch may take, each entry counted with 36 bytes of overhead.
    pub const BYTES_MAX: usize = ENTRY_PAYLOAD_BYTES_MAX + 65_536;

    /// Most bytes its checkpoints may take: a group has room for them, a clock step and the start of an epoch.
    #[cfg(any(test, feature = "sim", feature = "cli"))]
    pub(crate) const RECORDS_BYTES_MAX: usize = 60 << 10;

    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds an entry.
    ///
    /// ```
    /// let mut batch = kifa::Batch::new();
    /// assert!(matches!(batch.push(&vec![b'x'; (1 << 20) + 1]), Err(kifa::Error::TooLarge { .. })));
    /// assert!(batch.is_empty());
    /// ```
    ///
    /// # Errors
    /// [`Error::TooLarge`] if its payload is over 1 MiB, or the batch would be larger than [`Batch::BYTES_MAX`]; the
    /// batch stays as it was.
    pub fn push(&mut self, payload: &[u8]) -> Result<()> {
        self.push_from(0, payload)
    }

    /// As [`Batch::push`], of a source that has a number.
    pub(crate) fn push_from(&mut self, source: u16, payload: &[u8]) -> Result<()> {
        if payload.len() > ENTRY_PAYLOAD_BYTES_MAX {
            return Err(Error::TooLarge { bytes: payload.len(), max: ENTRY_PAYLOAD_BYTES_MAX });
        }
        let at = self.bytes.len();
        let end = at + OVERHEAD_BYTES + payload.len();
        if end > Batch::BYTES_MAX {
            return Err(Error::TooLarge { bytes: end, max: Batch::BYTES_MAX });
        }
        let entry = Entry { lsn: Lsn::ZERO, timestamp_ns: 0, source, payload };
        self.bytes.resize(end, 0);
        entry::stage(&mut self.bytes[at..], &entry, crc32(&[payload]));
        self.count += 1;
        Ok(())
    }

    /// Whether an entry with a payload of this many bytes still fits.
    ///
    /// ```
    /// let batch = kifa::Batch::new();
    /// assert!(batch.fits(kifa::ENTRY_PAYLOAD_BYTES_MAX) && !batch.fits(kifa::ENTRY_PAYLOAD_BYTES_MAX + 1));
    /// ```
    pub fn fits(&self, payload_bytes: usize) -> bool {
        payload_bytes <= ENTRY_PAYLOAD_BYTES_MAX
            && self.bytes.len() + OVERHEAD_BYTES + payload_bytes <= Batch::BYTES_MAX
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes it takes of [`Batch::BYTES_MAX`].
    ///
    /// ```
    /// let mut batch = kifa::Batch::new();
    /// batch.push(b"TXN-001")?;
    /// assert_eq!((batch.bytes(), kifa::Batch::BYTES_MAX), (36 + 7, (1 << 20) + (64 << 10)));
    /// # Ok::<(), kifa::Error>(())
    /// ```
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Takes everything out, keeping the memory.
    ///
    /// ```
    /// let mut batch = kifa::Batch::new();
    /// batch.push(b"TXN-001")?;
    /// batch.clear();
    /// assert!(batch.is_empty());
    /// # Ok::<(), kifa::Error>(())
    /// ```
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.lsn_records.clear();
        self.count = 0;
    }

    /// What becomes durable together with the entries. Before the batch is staged, LSNs in it are zero.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The same, with the LSNs that the entries are given.
    pub(crate) fn staged_records(&self, first: Lsn) -> Vec<Record> {
        let mut records = self.records.clone();
        for &(at, entry) in &self.lsn_records {
            if let Record::Checkpoint { value, .. } = &mut records[at] {
                let lsn_at = value.len() - 8;
                value[lsn_at..].copy_from_slice(&(first.0 + entry as u64).to_le_bytes());
            }
        }
        records
    }

    /// Bytes of entries and records in a group.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.bytes.len() + self.records.iter().map(Record::encoded_bytes).sum::<usize>()
    }

    /// Lays the entries down in `out`, with consecutive LSNs and timestamps a nanosecond apart.
    pub(crate) fn stage(&self, out: &mut [u8], first: Lsn, timestamp_ns: u64) {
        out[..self.bytes.len()].copy_from_slice(&self.bytes);
        let mut at = 0;
        for index in 0..self.count as u64 {
            at += entry::restamp(&mut out[at..], Lsn(first.0 + index), timestamp_ns + index);
        }
    }

    /// Adds a checkpoint: its key's value becomes durable together with the entries. An empty value removes the key.
    /// Within a batch the last value of a key counts.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the batch's checkpoints would take more than [`Batch::RECORDS_BYTES_MAX`]; the batch stays
    /// as it was.
    #[cfg(any(test, feature = "sim", feature = "cli"))]
    pub(crate) fn checkpoint(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put_checkpoint(key, value).map(drop)
    }

    /// As [`Batch::checkpoint`]; the value is followed by the LSN (8 bytes, little-endian) of the batch's `entry`, which is
    /// known only when the batch is staged. The key must not be in the batch yet.
    #[cfg(all(feature = "cli", unix))]
    pub(crate) fn checkpoint_with_lsn(&mut self, key: &[u8], value: &[u8], entry: usize) -> Result<()> {
        assert!(entry < self.count, "the entry is in the batch");
        let records = self.records.len();
        let at = self.put_checkpoint(key, &[value, &[0; 8]].concat())?;
        assert_eq!(at, records, "a key with an LSN is given once");
        self.lsn_records.push((at, entry));
        Ok(())
    }

    #[cfg(any(test, feature = "sim", feature = "cli"))]
    fn put_checkpoint(&mut self, key: &[u8], value: &[u8]) -> Result<usize> {
        let record = Record::Checkpoint { key: key.to_vec(), value: value.to_vec() };
        let same = |held: &Record| matches!(held, Record::Checkpoint { key: held, .. } if held == key);
        let at = self.records.iter().position(same).unwrap_or(self.records.len());
        let others = self.records.iter().enumerate().filter(|&(index, _)| index != at);
        let bytes = record.encoded_bytes() + others.map(|(_, held)| held.encoded_bytes()).sum::<usize>();
        if bytes > Batch::RECORDS_BYTES_MAX {
            return Err(Error::TooLarge { bytes, max: Batch::RECORDS_BYTES_MAX });
        }
        match self.records.get_mut(at) {
            Some(held) => *held = record,
            None => self.records.push(record),
        }
        Ok(at)
    }
}

/// LSNs given to a batch; both ends belong to it.
///
/// ```
/// use kifa::{Lsn, LsnRange};
///
/// let LsnRange { first, last } = LsnRange { first: Lsn(7), last: Lsn(9) };
/// assert_eq!(last.0 - first.0 + 1, 3, "entries of the batch");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LsnRange {
    /// Of its first entry.
    pub first: Lsn,
    /// Of its last entry.
    pub last: Lsn,
}
