//! The corpora in `fuzz/corpus`, replayed without libFuzzer; and the seeds among them, made by the encoders.
//!
//! `cargo test --lib write_the_seeds -- --ignored` writes the seeds anew after a change of a format.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::format::bytes::crc32;
use crate::format::entry::{self, Entry};
use crate::format::group::{self, GroupHeader};
use crate::format::manifest::Manifest;
use crate::format::record::{LogEnd, Record};
use crate::format::segment::{self, SegmentHeader};
use crate::format::table::{BlockHeader, Codec, Span, TableFacts, encode_entry};
use crate::format::{BLOCK_BYTES, ClockStep, FlushMode, Gap, GapCause, Lsn};
use crate::sstable::TableBuilder;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Name and bytes of each file in a target's corpus, by name.
fn corpus_files(target: &str) -> BTreeMap<String, Vec<u8>> {
    let dir = corpus(target);
    let files = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("cannot read {}: {error}", dir.display()));
    let read = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.expect("the directory can be read").path();
        let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        (name, std::fs::read(&path).expect("the file can be read"))
    };
    files.map(read).collect()
}

#[test]
fn every_file_of_every_corpus_passes() {
    for (target, run) in TARGETS {
        let files = corpus_files(target);
        assert!(!files.is_empty(), "{target} has no corpus");
        for bytes in files.values() {
            run(bytes);
            // And what a torn write would leave of it.
            [bytes.len() / 3, bytes.len().saturating_sub(1)].into_iter().for_each(|len| run(&bytes[..len]));
        }
    }
}

#[test]
fn every_target_has_its_seeds_and_every_corpus_its_target() {
    for (target, seeds) in seeds() {
        let files = corpus_files(target);
        for (name, bytes) in seeds {
            let text = format!("fuzz/corpus/{target}/{name}");
            assert!(files.get(name) == Some(&bytes), "{text} is not what the encoder gives: see the top of this file");
        }
    }
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let text = |path: &str| std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path));
    let manifest = text("fuzz/Cargo.toml").expect("the package is there");
    for name in seeds().keys().chain(&names) {
        assert!(names.contains(name) && seeds().contains_key(name), "{name} has no target, or no seeds");
        let program = text(&format!("fuzz/fuzz_targets/{name}.rs")).expect("each target has its program");
        assert!(program.contains(&format!("kifa::fuzzing::{name}(")), "{name} runs another target");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
}

#[test]
#[ignore = "writes into the source tree"]
fn write_the_seeds() {
    for (target, seeds) in seeds() {
        std::fs::create_dir_all(corpus(target)).expect("the directory can be made");
        for (name, bytes) in seeds {
            std::fs::write(corpus(target).join(name), bytes).expect("the file can be written");
        }
    }
}

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn seeds() -> BTreeMap<&'static str, Seeds> {
    #[cfg_attr(not(feature = "cli"), allow(unused_mut, reason = "texts are the program's"))]
    let mut seeds = BTreeMap::from([
        (
            "entry",
            vec![("empty", entry_bytes(1, b"")), ("json", entry_bytes(7, br#"{"txn":"TXN-001","amount":5000}"#))],
        ),
        ("group", vec![("entries", group_bytes(3, &[])), ("records", group_bytes(0, &records()))]),
        ("manifest", vec![("birth", Manifest::birth(STORE).encode()), ("full", full_manifest().encode())]),
        (
            "record",
            [("epoch_start", 0), ("checkpoint", 1), ("clock_step", 2)]
                .map(|(name, at)| (name, record_bytes(at)))
                .into(),
        ),
        ("segment", vec![("spare", segment_bytes(true)), ("active", segment_bytes(false))]),
        ("table", vec![("plain", table_bytes(Codec::None, 3)), ("lz4", table_bytes(Codec::Lz4, 40))]),
        ("table_block", vec![("plain", block_bytes(3))]),
    ]);
    #[cfg(feature = "cli")]
    {
        let texts =
            |texts: &[(&'static str, &[u8])]| texts.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect();
        let config: &[(&str, &[u8])] = &[
            ("file", b"[storage]\nmemtable_flush_threshold_mib = 8\ncompaction_enabled = false\n[wal]\nflush_mode = \"normal\"\n[sources]\nstdin = true\nfiles = [\"/var/log/pos/*.log\"]\n"),
            ("variables", b"\0KIFA_STDIN=yes\nKIFA_TCP=127.0.0.1:7000,[::1]:7001\nKIFA_SEGMENT_SIZE_MIB=3\nHOME=/home/agent\n"),
            ("mistake", b"[wal]\n\nflush_mod = \"normal\"\nflush_mode = 3\n[[sources]]\nx = {}\n"),
        ];
        let framing: &[(&str, &[u8])] = &[
            ("lines", b"\x00\x08\x03one\ntwo\r\n\n\nthe line that is refused\r\nlast"),
            ("carriage_returns", b"\x00\x04\x01\r\n\r\r\nabcd\r\nabcde\r\n\r"),
            ("octets", b"\x01\x08\x023 one8 two\nfour12 refused-here1 x9x"),
            ("zeros", b"\x02\x08\x05one\0two\n\0\0the line that is refused\0last"),
        ];
        #[cfg(unix)]
        {
            let protocol: &[(&str, &[u8])] = &[
                ("ok", b"OK 4711"),
                ("err", b"ERR protocol not a request"),
                ("id", b"till-7.shop:3"),
                ("numbered", b"17 {\"txn\":\"TXN-001\"}"),
            ];
            let control: &[(&str, &[u8])] = &[
                ("append", b"\x05APPEND 4\nti\nlAPPEND 0\nSYNC\nDURABLE\r\n"),
                ("too_large", b"\x40APPEND 1048577\nFLUSH-MODE normal\n"),
                ("words", b"\x01STATUS\nFORGET till-7\nFOLLOW\n"),
                ("broken", b"\x09APPEND many\nSYNC\n"),
            ];
            seeds.extend([("protocol", texts(protocol)), ("control", texts(control))]);
        }
        let now = b"\0\0\x3a\x2c\x6c\xb9\x8f\x18";
        let time = |text: &str| [now.as_slice(), text.as_bytes()].concat();
        seeds.extend([("config", texts(config)), ("framing", texts(framing))]);
        seeds.insert(
            "time",
            vec![
                ("ago", time("1h30m")),
                ("date", time("2026-01-29")),
                ("offset", time("2026-01-29T12:00:00.25+02:00")),
                ("seconds", time("@1769688000.5")),
                ("today", time("today")),
            ],
        );
    }
    seeds
}

fn staged(entry: &Entry<'_>) -> Vec<u8> {
    let mut bytes = vec![0; entry.encoded_bytes()];
    entry::stage(&mut bytes, entry, crc32(&[entry.payload]));
    bytes
}

fn entry_bytes(lsn: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = staged(&Entry { lsn: Lsn(lsn), timestamp_ns: 1_769_884_200_000_000_000, source: 2, payload });
    entry::seal(&mut bytes, log::SEED);
    bytes
}

fn records() -> [Record; 3] {
    let prev_end = LogEnd { segment: 1, salt: 9, offset: 2 * BLOCK_BYTES as u64, last_lsn: Lsn(4) };
    [
        Record::EpochStart { prev_end, prev_epoch: 1 },
        Record::Checkpoint { key: b"/var/log/pos/till.log".to_vec(), value: 8192_u64.to_le_bytes().to_vec() },
        Record::ClockStep(ClockStep { lsn: Lsn(5), from_ns: 0, to_ns: 1_769_884_200_000_000_000 }),
    ]
}

fn record_bytes(at: usize) -> Vec<u8> {
    let record = &records()[at];
    let mut bytes = vec![0; record.encoded_bytes()];
    record.encode(&mut bytes, log::SEED);
    bytes
}

/// A group as the target makes it fit: its salt is 9.
fn group_bytes(entry_count: u32, records: &[Record]) -> Vec<u8> {
    let seed = |at: usize| entry::Seed { salt: 9, offset: (BLOCK_BYTES + at) as u64 };
    let mut bytes = vec![0; group::HEADER_BYTES];
    for index in 0..u64::from(entry_count) {
        let at = bytes.len();
        bytes.extend(staged(&Entry { lsn: Lsn(5 + index), timestamp_ns: 1000 + index, source: 0, payload: b"till" }));
        entry::seal(&mut bytes[at..], seed(at));
    }
    let entries_bytes = bytes.len() - group::HEADER_BYTES;
    for record in records {
        let at = bytes.len();
        bytes.resize(at + record.encoded_bytes(), 0);
        record.encode(&mut bytes[at..], seed(at));
    }
    let header = GroupHeader {
        salt: 9,
        segment: 1,
        offset: BLOCK_BYTES as u64,
        epoch: 2,
        first_lsn: Lsn(5),
        durable_lsn: Lsn(4),
        entry_count,
        record_count: records.len() as u32,
        entries_bytes: entries_bytes as u32,
        records_bytes: (bytes.len() - group::HEADER_BYTES - entries_bytes) as u32,
        flush_mode: FlushMode::Normal,
        clean_close: entry_count == 0,
        epoch_start: !records.is_empty(),
    };
    header.encode(STORE, &mut bytes);
    bytes
}

fn full_manifest() -> Manifest {
    let mut builder = TableBuilder::new(STORE, 3, Codec::None, Arc::default());
    builder.push(&Entry { lsn: Lsn(1), timestamp_ns: 1, source: 0, payload: b"till" });
    let (_, meta) = builder.finish(&TableFacts::default());
    Manifest {
        checkpoint_lsn: Lsn(60),
        first_segment: 2,
        next_table_id: 4,
        tables: vec![meta],
        gaps: vec![Gap { first: Lsn(2), last: Lsn(50), cause: GapCause::UncleanNormal }],
        checkpoints: [(b"till.log".to_vec(), vec![1, 2, 3])].into(),
        clock_steps: vec![ClockStep { lsn: Lsn(51), from_ns: 5, to_ns: 6 }],
        ..Manifest::birth(STORE)
    }
}

fn segment_bytes(spare: bool) -> Vec<u8> {
    let blank = SegmentHeader::spare(STORE, 64 << 10);
    let active = SegmentHeader {
        segment: 2,
        epoch: 3,
        first_lsn: Lsn(5),
        salt: 9,
        manifest_generation: 1,
        durable_lsn: Lsn(4),
        prev_end: LogEnd { segment: 1, salt: 8, offset: BLOCK_BYTES as u64, last_lsn: Lsn(4) },
        gap: Some(Gap { first: Lsn(5), last: Lsn(53), cause: GapCause::UncleanNormal }),
        spare: false,
        ..blank
    };
    let mut bytes = vec![0; segment::HEADER_BYTES];
    if spare { blank } else { active }.encode(&mut bytes);
    bytes
}

fn table_bytes(codec: Codec, count: u64) -> Vec<u8> {
    let mut builder = TableBuilder::new(STORE, 3, codec, Arc::default());
    for lsn in 1..=count {
        let payload = format!("{{\"txn\":\"TXN-{lsn:03}\",\"amount\":5000}}");
        builder.push(&Entry { lsn: Lsn(lsn), timestamp_ns: 1000 + lsn, source: 0, payload: payload.as_bytes() });
    }
    let facts = TableFacts {
        gaps: vec![Gap { first: Lsn(1000), last: Lsn(1048), cause: GapCause::Damage }],
        checkpoints: [(b"till.log".to_vec(), vec![1])].into(),
        clock_steps: vec![ClockStep { lsn: Lsn(1), from_ns: 5, to_ns: 6 }],
        replaces: vec![1, 2],
        floor_lsn: Lsn(1),
    };
    builder.finish(&facts).0.iter().flat_map(|chunk| chunk.to_vec()).collect()
}

fn block_bytes(count: u64) -> Vec<u8> {
    let (mut raw, mut span) = (Vec::new(), None);
    for lsn in 1..=count {
        let entry = Entry { lsn: Lsn(lsn), timestamp_ns: 1000 + lsn, source: 0, payload: b"till" };
        encode_entry(&mut raw, Lsn(1), &entry);
        span = Some(span.map_or_else(|| Span::of(&entry), |before: Span| before.join(Span::of(&entry))));
    }
    let header = BlockHeader { codec: Codec::None, raw_bytes: raw.len(), span: span.expect("there are entries") };
    let mut block = vec![0; crate::format::table::BLOCK_HEADER_BYTES];
    block.extend_from_slice(&raw);
    header.seal(&mut block, STORE);
    block
}
