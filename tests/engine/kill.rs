//! SIGKILL at random moments, again and again: nothing confirmed is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kifa::{Gap, Reader};

use crate::child::{Running, bytes_of, mode_of};
use crate::helper::*;

const LIVES: u64 = 20;

#[test]
fn kills_in_normal_mode() {
    kill_again_and_again(0);
}

#[test]
fn kills_in_cautious_mode() {
    kill_again_and_again(1);
}

#[test]
fn kills_in_emergency_mode() {
    kill_again_and_again(2);
}

fn kill_again_and_again(mode: u64) {
    let dir = temp();
    let (store, out) = (dir.path().join("store"), dir.path().join("told"));
    let seed = 0x5EED_0001 + mode + u64::from(std::process::id()) * 1000;
    println!("{:?}, seed {seed:#x}", mode_of(mode));
    let mut random = Random(seed);
    let mut confirmed = BTreeMap::new();
    for life in 1..=LIVES {
        let mut child = Running::start("append", &store, &out, life << 32 | mode);
        // Some die in recovery, before they confirm anything.
        if life % 4 == 0 {
            std::thread::sleep(Duration::from_millis(random.below(60)));
        } else {
            let before = out.metadata().map_or(0, |metadata| metadata.len());
            child.wait_for(&out, before + 16);
            std::thread::sleep(Duration::from_millis(random.below(250)));
        }
        child.kill(&store);
        confirmed = told(&out);
        check_confirmed(&store, &confirmed, mode, life);
        if life % 3 == 0 {
            open(&store, tiny()).close().unwrap();
            check_confirmed(&store, &confirmed, mode, life);
        }
    }
    open(&store, tiny()).close().unwrap();
    check_confirmed(&store, &confirmed, mode, LIVES);
    check_ids(&store, mode);
    println!("{} entries confirmed", confirmed.len());
    assert!(confirmed.len() > 200, "only {} entries: that was no load", confirmed.len());
}

/// LSN to id, of every confirmation.
fn told(out: &Path) -> BTreeMap<u64, u64> {
    let bytes = std::fs::read(out).unwrap_or_default();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let mut told = BTreeMap::new();
    for pair in bytes.chunks_exact(16) {
        let (lsn, id) = (number(&pair[..8]), number(&pair[8..]));
        assert_eq!(told.insert(lsn, id), None, "LSN {lsn} was confirmed twice");
    }
    told
}

/// Confirmed entries are there under their LSNs; LSNs rise; what is missing lies in a recorded gap.
fn check_confirmed(store: &Path, confirmed: &BTreeMap<u64, u64>, mode: u64, lives: u64) {
    if !store.exists() || Reader::open(store).is_err() && confirmed.is_empty() {
        return;
    }
    let stats = Reader::open(store).unwrap().stats().unwrap();
    let in_gap = |lsn: u64| stats.gaps.iter().any(|gap| (gap.first.0..=gap.last.0).contains(&lsn));
    if mode == 0 {
        let skipped: u64 = stats.gaps.iter().map(|gap: &Gap| gap.last.0 - gap.first.0 + 1).sum();
        assert!(skipped <= 49 * lives, "{skipped} LSNs skipped in {lives} lives");
    } else {
        assert!(stats.gaps.is_empty(), "{:?}", stats.gaps);
    }
    let mut expected = confirmed.iter().peekable();
    let mut before = 0;
    for entry in read_all(store) {
        assert!((before + 1..entry.lsn).all(in_gap), "LSNs {} to {} are missing", before + 1, entry.lsn - 1);
        while let Some((&lost, _)) = expected.next_if(|(lsn, _)| **lsn < entry.lsn) {
            assert!(in_gap(lost), "LSN {lost} was confirmed and is missing");
        }
        let id = id_of(&entry.payload);
        assert!(entry.payload == payload(id, bytes_of(id)), "LSN {} differs", entry.lsn);
        if let Some((lsn, told)) = expected.next_if(|(lsn, _)| **lsn == entry.lsn) {
            assert_eq!(id, *told, "another entry has LSN {lsn}");
        }
        before = entry.lsn;
    }
    let missing = expected.filter(|(lsn, _)| !in_gap(**lsn)).count();
    let may_be_missing = if mode == 0 { 49 } else { 0 };
    assert!(missing <= may_be_missing, "{missing} confirmed entries behind LSN {before} are missing");
}

/// Each entry once, and each thread's in its order; without a hole unless normal mode lost some.
fn check_ids(store: &Path, mode: u64) {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for entry in read_all(store) {
        let id = id_of(&entry.payload);
        let (producer, index) = (id >> 32, id & 0xFFFF_FFFF);
        let expected = last.get(&producer).map_or(0, |last| last + 1);
        assert!(index == expected || mode == 0 && index > expected, "{producer:#x}: {index} follows, not {expected}");
        last.insert(producer, index);
    }
}
