//! The configuration as the text of a file: what is in force, or every setting with its default and what it is about.
//!
//! What is printed reads back as what it was printed from.
//!
//! Proof: the tests below, and `tests/it/config.rs`.

use std::fmt::Write as _;

use super::given::{Given, Kind};
use super::keys::Key;
use super::sources::Framing;
use super::value::{Rule, Value};
use super::{Config, Origin};

/// Columns of a comment.
const WIDTH: usize = 100;

/// What each setting is about. One that is not here is told by its rule alone.
const ABOUT: &[(&str, &str)] = &[
    ("storage.memtable_flush_threshold_mib", "Entries kept in memory before they go to a table"),
    ("storage.compaction_threshold", "Neighbouring tables of similar size that are merged into one"),
    ("storage.compaction_enabled", "Merge tables"),
    ("storage.compression", "How tables are compressed; zstd takes half the space of lz4 for JSON, at twice the cost"),
    ("storage.on_full", "On a full disk: appends wait until there is room, or are refused (ERR full)"),
    ("storage.io_backend", "Who does the I/O; auto is io_uring where the kernel allows it"),
    (
        "storage.cpu_affinity",
        "Keep work on tables off the processor that takes the disk's interrupts (auto), or leave it to the system (off)",
    ),
    ("retention.max_age", "Delete tables whose youngest entry is older than this, oldest first; 0: never"),
    ("retention.max_size_mib", "Delete the oldest tables while the store takes more room than this; 0: never"),
    ("retention.min_free_mib", "Delete the oldest tables while the file system has less room than this; 0: never"),
    (
        "wal.flush_mode",
        "When entries are synced; normal: up to 49 confirmed entries at risk, cautious: none, emergency: none, and no \
         compaction",
    ),
    ("wal.segment_size_mib", "Length of a segment of the write-ahead log"),
    ("wal.sync_method", "How a write is made durable: a data sync behind it (linked), or as part of it (dsync)"),
    ("ingester.channel_capacity", "Batches on their way before a source has to wait"),
    ("ingester.connections_max", "Connections of all stream listeners together"),
    ("ingester.connections_per_address_max", "Connections from one IP address"),
    ("ingester.line_bytes_max", "Longest entry of a connection, in bytes"),
    (
        "ingester.connection_buffer_kib",
        "What one connection may have read and not confirmed before reading from it pauses",
    ),
    ("ingester.partial_buffer_mib", "Unfinished lines of all connections together"),
    ("ingester.idle_timeout", "How long a connection may say nothing between two lines"),
    ("ingester.line_timeout", "How long a line may take from its first byte to its last"),
    ("ingester.clients_max", "Producers with an id of their own (HELLO) that are remembered"),
    ("ingester.udp_buffer_kib", "Receive buffer asked for each UDP socket"),
    ("ingester.files_max", "Files followed at once"),
    ("ingester.file_rescan", "How often files are looked at whatever the system has notified"),
    ("ingester.file_watch", "How changes of files are noticed; poll is for file systems that notify nobody, as NFS"),
    ("daemon.metrics", "Serve numbers for Prometheus at /metrics and a check at /healthz, as \"127.0.0.1:9464\""),
    ("sources.confirm", "Answer each entry of standard input, TCP and Unix sockets with OK and its number"),
    ("sources.file_from", "Where a file begins that the store has not seen before"),
    ("sources.stdin", "Read standard input, one entry per line; or { confirm = true, name = \"till\" }"),
    ("sources.files", "Files to follow, as [\"/var/log/pos/*.log\", { path = \"~/till.log\", from = \"end\" }]"),
    ("sources.tcp", "TCP listeners, as [\"127.0.0.1:7000\", { address = \"127.0.0.1:7001\", framing = \"octet\" }]"),
    ("sources.udp", "Datagram listeners, one entry each, never confirmed"),
    ("sources.unix", "Unix sockets, as [\"/run/kifa/till.sock\"]"),
];

/// A file with every setting: its range, its variable, its default.
pub(crate) fn defaults() -> String {
    let mut text = String::from(
        "# Settings of Kifa, all at their defaults. Flags win over environment variables, these over this file.\n",
    );
    let defaults = Config::new("".into());
    let mut table = "";
    for (key, value, _) in defaults.values() {
        begin_table(key, &mut table, &mut text);
        let about = ABOUT.iter().find(|(name, _)| *name == key.to_string());
        if let Some((_, about)) = about {
            comment(about, &mut text);
        }
        comment(&format!("({}; {})", rule(key), key.env), &mut text);
        let _ = writeln!(text, "{} = {}", key.name, toml(key, value));
    }
    text
}

fn rule(key: &Key) -> String {
    match key.rule {
        Rule::Words(words) => words.join(", "),
        rule => rule.to_string(),
    }
}

/// The settings in force, if asked for each with where it came from.
pub(crate) fn effective(config: &Config, with_origin: bool) -> String {
    let mut text = String::new();
    let mut table = "";
    for (key, value, origin) in config.values() {
        begin_table(key, &mut table, &mut text);
        let _ = write!(text, "{} = {}", key.name, toml(key, value));
        match origin {
            _ if !with_origin => {}
            Origin::Default => text.push_str("  # the default"),
            other => {
                // A path may hold anything, and a line end would end the comment.
                let other = other.to_string().replace(char::is_control, "?");
                let _ = write!(text, "  # from {other}");
            }
        }
        text.push('\n');
    }
    text
}

fn begin_table(key: &Key, table: &mut &'static str, text: &mut String) {
    if *table != key.table {
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}[{}]", key.table);
        *table = key.table;
    }
}

fn comment(about: &str, text: &mut String) {
    let mut line = String::from("#");
    for word in about.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(text, "{line}");
}

/// A value as the file has it.
fn toml(key: &Key, value: &Value) -> String {
    match (value, key.rule) {
        (Value::Integer(_) | Value::Switch(_), _) => value.to_string(),
        (Value::Sources(sources), Rule::Sources(Kind::Stdin)) => {
            sources.first().map_or("false".to_owned(), |stdin| element(Kind::Stdin, stdin))
        }
        (Value::Sources(sources), Rule::Sources(kind)) => {
            let elements: Vec<String> = sources.iter().map(|given| element(kind, given)).collect();
            format!("[{}]", elements.join(", "))
        }
        (word_or_time, _) => quoted(&word_or_time.to_string()),
    }
}

fn element(kind: Kind, given: &Given) -> String {
    let (place, shown) = match kind {
        Kind::Stdin => ("", "true".to_owned()),
        Kind::File if given.is_pattern => ("path", quoted(&given.place)),
        Kind::File => ("path", quoted(&literal(&given.place))),
        Kind::Unix => ("path", quoted(&given.place)),
        Kind::Tcp | Kind::Udp => ("address", quoted(&given.place)),
    };
    let mut options = Vec::new();
    if given.framing != Framing::default() {
        options.push(format!("framing = \"{}\"", given.framing));
    }
    if let Some(confirm) = given.confirm {
        options.push(format!("confirm = {confirm}"));
    }
    if let Some(start) = given.start {
        options.push(format!("from = \"{start}\""));
    }
    if let Some(name) = &given.name {
        options.push(format!("name = {}", quoted(name)));
    }
    if options.is_empty() {
        return shown;
    }
    if !place.is_empty() {
        options.insert(0, format!("{place} = {shown}"));
    }
    format!("{{ {} }}", options.join(", "))
}

/// A path as the pattern that stands for nothing but itself.
fn literal(path: &str) -> String {
    let mut pattern = String::new();
    for character in path.chars() {
        match character {
            '*' | '?' | '[' => pattern.extend(['[', character, ']']),
            _ => pattern.push(character),
        }
    }
    pattern
}

/// A basic string of TOML. Paths, addresses and names have no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    use crate::config::KEYS;

    fn load(text: &str) -> Config {
        Config::of_layers("/store".into(), Some((PathBuf::from("kifa.toml"), text.to_owned())), &[], &[]).unwrap()
    }

    #[test]
    fn the_defaults_read_back_as_the_defaults_and_tell_of_every_setting() {
        let text = defaults();
        let (read, none) = (load(&text), load(""));
        for ((key, value, origin), (_, default, _)) in read.values().zip(none.values()) {
            assert_eq!(value, default, "{key}");
            assert!(matches!(origin, Origin::File { .. }), "{key} is not in the file");
            assert!(ABOUT.iter().any(|(name, _)| *name == key.to_string()), "{key}: say what it is about");
            assert!(text.contains(key.env));
        }
        assert_eq!(ABOUT.len(), KEYS.len(), "something is told of that is no setting");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn what_is_in_force_reads_back() {
        let text = r#"
            [wal]
            flush_mode = "normal"
            [ingester]
            idle_timeout = "0"
            line_timeout = "1h30m"
            [sources]
            stdin = { confirm = true, name = "a \"till\" \\ here" }
            files = ["/var/log/*.log", { path = "/x/[*].log", from = "end", name = "x" }]
            tcp = ["127.0.0.1:7000", { address = "127.0.0.1:7001", framing = "octet", confirm = false }]
            unix = ["/run/till.sock"]
        "#;
        let config = load(text);
        let shown = effective(&config, true);
        let again = load(&shown);
        for ((key, value, _), (_, other, _)) in config.values().zip(again.values()) {
            assert_eq!(value, other, "{key} in\n{shown}");
        }
        assert!(shown.contains("flush_mode = \"normal\"  # from kifa.toml line 3\n"), "{shown}");
        assert!(shown.contains("compression = \"lz4\"  # the default\n"), "{shown}");
        assert!(!effective(&config, false).contains('#'));
    }

    #[test]
    #[cfg_attr(windows, ignore = "it names paths as Unix does")]
    fn a_path_of_a_flag_stays_itself() {
        let flags = vec![("files", "/a/*[x]?.log".to_owned()), ("stdin", "true".to_owned())];
        let config = Config::of_layers("/store".into(), None, &[], &flags).unwrap();
        let shown = effective(&config, false);
        assert!(shown.contains(r#"files = ["/a/[*][[]x][?].log"]"#), "{shown}");
        assert!(shown.contains("stdin = true\n"), "{shown}");
    }
}
