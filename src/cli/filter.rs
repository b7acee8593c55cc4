//! Which of the entries of a range are wanted: by their source, by a regular expression on their bytes, by fields of their
//! JSON.
//!
//! - All that is given must hold. Cheap questions come first: the source, the expression, the JSON.
//! - Memory is bounded: an expression has a budget for itself and one for what it remembers while it searches, and JSON is
//!   looked through where it lies; nothing is built from it.
//! - An entry that is not JSON has no fields. How many there were is told, not passed over.
//!
//! Proof: the tests below and of the parts, and `tests/it/filter.rs`.

mod condition;
mod decimal;
pub(crate) mod json;
mod path;

use std::io;

use clap::Args;
use regex::bytes::{Regex, RegexBuilder};

use super::exit::Failure;
use super::output::{Format, Shown};
use super::sources::{SourceArgs, SourceFilter};
use super::terminal::has_color;
use crate::query::EntryRef;
use condition::Condition;
pub(crate) use path::Path;

/// What a regular expression may take when it is compiled, in bytes.
const REGEX_BYTES_MAX: usize = 4 << 20;
/// What it may remember while it searches, in bytes.
const REGEX_CACHE_BYTES: usize = 2 << 20;
/// Most columns of `--fields`.
const FIELDS_MAX: usize = 256;

/// Options about what entries hold; shared by the commands that print them.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FilterArgs {
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// Only entries whose payload matches this regular expression (of Rust's regex crate: no look-around, no
    /// back-references; (?-u) for single bytes)
    #[arg(short, long, value_name = "REGEX")]
    grep: Option<String>,
    /// Only entries that do not match it
    #[arg(short = 'v', long, requires = "grep")]
    invert_match: bool,
    /// Let capitals and small letters match each other in --grep
    #[arg(short, long, requires = "grep")]
    ignore_case: bool,
    /// Only entries whose JSON has such a field: PATH OP VALUE with = != < <= > >=, as 'amount>=100'; several must all hold
    #[arg(long = "where", value_name = "EXPR", value_parser = Condition::parse)]
    conditions: Vec<Condition>,
    /// Instead of the payload these fields of its JSON, separated by commas, as columns (formats csv and json)
    #[arg(long, value_name = "PATHS", value_parser = Fields::parse)]
    fields: Option<Fields>,
}

impl FilterArgs {
    /// What decides about each entry.
    pub(crate) fn filter(&self) -> Result<Filter, Failure> {
        let grep = match &self.grep {
            Some(pattern) => Some((compile(pattern, self.ignore_case)?, !self.invert_match)),
            None => None,
        };
        let use_of_json = match (&*self.conditions, &self.fields) {
            ([], None) => UseOfJson::None,
            ([], Some(_)) => UseOfJson::Shown,
            _ => UseOfJson::Asked,
        };
        let conditions = self.conditions.clone();
        Ok(Filter { sources: self.sources.filter(), grep, conditions, use_of_json, not_json: 0 })
    }

    /// What is shown of each entry in this format.
    pub(crate) fn shown(&self, format: Format) -> Result<Shown, Failure> {
        if self.fields.is_some() && !matches!(format, Format::Csv | Format::Json) {
            return Err(Failure::read(
                "--fields makes columns, so it needs a format that has some: add --format csv or json",
            ));
        }
        let fields = self.fields.as_ref().map(|fields| fields.0.clone());
        let color = has_color(&io::stdout());
        let highlight = match &self.grep {
            Some(pattern) if color && !self.invert_match => Some(compile(pattern, self.ignore_case)?),
            _ => None,
        };
        Ok(Shown { source: self.sources.show_source, fields, color, highlight })
    }
}

fn compile(pattern: &str, ignore_case: bool) -> Result<Regex, Failure> {
    let mut builder = RegexBuilder::new(pattern);
    builder.case_insensitive(ignore_case).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_CACHE_BYTES);
    builder.build().map_err(|error| {
        let what = match &error {
            regex::Error::CompiledTooBig(_) => {
                format!("it takes more than {} MiB of memory; repeat less in it", REGEX_BYTES_MAX >> 20)
            }
            // The sentence is the last line, behind a drawing of the place.
            other => {
                let text = other.to_string();
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        };
        Failure::read(format!("the regular expression of --grep cannot be used: {what}"))
    })
}

/// What the JSON of an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum UseOfJson {
    None,
    /// Its fields are printed.
    Shown,
    /// Its fields decide.
    Asked,
}

/// Decides about entries.
#[derive(Debug)]
pub(crate) struct Filter {
    sources: SourceFilter,
    /// The expression, and whether it is to match.
    grep: Option<(Regex, bool)>,
    conditions: Vec<Condition>,
    use_of_json: UseOfJson,
    /// Entries that the source and the expression let through and that are not JSON, where that matters.
    not_json: u64,
}

impl Filter {
    /// Whether an entry of the source with this name is wanted.
    pub(crate) fn wants(&mut self, entry: &EntryRef<'_>, name: Option<&str>) -> bool {
        self.sources.wants(entry.source, name) && self.wants_payload(entry.payload)
    }

    fn wants_payload(&mut self, payload: &[u8]) -> bool {
        if let Some((regex, expected)) = &self.grep
            && regex.is_match(payload) != *expected
        {
            return false;
        }
        if self.use_of_json == UseOfJson::None {
            return true;
        }
        match json::parse(payload) {
            Some(text) => self.conditions.iter().all(|condition| condition.holds(text)),
            None => {
                self.not_json += 1;
                self.use_of_json == UseOfJson::Shown
            }
        }
    }

    /// What to say when all entries have been looked at.
    pub(crate) fn note(&self) -> Option<String> {
        let entries = if self.not_json == 1 { "entry is" } else { "entries are" };
        match (self.not_json, self.use_of_json) {
            (0, _) => None,
            (count, UseOfJson::Shown) => Some(format!("{count} {entries} not JSON and without fields")),
            (count, _) => Some(format!("{count} {entries} not JSON, so that no --where matches")),
        }
    }

    /// What to say about patterns that match none of the store's sources.
    pub(crate) fn unmatched<'n>(&self, names: impl Iterator<Item = &'n str>) -> Option<String> {
        self.sources.unmatched(names)
    }
}

/// The columns of `--fields`.
#[derive(Clone, Debug)]
struct Fields(Vec<Path>);

impl Fields {
    fn parse(text: &str) -> Result<Fields, String> {
        let mut fields: Vec<Path> = Vec::new();
        let mut rest = text;
        loop {
            let (path, behind) = Path::parse(rest)?;
            if fields.contains(&path) {
                return Err(format!("the field {path} is named twice"));
            }
            if fields.len() == FIELDS_MAX {
                return Err(format!("more than {FIELDS_MAX} fields"));
            }
            let is_last = behind.is_empty();
            rest = match behind.strip_prefix(',') {
                None if !is_last => {
                    return Err(format!("there is \"{behind}\" behind the field {path}; separate fields by commas"));
                }
                next => next.unwrap_or_default(),
            };
            fields.push(path);
            if is_last {
                return Ok(Fields(fields));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(args: FilterArgs) -> Filter {
        args.filter().unwrap()
    }

    #[test]
    fn a_hostile_expression_is_refused_and_takes_no_memory() {
        for pattern in ["(?:a{1000}){1000}", r"(?:\w{100}){100}", "((((x{60}){60}){60}){60}){60}"] {
            let message = compile(pattern, false).unwrap_err().message;
            assert!(message.ends_with("more than 4 MiB of memory; repeat less in it"), "{message}");
        }
        let message = compile("a(b", false).unwrap_err().message;
        assert_eq!(message, "the regular expression of --grep cannot be used: unclosed group");
        assert!(compile(&"(".repeat(10_000), false).is_err());
    }

    #[test]
    fn an_expression_sees_bytes_and_may_be_turned_round() {
        let grep = |pattern: &str, invert_match, ignore_case, payload: &[u8]| {
            let args = FilterArgs { grep: Some(pattern.into()), invert_match, ignore_case, ..FilterArgs::default() };
            filter(args).wants_payload(payload)
        };
        assert!(grep("TXN-[0-9]+$", false, false, b"id TXN-1") && !grep("TXN-[0-9]+$", true, false, b"id TXN-1"));
        assert!(!grep("txn", false, false, b"TXN") && grep("txn", false, true, b"TXN"));
        assert!(grep("ПРИВЕТ", false, true, "привет".as_bytes()) && grep(r"^\w+$", false, false, "é".as_bytes()));
        assert!(grep(r"(?-u)\xff\x00", false, false, b"a\xff\x00b"));
    }

    #[test]
    fn what_is_not_json_matches_no_condition_and_is_counted() {
        let condition = |text: &str| Condition::parse(text).unwrap();
        let args = FilterArgs { conditions: vec![condition("a=1"), condition("b=2")], ..FilterArgs::default() };
        let mut filter = filter(args);
        assert!(filter.wants_payload(br#"{"a":1,"b":2}"#));
        assert!(!filter.wants_payload(br#"{"a":1}"#) && !filter.wants_payload(b"5"));
        assert_eq!(filter.note(), None);
        assert!(!filter.wants_payload(b"plain") && !filter.wants_payload(b"{\"a\":1,\"b\":2} x"));
        assert_eq!(filter.note().unwrap(), "2 entries are not JSON, so that no --where matches");
    }

    #[test]
    fn fields_are_paths_between_commas() {
        let texts =
            |text: &str| -> Vec<String> { Fields::parse(text).unwrap().0.iter().map(ToString::to_string).collect() };
        assert_eq!(texts("txn, amount,customer.name"), ["txn", "amount", "customer.name"]);
        assert_eq!(texts(r#""a,b".c,d"#), [r#""a,b".c"#, "d"]);
        for wrong in ["", "a,", "a,,b", "a=1", "a,a", "a b"] {
            assert!(Fields::parse(wrong).is_err(), "{wrong}");
        }
    }
}
