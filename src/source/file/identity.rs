//! Which file this is: device, inode, and what its bytes were where it was read.
//!
//! - A number of a file system is given anew when its file is gone, and a file can be truncated and grow again under its
//!   number. So the first and the last [`MARK_BYTES`] before the offset must be what they were, too.
//! - In memory the bytes themselves are kept ([`Marks`]), and comparing is exact. In the store it is their checksums
//!   ([`Prints`]): at rest, four lengths of the head, so that a file that came back shorter than a KiB can still be told.
//! - The device number may change at a reboot; it counts only where two files of the same moment are told apart.
//!
//! What cannot be told: a file that was truncated and has, between two looks, grown again with the same bytes at the same
//! places. Nothing that a file system reports distinguishes it from one that nobody touched.
//!
//! Proof: the tests below, and the property test of `set`.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use crate::format::bytes::crc32;

/// Bytes that are remembered of the head and in front of the offset.
pub(crate) const MARK_BYTES: usize = 1024;
/// Lengths of the head that have a checksum of their own.
pub(crate) const HEAD_STEPS: [usize; 4] = [HEAD_BYTES_MIN, 128, 256, MARK_BYTES];
/// What two files must have in common at least to be taken for one that lost its end: lines begin with times, and these with
/// the same bytes for a whole day.
pub(crate) const HEAD_BYTES_MIN: usize = 64;

/// A file at one moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct FileId {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> FileId {
        FileId { dev: metadata.dev(), ino: metadata.ino() }
    }
}

/// When the file was last written, in nanoseconds since the Unix epoch.
pub(crate) fn mtime_ns(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// The first bytes of a file, and the last ones before an offset; fewer where the offset is small.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Marks {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Marks {
    /// The offset moved on behind these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let head = bytes.len().min(MARK_BYTES - self.head.len());
        self.head.extend_from_slice(&bytes[..head]);
        let fresh = &bytes[bytes.len().saturating_sub(MARK_BYTES)..];
        let over = (self.tail.len() + fresh.len()).saturating_sub(MARK_BYTES);
        self.tail.drain(..over);
        self.tail.extend_from_slice(fresh);
    }

    /// Reads the marks of an offset; `None` where the file ends before it.
    pub(crate) fn read(file: &File, offset: u64) -> io::Result<Option<Marks>> {
        let bytes = MARK_BYTES.min(usize::try_from(offset).unwrap_or(MARK_BYTES));
        let mut marks = Marks { head: vec![0; bytes], tail: vec![0; bytes] };
        let is_whole = read_at(file, &mut marks.head, 0)? == bytes
            && read_at(file, &mut marks.tail, offset - bytes as u64)? == bytes;
        Ok(is_whole.then_some(marks))
    }

    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(crate) fn tail(&self) -> &[u8] {
        &self.tail
    }

    pub(crate) fn prints(&self) -> Prints {
        let head = HEAD_STEPS.map(|step| crc32(&[&self.head[..step.min(self.head.len())]]));
        Prints { head, tail: crc32(&[&self.tail]) }
    }
}

/// Checksums of [`Marks`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Prints {
    /// Of the first bytes, as many as each of [`HEAD_STEPS`], or as the offset.
    pub(crate) head: [u32; 4],
    pub(crate) tail: u32,
}

impl Prints {
    /// Whether a file that is now `head` long at most, and shorter than the offset was, begins as it did.
    pub(crate) fn begins_with(&self, head: &[u8]) -> bool {
        let covered = HEAD_STEPS.iter().zip(self.head).rev().find(|(step, _)| **step <= head.len());
        covered.is_some_and(|(step, print)| crc32(&[&head[..*step]]) == print)
    }
}

/// What a file has become since its position was stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The same, perhaps longer.
    Same(Marks),
    /// It ends before the offset, and begins as it did: it lost its end. These are the marks of where it ends now.
    Shortened { len: u64, marks: Marks },
    /// Other content: truncated, or another file under an old number.
    Other,
}

/// Compares a file with what was remembered of it.
pub(crate) fn judge(file: &File, offset: u64, prints: &Prints) -> io::Result<Verdict> {
    let len = file.metadata()?.len();
    if let Some(marks) = Marks::read(file, offset.min(len))? {
        if len >= offset && marks.prints() == *prints {
            return Ok(Verdict::Same(marks));
        }
        if len < offset && prints.begins_with(marks.head()) {
            return Ok(Verdict::Shortened { len, marks });
        }
    }
    Ok(Verdict::Other)
}

/// Reads until the buffer is full or the file ends; returns the bytes read.
pub(crate) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use proptest::prelude::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn text(seed: u8, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed).collect()
    }

    fn judged(content: &[u8], offset: usize, now: &[u8]) -> Verdict {
        let prints = Marks::read(&file(content), offset as u64).unwrap().unwrap().prints();
        judge(&file(now), offset as u64, &prints).unwrap()
    }

    #[test]
    fn a_file_that_grew_is_the_same_and_one_with_another_head_or_tail_is_not() {
        for len in [0, 1, 15, 16, 700, 1024, 1025, 5000] {
            let content = text(0, len);
            let grown = [&content[..], b"more\n"].concat();
            assert!(matches!(judged(&content, len, &grown), Verdict::Same(_)), "{len}");
            if len > 0 {
                for place in [0, len - 1, len.saturating_sub(MARK_BYTES), len.min(MARK_BYTES) - 1] {
                    let mut other = grown.clone();
                    other[place] ^= 1;
                    assert_eq!(judged(&content, len, &other), Verdict::Other, "{len}: byte {place}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_lost_its_end_is_told_from_one_that_began_anew() {
        let content = text(0, 5000);
        for len in [64, 65, 127, 128, 1023, 1024, 1025, 4999] {
            let Verdict::Shortened { len: found, marks } = judged(&content, 5000, &content[..len]) else {
                panic!("{len}");
            };
            assert_eq!((found, marks), (len as u64, Marks::read(&file(&content), len as u64).unwrap().unwrap()));
            assert_eq!(judged(&content, 5000, &text(1, len)), Verdict::Other);
        }
        // Too short to tell: reading it is the smaller mistake.
        assert_eq!(judged(&content, 5000, &content[..63]), Verdict::Other);
        assert_eq!(judged(&content, 5000, b""), Verdict::Other);
        // Shorter than what the smallest checksum covers from the start.
        assert_eq!(judged(&content, 8, &content[..4]), Verdict::Other);
    }

    proptest! {
        #[test]
        fn marks_pushed_in_pieces_are_those_read_at_once(pieces in proptest::collection::vec(0usize..1500, 0..8)) {
            let content = text(3, pieces.iter().sum());
            let (mut marks, mut at) = (Marks::default(), 0);
            for piece in pieces {
                marks.push(&content[at..at + piece]);
                at += piece;
            }
            prop_assert_eq!(marks, Marks::read(&file(&content), at as u64).unwrap().unwrap());
        }
    }
}
