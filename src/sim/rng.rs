//! Random numbers that a seed decides: the only source of chance in the simulator.
//!
//! xoshiro256** 1.0 by Blackman and Vigna, its state filled by SplitMix64 (both in the public domain,
//! <https://prng.di.unimi.it>). Good enough to choose by, not for secrets. The sequence for a seed never changes:
//! seeds of past failures are kept as regressions.

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Rng([u64; 4]);

/// One step of SplitMix64: moves `state` on and returns the number drawn.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The sequence that `seed` names; every seed is a good one.
    pub(crate) fn new(seed: u64) -> Rng {
        let mut state = seed;
        Rng(std::array::from_fn(|_| split_mix(&mut state)))
    }

    /// Any number.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let drawn = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        drawn
    }

    /// A number below `bound`, which must not be 0. The bias is at most `bound / 2^64`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True in one of two cases.
    pub(crate) fn coin(&mut self) -> bool {
        self.next_u64() >> 63 == 1
    }

    /// True in `hits` of `of` cases.
    pub(crate) fn chance(&mut self, hits: u64, of: u64) -> bool {
        self.below(of) < hits
    }

    /// An independent sequence that this one's state and `tag` decide; drawing from it does not move this one on.
    pub(crate) fn fork(&self, tag: u64) -> Rng {
        let mut from = self.clone();
        Rng::new(from.next_u64() ^ tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_the_published_sequences() {
        let mut state = 1_234_567;
        assert_eq!([0; 2].map(|_| split_mix(&mut state)), [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        let mut rng = Rng([1, 2, 3, 4]);
        assert_eq!([0; 4].map(|_| rng.next_u64()), [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn stays_below_its_bound_and_reaches_all_of_it() {
        let mut rng = Rng::new(7);
        let mut seen = [false; 10];
        (0..1000).for_each(|_| seen[rng.below(10) as usize] = true);
        assert_eq!(seen, [true; 10]);
    }

    #[test]
    fn a_fork_does_not_move_its_origin_on() {
        let (mut plain, mut forked) = (Rng::new(3), Rng::new(3));
        let mut branch = forked.fork(1);
        assert_ne!(branch.next_u64(), forked.fork(2).next_u64());
        assert_eq!(plain.next_u64(), forked.next_u64());
    }
}
