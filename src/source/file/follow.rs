//! One open file: where it has been read to, and one look at what is new.
//!
//! - An unfinished line is not kept in memory but in the file, and read again when its end has come; from 64 KiB on only
//!   what is new is searched for that end. So a file costs two KiB however long its lines are.
//! - Every piece is read together with the KiB before it, which must be what it was: that is how a file that was truncated
//!   and has grown again behind our back gives itself away.
//! - The offset moves behind what the taker has taken, and no further.
//!
//! It knows nothing of paths and rotation; [`path`](super::path) does.
//!
//! Proof: the property test of `set`.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::identity::{FileId, HEAD_BYTES_MIN, MARK_BYTES, Marks, mtime_ns, read_at};
use super::lines::{Piece, Skip, cut};
use super::position::Position;
use super::report::Report;
use crate::source::framing::LINE_BYTES_MAX;

/// Bytes read at once: room for the longest line and the mark before it, and enough that a long file costs few calls.
pub(crate) const CHUNK_BYTES: usize = MARK_BYTES + LINE_BYTES_MAX + (128 << 10);
/// First bytes of a file that are remembered when they are seen and cannot be taken yet.
const PEEK_BYTES: usize = 64;
/// An unfinished line up to this length is simply read again.
const REREAD_BYTES_MAX: u64 = 64 << 10;

/// What a look came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// Everything there is was taken, but for an unfinished line.
    AtEnd,
    /// There is more.
    More,
    /// The taker had no room.
    Full,
    /// Truncated, or replaced: what is there now is not what the offset belongs to.
    Other,
}

/// What a file looked like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) len: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) links: u64,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Tail {
    file: File,
    pub(crate) id: FileId,
    /// Where it was found last, for messages.
    pub(crate) path: PathBuf,
    /// First byte that was not taken.
    pub(crate) offset: u64,
    marks: Marks,
    skip: Skip,
    /// Where the zero bytes begin that are being skipped.
    zeros_from: u64,
    /// Up to here there is no end of the line that begins at the offset.
    scanned: u64,
    /// As of the last look.
    pub(crate) seen: Seen,
    /// Its first bytes, where they were seen and not taken.
    peek: Vec<u8>,
    /// It was found beside the path with nothing in it: perhaps a copy that was being made.
    pub(crate) may_grow_into_copy: bool,
    /// There may be something to take.
    pub(crate) is_ready: bool,
    /// It was rotated away and read to its end, and nothing has come for a while.
    pub(crate) is_settled: bool,
    /// When something came last, or it was rotated away.
    pub(crate) quiet_since: Duration,
    /// The last look failed, and was reported.
    pub(crate) is_failing: bool,
}

impl Tail {
    /// A file that is read from its beginning.
    pub(crate) fn new(file: File, path: &Path) -> io::Result<Tail> {
        let metadata = file.metadata()?;
        Ok(Tail {
            file,
            id: FileId::of(&metadata),
            path: path.to_owned(),
            offset: 0,
            marks: Marks::default(),
            skip: Skip::Nothing,
            zeros_from: 0,
            scanned: 0,
            seen: Seen { len: 0, mtime_ns: mtime_ns(&metadata), links: metadata.nlink() },
            peek: Vec::new(),
            may_grow_into_copy: false,
            is_ready: true,
            is_settled: false,
            quiet_since: Duration::ZERO,
            is_failing: false,
        })
    }

    /// A file that is read on where its position says.
    pub(crate) fn restored(file: File, path: &Path, position: &Position, marks: Marks) -> io::Result<Tail> {
        let tail = Tail::new(file, path)?;
        Ok(Tail {
            seen: Seen { mtime_ns: position.mtime_ns, ..tail.seen },
            offset: position.offset,
            scanned: position.offset,
            zeros_from: position.offset,
            marks,
            skip: position.skip,
            is_settled: position.is_settled,
            ..tail
        })
    }

    /// Moves the offset behind the last whole line that is there.
    pub(crate) fn skip_to_end(&mut self) -> io::Result<()> {
        let mut end = self.file.metadata()?.len();
        let mut buf = vec![0; 64 << 10];
        let oldest = end.saturating_sub(LINE_BYTES_MAX as u64 + 2);
        self.skip = Skip::Nothing;
        let mut at = end;
        loop {
            if at <= oldest && at > 0 {
                // No line that could be taken begins here; its rest is none either.
                self.skip = Skip::Line;
                break;
            }
            let bytes = at.min(buf.len() as u64);
            at -= bytes;
            let read = read_at(&self.file, &mut buf[..bytes as usize], at)?;
            if let Some(newline) = memchr::memrchr(b'\n', &buf[..read]) {
                end = at + newline as u64 + 1;
                break;
            }
            if at == 0 {
                end = 0;
                break;
            }
        }
        self.begin_at(end)
    }

    /// Moves the offset; the marks are read anew.
    fn begin_at(&mut self, offset: u64) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was opened");
        self.marks = Marks::read(&self.file, offset)?.ok_or_else(gone)?;
        (self.offset, self.scanned) = (offset, offset);
        Ok(())
    }

    /// It is at this path now, and to be looked at.
    pub(crate) fn wake(&mut self, path: &Path) {
        self.path = path.to_owned();
        (self.is_ready, self.is_settled) = (true, false);
    }

    /// Bytes that have been seen and not taken.
    pub(crate) fn unread(&self) -> u64 {
        self.seen.len.max(self.scanned).saturating_sub(self.offset)
    }

    /// How far it was taken, and how far it was looked at.
    pub(crate) fn reach(&self) -> (u64, u64) {
        (self.offset, self.scanned)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn position(&self) -> Position {
        Position {
            id: self.id,
            offset: self.offset,
            mtime_ns: self.seen.mtime_ns,
            prints: self.marks.prints(),
            skip: self.skip,
            is_settled: self.is_settled,
        }
    }

    /// Whether the file, of which nothing was taken, was written to since the last look: what was in it may be gone.
    pub(crate) fn may_have_lost_its_beginning(&self) -> io::Result<bool> {
        if self.offset > 0 {
            return Ok(false);
        }
        let metadata = self.file.metadata()?;
        Ok(mtime_ns(&metadata) != self.seen.mtime_ns || metadata.len() < self.seen.len)
    }

    /// Looks whether the file has changed since the last look, without reading it.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        self.seen.links = metadata.nlink();
        if metadata.len() != self.seen.len || mtime_ns(&metadata) != self.seen.mtime_ns {
            self.is_ready = true;
        }
        // What was seen once and is not there when it is read was lost.
        self.seen.len = self.seen.len.max(metadata.len());
        if self.offset == 0 && self.peek.is_empty() && metadata.len() > 0 {
            self.peek = vec![0; PEEK_BYTES];
            let read = read_at(&self.file, &mut self.peek, 0)?;
            self.peek.truncate(read);
        }
        Ok(())
    }

    /// Reads a piece and hands its lines to `take`, which says whether it had room.
    pub(crate) fn look(
        &mut self,
        chunk: &mut [u8],
        reports: &mut Vec<Report>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<Look> {
        let metadata = self.file.metadata()?;
        let before = self.seen;
        self.seen = Seen { len: metadata.len(), mtime_ns: mtime_ns(&metadata), links: metadata.nlink() };
        let (len, known) = (self.seen.len, before.len.max(self.scanned));
        if len < self.offset || (self.offset == 0 && len < known) {
            self.seen = before;
            return Ok(Look::Other);
        }
        if len < known {
            reports.push(Report::TakenBack { path: self.path.clone(), offset: len, bytes: known - len });
            self.scanned = self.offset;
        }
        if self.scanned - self.offset > REREAD_BYTES_MAX && self.scanned - self.offset <= LINE_BYTES_MAX as u64 + 1 {
            let read = read_at(&self.file, chunk, self.scanned)?;
            if memchr::memchr(b'\n', &chunk[..read]).is_none() {
                self.scanned += read as u64;
                if self.scanned - self.offset <= LINE_BYTES_MAX as u64 + 1 {
                    return Ok(Look::AtEnd);
                }
            }
        }
        let Some(read) = self.read_behind_mark(chunk)? else {
            self.seen = before;
            return Ok(Look::Other);
        };
        let data = &chunk[self.marks.tail().len()..read];
        Ok(self.take_lines(data, read == chunk.len(), reports, take))
    }

    /// Reads what is in front of the offset and behind it; `None` where the former is not what it was, or, at the beginning,
    /// the latter is not what was seen of it.
    fn read_behind_mark(&self, chunk: &mut [u8]) -> io::Result<Option<usize>> {
        let mark = self.marks.tail();
        let read = read_at(&self.file, chunk, self.offset - mark.len() as u64)?;
        let seen = if self.offset == 0 { &self.peek[..] } else { mark };
        Ok((read >= seen.len() && chunk[..seen.len()] == *seen).then_some(read))
    }

    fn take_lines(
        &mut self,
        data: &[u8],
        is_whole_chunk: bool,
        reports: &mut Vec<Report>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Look {
        let offset = self.offset;
        let path = &self.path;
        let cut = cut(data, self.skip, LINE_BYTES_MAX, &mut |piece| match piece {
            Piece::Line(line) => take(line),
            Piece::Refused(at) => {
                reports.push(Report::Refused { path: path.clone(), offset: offset + at });
                true
            }
        });
        let zeros = offset + cut.zeros as u64 - self.zeros_from.min(offset);
        if self.skip == Skip::Zeros && cut.skip != Skip::Zeros && zeros > 0 {
            reports.push(Report::Zeros { path: path.clone(), offset: self.zeros_from, bytes: zeros });
        }
        self.marks.push(&data[..cut.consumed]);
        self.skip = cut.skip;
        self.offset += cut.consumed as u64;
        // What the taker had no room for may have any number of line ends.
        self.scanned = if cut.is_full { self.offset } else { offset + data.len() as u64 };
        match (cut.is_full, is_whole_chunk) {
            (true, _) => Look::Full,
            (false, true) => Look::More,
            (false, false) => Look::AtEnd,
        }
    }

    /// Takes the unfinished last line, byte for byte, of a file that will get no more.
    pub(crate) fn finish(
        &mut self,
        chunk: &mut [u8],
        reports: &mut Vec<Report>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<Look> {
        let Some(read) = self.read_behind_mark(chunk)? else { return Ok(Look::Other) };
        let line = &chunk[self.marks.tail().len()..read];
        if line.is_empty() || memchr::memchr(b'\n', line).is_some() {
            return Ok(Look::More);
        }
        if self.skip == Skip::Nothing {
            let bytes = line.len() as u64;
            if bytes > LINE_BYTES_MAX as u64 {
                reports.push(Report::Refused { path: self.path.clone(), offset: self.offset });
            } else {
                if !take(line) {
                    return Ok(Look::Full);
                }
                reports.push(Report::Unfinished { path: self.path.clone(), offset: self.offset, bytes });
            }
        }
        self.marks.push(line);
        self.offset += line.len() as u64;
        self.scanned = self.offset;
        Ok(Look::AtEnd)
    }

    /// Whether the file still is what was read of it.
    pub(crate) fn is_whole(&self) -> io::Result<bool> {
        Ok(self.read_behind_mark(&mut [0; MARK_BYTES])?.is_some())
    }

    /// The first bytes of what was read.
    pub(crate) fn head(&self) -> &[u8] {
        self.marks.head()
    }

    /// Whether a line waits for its end.
    pub(crate) fn has_unfinished_line(&self) -> bool {
        self.scanned > self.offset
    }

    /// After [`Look::Other`]: whether the file has kept its beginning and only lost its end. Then it is read on from there,
    /// and this is where.
    pub(crate) fn shorten(&mut self) -> io::Result<Option<u64>> {
        let len = self.file.metadata()?.len();
        if len < HEAD_BYTES_MIN as u64 || len >= self.offset {
            return Ok(None);
        }
        let Some(now) = Marks::read(&self.file, len)? else { return Ok(None) };
        if !self.marks.head().starts_with(now.head()) {
            return Ok(None);
        }
        self.begin_at(len)?;
        self.skip = Skip::Nothing;
        self.seen.len = len;
        Ok(Some(len))
    }

    /// Begins anew, with what is in the file now. A writer that does not append leaves a hole in front of what it writes
    /// next: zero bytes at the very beginning are skipped.
    pub(crate) fn restart(&mut self) {
        self.marks = Marks::default();
        self.peek.clear();
        (self.offset, self.scanned, self.skip, self.zeros_from) = (0, 0, Skip::Zeros, 0);
        self.seen.len = 0;
        self.is_ready = true;
        self.is_settled = false;
    }
}
