//! Which sources: patterns on their names, and what an entry's source is called.
//!
//! - A pattern is matched against the whole name: `*` stands for any characters, `?` for one, `[a-c]` and `[!a-c]` for one
//!   of or outside a set; everything else for itself.
//! - An entry without a source is called `-`, and only the pattern `-` selects it: `*` is any *source*. One whose name
//!   cannot be read is called `#` and its number.
//! - An entry is selected if one of the patterns matches; without patterns all are.
//!
//! Proof: the tests below, and `tests/it/sources.rs`.

use std::collections::BTreeMap;

use clap::Args;

/// Names that a note lists before it counts the others.
const NAMED_MAX: usize = 10;
/// What an entry without a source is called.
const NO_SOURCE: &str = "-";

/// What a source without a name is called.
pub(crate) fn unnamed(number: u16) -> String {
    format!("#{number}")
}

/// Options about sources; shared by the commands that print entries.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SourceArgs {
    /// Only entries of sources whose name matches, as "tcp:*" or stdin (* ? [a-z]); may be given several times; - is
    /// "without a source"
    #[arg(long = "source", value_name = "PATTERN", value_parser = Pattern::parse)]
    pub(crate) patterns: Vec<Pattern>,
    /// Show each entry's source in front of its payload
    #[arg(long)]
    pub(crate) show_source: bool,
}

impl SourceArgs {
    /// The filter that the patterns make.
    pub(crate) fn filter(&self) -> SourceFilter {
        SourceFilter { patterns: self.patterns.clone(), decided: BTreeMap::new() }
    }
}

/// Decides about entries by their source.
#[derive(Debug)]
pub(crate) struct SourceFilter {
    patterns: Vec<Pattern>,
    /// A number keeps its name for ever, so one look at each is enough.
    decided: BTreeMap<u16, bool>,
}

impl SourceFilter {
    /// Whether an entry of this source is wanted.
    pub(crate) fn wants(&mut self, number: u16, name: Option<&str>) -> bool {
        if self.patterns.is_empty() {
            return true;
        }
        let patterns = &self.patterns;
        match (number, name) {
            (0, _) => patterns.iter().any(Pattern::is_no_source),
            (_, Some(name)) => {
                *self.decided.entry(number).or_insert_with(|| patterns.iter().any(|pattern| pattern.matches(name)))
            }
            // Its name may be met later.
            (_, None) => patterns.iter().any(|pattern| pattern.matches(&unnamed(number))),
        }
    }

    /// What to say about patterns that match none of the store's sources.
    pub(crate) fn unmatched<'n>(&self, names: impl Iterator<Item = &'n str>) -> Option<String> {
        if self.patterns.is_empty() {
            return None;
        }
        let names: Vec<&str> = names.collect();
        let is_unmatched = |pattern: &&Pattern| {
            !pattern.is_no_source() && !pattern.text.starts_with('#') && !names.iter().any(|name| pattern.matches(name))
        };
        let unmatched: Vec<String> =
            self.patterns.iter().filter(is_unmatched).map(|pattern| format!("{:?}", pattern.text)).collect();
        if unmatched.is_empty() {
            return None;
        }
        let mut known: Vec<String> = names.iter().take(NAMED_MAX).map(|name| format!("{name:?}")).collect();
        match names.len() {
            0 => known.push("none".to_owned()),
            count if count > NAMED_MAX => known.push(format!("and {} more", count - NAMED_MAX)),
            _ => {}
        }
        Some(format!("no source has a name like {}; known are: {}", unmatched.join(" or "), known.join(", ")))
    }
}

/// A pattern on names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    /// `*`
    Any,
    /// `?`
    One,
    Char(char),
    /// Ranges, both ends included, and whether the set is what they leave out.
    Set(Vec<(char, char)>, bool),
}

impl Pattern {
    /// Reads a pattern; an unclosed set is an error.
    pub(crate) fn parse(text: &str) -> Result<Pattern, String> {
        if text.is_empty() {
            return Err("a source has no empty name; use - for entries without a source".to_owned());
        }
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(character) = chars.next() {
            match character {
                // A second star would only take time.
                '*' if parts.last() == Some(&Part::Any) => {}
                '*' => parts.push(Part::Any),
                '?' => parts.push(Part::One),
                '[' => parts.push(parse_set(&mut chars).ok_or("the [ has no ] behind it; for a [ itself write [[]")?),
                other => parts.push(Part::Char(other)),
            }
        }
        Ok(Pattern { text: text.to_owned(), parts })
    }

    fn is_no_source(&self) -> bool {
        self.text == NO_SOURCE
    }

    /// Whether the whole name matches. Going back to the last star is enough, so the time is at most the product of the
    /// two lengths.
    fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut part) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < name.len() {
            match self.parts.get(part) {
                Some(Part::Any) => {
                    star = Some((part, at));
                    part += 1;
                }
                Some(one) if one.takes(name[at]) => {
                    at += 1;
                    part += 1;
                }
                _ => match &mut star {
                    Some((star_part, star_at)) => {
                        *star_at += 1;
                        (part, at) = (*star_part + 1, *star_at);
                    }
                    None => return false,
                },
            }
        }
        self.parts[part..].iter().all(|part| *part == Part::Any)
    }
}

impl Part {
    fn takes(&self, character: char) -> bool {
        match self {
            Part::Any => false,
            Part::One => true,
            Part::Char(own) => *own == character,
            Part::Set(ranges, negated) => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&character)) != *negated
            }
        }
    }
}

/// The set behind a `[`; a `]` at its beginning belongs to it, as in a shell.
fn parse_set(chars: &mut std::str::Chars<'_>) -> Option<Part> {
    let negated = chars.as_str().starts_with(['!', '^']);
    if negated {
        chars.next();
    }
    let mut ranges = Vec::new();
    loop {
        let first = chars.next()?;
        if first == ']' && !ranges.is_empty() {
            return Some(Part::Set(ranges, negated));
        }
        let mut behind = chars.clone();
        let last = match (behind.next(), behind.next()) {
            (Some('-'), Some(last)) if last != ']' => {
                *chars = behind;
                last
            }
            _ => first,
        };
        ranges.push((first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn patterns_match_whole_names() {
        let yes = [
            ("stdin", "stdin"),
            ("tcp:*", "tcp:127.0.0.1:5514"),
            ("*", "x"),
            ("*:5514", "tcp:127.0.0.1:5514"),
            ("*a*b*c", "xxaxbxbc"),
            ("t?p", "tcp"),
            ("[tu][cd]p:*", "udp:1"),
            ("[!t]*", "udp"),
            ("[a-cx]", "x"),
            ("[]]", "]"),
            ("[a-]", "-"),
            ("[[]1", "[1"),
            ("фай?", "файл"),
        ];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        let no = [("stdi", "stdin"), ("tdin", "stdin"), ("t?p", "tp"), ("*b", "abc"), ("[!t]*", "tcp"), ("[a-c]", "d")];
        for (pattern, name) in no {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(Pattern::parse("").is_err() && Pattern::parse("tcp[").is_err() && Pattern::parse("[]").is_err());
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)));
    }

    #[test]
    fn no_source_is_selected_by_its_own_pattern_only() {
        let filter = |texts: &[&str]| {
            let patterns = texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            SourceArgs { patterns, show_source: false }.filter()
        };
        let wants = |texts: &[&str], number, name| filter(texts).wants(number, name);
        assert!(wants(&[], 0, None) && wants(&[], 3, None) && wants(&["-"], 0, None) && wants(&["a", "-"], 0, None));
        assert!(!wants(&["*"], 0, None) && !wants(&["-"], 1, Some("stdin")));
        assert!(wants(&["a", "std*"], 1, Some("stdin")) && wants(&["#3"], 3, None) && !wants(&["std*"], 3, None));

        let mut later = filter(&["tcp:*"]);
        assert!(!later.wants(4, None) && later.wants(4, Some("tcp:1")) && later.wants(4, Some("tcp:1")));
        let names = ["stdin", "tcp:1"];
        assert_eq!(filter(&["tcp:*", "-"]).unmatched(names.into_iter()), None);
        let note = filter(&["udp:*", "tcp:*", "x"]).unmatched(names.into_iter());
        assert_eq!(note.unwrap(), r#"no source has a name like "udp:*" or "x"; known are: "stdin", "tcp:1""#);
        assert!(filter(&["x"]).unmatched(std::iter::empty()).unwrap().ends_with("known are: none"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused_and_a_plain_one_matches_itself(text in "\\PC{1,20}", name in "\\PC{0,20}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.matches(&name);
                if !text.contains(['*', '?', '[']) {
                    prop_assert!(pattern.matches(&text));
                }
            }
        }
    }
}
