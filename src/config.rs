//! The daemon's configuration: flags over environment over file over defaults, checked, each value with its origin.
//!
//! - One table ([`keys`]) knows every setting; a setting that is not in it is an error wherever it comes from the user's
//!   own hand (file, flags). An unknown `KIFA_*` variable is only pointed out: an environment holds what others put there.
//! - A value of any layer is checked even where a higher one overrides it: a mistake does not wait for its turn.
//! - An empty environment variable counts as not set.
//! - Reading changes nothing; the data directory need not exist.
//!
//! Proof: the tests below, and `tests/it/config.rs` through the program.
// The configuration is the user's file; a store is opened only once it has been read.
#![allow(clippy::disallowed_methods)]

mod given;
pub(crate) mod keys;
pub(crate) mod sources;
pub(crate) mod text;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::options::Options;
use given::Style;
use keys::{KEYS, Key, edit_distance, nearest, table_list, tables};
use sources::Sources;
use value::{Value, Wrong, parse_texts, parse_toml, split_list};

/// Environment variables that are not settings of the table.
const OTHER_VARIABLES: [&str; 3] = ["KIFA_DATA_DIR", "KIFA_LOG", "KIFA_PAGER"];

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Env(&'static str),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("the default"),
            Origin::File { path, line } => write!(f, "{} line {line}", path.display()),
            Origin::Env(name) => write!(f, "the environment variable {name}"),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// What is wrong with the configuration, in one sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ConfigError {
    /// On the command line, not in file or environment.
    pub(crate) is_usage: bool,
    pub(crate) message: String,
}

impl ConfigError {
    fn new(message: String) -> ConfigError {
        ConfigError { is_usage: false, message }
    }

    fn at(origin: &Origin, message: &str) -> ConfigError {
        ConfigError { is_usage: matches!(origin, Origin::Flag(_)), message: format!("{origin}: {message}") }
    }

    fn usage(message: &str) -> ConfigError {
        ConfigError { is_usage: true, message: message.to_owned() }
    }
}

/// A value given by flag: the key's name in the table, and the text. A flag of a list may come many times.
pub(crate) type FlagValue = (&'static str, String);

/// The validated configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) sources: Sources,
    /// Where metrics are served; `None`: nowhere.
    pub(crate) metrics: Option<String>,
    /// Value and origin of each of [`KEYS`].
    values: Vec<(Value, Origin)>,
    /// Variables that look like ours and are not.
    pub(crate) unknown_variables: Vec<String>,
}

/// A setting that has another value than it had.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) key: &'static Key,
    /// Old and new value.
    texts: (String, String),
    origin: Origin,
    /// It can be put into effect without a restart.
    pub(crate) is_live: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = &self.texts;
        write!(f, "{}: {old} → {new}, from {}", self.key, self.origin)
    }
}

/// The data directory of any command: the flag, else `KIFA_DATA_DIR`. There is no default: a store in the wrong place is
/// worse than a question.
pub(crate) fn data_dir(flag: Option<PathBuf>, env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, ConfigError> {
    flag.or_else(|| env("KIFA_DATA_DIR").map(PathBuf::from))
        .filter(|dir| !dir.as_os_str().is_empty())
        .ok_or_else(|| ConfigError::usage("no data directory is named: add -d DIR, or set KIFA_DATA_DIR"))
}

impl Config {
    /// A configuration of defaults only: one that reads from nowhere.
    fn new(data_dir: PathBuf) -> Config {
        let style = Style { expands: false, home: None };
        let default = |key: &Key| {
            let texts = if key.default.is_empty() { &[][..] } else { &[key.default][..] };
            parse_texts(key, texts, style).expect("defaults obey their rules")
        };
        Config {
            data_dir,
            options: Options::default(),
            sources: Sources::default(),
            metrics: None,
            values: KEYS.iter().map(|key| (default(key), Origin::Default)).collect(),
            unknown_variables: Vec::new(),
        }
    }

    /// Puts all layers together. `file` is the one named by `-c`; without it, `kifa.toml` in the data directory is read
    /// if it is there.
    pub(crate) fn load(
        data_dir: PathBuf,
        file: Option<&Path>,
        variables: &[(OsString, OsString)],
        flags: Vec<FlagValue>,
    ) -> Result<Config, ConfigError> {
        let config = Config::put_together(data_dir, file, variables, &flags)?;
        config.sources.check().map_err(ConfigError::new)?;
        if config.sources.is_empty() {
            let message = "there is nothing to read from: add --stdin, --file PATH, --tcp ADDR, --udp ADDR or --unix PATH \
                (or a variable as KIFA_TCP, or sources in the configuration file)";
            return Err(ConfigError::usage(message));
        }
        Ok(config)
    }

    /// For a command that opens the store and brings its own entries: the file in the data directory, and the variables.
    pub(crate) fn load_without_sources(
        data_dir: PathBuf,
        variables: &[(OsString, OsString)],
    ) -> Result<Config, ConfigError> {
        Config::put_together(data_dir, None, variables, &[])
    }

    /// All layers put together, whether or not there is anything to read from.
    pub(crate) fn put_together(
        data_dir: PathBuf,
        file: Option<&Path>,
        variables: &[(OsString, OsString)],
        flags: &[FlagValue],
    ) -> Result<Config, ConfigError> {
        let file = read_file(&data_dir, file)?;
        Config::of_layers(data_dir, file, variables, flags)
    }

    /// All layers, with path and text of the file at hand.
    pub(crate) fn of_layers(
        data_dir: PathBuf,
        file: Option<(PathBuf, String)>,
        variables: &[(OsString, OsString)],
        flags: &[FlagValue],
    ) -> Result<Config, ConfigError> {
        let mut config = Config::new(data_dir);
        let home = variables.iter().find(|(name, _)| name == "HOME").map(|(_, home)| Path::new(home));
        let style = Style { expands: true, home };
        if let Some((path, text)) = file {
            config.read_toml(&path, &text, style)?;
        }
        config.read_variables(variables, style)?;
        config.read_flags(flags)?;
        config.apply();
        config.options.validate().map_err(|error| ConfigError::new(error.to_string()))?;
        config.check_flags()?;
        Ok(config)
    }

    /// A flag that speaks for other sources, where there are none of them, does nothing: whoever wrote it means something
    /// else. In a variable or a file it may be meant for another day.
    fn check_flags(&self) -> Result<(), ConfigError> {
        let sources = &self.sources;
        let is_answered = sources.stdin.is_some() || !sources.tcp.is_empty() || !sources.unix.is_empty();
        let idle = [
            ("confirm", is_answered, "nothing could be answered: add --stdin, --tcp or --unix"),
            ("file_from", !sources.files.is_empty(), "there is no file to follow: add --file"),
        ];
        for ((_, origin), key) in self.values.iter().zip(&KEYS) {
            let is_flag = matches!(origin, Origin::Flag(_));
            if let Some((.., what)) = idle.iter().find(|(name, is_used, _)| is_flag && *name == key.name && !is_used) {
                return Err(ConfigError::at(origin, what));
            }
        }
        Ok(())
    }

    /// Puts the values into effect, whatever layer each came from.
    fn apply(&mut self) {
        for (at, key) in KEYS.iter().enumerate() {
            let value = self.values[at].0.clone();
            (key.apply)(self, &value);
        }
    }

    /// Every setting with its value and where that came from.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static Key, &Value, &Origin)> {
        KEYS.iter().zip(&self.values).map(|(key, (value, origin))| (key, value, origin))
    }

    /// The settings that are not defaults, as sentences for the log.
    pub(crate) fn settings(&self) -> impl Iterator<Item = String> {
        let given = self.values.iter().zip(&KEYS).filter(|((_, origin), _)| *origin != Origin::Default);
        given.map(|((value, origin), key)| format!("{key} is {value}, from {origin}"))
    }

    /// Takes over what can be put into effect on a running daemon, and tells every difference.
    pub(crate) fn adopt(&mut self, new: &Config) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (at, key) in KEYS.iter().enumerate() {
            let ((old, _), (new, origin)) = (&self.values[at], &new.values[at]);
            if old != new {
                let texts = (old.to_string(), new.to_string());
                differences.push(Difference { key, texts, origin: origin.clone(), is_live: key.is_live() });
            }
        }
        for difference in differences.iter().filter(|difference| difference.is_live) {
            let at = KEYS.iter().position(|key| std::ptr::eq(key, difference.key)).expect("it is one of them");
            self.values[at] = new.values[at].clone();
        }
        self.apply();
        differences
    }

    fn set(&mut self, at: usize, value: Result<Value, Wrong>, origin: Origin) -> Result<(), ConfigError> {
        let value = value.map_err(|wrong| ConfigError::at(&origin, &wrong.message))?;
        self.values[at] = (value, origin);
        Ok(())
    }

    fn read_flags(&mut self, flags: &[FlagValue]) -> Result<(), ConfigError> {
        let style = Style { expands: false, home: None };
        for (at, key) in KEYS.iter().enumerate() {
            let given = flags.iter().filter(|(name, _)| *name == key.name);
            let texts: Vec<&str> = given.map(|(_, text)| text.as_str()).collect();
            if !texts.is_empty() {
                let origin = Origin::Flag(key.flag.expect("the key of a flag has a flag"));
                self.set(at, parse_texts(key, &texts, style), origin)?;
            }
        }
        Ok(())
    }

    fn read_variables(&mut self, variables: &[(OsString, OsString)], style: Style<'_>) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("KIFA_")) else { continue };
            if value.is_empty() || OTHER_VARIABLES.contains(&name) {
                continue;
            }
            let Some((at, key)) = KEYS.iter().enumerate().find(|(_, key)| key.env == name) else {
                self.unknown_variables.push(name.to_owned());
                continue;
            };
            let value = match value.to_str() {
                Some(text) => {
                    let texts = if key.is_list() { split_list(text) } else { vec![text.to_owned()] };
                    parse_texts(key, &texts.iter().map(String::as_str).collect::<Vec<_>>(), style)
                }
                None => Err(format!("the value of {key} is not UTF-8").into()),
            };
            self.set(at, value, Origin::Env(key.env))?;
        }
        Ok(())
    }

    fn read_toml(&mut self, path: &Path, text: &str, style: Style<'_>) -> Result<(), ConfigError> {
        let line = |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
        let origin = |at: usize| Origin::File { path: path.to_owned(), line: line(at) };
        let root = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            ConfigError::at(&origin(at), &format!("not valid TOML: {}", error.message().replace('\n', ", ")))
        })?;
        for (table, content) in root.get_ref() {
            let here = origin(table.span().start);
            let known = KEYS.iter().any(|key| key.table == table.get_ref().as_ref());
            let entries = match content.get_ref() {
                DeValue::Table(entries) if known => entries,
                value => return Err(unknown_table(table.get_ref(), value, known, &here)),
            };
            for (name, value) in entries {
                let here = origin(name.span().start);
                let Some((at, key)) = find(table.get_ref(), name.get_ref()) else {
                    return Err(unknown_key(table.get_ref(), name.get_ref(), &here));
                };
                let value = parse_toml(key, value, style);
                let wrong_at = value.as_ref().err().and_then(|wrong| wrong.at);
                self.set(at, value, wrong_at.map_or(here, origin))?;
            }
        }
        Ok(())
    }
}

/// Path and text of the configuration file; `None` where none is named and none is there.
fn read_file(data_dir: &Path, named: Option<&Path>) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = named.map_or_else(|| data_dir.join("kifa.toml"), Path::to_owned);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if named.is_none() && is_absent(&error) => Ok(None),
        Err(error) => Err(ConfigError::new(format!("cannot read {}: {error}", path.display()))),
    }
}

/// A file that is not there, also because its directory is not there (or is no directory: opening the store says so).
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn find(table: &str, name: &str) -> Option<(usize, &'static Key)> {
    KEYS.iter().enumerate().find(|(_, key)| key.table == table && key.name == name)
}

fn unknown_key(table: &str, name: &str, origin: &Origin) -> ConfigError {
    let help = match nearest(table, name) {
        Some(key) => format!("did you mean \"{key}\" ({})?", key.rule),
        None => {
            let known: Vec<String> = KEYS.iter().filter(|key| key.table == table).map(Key::to_string).collect();
            format!("known here: {}", known.join(", "))
        }
    };
    ConfigError::at(origin, &format!("unknown key \"{table}.{name}\"; {help}"))
}

/// The error for a name at the top of the file that is not one of the tables.
fn unknown_table(name: &str, value: &DeValue<'_>, known: bool, origin: &Origin) -> ConfigError {
    if known {
        let found = value.type_str();
        return ConfigError::at(origin, &format!("\"{name}\" is a table, written [{name}], not a value ({found})"));
    }
    if !value.is_table() {
        let help = nearest("", name).map_or_else(
            || format!("settings belong into the tables {}", table_list()),
            |key| format!("did you mean \"{}\" under [{}] ({})?", key.name, key.table, key.rule),
        );
        return ConfigError::at(origin, &format!("unknown key \"{name}\"; {help}"));
    }
    let closest = tables().into_iter().min_by_key(|table| edit_distance(name, table)).unwrap_or_default();
    let message = format!("unknown table [{name}]; did you mean [{closest}]? (known: {})", table_list());
    ConfigError::at(origin, &message)
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
