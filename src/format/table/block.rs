//! Data blocks and the entries in them, laid out as [`super`] says.

use crate::format::bytes::{Get, Put, crc32};
use crate::format::entry::Entry;
use crate::format::{ENTRY_PAYLOAD_BYTES_MAX, FormatError, Lsn, StoreId};

const BLOCK_MAGIC: [u8; 4] = *b"KBLK";
/// Bytes in front of a data block's stored data.
pub(crate) const BLOCK_HEADER_BYTES: usize = 56;
/// Bytes in front of an entry's payload.
pub(crate) const ENTRY_HEAD_BYTES: usize = 20;
/// Most bytes of entries in one data block that a decoder believes: the largest entry alone fits.
pub(crate) const BLOCK_RAW_BYTES_MAX: usize = ENTRY_PAYLOAD_BYTES_MAX + (64 << 10);

const _: () = assert!(ENTRY_HEAD_BYTES + ENTRY_PAYLOAD_BYTES_MAX <= BLOCK_RAW_BYTES_MAX);
const _: () = assert!(BLOCK_HEADER_BYTES + BLOCK_RAW_BYTES_MAX <= u32::MAX as usize);

/// How a block's entries are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Codec {
    /// Not at all; also where compression would not make a block smaller.
    None = 0,
    /// One raw LZ4 block.
    #[default]
    Lz4 = 1,
    /// One Zstandard frame (RFC 8878).
    Zstd = 2,
}

impl Codec {
    fn from_u8(value: u8) -> Result<Codec, FormatError> {
        match value {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Lz4),
            2 => Ok(Codec::Zstd),
            _ => Err(FormatError::Codec(value)),
        }
    }
}

/// What a run of entries covers; both ends of both ranges belong to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) entry_count: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
    pub(crate) min_timestamp_ns: u64,
    pub(crate) max_timestamp_ns: u64,
}

impl Span {
    /// Of one entry.
    pub(crate) fn of(entry: &Entry<'_>) -> Span {
        Span {
            entry_count: 1,
            first_lsn: entry.lsn,
            last_lsn: entry.lsn,
            min_timestamp_ns: entry.timestamp_ns,
            max_timestamp_ns: entry.timestamp_ns,
        }
    }

    /// Of this run and the one behind it. The counts of blocks cannot overflow: see [`Span::check`].
    pub(crate) fn join(self, next: Span) -> Span {
        Span {
            entry_count: self.entry_count + next.entry_count,
            first_lsn: self.first_lsn,
            last_lsn: next.last_lsn,
            min_timestamp_ns: self.min_timestamp_ns.min(next.min_timestamp_ns),
            max_timestamp_ns: self.max_timestamp_ns.max(next.max_timestamp_ns),
        }
    }

    pub(super) fn encode_ranges(&self, put: &mut Put<'_>) {
        put.u64(self.first_lsn.0).u64(self.last_lsn.0).u64(self.min_timestamp_ns).u64(self.max_timestamp_ns);
    }

    pub(super) fn decode_ranges(get: &mut Get<'_>, entry_count: u64) -> Result<Span, FormatError> {
        Ok(Span {
            entry_count,
            first_lsn: Lsn(get.u64()?),
            last_lsn: Lsn(get.u64()?),
            min_timestamp_ns: get.u64()?,
            max_timestamp_ns: get.u64()?,
        })
    }

    pub(super) fn check(&self) -> Result<(), FormatError> {
        if self.first_lsn == Lsn::ZERO || self.first_lsn > self.last_lsn {
            return Err(FormatError::Field("LSN range"));
        }
        if self.entry_count == 0 || self.entry_count - 1 > self.last_lsn.0 - self.first_lsn.0 {
            return Err(FormatError::Field("entry count"));
        }
        if self.min_timestamp_ns > self.max_timestamp_ns {
            return Err(FormatError::Field("time range"));
        }
        Ok(())
    }
}

/// Appends an entry to a block's raw bytes. Its LSN must be less than 2^32 above the block's first.
pub(crate) fn encode_entry(raw: &mut Vec<u8>, block_first: Lsn, entry: &Entry<'_>) {
    assert!(entry.payload.len() <= ENTRY_PAYLOAD_BYTES_MAX);
    let lsn_delta = u32::try_from(entry.lsn.0 - block_first.0).expect("the block's LSN range fits into 32 bits");
    let mut head = [0; ENTRY_HEAD_BYTES];
    Put::new(&mut head).u32(lsn_delta).u16(entry.source).u16(0).u64(entry.timestamp_ns).u32(entry.payload.len() as u32);
    raw.extend_from_slice(&head);
    raw.extend_from_slice(entry.payload);
}

/// Takes the entry at the front of `get`, a part of a block's raw bytes.
pub(crate) fn decode_entry<'a>(get: &mut Get<'a>, block_first: Lsn) -> Result<Entry<'a>, FormatError> {
    let lsn_delta = u64::from(get.u32()?);
    let lsn = Lsn(block_first.0.checked_add(lsn_delta).ok_or(FormatError::Field("entry LSN"))?);
    let source = get.u16()?;
    if get.u16()? != 0 {
        return Err(FormatError::Field("reserved"));
    }
    let timestamp_ns = get.u64()?;
    let payload_bytes = get.u32()? as usize;
    if payload_bytes > ENTRY_PAYLOAD_BYTES_MAX {
        return Err(FormatError::Field("payload length"));
    }
    Ok(Entry { lsn, timestamp_ns, source, payload: get.bytes(payload_bytes)? })
}

/// An entry of a block whose bytes are elsewhere: its fields, and where its payload lies in the raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryHead {
    lsn: Lsn,
    timestamp_ns: u64,
    payload_end: u32,
    payload_bytes: u32,
    source: u16,
}

impl EntryHead {
    /// The entry, out of the raw bytes that it was found in.
    pub(crate) fn entry<'a>(&self, raw: &'a [u8]) -> Entry<'a> {
        let EntryHead { lsn, timestamp_ns, payload_end, payload_bytes, source } = *self;
        let payload = &raw[(payload_end - payload_bytes) as usize..payload_end as usize];
        Entry { lsn, timestamp_ns, source, payload }
    }

    pub(crate) fn lsn(&self) -> Lsn {
        self.lsn
    }
}

/// Checks a block's raw bytes against what its header promises, and lists its entries.
pub(crate) fn scan_entries(raw: &[u8], promised: &Span, heads: &mut Vec<EntryHead>) -> Result<(), FormatError> {
    heads.clear();
    let mut get = Get(raw);
    let mut found: Option<Span> = None;
    while !get.0.is_empty() {
        let entry = decode_entry(&mut get, promised.first_lsn)?;
        heads.push(EntryHead {
            lsn: entry.lsn,
            timestamp_ns: entry.timestamp_ns,
            payload_end: (raw.len() - get.0.len()) as u32,
            payload_bytes: entry.payload.len() as u32,
            source: entry.source,
        });
        found = Some(match found {
            None => Span::of(&entry),
            Some(before) if before.last_lsn < entry.lsn => before.join(Span::of(&entry)),
            Some(_) => return Err(FormatError::Field("entry LSN")),
        });
    }
    if found != Some(*promised) {
        return Err(FormatError::Field("entry count, LSN range or time range of a block"));
    }
    Ok(())
}

/// The front of a data block; laid out as [`super`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockHeader {
    pub(crate) codec: Codec,
    pub(crate) raw_bytes: usize,
    pub(crate) span: Span,
}

impl BlockHeader {
    /// Bytes of the payloads alone.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.raw_bytes as u64 - self.span.entry_count * ENTRY_HEAD_BYTES as u64
    }

    /// Fills in the header of `block`, whose stored data is in place behind it; returns the CRC.
    pub(crate) fn seal(&self, block: &mut [u8], store: StoreId) -> u32 {
        let stored_bytes = block.len() - BLOCK_HEADER_BYTES;
        assert!(self.raw_bytes <= BLOCK_RAW_BYTES_MAX && stored_bytes <= self.raw_bytes);
        let mut put = Put::new(&mut block[..BLOCK_HEADER_BYTES]);
        put.bytes(&BLOCK_MAGIC)
            .u32(0)
            .u8(self.codec as u8)
            .bytes(&[0; 3])
            .u32(self.span.entry_count as u32)
            .u32(self.raw_bytes as u32)
            .u32(stored_bytes as u32);
        self.span.encode_ranges(&mut put);
        let crc = crc32(&[&store.0, &block[8..]]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Decodes the header of `block` and checks it and the stored data behind it, which must end with the slice.
    /// Yields the CRC, too.
    pub(crate) fn decode(block: &[u8], store: StoreId) -> Result<(BlockHeader, u32), FormatError> {
        let mut get = Get(block.get(..BLOCK_HEADER_BYTES).ok_or(FormatError::Truncated)?);
        if get.array::<4>()? != BLOCK_MAGIC {
            return Err(FormatError::Magic);
        }
        let crc = get.u32()?;
        if crc != crc32(&[&store.0, &block[8..]]) {
            return Err(FormatError::Checksum("data block"));
        }
        let codec = Codec::from_u8(get.u8()?)?;
        if get.array::<3>()? != [0; 3] {
            return Err(FormatError::Field("reserved"));
        }
        let entry_count = u64::from(get.u32()?);
        let (raw_bytes, stored_bytes) = (get.u32()? as usize, get.u32()? as usize);
        let span = Span::decode_ranges(&mut get, entry_count)?;
        span.check()?;
        if raw_bytes > BLOCK_RAW_BYTES_MAX || entry_count > (raw_bytes / ENTRY_HEAD_BYTES) as u64 {
            return Err(FormatError::Field("raw length"));
        }
        let plausible = match codec {
            Codec::None => stored_bytes == raw_bytes,
            Codec::Lz4 | Codec::Zstd => stored_bytes < raw_bytes,
        };
        if !plausible || stored_bytes != block.len() - BLOCK_HEADER_BYTES {
            return Err(FormatError::Field("stored length"));
        }
        Ok((BlockHeader { codec, raw_bytes, span }, crc))
    }
}
