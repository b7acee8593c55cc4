//! One entry inside a group.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | payload length | at most [`ENTRY_PAYLOAD_BYTES_MAX`] |
//! | 4 | 4 | header CRC | over seed and payload length |
//! | 8 | 8 | LSN | 1 to [`NUMBER_MAX`](super::NUMBER_MAX); the predecessor's plus one |
//! | 16 | 8 | timestamp | nanoseconds since the Unix epoch |
//! | 24 | 2 | source number | |
//! | 26 | 2 | reserved | 0 |
//! | 28 | 4 | data CRC | over seed, LSN, timestamp, source, reserved, payload length, and the payload's own CRC-32 |
//! | 32 | n | payload | the producer's bytes |
//! | 32+n | 4 | trailer | `KEND` |
//!
//! The **seed** is the run's salt (8 bytes) followed by the entry's offset in the segment file (8 bytes): an entry is
//! valid in one place of one use of one file only.
//!
//! An entry is valid if and only if header CRC, ceiling, data CRC, fields and trailer all hold; that the LSN follows its
//! predecessor's is for the reader of the group to compare. The length is believed only after the header CRC. The data CRC takes the payload by its CRC so that producers can checksum payloads in
//! parallel, before the salt and the offset are known: any damage to the payload changes the inner CRC with the
//! strength of CRC-32, and any change of the inner CRC changes the outer one.
//!
//! An entry is written in two steps: [`stage`] lays it down with the payload's CRC in the place of the data CRC and a
//! header CRC of 0, and [`seal`] binds it to its position once that is known. It is sealed once: to be written again
//! in another place, it is taken back by [`unseal`] first.

use super::bytes::{Get, Put, check_number, crc32};
use super::{ENTRY_PAYLOAD_BYTES_MAX, FormatError, Lsn};

const TRAILER: [u8; 4] = *b"KEND";
/// Bytes in front of the payload.
pub(crate) const HEADER_BYTES: usize = 32;
/// Bytes an entry takes beyond its payload.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + TRAILER.len();

/// An entry as it lies in a buffer; the payload is borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) timestamp_ns: u64,
    pub(crate) source: u16,
    pub(crate) payload: &'a [u8],
}

impl Entry<'_> {
    /// Bytes this entry takes inside a group.
    pub(crate) fn encoded_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.payload.len()
    }
}

/// What a checksum is bound to: the run's salt and the offset in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seed {
    pub(crate) salt: u64,
    pub(crate) offset: u64,
}

impl Seed {
    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        Put::new(&mut out).u64(self.salt).u64(self.offset);
        out
    }
}

/// Lays an entry down at the start of `out`, not yet bound to a position; returns the bytes used.
///
/// `payload_crc` is the CRC-32 of the payload alone. `out` must hold [`Entry::encoded_bytes`].
pub(crate) fn stage(out: &mut [u8], entry: &Entry<'_>, payload_crc: u32) -> usize {
    assert!(entry.payload.len() <= ENTRY_PAYLOAD_BYTES_MAX);
    let mut put = Put::new(out);
    put.u32(entry.payload.len() as u32)
        .u32(0)
        .u64(entry.lsn.0)
        .u64(entry.timestamp_ns)
        .u16(entry.source)
        .u16(0)
        .u32(payload_crc)
        .bytes(entry.payload)
        .bytes(&TRAILER);
    put.len()
}

/// Gives the staged entry at the start of `bytes` its LSN and timestamp; returns its length in bytes.
pub(crate) fn restamp(bytes: &mut [u8], lsn: Lsn, timestamp_ns: u64) -> usize {
    bytes[8..16].copy_from_slice(&lsn.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&timestamp_ns.to_le_bytes());
    staged_bytes(bytes)
}

/// Bytes of the staged entry at the start of `bytes`, which must hold [`OVERHEAD_BYTES`] of it.
pub(crate) fn staged_bytes(bytes: &[u8]) -> usize {
    OVERHEAD_BYTES + u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

/// The header CRC of the entry at the start of `bytes`.
fn header_crc(bytes: &[u8], seed: Seed) -> u32 {
    let mut covered = [0; 20];
    covered[..16].copy_from_slice(&seed.bytes());
    covered[16..].copy_from_slice(&bytes[0..4]);
    crc32(&[&covered])
}

/// Its data CRC. It is taken of one piece, like the other: of several short ones it takes twice the time.
fn data_crc(bytes: &[u8], seed: Seed, payload_crc: u32) -> u32 {
    let mut covered = [0; 44];
    covered[..16].copy_from_slice(&seed.bytes());
    covered[16..36].copy_from_slice(&bytes[8..28]);
    covered[36..40].copy_from_slice(&bytes[0..4]);
    covered[40..].copy_from_slice(&payload_crc.to_le_bytes());
    crc32(&[&covered])
}

/// Binds the staged entry at the start of `bytes` to its position; returns its length in bytes.
///
/// # Panics
/// If it is sealed already: its data CRC would be taken for its payload's, and no reader would accept it any more. (One
/// sealed entry in four thousand million has a header CRC of 0 and goes unnoticed.)
pub(crate) fn seal(bytes: &mut [u8], seed: Seed) -> usize {
    assert_eq!(bytes[4..8], [0; 4], "an entry is sealed once");
    let payload_crc = u32::from_le_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]);
    let (header_crc, data_crc) = (header_crc(bytes, seed), data_crc(bytes, seed, payload_crc));
    bytes[4..8].copy_from_slice(&header_crc.to_le_bytes());
    bytes[28..32].copy_from_slice(&data_crc.to_le_bytes());
    staged_bytes(bytes)
}

/// Makes the sealed entry at the start of `bytes` a staged one again, so that it can be sealed in another place; returns
/// its length in bytes. Its payload is believed: only for entries that [`decode`] has accepted.
pub(crate) fn unseal(bytes: &mut [u8]) -> usize {
    let entry = decode_trusted(bytes);
    let (len, payload_crc) = (entry.encoded_bytes(), crc32(&[entry.payload]));
    bytes[4..8].fill(0);
    bytes[28..32].copy_from_slice(&payload_crc.to_le_bytes());
    len
}

/// Reads an entry that this process staged itself, before or after it was sealed, without checking it again.
pub(crate) fn decode_trusted(bytes: &[u8]) -> Entry<'_> {
    let mut get = Get(bytes);
    let mut read = || -> Result<Entry<'_>, FormatError> {
        let payload_bytes = get.u32()? as usize;
        get.u32()?;
        let (lsn, timestamp_ns, source) = (Lsn(get.u64()?), get.u64()?, get.u16()?);
        get.u16()?;
        get.u32()?;
        Ok(Entry { lsn, timestamp_ns, source, payload: get.bytes(payload_bytes)? })
    };
    read().expect("an entry that this process staged is whole")
}

/// The payload length of the entry at the start of `bytes`, if its header's checksum holds there.
pub(crate) fn payload_bytes(bytes: &[u8], seed: Seed) -> Option<usize> {
    let mut get = Get(bytes);
    let payload_bytes = get.u32().ok()? as usize;
    // Looked at first: of random bytes hardly any pass, so that searching byte by byte stays cheap.
    let is_plausible = payload_bytes <= ENTRY_PAYLOAD_BYTES_MAX;
    (is_plausible && get.u32().ok()? == header_crc(bytes, seed)).then_some(payload_bytes)
}

/// Decodes and checks the entry at the start of `bytes`.
pub(crate) fn decode(bytes: &[u8], seed: Seed) -> Result<Entry<'_>, FormatError> {
    let mut get = Get(bytes);
    let payload_bytes = get.u32()? as usize;
    if get.u32()? != header_crc(bytes, seed) {
        return Err(FormatError::Checksum("entry header"));
    }
    if payload_bytes > ENTRY_PAYLOAD_BYTES_MAX {
        return Err(FormatError::Field("payload length"));
    }
    let (lsn, timestamp_ns, source) = (Lsn(get.u64()?), get.u64()?, get.u16()?);
    let reserved = get.u16()?;
    let found_crc = get.u32()?;
    let payload = get.bytes(payload_bytes)?;
    let trailer = get.array::<4>()?;
    if found_crc != data_crc(bytes, seed, crc32(&[payload])) {
        return Err(FormatError::Checksum("entry data"));
    }
    if reserved != 0 {
        return Err(FormatError::Field("reserved"));
    }
    if trailer != TRAILER {
        return Err(FormatError::Field("trailer"));
    }
    check_number(lsn.0, 1, "LSN")?;
    Ok(Entry { lsn, timestamp_ns, source, payload })
}
