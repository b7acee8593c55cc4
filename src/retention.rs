//! What may be deleted, and when: whole tables, oldest first. Pure.
//!
//! - Nothing is deleted unasked: without limits there is nothing to do.
//! - Tables go from the oldest on, without leaving one out: what is kept has no hole but those that were there.
//! - The newest table always stays, and so does everything that is not in a table yet. It carries what a lost manifest is
//!   rebuilt from, and the last timestamp.
//! - Age never deletes on an unproven clock: after a start, and after a step of the wall clock, it waits until wall time has
//!   kept pace with monotonic time for a day ([`ClockProof`]). What an operator asks for by hand is not held back.
//!
//! Not here: the manifest edit and the unlinking (`reactor::retain`).
//!
//! Proof: the tests below, and `reactor::tests::retention`.

use std::time::Duration;

use crate::format::Lsn;
use crate::format::manifest::TableMeta;

/// How long wall time must have kept pace before age deletes.
const PROOF_NS: u64 = 86_400_000_000_000;
/// Least difference between the two clocks that is a step.
const STEP_NS: u64 = 1_000_000_000;
/// Clocks that are slewed run apart by at most a thousandth.
const SLEW_DIVISOR: u64 = 1000;

/// When tables are deleted by themselves; `None` is never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Limits {
    /// Older than this.
    pub(crate) max_age: Option<Duration>,
    /// The store is longer than this, in bytes.
    pub(crate) max_bytes: Option<u64>,
    /// The file system has less room than this, in bytes.
    pub(crate) min_free_bytes: Option<u64>,
}

impl Limits {
    /// Whether nothing is ever deleted.
    pub(crate) fn is_off(&self) -> bool {
        *self == Limits::default()
    }

    /// Longest table that a merge should make, so that what is deleted at once is a small part of what is kept.
    pub(crate) fn table_bytes_max(&self, without: u64) -> u64 {
        self.max_bytes.map_or(without, |max| without.min(max / 8))
    }

    /// Whether a table spans so much time that merging it with another would keep entries for much longer than asked for.
    /// One that spans far more than is kept at all has a wrong clock in it, which is no reason to leave it alone.
    pub(crate) fn is_long(&self, table: &TableMeta) -> bool {
        let span_ns = u128::from(table.max_timestamp_ns - table.min_timestamp_ns);
        self.max_age.is_some_and(|age| (age.as_nanos() / 8..age.as_nanos() * 2).contains(&span_ns))
    }
}

/// What is to be reached by deleting tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Goal {
    /// No table is left whose newest entry is older than this, in nanoseconds since the Unix epoch.
    pub(crate) not_before_ns: Option<u64>,
    /// Files of at least so many bytes are gone.
    pub(crate) bytes_to_free: u64,
}

/// How many of the oldest tables are to be deleted.
pub(crate) fn count(tables: &[TableMeta], goal: &Goal) -> usize {
    let mut freed = 0_u64;
    let droppable = tables.len().saturating_sub(1);
    let dropped = tables[..droppable].iter().take_while(|table| {
        let is_old = goal.not_before_ns.is_some_and(|ns| table.max_timestamp_ns < ns);
        let is_wanted = is_old || freed < goal.bytes_to_free;
        freed = freed.saturating_add(table.file_bytes);
        is_wanted
    });
    dropped.count()
}

/// Watches whether the wall clock keeps pace with the monotonic one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ClockProof {
    /// Wall and monotonic time when they were last compared, and the monotonic time since when they agree.
    last: Option<(u64, u64, u64)>,
}

impl ClockProof {
    /// Compares the clocks; whether they have kept pace for a day.
    pub(crate) fn observe(&mut self, wall_ns: u64, mono_ns: u64) -> bool {
        let since_ns = match self.last {
            Some((last_wall_ns, last_mono_ns, since_ns)) => {
                let passed_ns = mono_ns.saturating_sub(last_mono_ns);
                let is_step =
                    last_wall_ns.saturating_add(passed_ns).abs_diff(wall_ns) > STEP_NS + passed_ns / SLEW_DIVISOR;
                if is_step { mono_ns } else { since_ns }
            }
            None => mono_ns,
        };
        self.last = Some((wall_ns, mono_ns, since_ns));
        mono_ns - since_ns >= PROOF_NS
    }
}

/// What one deletion came to, or would come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Deleted {
    pub(crate) tables: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Smallest LSN that is left.
    pub(crate) floor_lsn: Lsn,
    /// Largest timestamp of the newest table that was deleted; 0: none was.
    pub(crate) until_ns: u64,
}

impl Deleted {
    /// Of these tables, oldest first, under this floor.
    pub(crate) fn of(tables: &[TableMeta], floor_lsn: Lsn) -> Deleted {
        Deleted {
            tables: tables.len() as u64,
            entries: tables.iter().map(|table| table.entry_count).sum(),
            bytes: tables.iter().map(|table| table.file_bytes).sum(),
            floor_lsn: tables.last().map_or(floor_lsn, |table| table.last_lsn.next()),
            until_ns: tables.last().map_or(0, |table| table.max_timestamp_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_NS: u64 = PROOF_NS;

    fn table(number: u64, bytes: u64) -> TableMeta {
        TableMeta {
            id: number,
            first_lsn: Lsn(number * 10),
            last_lsn: Lsn(number * 10 + 9),
            min_timestamp_ns: number * DAY_NS,
            max_timestamp_ns: (number + 1) * DAY_NS - 1,
            entry_count: 10,
            file_bytes: bytes,
            checksum: 0,
        }
    }

    fn tables() -> Vec<TableMeta> {
        (1..=5).map(|number| table(number, 100)).collect()
    }

    fn by_age(not_before_ns: u64) -> usize {
        count(&tables(), &Goal { not_before_ns: Some(not_before_ns), bytes_to_free: 0 })
    }

    fn by_bytes(bytes_to_free: u64) -> usize {
        count(&tables(), &Goal { not_before_ns: None, bytes_to_free })
    }

    #[test]
    fn a_table_goes_when_its_newest_entry_is_too_old_and_the_newest_table_never() {
        assert_eq!((by_age(0), by_age(2 * DAY_NS - 1), by_age(2 * DAY_NS)), (0, 0, 1));
        assert_eq!((by_age(4 * DAY_NS), by_age(u64::MAX)), (3, 4));
        assert_eq!(count(&[], &Goal { not_before_ns: Some(u64::MAX), bytes_to_free: u64::MAX }), 0);
    }

    #[test]
    fn as_many_tables_go_as_have_the_bytes() {
        assert_eq!((by_bytes(0), by_bytes(1), by_bytes(100), by_bytes(101), by_bytes(u64::MAX)), (0, 1, 1, 2, 4));
    }

    #[test]
    fn what_an_old_clock_displaced_waits_for_what_lies_before_it() {
        let mut tables = tables();
        tables[0].max_timestamp_ns = 100 * DAY_NS;
        assert_eq!(count(&tables, &Goal { not_before_ns: Some(5 * DAY_NS), bytes_to_free: 0 }), 0);
    }

    #[test]
    fn a_clock_is_proven_by_a_day_without_a_step() {
        let mut proof = ClockProof::default();
        let minute = DAY_NS / 1440;
        let mut wall = 1_000 * DAY_NS;
        let mut run = |proof: &mut ClockProof, from: u64, minutes: u64, step: i64| {
            wall = wall.saturating_add_signed(step);
            let mut proven = false;
            for at in from..from + minutes {
                wall += minute;
                proven = proof.observe(wall, at * minute);
            }
            proven
        };
        assert!(!run(&mut proof, 0, 1440, 0), "a minute is missing");
        assert!(run(&mut proof, 1440, 1, 0));
        assert!(run(&mut proof, 1441, 1, 900_000_000), "that much is no step");
        assert!(!run(&mut proof, 1442, 1440, -2_000_000_000), "it begins anew behind a step back");
        assert!(run(&mut proof, 2882, 1, 0));
        assert!(!run(&mut proof, 2883, 1, 40 * DAY_NS as i64), "and forward");
    }

    #[test]
    fn tables_are_kept_so_small_that_deletion_is_fine_enough() {
        let limits =
            Limits { max_age: Some(Duration::from_secs(80 * 86_400)), max_bytes: Some(800), ..Limits::default() };
        assert_eq!((limits.table_bytes_max(1 << 30), Limits::default().table_bytes_max(7)), (100, 7));
        let spanning = |days: u64| TableMeta { max_timestamp_ns: (1 + days) * DAY_NS, ..table(1, 1) };
        let is_long: Vec<bool> = [9, 10, 100, 160].map(|days| limits.is_long(&spanning(days))).into();
        assert_eq!(is_long, [false, true, true, false]);
        assert!(!Limits::default().is_long(&spanning(100)));
    }
}
