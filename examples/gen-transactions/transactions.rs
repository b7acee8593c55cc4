//! Synthetic transactions of points of sale: lines that show by themselves whether they were lost, doubled or damaged.
//!
//! A line is a JSON object. It begins with its number and the number of its run and ends with a checksum of all that
//! stands before it; in between it looks like what a terminal sends. The same profile and number always give the same
//! line, byte for byte, so nothing has to be remembered to know what a line should have been.

// A program that includes this page uses the part of it that it needs.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

#[path = "../../src/sim/rng.rs"]
mod rng;

pub(crate) use rng::Rng;

/// What the lines of one run have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Profile {
    /// Number of the run: decides every line.
    pub(crate) seed: u64,
    /// Length that short lines are filled up to, in bytes without the line feed; most lines have 240 to 280 anyway.
    pub(crate) size_bytes: usize,
    /// Number of merchants, from 1 on.
    pub(crate) merchants: u64,
}

const KINDS: [&str; 6] = ["sale", "sale", "sale", "refund", "cash_in", "cash_out"];
const METHODS: [&str; 4] = ["mobile_money", "mobile_money", "card", "cash"];
const STATUSES: [&str; 8] =
    ["completed", "completed", "completed", "completed", "completed", "completed", "declined", "reversed"];
const CURRENCIES: [&str; 5] = ["KES", "TZS", "UGX", "RWF", "NGN"];
const CHECKSUM: &str = ",\"crc\":\"";

impl Profile {
    /// Line number `seq`, without a line feed.
    pub(crate) fn line(&self, seq: u64) -> String {
        let mut rng = Rng::new(self.seed).fork(seq);
        let mut pick = |of: &[&'static str]| of[rng.below(of.len() as u64) as usize];
        let (kind, method, status, currency) = (pick(&KINDS), pick(&METHODS), pick(&STATUSES), pick(&CURRENCIES));
        let merchant = rng.below(self.merchants.max(1));
        let seconds = 28_800 + (seq / 4) % 50_400;
        let mut line = format!(
            "{{\"seq\":{seq},\"run\":{},\"txn\":\"TXN-{:010X}\",\"merchant\":\"M{merchant:05}\",\"terminal\":\"T{:02}\",\
             \"time\":\"2026-01-31T{:02}:{:02}:{:02}.{:03}Z\",\"type\":\"{kind}\",\"method\":\"{method}\",\
             \"amount\":{},\"currency\":\"{currency}\",\"customer\":\"+2547{:08}\",\"status\":\"{status}\"",
            self.seed,
            rng.below(1 << 40),
            rng.below(20),
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60,
            rng.below(1_000),
            50 + 50 * rng.below(4_000),
            rng.below(100_000_000),
        );
        let end_bytes = CHECKSUM.len() + "01234567\"}".len();
        let fill = self.size_bytes.saturating_sub(line.len() + end_bytes + ",\"note\":\"\"".len());
        if fill > 0 {
            line.push_str(",\"note\":\"");
            (0..fill).for_each(|_| line.push(char::from(b'a' + rng.below(26) as u8)));
            line.push('"');
        }
        let checksum = crc32fast::hash(line.as_bytes());
        write!(line, "{CHECKSUM}{checksum:08x}\"}}").expect("a string takes what it is given");
        line
    }
}

/// The run and number of a line, or what is wrong with it.
pub(crate) fn check(line: &str) -> Result<(u64, u64), String> {
    let at = line.rfind(CHECKSUM).ok_or("it has no checksum")?;
    let (body, rest) = line.split_at(at);
    let expected = rest[CHECKSUM.len()..].strip_suffix("\"}").and_then(|hex| u32::from_str_radix(hex, 16).ok());
    if expected != Some(crc32fast::hash(body.as_bytes())) {
        return Err("its checksum is wrong".to_owned());
    }
    let number = |key: &str| -> Option<u64> {
        let (_, rest) = body.split_once(key)?;
        rest.split(',').next()?.parse().ok()
    };
    number("\"run\":").zip(number("\"seq\":")).ok_or_else(|| "it has no number".to_owned())
}

/// A set of numbers that takes little room where they follow each other.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    /// First and last number of each stretch.
    stretches: BTreeMap<u64, u64>,
}

impl Seen {
    /// Adds a number; whether it is new.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let before = self.stretches.range(..=number).next_back().map(|(&first, &last)| (first, last));
        let mut stretch = (number, number);
        if let Some((first, last)) = before {
            if number <= last {
                return false;
            }
            if last + 1 == number {
                stretch.0 = first;
            }
        }
        if let Some(last) = self.stretches.remove(&(number + 1)) {
            stretch.1 = last;
        }
        self.stretches.insert(stretch.0, stretch.1);
        true
    }

    /// How many numbers are missing between the first and the last.
    pub(crate) fn missing(&self) -> u64 {
        let ends = self.stretches.values().zip(self.stretches.keys().skip(1));
        ends.map(|(last, next)| next - last - 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: Profile = Profile { seed: 7, size_bytes: 300, merchants: 50 };

    #[test]
    fn the_same_number_gives_the_same_line() {
        let line = PROFILE.line(5);
        assert_eq!(line, PROFILE.line(5));
        assert_eq!((line.len(), check(&line)), (300, Ok((7, 5))));
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
        assert_ne!(PROFILE.line(6)[20..], line[20..]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_shows() {
        let line = PROFILE.line(12).into_bytes();
        for at in 0..line.len() * 8 {
            let mut damaged = line.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            let shows = std::str::from_utf8(&damaged).map_or(true, |text| check(text).is_err());
            // The checksum's letters say the same in the other case.
            assert!(shows || damaged.eq_ignore_ascii_case(&line), "bit {at}");
        }
        assert!((0..line.len()).all(|len| check(std::str::from_utf8(&line[..len]).unwrap()).is_err()));
    }

    #[test]
    fn numbers_are_new_once_and_holes_are_counted() {
        let mut seen = Seen::default();
        assert!([1, 2, 5, 4, 9].into_iter().all(|number| seen.insert(number)));
        assert!([1, 2, 4, 5, 9].into_iter().all(|number| !seen.insert(number)));
        assert_eq!(seen.missing(), 4);
        assert!(seen.insert(3));
        assert_eq!((seen.missing(), seen.stretches.len()), (3, 2));
    }
}
