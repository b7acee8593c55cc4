//! Which segments make up a damaged log, and how each of them ends: the chain of [`crate::wal`], with what is missing left
//! out and with segments whose header is lost taken in by their groups.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::format::group::GroupHeader;
use crate::format::manifest::Manifest;
use crate::format::record::LogEnd;
use crate::format::segment::SegmentHeader;
use crate::format::{BLOCK_BYTES, Lsn, NUMBER_MAX, StoreId};
use crate::wal::files::WalFiles;
use crate::wal::reader::{Place, Window, search_headers};

/// Which file of [`WalFiles`] a part of the log lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileKey {
    /// A live segment, by number.
    Live(u64),
    /// A file without a valid header, by its place in the list.
    Headless(usize),
}

/// How a piece ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// A later header records it.
    Recorded(LogEnd),
    /// The log goes on behind it, in this epoch and at this LSN; no header that records its end is left. `is_missing`: a
    /// segment in between is missing, or groups before that LSN are; else only the next one's header is lost.
    Followed { epoch: u64, first_lsn: Lsn, is_missing: bool },
    /// Nothing follows.
    Newest,
}

/// One segment of the log.
pub(super) struct Piece {
    pub(super) file: FileKey,
    pub(super) number: u64,
    pub(super) header: Option<SegmentHeader>,
    /// Of the first run.
    pub(super) epoch: u64,
    pub(super) salt: u64,
    pub(super) first_lsn: Lsn,
    pub(super) end: End,
    /// The first group is not at the start: what lies before it is damaged, and `first_lsn` is that of the first found.
    pub(super) begins_damaged: bool,
    /// The segment that this one's header names in front of it, where that is missing.
    pub(super) missing_before: Option<u64>,
}

/// The pieces, oldest first.
pub(super) fn pieces(window: &mut Window, files: &WalFiles, manifest: &Manifest) -> Result<Vec<Piece>> {
    let mut known: BTreeMap<u64, Piece> = adopted(window, files, manifest)?;
    for (&number, segment) in &files.live {
        let header = segment.header;
        let piece = Piece {
            file: FileKey::Live(number),
            number,
            header: Some(header),
            epoch: header.epoch,
            salt: header.salt,
            first_lsn: header.first_lsn,
            end: End::Newest,
            begins_damaged: false,
            missing_before: None,
        };
        known.insert(number, piece);
    }
    let mut pieces: Vec<Piece> = Vec::new();
    let mut next = known.pop_last();
    let is_cut = next.as_ref().is_some_and(|(newest, _)| *newest < manifest.newest_segment);
    // Nobody knows the epochs of what is missing, so it is none of those that are left.
    let mut end =
        if is_cut { End::Followed { epoch: 0, first_lsn: Lsn(NUMBER_MAX), is_missing: true } } else { End::Newest };
    while let Some((number, mut piece)) = next {
        piece.end = end;
        next = match piece.header.map(|header| header.prev_end) {
            Some(before) if before.segment < manifest.first_segment => None,
            Some(before) if before.segment < number && known.contains_key(&before.segment) => {
                end = End::Recorded(before);
                known.remove_entry(&before.segment)
            }
            Some(before) => {
                piece.missing_before = Some(before.segment);
                end = End::Followed { epoch: piece.epoch, first_lsn: piece.first_lsn, is_missing: true };
                known.retain(|&number, _| number < before.segment);
                known.pop_last()
            }
            None => {
                let is_missing = piece.begins_damaged;
                end = End::Followed { epoch: piece.epoch, first_lsn: piece.first_lsn, is_missing };
                known.pop_last()
            }
        };
        known.retain(|&older, _| older < number);
        pieces.push(piece);
    }
    pieces.reverse();
    Ok(pieces)
}

/// Live segments whose header is lost, by the groups in them.
fn adopted(window: &mut Window, files: &WalFiles, manifest: &Manifest) -> Result<BTreeMap<u64, Piece>> {
    let mut adopted: BTreeMap<u64, Piece> = BTreeMap::new();
    for (index, headless) in files.headless.iter().enumerate() {
        let is_live = |header: &GroupHeader| {
            header.segment >= manifest.first_segment && !files.live.contains_key(&header.segment)
        };
        let Some(header) = first_group(window, files, manifest, index, is_live)? else { continue };
        let number = header.segment;
        if adopted.contains_key(&number) && headless.path != crate::wal::path(number) {
            continue;
        }
        let piece = Piece {
            file: FileKey::Headless(index),
            number,
            header: None,
            epoch: header.epoch,
            salt: header.salt,
            first_lsn: header.first_lsn,
            end: End::Newest,
            begins_damaged: header.offset != BLOCK_BYTES as u64,
            missing_before: None,
        };
        adopted.insert(number, piece);
    }
    Ok(adopted)
}

/// The group that tells what a file without a header is: its first one, if that is where it belongs. Where it is lost,
/// groups of an earlier use may come first: of those with the largest number the ones of the last epoch count, because
/// what a segment was taken over from is of an earlier one.
fn first_group(
    window: &mut Window,
    files: &WalFiles,
    manifest: &Manifest,
    index: usize,
    is_live: impl Fn(&GroupHeader) -> bool,
) -> Result<Option<GroupHeader>> {
    let place = place(files, manifest.store, FileKey::Headless(index), 0, BLOCK_BYTES as u64);
    let mut best: Option<GroupHeader> = None;
    search_headers(window, &place, u64::MAX, |header| {
        if !is_live(header) {
            return false;
        }
        let rank = |header: &GroupHeader| (header.segment, header.epoch);
        if best.as_ref().is_none_or(|best| rank(best) < rank(header)) {
            best = Some(*header);
        }
        header.offset == BLOCK_BYTES as u64
    })?;
    Ok(best)
}

/// The file's path.
pub(crate) fn path(files: &WalFiles, file: FileKey) -> &str {
    match file {
        FileKey::Live(number) => &files.live[&number].path,
        FileKey::Headless(index) => &files.headless[index].path,
    }
}

/// Where a group of segment `segment` is looked for.
pub(crate) fn place(files: &WalFiles, store: StoreId, file: FileKey, segment: u64, offset: u64) -> Place<'_> {
    let (path, file, file_bytes) = match file {
        FileKey::Live(number) => {
            let live = &files.live[&number];
            (&live.path, &live.file, live.bytes)
        }
        FileKey::Headless(index) => {
            let headless = &files.headless[index];
            (&headless.path, &headless.file, headless.bytes)
        }
    };
    Place { store, path, file: &**file, file_bytes, segment, offset }
}
