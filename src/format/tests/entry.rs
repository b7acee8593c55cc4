use proptest::collection::vec;
use proptest::prelude::*;

use super::{Codec, assert_golden, config, crc32, put_u16, put_u32, put_u64};
use crate::format::entry::{Entry, OVERHEAD_BYTES, Seed, decode, decode_trusted, seal, stage, unseal};
use crate::format::{ENTRY_PAYLOAD_BYTES_MAX, FormatError, Lsn, NUMBER_MAX};

const PLACE: Seed = Seed { salt: 0x1122_3344_5566_7788, offset: 4176 };
const SAMPLE: Entry<'static> =
    Entry { lsn: Lsn(0x0102_0304_0506_0708), timestamp_ns: 0x1112_1314_1516_1718, source: 0x2122, payload: b"kifa!" };

fn staged(entry: &Entry<'_>) -> Vec<u8> {
    let mut out = vec![0xEE; entry.encoded_bytes()];
    assert_eq!(stage(&mut out, entry, crc32(&[entry.payload])), out.len());
    out
}

fn encode(entry: &Entry<'_>, place: Seed) -> Vec<u8> {
    let mut out = staged(entry);
    assert_eq!(seal(&mut out, place), out.len());
    out
}

fn again(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    decode(bytes, PLACE).map(|entry| encode(&entry, PLACE))
}

fn reseal(bytes: &mut [u8]) {
    let seed = [PLACE.salt.to_le_bytes(), PLACE.offset.to_le_bytes()].concat();
    let Some((length, _)) = bytes.split_first_chunk::<4>() else { return };
    let length = *length;
    if bytes.len() < 32 {
        return;
    }
    put_u32(bytes, 4, crc32(&[&seed, &length]));
    let Some(payload) = bytes[32..].get(..u32::from_le_bytes(length) as usize) else { return };
    let payload_crc = crc32(&[payload]).to_le_bytes();
    let data_crc = crc32(&[&seed, &bytes[8..28], &length, &payload_crc]);
    put_u32(bytes, 28, data_crc);
}

const CODEC: Codec<'static> = Codec { again: &again, reseal: &reseal };

#[test]
fn golden_bytes() {
    let golden = assert_golden(
        &encode(&SAMPLE, PLACE),
        &[
            ("payload length", &[5, 0, 0, 0]),
            ("header CRC", &[0xB4, 0x9F, 0x5C, 0x5B]),
            ("LSN", &[0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01]),
            ("timestamp", &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]),
            ("source number", &[0x22, 0x21]),
            ("reserved", &[0, 0]),
            ("data CRC", &[0x17, 0x85, 0x43, 0x9E]),
            ("payload", b"kifa!"),
            ("trailer", b"KEND"),
        ],
    );
    assert_eq!(decode(&golden, PLACE), Ok(SAMPLE));
}

#[test]
fn staged_golden_bytes_carry_the_payload_crc_until_they_are_sealed() {
    assert_golden(
        &staged(&SAMPLE),
        &[
            ("payload length", &[5, 0, 0, 0]),
            ("header CRC", &[0; 4]),
            ("LSN", &[0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01]),
            ("timestamp", &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]),
            ("source number", &[0x22, 0x21]),
            ("reserved", &[0, 0]),
            ("payload CRC", &[0xE2, 0xF4, 0x3B, 0x12]),
            ("payload", b"kifa!"),
            ("trailer", b"KEND"),
        ],
    );
    assert_eq!(decode(&staged(&SAMPLE), PLACE), Err(FormatError::Checksum("entry header")));
}

#[test]
fn every_truncation_and_every_flip_is_refused() {
    // Every bit of LSN but the top one, of timestamp, source and payload makes another good entry.
    let bytes = encode(&SAMPLE, PLACE);
    CODEC.prove(&bytes, bytes.len(), 63 + 64 + 16 + 5 * 8);
    let empty = encode(&Entry { payload: b"", ..SAMPLE }, PLACE);
    CODEC.prove(&empty, empty.len(), 63 + 64 + 16);
}

#[test]
fn fields_out_of_range_are_refused_behind_a_good_checksum() {
    let bytes = encode(&SAMPLE, PLACE);
    CODEC.refuses(
        &bytes,
        &[
            ("payload length", &|bytes| put_u32(bytes, 0, ENTRY_PAYLOAD_BYTES_MAX as u32 + 1)),
            ("payload length", &|bytes| put_u32(bytes, 0, u32::MAX)),
            ("LSN", &|bytes| put_u64(bytes, 8, 0)),
            ("LSN", &|bytes| put_u64(bytes, 8, NUMBER_MAX + 1)),
            ("LSN", &|bytes| put_u64(bytes, 8, u64::MAX)),
            ("reserved", &|bytes| put_u16(bytes, 26, 1)),
            ("reserved", &|bytes| put_u16(bytes, 26, 0x8000)),
            ("trailer", &|bytes| bytes[37..].copy_from_slice(b"KENE")),
            ("trailer", &|bytes| bytes[37..].fill(0)),
        ],
    );
    CODEC.accepts(
        &bytes,
        &[
            &|bytes| put_u64(bytes, 8, 1),
            &|bytes| put_u64(bytes, 8, NUMBER_MAX),
            &|bytes| put_u64(bytes, 16, u64::MAX),
            &|bytes| put_u16(bytes, 24, u16::MAX),
        ],
    );
}

#[test]
fn a_length_is_believed_only_after_its_checksum() {
    let mut bytes = encode(&SAMPLE, PLACE);
    for length in [0, 4, 6, ENTRY_PAYLOAD_BYTES_MAX as u32 + 1, u32::MAX] {
        put_u32(&mut bytes, 0, length);
        assert_eq!(decode(&bytes, PLACE), Err(FormatError::Checksum("entry header")), "{length}");
    }
}

#[test]
fn an_entry_is_valid_in_its_own_place_only() {
    let bytes = encode(&SAMPLE, PLACE);
    for bit in 0..64 {
        let moved = Seed { offset: PLACE.offset ^ 1 << bit, ..PLACE };
        assert_eq!(decode(&bytes, moved), Err(FormatError::Checksum("entry header")), "offset bit {bit}");
        let reused = Seed { salt: PLACE.salt ^ 1 << bit, ..PLACE };
        assert_eq!(decode(&bytes, reused), Err(FormatError::Checksum("entry header")), "salt bit {bit}");
    }
    for blocks in 1..4096 {
        let moved = Seed { offset: PLACE.offset + 4096 * blocks, ..PLACE };
        assert!(decode(&bytes, moved).is_err(), "{blocks} blocks further");
    }
}

/// The data checksum is bound to the place by itself: a header from here before data from elsewhere is refused.
#[test]
fn the_data_checksum_is_bound_to_the_place_too() {
    let elsewhere = encode(&SAMPLE, Seed { offset: PLACE.offset + 4096, ..PLACE });
    let mut bytes = encode(&SAMPLE, PLACE);
    bytes[8..].copy_from_slice(&elsewhere[8..]);
    assert_eq!(decode(&bytes, PLACE), Err(FormatError::Checksum("entry data")));
}

/// Recovery writes entries anew that it has read: sealing them as they are would make them unreadable.
#[test]
fn a_sealed_entry_is_unsealed_before_it_is_sealed_elsewhere() {
    let mut bytes = [encode(&SAMPLE, PLACE), vec![0xEE; 8]].concat();
    let elsewhere = Seed { offset: 4096, salt: 1 };
    assert!(std::panic::catch_unwind(|| seal(&mut bytes.clone(), elsewhere)).is_err());

    assert_eq!(unseal(&mut bytes), SAMPLE.encoded_bytes());
    assert_eq!(bytes[..SAMPLE.encoded_bytes()], staged(&SAMPLE));
    assert_eq!(bytes[SAMPLE.encoded_bytes()..], [0xEE; 8]);
    assert_eq!(seal(&mut bytes, elsewhere), SAMPLE.encoded_bytes());
    assert_eq!(decode(&bytes, elsewhere), Ok(SAMPLE));
    assert!(decode(&bytes, PLACE).is_err());
}

#[test]
fn the_longest_payload_goes_through_and_no_longer_one() {
    let payload = vec![0x5A; ENTRY_PAYLOAD_BYTES_MAX];
    let entry = Entry { payload: &payload, ..SAMPLE };
    let bytes = encode(&entry, PLACE);
    assert_eq!(bytes.len(), ENTRY_PAYLOAD_BYTES_MAX + OVERHEAD_BYTES);
    assert_eq!(decode(&bytes, PLACE), Ok(entry));

    let payload = vec![0x5A; ENTRY_PAYLOAD_BYTES_MAX + 1];
    let entry = Entry { payload: &payload, ..SAMPLE };
    assert!(std::panic::catch_unwind(|| staged(&entry)).is_err());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn stage_seal_and_decode_give_the_entry_back(
        (lsn, timestamp_ns, source) in (1..=NUMBER_MAX, any::<u64>(), any::<u16>()),
        payload in vec(any::<u8>(), 0..600),
        behind in vec(any::<u8>(), 0..64),
        (salt, offset) in any::<(u64, u64)>(),
    ) {
        let entry = Entry { lsn: Lsn(lsn), timestamp_ns, source, payload: &payload };
        let place = Seed { salt, offset };
        let mut bytes = staged(&entry);
        prop_assert_eq!(decode_trusted(&bytes), entry);
        bytes.extend(&behind);
        prop_assert_eq!(seal(&mut bytes, place), entry.encoded_bytes());
        prop_assert_eq!(decode_trusted(&bytes), entry);
        prop_assert_eq!(decode(&bytes, place), Ok(entry));
        prop_assert!(bytes.ends_with(&behind));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), (salt, offset) in any::<(u64, u64)>()) {
        let place = Seed { salt, offset };
        prop_assert!(decode(&bytes, place).is_err());
    }
}
