//! The write-ahead log and the manifest.

use super::{Bytes, STORE, get_u32, get_u64, put_u32};
use crate::format::bytes::crc32;
use crate::format::entry::{self, Seed};
use crate::format::group::{self, GroupHeader};
use crate::format::manifest::Manifest;
use crate::format::record::{self, Record};
use crate::format::segment::{self, SegmentHeader};
use crate::format::{BLOCK_BYTES, block_ceil};
use crate::wal::reader::{Place, Window, read_group, search_headers};

/// Where single entries and records lie.
pub(super) const SEED: Seed = Seed { salt: 0x6B69_6661, offset: (BLOCK_BYTES + group::HEADER_BYTES) as u64 };

/// An entry of a group.
pub fn entry(data: &[u8]) {
    check_entry(data);
    let mut sealed = data.to_vec();
    seal_entry(&mut sealed, SEED);
    check_entry(&sealed);
}

/// Makes the checksums of the entry at the start of `bytes` fit; returns the bytes that it claims, as far as they are
/// there.
fn seal_entry(bytes: &mut [u8], seed: Seed) -> usize {
    if bytes.len() < entry::HEADER_BYTES {
        return bytes.len();
    }
    let seed = seed.bytes();
    let header_crc = crc32(&[&seed, &bytes[0..4]]);
    put_u32(bytes, 4, header_crc);
    let payload_bytes = get_u32(bytes, 0) as usize;
    if let Some(payload) = bytes[entry::HEADER_BYTES..].get(..payload_bytes) {
        let payload_crc = crc32(&[payload]).to_le_bytes();
        let data_crc = crc32(&[&seed, &bytes[8..28], &bytes[0..4], &payload_crc]);
        put_u32(bytes, 28, data_crc);
    }
    bytes.len().min(entry::OVERHEAD_BYTES.saturating_add(payload_bytes))
}

fn check_entry(bytes: &[u8]) {
    let Ok(found) = entry::decode(bytes, SEED) else { return };
    let len = found.encoded_bytes();
    let mut again = vec![0; len];
    assert_eq!(entry::stage(&mut again, &found, crc32(&[found.payload])), len);
    for _ in 0..2 {
        assert_eq!(entry::seal(&mut again, SEED), len);
        assert_eq!(again, bytes[..len]);
        assert_eq!(entry::decode_trusted(&again), found);
        assert_eq!(entry::unseal(&mut again), len);
    }
}

/// A group of a segment, at the start of the second block.
pub fn group(data: &[u8]) {
    let mut file = vec![0; BLOCK_BYTES];
    file.extend_from_slice(data);
    check_group(&file);
    seal_group(&mut file[BLOCK_BYTES..]);
    check_group(&file);
}

/// Puts the group into its place and makes all its checksums fit.
fn seal_group(bytes: &mut [u8]) {
    if bytes.len() < group::HEADER_BYTES {
        return;
    }
    bytes[16..24].copy_from_slice(&1_u64.to_le_bytes());
    bytes[24..32].copy_from_slice(&(BLOCK_BYTES as u64).to_le_bytes());
    let crc = crc32(&[&STORE.0, &bytes[8..group::HEADER_BYTES]]);
    put_u32(bytes, 4, crc);
    let salt = get_u64(bytes, 8);
    let counts = [get_u32(bytes, 56), get_u32(bytes, 60)];
    let mut at = group::HEADER_BYTES;
    for (count, seal) in counts.into_iter().zip([seal_entry, seal_record]) {
        for _ in 0..count {
            if at == bytes.len() {
                return;
            }
            at += seal(&mut bytes[at..], Seed { salt, offset: (BLOCK_BYTES + at) as u64 });
        }
    }
}

fn check_group(file: &[u8]) {
    let reader = Bytes(file.to_vec());
    let offset = BLOCK_BYTES as u64;
    let place = Place { store: STORE, path: "", file: &reader, file_bytes: file.len() as u64, segment: 1, offset };
    let mut window = Window::default();
    let mut headers = 0;
    let _ = search_headers(&mut window, &place, u64::MAX, |_| {
        headers += 1;
        false
    })
    .expect("memory can be read");
    assert!(headers <= file.len() / BLOCK_BYTES);
    let Ok(found) = read_group(&mut window, &place).expect("memory can be read") else { return };
    let header: GroupHeader = found.header;
    let bytes = &file[BLOCK_BYTES..][..header.unpadded_bytes()];
    let mut again = vec![0; bytes.len()];
    header.encode(STORE, &mut again);
    let mut at = group::HEADER_BYTES;
    let mut lsn = header.first_lsn;
    for entry in found.entries() {
        assert_eq!(entry.lsn, lsn);
        lsn = lsn.next();
        let len = entry::stage(&mut again[at..], &entry, crc32(&[entry.payload]));
        entry::seal(&mut again[at..], Seed { salt: header.salt, offset: offset + at as u64 });
        at += len;
    }
    assert_eq!(lsn.prev(), header.last_lsn());
    assert_eq!(found.entry_bytes(), &again[group::HEADER_BYTES..at]);
    for record in found.records() {
        at += record.encode(&mut again[at..], Seed { salt: header.salt, offset: offset + at as u64 });
    }
    assert_eq!(again, bytes);
}

/// A record of a group: an epoch start, a checkpoint, a clock step.
pub fn record(data: &[u8]) {
    check_record(data);
    let mut sealed = data.to_vec();
    seal_record(&mut sealed, SEED);
    check_record(&sealed);
}

/// As [`seal_entry`].
fn seal_record(bytes: &mut [u8], seed: Seed) -> usize {
    if bytes.len() < record::HEADER_BYTES {
        return bytes.len();
    }
    let body_bytes = get_u32(bytes, 4) as usize;
    if let Some(body) = bytes[record::HEADER_BYTES..].get(..body_bytes) {
        let crc = crc32(&[&seed.bytes(), &bytes[..8], body]);
        put_u32(bytes, 8, crc);
    }
    bytes.len().min(record::HEADER_BYTES.saturating_add(body_bytes))
}

fn check_record(bytes: &[u8]) {
    let Ok((found, len)) = Record::decode(bytes, SEED) else { return };
    assert_eq!(found.encoded_bytes(), len);
    let mut again = vec![0; len];
    assert_eq!(found.encode(&mut again, SEED), len);
    assert_eq!(again, bytes[..len]);
}

/// The header of a segment.
pub fn segment(data: &[u8]) {
    check_segment(data);
    let mut sealed = data.to_vec();
    sealed.resize(segment::HEADER_BYTES, 0);
    let crc = crc32(&[&sealed[..12], &sealed[16..]]);
    put_u32(&mut sealed, 12, crc);
    check_segment(&sealed);
}

fn check_segment(bytes: &[u8]) {
    let Ok(found) = SegmentHeader::decode(bytes) else { return };
    let mut again = vec![0; segment::HEADER_BYTES];
    found.encode(&mut again);
    assert_eq!(again, bytes[..segment::HEADER_BYTES]);
}

/// The manifest, filled up with zeros to whole blocks.
pub fn manifest(data: &[u8]) {
    check_manifest(data);
    let mut sealed = data.to_vec();
    sealed.resize(block_ceil(data.len().max(1) as u64) as usize, 0);
    let used = usize::try_from(get_u64(&sealed, 40)).ok().and_then(|body| body.checked_add(64));
    if let Some(used) = used.filter(|&used| used <= sealed.len()) {
        let crc = crc32(&[&sealed[..12], &sealed[16..used]]);
        put_u32(&mut sealed, 12, crc);
    }
    check_manifest(&sealed);
}

fn check_manifest(bytes: &[u8]) {
    let Ok(found) = Manifest::decode(bytes) else { return };
    let again = found.encode();
    assert_eq!(again, bytes[..again.len()]);
}
