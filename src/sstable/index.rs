//! The sparse index of an open table: which blocks a range touches.

use std::ops::RangeInclusive;

use crate::format::Lsn;
use crate::format::table::IndexEntry;

/// One entry per block, in LSN order; never empty. Ordered and gapless, because only a checked meta section yields one.
pub(super) struct Index(pub(super) Vec<IndexEntry>);

impl Index {
    /// Numbers of the blocks that may hold an entry inside both ranges, in LSN order; from the back for a descending scan.
    ///
    /// By LSN this is a binary search. Time may go back from block to block where the clock was wrong, so within the LSN
    /// range each block's time range is looked at: in memory, a few nanoseconds each, and only as far as the caller pulls.
    pub(super) fn blocks(
        &self,
        lsns: RangeInclusive<Lsn>,
        times_ns: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = usize> + use<'_> {
        let first = self.0.partition_point(|block| block.span.last_lsn < *lsns.start());
        let behind = self.0.partition_point(|block| block.span.first_lsn <= *lsns.end());
        (first..behind).filter(move |&block| {
            let span = &self.0[block].span;
            span.min_timestamp_ns <= *times_ns.end() && *times_ns.start() <= span.max_timestamp_ns
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::table::Span;

    /// Three blocks; the one in the middle was written while the clock stood in 1970.
    fn displaced() -> Index {
        let block = |first: u64, last: u64, min_timestamp_ns, max_timestamp_ns| {
            let span =
                Span { entry_count: 2, first_lsn: Lsn(first), last_lsn: Lsn(last), min_timestamp_ns, max_timestamp_ns };
            IndexEntry { offset: 0, block_bytes: 0, crc: 0, span }
        };
        Index(vec![block(10, 19, 1000, 1100), block(20, 29, 5, 7), block(40, 49, 1101, 1200)])
    }

    #[track_caller]
    fn assert_blocks(lsns: RangeInclusive<u64>, times_ns: RangeInclusive<u64>, expected: &[usize]) {
        let index = displaced();
        let blocks = || index.blocks(Lsn(*lsns.start())..=Lsn(*lsns.end()), times_ns.clone());
        assert_eq!(blocks().collect::<Vec<_>>(), expected);
        let mut reversed: Vec<_> = blocks().rev().collect();
        reversed.reverse();
        assert_eq!(reversed, expected);
    }

    #[test]
    fn by_lsn_both_ends_belong_to_the_range() {
        let any_time = 0..=u64::MAX;
        assert_blocks(0..=u64::MAX, any_time.clone(), &[0, 1, 2]);
        assert_blocks(0..=9, any_time.clone(), &[]);
        assert_blocks(0..=10, any_time.clone(), &[0]);
        assert_blocks(19..=20, any_time.clone(), &[0, 1]);
        assert_blocks(30..=39, any_time.clone(), &[]);
        assert_blocks(29..=40, any_time.clone(), &[1, 2]);
        assert_blocks(50..=u64::MAX, any_time.clone(), &[]);
        #[expect(clippy::reversed_empty_ranges, reason = "an empty range is a legal question")]
        assert_blocks(49..=10, any_time, &[]);
    }

    #[test]
    fn by_time_finds_what_a_bad_clock_displaced_and_skips_the_rest() {
        let any_lsn = 0..=u64::MAX;
        assert_blocks(any_lsn.clone(), 0..=4, &[]);
        assert_blocks(any_lsn.clone(), 7..=1000, &[0, 1]);
        assert_blocks(any_lsn.clone(), 8..=999, &[]);
        assert_blocks(any_lsn.clone(), 1100..=1101, &[0, 2]);
        assert_blocks(any_lsn, 1201..=u64::MAX, &[]);
        assert_blocks(20..=49, 5..=2000, &[1, 2]);
    }
}
