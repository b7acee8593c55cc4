//! Files beside a path that have nothing to be read: noted, so that what comes later is told from what was there.
//!
//! A file is known by its number and its first bytes, as many as it had when it was noted: one that was read to its end and
//! is written to once more must not be read again from its beginning. One that had no bytes yet may become anything, and is
//! known only as long as it has none.
//!
//! Proof: the tests below, those of `generations`, and the property test of `set`.

use super::identity::MARK_BYTES;
use crate::format::bytes::crc32;

/// Files that are noted; a store has room for as many only where few are open.
pub(crate) const OLD_MAX: usize = 119;

/// What one file is known by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct OldFile {
    /// CRC-32 of its number and so many bytes of its head.
    pub(crate) print: u32,
    /// At most [`MARK_BYTES`].
    pub(crate) head_bytes: u16,
}

impl OldFile {
    /// `head` is the first [`MARK_BYTES`] of the file, or what it has.
    pub(crate) fn new(ino: u64, head: &[u8]) -> OldFile {
        let head = &head[..head.len().min(MARK_BYTES)];
        OldFile { print: crc32(&[&ino.to_le_bytes(), head]), head_bytes: head.len() as u16 }
    }
}

/// All that are noted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Old {
    /// The youngest first.
    pub(crate) files: Vec<OldFile>,
    /// None is missing.
    pub(crate) is_complete: bool,
}

impl Old {
    /// As what this file was noted.
    pub(crate) fn find(&self, ino: u64, head: &[u8]) -> Option<OldFile> {
        let now = OldFile::new(ino, head);
        // Nearly all have a whole head, so nearly always one checksum does.
        let mut latest = now;
        self.files.iter().copied().find(|file| {
            let len = usize::from(file.head_bytes);
            if file.head_bytes != latest.head_bytes && len > 0 && len <= head.len() {
                latest = OldFile::new(ino, &head[..len]);
            }
            *file == latest || *file == now
        })
    }

    /// Notes one more.
    pub(crate) fn add(&mut self, file: OldFile) {
        if self.files.contains(&file) {
            return;
        }
        self.files.insert(0, file);
        self.is_complete &= self.files.len() <= OLD_MAX;
        self.files.truncate(OLD_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(heads: &[(u64, &[u8])]) -> Old {
        Old { files: heads.iter().map(|(ino, head)| OldFile::new(*ino, head)).collect(), is_complete: true }
    }

    #[test]
    fn a_file_is_known_by_its_number_and_the_bytes_that_it_had() {
        let old = noted(&[(7, b"line 1\n"), (8, &[1; 2000]), (9, b"")]);
        assert_eq!(old.find(7, b"line 1\nline 2\n"), Some(old.files[0]));
        assert_eq!(old.find(7, b"line 1\n"), Some(old.files[0]));
        assert_eq!(old.find(7, b"line 0\nline 2\n"), None);
        assert_eq!(old.find(6, b"line 1\n"), None);
        assert_eq!(old.find(7, b"line"), None, "it became shorter, so it was emptied");
        assert_eq!(old.find(8, &[1; MARK_BYTES]), Some(old.files[1]));
        assert_eq!(old.find(9, b""), Some(old.files[2]));
        assert_eq!(old.find(9, b"x"), None, "it had nothing: this is new");
    }

    #[test]
    fn beyond_the_room_the_oldest_go_and_that_is_known() {
        let mut old = Old { files: Vec::new(), is_complete: true };
        (0..OLD_MAX as u64).for_each(|ino| old.add(OldFile::new(ino, b"x")));
        assert!(old.is_complete && old.files.len() == OLD_MAX);
        old.add(OldFile::new(5, b"x"));
        assert!(old.is_complete, "it was there");
        old.add(OldFile::new(1000, b"x"));
        assert!(!old.is_complete && old.files.len() == OLD_MAX && old.find(0, b"x").is_none());
    }
}
