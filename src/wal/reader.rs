//! Reads groups from a segment file and checks each against the place it was found in.
//!
//! Memory is bounded by a window that grows to the largest group met. An I/O error is an error, never the end of the
//! log; a group that fails its checks is an answer.

use crate::error::{Error, Result};
use crate::format::entry::{self, Entry, Seed};
use crate::format::group::{self, GroupHeader};
use crate::format::record::Record;
use crate::format::{BLOCK_BYTES, FormatError, StoreId};
use crate::io::ReadAt;
use crate::planted::{Bug, planted};

/// Bytes read at once, unless one group needs more: few after a jump, twice as many each time while walking forward.
const WINDOW_BYTES_MIN: usize = BLOCK_BYTES;
const WINDOW_BYTES_MAX: usize = 256 << 10;

/// A file read through a window.
#[derive(Default)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    start: u64,
    /// Bytes that were read last.
    step: usize,
    /// Path of the file the window shows.
    path: String,
}

impl Window {
    /// Up to `len` bytes at `offset` (fewer only at the end of the file).
    pub(crate) fn get(&mut self, path: &str, file: &dyn ReadAt, offset: u64, len: usize) -> Result<&[u8]> {
        if self.find(path, offset).is_none_or(|skip| skip + len > self.bytes.len()) {
            self.fill(path, file, offset, len)?;
        }
        let skip = (offset - self.start) as usize;
        let end = self.bytes.len().min(skip + len);
        Ok(&self.bytes[skip..end])
    }

    /// How far into the window `offset` of the file lies.
    fn find(&self, path: &str, offset: u64) -> Option<usize> {
        let skip = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        (self.path == path && skip <= self.bytes.len()).then_some(skip)
    }

    /// Moves the window; what it showed already is not read again.
    fn fill(&mut self, path: &str, file: &dyn ReadAt, offset: u64, len: usize) -> Result<()> {
        self.step = match self.find(path, offset) {
            Some(skip) => {
                self.bytes.drain(..skip);
                (2 * self.step).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
            }
            None => {
                path.clone_into(&mut self.path);
                self.bytes.clear();
                WINDOW_BYTES_MIN
            }
        };
        let len = len.max(self.step);
        self.start = offset;
        let mut filled = self.bytes.len();
        self.bytes.resize(len, 0);
        while filled < len {
            match file.read_at(&mut self.bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(_) if planted(Bug::ReadErrorEndsLog) => break,
                Err(cause) => {
                    self.bytes.clear();
                    return Err(Error::io("read", path, cause));
                }
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }

    /// Forgets what was read: the file may have changed, or the read may have been wrong.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.path.clear();
    }
}

/// Where a group is looked for.
pub(crate) struct Place<'a> {
    pub(crate) store: StoreId,
    pub(crate) path: &'a str,
    pub(crate) file: &'a dyn ReadAt,
    pub(crate) file_bytes: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// A valid group, as it lies in the window. Of one that was passed by ([`Group::passed`]) only the header is there.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    pub(crate) header: GroupHeader,
    bytes: &'a [u8],
    /// Of its first entry, where it was passed by and that was looked at.
    begins_ns: u64,
}

impl<'a> Group<'a> {
    /// A group whose body is not read; its first entry is of `begins_ns`, or of any time: 0.
    pub(crate) fn passed(header: GroupHeader, begins_ns: u64) -> Group<'a> {
        Group { header, bytes: &[], begins_ns }
    }

    /// The entries, encoded; none where the group was passed by.
    pub(crate) fn entry_bytes(&self) -> &'a [u8] {
        let entries = group::HEADER_BYTES..group::HEADER_BYTES + self.header.entries_bytes as usize;
        self.bytes.get(entries).unwrap_or_default()
    }

    /// The entries, already checked; none where the group was passed by.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut rest = self.entry_bytes();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let entry = entry::decode_trusted(rest);
            rest = &rest[entry.encoded_bytes()..];
            Some(entry)
        })
    }

    /// Smallest and largest timestamp; bounds of them where the group was passed by.
    pub(crate) fn times_ns(&self) -> (u64, u64) {
        let each = self.entries().map(|entry| (entry.timestamp_ns, entry.timestamp_ns));
        each.reduce(|all, own| (all.0.min(own.0), all.1.max(own.1))).unwrap_or((self.begins_ns, u64::MAX))
    }

    /// The records, already checked.
    pub(crate) fn records(&self) -> Vec<Record> {
        if self.header.record_count == 0 {
            return Vec::new();
        }
        let start = group::HEADER_BYTES + self.header.entries_bytes as usize;
        decode_records(&self.header, &self.bytes[start..]).expect("the group was checked when it was read")
    }
}

/// Reads the header at `place`, if there is one that belongs there. Enough to believe what it says of other groups.
pub(crate) fn read_header(window: &mut Window, place: &Place<'_>) -> Result<Result<GroupHeader, FormatError>> {
    let bytes = window.get(place.path, place.file, place.offset, group::HEADER_BYTES)?;
    Ok(GroupHeader::decode(bytes, place.store).and_then(|header| {
        if header.segment == place.segment && header.offset == place.offset {
            Ok(header)
        } else {
            Err(FormatError::Field("place"))
        }
    }))
}

/// Reads and checks the whole group at `place`. Whether it continues the log is the caller's to compare.
pub(crate) fn read_group<'w>(window: &'w mut Window, place: &Place<'_>) -> Result<Result<Group<'w>, FormatError>> {
    match read_header(window, place)? {
        Ok(header) => read_body(window, place, header),
        Err(why) => Ok(Err(why)),
    }
}

/// Reads and checks the rest of the group whose header this is.
pub(crate) fn read_body<'w>(
    window: &'w mut Window,
    place: &Place<'_>,
    header: GroupHeader,
) -> Result<Result<Group<'w>, FormatError>> {
    let len = header.unpadded_bytes();
    if place.offset + len as u64 > place.file_bytes {
        return Ok(Err(FormatError::Truncated));
    }
    let bytes = window.get(place.path, place.file, place.offset, len)?;
    if bytes.len() < len {
        return Ok(Err(FormatError::Truncated));
    }
    Ok(check_body(&header, bytes).map(|()| Group { header, bytes, begins_ns: 0 }))
}

/// Timestamp of the first entry of the group whose header this is; `None` where the entry fails its checks.
pub(crate) fn read_first_timestamp(
    window: &mut Window,
    place: &Place<'_>,
    header: &GroupHeader,
) -> Result<Option<u64>> {
    let offset = header.offset + group::HEADER_BYTES as u64;
    let seed = Seed { salt: header.salt, offset };
    let head = window.get(place.path, place.file, offset, entry::HEADER_BYTES)?;
    let Some(payload_bytes) = entry::payload_bytes(head, seed) else { return Ok(None) };
    let bytes = window.get(place.path, place.file, offset, entry::OVERHEAD_BYTES + payload_bytes)?;
    let first = entry::decode(bytes, seed).ok().filter(|entry| entry.lsn == header.first_lsn);
    Ok(first.map(|entry| entry.timestamp_ns))
}

fn check_body(header: &GroupHeader, bytes: &[u8]) -> Result<(), FormatError> {
    let entries_end = group::HEADER_BYTES + header.entries_bytes as usize;
    let mut at = group::HEADER_BYTES;
    let mut lsn = header.first_lsn;
    for _ in 0..header.entry_count {
        let seed = Seed { salt: header.salt, offset: header.offset + at as u64 };
        let entry = entry::decode(&bytes[at..entries_end], seed)?;
        if entry.lsn != lsn {
            return Err(FormatError::Field("LSN"));
        }
        lsn = lsn.next();
        at += entry.encoded_bytes();
    }
    if at != entries_end {
        return Err(FormatError::Field("entries length"));
    }
    decode_records(header, &bytes[entries_end..]).map(drop)
}

fn decode_records(header: &GroupHeader, bytes: &[u8]) -> Result<Vec<Record>, FormatError> {
    let base = header.offset + (group::HEADER_BYTES + header.entries_bytes as usize) as u64;
    let mut records = Vec::new();
    let mut at = 0;
    for _ in 0..header.record_count {
        let seed = Seed { salt: header.salt, offset: base + at as u64 };
        let rest = bytes.get(at..).ok_or(FormatError::Truncated)?;
        let (record, len) = Record::decode(rest, seed)?;
        records.push(record);
        at += len;
    }
    if at != header.records_bytes as usize {
        return Err(FormatError::Field("records length"));
    }
    Ok(records)
}

/// Headers of valid groups from `place` to the end of the file, block by block; `found` ends the search by returning
/// true. At most `limit` bytes are read.
pub(crate) fn search_headers(
    window: &mut Window,
    place: &Place<'_>,
    limit: u64,
    mut found: impl FnMut(&GroupHeader) -> bool,
) -> Result<bool> {
    let end = place.file_bytes.min(place.offset.saturating_add(limit));
    let mut offset = place.offset;
    while offset < end {
        let bytes = window.get(place.path, place.file, offset, group::HEADER_BYTES)?;
        if let Ok(header) = GroupHeader::decode(bytes, place.store)
            && header.offset == offset
            && found(&header)
        {
            return Ok(true);
        }
        offset += BLOCK_BYTES as u64;
    }
    Ok(false)
}
