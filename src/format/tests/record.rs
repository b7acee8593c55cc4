use proptest::collection::vec;
use proptest::prelude::*;

use super::{Codec, assert_golden, config, crc32, put_u16, put_u32, put_u64};
use crate::format::entry::Seed;
use crate::format::record::{
    BODY_BYTES_MAX, CHECKPOINT_KEY_BYTES_MAX, CHECKPOINT_VALUE_BYTES_MAX, HEADER_BYTES, LogEnd, Record,
};
use crate::format::{ClockStep, FormatError, Lsn, NUMBER_MAX, SEGMENT_BYTES_MAX};

const PLACE: Seed = Seed { salt: 0x1122_3344_5566_7788, offset: 4176 };
const END: LogEnd = LogEnd {
    segment: 0x0102_0304_0506_0708,
    salt: 0x8877_6655_4433_2211,
    offset: 0x0012_3000,
    last_lsn: Lsn(0x0203_0405),
};
const EPOCH_START: Record = Record::EpochStart { prev_end: END, prev_epoch: 0x0A0B };
const CLOCK_STEP: Record = Record::ClockStep(ClockStep {
    lsn: Lsn(0x0304_0506_0708_090A),
    from_ns: 0x1112_1314_1516_1718,
    to_ns: 0x2122_2324_2526_2728,
});

fn checkpoint(key: &[u8], value: &[u8]) -> Record {
    Record::Checkpoint { key: key.to_vec(), value: value.to_vec() }
}

fn encode(record: &Record, place: Seed) -> Vec<u8> {
    let mut out = vec![0xEE; record.encoded_bytes() + 1];
    assert_eq!(record.encode(&mut out, place), record.encoded_bytes());
    assert_eq!(out.pop(), Some(0xEE), "nothing is written behind the record");
    out
}

fn again(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let (record, len) = Record::decode(bytes, PLACE)?;
    assert_eq!(len, record.encoded_bytes());
    Ok(encode(&record, PLACE))
}

fn reseal(bytes: &mut [u8]) {
    let seed = [PLACE.salt.to_le_bytes(), PLACE.offset.to_le_bytes()].concat();
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return };
    let body_bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let Some(body) = rest.get(..body_bytes) else { return };
    let crc = crc32(&[&seed, &head[..8], body]);
    put_u32(bytes, 8, crc);
}

const CODEC: Codec<'static> = Codec { again: &again, reseal: &reseal };

#[test]
fn golden_bytes_of_an_epoch_start() {
    let golden = assert_golden(
        &encode(&EPOCH_START, PLACE),
        &[
            ("kind", &[1, 0]),
            ("reserved", &[0, 0]),
            ("body length", &[40, 0, 0, 0]),
            ("CRC", &[0xDB, 0xE1, 0x48, 0x65]),
            ("end: segment number", &[0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01]),
            ("end: salt", &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]),
            ("end: offset", &[0x00, 0x30, 0x12, 0, 0, 0, 0, 0]),
            ("end: last LSN", &[0x05, 0x04, 0x03, 0x02, 0, 0, 0, 0]),
            ("epoch it replaces", &[0x0B, 0x0A, 0, 0, 0, 0, 0, 0]),
        ],
    );
    assert_eq!(Record::decode(&golden, PLACE), Ok((EPOCH_START, 52)));
}

#[test]
fn golden_bytes_of_a_checkpoint() {
    let golden = assert_golden(
        &encode(&checkpoint(b"till-7", b"\x01\x02\x03"), PLACE),
        &[
            ("kind", &[2, 0]),
            ("reserved", &[0, 0]),
            ("body length", &[11, 0, 0, 0]),
            ("CRC", &[0xB3, 0x75, 0xE7, 0x61]),
            ("key length", &[6, 0]),
            ("key", b"till-7"),
            ("value", &[1, 2, 3]),
        ],
    );
    assert_eq!(Record::decode(&golden, PLACE), Ok((checkpoint(b"till-7", b"\x01\x02\x03"), 23)));
}

#[test]
fn golden_bytes_of_a_clock_step() {
    let golden = assert_golden(
        &encode(&CLOCK_STEP, PLACE),
        &[
            ("kind", &[3, 0]),
            ("reserved", &[0, 0]),
            ("body length", &[24, 0, 0, 0]),
            ("CRC", &[0xDD, 0xCF, 0x01, 0x6C]),
            ("LSN", &[0x0A, 0x09, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03]),
            ("from", &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]),
            ("to", &[0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]),
        ],
    );
    assert_eq!(Record::decode(&golden, PLACE), Ok((CLOCK_STEP, 36)));
}

#[test]
fn every_truncation_and_every_flip_is_refused() {
    let no_log_before = Record::EpochStart { prev_end: LogEnd::default(), prev_epoch: 0 };
    // The bits of what a record carries that may be changed: those with a rule of their own left out.
    let records = [
        (EPOCH_START, 63 + 64 + 63 + 63),
        (no_log_before, 63),
        (checkpoint(b"till-7", b"\x01\x02\x03"), 9 * 8),
        (checkpoint(b"", b""), 0),
        (CLOCK_STEP, 63 + 64 + 64),
    ];
    for (record, opaque_bits_min) in records {
        let bytes = encode(&record, PLACE);
        CODEC.prove(&bytes, bytes.len(), opaque_bits_min);
    }
}

#[test]
fn heads_out_of_range_are_refused_behind_a_good_checksum() {
    CODEC.refuses(
        &encode(&CLOCK_STEP, PLACE),
        &[
            ("record kind", &|bytes| put_u16(bytes, 0, 0)),
            ("record kind", &|bytes| put_u16(bytes, 0, 4)),
            ("record kind", &|bytes| put_u16(bytes, 0, 0x0103)),
            ("reserved", &|bytes| put_u16(bytes, 2, 1)),
            ("reserved", &|bytes| put_u16(bytes, 2, 0x8000)),
            ("record length", &|bytes| put_u32(bytes, 4, BODY_BYTES_MAX as u32 + 1)),
            ("record length", &|bytes| put_u32(bytes, 4, u32::MAX)),
            ("record length", &|bytes| {
                put_u32(bytes, 4, 25);
                bytes.push(0);
            }),
        ],
    );
}

#[test]
fn a_body_shorter_than_its_kind_is_refused() {
    for record in [EPOCH_START, checkpoint(b"till-7", b""), CLOCK_STEP] {
        let bytes = encode(&record, PLACE);
        for body_bytes in 0..bytes.len() - HEADER_BYTES {
            let mut bytes = bytes.clone();
            put_u32(&mut bytes, 4, body_bytes as u32);
            reseal(&mut bytes);
            assert_eq!(again(&bytes), Err(FormatError::Truncated), "{record:?} with {body_bytes} bytes");
        }
    }
}

#[test]
fn bodies_out_of_range_are_refused_behind_a_good_checksum() {
    const END_FIELD: &str = "end of the log before it";
    CODEC.refuses(
        &encode(&EPOCH_START, PLACE),
        &[
            (END_FIELD, &|bytes| put_u64(bytes, 12, 0)),
            (END_FIELD, &|bytes| put_u64(bytes, 12, NUMBER_MAX + 1)),
            (END_FIELD, &|bytes| put_u64(bytes, 28, 0)),
            (END_FIELD, &|bytes| put_u64(bytes, 28, 0x0012_3001)),
            (END_FIELD, &|bytes| put_u64(bytes, 28, SEGMENT_BYTES_MAX + 4096)),
            (END_FIELD, &|bytes| put_u64(bytes, 28, u64::MAX - 4095)),
            (END_FIELD, &|bytes| put_u64(bytes, 36, u64::MAX)),
            ("epoch", &|bytes| put_u64(bytes, 44, u64::MAX)),
        ],
    );
    CODEC.accepts(
        &encode(&EPOCH_START, PLACE),
        &[
            &|bytes| put_u64(bytes, 28, 4096),
            &|bytes| put_u64(bytes, 28, SEGMENT_BYTES_MAX),
            &|bytes| put_u64(bytes, 36, 0),
            &|bytes| bytes[12..44].fill(0),
        ],
    );
    CODEC.refuses(
        &encode(&CLOCK_STEP, PLACE),
        &[("LSN", &|bytes| put_u64(bytes, 12, 0)), ("LSN", &|bytes| put_u64(bytes, 12, u64::MAX))],
    );
    // The body may be as long as key and value together; each has a ceiling of its own.
    let longest = checkpoint(&[7; CHECKPOINT_KEY_BYTES_MAX], &[8; CHECKPOINT_VALUE_BYTES_MAX]);
    let key_bytes = |key_bytes: usize| move |bytes: &mut Vec<u8>| put_u16(bytes, 12, key_bytes as u16);
    CODEC.refuses(
        &encode(&longest, PLACE),
        &[
            ("checkpoint length", &key_bytes(CHECKPOINT_KEY_BYTES_MAX + 1)),
            ("checkpoint length", &key_bytes(CHECKPOINT_KEY_BYTES_MAX - 1)),
            ("checkpoint length", &key_bytes(0)),
        ],
    );
}

#[test]
fn a_key_longer_than_its_body_is_refused() {
    let mut bytes = encode(&checkpoint(b"till-7", b""), PLACE);
    for key_bytes in [7, u16::MAX] {
        put_u16(&mut bytes, 12, key_bytes);
        reseal(&mut bytes);
        assert_eq!(again(&bytes), Err(FormatError::Truncated), "{key_bytes}");
    }
}

#[test]
fn a_record_is_valid_in_its_own_place_only() {
    let bytes = encode(&CLOCK_STEP, PLACE);
    for bit in 0..64 {
        let moved = Seed { offset: PLACE.offset ^ 1 << bit, ..PLACE };
        assert_eq!(Record::decode(&bytes, moved), Err(FormatError::Checksum("record")), "offset bit {bit}");
        let reused = Seed { salt: PLACE.salt ^ 1 << bit, ..PLACE };
        assert_eq!(Record::decode(&bytes, reused), Err(FormatError::Checksum("record")), "salt bit {bit}");
    }
}

#[test]
fn the_longest_checkpoint_goes_through_and_no_longer_one() {
    let longest = checkpoint(&[7; CHECKPOINT_KEY_BYTES_MAX], &[8; CHECKPOINT_VALUE_BYTES_MAX]);
    assert_eq!(longest.encoded_bytes(), HEADER_BYTES + BODY_BYTES_MAX);
    assert_eq!(Record::decode(&encode(&longest, PLACE), PLACE), Ok((longest, HEADER_BYTES + BODY_BYTES_MAX)));

    // Short enough as a body, and still refused: the decoder would refuse it, too.
    let key_too_long = checkpoint(&[7; CHECKPOINT_KEY_BYTES_MAX + 1], b"");
    assert!(std::panic::catch_unwind(|| encode(&key_too_long, PLACE)).is_err());
    let value_too_long = checkpoint(b"", &[8; CHECKPOINT_VALUE_BYTES_MAX + 1]);
    assert!(std::panic::catch_unwind(|| encode(&value_too_long, PLACE)).is_err());
}

fn records() -> impl Strategy<Value = Record> {
    let ends = (1..=NUMBER_MAX, any::<u64>(), 1..=SEGMENT_BYTES_MAX / 4096, 0..=NUMBER_MAX)
        .prop_map(|(segment, salt, blocks, last)| LogEnd { segment, salt, offset: blocks * 4096, last_lsn: Lsn(last) });
    prop_oneof![
        (ends, 0..=NUMBER_MAX).prop_map(|(prev_end, prev_epoch)| Record::EpochStart { prev_end, prev_epoch }),
        (vec(any::<u8>(), 0..=CHECKPOINT_KEY_BYTES_MAX), vec(any::<u8>(), 0..=CHECKPOINT_VALUE_BYTES_MAX))
            .prop_map(|(key, value)| Record::Checkpoint { key, value }),
        (1..=NUMBER_MAX, any::<u64>(), any::<u64>()).prop_map(|(lsn, from_ns, to_ns)| Record::ClockStep(ClockStep {
            lsn: Lsn(lsn),
            from_ns,
            to_ns
        })),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn encode_and_decode_give_the_record_back(
        record in records(),
        (salt, offset) in any::<(u64, u64)>(),
        behind in vec(any::<u8>(), 0..64),
    ) {
        let place = Seed { salt, offset };
        let mut bytes = encode(&record, place);
        let len = bytes.len();
        bytes.extend(behind);
        prop_assert_eq!(Record::decode(&bytes, place), Ok((record, len)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..200), short: bool) {
        if short && bytes.len() >= 8 {
            put_u32(&mut bytes, 4, 24);
        }
        prop_assert!(Record::decode(&bytes, PLACE).is_err());
    }
}
