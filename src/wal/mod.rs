//! The write-ahead log: segments of groups.
//!
//! | file | what |
//! |---|---|
//! | [`files`] | which files in `wal/` are live segments, spares, or strangers |
//! | [`chain`] | which segments make up the log, by the links in their headers |
//! | [`reader`] | reads one run of groups after the other and checks each |
//! | [`replay`] | follows the chain of segments and decides where the log ends |
//! | [`writer`] | binds a staged group to its place and knows what is durable |
//! | [`recovery`] | what a new life of the log does with what replay found |

pub(crate) mod chain;
pub(crate) mod files;
pub(crate) mod reader;
pub(crate) mod recovery;
pub(crate) mod replay;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod writer;

/// The directory of the segments, inside the store.
pub(crate) const DIR: &str = "wal";

/// The path of a segment file; the number in it is for people, the header is what counts.
pub(crate) fn path(number: u64) -> String {
    format!("{DIR}/{number:010}.wal")
}
