//! LSNs that normal mode confirms ahead of durable are never given twice, and never taken for damage.

use super::*;
use crate::format::{GapCause, Lsn};

/// Normal mode; a flush releases every segment but the newest, whose header is durable and whose groups are not: the
/// group that declared normal mode went with the others. After a power cut only the header can tell that entries behind
/// it may have been confirmed. Without that there is no gap, and confirmed LSNs are given again.
#[test]
fn a_segment_of_which_only_the_header_survives_remembers_normal_mode() {
    for seed in 0..4 {
        let mut life = Life::open(&SimDisk::new(seed), normal());
        while life.core.manifest.current().tables.is_empty() || life.core.maintenance.frozen_count() > 0 {
            match life.core.maintenance.frozen_count() {
                0 => _ = life.append_each(1, 10),
                // The flush goes on; nobody appends.
                _ => life.step(),
            }
        }
        let (confirmed, durable) = (life.core.wal.books.released_lsn, life.core.wal.books.durable_lsn);
        assert!(life.core.wal.live.len() == 1 && durable < confirmed, "seed {seed}: {durable} of {confirmed}");
        let disk = life.lose_all_but_the_durable();
        let next = Life::open(&disk, normal()).core.shared().open_first_lsn();
        assert!(next > confirmed, "seed {seed}: {next} of {confirmed} confirmed is given again");
        let gap = Gap { first: durable.next(), last: next.prev(), cause: GapCause::UncleanNormal };
        assert_eq!(gaps(&disk), [gap], "seed {seed}");
    }
}

/// Normal mode, power cut: recovery skips LSNs 51 to 99, in the header of a segment that gets no group. Another cut; then
/// a flush whose last entry is LSN 50 releases the segment that carried the gap, and the log goes on at LSN 100. The
/// manifest knows the gap; replay must believe it, or every open from now on reports LSN 51 missing.
#[test]
fn a_gap_between_the_tables_and_the_log_is_explained_by_the_manifest() {
    let small = || Options { memtable_bytes: 32 << 10, ..cautious() };
    let mut life = Life::open(&SimDisk::new(3), normal());
    assert_eq!(life.append_each(50, 1000), 50);
    let disk = life.lose_power();
    let disk = Life::open(&disk, small()).lose_all_but_the_durable();
    let mut life = Life::open(&disk, small());
    assert_eq!(life.append_each(1, 10), 100);
    life.steps(400);
    assert_eq!(life.stats().checkpoint_lsn, Lsn(50), "the flush is done");
    life.close();
    Life::open(&disk, small());
    assert_eq!(gaps(&disk), [Gap { first: Lsn(51), last: Lsn(99), cause: GapCause::UncleanNormal }]);
    assert_eq!(lsns(&disk), (1..=50).chain([100]).collect::<Vec<_>>());
}

/// A life in which normal mode is declared durably and nothing is at risk.
fn declared() -> Life {
    let mut life = Life::open(&SimDisk::new(5), normal());
    life.append_each(1, 10);
    life.rest();
    life
}

/// Confirmed without a turn of the reactor: 49 entries ahead of durable, not one more. After a power cut they lie in the gap.
#[test]
fn forty_nine_entries_are_confirmed_when_they_are_staged() {
    let mut life = declared();
    let durable = life.core.wal.books.durable_lsn.0;
    let staged: Vec<(u64, u64)> = (0..60).map(|_| life.stage(1, 10)).collect();
    let confirmed = |life: &Life| staged.iter().filter(|&&(seq, last)| life.is_told(seq, last)).count();
    assert_eq!(confirmed(&life), 49);
    assert_eq!(life.core.shared().confirmed_lsn(), Lsn(durable + 49));
    life.steps(40);
    assert_eq!(confirmed(&life), 60, "the others when there is room again");

    let disk = declared_and_cut(49);
    assert_eq!(gaps(&disk), [Gap { first: Lsn(2), last: Lsn(50), cause: GapCause::UncleanNormal }]);
}

fn declared_and_cut(entries: usize) -> SimDisk {
    let mut life = declared();
    for _ in 0..entries {
        let (seq, last) = life.stage(1, 10);
        assert!(life.is_told(seq, last));
    }
    let disk = life.lose_all_but_the_durable();
    Life::open(&disk, normal());
    disk
}

/// What is staged behind a request waits for it, which can take for ever on a full disk.
#[test]
fn nothing_is_confirmed_ahead_behind_a_request() {
    let mut life = declared();
    let (before, before_last) = life.stage(1, 10);
    let asked = life.core.shared().request(Request::Sync).expect("the log is open");
    let (behind, behind_last) = life.stage(1, 10);
    assert!(life.is_told(before, before_last) && !life.is_told(behind, behind_last));
    life.steps(40);
    assert!(asked.try_take().is_some() && life.is_told(behind, behind_last));
}

/// A batch that may not fit into what is left of the segment may have to wait for space.
#[test]
fn a_batch_beyond_the_room_promised_is_not_confirmed_ahead() {
    let mut life = declared();
    let (seq, last) = life.stage(1, 60 << 10);
    assert!(!life.is_told(seq, last));
    life.steps(200);
    assert!(life.is_told(seq, last));
}

#[test]
fn nothing_is_confirmed_ahead_in_cautious_mode_or_before_normal_is_declared() {
    for options in [cautious(), normal()] {
        let mut life = Life::open(&SimDisk::new(5), options);
        life.steps(100);
        let (seq, last) = life.stage(1, 10);
        assert!(!life.is_told(seq, last));
        life.steps(100);
        assert!(life.is_told(seq, last));
    }
}
