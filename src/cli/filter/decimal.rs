//! Numbers of JSON, compared as the decimals that they are: `100 = 1e2 = 100.00`, and the last digit of a number of any
//! length counts.
//!
//! An exponent beyond ±10^18 is taken for that: such a number is greater, or smaller, than any other either way.

use std::cmp::Ordering;

/// The farthest exponent.
const EXPONENT_MAX: i64 = 1_000_000_000_000_000_000;

/// A number in its text: the sign, and `0.DIGITS` times ten to the power of `magnitude`.
struct Decimal<'t> {
    is_negative: bool,
    /// The digits in front of the point and behind it, without zeros at the beginning; empty for 0.
    digits: (&'t [u8], &'t [u8]),
    magnitude: i64,
}

/// Compares two numbers as JSON writes them.
pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (Decimal::of(left), Decimal::of(right));
    match (left.sign(), right.sign()) {
        (sign, other) if sign != other => sign.cmp(&other),
        (0, _) => Ordering::Equal,
        (-1, _) => right.compare_size(&left),
        _ => left.compare_size(&right),
    }
}

impl<'t> Decimal<'t> {
    fn of(text: &'t str) -> Decimal<'t> {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let digits = if whole.is_empty() { fraction.trim_start_matches('0') } else { fraction };
        // A payload is at most 1 MiB, and the flag of a command not much longer: no sum here comes near the end of an i64.
        let point = if whole.is_empty() { digits.len() as i64 - fraction.len() as i64 } else { whole.len() as i64 };
        let magnitude = parse_exponent(exponent) + point;
        Decimal { is_negative, digits: (whole.as_bytes(), digits.as_bytes()), magnitude }
    }

    /// -1, 0 or 1.
    fn sign(&self) -> i32 {
        match (self.digits, self.is_negative) {
            ((b"", b""), _) => 0,
            (_, true) => -1,
            (_, false) => 1,
        }
    }

    /// Compares without the signs; neither is 0.
    fn compare_size(&self, other: &Decimal<'_>) -> Ordering {
        let digits = |number: &Decimal<'t>| number.digits.0.len() + number.digits.1.len();
        let len = digits(self).max(other.digits.0.len() + other.digits.1.len());
        let padded = std::iter::repeat(&b'0');
        let left = self.digits.0.iter().chain(self.digits.1).chain(padded.clone()).take(len);
        let right = other.digits.0.iter().chain(other.digits.1).chain(padded).take(len);
        self.magnitude.cmp(&other.magnitude).then_with(|| left.cmp(right))
    }
}

fn parse_exponent(text: &str) -> i64 {
    let is_negative = text.starts_with('-');
    let size = text.trim_start_matches(['+', '-']).parse().map_or(EXPONENT_MAX, |size: i64| size.min(EXPONENT_MAX));
    if is_negative { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        let equal = [
            ("100", "1e2"),
            ("100", "100.00"),
            ("100", "0.1E+3"),
            ("0", "-0.000e7"),
            ("-5", "-50e-1"),
            ("0.001", "1e-3"),
            ("10.50", "1.05e1"),
        ];
        for (left, right) in equal {
            assert_eq!(compare(left, right), Ordering::Equal, "{left} {right}");
        }
    }

    #[test]
    fn the_last_digit_counts() {
        let rising = [
            "-1e99999999999999999999999",
            "-1e999",
            "-10.1",
            "-10",
            "-0.1",
            "-1e-999",
            "0",
            "1e-99999999999999999999999",
            "0.1",
            "9",
            "9.999999999999999999999999999999999999999999999",
            "10",
            "9007199254740993",
            "9007199254740993.0000000000000000001",
            "9007199254740994",
            "18446744073709551616",
            "1e999",
        ];
        for (at, left) in rising.iter().enumerate() {
            for (other, right) in rising.iter().enumerate() {
                assert_eq!(compare(left, right), at.cmp(&other), "{left} {right}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_whole_numbers_at_any_scale(left in any::<i64>(), right in any::<i64>(), scale in 0..20_u32) {
            let scaled = |number: i64| {
                let (sign, digits) = (if number < 0 { "-" } else { "" }, number.unsigned_abs().to_string());
                let at = digits.len().saturating_sub(scale as usize);
                let whole = if at == 0 { "0" } else { &digits[..at] };
                format!("{sign}{whole}.{}{}", "0".repeat((scale as usize).saturating_sub(digits.len())), &digits[at..])
            };
            let exponent = |number: i64| format!("{number}e-{scale}");
            prop_assert_eq!(compare(&left.to_string(), &right.to_string()), left.cmp(&right));
            prop_assert_eq!(compare(&exponent(left), &exponent(right)), left.cmp(&right));
            prop_assert_eq!(compare(&format!("{}0", scaled(left)), &exponent(right)), left.cmp(&right));
        }
    }
}
