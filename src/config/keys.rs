//! The settings: every key with its table, environment variable, flag, range and effect. Reading, checking, suggesting and
//! the help text all come from the one table in `keys/table.rs`.

mod table;

use std::fmt;

use super::Config;
use super::given::Kind;
use super::value::{Rule, Value};

pub(crate) use table::KEYS;

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
    pub(crate) env: &'static str,
    pub(crate) flag: Option<&'static str>,
    pub(crate) rule: Rule,
    /// As it would be written in the variable; empty for a list.
    pub(crate) default: &'static str,
    /// Puts a value into effect. Called for every key, in the order of the table.
    pub(crate) apply: fn(&mut Config, &Value),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.name)
    }
}

/// Limits of connections that change for those that are there, too. The others are those of buffers that were made at the
/// start.
const LIVE_LIMITS: [&str; 6] = [
    "connections_max",
    "connections_per_address_max",
    "connection_buffer_kib",
    "partial_buffer_mib",
    "idle_timeout",
    "line_timeout",
];

impl Key {
    /// Whether a running daemon puts a new value into effect when it reads its configuration again.
    pub(crate) fn is_live(&self) -> bool {
        self.is_flush_mode() || (self.table == "ingester" && LIVE_LIMITS.contains(&self.name))
    }

    /// Whether it is the flush mode, which the log itself has to change.
    pub(crate) fn is_flush_mode(&self) -> bool {
        (self.table, self.name) == ("wal", "flush_mode")
    }

    /// Whether a layer may give it many values.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.rule, Rule::Sources(kind) if kind != Kind::Stdin)
    }
}

/// The tables of the file, each as `[name]`.
pub(crate) fn tables() -> Vec<&'static str> {
    let mut tables: Vec<&str> = KEYS.iter().map(|key| key.table).collect();
    tables.dedup();
    tables
}

/// The tables as text: `[storage], [wal]`.
pub(crate) fn table_list() -> String {
    tables().iter().map(|table| format!("[{table}]")).collect::<Vec<_>>().join(", ")
}

/// The settings as text for `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Settings, each by its key in the file and its environment variable:\n");
    for key in &KEYS {
        let default = if key.default.is_empty() { "none" } else { key.default };
        text.push_str(&format!("  {key}: {}; default {default}\n    {}\n", key.rule, key.env));
    }
    text
}

/// The known key closest to `table.name`: the same name in another table, or the smallest edit distance, if it is small.
pub(crate) fn nearest(table: &str, name: &str) -> Option<&'static Key> {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Some(key);
    }
    let distance = |key: &Key| {
        let wanted = if key.table == table { 0 } else { 1 };
        edit_distance(&name.to_lowercase().replace('-', "_"), key.name) + wanted
    };
    KEYS.iter().min_by_key(|key| distance(key)).filter(|key| distance(key) <= 1 + key.name.len() / 3)
}

/// Fewest insertions, deletions and replacements of a byte that turn one text into the other.
pub(crate) fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, byte_a) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, byte_b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(byte_a != byte_b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    /// Everything that settings have an effect on, after this value was applied to a fresh configuration.
    fn applied(key: &Key, value: &Value) -> Config {
        let mut config = Config::new("d".into());
        (key.apply)(&mut config, value);
        config
    }

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_library_and_the_sources() {
        let config = Config::load("absent".into(), None, &[], vec![("stdin", "true".to_owned())]).unwrap();
        let fresh = Config::new("absent".into());
        assert_eq!(config.options, Options::default());
        assert_eq!(
            (config.sources.limits, config.sources.file_limits),
            (fresh.sources.limits, fresh.sources.file_limits)
        );
        assert_eq!(config.sources.defaults, fresh.sources.defaults);
    }

    #[test]
    fn the_ends_of_each_range_are_valid_and_have_an_effect() {
        for key in &KEYS {
            let ends = match key.rule {
                Rule::Integer { min, max } => vec![Value::Integer(min), Value::Integer(max)],
                Rule::Time { min, max, .. } => vec![Value::Time(Some(min)), Value::Time(Some(max))],
                _ => continue,
            };
            for value in ends {
                let config = applied(key, &value);
                config.options.validate().unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
                assert!(value.to_string() == key.default || config != Config::new("d".into()), "{key} has no effect");
            }
        }
    }

    #[test]
    fn each_word_and_switch_has_an_effect() {
        for key in &KEYS {
            let other: Vec<Value> = match key.rule {
                Rule::Words(words) => words.iter().map(|word| Value::Word(word)).collect(),
                Rule::Switch => vec![Value::Switch(true), Value::Switch(false)],
                _ => continue,
            };
            for value in other {
                let is_default = applied(key, &value) == Config::new("d".into());
                assert_eq!(is_default, value.to_string() == key.default, "{key} = {value}");
            }
        }
    }

    #[test]
    fn names_variables_and_flags_are_used_once() {
        for (at, key) in KEYS.iter().enumerate() {
            for other in &KEYS[..at] {
                assert!(key.name != other.name && key.env != other.env, "{key} and {other}");
                assert!(key.flag.is_none() || key.flag != other.flag, "{key} and {other}");
            }
            assert_eq!(key.env, format!("KIFA_{}", key.name.to_uppercase()), "{key}");
        }
    }

    #[test]
    fn suggestions() {
        let name = |table, name| nearest(table, name).map(Key::to_string);
        assert_eq!(name("wal", "flush_mod").as_deref(), Some("wal.flush_mode"));
        assert_eq!(name("wal", "flush-mode").as_deref(), Some("wal.flush_mode"));
        assert_eq!(name("storage", "segment_size_mib").as_deref(), Some("wal.segment_size_mib"));
        assert_eq!(name("storage", "compaction_treshold").as_deref(), Some("storage.compaction_threshold"));
        assert_eq!(name("sources", "file").as_deref(), Some("sources.files"));
        assert_eq!(name("wal", "colour"), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
