//! The faults that LazyFS takes by FIFO and that end in a crash: a torn write, a torn sequence of writes, and a crash at
//! an operation that a path chooses. Where LazyFS kills itself, the power goes here, and the mount stays.
//!
//! A file is named by its path in the backing directory, as LazyFS has it, or by its path below the mount.

use std::path::{Path, PathBuf};

use regex_lite::Regex;
use rustix::io::Errno;

use crate::fault::FaultKind;
use crate::names::Ino;
use crate::volume::{Volume, errno};

/// One of them, planted.
#[derive(Debug)]
pub(crate) enum Torn {
    /// Of the write number `occurrence` to `file` only some parts reach the device.
    Op { file: PathBuf, parts: Parts, persist: Vec<u64>, occurrence: u64 },
    /// Of the writes number `persist` of group number `occurrence` of writes without a sync between them, all of each
    /// reaches the device; the power goes after the last.
    Sequence { file: PathBuf, persist: Vec<u64>, occurrence: u64, group: u64, write: u64 },
    /// The power goes at the first operation of this name on a path that matches.
    Crash { before: bool, op: String, from: Regex, to: Option<Regex> },
}

/// How a write is divided.
#[derive(Debug)]
pub(crate) enum Parts {
    /// In so many equal parts; the last takes the rest.
    Equal(u64),
    /// In parts of these lengths; the last takes the rest.
    Bytes(Vec<u64>),
}

impl Parts {
    /// First byte and last + 1 of each part of a write of `len` bytes.
    fn of(&self, len: u64) -> Vec<(u64, u64)> {
        let lengths = match self {
            Parts::Equal(parts) => vec![len / parts; *parts as usize],
            Parts::Bytes(lengths) => lengths.clone(),
        };
        let mut at = 0;
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for length in lengths {
            parts.push((at.min(len), (at + length).min(len)));
            at += length;
        }
        if let Some(last) = parts.last_mut() {
            last.1 = len;
        }
        parts
    }
}

impl Volume {
    /// The path below the mount of a path that may be one in the backing directory.
    fn below(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix(self.backing.root()).unwrap_or(path);
        path.strip_prefix("/").unwrap_or(path).to_owned()
    }

    /// A write is about to take effect; an error is that of a power cut in the middle of it.
    pub(crate) fn tear(&mut self, ino: Ino, data: &[u8], offset: u64) -> Result<(), Errno> {
        if self.torn.is_empty() {
            return Ok(());
        }
        let path = self.names.path(ino);
        let mut survivors = Vec::new();
        let mut dies = false;
        let mut torn = std::mem::take(&mut self.torn);
        torn.retain_mut(|torn| match torn {
            Torn::Op { file, parts, persist, occurrence } if self.below(file) == path => {
                *occurrence -= 1;
                if *occurrence == 0 {
                    let parts = parts.of(data.len() as u64);
                    survivors.extend(persist.iter().filter_map(|&part| parts.get(part as usize - 1).copied()));
                    dies = true;
                }
                *occurrence > 0
            }
            Torn::Sequence { file, persist, occurrence, group, write } if self.below(file) == path => {
                *write += 1;
                if *group + 1 == *occurrence && persist.contains(write) {
                    survivors.push((0, data.len() as u64));
                    dies |= persist.last() == Some(write);
                }
                !dies
            }
            _ => true,
        });
        self.torn = torn;
        for (from, to) in survivors {
            let content = self.content(ino)?;
            content.tear(&data[from as usize..to as usize], offset + from).map_err(|error| errno(&error))?;
        }
        if dies { Err(self.fail(FaultKind::PowerOff)) } else { Ok(()) }
    }

    /// A file was synced: the next write to it begins another group.
    pub(crate) fn end_group(&mut self, ino: Ino) {
        if self.torn.is_empty() {
            return;
        }
        let path = self.names.path(ino);
        let mut torn = std::mem::take(&mut self.torn);
        for torn in &mut torn {
            if let Torn::Sequence { file, group, write, .. } = torn
                && *write > 0
                && self.below(file) == path
            {
                (*group, *write) = (*group + 1, 0);
            }
        }
        self.torn = torn;
    }

    /// Whether a planted crash meets this operation, `before` it or after.
    pub(crate) fn crash(&mut self, before: bool, op: &str, from: &Path, to: Option<&Path>) -> Result<(), Errno> {
        let root = self.backing.root().to_owned();
        let text = |path: &Path| root.join(path).to_string_lossy().into_owned();
        let meets = |torn: &Torn| match torn {
            Torn::Crash { before: at, op: name, from: pattern, to: other } => {
                let other = other.as_ref().is_none_or(|other| to.is_some_and(|to| other.is_match(&text(to))));
                (*at, name.as_str()) == (before, op) && pattern.is_match(&text(from)) && other
            }
            _ => false,
        };
        if self.torn.iter().any(meets) { Err(self.fail(FaultKind::PowerOff)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_divided_without_a_rest() {
        assert_eq!(Parts::Equal(3).of(10), [(0, 3), (3, 6), (6, 10)]);
        assert_eq!(Parts::Bytes(vec![4, 3]).of(10), [(0, 4), (4, 10)]);
        assert_eq!(Parts::Bytes(vec![4, 30]).of(10), [(0, 4), (4, 10)]);
        assert_eq!(Parts::Equal(4).of(2), [(0, 0), (0, 0), (0, 0), (0, 2)]);
    }
}
