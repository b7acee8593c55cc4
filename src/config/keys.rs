//! The table of settings: every key with its table, environment variable, flag, range and effect. Reading, checking,
//! suggesting and the help text all come from here.

use std::fmt;

use super::Config;
use crate::format::FlushMode;
use crate::io::SyncMethod;
use crate::options::IoBackend;

/// What a setting may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// A whole number, both ends allowed.
    Integer {
        min: u64,
        max: u64,
    },
    Switch,
    Words(&'static [&'static str]),
    /// A list that a later version will know; until then only an empty one is right.
    NotYet,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Integer { min, max } => write!(f, "{min} to {max}"),
            Rule::Switch => f.write_str("true or false"),
            Rule::Words(words) => f.write_str(&words.join(", ")),
            Rule::NotYet => f.write_str("not supported by this version"),
        }
    }
}

/// A value that obeys its rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Integer(u64),
    Switch(bool),
    Word(&'static str),
    Empty,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(value) => value.fmt(f),
            Value::Switch(value) => value.fmt(f),
            Value::Word(value) => f.write_str(value),
            Value::Empty => f.write_str("none"),
        }
    }
}

impl Value {
    fn integer(self) -> u64 {
        match self {
            Value::Integer(value) => value,
            _ => unreachable!("the rule of this key is a range"),
        }
    }

    fn switch(self) -> bool {
        matches!(self, Value::Switch(true))
    }

    fn word(self) -> &'static str {
        match self {
            Value::Word(word) => word,
            _ => unreachable!("the rule of this key is a list of words"),
        }
    }
}

/// One setting.
pub(crate) struct Key {
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
    pub(crate) env: &'static str,
    pub(crate) flag: Option<&'static str>,
    pub(crate) rule: Rule,
    pub(crate) default: Value,
    pub(crate) apply: fn(&mut Config, Value),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.name)
    }
}

const MIB: u64 = 1 << 20;

/// Every setting. The ranges of the library's options are repeated here in the units of the keys; a test compares them.
pub(crate) const KEYS: [Key; 12] = [
    Key {
        table: "storage",
        name: "memtable_flush_threshold_mib",
        env: "KIFA_MEMTABLE_FLUSH_THRESHOLD_MIB",
        flag: Some("--memtable-threshold-mib"),
        rule: Rule::Integer { min: 1, max: 1024 },
        default: Value::Integer(4),
        apply: |config, value| config.options.memtable_bytes = (value.integer() * MIB) as usize,
    },
    Key {
        table: "storage",
        name: "compaction_threshold",
        env: "KIFA_COMPACTION_THRESHOLD",
        flag: Some("--compaction-threshold"),
        rule: Rule::Integer { min: 2, max: 64 },
        default: Value::Integer(4),
        apply: |config, value| config.options.compaction_threshold = value.integer() as usize,
    },
    Key {
        table: "storage",
        name: "compaction_enabled",
        env: "KIFA_COMPACTION_ENABLED",
        flag: Some("--no-compaction"),
        rule: Rule::Switch,
        default: Value::Switch(true),
        apply: |config, value| config.options.compaction_enabled = value.switch(),
    },
    Key {
        table: "storage",
        name: "io_backend",
        env: "KIFA_IO_BACKEND",
        flag: Some("--io-backend"),
        rule: Rule::Words(&["auto", "uring", "portable"]),
        default: Value::Word("auto"),
        apply: |config, value| {
            config.options.io_backend = match value.word() {
                "uring" => IoBackend::Uring,
                "portable" => IoBackend::Portable,
                _ => IoBackend::Auto,
            }
        },
    },
    Key {
        table: "wal",
        name: "flush_mode",
        env: "KIFA_FLUSH_MODE",
        flag: Some("--flush-mode"),
        rule: Rule::Words(&["normal", "cautious", "emergency"]),
        default: Value::Word("cautious"),
        apply: |config, value| {
            config.options.flush_mode = match value.word() {
                "normal" => FlushMode::Normal,
                "emergency" => FlushMode::Emergency,
                _ => FlushMode::Cautious,
            }
        },
    },
    Key {
        table: "wal",
        name: "segment_size_mib",
        env: "KIFA_SEGMENT_SIZE_MIB",
        flag: Some("--segment-size-mib"),
        rule: Rule::Integer { min: 1, max: 1024 },
        default: Value::Integer(16),
        apply: |config, value| config.options.segment_bytes = value.integer() * MIB,
    },
    Key {
        table: "wal",
        name: "sync_method",
        env: "KIFA_SYNC_METHOD",
        flag: None,
        rule: Rule::Words(&["auto", "linked", "dsync"]),
        default: Value::Word("auto"),
        apply: |config, value| {
            config.options.sync_method = match value.word() {
                "linked" => SyncMethod::Linked,
                "dsync" => SyncMethod::Dsync,
                _ => SyncMethod::Auto,
            }
        },
    },
    Key {
        table: "ingester",
        name: "channel_capacity",
        env: "KIFA_CHANNEL_CAPACITY",
        flag: Some("--channel-capacity"),
        rule: Rule::Integer { min: 1, max: 65_536 },
        default: Value::Integer(1024),
        apply: |config, value| config.options.channel_capacity = value.integer() as usize,
    },
    Key {
        table: "sources",
        name: "stdin",
        env: "KIFA_STDIN",
        flag: Some("--stdin"),
        rule: Rule::Switch,
        default: Value::Switch(false),
        apply: |config, value| config.sources.stdin = value.switch().then(Default::default),
    },
    not_yet("files", "KIFA_FILES"),
    not_yet("tcp", "KIFA_TCP"),
    not_yet("udp", "KIFA_UDP"),
];

/// A source that has its name but not its code: to accept it without an effect would lose somebody's entries.
const fn not_yet(name: &'static str, env: &'static str) -> Key {
    Key {
        table: "sources",
        name,
        env,
        flag: None,
        rule: Rule::NotYet,
        default: Value::Empty,
        apply: |_, value| assert_eq!(value, Value::Empty),
    }
}

/// The settings as text for `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Settings, each by its key in the file and its environment variable:\n");
    for key in KEYS.iter().filter(|key| key.rule != Rule::NotYet) {
        let name = key.to_string();
        text.push_str(&format!("  {name}: {}; default {}\n    {}\n", key.rule, key.default, key.env));
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

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_library() {
        let mut config = Config::new("d".into());
        for key in &KEYS {
            (key.apply)(&mut config, key.default);
        }
        assert_eq!(config.options, Options::default());
        assert!(config.sources.is_empty());
    }

    #[test]
    fn the_ends_of_each_range_are_valid_options() {
        for key in &KEYS {
            let Rule::Integer { min, max } = key.rule else { continue };
            for value in [min, max] {
                let mut config = Config::new("d".into());
                (key.apply)(&mut config, Value::Integer(value));
                config.options.validate().unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
                assert!(value == 4 || config.options != Options::default(), "{key} has no effect");
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
                let mut config = Config::new("d".into());
                (key.apply)(&mut config, value);
                let is_default = config.options == Options::default() && config.sources.is_empty();
                assert_eq!(is_default, value == key.default, "{key} = {value}");
            }
        }
    }

    #[test]
    fn suggestions() {
        let name = |table, name| nearest(table, name).map(Key::to_string);
        assert_eq!(name("wal", "flush_mod").as_deref(), Some("wal.flush_mode"));
        assert_eq!(name("wal", "flush-mode").as_deref(), Some("wal.flush_mode"));
        assert_eq!(name("storage", "segment_size_mib").as_deref(), Some("wal.segment_size_mib"));
        assert_eq!(name("storage", "compaction_treshold").as_deref(), Some("storage.compaction_threshold"));
        assert_eq!(name("wal", "colour"), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
