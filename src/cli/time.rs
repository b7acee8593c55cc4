//! Times as people write and read them: always UTC.
//!
//! Civil dates are computed with Howard Hinnant's `days_from_civil` and `civil_from_days` (proleptic Gregorian, exact for
//! all dates used here), in integers: printing millions of entries a second leaves no room for a calendar library.
//!
//! Proof: the tests compare both directions with `chrono`.
// "now" and "1h ago" on the command line are the machine's.
#![allow(clippy::disallowed_methods)]

use std::time::{SystemTime, UNIX_EPOCH};

const SECOND_NS: i128 = 1_000_000_000;
const MINUTE_NS: i128 = 60 * SECOND_NS;
const HOUR_NS: i128 = 60 * MINUTE_NS;
const DAY_NS: i128 = 24 * HOUR_NS;

/// What a time on the command line may look like; the end of every error about one.
pub(crate) const ACCEPTED: &str = "use 1h, 30m, 2d or 1h30m (ago; units w, d, h, m, s), \"2026-01-29 12:00:00\", \
     2026-01-29T12:00:00Z (or an offset as +02:00), 2026-01-29, now, today, yesterday, or @1769688000 (seconds since 1970)";

/// Now, in nanoseconds since the Unix epoch; 0 on a clock before it.
pub(crate) fn now_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads a lower bound: the first nanosecond of what `text` names.
pub(crate) fn parse_from(text: &str, now_ns: u64) -> Result<u64, String> {
    parse(text, now_ns).map(|span| span.0)
}

/// Reads an upper bound: the last nanosecond of what `text` names, so that a date covers its whole day, a minute its
/// whole minute, seconds the whole second and a fraction all that begins with its digits.
pub(crate) fn parse_to(text: &str, now_ns: u64) -> Result<u64, String> {
    parse(text, now_ns).map(|span| span.1)
}

fn parse(text: &str, now_ns: u64) -> Result<(u64, u64), String> {
    let text = text.trim();
    if let Some(ago_ns) = parse_ago(text) {
        let at = now_ns.saturating_sub(ago_ns);
        return Ok((at, at));
    }
    let now = i128::from(now_ns);
    let midnight = now - now % DAY_NS;
    let (first, width) = match text {
        "now" => (now, 1),
        "today" => (midnight, DAY_NS),
        "yesterday" => ((midnight - DAY_NS).max(0), DAY_NS),
        _ => match text.strip_prefix('@') {
            Some(seconds) => parse_decimal(seconds),
            None => parse_civil(text),
        }
        .ok_or_else(|| format!("not a time; {ACCEPTED}"))?,
    };
    let first = u64::try_from(first)
        .map_err(|_| "the time is out of range; a log holds times from 1970-01-01 to 2554-07-21".to_owned())?;
    Ok((first, first.saturating_add((width - 1) as u64)))
}

/// `1h30m` and the like, in nanoseconds; a sum beyond the range is the range's end.
fn parse_ago(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum_ns = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_ns = match rest.as_bytes().get(digits)? {
            b'w' => 7 * DAY_NS,
            b'd' => DAY_NS,
            b'h' => HOUR_NS,
            b'm' => MINUTE_NS,
            b's' => SECOND_NS,
            _ => return None,
        } as u64;
        if digits == 0 {
            return None;
        }
        let count = rest[..digits].parse().unwrap_or(u64::MAX);
        sum_ns = sum_ns.saturating_add(unit_ns.saturating_mul(count));
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then_some(sum_ns)
}

/// Seconds with an optional fraction of one to nine digits: their start and width in nanoseconds.
fn parse_decimal(text: &str) -> Option<(i128, i128)> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let seconds = parse_digits(whole)?;
    let Some(fraction) = fraction else { return Some((seconds * SECOND_NS, SECOND_NS)) };
    if fraction.len() > 9 {
        return None;
    }
    let width = 10i128.pow(9 - fraction.len() as u32);
    Some((seconds * SECOND_NS + parse_digits(fraction)? * width, width))
}

/// One to eighteen ASCII digits, no sign.
fn parse_digits(text: &str) -> Option<i128> {
    let plain = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// `YYYY-MM-DD`, alone or with `HH:MM`, seconds, fraction and offset: start and width in nanoseconds.
fn parse_civil(text: &str) -> Option<(i128, i128)> {
    let (date, rest) = text.split_at_checked(10)?;
    let (year, month_day) = date.split_at_checked(4)?;
    let (month, day) = month_day.strip_prefix('-')?.split_once('-')?;
    let fixed = |text: &str| if text.len() == 2 { parse_digits(text) } else { None };
    let (year, month, day) = (parse_digits(year)?, fixed(month)?, fixed(day)?);
    if !(1..=12).contains(&month) || !(1..=days_in_month(year as i64, month as u32)).contains(&(day as u32)) {
        return None;
    }
    let midnight = i128::from(days_from_civil(year as i64, month as u32, day as u32)) * DAY_NS;
    if rest.is_empty() {
        return Some((midnight, DAY_NS));
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, offset_ns) = split_offset(rest)?;
    let (hour, rest) = clock.split_once(':')?;
    let (minute, second) = rest.split_once(':').map_or((rest, None), |(minute, second)| (minute, Some(second)));
    let (hour, minute) = (fixed(hour)?, fixed(minute)?);
    let (second_ns, width) = match second {
        Some(second) if second.split('.').next()?.len() == 2 => parse_decimal(second)?,
        Some(_) => return None,
        None => (0, MINUTE_NS),
    };
    if hour > 23 || minute > 59 || second_ns >= MINUTE_NS {
        return None;
    }
    Some((midnight + hour * HOUR_NS + minute * MINUTE_NS + second_ns - offset_ns, width))
}

/// Splits `Z`, ` UTC`, `+HH:MM` or `+HHMM` off the end; returns the clock and the offset in nanoseconds.
fn split_offset(text: &str) -> Option<(&str, i128)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix(" UTC")) {
        return Some((clock, 0));
    }
    let Some(at) = text.find(['+', '-']) else { return Some((text, 0)) };
    let (clock, offset) = text.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = offset[1..].split_at_checked(2)?;
    let minutes = minutes.strip_prefix(':').unwrap_or(minutes);
    if minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (parse_digits(hours)?, parse_digits(minutes)?);
    (hours <= 23 && minutes <= 59).then(|| (clock, sign * (hours * HOUR_NS + minutes * MINUTE_NS)))
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a civil date (Hinnant).
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Civil date of a day counted from 1970-01-01 (Hinnant): year, month, day. For days from 1970 on.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Length of a printed time, in bytes.
const TEXT_BYTES: usize = "2026-01-31 18:30:00 UTC".len();

/// Prints times; neighbours mostly share their second, so the last one is kept.
#[derive(Clone, Debug)]
pub(crate) struct TimeText {
    second: u64,
    text: [u8; TEXT_BYTES],
}

impl TimeText {
    pub(crate) fn new() -> TimeText {
        TimeText { second: 0, text: *b"1970-01-01 00:00:00 UTC" }
    }

    /// `2026-01-31 18:30:00 UTC`: the second that `timestamp_ns` lies in.
    pub(crate) fn format(&mut self, timestamp_ns: u64) -> &str {
        let second = timestamp_ns / SECOND_NS as u64;
        if second != self.second {
            self.second = second;
            let (year, month, day) = civil_from_days(second / 86_400);
            let of_day = second % 86_400;
            let fields = [
                (0, year / 100),
                (2, year % 100),
                (5, month),
                (8, day),
                (11, of_day / 3600),
                (14, of_day / 60 % 60),
                (17, of_day % 60),
            ];
            for (at, value) in fields {
                self.text[at] = b'0' + (value / 10) as u8;
                self.text[at + 1] = b'0' + (value % 10) as u8;
            }
        }
        std::str::from_utf8(&self.text).expect("a printed time is ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use proptest::prelude::*;

    /// 2026-01-31 18:30:00.25 UTC.
    const NOW_NS: u64 = 1_769_884_200_250_000_000;
    const S: u64 = 1_000_000_000;

    #[test]
    fn ago_forms_add_up_and_end_at_1970() {
        for (text, seconds) in
            [("1h", 3600), ("30m", 1800), ("2d", 172_800), ("1h30m", 5400), ("1w1s", 604_801), ("0s", 0)]
        {
            assert_eq!(parse_from(text, NOW_NS), Ok(NOW_NS - seconds * S), "{text}");
            assert_eq!(parse_to(text, NOW_NS), Ok(NOW_NS - seconds * S), "{text}");
        }
        assert_eq!(parse_from("99999999999999999999w", NOW_NS), Ok(0));
        assert_eq!(parse_from("1h", 60 * S), Ok(0));
    }

    #[test]
    fn an_upper_bound_covers_all_that_it_names() {
        let noon = 1_769_688_000 * S;
        let midnight = noon - 43_200 * S;
        let cases = [
            ("2026-01-29", midnight, 86_400 * S),
            ("2026-01-29 12:00", noon, 60 * S),
            ("2026-01-29 12:00:00", noon, S),
            ("2026-01-29 12:00:00 UTC", noon, S),
            ("2026-01-29T12:00:00Z", noon, S),
            ("2026-01-29t12:00:00z", noon, S),
            ("2026-01-29T14:00:00+02:00", noon, S),
            ("2026-01-29T14:00:00+0200", noon, S),
            ("2026-01-29 08:30:00-03:30", noon, S),
            ("2026-01-29 12:00:00.5", noon + S / 2, S / 10),
            ("2026-01-29T12:00:00.000000001Z", noon + 1, 1),
            ("@1769688000", noon, S),
            ("@1769688000.25", noon + S / 4, S / 100),
            (" @1769688000 ", noon, S),
            ("today", 1_769_817_600 * S, 86_400 * S),
            ("yesterday", 1_769_731_200 * S, 86_400 * S),
            ("now", NOW_NS, 1),
            ("1970-01-01", 0, 86_400 * S),
        ];
        for (text, first, width) in cases {
            assert_eq!(parse_from(text, NOW_NS), Ok(first), "{text}");
            assert_eq!(parse_to(text, NOW_NS), Ok(first + width - 1), "{text}");
        }
        assert_eq!(parse_to("2554-07-21 23:34:33.7", NOW_NS), Ok(u64::MAX));
    }

    #[test]
    fn what_is_not_a_time_is_refused_with_the_forms_that_are() {
        let wrong = [
            "",
            "5",
            "h",
            "1x",
            "1h30",
            "-1h",
            "@",
            "@-1",
            "@1.",
            "@1.0123456789",
            "tomorrow",
            "2026-1-9",
            "2026-02-30",
            "2025-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-01-29 24:00:00",
            "2026-01-29 12:60:00",
            "2026-01-29 12:00:60",
            "2026-01-29 1:00:00",
            "2026-01-29 12:00:0",
            "2026-01-29T",
            "2026-01-29Z",
            "2026-01-29 12:00:00+2",
            "2026-01-29 12:00:00+24:00",
            "2026-01-29 12:00.5",
            "+026-01-29",
            "2026-01-29 12:00:00 PST",
            "２０２６-01-29",
        ];
        for text in wrong {
            let error = parse_from(text, NOW_NS).expect_err(text);
            assert!(error.starts_with("not a time; use 1h"), "{text}: {error}");
        }
        for text in ["1969-12-31", "2600-01-01", "1970-01-01T00:00:00+01:00", "@99999999999999999"] {
            assert!(parse_from(text, NOW_NS).expect_err(text).contains("1970-01-01 to 2554-07-21"), "{text}");
        }
    }

    #[test]
    fn the_kept_second_is_not_reused_for_another_one() {
        let mut time = TimeText::new();
        assert_eq!(time.format(NOW_NS), "2026-01-31 18:30:00 UTC");
        assert_eq!(time.format(NOW_NS + S), "2026-01-31 18:30:01 UTC");
        assert_eq!(time.format(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time.format(u64::MAX), "2554-07-21 23:34:33 UTC");
    }

    proptest! {
        #[test]
        fn printing_agrees_with_chrono(ns in any::<u64>()) {
            let seconds = ns / S;
            let expected = DateTime::from_timestamp(seconds as i64, 0).unwrap().format("%Y-%m-%d %H:%M:%S UTC").to_string();
            let mut time = TimeText::new();
            prop_assert_eq!(time.format(ns), expected.as_str());
            prop_assert_eq!(parse_from(&expected, 0), Ok(seconds * S));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = parse_from(&text, NOW_NS);
        }

        #[test]
        fn text_of_the_right_letters_is_read_or_refused(text in "[-0-9:T+.Z @hmd]{0,32}") {
            if let (Ok(from), Ok(to)) = (parse_from(&text, NOW_NS), parse_to(&text, NOW_NS)) {
                prop_assert!(from <= to);
            }
        }
    }
}
