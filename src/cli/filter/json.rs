//! Looking into a JSON text (RFC 8259) where it lies: one pass for each level of a path, nothing built, no recursion.
//!
//! A key that an object has twice counts where it comes last. Numbers stay text: none loses a digit here.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::path::Path;

/// The payload as JSON; `None` if it is not.
pub(crate) fn parse(payload: &[u8]) -> Option<&RawValue> {
    serde_json::from_str(std::str::from_utf8(payload).ok()?).ok()
}

/// What lies at the path; `None` where there is no such place, or a key beside it is not Unicode.
pub(crate) fn find<'j>(json: &'j RawValue, path: &Path) -> Option<&'j RawValue> {
    path.keys().iter().try_fold(json, |at, key| member(at, key))
}

fn member<'j>(json: &'j RawValue, key: &str) -> Option<&'j RawValue> {
    let mut reader = serde_json::Deserializer::from_str(json.get());
    match json.get().as_bytes().first() {
        Some(b'{') => reader.deserialize_map(Member(key)).ok().flatten(),
        Some(b'[') => reader.deserialize_seq(Element(key.parse().ok()?)).ok().flatten(),
        _ => None,
    }
}

/// The text of a JSON string; `None` if this is something else, or not Unicode.
pub(crate) fn string(json: &RawValue) -> Option<Cow<'_, str>> {
    let inner = json.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

struct Member<'k>(&'k str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(Is(self.0))? {
            if is_it {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a key is the one that is looked for.
struct Is<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

struct Element(usize);

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = elements.next_element()?;
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'j>(json: &'j str, path: &str) -> Option<&'j str> {
        let (path, rest) = Path::parse(path).unwrap();
        assert_eq!(rest, "");
        find(parse(json.as_bytes()).unwrap(), &path).map(RawValue::get)
    }

    #[test]
    fn paths_lead_through_objects_and_arrays() {
        let json = r#" {"a":{"b":[10,{"c":1.50}]}, "x.y" : "z", "a\u0062":0, "n":null } "#;
        assert_eq!(at(json, "a.b.1.c"), Some("1.50"));
        assert_eq!(at(json, "a.b.0"), Some("10"));
        assert_eq!(at(json, r#""x.y""#), Some(r#""z""#));
        assert_eq!((at(json, "ab"), at(json, "n")), (Some("0"), Some("null")));
        for absent in ["a.c", "a.b.2", "a.b.x", "b", "n.a", "a.b.0.0", "x.y"] {
            assert_eq!(at(json, absent), None, "{absent}");
        }
        assert_eq!(at(r#"{"a":1,"a":{"b":2}}"#, "a"), Some(r#"{"b":2}"#), "the last one counts");
        assert_eq!(at("[[1]]", "0.0"), Some("1"));
        assert_eq!(at("5", "a"), None);
    }

    #[test]
    fn numbers_out_of_every_range_lose_nothing() {
        let json = r#"{"big":123456789012345678901234567890.5,"e":1e99999,"a":{"x":-1e-99999}}"#;
        assert_eq!(at(json, "big"), Some("123456789012345678901234567890.5"));
        assert_eq!((at(json, "e"), at(json, "a.x")), (Some("1e99999"), Some("-1e-99999")));
        assert_eq!(at(json, "e.x"), None);
    }

    #[test]
    fn what_is_not_json_is_told_apart_however_deep() {
        for wrong in [&b""[..], b"x", b"{\"a\":1", b"{\"a\":1}}", b"{'a':1}", b"\"\xff\"", b"{\"a\":01}"] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
        let deep = format!("{}1{}", "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(at(&deep, "0.0").unwrap().len(), deep.len() - 4);
        let surrogate = parse(br#"{"a":"\ud800","\ud800":1,"b":2}"#).unwrap();
        let (path, _) = Path::parse("a").unwrap();
        assert!(find(surrogate, &path).and_then(string).is_none());
    }

    #[test]
    fn strings_are_decoded() {
        let text = |json: &'static str| string(parse(json.as_bytes()).unwrap());
        assert_eq!(text(r#""a\u00e9\n\"é""#).as_deref(), Some("aé\n\"é"));
        assert_eq!((text(r#""""#).as_deref(), text("5"), text("{}")), (Some(""), None, None));
    }
}
