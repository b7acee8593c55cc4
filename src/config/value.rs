//! Values: what a setting may be, how it is written in each layer, and what is said of one that is wrong.

use std::fmt;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::given::{Given, Kind, Style, check_address};
use super::keys::Key;

/// What a setting may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// A whole number, both ends allowed.
    Integer {
        min: u64,
        max: u64,
    },
    /// A time with its unit, both ends allowed; where `may_be_off`, 0 means never.
    Time {
        min: Duration,
        max: Duration,
        may_be_off: bool,
    },
    Switch,
    Words(&'static [&'static str]),
    /// An address to listen on, or none.
    Address,
    /// Where entries come from: on or off for standard input, a list for the others.
    Sources(Kind),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Integer { min, max } => write!(f, "{min} to {max}"),
            Rule::Time { min, max, may_be_off } => {
                let off = if *may_be_off { ", or 0 for never" } else { "" };
                write!(f, "{} to {}{off}", Time(*min), Time(*max))
            }
            Rule::Switch | Rule::Sources(Kind::Stdin) => f.write_str("true or false"),
            Rule::Words(words) => f.write_str(&words.join(", ")),
            Rule::Address => f.write_str("HOST:PORT, or off"),
            Rule::Sources(kind) => write!(f, "a list of {}s", kind.noun()),
        }
    }
}

/// A value that obeys its rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Integer(u64),
    /// `None`: never.
    Time(Option<Duration>),
    Switch(bool),
    Word(&'static str),
    /// `None`: off.
    Address(Option<String>),
    Sources(Vec<Given>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(value) => value.fmt(f),
            Value::Time(None) => f.write_str("0"),
            Value::Time(Some(time)) => Time(*time).fmt(f),
            Value::Switch(value) => value.fmt(f),
            Value::Word(value) => f.write_str(value),
            Value::Address(address) => f.write_str(address.as_deref().unwrap_or("off")),
            Value::Sources(sources) if sources.is_empty() => f.write_str("none"),
            Value::Sources(sources) => {
                for (at, source) in sources.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{source}")?;
                }
                Ok(())
            }
        }
    }
}

impl Value {
    pub(crate) fn integer(&self) -> u64 {
        match self {
            Value::Integer(value) => *value,
            _ => unreachable!("the rule of this key is a range"),
        }
    }

    /// `None`: never.
    pub(crate) fn time(&self) -> Option<Duration> {
        match self {
            Value::Time(value) => *value,
            _ => unreachable!("the rule of this key is a time"),
        }
    }

    pub(crate) fn switch(&self) -> bool {
        matches!(self, Value::Switch(true))
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Value::Word(word) => word,
            _ => unreachable!("the rule of this key is a list of words"),
        }
    }

    /// `None`: off.
    pub(crate) fn address(&self) -> Option<&str> {
        match self {
            Value::Address(address) => address.as_deref(),
            _ => unreachable!("the rule of this key is an address"),
        }
    }

    pub(crate) fn sources(&self) -> &[Given] {
        match self {
            Value::Sources(sources) => sources,
            _ => unreachable!("the rule of this key is a list of sources"),
        }
    }
}

/// What is wrong with a value: the sentence, and in a list of the file the byte where the wrong element begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) at: Option<usize>,
}

impl From<String> for Wrong {
    fn from(message: String) -> Wrong {
        Wrong { message, at: None }
    }
}

fn not_in_range(key: &Key, found: &str) -> String {
    match key.rule {
        Rule::Words(_) => format!("{key} is {found}; it must be one of: {}", key.rule),
        Rule::Time { .. } => {
            format!("{key} is {found}; it must be {}, written with its unit: ms, s, m, h or d", key.rule)
        }
        Rule::Sources(kind) => format!("{key} is {found}; it must be {}, written {}", key.rule, kind.example()),
        _ => format!("{key} is {found}; it must be {}", key.rule),
    }
}

/// A value from a variable, from flags (each use of a flag is a text) or of the table's defaults. Of a setting that is no
/// list the last text counts.
pub(crate) fn parse_texts(key: &Key, texts: &[&str], style: Style<'_>) -> Result<Value, Wrong> {
    if let Rule::Sources(kind) = key.rule
        && kind != Kind::Stdin
    {
        let given: Result<Vec<Given>, String> =
            texts.iter().map(|text| Given::from_text(key, kind, text, style)).collect();
        return Ok(Value::Sources(distinct(key, given?)?));
    }
    let text = texts.last().map_or("", |text| text.trim());
    let value = match key.rule {
        Rule::Integer { min, max } => text.parse().ok().filter(|value| (min..=max).contains(value)).map(Value::Integer),
        Rule::Time { .. } => time(key.rule, text),
        Rule::Switch => switch(text).map(Value::Switch),
        Rule::Words(words) => words.iter().find(|word| **word == text).map(|word| Value::Word(word)),
        Rule::Address => Some(address(key, text)?),
        Rule::Sources(_) => switch(text).map(Given::stdin),
    };
    Ok(value.ok_or_else(|| not_in_range(key, &format!("\"{text}\"")))?)
}

/// A value from the file; its type must fit, too.
pub(crate) fn parse_toml(key: &Key, value: &Spanned<DeValue<'_>>, style: Style<'_>) -> Result<Value, Wrong> {
    match (key.rule, value.get_ref()) {
        (Rule::Integer { min, max }, DeValue::Integer(found)) => u64::from_str_radix(found.as_str(), found.radix())
            .ok()
            .filter(|value| (min..=max).contains(value))
            .map(Value::Integer)
            .ok_or_else(|| not_in_range(key, &found.to_string()).into()),
        (Rule::Time { .. }, DeValue::String(found)) => {
            time(key.rule, found).ok_or_else(|| not_in_range(key, &format!("\"{found}\"")).into())
        }
        (Rule::Time { may_be_off: true, .. }, DeValue::Integer(found)) if found.as_str() == "0" => {
            Ok(Value::Time(None))
        }
        (Rule::Switch, DeValue::Boolean(found)) => Ok(Value::Switch(*found)),
        (Rule::Words(words), DeValue::String(found)) => words
            .iter()
            .find(|word| **word == *found)
            .map(|word| Value::Word(word))
            .ok_or_else(|| not_in_range(key, &format!("\"{found}\"")).into()),
        (Rule::Address, DeValue::String(found)) => Ok(address(key, found)?),
        (Rule::Sources(Kind::Stdin), DeValue::Boolean(found)) => Ok(Given::stdin(*found)),
        (Rule::Sources(Kind::Stdin), DeValue::Table(_)) => {
            Ok(Value::Sources(vec![Given::from_toml(key, Kind::Stdin, value, style)?]))
        }
        (Rule::Sources(kind), DeValue::Array(elements)) if kind != Kind::Stdin => {
            let mut given = Vec::new();
            for element in elements {
                given.push(Given::from_toml(key, kind, element, style)?);
                given = distinct(key, given).map_err(|message| Wrong { message, at: Some(element.span().start) })?;
            }
            Ok(Value::Sources(given))
        }
        (_, other) => Err(not_in_range(key, &with_article(other.type_str())).into()),
    }
}

fn address(key: &Key, text: &str) -> Result<Value, String> {
    if text == "off" {
        return Ok(Value::Address(None));
    }
    check_address(key, text)?;
    Ok(Value::Address(Some(text.to_owned())))
}

/// The same address or path twice in one list is a slip, and would be taken in twice or fail to open.
fn distinct(key: &Key, given: Vec<Given>) -> Result<Vec<Given>, String> {
    for (at, source) in given.iter().enumerate() {
        if given[..at].iter().any(|other| other.place == source.place) {
            return Err(format!("{key} names {} twice; remove one of them", source.place));
        }
    }
    Ok(given)
}

pub(crate) fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

pub(crate) fn switch(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The parts of a variable that holds a list: separated by commas; a comma that belongs to a part is doubled.
///
/// Doubling, and not a backslash: shells, env files and Windows paths have plans of their own for backslashes.
pub(crate) fn split_list(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else {
            parts.last_mut().expect("it starts with one").push(character);
        }
    }
    parts
}

/// The units of a time, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A time as people write it: `24h`, `1h30m`, `500ms`.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        // No more than a day's worth of hours is said in days: 24h stays what it is.
        let units = if rest > 7 * UNITS[0].1 { &UNITS[..] } else { &UNITS[1..] };
        for (unit, milliseconds) in units {
            if rest >= *milliseconds {
                write!(f, "{}{unit}", rest / milliseconds)?;
                rest %= milliseconds;
            }
        }
        Ok(())
    }
}

/// Reads a time within the rule's range.
fn time(rule: Rule, text: &str) -> Option<Value> {
    let Rule::Time { min, max, may_be_off } = rule else { return None };
    let text = text.trim();
    if text == "0" {
        return may_be_off.then_some(Value::Time(None));
    }
    let time = Duration::from_millis(milliseconds(text)?);
    (min..=max).contains(&time).then_some(Value::Time(Some(time)))
}

fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, behind) = behind.split_at(behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len()));
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units_and_printed_the_same() {
        for (text, value) in [
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("90s", 90_000),
            ("500ms", 500),
            ("2d", 172_800_000),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(milliseconds(text), Some(value), "{text}");
        }
        for text in ["", "24", "h", "1x", "-1s", "1.5h", "1h 30m", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
        let print = |milliseconds| Time(Duration::from_millis(milliseconds)).to_string();
        assert_eq!(
            (print(86_400_000), print(60_500), print(5_400_000)),
            ("24h".into(), "1m500ms".into(), "1h30m".into())
        );
        assert_eq!((print(30 * 86_400_000), print(1500)), ("30d".into(), "1s500ms".into()));
    }

    #[test]
    fn a_comma_in_a_list_is_doubled() {
        assert_eq!(split_list("a,b c,d"), ["a", "b c", "d"]);
        assert_eq!(split_list("/a,,b,/c,,,,d"), ["/a,b", "/c,,d"]);
        assert_eq!(split_list("a,,,b"), ["a,", "b"]);
        assert_eq!(split_list("a,"), ["a", ""]);
    }
}
