//! One `--where`: a path, an operator, a value.
//!
//! - A value is a number, `true`, `false`, `null`, or text: in double quotes as JSON writes it, in single quotes as it is,
//!   or without quotes what is none of the others.
//! - Numbers compare with numbers, as decimals; text with text, by its characters' numbers; `true`, `false` and `null` only
//!   by `=` and `!=`.
//! - A field of another kind than the value is different from it, and neither above nor below. A field that is not there
//!   matches nothing, not even `!=`.

use std::cmp::Ordering;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::decimal;
use super::json;
use super::path::Path;

/// A condition on a field.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    path: Path,
    operator: Operator,
    value: Literal,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Literal {
    /// As JSON writes it.
    Number(String),
    Text(String),
    /// `true`, `false` or `null`.
    Word(String),
}

/// Every spelling; of two that begin alike the longer comes first.
const OPERATORS: [(&str, Operator); 7] = [
    ("==", Operator::Equal),
    ("=", Operator::Equal),
    ("!=", Operator::Unequal),
    ("<=", Operator::AtMost),
    ("<", Operator::Less),
    (">=", Operator::AtLeast),
    (">", Operator::Greater),
];

impl Condition {
    /// Reads `PATH OP VALUE`; what is wrong with it is a sentence.
    pub(crate) fn parse(text: &str) -> Result<Condition, String> {
        let (path, rest) = Path::parse(text)?;
        let Some((spelling, operator)) = OPERATORS.iter().find(|(spelling, _)| rest.starts_with(spelling)) else {
            let found = if rest.is_empty() { "nothing".to_owned() } else { format!("\"{rest}\"") };
            return Err(format!("there is {found} behind the field {path}; write one of = != < <= > >= and a value"));
        };
        let value = Literal::parse(rest[spelling.len()..].trim())?;
        let orders = !matches!(operator, Operator::Equal | Operator::Unequal);
        match &value {
            Literal::Word(word) if orders => {
                Err(format!("{word} is neither above nor below anything; compare it by = or !="))
            }
            Literal::Text(text) if orders && looks_like_number(text) => {
                Err(format!("{text} is not a number as JSON writes them; to compare it as text, put it in quotes"))
            }
            _ => Ok(Condition { path, operator: *operator, value }),
        }
    }

    /// Whether it holds for this JSON.
    pub(super) fn holds(&self, json: &RawValue) -> bool {
        let Some(found) = json::find(json, &self.path) else { return false };
        let order = self.value.compare(found);
        match self.operator {
            Operator::Equal => order == Some(Ordering::Equal),
            Operator::Unequal => order != Some(Ordering::Equal),
            Operator::Less => order == Some(Ordering::Less),
            Operator::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Operator::Greater => order == Some(Ordering::Greater),
            Operator::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// Something that was meant as a number: signs, digits, points, and what people put between digits.
fn looks_like_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b"._,".contains(&byte))
}

impl Literal {
    fn parse(text: &str) -> Result<Literal, String> {
        match text.as_bytes() {
            [] => Err("there is no value behind the operator; for an empty text write \"\"".to_owned()),
            [b'"', ..] => serde_json::from_str(text)
                .map(Literal::Text)
                .map_err(|_| format!("{text} is not a text in double quotes, as JSON writes it")),
            [b'\'', inner @ .., b'\''] if !inner.contains(&b'\'') => {
                Ok(Literal::Text(text[1..text.len() - 1].to_owned()))
            }
            [b'\'', ..] => Err(format!("{text} is not a text in single quotes")),
            [b'{' | b'[', ..] => Err(format!("{text} cannot be compared; name a field inside, as customer.name")),
            b"true" | b"false" | b"null" => Ok(Literal::Word(text.to_owned())),
            _ if serde_json::from_str::<IgnoredAny>(text).is_ok() => Ok(Literal::Number(text.to_owned())),
            _ if text.starts_with(['=', '<', '>', '!']) => {
                Err(format!("there is \"{text}\" behind the operator; put a text that begins like that in quotes"))
            }
            _ => Ok(Literal::Text(text.to_owned())),
        }
    }

    /// How the field compares with this; `None` if it is of another kind, or is another word.
    fn compare(&self, field: &RawValue) -> Option<Ordering> {
        let text = field.get();
        match self {
            Literal::Number(number) => text
                .starts_with(|first: char| first == '-' || first.is_ascii_digit())
                .then(|| decimal::compare(text, number)),
            Literal::Text(own) => json::string(field).map(|text| text.as_ref().cmp(own)),
            Literal::Word(word) => (text == word).then_some(Ordering::Equal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"txn":"TXN-001","amount":5000,"big":9007199254740993,"fee":0.10,"ok":true,"note":null,
        "phone":"254700","date":"2026-01-31","customer":{"name":"Asha","tags":["a","b"]},"\u00e9":"\u00e9"}"#;

    fn holds(text: &str) -> bool {
        let condition = Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        condition.holds(json::parse(ENTRY.as_bytes()).unwrap())
    }

    #[test]
    fn conditions_that_hold() {
        let yes = [
            "amount>=5000",
            "amount = 5e3",
            "amount==5000.0",
            "amount<5000.01",
            "amount>-1",
            "amount!=5001",
            "big=9007199254740993",
            "big>9007199254740992",
            "fee=0.1",
            "fee<=0.1",
            "txn=TXN-001",
            "txn = \"TXN-001\"",
            "txn='TXN-001'",
            "txn!=TXN-002",
            "ok=true",
            "ok!=false",
            "note=null",
            "note!=0",
            "phone=\"254700\"",
            "phone!=254700",
            "date>=2026-01-01",
            "date<2026-02-01",
            "customer.name>Alice",
            "customer.tags.1=b",
            "customer!=x",
            "é=\"\\u00e9\"",
        ];
        for text in yes {
            assert!(holds(text), "{text}");
        }
    }

    #[test]
    fn conditions_that_do_not_hold() {
        let no = [
            "amount>5000",
            "amount<5000",
            "big=9007199254740992",
            "amount=\"5000\"",
            "amount<x",
            "amount>x",
            "phone=254700",
            "phone>1",
            "ok=1",
            "ok=\"true\"",
            "note=false",
            "absent=1",
            "absent!=1",
            "absent=null",
            "customer=x",
            "customer.name.first=A",
        ];
        for text in no {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn a_bad_expression_is_told_in_a_sentence() {
        let cases = [
            ("amount", "there is nothing behind the field amount; write one of = != < <= > >= and a value"),
            ("amount 5", "there is \"5\" behind the field amount; write one of"),
            (">5", "there is \">5\" where the name of a field should be"),
            ("", "there is nothing where the name"),
            ("amount>", "there is no value behind the operator; for an empty text write \"\""),
            ("amount=>5", "there is \">5\" behind the operator"),
            ("ok<true", "true is neither above nor below anything"),
            ("amount>=1_000", "1_000 is not a number as JSON writes them"),
            ("amount>=.5", ".5 is not a number"),
            ("amount>=+5", "+5 is not a number"),
            ("a=\"x", "\"x is not a text in double quotes"),
            ("a='x", "'x is not a text in single quotes"),
            ("a={\"b\":1}", "cannot be compared; name a field inside"),
        ];
        for (text, expected) in cases {
            let error = Condition::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
