//! Raw and engine slices in turns, and the ratio of neighbours.

use std::time::Duration;

/// How much was done in which time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Rate {
    /// Blocks, entries or bytes.
    pub count: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Rate {
    /// How much was done in a second; 0 where no time passed.
    pub fn per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.count as f64 / seconds } else { 0.0 }
    }
}

/// What turns came to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Measured {
    /// Median of the subject's own figures.
    pub value: f64,
    /// Median of the raw figures of the same run.
    pub raw: f64,
    /// Median of the ratios to the raw slices on both sides.
    pub ratio: f64,
}

/// A slice of work: says how much it did per second.
pub type Slice<'a, E> = &'a mut dyn FnMut() -> Result<f64, E>;

/// Runs `raw`, then each of the subjects with another `raw` behind it, `rounds` times over.
///
/// # Errors
/// The first one of a slice.
pub fn turns<E>(rounds: usize, raw: Slice<'_, E>, subjects: &mut [Slice<'_, E>]) -> Result<Vec<Measured>, E> {
    let mut raws = vec![raw()?];
    let mut values = vec![Vec::new(); subjects.len()];
    let mut ratios = vec![Vec::new(); subjects.len()];
    for _ in 0..rounds {
        for (at, subject) in subjects.iter_mut().enumerate() {
            let before = raws[raws.len() - 1];
            let value = subject()?;
            let behind = raw()?;
            raws.push(behind);
            values[at].push(value);
            ratios[at].push(value / ((before + behind) / 2.0));
        }
    }
    let raw = median(&mut raws);
    let measured = values.iter_mut().zip(&mut ratios);
    Ok(measured.map(|(values, ratios)| Measured { value: median(values), raw, ratio: median(ratios) }).collect())
}

/// The middle of some numbers; 0 of none.
pub fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => numbers[odd / 2],
        even => (numbers[even / 2 - 1] + numbers[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_machine_that_slows_down_does_not_change_the_ratio() {
        let speed = std::cell::Cell::new(1000.0);
        let slower = || {
            speed.set(speed.get() * 0.8);
            speed.get()
        };
        let mut raw = || Ok::<_, Infallible>(slower());
        let mut twice = || Ok(2.0 * slower());
        let mut half = || Ok(0.5 * slower());
        let Ok(measured) = turns(4, &mut raw, &mut [&mut twice, &mut half]);
        // Each subject runs between two raw slices of 1/0.8 and 0.8 times its own speed: their mean is 1.025.
        assert!((measured[0].ratio - 2.0 / 1.025).abs() < 1e-9, "{measured:?}");
        assert!((measured[1].ratio - 0.5 / 1.025).abs() < 1e-9, "{measured:?}");
    }

    #[test]
    fn the_middle() {
        assert_eq!(median(&mut []), 0.0);
        assert_eq!(median(&mut [3.0]), 3.0);
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 9.0, 2.0]), 3.0);
    }
}
