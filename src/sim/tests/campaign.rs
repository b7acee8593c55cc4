//! A bounded part of the campaign, and the oracle's own teeth. `examples/simulate.rs` runs as much of the campaign as
//! there is time for.
//!
//! Planted in the engine one at a time, each of these was found by the depth used here; in brackets the number of
//! workloads it took:
//! - syncs: none on group writes (1), after the confirmation instead of before (1), none of a manifest (1), a table (1), a
//!   prepared segment (1), of the directory after the rename of a manifest (2), a segment (1), a table (4); an explicit
//!   sync that does nothing (3); a failed sync repeated (45), of a directory (32); a failed write confirmed (1), a short one
//!   (72)
//! - normal mode: no gap (3), one of 48 (1), 60 entries at risk (48), 4.5 seconds at risk (86), its first group without a
//!   sync (1), a sync that counts for writes in flight (40), a mode change that syncs only itself (5), a rotation that
//!   does not sync the old segment (17), a marker (5) or a watermark (38) in front of the sync, the mode missing in a
//!   segment's header (161)
//! - recovery: a constant salt (266), a read error taken for the end (4), groups behind a hole replayed (13), the watermark
//!   (12) or the marker (65) not believed, unproven groups left in place (1), the header written before them (1) or
//!   without their sync (1), its own header not made durable (305), a watermark linked behind (147), an empty segment
//!   taken over twice (80), names not synced (5), records lost (1), checkpoints not replayed (1)
//! - files: the old manifest removed before the new one is durable (3), the same of merged tables (4), entries frozen that
//!   are not durable (48), a segment's header not durable at rotation (1), a gap before the first segment taken for
//!   damage (10)
//! - readers: entries that are not proven, returned beside a writer (131)

use std::rc::Rc;

use super::super::campaign::run_case;
use super::super::case::Case;
use super::super::oracle::{Found, Oracle, Seen};
use super::super::report::Depth;
use super::super::rule::Violation;
use super::run_seeds;
use crate::batch::LsnRange;
use crate::format::{FlushMode, Gap, GapCause, Lsn};

fn run(seeds: std::ops::Range<u64>, depth: &Depth) {
    let report = run_seeds(seeds, depth);
    assert!(report.states > report.cases, "{report}");
}

#[test]
fn the_promise_holds_whatever_the_end() {
    run(0..310, &Depth { points: 4, cuts: 2, others: 1 });
}

#[test]
fn the_promise_holds_at_every_operation_of_a_few_workloads() {
    run(1000..1006, &Depth { points: u64::MAX, cuts: 2, others: 4 });
}

/// Cases that broke the promise once, each with its story in the commit that names it.
const REGRESSIONS: [(u64, &str); 24] = [
    (4, "kill 15 801"),
    (6, "kill 5 595"),
    (16, "cut 61 variant Sector Ordered 0"),
    (2, "cut 31 sampled Block Ordered 811807"),
    (42, "cut 39 sampled Sector Ordered 305985"),
    (547, "kill 41 493"),
    (65, "cut 55 variant Sector Any 0"),
    (160, "cut 58 sampled Block Any 922665"),
    (82, "kill 39 138"),
    (31, "fault NoSpace Mutating 29"),
    (617, "fault NoSpace Mutating 148"),
    (6, "rot 400"),
    (132, "rot 723"),
    (172, "rot 132"),
    // One wrong bit in what one read returned: of a manifest, a segment's header, a group (believed damaged, and taken for
    // the end of the log), a group in a scan, a table that was just written, a block of it.
    (0, "recovering 2 FlipBit Read 2"),
    (8, "recovering 40 FlipBit Read 16"),
    (25, "recovering 35 FlipBit Read 18"),
    (97, "recovering 99 FlipBit Read 11"),
    (19, "recovering 102 FlipBit Read 18"),
    (8, "fault FlipBit Read 43"),
    (21, "fault FlipBit Read 126"),
    (4, "cut 68 keep-all"),
    (351, "kill 33 245"),
    (245, "kill 73 662"),
];

#[test]
fn what_broke_the_promise_once_does_so_no_more() {
    for (seed, case) in REGRESSIONS {
        let report = run_case(seed, case);
        assert!(report.violations.is_empty(), "{}", report.violations_text());
    }
}

#[test]
fn the_same_seed_and_case_give_the_same_trace_byte_for_byte() {
    let cases = [
        "cut 20 sampled Sector Any 5",
        "kill 15 801",
        "fault Eio Sync 9",
        "recovering 12 FlipBit Read 8",
        "opening 30 Eio Read 4",
        "full 1 0",
    ];
    for (seed, case) in (40..).zip(cases) {
        let (first, second) = (run_case(seed, case), run_case(seed, case));
        assert!(first.trace.lines().count() > 100, "{case}: there is little to compare");
        assert!(first.trace == second.trace, "{case}: another trace");
        assert!(run_case(seed + 100, case).trace != first.trace, "{case}: the seed does not matter");
    }
}

#[test]
fn the_text_of_a_case_names_it() {
    let texts = [
        "cut 3 drop-all",
        "cut 9 keep-all",
        "cut 1 variant Block Any 7",
        "recovering 5 Eio Lookup 2",
        "opening 7 Eio Read 3",
        "full 1 0",
    ];
    for text in texts.into_iter().chain(REGRESSIONS.map(|(_, text)| text)) {
        assert_eq!(Case::parse(text).map(|case| case.to_string()).as_deref(), Some(text));
    }
    assert_eq!(Case::parse("cut 3 variant Block 7"), None);
    assert_eq!(Case::parse("cut three drop-all"), None);
}

#[test]
fn a_case_that_is_run_again_shows_what_happened_on_the_disk() {
    let report = run_case(1, "cut 20 sampled Sector Ordered 5");
    assert!(report.violations.is_empty() && report.trace.contains("= power off"));
}

/// A store with batches of the given lengths, and what a reader of all of it finds.
fn told(batches: &[u64], mode: FlushMode) -> (Oracle, Seen) {
    let mut oracle = Oracle::new();
    oracle.opened(&Seen::default(), mode, Lsn(1)).expect("an empty store is an empty store");
    let mut seen = Seen::default();
    for (at_ns, &length) in (10..).zip(batches) {
        let first = oracle.last_lsn() + 1;
        let lsns = LsnRange { first: Lsn(first), last: Lsn(first + length - 1) };
        let payloads: Vec<Rc<[u8]>> = (first..first + length).map(|lsn| lsn.to_le_bytes().into()).collect();
        let found = (0..).zip(&payloads).map(|(index, payload)| Found {
            lsn: first + index,
            timestamp_ns: at_ns * 1000 + index,
            payload: payload.to_vec(),
        });
        seen.entries.extend(found);
        oracle.submitted(lsns, payloads, (0, at_ns), (at_ns * 1000, at_ns)).expect("the LSNs are due");
        oracle.confirmed(lsns, mode, at_ns);
    }
    (oracle, seen)
}

fn opened(mut oracle: Oracle, seen: &Seen, next_lsn: u64) -> Result<Oracle, Violation> {
    oracle.ended(20);
    oracle.opened(seen, FlushMode::Cautious, Lsn(next_lsn)).map(|()| oracle)
}

fn gap(first: u64) -> Vec<Gap> {
    vec![Gap { first: Lsn(first), last: Lsn(first + 48), cause: GapCause::UncleanNormal }]
}

#[test]
fn the_oracle_accepts_what_was_told_and_nothing_else() {
    let (oracle, seen) = told(&[1, 2, 1], FlushMode::Cautious);
    assert!(opened(oracle.clone(), &seen, 5).is_ok());
    let broken = |how: fn(&mut Seen)| {
        let mut other = seen.clone();
        how(&mut other);
        assert!(opened(oracle.clone(), &other, 5).is_err(), "{other:?}");
    };
    broken(|seen| drop(seen.entries.pop()));
    broken(|seen| drop(seen.entries.remove(1)));
    broken(|seen| seen.entries.swap(1, 2));
    broken(|seen| seen.entries[1].payload[0] ^= 1);
    broken(|seen| seen.entries[1].timestamp_ns += 1);
    broken(|seen| seen.entries.push(Found { lsn: 5, timestamp_ns: 0, payload: Vec::new() }));
    broken(|seen| seen.gaps = gap(5));
    assert!(opened(oracle.clone(), &seen, 6).is_err(), "an LSN is skipped");
    assert!(opened(oracle, &seen, 4).is_err(), "an LSN is given again");
}

#[test]
fn the_oracle_lets_normal_mode_lose_49_entries_into_a_gap() {
    let (oracle, mut seen) = told(&[1; 50], FlushMode::Normal);
    seen.entries.truncate(1);
    assert!(opened(oracle.clone(), &seen, 2).is_err(), "without a gap");
    seen.gaps = gap(2);
    let after = opened(oracle.clone(), &seen, 51).expect("49 confirmed entries are lost, into a gap");
    assert!(opened(after.clone(), &Seen { gaps: Vec::new(), ..seen.clone() }, 51).is_err(), "it is forgotten");
    assert!(opened(after, &seen, 51).is_ok());
    let mut settled = oracle.clone();
    settled.settled(2);
    assert!(opened(settled, &seen, 51).is_err(), "one of them had been synced");
    let mut late = oracle.clone();
    late.ended(2_000_000_000);
    assert!(late.opened(&seen, FlushMode::Cautious, Lsn(51)).is_err(), "they had been confirmed for too long");
    seen.entries.clear();
    seen.gaps = gap(1);
    assert!(opened(oracle, &seen, 50).is_err(), "50 are too many");
}

#[test]
fn the_oracle_wants_batches_whole_and_their_checkpoints_in_step() {
    let mut oracle = Oracle::new();
    oracle.opened(&Seen::default(), FlushMode::Cautious, Lsn(1)).expect("an empty store is an empty store");
    let payload: Rc<[u8]> = Rc::from(*b"till");
    let found = |lsn, timestamp_ns| Found { lsn, timestamp_ns, payload: b"till".to_vec() };
    let lsns = |first, last| LsnRange { first: Lsn(first), last: Lsn(last) };
    oracle.submitted(lsns(1, 1), vec![payload.clone()], (7, 1), (10, 1)).expect("the LSN is due");
    oracle.submitted(lsns(2, 3), vec![payload; 2], (7, 2), (20, 2)).expect("the LSNs are due");
    let mut seen = Seen { entries: vec![found(1, 10), found(2, 20)], ..Seen::default() };
    assert!(opened(oracle.clone(), &seen, 3).is_err(), "half a batch");
    seen.entries.pop();
    let after = opened(oracle, &seen, 2).expect("nothing was confirmed");
    let checkpoint = |value: u64| [(vec![7], value.to_le_bytes().to_vec())].into();
    assert!(after.check_checkpoints(&checkpoint(1)).is_ok());
    assert!(after.check_checkpoints(&checkpoint(2)).is_err(), "of a batch that is lost");
}
