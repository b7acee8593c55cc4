//! Files that are not the store's, and what unfinished work has left: named, never touched.

use std::io;

use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::io::Vfs;
use crate::manifest::{self, reserve};
use crate::sstable::{self, Table};
use crate::wal;
use crate::wal::files::{QUARANTINED, WalFiles, name_number};

/// The directory for damaged files, inside the store.
pub(crate) const QUARANTINE: &str = "quarantine";
/// What else belongs in a store's directory.
const KNOWN: [&str; 8] =
    [reserve::NAME, "LOCK", "kifa.toml", "kifa.sock", "lost+found", wal::DIR, sstable::DIR, QUARANTINE];

const UNFINISHED: &str = "was set aside by a kifa recover --accept that was interrupted; run it again to finish it";

/// One line about a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Note {
    pub(crate) file: String,
    /// As the end of a sentence that starts with the file.
    pub(crate) what: String,
}

/// Looks through the store's directories. What a running writer is at work on is not told.
pub(crate) fn notes(vfs: &dyn Vfs, manifest: &Manifest, files: &WalFiles, writer_alive: bool) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    let mut note = |file: String, what: &str| notes.push(Note { file, what: what.to_owned() });
    for entry in list(vfs, "")? {
        let is_known = KNOWN.contains(&entry.name.as_str());
        match manifest::name_generation(&entry.name).filter(|_| entry.is_file) {
            Some(generation) if generation >= manifest.generation => {}
            Some(_) if writer_alive => {}
            Some(_) => note(entry.name, "is an older manifest; the next start of the daemon removes it"),
            None if is_known || writer_alive && entry.name.ends_with(".tmp") => {}
            None if entry.name == reserve::TEMPORARY
                || entry.name.strip_suffix(".tmp").and_then(manifest::name_generation).is_some() =>
            {
                note(entry.name, "was left unfinished; the next start of the daemon removes it");
            }
            None => note(entry.name, "is not the store's; it is left alone"),
        }
    }
    for entry in list(vfs, wal::DIR)? {
        let path = format!("{}/{}", wal::DIR, entry.name);
        let is_ours = files.live.values().any(|segment| segment.path == path)
            || files.released.iter().chain(&files.spares).any(|file| file.path == path);
        if is_ours {
            continue;
        }
        if entry.name.ends_with(QUARANTINED) {
            note(path, UNFINISHED);
            continue;
        }
        if files.temporary.contains(&path) {
            if !writer_alive {
                note(path, "was left unfinished; the next start of the daemon removes it");
            }
        } else if files.headless.iter().any(|file| file.path == path) {
            note(path, "is no segment of this store, or a copy of one; it is left alone");
        } else {
            note(path, "is not the store's; it is left alone");
        }
    }
    for entry in list(vfs, sstable::DIR)? {
        let path = format!("{}/{}", sstable::DIR, entry.name);
        let id = name_number(&entry.name, ".sst").filter(|_| entry.is_file);
        if id.is_some_and(|id| manifest.tables.iter().any(|table| table.id == id)) {
            continue;
        }
        if entry.name.ends_with(QUARANTINED) {
            note(path, UNFINISHED);
        } else if name_number(&entry.name, ".sst.tmp").is_some() && entry.is_file {
            if !writer_alive {
                note(path, "was left unfinished; the next start of the daemon removes it");
            }
        } else if id.is_none() {
            note(path, "is not the store's; it is left alone");
        } else if !writer_alive {
            let own = vfs.open(&path).is_ok_and(|file| Table::open(file, None, manifest.store).is_ok());
            note(
                path,
                if own { "is a table that no manifest names" } else { "is no table of this store; it is left alone" },
            );
        }
    }
    Ok(notes)
}

fn list(vfs: &dyn Vfs, dir: &str) -> Result<Vec<crate::io::DirEntry>> {
    match vfs.list(dir) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(|cause| Error::io("list", dir, cause)),
    }
}
