//! What the daemon reads from, as configured: checked, but nothing opened yet.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::format::ENTRY_PAYLOAD_BYTES_MAX;
use crate::source::names::NAME_BYTES_MAX;

/// Name of the source of entries that come by the control socket; no other source may have it.
pub(crate) const APPEND_NAME: &str = "append";

/// How a stream is cut into entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Framing {
    /// LF or CR LF ends an entry; empty lines are skipped.
    #[default]
    Newline,
    /// RFC 6587, section 3.4.1: decimal length, a space, that many bytes.
    Octet,
    /// A zero byte ends an entry.
    Nul,
}

impl Framing {
    pub(crate) const ALL: &[Framing] = &[Framing::Newline, Framing::Octet, Framing::Nul];
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Framing::Newline => "newline",
            Framing::Octet => "octet",
            Framing::Nul => "nul",
        })
    }
}

/// Standard input.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct StdinSource {
    pub(crate) confirm: bool,
    /// Name in the store, where it is not to be `stdin`.
    pub(crate) name: Option<String>,
}

/// Where the tail of a file that the store has not seen before begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum FileStart {
    #[default]
    Beginning,
    End,
}

impl FileStart {
    pub(crate) const ALL: &[FileStart] = &[FileStart::Beginning, FileStart::End];
}

impl fmt::Display for FileStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileStart::Beginning => "beginning",
            FileStart::End => "end",
        })
    }
}

/// A file, or all files that a pattern matches, to be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileSource {
    /// Absolute, `~` replaced. It is UTF-8, and has no control characters.
    pub(crate) path: PathBuf,
    /// It came from the file or a variable and has one of the wildcards `*`, `?` and `[…]`.
    pub(crate) is_pattern: bool,
    pub(crate) start: FileStart,
    /// Name in the store, where it is not to be `file:PATH` (of each file that a pattern matches).
    pub(crate) name: Option<String>,
}

/// A stream listener: TCP or Unix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listener<A> {
    pub(crate) address: A,
    pub(crate) framing: Framing,
    pub(crate) confirm: bool,
    /// Name in the store, where it is not to be `tcp:ADDRESS` or `unix:PATH`.
    pub(crate) name: Option<String>,
}

/// A datagram listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UdpSource {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// Name in the store, where it is not to be `udp:ADDRESS`.
    pub(crate) name: Option<String>,
}

/// What a listener allows. Each has a key under `[ingester]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Connections of all stream listeners together.
    pub(crate) connections_max: usize,
    /// Connections from one IP address.
    pub(crate) connections_per_address_max: usize,
    /// Longest line, in bytes, without its end.
    pub(crate) line_bytes_max: usize,
    /// Bytes of a connection that were read and not confirmed; beyond it, reading from it pauses.
    pub(crate) connection_bytes_max: usize,
    /// Bytes of unfinished lines of all connections together.
    pub(crate) partial_bytes_max: usize,
    /// How long a connection may say nothing between two lines; `None`: as long as it likes.
    pub(crate) idle_timeout: Option<Duration>,
    /// How long a line may take from its first byte to its last; `None`: as long as it likes.
    pub(crate) line_timeout: Option<Duration>,
    /// Producers with an id of their own (`HELLO`) that the store remembers.
    pub(crate) clients_max: usize,
    /// Receive buffer asked for each UDP socket, in bytes.
    pub(crate) udp_buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 4096,
            connections_per_address_max: 4096,
            line_bytes_max: ENTRY_PAYLOAD_BYTES_MAX,
            connection_bytes_max: 2 << 20,
            partial_bytes_max: 16 << 20,
            idle_timeout: Some(Duration::from_secs(24 * 3600)),
            line_timeout: Some(Duration::from_secs(60)),
            clients_max: 1024,
            udp_buffer_bytes: 8 << 20,
        }
    }
}

/// How changes of files are noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum FileWatch {
    /// By the system's notifications where they are to be had, else by polling.
    #[default]
    Auto,
    /// By looking, every [`FileLimits::rescan`]: for file systems that notify nobody, as NFS.
    Poll,
}

/// What tailing allows. Each has a key under `[ingester]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileLimits {
    /// Files followed at once.
    pub(crate) files_max: usize,
    /// How often patterns and files are looked at whatever the system has notified.
    pub(crate) rescan: Duration,
    pub(crate) watch: FileWatch,
}

impl Default for FileLimits {
    fn default() -> FileLimits {
        FileLimits { files_max: 1024, rescan: Duration::from_secs(1), watch: FileWatch::default() }
    }
}

/// What a source gets that says nothing itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Defaults {
    /// Of standard input and the stream listeners.
    pub(crate) confirm: bool,
    /// Of files.
    pub(crate) start: FileStart,
}

/// Everything the daemon reads from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) stdin: Option<StdinSource>,
    pub(crate) files: Vec<FileSource>,
    pub(crate) tcp: Vec<Listener<String>>,
    pub(crate) unix: Vec<Listener<PathBuf>>,
    pub(crate) udp: Vec<UdpSource>,
    pub(crate) limits: Limits,
    pub(crate) file_limits: FileLimits,
    pub(crate) defaults: Defaults,
}

impl StdinSource {
    /// Its name in the store.
    pub(crate) fn source_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| "stdin".to_owned())
    }
}

impl FileSource {
    /// The name in the store of a file that it matches.
    pub(crate) fn source_name(&self, path: &str) -> String {
        self.name.clone().unwrap_or_else(|| format!("file:{path}"))
    }
}

impl Listener<String> {
    /// Its name in the store.
    pub(crate) fn source_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("tcp:{}", self.address))
    }
}

impl Listener<PathBuf> {
    /// Its name in the store.
    pub(crate) fn source_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("unix:{}", self.address.display()))
    }
}

impl UdpSource {
    /// Its name in the store.
    pub(crate) fn source_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("udp:{}", self.address))
    }
}

impl Sources {
    /// Whether there is nothing to read from.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many there are, a pattern for files counted as one.
    pub(crate) fn count(&self) -> usize {
        let listed = self.files.len() + self.tcp.len() + self.unix.len() + self.udp.len();
        usize::from(self.stdin.is_some()) + listed
    }

    /// Checks what no setting can be checked for alone: a sentence, if two of them do not go together.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (line, buffer) = (self.limits.line_bytes_max, self.limits.connection_bytes_max);
        if buffer < line {
            return Err(format!(
                "ingester.connection_buffer_kib is {}, less than the longest line takes (ingester.line_bytes_max is {line}); \
                 raise the one or lower the other",
                buffer >> 10
            ));
        }
        let mut names: Vec<(String, &str)> = Vec::new();
        for (name, key) in self.names() {
            check_name(&name).map_err(|what| format!("{key}: {what}; give it one with name = \"…\""))?;
            if name == APPEND_NAME {
                return Err(format!(
                    "{key}: the name \"{name}\" is that of entries from kifa append; give the source another (name = \"…\")"
                ));
            }
            if let Some((_, other)) = names.iter().find(|(held, _)| *held == name) {
                let keys =
                    if *other == key { format!("two of {key}") } else { format!("one of {other} and one of {key}") };
                return Err(format!(
                    "{keys} have the same name, \"{name}\"; give each a name of its own (name = \"…\"), or nobody can tell \
                     their entries apart"
                ));
            }
            names.push((name, key));
        }
        Ok(())
    }

    /// The name of each source that has just one, with its key. The files of a pattern may share a name.
    fn names(&self) -> Vec<(String, &'static str)> {
        let mut names = Vec::new();
        names.extend(self.stdin.iter().map(|stdin| (stdin.source_name(), "sources.stdin")));
        let files = self.files.iter().filter(|file| !file.is_pattern || file.name.is_some());
        names.extend(files.map(|file| (file.source_name(&file.path.to_string_lossy()), "sources.files")));
        names.extend(self.tcp.iter().map(|tcp| (tcp.source_name(), "sources.tcp")));
        names.extend(self.udp.iter().map(|udp| (udp.source_name(), "sources.udp")));
        names.extend(self.unix.iter().map(|unix| (unix.source_name(), "sources.unix")));
        names
    }
}

/// Whether this may be a source's name: it is printed, and kept with the store for ever.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let bytes = name.len();
        return Err(format!("the name of a source has {bytes} bytes; it must have 1 to {NAME_BYTES_MAX}"));
    }
    if name.chars().any(char::is_control) {
        return Err(format!("the name {name:?} of a source has a control character in it"));
    }
    Ok(())
}
