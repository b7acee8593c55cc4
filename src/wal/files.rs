//! Which files in `wal/` are what. The header decides, never the name.
//!
//! - **live**: an active header of this store, numbered at or above the manifest's first live segment.
//! - **released**: an active header of this store with a smaller number, superseded by the manifest; or a spare that is
//!   shorter than its header says.
//! - **spare**: a spare header of this store; prepared and never used.
//! - Files marked [`QUARANTINED`] are live or headless, as they were before; released, they are nobody's any more.
//! - **headless**: no valid header of this store. Unfinished, foreign, or damaged: never touched, but searched for proof
//!   that the log goes on in it (see [`super::replay`]).

use std::collections::BTreeMap;
use std::io;

use crate::error::{Error, Result};
use crate::format::segment::{HEADER_BYTES, SegmentHeader};
use crate::format::{FormatError, StoreId};
use crate::io::{ReadAt, Vfs};
use crate::wal::DIR;

/// What the name of a damaged file ends in while `kifa recover --accept` is under way. The file is still read, and never
/// used again.
pub(crate) const QUARANTINED: &str = ".quarantine";

/// A live segment, open.
pub(crate) struct Segment {
    pub(crate) path: String,
    pub(crate) header: SegmentHeader,
    pub(crate) file: Box<dyn ReadAt>,
    pub(crate) bytes: u64,
}

/// A file without a valid header of this store, open.
pub(crate) struct Headless {
    pub(crate) path: String,
    pub(crate) file: Box<dyn ReadAt>,
    pub(crate) bytes: u64,
}

/// A file that may be used for a new segment, if it has (at least) this length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reusable {
    pub(crate) path: String,
    pub(crate) bytes: u64,
}

/// See the module's page.
#[derive(Default)]
pub(crate) struct WalFiles {
    pub(crate) live: BTreeMap<u64, Segment>,
    pub(crate) released: Vec<Reusable>,
    pub(crate) spares: Vec<Reusable>,
    pub(crate) headless: Vec<Headless>,
    /// Left under a temporary name by a preparation that did not finish.
    pub(crate) temporary: Vec<String>,
    /// Largest number in any name or header, or released by the manifest.
    pub(crate) number_max: u64,
}

impl WalFiles {
    /// Reads the header of every segment file. An I/O error is an error, not a missing segment.
    pub(crate) fn scan(vfs: &dyn Vfs, store: StoreId, first_segment: u64) -> Result<WalFiles> {
        let mut files = WalFiles { number_max: first_segment.saturating_sub(1), ..WalFiles::default() };
        let names = match vfs.list(DIR) {
            Ok(names) => names,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(files),
            Err(cause) => return Err(Error::io("list", DIR, cause)),
        };
        for entry in &names {
            if !entry.is_file {
                // Never ours, but its name is taken.
                let number = name_number(entry.name.trim_end_matches(".tmp"), ".wal");
                files.number_max = files.number_max.max(number.unwrap_or(0));
                continue;
            }
            let path = format!("{DIR}/{}", entry.name);
            let own = entry.name.strip_suffix(QUARANTINED).unwrap_or(&entry.name);
            if let Some(number) = name_number(own, ".wal") {
                files.number_max = files.number_max.max(number);
                files.add(vfs, store, first_segment, path)?;
            } else if name_number(&entry.name, ".wal.tmp").is_some() {
                files.temporary.push(path);
            }
        }
        Ok(files)
    }

    fn add(&mut self, vfs: &dyn Vfs, store: StoreId, first_segment: u64, path: String) -> Result<()> {
        let file = match vfs.open(&path) {
            Ok(file) => file,
            // Released and removed by a writer since the directory was listed.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(Error::io("open", &path, cause)),
        };
        let read_header = || {
            let mut sector = [0; HEADER_BYTES];
            let read = file.read_at(&mut sector, 0).map_err(|cause| Error::io("read", &path, cause))?;
            Ok(SegmentHeader::decode(&sector[..read]))
        };
        let mut header = read_header()?;
        if header.is_err() {
            // A header that is lost takes its links and its gap along: it is lost only when two reads say so.
            file.forget();
            header = read_header()?;
        }
        let bytes = file.bytes().map_err(|cause| Error::io("read", &path, cause))?;
        let header = match header {
            Ok(header) if header.store == store => header,
            Err(newer @ FormatError::Version(_)) => {
                return Err(Error::corrupt(&path, 0, None, format!("{newer}; use a newer kifa")));
            }
            _ => {
                self.headless.push(Headless { path, file, bytes });
                return Ok(());
            }
        };
        self.number_max = self.number_max.max(header.segment);
        // What was written behind the prepared length may not be durable: it is never counted on.
        if path.ends_with(QUARANTINED) && (header.spare || header.segment < first_segment) {
            return Ok(());
        }
        let reusable = Reusable { path: path.clone(), bytes: header.segment_bytes };
        if header.spare && bytes >= header.segment_bytes {
            self.spares.push(reusable);
        } else if header.spare || header.segment < first_segment {
            self.released.push(reusable);
        } else {
            self.add_live(Segment { path, header, file, bytes })?;
        }
        Ok(())
    }

    /// Two files with one number are somebody's copy beside the original: the one with the right name is the segment.
    fn add_live(&mut self, segment: Segment) -> Result<()> {
        let number = segment.header.segment;
        let canonical = super::path(number);
        match self.live.remove(&number) {
            None => {
                self.live.insert(number, segment);
            }
            Some(other) => {
                let (kept, stranger) = if other.path == canonical { (other, segment) } else { (segment, other) };
                if kept.path != canonical {
                    let what = format!("it claims to be segment {number}, and so does {}", stranger.path);
                    return Err(Error::corrupt(&kept.path, 0, None, what));
                }
                let Segment { path, file, bytes, .. } = stranger;
                self.headless.push(Headless { path, file, bytes });
                self.live.insert(number, kept);
            }
        }
        Ok(())
    }
}

/// The number in a name of ours, such as `0000000012.wal`.
pub(crate) fn name_number(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    if digits.len() < 10 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
