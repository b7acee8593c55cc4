//! Sources as they are written: an address or a path alone, or a table with options.
//!
//! - What a source does not say itself (`confirm`, `from`) comes from the settings for all of them.
//! - `~/` and wildcards are understood where no shell has seen the text: in the file and in variables. A path given by flag
//!   is taken as it is.
//! - Paths of files are made absolute: the name under which the store keeps a file must not depend on where the daemon was
//!   started.

use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, edit_distance};
use super::sources::{FileStart, Framing, check_name};
use super::value::{Value, Wrong, with_article};

/// Longest path of a Unix socket that every system takes, in bytes.
const UNIX_PATH_BYTES_MAX: usize = 103;

/// Where entries come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Stdin,
    File,
    Tcp,
    Udp,
    Unix,
}

impl Kind {
    /// What an element of its list is.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Kind::Tcp | Kind::Udp => "HOST:PORT",
            Kind::Stdin | Kind::File | Kind::Unix => "path",
        }
    }

    /// How it is written in the file.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Kind::Stdin => "true, or { confirm = true, name = \"…\" }",
            Kind::File => "[\"/var/log/pos/*.log\"]",
            Kind::Tcp | Kind::Udp => "[\"127.0.0.1:7000\"]",
            Kind::Unix => "[\"/run/kifa/till.sock\"]",
        }
    }

    /// The options of a table, its place first.
    fn options(self) -> &'static [&'static str] {
        match self {
            Kind::Stdin => &["confirm", "name"],
            Kind::File => &["path", "from", "name"],
            Kind::Tcp => &["address", "framing", "confirm", "name"],
            Kind::Udp => &["address", "name"],
            Kind::Unix => &["path", "framing", "confirm", "name"],
        }
    }
}

/// What a layer understands in a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style<'a> {
    /// `~/` and wildcards are ours to expand.
    pub(crate) expands: bool,
    /// The home directory, where one is known.
    pub(crate) home: Option<&'a Path>,
}

/// A source as it was given, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Given {
    /// Address or path; `true` for standard input.
    pub(crate) place: String,
    /// Of a path: it has wildcards.
    pub(crate) is_pattern: bool,
    pub(crate) framing: Framing,
    pub(crate) confirm: Option<bool>,
    pub(crate) start: Option<FileStart>,
    pub(crate) name: Option<String>,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        let mut options = Vec::new();
        if self.framing != Framing::default() {
            options.push(format!("framing {}", self.framing));
        }
        if let Some(confirm) = self.confirm {
            options.push(format!("confirm {confirm}"));
        }
        if let Some(start) = self.start {
            options.push(format!("from {start}"));
        }
        if let Some(name) = &self.name {
            options.push(format!("name {name}"));
        }
        if options.is_empty() { Ok(()) } else { write!(f, " ({})", options.join(", ")) }
    }
}

impl Given {
    fn at(place: &str) -> Given {
        Given {
            place: place.to_owned(),
            is_pattern: false,
            framing: Framing::default(),
            confirm: None,
            start: None,
            name: None,
        }
    }

    /// Standard input on or off, without options.
    pub(crate) fn stdin(is_on: bool) -> Value {
        Value::Sources(if is_on { vec![Given::at("true")] } else { Vec::new() })
    }

    /// A source that is an address or a path and nothing else.
    pub(crate) fn from_text(key: &Key, kind: Kind, text: &str, style: Style<'_>) -> Result<Given, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err(format!("{key} has an empty element; write {}", kind.example()));
        }
        let mut given = Given::at(text);
        match kind {
            Kind::Stdin => unreachable!("standard input is not a list"),
            Kind::Tcp | Kind::Udp => check_address(key, text)?,
            Kind::File => {
                given.is_pattern = style.expands && text.contains(['*', '?', '[']);
                let path = std::path::absolute(expand(key, text, style)?)
                    .map_err(|error| format!("{key}: {text} cannot be made an absolute path: {error}"))?;
                given.place = path.into_os_string().into_string().map_err(|_| format!("{key}: {text} is not UTF-8"))?;
            }
            Kind::Unix => {
                given.place = expand(key, text, style)?;
                let bytes = given.place.len();
                if bytes > UNIX_PATH_BYTES_MAX {
                    return Err(format!(
                        "{key}: {text} has {bytes} bytes; the path of a socket may have {UNIX_PATH_BYTES_MAX}"
                    ));
                }
            }
        }
        if given.place.chars().any(char::is_control) {
            return Err(format!("{key}: {:?} has a control character in it", given.place));
        }
        Ok(given)
    }

    /// An element of a list in the file (for standard input: its table).
    pub(crate) fn from_toml(
        key: &Key,
        kind: Kind,
        element: &Spanned<DeValue<'_>>,
        style: Style<'_>,
    ) -> Result<Given, Wrong> {
        let given = match element.get_ref() {
            DeValue::String(text) => Given::from_text(key, kind, text, style),
            DeValue::Table(table) => return Given::from_table(key, kind, element, table, style),
            other => {
                let found = with_article(other.type_str());
                Err(format!("{key} has {found} in it; its elements are written as in {}", kind.example()))
            }
        };
        given.map_err(|message| Wrong { message, at: Some(element.span().start) })
    }

    fn from_table(
        key: &Key,
        kind: Kind,
        element: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
        style: Style<'_>,
    ) -> Result<Given, Wrong> {
        let options = kind.options();
        let mut given = match (kind, table.get(options[0])) {
            (Kind::Stdin, _) => Given::at("true"),
            (_, Some(place)) => {
                let text = string(key, options[0], place)?;
                Given::from_text(key, kind, text, style)
                    .map_err(|message| Wrong { message, at: Some(place.span().start) })?
            }
            (_, None) => {
                let message = format!("{key} has an element without {0}; write {{ {0} = \"…\" }}", options[0]);
                return Err(Wrong { message, at: Some(element.span().start) });
            }
        };
        for (name, value) in table {
            let at = Some(name.span().start);
            match name.get_ref().as_ref() {
                option if !options.contains(&option) => {
                    return Err(Wrong { message: unknown_option(key, options, option), at });
                }
                "confirm" => match value.get_ref() {
                    DeValue::Boolean(confirm) => given.confirm = Some(*confirm),
                    other => {
                        let found = with_article(other.type_str());
                        return Err(Wrong {
                            message: format!("confirm of {key} is {found}; it must be true or false"),
                            at,
                        });
                    }
                },
                "framing" => given.framing = one_of(key, "framing", value, Framing::ALL)?,
                "from" => given.start = Some(one_of(key, "from", value, FileStart::ALL)?),
                "name" => {
                    let text = string(key, "name", value)?;
                    check_name(text).map_err(|what| Wrong { message: format!("{key}: {what}"), at })?;
                    given.name = Some(text.to_owned());
                }
                // The place, which was read first.
                _ => {}
            }
        }
        Ok(given)
    }
}

fn unknown_option(key: &Key, options: &[&str], found: &str) -> String {
    let closest = options.iter().min_by_key(|option| edit_distance(found, option)).expect("every kind has options");
    let known = options.join(", ");
    if edit_distance(found, closest) <= 2 {
        return format!("unknown option \"{found}\" of {key}; did you mean \"{closest}\"? (known: {known})");
    }
    format!("unknown option \"{found}\" of {key}; known: {known}")
}

fn string<'a>(key: &Key, option: &str, value: &'a Spanned<DeValue<'_>>) -> Result<&'a str, Wrong> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        other => {
            let found = with_article(other.type_str());
            Err(Wrong {
                message: format!("{option} of {key} is {found}; it must be a string"),
                at: Some(value.span().start),
            })
        }
    }
}

/// The one of `all` that is printed like the value.
fn one_of<T: Copy + fmt::Display>(
    key: &Key,
    option: &str,
    value: &Spanned<DeValue<'_>>,
    all: &[T],
) -> Result<T, Wrong> {
    let text = string(key, option, value)?;
    all.iter().find(|known| known.to_string() == text).copied().ok_or_else(|| {
        let known: Vec<String> = all.iter().map(T::to_string).collect();
        let message = format!("{option} of {key} is \"{text}\"; it must be one of: {}", known.join(", "));
        Wrong { message, at: Some(value.span().start) }
    })
}

/// `HOST:PORT`: a name, an IPv4 address, or an IPv6 address in brackets. Port 0 lets the system choose.
pub(super) fn check_address(key: &Key, text: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{key}: \"{text}\" is not an address to listen on: {why}"));
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return Ok(());
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong("the port is missing; write HOST:PORT, as 127.0.0.1:7000");
    };
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return wrong("its port must be a number up to 65535");
    }
    match host {
        "" | "*" => wrong(&format!("name an address; for all of them write 0.0.0.0:{port} or [::]:{port}")),
        _ if host.contains(':') => wrong(&format!("an IPv6 address is written in brackets, as [::1]:{port}")),
        _ if host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) => Ok(()),
        _ => wrong("its host is neither a name nor an IP address"),
    }
}

/// Replaces a leading `~/` by the home directory.
fn expand(key: &Key, text: &str, style: Style<'_>) -> Result<String, String> {
    let Some(rest) = text.strip_prefix('~').filter(|_| style.expands) else { return Ok(text.to_owned()) };
    if !rest.is_empty() && !rest.starts_with('/') {
        return Err(format!("{key}: {text} names somebody's home directory; write the whole path"));
    }
    match style.home.and_then(Path::to_str).filter(|home| !home.is_empty()) {
        Some(home) => Ok(format!("{}{rest}", home.trim_end_matches('/'))),
        None => Err(format!("{key}: {text} starts at the home directory, but HOME is not set; write the whole path")),
    }
}
