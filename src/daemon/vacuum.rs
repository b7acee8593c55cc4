//! `VACUUM` on the control socket: the request and its answer, for both of its ends.

use serde::{Deserialize, Serialize};

#[cfg(unix)]
use crate::reactor::retain::Vacuum;
use crate::retention::Deleted;

/// What became of the entries; its keys are a promise to scripts.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub(crate) struct Outcome {
    pub(crate) dry_run: bool,
    pub(crate) deleted_tables: u64,
    pub(crate) deleted_entries: u64,
    pub(crate) deleted_bytes: u64,
    /// Smallest LSN that is left, or would be.
    pub(crate) floor_lsn: u64,
    /// Time of the newest entry that was deleted; null: none was.
    pub(crate) expired_until_ms: Option<u64>,
}

impl Outcome {
    pub(crate) fn new(deleted: &Deleted, dry_run: bool) -> Outcome {
        Outcome {
            dry_run,
            deleted_tables: deleted.tables,
            deleted_entries: deleted.entries,
            deleted_bytes: deleted.bytes,
            floor_lsn: deleted.floor_lsn.0,
            expired_until_ms: (deleted.tables > 0).then_some(deleted.until_ns / 1_000_000),
        }
    }
}

/// The request for the control socket; [`parse`] reads it.
#[cfg(unix)]
pub(crate) fn request(vacuum: &Vacuum) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let (before, to) = (number(vacuum.not_before_ns), number(vacuum.to_bytes));
    format!("VACUUM {before} {to} {}", if vacuum.dry_run { "dry" } else { "do" })
}

/// What follows `VACUUM`: `NANOSECONDS BYTES do`, or `dry`; `-` stands for a goal that is none.
#[cfg(unix)]
pub(crate) fn parse(text: &str) -> Option<Vacuum> {
    let words: Vec<&str> = text.split(' ').collect();
    let [before, to, how] = words[..] else { return None };
    let number = |word: &str| if word == "-" { Some(None) } else { word.parse().ok().map(Some) };
    let (not_before_ns, to_bytes): (Option<u64>, Option<u64>) = (number(before)?, number(to)?);
    let dry_run = match how {
        "dry" => true,
        "do" => false,
        _ => return None,
    };
    (not_before_ns.is_some() || to_bytes.is_some()).then_some(Vacuum { not_before_ns, to_bytes, dry_run })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_meant() {
        for vacuum in [
            Vacuum { not_before_ns: Some(7), to_bytes: None, dry_run: true },
            Vacuum { not_before_ns: None, to_bytes: Some(0), dry_run: false },
            Vacuum { not_before_ns: Some(u64::MAX), to_bytes: Some(1), dry_run: false },
        ] {
            let line = request(&vacuum);
            assert_eq!(parse(line.strip_prefix("VACUUM ").unwrap()), Some(vacuum));
        }
        for wrong in ["", "- - do", "1 2", "1 2 3", "1 -1 do", "1  2 do", "1 2 do ", "x 2 dry"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
