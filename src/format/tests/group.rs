use proptest::collection::vec;
use proptest::prelude::*;

use super::{Codec, assert_golden, config, crc32, put_u32, put_u64};
use crate::format::group::{GroupHeader, HEADER_BYTES};
use crate::format::{
    BLOCK_BYTES, FlushMode, FormatError, GROUP_BODY_BYTES_MAX, Lsn, NUMBER_MAX, SEGMENT_BYTES_MAX, StoreId,
};

const STORE: StoreId = StoreId(*b"store-of-a-shop!");
const SAMPLE: GroupHeader = GroupHeader {
    salt: 0x1122_3344_5566_7788,
    segment: 0x0102_0304_0506_0708,
    offset: 0x0012_3000,
    epoch: 0x0203,
    first_lsn: Lsn(0x0102_0304),
    durable_lsn: Lsn(0x0102_0300),
    entry_count: 3,
    record_count: 2,
    entries_bytes: 0x0234,
    records_bytes: 0x0123,
    flush_mode: FlushMode::Cautious,
    clean_close: false,
    epoch_start: true,
};
/// The marker of a clean close: no entries, no records.
const EMPTY: GroupHeader = GroupHeader {
    entry_count: 0,
    record_count: 0,
    entries_bytes: 0,
    records_bytes: 0,
    clean_close: true,
    epoch_start: false,
    ..SAMPLE
};

fn encode(header: &GroupHeader) -> Vec<u8> {
    let mut out = vec![0xEE; HEADER_BYTES + 1];
    header.encode(STORE, &mut out);
    assert_eq!(out.pop(), Some(0xEE), "nothing is written behind the header");
    out
}

fn again(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    GroupHeader::decode(bytes, STORE).map(|header| encode(&header))
}

fn reseal(bytes: &mut [u8]) {
    if let Some(covered) = bytes.get(8..HEADER_BYTES) {
        let crc = crc32(&[&STORE.0, covered]);
        put_u32(bytes, 4, crc);
    }
}

const CODEC: Codec<'static> = Codec { again: &again, reseal: &reseal };

#[test]
fn golden_bytes() {
    let golden = assert_golden(
        &encode(&SAMPLE),
        &[
            ("magic", b"KGRP"),
            ("header CRC", &[0x13, 0x73, 0x4F, 0x59]),
            ("salt", &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]),
            ("segment number", &[0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01]),
            ("offset", &[0x00, 0x30, 0x12, 0, 0, 0, 0, 0]),
            ("epoch", &[0x03, 0x02, 0, 0, 0, 0, 0, 0]),
            ("first LSN", &[0x04, 0x03, 0x02, 0x01, 0, 0, 0, 0]),
            ("durable LSN", &[0x00, 0x03, 0x02, 0x01, 0, 0, 0, 0]),
            ("entry count", &[3, 0, 0, 0]),
            ("record count", &[2, 0, 0, 0]),
            ("entries length", &[0x34, 0x02, 0, 0]),
            ("records length", &[0x23, 0x01, 0, 0]),
            ("flush mode", &[2]),
            ("flags", &[0b10]),
            ("reserved", &[0; 6]),
        ],
    );
    assert_eq!(GroupHeader::decode(&golden, STORE), Ok(SAMPLE));
}

#[test]
fn flush_modes_and_flags_have_their_numbers() {
    let byte = |header: GroupHeader, at: usize| encode(&header)[at];
    assert_eq!(byte(GroupHeader { flush_mode: FlushMode::Normal, ..SAMPLE }, 72), 1);
    assert_eq!(byte(GroupHeader { flush_mode: FlushMode::Cautious, ..SAMPLE }, 72), 2);
    assert_eq!(byte(GroupHeader { flush_mode: FlushMode::Emergency, ..SAMPLE }, 72), 3);
    assert_eq!(byte(GroupHeader { clean_close: false, epoch_start: false, ..SAMPLE }, 73), 0);
    assert_eq!(byte(GroupHeader { clean_close: true, epoch_start: false, ..SAMPLE }, 73), 1);
    assert_eq!(byte(GroupHeader { clean_close: true, epoch_start: true, ..SAMPLE }, 73), 3);
}

#[test]
fn every_truncation_and_every_flip_is_refused() {
    // At the least every bit of the salt, and of segment number and epoch but the top one.
    CODEC.prove(&encode(&SAMPLE), HEADER_BYTES, 64 + 63 + 63);
    CODEC.prove(&encode(&EMPTY), HEADER_BYTES, 64 + 63 + 63);
}

#[test]
fn another_stores_group_is_refused() {
    let bytes = encode(&SAMPLE);
    for bit in 0..128 {
        let mut other = STORE;
        other.0[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(GroupHeader::decode(&bytes, other), Err(FormatError::Checksum("group header")), "bit {bit}");
    }
}

#[test]
fn numbers_out_of_range_are_refused_behind_a_good_checksum() {
    CODEC.refuses(
        &encode(&SAMPLE),
        &[
            ("segment number", &|bytes| put_u64(bytes, 16, 0)),
            ("segment number", &|bytes| put_u64(bytes, 16, NUMBER_MAX + 1)),
            ("offset", &|bytes| put_u64(bytes, 24, 0)),
            ("offset", &|bytes| put_u64(bytes, 24, 0x0012_3200)),
            ("offset", &|bytes| put_u64(bytes, 24, SEGMENT_BYTES_MAX)),
            ("offset", &|bytes| put_u64(bytes, 24, u64::MAX - 4095)),
            ("epoch", &|bytes| put_u64(bytes, 32, 0)),
            ("epoch", &|bytes| put_u64(bytes, 32, u64::MAX)),
            ("first LSN", &|bytes| put_u64(bytes, 40, 0)),
            ("first LSN", &|bytes| put_u64(bytes, 40, NUMBER_MAX + 1)),
            ("first LSN", &|bytes| put_u64(bytes, 40, u64::MAX)),
            ("durable LSN", &|bytes| put_u64(bytes, 48, SAMPLE.first_lsn.0)),
            ("durable LSN", &|bytes| put_u64(bytes, 48, u64::MAX)),
            ("flush mode", &|bytes| bytes[72] = 0),
            ("flush mode", &|bytes| bytes[72] = 4),
            ("flags", &|bytes| bytes[73] = 4),
            ("flags", &|bytes| bytes[73] = 0x82),
            ("flags", &|bytes| bytes[74] = 1),
            ("flags", &|bytes| bytes[79] = 1),
        ],
    );
}

#[test]
fn counts_and_lengths_that_contradict_each_other_are_refused() {
    let lengths = |entry_count, entries_bytes, record_count, records_bytes| {
        move |bytes: &mut Vec<u8>| {
            put_u32(bytes, 56, entry_count);
            put_u32(bytes, 60, record_count);
            put_u32(bytes, 64, entries_bytes);
            put_u32(bytes, 68, records_bytes);
        }
    };
    const BODY: u32 = GROUP_BODY_BYTES_MAX as u32;
    CODEC.refuses(
        &encode(&SAMPLE),
        &[
            ("entries length", &lengths(0, 36, 0, 0)),
            ("entries length", &lengths(1, 35, 0, 0)),
            ("entries length", &lengths(1, 36 + (1 << 20) + 1, 0, 0)),
            ("entries length", &lengths(u32::MAX, 0, 0, 0)),
            ("entries length", &lengths(u32::MAX, u32::MAX, 0, 0)),
            ("records length", &lengths(0, 0, 0, 12)),
            ("records length", &lengths(0, 0, 1, 11)),
            ("records length", &lengths(0, 0, 1, u32::MAX)),
            ("records length", &lengths(0, 0, u32::MAX, u32::MAX)),
            ("body length", &lengths(64, BODY, 1, 12)),
            ("body length", &lengths(100_000_000, u32::MAX, 0, 0)),
            ("body length", &lengths(100_000_000, u32::MAX, 300_000_000, u32::MAX)),
        ],
    );
    CODEC.accepts(
        &encode(&SAMPLE),
        &[&lengths(0, 0, 0, 0), &lengths(1, 36, 1, 12), &lengths(1, 36 + (1 << 20), 0, 0), &lengths(64, BODY, 0, 0)],
    );
}

#[test]
fn what_a_decoded_header_computes_does_not_overflow() {
    let last = |header: GroupHeader| GroupHeader::decode(&encode(&header), STORE).map(|header| header.last_lsn());
    let first_lsn = Lsn(NUMBER_MAX);
    assert_eq!(last(GroupHeader { first_lsn, ..SAMPLE }), Ok(Lsn(NUMBER_MAX + 2)));
    assert_eq!(last(GroupHeader { first_lsn, ..EMPTY }), Ok(Lsn(NUMBER_MAX - 1)));
    assert_eq!(last(GroupHeader { first_lsn: Lsn(1), durable_lsn: Lsn(0), ..EMPTY }), Ok(Lsn::ZERO));
    assert_eq!(SAMPLE.last_lsn(), Lsn(0x0102_0306));
    assert_eq!(SAMPLE.unpadded_bytes(), HEADER_BYTES + 0x0234 + 0x0123);
    assert_eq!(SAMPLE.padded_bytes(), BLOCK_BYTES as u64);

    let full = GroupHeader { entry_count: 64, entries_bytes: GROUP_BODY_BYTES_MAX as u32, ..EMPTY };
    let last_place = SEGMENT_BYTES_MAX - full.padded_bytes();
    assert_eq!(full.padded_bytes(), (GROUP_BODY_BYTES_MAX + BLOCK_BYTES) as u64);
    assert!(again(&encode(&GroupHeader { offset: last_place, ..full })).is_ok());
}

#[test]
#[should_panic(expected = "durable LSN")]
fn a_header_that_would_be_refused_is_never_written() {
    encode(&GroupHeader { durable_lsn: SAMPLE.first_lsn, ..SAMPLE });
}

prop_compose! {
    fn headers()(
        (salt, segment, epoch) in (any::<u64>(), 1..=NUMBER_MAX, 1..=NUMBER_MAX),
        block in 1..=(SEGMENT_BYTES_MAX - (32 << 20)) / BLOCK_BYTES as u64,
        first_lsn in 1..=NUMBER_MAX,
        behind in 1..=NUMBER_MAX,
        (entry_count, entry_bytes) in (0..=1000_u32, 36..=20_000_u32),
        (record_count, record_bytes) in (0..=100_u32, 12..=5000_u32),
        mode in 1..=3_u8,
        (clean_close, epoch_start) in any::<(bool, bool)>(),
    ) -> GroupHeader {
        GroupHeader {
            salt,
            segment,
            offset: block * BLOCK_BYTES as u64,
            epoch,
            first_lsn: Lsn(first_lsn),
            durable_lsn: Lsn(first_lsn.saturating_sub(behind)),
            entry_count,
            record_count,
            entries_bytes: entry_count * entry_bytes,
            records_bytes: record_count * record_bytes,
            flush_mode: FlushMode::from_u8(mode).unwrap(),
            clean_close,
            epoch_start,
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn encode_and_decode_give_the_header_back(header in headers(), store: [u8; 16], behind in vec(any::<u8>(), 0..64)) {
        let mut bytes = vec![0xEE; HEADER_BYTES];
        header.encode(StoreId(store), &mut bytes);
        bytes.extend(behind);
        prop_assert_eq!(GroupHeader::decode(&bytes, StoreId(store)), Ok(header));
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..200), magic: bool) {
        if magic && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(b"KGRP");
        }
        prop_assert!(GroupHeader::decode(&bytes, STORE).is_err());
    }
}
