use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{Codec, assert_golden, config, crc32, put_u32, put_u64};
use crate::format::manifest::{BODY_BYTES_MAX, Expired, Manifest, TableMeta};
use crate::format::record::{CHECKPOINT_KEY_BYTES_MAX, CHECKPOINT_VALUE_BYTES_MAX};
use crate::format::{BLOCK_BYTES, ClockStep, FormatError, Gap, GapCause, Lsn, NUMBER_MAX, StoreId};

const STORE: StoreId = StoreId(*b"store-of-a-shop!");
/// Bytes of [`sample`] without its padding, and where its items lie.
const SAMPLE_BYTES: usize = 321;
const TABLES: [usize; 2] = [112, 176];
const GAP: usize = 240;
const CHECKPOINT: usize = 257;
const CLOCK_STEPS: [usize; 2] = [273, 297];

fn sample() -> Manifest {
    let table = |id, first_lsn, last_lsn, entry_count| TableMeta {
        id,
        first_lsn: Lsn(first_lsn),
        last_lsn: Lsn(last_lsn),
        min_timestamp_ns: 0x1112_1314_1516_1718,
        max_timestamp_ns: 0x2122_2324_2526_2728,
        entry_count,
        file_bytes: 0x3000,
        checksum: 0x3132_3334,
    };
    let step = |lsn, from_ns, to_ns| ClockStep { lsn: Lsn(lsn), from_ns, to_ns };
    Manifest {
        store: STORE,
        generation: 0x0102,
        checkpoint_lsn: Lsn(0x0900),
        first_segment: 0x0304,
        newest_segment: 0x0306,
        floor_lsn: Lsn(0x0010),
        next_table_id: 9,
        tables: vec![table(8, 0x0010, 0x00FF, 0x0F0), table(5, 0x0100, 0x0900, 0x07D0)],
        gaps: vec![Gap { first: Lsn(0x0200), last: Lsn(0x0230), cause: GapCause::UncleanNormal }],
        checkpoints: BTreeMap::from([(b"a".to_vec(), vec![1, 2, 3, 4, 5, 6]), (b"b".to_vec(), b"".to_vec())]),
        clock_steps: vec![step(0x0011, 0x0A, 0x0B), step(0x0011, 0x0C, 0x0D)],
        expired: Expired::default(),
    }
}

fn again(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    Manifest::decode(bytes).map(|manifest| manifest.encode())
}

fn reseal(bytes: &mut [u8]) {
    let Some(body_bytes) = bytes.get(40..48) else { return };
    let body_bytes = u64::from_le_bytes(body_bytes.try_into().unwrap());
    let used = usize::try_from(body_bytes).ok().and_then(|body_bytes| body_bytes.checked_add(64));
    let Some(used) = used.and_then(|used| bytes.get(..used)) else { return };
    let crc = crc32(&[&used[..12], &used[16..]]);
    put_u32(bytes, 12, crc);
}

const CODEC: Codec<'static> = Codec { again: &again, reseal: &reseal };

#[test]
fn golden_bytes() {
    let golden = assert_golden(
        &sample().encode(),
        &[
            ("magic", b"KIFAMAN\0"),
            ("version", &[1, 0, 0, 0]),
            ("CRC", &[0x6B, 0xD3, 0x0A, 0xFF]),
            ("store id", b"store-of-a-shop!"),
            ("generation", &[0x02, 0x01, 0, 0, 0, 0, 0, 0]),
            ("body length", &[1, 1, 0, 0, 0, 0, 0, 0]),
            ("newest segment", &[0x06, 0x03, 0, 0, 0, 0, 0, 0]),
            ("reserved", &[0; 8]),
            ("checkpoint LSN", &[0x00, 0x09, 0, 0, 0, 0, 0, 0]),
            ("first live segment", &[0x04, 0x03, 0, 0, 0, 0, 0, 0]),
            ("retention floor", &[0x10, 0, 0, 0, 0, 0, 0, 0]),
            ("next table id", &[9, 0, 0, 0, 0, 0, 0, 0]),
            ("count of tables", &[2, 0, 0, 0]),
            ("count of gaps", &[1, 0, 0, 0]),
            ("count of checkpoints", &[2, 0, 0, 0]),
            ("count of clock steps", &[2, 0, 0, 0]),
            ("table 8: id", &[8, 0, 0, 0, 0, 0, 0, 0]),
            ("table 8: first LSN", &[0x10, 0, 0, 0, 0, 0, 0, 0]),
            ("table 8: last LSN", &[0xFF, 0, 0, 0, 0, 0, 0, 0]),
            ("table 8: smallest timestamp", &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]),
            ("table 8: largest timestamp", &[0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]),
            ("table 8: entries", &[0xF0, 0, 0, 0, 0, 0, 0, 0]),
            ("table 8: file length", &[0x00, 0x30, 0, 0, 0, 0, 0, 0]),
            ("table 8: checksum", &[0x34, 0x33, 0x32, 0x31]),
            ("table 8: reserved", &[0; 4]),
            ("table 5: id", &[5, 0, 0, 0, 0, 0, 0, 0]),
            ("table 5: first LSN", &[0x00, 0x01, 0, 0, 0, 0, 0, 0]),
            ("table 5: last LSN", &[0x00, 0x09, 0, 0, 0, 0, 0, 0]),
            ("table 5: smallest timestamp", &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]),
            ("table 5: largest timestamp", &[0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]),
            ("table 5: entries", &[0xD0, 0x07, 0, 0, 0, 0, 0, 0]),
            ("table 5: file length", &[0x00, 0x30, 0, 0, 0, 0, 0, 0]),
            ("table 5: checksum", &[0x34, 0x33, 0x32, 0x31]),
            ("table 5: reserved", &[0; 4]),
            ("gap: first", &[0x00, 0x02, 0, 0, 0, 0, 0, 0]),
            ("gap: last", &[0x30, 0x02, 0, 0, 0, 0, 0, 0]),
            ("gap: cause", &[1]),
            ("checkpoint a: key length", &[1, 0]),
            ("checkpoint a: value length", &[6, 0]),
            ("checkpoint a: key", b"a"),
            ("checkpoint a: value", &[1, 2, 3, 4, 5, 6]),
            ("checkpoint b: key length", &[1, 0]),
            ("checkpoint b: value length", &[0, 0]),
            ("checkpoint b: key", b"b"),
            ("clock step: LSN", &[0x11, 0, 0, 0, 0, 0, 0, 0]),
            ("clock step: from", &[0x0A, 0, 0, 0, 0, 0, 0, 0]),
            ("clock step: to", &[0x0B, 0, 0, 0, 0, 0, 0, 0]),
            ("clock step: LSN", &[0x11, 0, 0, 0, 0, 0, 0, 0]),
            ("clock step: from", &[0x0C, 0, 0, 0, 0, 0, 0, 0]),
            ("clock step: to", &[0x0D, 0, 0, 0, 0, 0, 0, 0]),
            ("padding", &[0; BLOCK_BYTES - SAMPLE_BYTES]),
        ],
    );
    assert_eq!(Manifest::decode(&golden), Ok(sample()));
}

#[test]
fn golden_bytes_of_a_birth() {
    let golden = assert_golden(
        &Manifest::birth(STORE).encode(),
        &[
            ("magic", b"KIFAMAN\0"),
            ("version", &[1, 0, 0, 0]),
            ("CRC", &[0x3F, 0x4B, 0x1D, 0xAF]),
            ("store id", b"store-of-a-shop!"),
            ("generation", &[1, 0, 0, 0, 0, 0, 0, 0]),
            ("body length", &[48, 0, 0, 0, 0, 0, 0, 0]),
            ("newest segment", &[0; 8]),
            ("reserved", &[0; 8]),
            ("checkpoint LSN", &[0; 8]),
            ("first live segment", &[1, 0, 0, 0, 0, 0, 0, 0]),
            ("retention floor", &[1, 0, 0, 0, 0, 0, 0, 0]),
            ("next table id", &[1, 0, 0, 0, 0, 0, 0, 0]),
            ("counts", &[0; 16]),
            ("padding", &[0; BLOCK_BYTES - 112]),
        ],
    );
    assert_eq!(Manifest::decode(&golden), Ok(Manifest::birth(STORE)));
}

#[test]
fn every_truncation_and_every_flip_is_refused() {
    // At the least every bit of the store id, and of each table's file length and checksum.
    CODEC.prove(&sample().encode(), SAMPLE_BYTES, 128 + 2 * (64 + 32));
}

#[test]
fn another_version_is_refused_by_name() {
    for version in [0, 2, u32::MAX] {
        let mut bytes = sample().encode();
        put_u32(&mut bytes, 8, version);
        assert_eq!(again(&bytes), Err(FormatError::Checksum("manifest")));
        reseal(&mut bytes);
        assert_eq!(again(&bytes), Err(FormatError::Version(version)));
    }
}

#[test]
fn numbers_out_of_range_are_refused_behind_a_good_checksum() {
    CODEC.refuses(
        &sample().encode(),
        &[
            ("generation", &|bytes| put_u64(bytes, 32, 0)),
            ("generation", &|bytes| put_u64(bytes, 32, u64::MAX)),
            ("newest segment", &|bytes| put_u64(bytes, 48, u64::MAX)),
            ("reserved", &|bytes| bytes[56] = 1),
            ("reserved", &|bytes| bytes[63] = 0x80),
            ("checkpoint LSN", &|bytes| put_u64(bytes, 64, u64::MAX)),
            ("checkpoint LSN", &|bytes| put_u64(bytes, 64, 0x08FF)),
            ("first live segment", &|bytes| put_u64(bytes, 72, 0)),
            ("first live segment", &|bytes| put_u64(bytes, 72, u64::MAX)),
            ("retention floor", &|bytes| put_u64(bytes, 80, 0)),
            ("retention floor", &|bytes| put_u64(bytes, 80, u64::MAX)),
            ("next table id", &|bytes| put_u64(bytes, 88, 0)),
            ("next table id", &|bytes| put_u64(bytes, 88, u64::MAX)),
        ],
    );
}

#[test]
fn tables_out_of_range_or_order_are_refused_behind_a_good_checksum() {
    let [first, second] = TABLES;
    CODEC.refuses(
        &sample().encode(),
        &[
            ("table id", &|bytes| put_u64(bytes, first, 0)),
            ("table id", &|bytes| put_u64(bytes, first, 5)),
            ("table id", &|bytes| put_u64(bytes, first, 9)),
            ("table id", &|bytes| put_u64(bytes, 88, 8)),
            ("table LSN range", &|bytes| put_u64(bytes, first + 8, 0)),
            ("table LSN range", &|bytes| put_u64(bytes, first + 8, 0x0100)),
            ("table LSN range", &|bytes| put_u64(bytes, second + 16, u64::MAX)),
            ("table order", &|bytes| put_u64(bytes, first + 16, 0x0100)),
            ("table order", &|bytes| bytes[first..second + 64].rotate_left(64)),
            ("checkpoint LSN", &|bytes| put_u64(bytes, second + 16, 0x0901)),
            ("table timestamps", &|bytes| put_u64(bytes, first + 32, 1)),
            ("table entry count", &|bytes| put_u64(bytes, first + 40, 0)),
            ("table entry count", &|bytes| put_u64(bytes, first + 40, 0xF1)),
            ("table entry count", &|bytes| put_u64(bytes, first + 40, u64::MAX)),
            ("reserved", &|bytes| bytes[first + 60] = 1),
            ("reserved", &|bytes| bytes[second + 63] = 0x80),
        ],
    );
}

#[test]
fn other_items_out_of_range_or_order_are_refused_behind_a_good_checksum() {
    CODEC.refuses(
        &sample().encode(),
        &[
            ("gap", &|bytes| put_u64(bytes, GAP, 0)),
            ("gap", &|bytes| put_u64(bytes, GAP, 0x0231)),
            ("gap", &|bytes| put_u64(bytes, GAP + 8, u64::MAX)),
            ("gap cause", &|bytes| bytes[GAP + 16] = 0),
            ("gap cause", &|bytes| bytes[GAP + 16] = 3),
            ("checkpoint order", &|bytes| bytes[CHECKPOINT + 4] = b'b'),
            ("clock step order", &|bytes| put_u64(bytes, CLOCK_STEPS[0], 0x0012)),
            ("clock step", &|bytes| put_u64(bytes, CLOCK_STEPS[0], 0)),
            ("clock step", &|bytes| put_u64(bytes, CLOCK_STEPS[1], u64::MAX)),
        ],
    );
}

#[test]
fn a_body_length_is_checked_before_it_is_used() {
    CODEC.refuses(
        &sample().encode(),
        &[
            ("body length", &|bytes| put_u64(bytes, 40, 47)),
            ("body length", &|bytes| put_u64(bytes, 40, 0)),
            ("body length", &|bytes| put_u64(bytes, 40, BODY_BYTES_MAX as u64 + 1)),
            ("body length", &|bytes| put_u64(bytes, 40, u64::MAX)),
            ("body length", &|bytes| put_u64(bytes, 40, 258)),
        ],
    );
    let mut bytes = sample().encode();
    put_u64(&mut bytes, 40, BODY_BYTES_MAX as u64);
    assert_eq!(again(&bytes), Err(FormatError::Truncated));
}

#[test]
fn a_count_is_believed_only_as_far_as_there_are_items() {
    // Were room made for what a count says, the largest of these would take 300 GiB.
    for at in [96, 100, 104, 108] {
        let mut bytes = Manifest::birth(STORE).encode();
        put_u32(&mut bytes, at, u32::MAX);
        reseal(&mut bytes);
        assert_eq!(again(&bytes), Err(FormatError::Truncated), "count at {at}");
    }
    CODEC.refuses(&sample().encode(), &[("body length", &|bytes| put_u32(bytes, 108, 1))]);
}

#[test]
fn padding_is_zero_up_to_the_end() {
    let bytes = sample().encode();
    CODEC.refuses(
        &bytes,
        &[
            ("padding", &|bytes| bytes[SAMPLE_BYTES] = 1),
            ("padding", &|bytes| bytes[BLOCK_BYTES - 1] = 0x80),
            ("padding", &|bytes| bytes.push(1)),
        ],
    );
    let longer = [bytes, vec![0; BLOCK_BYTES]].concat();
    assert_eq!(Manifest::decode(&longer), Ok(sample()));
}

#[test]
fn a_manifest_that_would_be_refused_is_never_written() {
    let refused = |change: fn(&mut Manifest)| {
        let mut manifest = sample();
        change(&mut manifest);
        std::panic::catch_unwind(|| manifest.encode()).is_err()
    };
    assert!(!refused(|_| ()));
    assert!(refused(|manifest| manifest.next_table_id = 8));
    assert!(refused(|manifest| manifest.checkpoint_lsn = Lsn(0x08FF)));
    assert!(refused(|manifest| manifest.tables.reverse()));
    assert!(refused(|manifest| manifest.tables[0].id = 5));
    assert!(refused(|manifest| manifest.tables[0].entry_count = 0));
    assert!(refused(|manifest| manifest.gaps.push(manifest.gaps[0])));
    assert!(refused(|manifest| manifest.clock_steps[1].lsn = Lsn(1)));
    assert!(refused(|manifest| manifest.clock_steps[1].lsn = Lsn(u64::MAX)));
    // Lengths of 16 bits would be cut off without a word.
    assert!(refused(|manifest| drop(manifest.checkpoints.insert(vec![7; CHECKPOINT_KEY_BYTES_MAX + 1], vec![]))));
    assert!(refused(|manifest| drop(manifest.checkpoints.insert(vec![7], vec![8; CHECKPOINT_VALUE_BYTES_MAX + 1]))));
    assert!(!refused(|manifest| {
        manifest.checkpoints.insert(vec![7; CHECKPOINT_KEY_BYTES_MAX], vec![8; CHECKPOINT_VALUE_BYTES_MAX]);
    }));
}

/// Ranges of LSNs in order, none touching another's.
fn ranges(count_max: usize) -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec((1..1_u64 << 40, 0..1_u64 << 40), 0..count_max).prop_map(|steps| {
        let mut last = 0;
        let range = |(skip, len)| {
            let first = last + skip;
            last = first + len;
            (first, last)
        };
        steps.into_iter().map(range).collect()
    })
}

fn tables() -> impl Strategy<Value = Vec<TableMeta>> {
    let facts = vec((any::<[u64; 4]>(), any::<u32>()), 20);
    (ranges(20), 1..1_u64 << 60, facts).prop_map(|(ranges, id, facts)| {
        let table = |(((first, last), (facts, checksum)), id): ((_, ([u64; 4], _)), _)| TableMeta {
            id,
            first_lsn: Lsn(first),
            last_lsn: Lsn(last),
            min_timestamp_ns: facts[0].min(facts[1]),
            max_timestamp_ns: facts[0].max(facts[1]),
            entry_count: 1 + facts[2] % (last - first + 1),
            file_bytes: facts[3],
            checksum,
        };
        ranges.into_iter().zip(facts).zip((id..id + 20).rev()).map(table).collect()
    })
}

prop_compose! {
    fn manifests()(
        store: [u8; 16],
        (generation, first_segment, floor) in (1..=NUMBER_MAX, 1..=NUMBER_MAX, 1..=NUMBER_MAX),
        newest_segment in 0..=NUMBER_MAX,
        beyond in 0..1_u64 << 40,
        tables in tables(),
        gaps in ranges(20),
        damage: bool,
        checkpoints in btree_map(vec(any::<u8>(), 0..90), vec(any::<u8>(), 0..60), 0..20),
        mut clock_steps in vec((1..=NUMBER_MAX, any::<u64>(), any::<u64>()), 0..20),
        expired in proptest::option::of((1_u64..1000, 1000_u64.., any::<u64>(), any::<u64>(), any::<u64>())),
    ) -> Manifest {
        clock_steps.sort_unstable();
        let cause = if damage { GapCause::Damage } else { GapCause::UncleanNormal };
        Manifest {
            store: StoreId(store),
            generation,
            checkpoint_lsn: Lsn(tables.last().map_or(0, |table| table.last_lsn.0) + beyond),
            first_segment,
            newest_segment,
            floor_lsn: Lsn(floor),
            next_table_id: tables.iter().map(|table| table.id).max().unwrap_or(0) + 1 + beyond,
            tables,
            gaps: gaps.into_iter().map(|(first, last)| Gap { first: Lsn(first), last: Lsn(last), cause }).collect(),
            checkpoints,
            clock_steps: clock_steps
                .into_iter()
                .map(|(lsn, from_ns, to_ns)| ClockStep { lsn: Lsn(lsn), from_ns, to_ns })
                .collect(),
            expired: expired.map_or_else(Expired::default, |(tables, entries, bytes, until_ns, at_ns)| {
                Expired { tables, entries, bytes, until_ns, at_ns }
            }),
        }
    }
}

/// The record is there only where something has expired: without it the bytes are those of [`golden_bytes`].
#[test]
fn what_has_expired_follows_the_last_item() {
    let expired = Expired { tables: 2, entries: 0x0300, bytes: 0x040000, until_ns: 5, at_ns: 6 };
    let bytes = Manifest { expired, ..sample() }.encode();
    assert_eq!(bytes[40..48], 297_u64.to_le_bytes(), "40 bytes more");
    let fields: Vec<u64> =
        bytes[SAMPLE_BYTES..][..40].chunks(8).map(|field| u64::from_le_bytes(field.try_into().unwrap())).collect();
    assert_eq!(fields, [2, 0x0300, 0x040000, 5, 6]);
    assert_eq!(Manifest::decode(&bytes).map(|manifest| manifest.expired), Ok(expired));
    for (tables, entries) in [(0, 0), (0, 7), (3, 2)] {
        let mut wrong = bytes.clone();
        put_u64(&mut wrong, SAMPLE_BYTES, tables);
        put_u64(&mut wrong, SAMPLE_BYTES + 8, entries);
        reseal(&mut wrong);
        assert_eq!(Manifest::decode(&wrong), Err(FormatError::Field("expired")), "{tables} tables, {entries} entries");
    }
}

/// On a full disk a manifest takes the place of a longer file.
#[test]
fn whole_blocks_of_zeros_may_follow() {
    let mut bytes = sample().encode();
    bytes.resize(bytes.len() + 3 * BLOCK_BYTES, 0);
    assert_eq!(Manifest::decode(&bytes), Ok(sample()));
    let last = bytes.len() - 1;
    bytes[last] = 1;
    assert_eq!(Manifest::decode(&bytes), Err(FormatError::Field("padding")));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn encode_and_decode_give_the_manifest_back(manifest in manifests()) {
        let bytes = manifest.encode();
        prop_assert!(bytes.len().is_multiple_of(BLOCK_BYTES));
        prop_assert_eq!(Manifest::decode(&bytes), Ok(manifest));
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..600), magic: bool) {
        if magic && bytes.len() >= 48 {
            bytes[..8].copy_from_slice(b"KIFAMAN\0");
            put_u64(&mut bytes, 40, 48);
        }
        prop_assert!(Manifest::decode(&bytes).is_err());
    }
}
