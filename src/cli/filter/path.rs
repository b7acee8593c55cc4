//! Where in a JSON text something is: keys separated by dots, `customer.name`; in an array the element's number, from 0, as
//! `items.0.price`.
//!
//! A key with a dot, a comma, a space or an operator in it is written as a JSON string: `"a.b".c`.

use std::fmt;

/// Most keys of a path.
const KEYS_MAX: usize = 64;

/// A path with at least one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Path {
    text: String,
    keys: Vec<String>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Path {
    /// The path that the text begins with, and what comes behind it and spaces.
    pub(super) fn parse(text: &str) -> Result<(Path, &str), String> {
        let text = text.trim_start();
        let mut keys = Vec::new();
        let mut rest = text;
        loop {
            let (key, behind) = parse_key(rest)?;
            keys.push(key);
            if keys.len() > KEYS_MAX {
                return Err(format!("a path of more than {KEYS_MAX} keys"));
            }
            match behind.strip_prefix('.') {
                Some(behind) => rest = behind,
                None => {
                    let text = text[..text.len() - behind.len()].to_owned();
                    return Ok((Path { text, keys }, behind.trim_start()));
                }
            }
        }
    }

    /// Its keys, the outermost first.
    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn parse_key(text: &str) -> Result<(String, &str), String> {
    if text.starts_with('"') {
        let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
        return match strings.next() {
            Some(Ok(key)) => Ok((key, &text[strings.byte_offset()..])),
            _ => Err(format!("{text} does not begin with a key in double quotes")),
        };
    }
    let ends = |character: char| character.is_whitespace() || ".,\"'=!<>".contains(character);
    let (key, behind) = text.split_at(text.find(ends).unwrap_or(text.len()));
    if key.is_empty() {
        let found = if behind.is_empty() { "there is nothing".to_owned() } else { format!("there is \"{behind}\"") };
        return Err(format!("{found} where the name of a field should be, as amount or customer.name"));
    }
    Ok((key.to_owned(), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_separated_by_dots_and_may_be_quoted() {
        let parse = |text| Path::parse(text).map(|(path, rest)| (path.keys, rest));
        let keys = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<Vec<String>>();
        assert_eq!(parse("amount>=1"), Ok((keys(&["amount"]), ">=1")));
        assert_eq!(parse(" a.b-c.0 = x"), Ok((keys(&["a", "b-c", "0"]), "= x")));
        assert_eq!(parse(r#""a.b\n".é!=1"#), Ok((keys(&["a.b\n", "é"]), "!=1")));
        assert_eq!(Path::parse(r#""a b".c =1"#).unwrap().0.to_string(), r#""a b".c"#);
        for wrong in ["", "=1", "a.", "a..b", ".a", "\"a", "'a'"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse(&"a.".repeat(100_000)).is_err());
    }
}
