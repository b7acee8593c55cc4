//! The operations of a volume, as programs ask for them: each meets the planted faults, takes effect on what programs
//! see, and a sync carries over what it covers to the durable side.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::backing::STAGING;
use crate::content::SECTOR_BYTES;
use crate::fault::{FaultKind, OpClass};
use crate::names::{Ino, ROOT};
use crate::volume::{Kind, Volume, errno, now};

/// What programs see of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Its number; 1 is the root.
    pub ino: u64,
    /// What it is.
    pub kind: FileType,
    /// Length in bytes.
    pub bytes: u64,
    /// Number of names.
    pub links: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub modified: std::time::SystemTime,
}

/// A name that is offered to a new file; `mode` and owner are those of the file.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// The directory.
    pub parent: u64,
    /// The name in it.
    pub name: &'a OsStr,
    /// A file, directory or socket.
    pub kind: FileType,
    /// Permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

impl Volume {
    /// Looks at a file.
    pub fn attributes(&mut self, ino: u64) -> Result<Attributes, Errno> {
        self.has_power()?;
        let (number, ino) = (ino, Ino(ino));
        let node = self.node(ino)?;
        let (kind, links) = match node.kind {
            Kind::File(_) => (FileType::RegularFile, self.names.links(ino)),
            Kind::Dir(_) => (FileType::Directory, 2),
            Kind::Socket => (FileType::Socket, self.names.links(ino)),
        };
        Ok(Attributes {
            ino: number,
            kind,
            bytes: node.bytes(),
            links: links as u32,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            modified: node.modified,
        })
    }

    /// Finds a name.
    pub fn lookup(&mut self, parent: u64, name: &OsStr) -> Result<Attributes, Errno> {
        if let Some((_, kind)) = self.begin((OpClass::Lookup, false), Ino(parent), Some(name))? {
            return Err(self.fail(kind));
        }
        let ino = self.names.get(Ino(parent), name).ok_or(Errno::NOENT)?;
        self.attributes(ino.0)
    }

    /// The names in a directory, with what they stand for.
    pub fn list(&mut self, dir: u64) -> Result<Vec<(OsString, Attributes)>, Errno> {
        if let Some((_, kind)) = self.begin((OpClass::Lookup, false), Ino(dir), None)? {
            return Err(self.fail(kind));
        }
        let parent = self.names.parent(Ino(dir));
        let mut names = vec![(OsString::from("."), Ino(dir)), (OsString::from(".."), parent)];
        names.extend(self.names.list(Ino(dir)).map(|(name, ino)| (name.clone(), ino)));
        names.into_iter().map(|(name, ino)| Ok((name, self.attributes(ino.0)?))).collect()
    }

    /// Opens a file or directory.
    pub fn open_handle(&mut self, ino: u64) -> Result<(), Errno> {
        if let Some((_, kind)) = self.begin((OpClass::Lookup, false), Ino(ino), None)? {
            return Err(self.fail(kind));
        }
        self.hold(Ino(ino))
    }

    /// Creates a file, directory or socket. The name must be free.
    pub fn create(&mut self, new: New<'_>) -> Result<Attributes, Errno> {
        let class = if new.kind == FileType::Directory { OpClass::MakeDir } else { OpClass::Create };
        let strike = self.begin((class, false), Ino(new.parent), Some(new.name))?;
        let path = self.names.path(Ino(new.parent)).join(new.name);
        let verb = if new.kind == FileType::Directory { "mkdir" } else { "create" };
        self.crash(true, verb, &path, None)?;
        self.name_change(strike, |volume| {
            let at = (Ino(new.parent), new.name.to_owned());
            if at == (ROOT, OsString::from(STAGING)) {
                return Err(Errno::PERM);
            }
            if volume.names.get(at.0, &at.1).is_some() {
                return Err(Errno::EXIST);
            }
            let ino = volume.make(new.kind, new.mode, new.owner)?;
            let linked = match new.kind {
                FileType::Directory => volume.names.make_dir(at, ino),
                _ => volume.names.link(at, ino),
            };
            if linked.is_err() {
                volume.forget_unnamed(ino);
            }
            linked.and_then(|()| volume.attributes(ino.0))
        })
        .and_then(|attributes| self.crash(false, verb, &path, None).map(|()| attributes))
    }

    /// Gives a file one more name.
    pub fn link(&mut self, ino: u64, parent: u64, name: &OsStr) -> Result<Attributes, Errno> {
        let strike = self.begin((OpClass::Create, false), Ino(parent), Some(name))?;
        self.name_change(strike, |volume| {
            volume.node(Ino(ino))?;
            if volume.names.is_dir(Ino(ino)) || (Ino(parent), name) == (ROOT, OsStr::new(STAGING)) {
                return Err(Errno::PERM);
            }
            volume.names.link((Ino(parent), name.to_owned()), Ino(ino))?;
            volume.attributes(ino)
        })
    }

    /// Removes a name, of an empty directory or (`dir` false) of anything else.
    pub fn unlink(&mut self, parent: u64, name: &OsStr, dir: bool) -> Result<(), Errno> {
        let strike = self.begin((OpClass::Unlink, false), Ino(parent), Some(name))?;
        let path = self.names.path(Ino(parent)).join(name);
        self.crash(true, "unlink", &path, None)?;
        self.name_change(strike, |volume| {
            let ino = volume.names.unlink((Ino(parent), name.to_owned()), dir)?;
            volume.forget_unnamed(ino);
            Ok(())
        })?;
        self.crash(false, "unlink", &path, None)
    }

    /// Renames; with `no_replace` only if the new name is free.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), no_replace: bool) -> Result<(), Errno> {
        let strike = self.begin((OpClass::Rename, false), Ino(from.0), Some(from.1))?;
        self.node(Ino(to.0))?;
        let path = |volume: &Volume, (parent, name): (u64, &OsStr)| volume.names.path(Ino(parent)).join(name);
        let (old, new): (PathBuf, PathBuf) = (path(self, from), path(self, to));
        self.crash(true, "rename", &old, Some(&new))?;
        self.name_change(strike, |volume| {
            if (Ino(to.0), to.1) == (ROOT, OsStr::new(STAGING)) {
                return Err(Errno::PERM);
            }
            let keys = ((Ino(from.0), from.1.to_owned()), (Ino(to.0), to.1.to_owned()));
            let replaced = volume.names.rename(keys.0, keys.1, no_replace)?;
            replaced.into_iter().for_each(|ino| volume.forget_unnamed(ino));
            Ok(())
        })?;
        self.crash(false, "rename", &old, Some(&new))
    }

    /// Carries a change of names out, or fails it as the fault's table says.
    fn name_change<T>(
        &mut self,
        strike: Option<(OpClass, FaultKind)>,
        change: impl FnOnce(&mut Volume) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let Some((_, kind)) = strike else {
            let done = change(self)?;
            self.bound_names()?;
            return Ok(done);
        };
        if kind == FaultKind::PowerOff || kind == FaultKind::Eio && self.rng.coin() {
            // The caller is told of the fault whatever became of the change.
            drop(change(self));
        }
        Err(self.fail(kind))
    }

    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    pub fn read(&mut self, ino: u64, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let strike = self.begin((OpClass::Read, false), Ino(ino), None)?;
        let read = self.content(Ino(ino))?.read(buf, offset).map_err(|error| errno(&error))?;
        match strike {
            Some((_, FaultKind::Flip)) if read > 0 => {
                let bit = self.rng.below(read as u64 * 8);
                buf[(bit / 8) as usize] ^= 1 << (bit % 8);
                Ok(read)
            }
            Some((_, kind)) if kind != FaultKind::Flip => Err(self.fail(kind)),
            _ => Ok(read),
        }
    }

    /// Writes; `durable` as with O_DSYNC: this write alone, with the length it needs. Fewer bytes only by a fault.
    pub fn write(&mut self, ino: u64, data: &[u8], offset: u64, durable: bool) -> Result<usize, Errno> {
        let strike = self.begin((OpClass::Write, durable), Ino(ino), None)?;
        let ino = Ino(ino);
        let path = self.path_for_crash(ino);
        self.crash(true, "write", &path, None)?;
        self.content(ino)?;
        self.tear(ino, data, offset)?;
        self.check_space(ino, offset + data.len() as u64)?;
        let before = self.volatile_of(ino);
        let stamp = self.tick();
        let in_sync = matches!(strike, Some((OpClass::Sync, _)));
        let written = match strike {
            Some((_, kind)) if !in_sync => self.write_failing(ino, data, offset, kind, stamp),
            _ => self.content(ino)?.write(data, offset, stamp).map(|()| data.len()).map_err(|error| errno(&error)),
        };
        self.node_mut(ino)?.modified = now();
        self.account(before, ino)?;
        match strike {
            Some((_, kind @ (FaultKind::PowerOff | FaultKind::Eio | FaultKind::NoSpace))) => {
                if in_sync && kind != FaultKind::PowerOff {
                    self.content(ino)?.fail_sync(|at| at == stamp);
                }
                return Err(self.fail(kind));
            }
            _ if durable && !self.settings.lie => self.sync_content(ino, |at| at == stamp)?,
            _ => {}
        }
        self.crash(false, "write", &path, None)?;
        written
    }

    /// A write that a fault hits: some of its sectors, a prefix, nothing, or (power) all of it as volatile as it is.
    fn write_failing(
        &mut self,
        ino: Ino,
        data: &[u8],
        offset: u64,
        kind: FaultKind,
        stamp: u64,
    ) -> Result<usize, Errno> {
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        let mut at = 0;
        while at < data.len() as u64 {
            let end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
            pieces.push((at, end.min(data.len() as u64)));
            at = end;
        }
        let prefix = match pieces.len() as u64 {
            0 => 0,
            1 => data.len() as u64 / 2,
            sectors => pieces[1 + self.rng.below(sectors - 1) as usize].0,
        };
        match kind {
            FaultKind::NoSpace => pieces.clear(),
            FaultKind::Short => pieces = vec![(0, prefix)],
            FaultKind::Eio => pieces.retain(|_| self.rng.coin()),
            FaultKind::Flip | FaultKind::PowerOff => {}
        }
        for (from, to) in pieces {
            let content = self.content(ino)?;
            let piece = &data[from as usize..to as usize];
            content.write(piece, offset + from, stamp).map_err(|error| errno(&error))?;
        }
        Ok(prefix as usize)
    }

    fn sync_content(&mut self, ino: Ino, covers: impl Fn(u64) -> bool) -> Result<(), Errno> {
        let before = self.volatile_of(ino);
        self.content(ino)?.sync(covers).map_err(|error| errno(&error))?;
        self.account(before, ino)
    }

    fn path_for_crash(&self, ino: Ino) -> PathBuf {
        if self.torn.is_empty() { PathBuf::new() } else { self.names.path(ino) }
    }

    /// Refuses a file that would become too long for the space limit.
    fn check_space(&mut self, ino: Ino, bytes: u64) -> Result<(), Errno> {
        let Some(space_bytes) = self.settings.space_bytes else { return Ok(()) };
        let page = crate::content::PAGE_BYTES;
        let now = self.node(ino)?.bytes().next_multiple_of(page);
        let grows = bytes.next_multiple_of(page).saturating_sub(now);
        if grows > 0 && self.space_used_bytes() + grows > space_bytes { Err(Errno::NOSPC) } else { Ok(()) }
    }

    /// Makes data and length of a file durable: all that was written before.
    pub fn sync(&mut self, ino: u64) -> Result<(), Errno> {
        let strike = self.begin((OpClass::Sync, false), Ino(ino), None)?;
        let ino = Ino(ino);
        let path = self.path_for_crash(ino);
        self.crash(true, "fsync", &path, None)?;
        self.content(ino)?;
        match strike {
            Some((_, kind)) => {
                if kind != FaultKind::PowerOff {
                    self.content(ino)?.fail_sync(|_| true);
                }
                return Err(self.fail(kind));
            }
            None if self.settings.lie => {}
            None => self.sync_content(ino, |_| true)?,
        }
        self.end_group(ino);
        self.crash(false, "fsync", &path, None)
    }

    /// Makes the names in a directory durable.
    pub fn sync_dir(&mut self, dir: u64) -> Result<(), Errno> {
        let strike = self.begin((OpClass::SyncDir, false), Ino(dir), None)?;
        if !self.names.is_dir(Ino(dir)) {
            return Err(Errno::NOTDIR);
        }
        match strike {
            Some((_, kind)) => {
                if kind != FaultKind::PowerOff {
                    self.names.fail_sync_dir(Ino(dir));
                }
                Err(self.fail(kind))
            }
            None if self.settings.lie => Ok(()),
            None => {
                let steps = self.names.sync_dir(Ino(dir));
                steps.iter().try_for_each(|step| self.carry_out(step)).map_err(|error| errno(&error))?;
                self.forget_after(&steps);
                Ok(())
            }
        }
    }

    /// Sets the length of a file.
    pub fn truncate(&mut self, ino: u64, bytes: u64) -> Result<(), Errno> {
        self.change_content(ino, |volume, ino, stamp| {
            volume.check_space(ino, bytes)?;
            volume.content(ino)?.truncate(bytes, stamp).map_err(|error| errno(&error))
        })
    }

    /// Makes a file at least as long as `offset + len`; it then reads as zeros where nothing was written.
    pub fn allocate(&mut self, ino: u64, offset: u64, len: u64, keep_length: bool) -> Result<(), Errno> {
        let end = offset.checked_add(len).ok_or(Errno::FBIG)?;
        self.change_content(ino, |volume, ino, stamp| {
            volume.check_space(ino, end)?;
            let content = volume.content(ino)?;
            if keep_length || end <= content.bytes() {
                return Ok(());
            }
            content.truncate(end, stamp).map_err(|error| errno(&error))
        })
    }

    /// Turns bytes into zeros, or punches a hole, which is the same here; a longer file only if `keep_length` is false.
    pub fn zero(&mut self, ino: u64, offset: u64, len: u64, keep_length: bool) -> Result<(), Errno> {
        if !keep_length {
            self.allocate(ino, offset, len, false)?;
        }
        self.change_content(ino, |volume, ino, stamp| {
            volume.content(ino)?.zero(offset, len, stamp).map_err(|error| errno(&error))
        })
    }

    fn change_content(
        &mut self,
        ino: u64,
        change: impl FnOnce(&mut Volume, Ino, u64) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let strike = self.begin((OpClass::Write, false), Ino(ino), None)?;
        let ino = Ino(ino);
        let before = self.volatile_of(ino);
        let stamp = self.tick();
        if strike.is_none_or(|(_, kind)| kind == FaultKind::PowerOff) {
            change(self, ino, stamp)?;
            self.node_mut(ino)?.modified = now();
            self.account(before, ino)?;
        }
        strike.map_or(Ok(()), |(_, kind)| Err(self.fail(kind)))
    }

    /// Sets permissions and owner; durable at once.
    pub fn set_owner(&mut self, ino: u64, mode: Option<u32>, owner: (Option<u32>, Option<u32>)) -> Result<(), Errno> {
        self.has_power()?;
        if self.settings.read_only {
            return Err(Errno::ROFS);
        }
        let node = self.node(Ino(ino))?;
        let owner = (owner.0.unwrap_or(node.uid), owner.1.unwrap_or(node.gid));
        let mode = mode.unwrap_or(node.mode) & 0o7777;
        self.set_mode(Ino(ino), mode, owner)
    }
}
