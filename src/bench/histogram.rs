//! Latencies in bounded memory: buckets of equal relative width.

use std::time::Duration;

/// Buckets per power of two: a value is known to 1/32, about 3 %.
const STEPS: usize = 32;
const STEPS_LOG: u32 = STEPS.trailing_zeros();

/// Counts durations; 15 KiB however many there are.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: vec![0; bucket(u64::MAX) + 1], count: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, latency: Duration) {
        self.buckets[bucket(latency.as_nanos().min(u128::from(u64::MAX)) as u64)] += 1;
        self.count += 1;
    }

    /// Adds another one's counts.
    pub fn merge(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The latency that the part `quantile` (0 to 1) does not exceed, to within 3 %; zero where nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = ((self.count as f64 * quantile).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let found = self.buckets.iter().position(|&count| {
            seen += count;
            seen >= rank
        });
        Duration::from_nanos(found.map_or(0, middle))
    }
}

/// Values below [`STEPS`] have a bucket each; above, every power of two has [`STEPS`].
fn bucket(ns: u64) -> usize {
    let power = (ns | 1).ilog2();
    if power < STEPS_LOG {
        return ns as usize;
    }
    let shift = power - STEPS_LOG;
    ((shift as usize + 1) << STEPS_LOG) + (ns >> shift) as usize - STEPS
}

/// A value inside the bucket.
fn middle(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = (bucket >> STEPS_LOG) - 1;
    let low = ((STEPS + bucket % STEPS) as u64) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_own_middle_and_is_narrow() {
        let mut values: Vec<u64> = (0..64).map(|power| 1 << power).collect();
        values.extend([0, 3, 31, 33, 63, 65, 62_500, 1_000_003, u64::MAX]);
        for value in values {
            let middle = middle(bucket(value));
            assert_eq!(bucket(middle), bucket(value), "{value}");
            assert!(middle.abs_diff(value) <= value / STEPS as u64, "{value} is taken for {middle}");
        }
    }

    #[test]
    fn quantiles_of_a_thousand_steps() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (1..=500).for_each(|us| histogram.add(Duration::from_micros(us)));
        let mut other = Histogram::default();
        (501..=1000).for_each(|us| other.add(Duration::from_micros(us)));
        histogram.merge(&other);
        assert_eq!(histogram.count(), 1000);
        for (quantile, us) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.quantile(quantile).as_secs_f64() * 1e6;
            assert!((found - us).abs() <= us / 30.0, "p{quantile} is {found}");
        }
    }
}
