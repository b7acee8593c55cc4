//! What the daemon reads from, as configured: checked, but nothing opened yet.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::ENTRY_PAYLOAD_BYTES_MAX;

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

/// A file, or all files that a pattern matches, to be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileSource {
    /// A path; in the configuration file `~` and the wildcards `*`, `?` and `[…]` are allowed.
    pub(crate) path: PathBuf,
    pub(crate) is_pattern: bool,
    pub(crate) start: FileStart,
    /// Name in the store, where it is not to be `file:PATH`.
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
    /// How long a connection may say nothing between two lines.
    pub(crate) idle_timeout: Duration,
    /// How long a line may take from its first byte to its last.
    pub(crate) line_timeout: Duration,
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
            idle_timeout: Duration::from_secs(24 * 3600),
            line_timeout: Duration::from_secs(60),
            clients_max: 1024,
            udp_buffer_bytes: 8 << 20,
        }
    }
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
}

impl Sources {
    /// Whether there is nothing to read from.
    pub(crate) fn is_empty(&self) -> bool {
        self.stdin.is_none()
            && self.files.is_empty()
            && self.tcp.is_empty()
            && self.unix.is_empty()
            && self.udp.is_empty()
    }
}
