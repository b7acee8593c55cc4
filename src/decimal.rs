//! Whole numbers as text, for what is written once per entry: the formatter of the standard library is several times slower.

/// Appends a number in decimal.
pub(crate) fn put_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for value in [0, 9, 10, 1_769_884_200_000, u64::MAX] {
            let mut out = Vec::new();
            put_decimal(value, &mut out);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }
}
