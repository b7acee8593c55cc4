use proptest::collection::vec;
use proptest::prelude::*;

use super::{Codec, assert_golden, config, crc32, put_u32, put_u64};
use crate::format::record::LogEnd;
use crate::format::segment::{HEADER_BYTES, SegmentHeader, WrittenBy};
use crate::format::{FlushMode, FormatError, Gap, GapCause, Lsn, NUMBER_MAX, SEGMENT_BYTES_MAX, StoreId};

const STORE: StoreId = StoreId(*b"store-of-a-shop!");
const SAMPLE: SegmentHeader = SegmentHeader {
    store: STORE,
    segment: 0x0102_0304_0506_0708,
    epoch: 0x0203,
    first_lsn: Lsn(0x0102_0304),
    salt: 0x1122_3344_5566_7788,
    manifest_generation: 0x0405,
    segment_bytes: 16 << 20,
    durable_lsn: Lsn(0x0102_0300),
    prev_end: LogEnd {
        segment: 0x0102_0304_0506_0707,
        salt: 0x8877_6655_4433_2211,
        offset: 0x0012_3000,
        last_lsn: Lsn(0x0102_02CF),
    },
    gap: Some(Gap { first: Lsn(0x0102_02D0), last: Lsn(0x0102_0300), cause: GapCause::UncleanNormal }),
    spare: false,
    flush_mode: FlushMode::Normal,
    written_by: WrittenBy { io_backend: 1, sync_method: 2, direct: true },
};

fn encode(header: &SegmentHeader) -> Vec<u8> {
    let mut out = vec![0xEE; HEADER_BYTES + 1];
    header.encode(&mut out);
    assert_eq!(out.pop(), Some(0xEE), "nothing is written behind the header");
    out
}

fn again(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    SegmentHeader::decode(bytes).map(|header| encode(&header))
}

fn reseal(bytes: &mut [u8]) {
    if let Some(sector) = bytes.get(..HEADER_BYTES) {
        let crc = crc32(&[&sector[..12], &sector[16..]]);
        put_u32(bytes, 12, crc);
    }
}

const CODEC: Codec<'static> = Codec { again: &again, reseal: &reseal };

#[test]
fn golden_bytes_of_an_active_header() {
    let golden = assert_golden(
        &encode(&SAMPLE),
        &[
            ("magic", b"KIFASEG\0"),
            ("version", &[1, 0, 0, 0]),
            ("CRC", &[0xBF, 0x58, 0xCA, 0x1F]),
            ("store id", b"store-of-a-shop!"),
            ("segment number", &[0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01]),
            ("epoch", &[0x03, 0x02, 0, 0, 0, 0, 0, 0]),
            ("first LSN", &[0x04, 0x03, 0x02, 0x01, 0, 0, 0, 0]),
            ("salt", &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]),
            ("manifest generation", &[0x05, 0x04, 0, 0, 0, 0, 0, 0]),
            ("segment length", &[0, 0, 0, 1, 0, 0, 0, 0]),
            ("durable LSN", &[0x00, 0x03, 0x02, 0x01, 0, 0, 0, 0]),
            ("end: segment number", &[0x07, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01]),
            ("end: salt", &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]),
            ("end: offset", &[0x00, 0x30, 0x12, 0, 0, 0, 0, 0]),
            ("end: last LSN", &[0xCF, 0x02, 0x02, 0x01, 0, 0, 0, 0]),
            ("gap first", &[0xD0, 0x02, 0x02, 0x01, 0, 0, 0, 0]),
            ("gap last", &[0x00, 0x03, 0x02, 0x01, 0, 0, 0, 0]),
            ("gap cause", &[1]),
            ("kind", &[2]),
            ("flush mode", &[1]),
            ("I/O backend", &[1]),
            ("sync method", &[2]),
            ("direct I/O", &[1]),
            ("reserved", &[0; 370]),
        ],
    );
    assert_eq!(SegmentHeader::decode(&golden), Ok(SAMPLE));
}

#[test]
fn golden_bytes_of_a_spare_header() {
    let spare = SegmentHeader::spare(STORE, 1 << 20);
    let golden = assert_golden(
        &encode(&spare),
        &[
            ("magic", b"KIFASEG\0"),
            ("version", &[1, 0, 0, 0]),
            ("CRC", &[0x8A, 0x9D, 0x54, 0x22]),
            ("store id", b"store-of-a-shop!"),
            ("segment number to manifest generation", &[0; 40]),
            ("segment length", &[0, 0, 0x10, 0, 0, 0, 0, 0]),
            ("durable LSN, end of the log before it, gap", &[0; 57]),
            ("kind", &[1]),
            ("flush mode", &[2]),
            ("I/O backend, sync method, direct I/O", &[0; 3]),
            ("reserved", &[0; 370]),
        ],
    );
    assert_eq!(SegmentHeader::decode(&golden), Ok(spare));
}

#[test]
fn every_truncation_and_every_flip_is_refused() {
    // At the least every bit of store id and salt, and of segment number and epoch but the top one.
    CODEC.prove(&encode(&SAMPLE), HEADER_BYTES, 128 + 64 + 63 + 63);
    CODEC.prove(&encode(&SegmentHeader::spare(STORE, 1 << 20)), HEADER_BYTES, 128 + 64);
}

#[test]
fn another_version_is_refused_by_name() {
    for version in [0, 2, u32::MAX] {
        let mut bytes = encode(&SAMPLE);
        put_u32(&mut bytes, 8, version);
        assert_eq!(again(&bytes), Err(FormatError::Checksum("segment header")));
        reseal(&mut bytes);
        assert_eq!(again(&bytes), Err(FormatError::Version(version)));
    }
}

#[test]
fn numbers_out_of_range_are_refused_behind_a_good_checksum() {
    const END_FIELD: &str = "end of the log before it";
    CODEC.refuses(
        &encode(&SAMPLE),
        &[
            ("segment number", &|bytes| put_u64(bytes, 32, 0)),
            ("segment number", &|bytes| put_u64(bytes, 32, u64::MAX)),
            ("epoch", &|bytes| put_u64(bytes, 40, 0)),
            ("epoch", &|bytes| put_u64(bytes, 40, u64::MAX)),
            ("first LSN", &|bytes| put_u64(bytes, 48, 0)),
            ("first LSN", &|bytes| put_u64(bytes, 48, u64::MAX)),
            ("manifest generation", &|bytes| put_u64(bytes, 64, u64::MAX)),
            ("segment length", &|bytes| put_u64(bytes, 72, 0)),
            ("segment length", &|bytes| put_u64(bytes, 72, 4096)),
            ("segment length", &|bytes| put_u64(bytes, 72, (16 << 20) + 512)),
            ("segment length", &|bytes| put_u64(bytes, 72, SEGMENT_BYTES_MAX + 4096)),
            ("segment length", &|bytes| put_u64(bytes, 72, u64::MAX - 4095)),
            ("durable LSN", &|bytes| put_u64(bytes, 80, u64::MAX)),
            (END_FIELD, &|bytes| put_u64(bytes, 88, 0)),
            (END_FIELD, &|bytes| put_u64(bytes, 104, 0x0012_3800)),
            (END_FIELD, &|bytes| put_u64(bytes, 112, u64::MAX)),
        ],
    );
    CODEC.accepts(
        &encode(&SAMPLE),
        &[
            &|bytes| put_u64(bytes, 32, NUMBER_MAX),
            &|bytes| put_u64(bytes, 72, 8192),
            &|bytes| put_u64(bytes, 72, SEGMENT_BYTES_MAX),
            &|bytes| bytes[88..120].fill(0),
        ],
    );
}

#[test]
fn a_gap_is_whole_or_absent() {
    CODEC.refuses(
        &encode(&SAMPLE),
        &[
            ("gap", &|bytes| put_u64(bytes, 120, 0)),
            ("gap", &|bytes| put_u64(bytes, 120, 0x0102_0301)),
            ("gap", &|bytes| put_u64(bytes, 128, 0)),
            ("gap", &|bytes| put_u64(bytes, 128, u64::MAX)),
            ("gap cause", &|bytes| bytes[136] = 0),
            ("gap cause", &|bytes| bytes[136] = 3),
        ],
    );
    let none = encode(&SegmentHeader { gap: None, ..SAMPLE });
    CODEC.refuses(
        &none,
        &[
            ("gap", &|bytes| bytes[136] = 1),
            ("gap cause", &|bytes| bytes[136] = 9),
            ("gap cause", &|bytes| put_u64(bytes, 128, 5)),
            ("gap cause", &|bytes| put_u64(bytes, 120, 5)),
        ],
    );
}

#[test]
fn bytes_out_of_range_are_refused_behind_a_good_checksum() {
    CODEC.refuses(
        &encode(&SAMPLE),
        &[
            ("kind", &|bytes| bytes[137] = 0),
            ("kind", &|bytes| bytes[137] = 3),
            ("segment number or epoch of a spare", &|bytes| bytes[137] = 1),
            ("flush mode", &|bytes| bytes[138] = 0),
            ("flush mode", &|bytes| bytes[138] = 4),
            ("I/O backend or sync method", &|bytes| bytes[139] = 4),
            ("I/O backend or sync method", &|bytes| bytes[140] = 3),
            ("direct I/O", &|bytes| bytes[141] = 2),
            ("direct I/O", &|bytes| bytes[141] = 0x81),
            ("reserved", &|bytes| bytes[142] = 1),
            ("reserved", &|bytes| bytes[511] = 0x80),
        ],
    );
    let spare = encode(&SegmentHeader::spare(STORE, 1 << 20));
    CODEC.refuses(
        &spare,
        &[
            ("segment number", &|bytes| bytes[137] = 2),
            ("segment number or epoch of a spare", &|bytes| put_u64(bytes, 32, 1)),
            ("segment number or epoch of a spare", &|bytes| put_u64(bytes, 40, 1)),
        ],
    );
}

#[test]
#[should_panic(expected = "segment length")]
fn a_header_that_would_be_refused_is_never_written() {
    encode(&SegmentHeader { segment_bytes: 4097, ..SAMPLE });
}

prop_compose! {
    fn gaps()(first in 1..=NUMBER_MAX, len in 0..=NUMBER_MAX, damage: bool) -> Gap {
        let cause = if damage { GapCause::Damage } else { GapCause::UncleanNormal };
        Gap { first: Lsn(first), last: Lsn((first + len).min(NUMBER_MAX)), cause }
    }
}

prop_compose! {
    fn headers()(
        store: [u8; 16],
        (segment, epoch, first_lsn) in (1..=NUMBER_MAX, 1..=NUMBER_MAX, 1..=NUMBER_MAX),
        (salt, manifest_generation, durable_lsn) in (any::<u64>(), 0..=NUMBER_MAX, 0..=NUMBER_MAX),
        blocks in 2..=SEGMENT_BYTES_MAX / 4096,
        end in (1..=NUMBER_MAX, any::<u64>(), 1..=SEGMENT_BYTES_MAX / 4096, 0..=NUMBER_MAX),
        gap in proptest::option::of(gaps()),
        mode in 1..=3_u8,
        (io_backend, sync_method, direct) in (0..=3_u8, 0..=2_u8, any::<bool>()),
    ) -> SegmentHeader {
        let (end_segment, end_salt, end_blocks, end_lsn) = end;
        SegmentHeader {
            store: StoreId(store),
            segment,
            epoch,
            first_lsn: Lsn(first_lsn),
            salt,
            manifest_generation,
            segment_bytes: blocks * 4096,
            durable_lsn: Lsn(durable_lsn),
            prev_end: LogEnd {
                segment: end_segment,
                salt: end_salt,
                offset: end_blocks * 4096,
                last_lsn: Lsn(end_lsn),
            },
            gap,
            spare: false,
            flush_mode: FlushMode::from_u8(mode).unwrap(),
            written_by: WrittenBy { io_backend, sync_method, direct },
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn encode_and_decode_give_the_header_back(header in headers(), behind in vec(any::<u8>(), 0..64)) {
        let mut bytes = encode(&header);
        bytes.extend(behind);
        prop_assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..600), magic: bool) {
        if magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"KIFASEG\0");
        }
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
    }
}
