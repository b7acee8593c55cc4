//! Which neighbouring tables to merge next: size-tiered, by powers of the threshold.
//!
//! A table's **tier** is the whole part of the logarithm of its length to the base of the threshold. As soon as
//! `threshold` tables of one tier lie side by side, with nothing but smaller ones between or beside them, all of these
//! are merged. The result is of a higher tier than each of them: that bounds how often a byte is rewritten, for any
//! sequence of sizes. What remains beside the result is larger than what was merged: that bounds the number of tables.
//!
//! A table longer than half of `table_bytes_max` is **full**: it is never merged again, and ends a run of neighbours. So
//! the space a merge needs beside its inputs is bounded, retention can drop the old end of a large store, and what a
//! reader loads of one table's index stays small.

use std::ops::Range;

/// When tables are merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Policy {
    /// Tables of one tier that are merged into one: 2 to 64.
    pub(crate) threshold: usize,
    /// Longest table that a merge is allowed to make, in bytes.
    pub(crate) table_bytes_max: u64,
}

impl Policy {
    /// Longest table that a merge makes unless told otherwise: 128 MiB. With the default threshold and memtable, two merges
    /// take an entry into a full table. Who looks for one entry reads the index of its table: 64 bytes for each 64 KiB of
    /// entries before compression.
    pub(crate) const TABLE_BYTES_MAX: u64 = 128 << 20;

    fn tier(&self, table_bytes: u64) -> u32 {
        table_bytes.max(1).ilog(self.threshold as u64)
    }

    fn is_full(&self, table_bytes: u64) -> bool {
        table_bytes > self.table_bytes_max / 2
    }
}

/// The run of neighbours to merge next, as positions in `table_bytes` (lengths of all live tables, in LSN order), or
/// none. The cheapest merge comes first; at least two tables, at most `table_bytes_max` bytes in sum.
pub(crate) fn pick(table_bytes: &[u64], policy: &Policy) -> Option<Range<usize>> {
    assert!(policy.threshold >= 2, "a merge needs at least two tables");
    let mut tiers: Vec<u32> =
        table_bytes.iter().filter(|&&bytes| !policy.is_full(bytes)).map(|&bytes| policy.tier(bytes)).collect();
    tiers.sort_unstable();
    tiers.dedup();
    tiers.iter().find_map(|&tier| {
        let run = runs(table_bytes, policy, tier).find(|run| {
            let peers = table_bytes[run.clone()].iter().filter(|&&bytes| policy.tier(bytes) == tier).count();
            peers >= policy.threshold
        })?;
        Some(shorten(run, table_bytes, policy))
    })
}

/// The longest runs of neighbours that are neither full nor above this tier.
fn runs(table_bytes: &[u64], policy: &Policy, tier: u32) -> impl Iterator<Item = Range<usize>> {
    let mergeable = move |&at: &usize| !policy.is_full(table_bytes[at]) && policy.tier(table_bytes[at]) <= tier;
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = (at..table_bytes.len()).find(mergeable)?;
        let end = (start..table_bytes.len()).find(|at| !mergeable(at)).unwrap_or(table_bytes.len());
        at = end;
        Some(start..end)
    })
}

/// The oldest part of a run that stays within the longest table. Where it is cut, its sum is above half of that (what is
/// not full is shorter than the other half), so the result is full: this part is rewritten for the last time.
fn shorten(run: Range<usize>, table_bytes: &[u64], policy: &Policy) -> Range<usize> {
    let mut sum = 0_u64;
    let fitting = table_bytes[run.clone()].iter().take_while(|&&bytes| {
        sum = sum.saturating_add(bytes);
        sum <= policy.table_bytes_max
    });
    run.start..run.start + fitting.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(threshold: usize) -> Policy {
        Policy { threshold, table_bytes_max: u64::MAX }
    }

    /// Flushes tables of these sizes and merges after each until there is nothing to merge. Yields the tables, the most
    /// there ever were at rest, and the bytes that merges wrote.
    fn simulate(flushes: impl Iterator<Item = u64>, policy: &Policy) -> (Vec<u64>, usize, u64) {
        let (mut tables, mut tables_max, mut rewritten) = (Vec::new(), 0, 0);
        for bytes in flushes {
            tables.push(bytes);
            while let Some(run) = pick(&tables, policy) {
                assert!(run.len() >= 2);
                let merged = tables[run.clone()].iter().sum();
                assert!(merged <= policy.table_bytes_max);
                let highest = tables[run.clone()].iter().map(|&bytes| policy.tier(bytes)).max();
                assert!(policy.is_full(merged) || highest < Some(policy.tier(merged)), "every byte rises a tier");
                rewritten += merged;
                tables.splice(run, [merged]);
            }
            tables_max = tables_max.max(tables.len());
        }
        (tables, tables_max, rewritten)
    }

    #[test]
    fn waits_for_the_threshold_and_takes_neighbours_of_one_tier() {
        let policy = policy(4);
        assert_eq!(pick(&[], &policy), None);
        assert_eq!(pick(&[100; 3], &policy), None);
        assert_eq!(pick(&[100; 4], &policy), Some(0..4));
        assert_eq!(pick(&[400, 400, 400, 100, 100, 100], &policy), None, "a large one is not rewritten for small ones");
        assert_eq!(pick(&[400, 100, 100, 100, 100], &policy), Some(1..5));
        assert_eq!(pick(&[100, 100, 5000, 100, 100], &policy), None, "only neighbours");
    }

    #[test]
    fn small_tables_between_and_beside_larger_ones_go_along() {
        assert_eq!(pick(&[9000, 20, 400, 20, 20, 400, 400, 400, 20], &policy(4)), Some(1..9));
    }

    #[test]
    fn the_cheapest_merge_comes_first() {
        assert_eq!(pick(&[400, 400, 400, 400, 100, 100, 100, 100], &policy(4)), Some(4..8));
    }

    #[test]
    fn a_full_table_is_left_alone_and_a_merge_stays_within_the_limit() {
        let policy = Policy { threshold: 4, table_bytes_max: 1000 };
        assert_eq!(pick(&[501, 501, 501, 501], &policy), None);
        assert_eq!(pick(&[300, 300, 300, 300], &policy), Some(0..3), "the fourth would make it longer than 1000");
        assert_eq!(pick(&[300, 300, 501, 300, 300], &policy), None);
    }

    #[test]
    fn ten_thousand_equal_flushes_cost_a_logarithm() {
        const FLUSHES: u64 = 10_000;
        const BYTES: u64 = 1_500_000;
        for threshold in [2, 4, 10, 64] {
            let (tables, tables_max, rewritten) = simulate((0..FLUSHES).map(|_| BYTES), &policy(threshold));
            assert_eq!(tables.iter().sum::<u64>(), FLUSHES * BYTES, "nothing is lost");
            let levels = u64::from(FLUSHES.ilog(threshold as u64)) + 1;
            assert!(rewritten <= levels * FLUSHES * BYTES, "{rewritten} bytes rewritten with threshold {threshold}");
            assert!(tables_max <= threshold * levels as usize, "{tables_max} tables with threshold {threshold}");
            assert!(rewritten >= FLUSHES * BYTES / 2, "merges happen");
        }
    }

    #[test]
    fn flushes_of_any_size_cost_a_logarithm_too() {
        let mut seed = 7_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        let flushes: Vec<u64> = (0..10_000).map(|_| (12_288 << (random() % 9)) + random() % 12_288).collect();
        let total: u64 = flushes.iter().sum();
        for threshold in [2, 4, 10, 64] {
            let policy = policy(threshold);
            let (tables, tables_max, rewritten) = simulate(flushes.iter().copied(), &policy);
            assert_eq!(tables.iter().sum::<u64>(), total);
            let tiers = u64::from(policy.tier(total) - policy.tier(12_288)) + 1;
            assert!(rewritten <= tiers * total, "{rewritten} of {total} bytes with threshold {threshold}");
            assert!(tables_max <= 3 * threshold * tiers as usize, "{tables_max} tables with threshold {threshold}");
        }
    }

    #[test]
    fn with_a_limit_a_large_store_is_full_tables_and_a_logarithm_of_others() {
        let policy = Policy { threshold: 8, table_bytes_max: Policy::TABLE_BYTES_MAX };
        let (tables, _, rewritten) = simulate((0..10_000).map(|_| 1_900_000), &policy);
        let total = 10_000 * 1_900_000;
        let full = tables.iter().filter(|&&bytes| policy.is_full(bytes)).count();
        assert!(full <= (total / (Policy::TABLE_BYTES_MAX / 2)) as usize);
        assert!(tables.len() - full <= 8 * 2, "{} tables, {full} of them full", tables.len());
        assert!(rewritten <= 2 * total, "{rewritten} of {total} bytes");
    }
}
