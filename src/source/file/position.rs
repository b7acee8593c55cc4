//! How far a path's files have been read, as it is kept in the store: the value of the checkpoint `file/PATH`.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 1 | version | 1 |
//! | 1 | 1 | number of files | 1 to [`FILES_MAX`] |
//! | 2 | 1 | old files complete | 0, 1 |
//! | 3 | 5 | reserved | 0 |
//! | 8 | 8 | age | LSN of about when it was written: the smaller, the longer ago |
//! | 16 | 56 each | files | oldest first; the last is the one that was at the path |
//! | then | 8 each | old files | files beside the path that are none of these; youngest first, as many as there is room for |
//!
//! | offset in a file | size | field | rule |
//! |---|---|---|---|
//! | 0 | 8 | device | |
//! | 8 | 8 | inode | |
//! | 16 | 8 | offset | first byte that was not taken |
//! | 24 | 8 | time of last change | nanoseconds since the Unix epoch, signed, as of the last look |
//! | 32 | 16 | checksums of the head | CRC-32 of the first 64, 128, 256 and 1024 bytes, or as many as the offset |
//! | 48 | 4 | checksum of the tail | CRC-32 of the 1024 bytes before the offset, or as many as the offset |
//! | 52 | 1 | skip | 0 nothing; 1 the rest of a refused line; 2 zero bytes |
//! | 53 | 1 | settled | 0, 1: it was rotated away and read to its end |
//! | 54 | 2 | reserved | 0 |
//!
//! | offset in an old file | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | checksum | CRC-32 of the inode (8 bytes) and the head |
//! | 4 | 2 | bytes of the head | 0 to 1024: what the file had when it was noted |
//! | 6 | 2 | reserved | 0 |
//!
//! A value is valid if and only if every field obeys its rule, nothing is left over, and it is not longer than the store allows. It needs no checksum of its own:
//! the store's records have theirs. A value of another version is an error, never a reason to read a file again.
//!
//! Proof: the tests below.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::identity::{FileId, MARK_BYTES, Prints};
use super::lines::Skip;
use super::old::{Old, OldFile};
use crate::format::FormatError;
use crate::format::bytes::{Get, Put};
use crate::format::record::CHECKPOINT_VALUE_BYTES_MAX;

/// Most files of one path: rotated ones that are not finished, ones that are still looked at, and the one at the path.
pub(crate) const FILES_MAX: usize = 16;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;
const FILE_BYTES: usize = 56;
const OLD_BYTES: usize = 8;
const KEY_PREFIX: &[u8] = b"file/";
const _: () = assert!(HEADER_BYTES + FILES_MAX * FILE_BYTES <= CHECKPOINT_VALUE_BYTES_MAX);

/// One file's position. See the table of this page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Position {
    pub(crate) id: FileId,
    pub(crate) offset: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) prints: Prints,
    pub(crate) skip: Skip,
    pub(crate) is_settled: bool,
}

/// What the store keeps of a path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Positions {
    pub(crate) age: u64,
    pub(crate) files: Vec<Position>,
    pub(crate) old: Old,
}

/// The checkpoint's key.
pub(crate) fn key(path: &Path) -> Vec<u8> {
    [KEY_PREFIX, path.as_os_str().as_bytes()].concat()
}

/// The path of a key; `None` for a checkpoint of something else.
pub(crate) fn path(key: &[u8]) -> Option<&Path> {
    key.strip_prefix(KEY_PREFIX).map(|path| Path::new(OsStr::from_bytes(path)))
}

impl Positions {
    /// The checkpoint's value: empty, which removes the key, where there is no file.
    ///
    /// # Panics
    /// Where there are more than [`FILES_MAX`] files.
    pub(crate) fn encode(&self) -> Vec<u8> {
        if self.files.is_empty() {
            return Vec::new();
        }
        assert!(self.files.len() <= FILES_MAX, "{} files in one value", self.files.len());
        let files = HEADER_BYTES + self.files.len() * FILE_BYTES;
        let old = self.old.files.len().min((CHECKPOINT_VALUE_BYTES_MAX - files) / OLD_BYTES);
        let is_complete = self.old.is_complete && old == self.old.files.len();
        let mut value = vec![0; files + old * OLD_BYTES];
        let mut put = Put::new(&mut value);
        put.u8(VERSION).u8(self.files.len() as u8).u8(u8::from(is_complete)).bytes(&[0; 5]).u64(self.age);
        for file in &self.files {
            put.u64(file.id.dev).u64(file.id.ino).u64(file.offset).u64(file.mtime_ns as u64);
            for print in file.prints.head {
                put.u32(print);
            }
            put.u32(file.prints.tail).u8(file.skip as u8).u8(u8::from(file.is_settled)).u16(0);
        }
        for file in &self.old.files[..old] {
            put.u32(file.print).u16(file.head_bytes).u16(0);
        }
        value
    }

    /// Bytes of the value for so many files and old files.
    pub(crate) fn encoded_bytes_max(files: usize, old: usize) -> usize {
        (HEADER_BYTES + files * FILE_BYTES + old * OLD_BYTES).min(CHECKPOINT_VALUE_BYTES_MAX)
    }

    /// Reads and checks a value.
    pub(crate) fn decode(value: &[u8]) -> Result<Positions, FormatError> {
        let mut get = Get(value);
        if get.u8()? != VERSION {
            return Err(FormatError::Field("version"));
        }
        let files = get.u8()?;
        let is_complete = flag(get.u8()?, "old files complete")?;
        if get.bytes(5)? != [0; 5] {
            return Err(FormatError::Field("reserved"));
        }
        let age = get.u64()?;
        let mut positions = Positions { age, files: Vec::new(), old: Old { files: Vec::new(), is_complete } };
        if files == 0 || usize::from(files) > FILES_MAX {
            return Err(FormatError::Field("number of files"));
        }
        for _ in 0..files {
            positions.files.push(decode_file(&mut get)?);
        }
        if value.len() > CHECKPOINT_VALUE_BYTES_MAX {
            return Err(FormatError::Field("length"));
        }
        while !get.0.is_empty() {
            positions.old.files.push(decode_old(&mut get)?);
        }
        Ok(positions)
    }
}

fn flag(byte: u8, field: &'static str) -> Result<bool, FormatError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(FormatError::Field(field)),
    }
}

fn decode_file(get: &mut Get<'_>) -> Result<Position, FormatError> {
    let id = FileId { dev: get.u64()?, ino: get.u64()? };
    let (offset, mtime_ns) = (get.u64()?, get.u64()? as i64);
    let head = [get.u32()?, get.u32()?, get.u32()?, get.u32()?];
    let prints = Prints { head, tail: get.u32()? };
    let skip = match get.u8()? {
        0 => Skip::Nothing,
        1 => Skip::Line,
        2 => Skip::Zeros,
        _ => return Err(FormatError::Field("skip")),
    };
    let is_settled = flag(get.u8()?, "settled")?;
    // Offsets of files are signed where the system takes them.
    if offset > i64::MAX as u64 {
        return Err(FormatError::Field("offset"));
    }
    match get.u16()? {
        0 => Ok(Position { id, offset, mtime_ns, prints, skip, is_settled }),
        _ => Err(FormatError::Field("reserved")),
    }
}

fn decode_old(get: &mut Get<'_>) -> Result<OldFile, FormatError> {
    let (print, head_bytes) = (get.u32()?, get.u16()?);
    if usize::from(head_bytes) > MARK_BYTES {
        return Err(FormatError::Field("bytes of the head"));
    }
    match get.u16()? {
        0 => Ok(OldFile { print, head_bytes }),
        _ => Err(FormatError::Field("reserved")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(seed: u64) -> Position {
        Position {
            id: FileId { dev: seed, ino: 2 * seed },
            offset: 1000 + seed,
            mtime_ns: -(seed as i64),
            prints: Prints { head: [1, 2, 3, seed as u32], tail: 5 },
            skip: [Skip::Nothing, Skip::Line, Skip::Zeros][seed as usize % 3],
            is_settled: seed % 2 == 1,
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let value = Positions {
            age: 0x0807,
            files: vec![position(1)],
            old: Old { files: vec![OldFile { print: 0x0a0b, head_bytes: 0x0102 }], is_complete: true },
        }
        .encode();
        let mut expected = vec![1, 1, 1, 0, 0, 0, 0, 0, 7, 8, 0, 0, 0, 0, 0, 0];
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0xe9, 3, 0, 0, 0, 0, 0, 0]);
        expected.extend([0xff; 8]);
        expected
            .extend([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1, 1, 0, 0, 11, 10, 0, 0, 2, 1, 0, 0]);
        assert_eq!(value, expected);
        assert_eq!(key(Path::new("/var/log/a")), b"file//var/log/a");
        assert_eq!(path(b"file//var/log/a"), Some(Path::new("/var/log/a")));
        assert_eq!(path(b"source/1"), None);
        assert_eq!(Positions::default().encode(), b"");
    }

    #[test]
    fn another_version_a_cut_value_and_one_with_something_behind_are_refused() {
        let positions = Positions { age: 9, files: (0..FILES_MAX as u64).map(position).collect(), old: Old::default() };
        let value = positions.encode();
        assert_eq!(Positions::decode(&value), Ok(positions));
        for len in 0..value.len() {
            assert!(Positions::decode(&value[..len]).is_err(), "{len}");
        }
        assert!(Positions::decode(&[&value[..], &[0]].concat()).is_err());
        let broken = |at: usize, byte: u8| {
            let mut value = value.clone();
            value[at] = byte;
            Positions::decode(&value)
        };
        assert_eq!(broken(0, 2), Err(FormatError::Field("version")));
        assert_eq!(broken(1, 17), Err(FormatError::Field("number of files")));
        assert_eq!(broken(7, 1), Err(FormatError::Field("reserved")));
        let file = HEADER_BYTES + FILE_BYTES;
        assert_eq!(broken(file + 23, 0x80), Err(FormatError::Field("offset")));
        assert_eq!(broken(file + 52, 3), Err(FormatError::Field("skip")));
        assert_eq!(broken(file + 53, 2), Err(FormatError::Field("settled")));
        assert_eq!(broken(file + 55, 1), Err(FormatError::Field("reserved")));
    }

    #[test]
    fn old_files_beyond_the_room_are_left_out_and_that_is_kept() {
        let file = |print| OldFile { print, head_bytes: 5 };
        let old = |count| Old { files: (0..count).map(file).collect(), is_complete: true };
        let mut positions = Positions { age: 1, files: vec![position(1)], old: old(119) };
        let value = positions.encode();
        assert_eq!((value.len(), Positions::decode(&value).as_ref()), (1024, Ok(&positions)));
        positions.old = old(120);
        let decoded = Positions::decode(&positions.encode()).unwrap();
        assert_eq!((decoded.old.files, decoded.old.is_complete), (old(119).files, false));
        assert!(Positions::decode(&[&value[..], &[0; 8]].concat()).is_err(), "longer than a value may be");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_are_what_encoding_gives(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(positions) = Positions::decode(&value) {
                prop_assert_eq!(positions.encode(), value);
            }
        }

        #[test]
        fn nearly_right_bytes_are_refused_or_are_what_encoding_gives(
            files in 1usize..4, at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut value = Positions { age: 3, files: (0..files as u64).map(position).collect(), old: Old::default() }.encode();
            let at = at.index(value.len());
            value[at] = byte;
            if let Ok(positions) = Positions::decode(&value) {
                prop_assert_eq!(positions.encode(), value);
            }
        }
    }
}
