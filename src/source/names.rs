//! Numbers for sources: an entry carries a number, the store keeps the name behind it.
//!
//! - The pair is a checkpoint record of the store: key `source/NUMBER` (decimal), value the name. It rides in the first
//!   batch of the source, so an entry is never durable without the name of its source.
//! - A name keeps its number for the life of the store. Number 0 is an entry without a source (the library's).
//! - At most [`NAMES_MAX`] names; a store that has had more sources is told so when one is added, never silently renumbered.
//!
//! Proof: the tests below, and `tests/it`.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// The names in a store's checkpoints, by number.
pub(crate) use crate::format::facts::source_names as names;
use crate::format::facts::{Checkpoints, SOURCE_KEY_PREFIX};

/// Names that a store keeps: they stay in its manifest for ever.
pub(crate) const NAMES_MAX: usize = 4096;
/// Longest name, in bytes; a longer one is a mistake of the configuration.
pub(crate) const NAME_BYTES_MAX: usize = 255;

const LOCK: &str = "nothing panics while it holds this lock";

/// A source's number, and the record that names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SourceId {
    pub(crate) number: u16,
    pub(crate) name: String,
}

impl SourceId {
    /// Key and value of the record.
    pub(crate) fn record(&self) -> (Vec<u8>, &[u8]) {
        (format!("{SOURCE_KEY_PREFIX}{}", self.number).into_bytes(), self.name.as_bytes())
    }
}

/// The numbers given out, of this run and all before it.
#[derive(Debug)]
pub(crate) struct Registry {
    names: Mutex<BTreeMap<u16, String>>,
}

impl Registry {
    pub(crate) fn new(checkpoints: &Checkpoints) -> Registry {
        Registry { names: Mutex::new(names(checkpoints)) }
    }

    /// The number of a name, a new one if the store has not seen it.
    ///
    /// # Errors
    /// A sentence, if the name is empty or too long, or the store has no number left.
    pub(crate) fn id(&self, name: &str) -> Result<SourceId, String> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(format!("the source name \"{name}\" must have 1 to {NAME_BYTES_MAX} bytes"));
        }
        let mut names = self.names.lock().expect(LOCK);
        let known = names.iter().find(|(_, held)| *held == name).map(|(&number, _)| number);
        let number = match known {
            Some(number) => number,
            None if names.len() >= NAMES_MAX => {
                return Err(format!(
                    "the store has had {NAMES_MAX} sources, and \"{name}\" would be one more; give sources a name of their \
                     own that stays (name = \"…\")"
                ));
            }
            // A number that is free names no entry: an entry is never there without its name.
            None => (1..).find(|number| !names.contains_key(number)).expect("fewer names than numbers"),
        };
        names.insert(number, name.to_owned());
        Ok(SourceId { number, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_a_new_one_gets_the_next() {
        let registry = Registry::new(&Checkpoints::new());
        let stdin = registry.id("stdin").unwrap();
        assert_eq!(stdin.number, 1);
        let till = registry.id("tcp:127.0.0.1:7000").unwrap();
        assert_eq!((till.number, registry.id("stdin").unwrap()), (2, stdin));

        let (key, value) = till.record();
        let checkpoints = Checkpoints::from([(key, value.to_vec()), (b"file/1".to_vec(), b"x".to_vec())]);
        let next_run = Registry::new(&checkpoints);
        assert_eq!(next_run.id("tcp:127.0.0.1:7000").unwrap().number, 2);
        assert_eq!(next_run.id("new").unwrap().number, 1, "the first run's stdin never stored anything");
        assert_eq!(names(&checkpoints), BTreeMap::from([(2, "tcp:127.0.0.1:7000".to_owned())]));
    }

    #[test]
    fn names_are_bounded_in_length_and_number() {
        let registry = Registry::new(&Checkpoints::new());
        assert!(registry.id("").is_err());
        assert!(registry.id(&"x".repeat(NAME_BYTES_MAX + 1)).is_err());
        for number in 0..NAMES_MAX {
            registry.id(&number.to_string()).unwrap();
        }
        let refused = registry.id("one more").unwrap_err();
        assert!(refused.starts_with("the store has had 4096 sources"), "{refused}");
        assert!(registry.id("17").is_ok(), "a known one still has its number");
    }
}
