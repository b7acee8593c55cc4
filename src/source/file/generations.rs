//! Rotated files: where a file has gone, which ones came after it, and who holds a copy of it.
//!
//! - A file is found again by its number, under any name in the directories of its path (its own, and that of the target
//!   where the path is a symbolic link).
//! - Files of the same log are those whose names differ from the rotated file's in nothing but numbers
//!   (`a.log.1` and `a.log.2`, `a-20260101.log` and `a-20260102.log`); where the rotated file itself is gone, those named
//!   like the path with a number behind it.
//! - Which of them are news is told without a clock, for a till may believe that it is 1970: when a file is taken in at its
//!   path, those beside it are noted ([`Old`]), in the store, too. A file of the log that is neither noted nor open has come
//!   since: rotated away before anybody looked, or a copy. Only their order is that of their times, and of their numbers
//!   where these are the same. Where there are too many to note, and for names that have nothing of the path's, the times
//!   must do.
//! - A copy, as `copytruncate` makes one, is such a file that holds the same bytes around the offset.
//! - A listing is believed when two in a row agree on the names that matter: a rotation is several renames, and a
//!   directory can be read in the middle of it. All paths that are looked at during a scan share their listings.
//!
//! Proof: the tests below, and the property test of `set`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirEntryExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::identity::{FileId, MARK_BYTES, Prints, Verdict, judge, mtime_ns, read_at};
use super::old::{OLD_MAX, Old, OldFile};
use super::position::Position;

/// Endings of compressed files.
const COMPRESSED: [&[u8]; 6] = [b".gz", b".xz", b".bz2", b".zst", b".lz4", b".Z"];
/// Descriptors that are left to the log and to connections.
const DESCRIPTORS_KEPT: u64 = 48;
/// Listings until two in a row must have agreed.
const LISTINGS_MAX: usize = 8;
/// Where the number says nothing, fewer bytes than these do not, either.
const CONTENT_BYTES_MIN: u64 = 16;

/// Opens a regular file for reading. A pipe or a device is refused without being opened: opening may already do something.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    check_regular(&fs::metadata(path)?)?;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    check_regular(&file.metadata()?)?;
    // The lowest free number is given: such a high one says that hardly any is left, and the log needs some itself.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if limit.is_some_and(|limit| file.as_raw_fd() as u64 + DESCRIPTORS_KEPT >= limit) {
        return Err(rustix::io::Errno::MFILE.into());
    }
    Ok(file)
}

fn check_regular(metadata: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = metadata.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "it is a directory",
        () if kind.is_fifo() => "it is a pipe, not a file (kifa daemon --stdin reads one)",
        () if kind.is_socket() => "it is a socket, not a file",
        () => "it is a device, not a file",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, found))
}

/// Whether a file of this name is compressed.
pub(crate) fn is_compressed(name: &OsStr) -> bool {
    COMPRESSED.iter().any(|ending| name.as_bytes().ends_with(ending))
}

/// The name with each number in it replaced by one sign.
fn mask(name: &[u8]) -> Vec<u8> {
    let mut mask = Vec::with_capacity(name.len());
    for &byte in name {
        match byte.is_ascii_digit() {
            true if mask.last() == Some(&b'#') => {}
            true => mask.push(b'#'),
            false => mask.push(byte),
        }
    }
    mask
}

/// The last number in a name; a missing one is the largest.
fn number(name: &[u8]) -> u64 {
    let digits = name.rsplit(|byte| !byte.is_ascii_digit()).find(|digits| !digits.is_empty());
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(u64::MAX)
}

/// Names of rotated files of one log.
struct Family {
    masks: Vec<Vec<u8>>,
}

impl Family {
    /// As the rotated file is called, or, where nobody knows, as the path with a number behind it.
    fn new(path: &OsStr, rotated: Option<&OsStr>) -> Family {
        let own = mask(path.as_bytes());
        match rotated.map(|name| mask(name.as_bytes())) {
            // Its name tells as little as that of any other log of this kind.
            Some(other) if other == own => Family { masks: Vec::new() },
            Some(other) => Family { masks: vec![other] },
            None => {
                // A number in the path's own name stays what it is: till1.log.2 is no file of till2.log.
                let with = |sign: &[u8]| [path.as_bytes(), sign].concat();
                Family { masks: vec![with(b".#"), with(b"-#")] }
            }
        }
    }

    fn holds(&self, name: &[u8]) -> bool {
        let masked = mask(name);
        self.masks.iter().any(|own| {
            let fixed = own.len().saturating_sub(1);
            // Either all numbers are free, or only the one at the end.
            masked == *own
                || (name.len() > fixed && name[..fixed] == own[..fixed] && mask(&name[fixed..]) == own[fixed..])
        })
    }
}

/// A name in a directory, with the number of its file.
type Names = Vec<(OsString, u64)>;

fn list(dir: &Path) -> io::Result<Names> {
    let mut names = Names::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        names.push((entry.file_name(), entry.ino()));
    }
    names.sort();
    Ok(names)
}

/// Listings of directories, each taken when somebody needs it, and shared by all that look during a scan: very many files of
/// one directory cost no more listings than one.
///
/// Whoever looks must have learned before the first of them what is at its path, and see behind that it is there still.
#[derive(Default)]
pub(crate) struct Listings {
    taken: RefCell<BTreeMap<PathBuf, Vec<Rc<Names>>>>,
}

impl Listings {
    /// The listing of this number, from 0.
    fn get(&self, dir: &Path, number: usize) -> io::Result<Rc<Names>> {
        let mut taken = self.taken.borrow_mut();
        let taken = taken.entry(dir.to_owned()).or_default();
        while taken.len() <= number {
            taken.push(Rc::new(list(dir)?));
        }
        Ok(Rc::clone(&taken[number]))
    }
}

/// The names that matter, as they were at one moment.
fn list_stable(dir: &Path, listings: &Listings, matters: impl Fn(&Names) -> Names) -> io::Result<Names> {
    let mut before = matters(&*listings.get(dir, 0)?);
    for number in 1..LISTINGS_MAX {
        let now = matters(&*listings.get(dir, number)?);
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    Err(busy())
}

/// A rotation is going on: to be tried again.
pub(crate) fn busy() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "its directory changes all the time")
}

/// The directories in which a path's files may be.
pub(crate) fn directories(path: &Path) -> Vec<PathBuf> {
    let own = path.parent().unwrap_or(Path::new("/")).to_owned();
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return vec![own];
    }
    let target = fs::canonicalize(path).ok().and_then(|target| target.parent().map(Path::to_owned));
    let is_other = |target: &PathBuf| fs::canonicalize(&own).is_ok_and(|own| own != *target);
    let target = target.filter(is_other);
    [own].into_iter().chain(target).collect()
}

/// A file beside a path that may be one of its log.
#[derive(Clone, Debug)]
pub(crate) struct Sibling {
    pub(crate) path: PathBuf,
    pub(crate) id: FileId,
    mtime_ns: i64,
    note: OldFile,
    /// As what it was noted earlier.
    known_as: Option<OldFile>,
    /// Its name begins as the path's does, so [`Old`] knows it if it is old.
    is_noted: bool,
    is_generation: bool,
    is_compressed: bool,
}

impl Sibling {
    fn new(dir: &Path, name: &OsStr, is_noted: bool, is_generation: bool, old: &Old) -> io::Result<Option<Sibling>> {
        let path = dir.join(name);
        // A link is no file of its own; what it leads to is beside the path, or is not.
        let metadata = fs::symlink_metadata(&path)?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let (id, is_compressed) = (FileId::of(&metadata), is_compressed(name));
        let mut head = [0; MARK_BYTES];
        // Who may not read it cannot tell it by its bytes; the number alone must do.
        let read = match open_regular(&path) {
            Ok(file) => read_at(&file, &mut head, 0)?,
            Err(_) => 0,
        };
        let head = &head[..read];
        let (note, known_as) = (OldFile::new(id.ino, head), old.find(id.ino, head));
        let mtime_ns = mtime_ns(&metadata);
        Ok(Some(Sibling { path, id, mtime_ns, note, known_as, is_noted, is_generation, is_compressed }))
    }

    /// Whether it has come since the old ones were noted; `mtime_ns` is when the last known file was written.
    fn is_news(&self, is_complete: bool, mtime_ns: i64) -> bool {
        // The time of a compressed file is that of what was compressed.
        let is_known_if_old = self.is_noted && is_complete && !self.is_compressed;
        self.known_as.is_none() && (is_known_if_old || self.mtime_ns > mtime_ns)
    }

    /// It was finished when it was noted, and has been written to since. Seen only while its head is not whole.
    fn has_grown(&self) -> bool {
        self.known_as.is_some_and(|then| then.head_bytes < self.note.head_bytes)
    }
}

/// What lies beside a path.
#[derive(Debug, Default)]
pub(crate) struct Siblings {
    /// Where the file that was asked for is now.
    pub(crate) rotated: Option<PathBuf>,
    all: Vec<Sibling>,
    /// All old ones are noted.
    is_complete: bool,
}

/// Looks at the files beside `path` that may be of its log, now that `id` is not at the path any more. `old` are those that
/// have nothing to be read.
///
/// # Errors
/// Of kind `ResourceBusy` where a rotation is going on.
pub(crate) fn siblings(path: &Path, id: Option<FileId>, old: &Old, listings: &Listings) -> io::Result<Siblings> {
    let mut found = Siblings { is_complete: old.is_complete, ..Siblings::default() };
    let Some(own) = path.file_name() else { return Ok(found) };
    let stem = own.as_bytes().split(|&byte| byte == b'.').find(|piece| !piece.is_empty()).unwrap_or(own.as_bytes());
    let is_asked_for =
        |name: &OsStr, ino: u64| id.is_some_and(|id| id.ino == ino) && name != own && !is_compressed(name);
    for dir in directories(path) {
        let rotated =
            |names: &Names| names.iter().find(|(name, ino)| is_asked_for(name, *ino)).map(|(name, _)| name.clone());
        let names = list_stable(&dir, listings, |names| {
            let family = Family::new(own, rotated(names).as_deref());
            let matters = |name: &OsStr| name.as_bytes().starts_with(stem) || family.holds(without_ending(name));
            names
                .iter()
                .filter(|(name, ino)| name != own && (matters(name) || is_asked_for(name, *ino)))
                .cloned()
                .collect()
        })?;
        let rotated = rotated(&names);
        let family = Family::new(own, rotated.as_deref());
        for (name, ino) in &names {
            let is_noted = name.as_bytes().starts_with(stem);
            let sibling = match Sibling::new(&dir, name, is_noted, family.holds(without_ending(name)), old) {
                Ok(Some(sibling)) => sibling,
                Ok(None) => continue,
                Err(_) => return Err(busy()),
            };
            if sibling.id.ino != *ino {
                return Err(busy());
            }
            found.all.push(sibling);
        }
        found.rotated = found.rotated.or(rotated.map(|name| dir.join(name)));
    }
    found.all.sort_by_key(|sibling| {
        let name = sibling.path.file_name().unwrap_or_default();
        (sibling.mtime_ns, std::cmp::Reverse(number(without_ending(name))))
    });
    Ok(found)
}

impl Siblings {
    /// The files that came since the old ones were noted, oldest first. `mtime_ns` is when the last known file was written.
    pub(crate) fn news(&self, mtime_ns: i64, is_known: &dyn Fn(FileId) -> bool) -> io::Result<Vec<Generation>> {
        let is_news = |sibling: &&Sibling| {
            let is_candidate = sibling.is_generation && !sibling.is_compressed && !is_known(sibling.id);
            is_candidate && sibling.is_news(self.is_complete, mtime_ns)
        };
        let may_be_read = |outcome: &io::Result<Generation>| !matches!(outcome, Err(error) if error.kind() == io::ErrorKind::PermissionDenied);
        self.all.iter().filter(is_news).map(Generation::open).filter(may_be_read).collect()
    }

    /// Those that came and cannot be read.
    pub(crate) fn compressed_news(&self, mtime_ns: i64) -> Vec<PathBuf> {
        let is_news = |sibling: &&Sibling| {
            sibling.is_generation && sibling.is_compressed && sibling.is_news(self.is_complete, mtime_ns)
        };
        self.all.iter().filter(is_news).map(|sibling| sibling.path.clone()).collect()
    }

    /// What is to be noted: everything that is not known otherwise.
    pub(crate) fn old(&self, is_known: &dyn Fn(FileId) -> bool) -> Old {
        let unknown = self.all.iter().rev().filter(|sibling| sibling.is_noted && !is_known(sibling.id));
        let mut files: Vec<OldFile> = unknown.map(|sibling| sibling.note).collect();
        let is_complete = files.len() <= OLD_MAX;
        files.truncate(OLD_MAX);
        Old { files, is_complete }
    }

    /// What a noted file is known by from now on; nothing where it is gone.
    pub(crate) fn renew(&self, file: OldFile) -> Option<OldFile> {
        let is_it = |sibling: &&Sibling| sibling.known_as == Some(file) || sibling.note == file;
        self.all.iter().find(is_it).map(|sibling| sibling.note)
    }

    /// Noted files that have been written to since.
    pub(crate) fn grown(&self) -> impl Iterator<Item = &Path> {
        self.all.iter().filter(|sibling| sibling.has_grown()).map(|sibling| &*sibling.path)
    }

    /// The copy that was made of a file before it was truncated, and whether the file was read further than the copy goes.
    ///
    /// # Errors
    /// Of kind `ResourceBusy` where a rotation is going on.
    pub(crate) fn copy(
        &self,
        position: &Position,
        is_known: &dyn Fn(FileId) -> bool,
    ) -> io::Result<Option<(Generation, Verdict)>> {
        let mut best = None;
        for sibling in self.all.iter().filter(|sibling| !sibling.is_compressed && !is_known(sibling.id)) {
            // Copies carry times from before and after the last look.
            if !sibling.is_news(self.is_complete, position.mtime_ns - 1) {
                continue;
            }
            let generation = match Generation::open(sibling) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                outcome => outcome?,
            };
            match judge(&generation.file, position.offset, &position.prints)? {
                Verdict::Same(marks) => return Ok(Some((generation, Verdict::Same(marks)))),
                verdict @ Verdict::Shortened { .. } => best = Some((generation, verdict)),
                Verdict::Other => {}
            }
        }
        Ok(best)
    }
}

/// A rotated file.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) id: FileId,
    pub(crate) note: OldFile,
}

impl Generation {
    /// Opens a file of a listing; one that has another name by now is busy.
    fn open(sibling: &Sibling) -> io::Result<Generation> {
        let found = Generation::at(sibling.path.clone()).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => busy(),
            _ => error,
        })?;
        if found.id == sibling.id { Ok(Generation { note: sibling.note, ..found }) } else { Err(busy()) }
    }

    fn at(path: PathBuf) -> io::Result<Generation> {
        let file = open_regular(&path)?;
        Ok(Generation { path, id: FileId::of(&file.metadata()?), note: OldFile::default(), file })
    }
}

fn without_ending(name: &OsStr) -> &[u8] {
    let name = name.as_bytes();
    COMPRESSED.iter().find_map(|ending| name.strip_suffix(*ending)).unwrap_or(name)
}

/// Finds a file by its number, and that it is what it was, at `path` or beside it.
pub(crate) fn find(path: &Path, id: FileId, offset: u64, prints: &Prints) -> Option<(Generation, Verdict)> {
    let judged = |at: PathBuf| {
        let generation = Generation::at(at).ok()?;
        let is_it = generation.id.ino == id.ino
            || (generation.path == path && offset >= CONTENT_BYTES_MIN && !has_lasting_numbers(&generation.file));
        let verdict = is_it.then(|| judge(&generation.file, offset, prints).ok())??;
        (verdict != Verdict::Other).then_some((generation, verdict))
    };
    // A name that is being changed while its directory is listed may be missed.
    (0..3).find_map(|_| {
        judged(path.to_owned()).or_else(|| {
            let beside = directories(path).into_iter().flat_map(|dir| {
                let names = list(&dir).unwrap_or_default().into_iter();
                names.filter(|(_, ino)| *ino == id.ino).map(move |(name, _)| dir.join(name)).collect::<Vec<_>>()
            });
            beside.into_iter().find_map(judged)
        })
    })
}

/// Whether files keep their numbers while the file system is not mounted. FAT has none, and some that run in user space
/// count as they go; there, path and content must do.
#[cfg(target_os = "linux")]
fn has_lasting_numbers(file: &File) -> bool {
    const WITHOUT: [u32; 3] = [0x4d44, 0x2011_bab0, 0x6573_5546];
    rustix::fs::fstatfs(file).is_ok_and(|system| !WITHOUT.contains(&(system.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn has_lasting_numbers(_file: &File) -> bool {
    true
}

#[cfg(test)]
mod tests;
