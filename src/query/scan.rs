//! A running scan: tables in LSN order, then the log, one block or group in memory at a time; or the same backward.

use std::collections::VecDeque;
use std::io;

use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::format::entry::{self, Entry};
use crate::format::group::GroupHeader;
use crate::format::manifest::TableMeta;
use crate::format::table::Span;
use crate::io::Vfs as _;
use crate::query::view::View;
use crate::query::{EntryRef, Notice, Reader, ScanRange};
use crate::sstable::{self, BlockBuf, Table};
use crate::survey;
use crate::survey::log::{GroupRef, LoneEntry};
use crate::survey::pieces::place;
use crate::survey::tolerant::{Tolerant, Unreadable};
use crate::wal::reader::{Group, Window, read_group};

/// Blocks of a table that are read one by one; for more the system may read ahead.
const FEW_BLOCKS: usize = 8;

/// A running scan. Memory is bounded by one block or group and one table's index, whatever the range.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// # use kifa::{Log, Options, Reader, ScanRange};
/// # Log::open(&dir, Options::default())?.close()?;
/// let reader = Reader::open(&dir)?;
/// let mut scan = reader.scan(ScanRange::default())?;
/// let (mut entries, mut holes) = (0, 0);
/// loop {
///     match scan.next_entry() {
///         Ok(Some(_)) => entries += 1,
///         Ok(None) => break,
///         // Damage: the scan goes on behind it.
///         Err(cause) => {
///             eprintln!("{cause}");
///             holes += 1;
///         }
///     }
/// }
/// assert_eq!((entries, holes), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Scan<'r> {
    reader: &'r Reader,
    range: ScanRange,
    pub(super) view: View,
    parts: VecDeque<Part>,
    /// The table being read and its blocks that are still to come.
    table: Option<(Table, String, VecDeque<usize>)>,
    block: BlockBuf,
    group: GroupBuf,
    loaded: Loaded,
    /// Entries of the loaded part that are still to come.
    next: usize,
    end: usize,
    last: Option<Lsn>,
    window: Window,
}

enum Part {
    Table(TableMeta),
    Log(survey::log::Part),
    /// A part of the log that cannot be read: its number among the view's.
    Damage(usize),
}

enum Loaded {
    Nothing,
    Block,
    Group,
}

/// A group's entries, for access from both ends.
#[derive(Default)]
pub(super) struct GroupBuf {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl GroupBuf {
    /// Takes the entries of a group over.
    pub(super) fn load(&mut self, group: &Group<'_>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(group.entry_bytes());
        self.starts.clear();
        let mut at = 0;
        for entry in group.entries() {
            self.starts.push(at);
            at += entry.encoded_bytes();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn entry(&self, at: usize) -> Entry<'_> {
        entry::decode_trusted(&self.bytes[self.starts[at]..])
    }
}

impl<'r> Scan<'r> {
    pub(super) fn new(reader: &'r Reader, range: ScanRange, view: View) -> Scan<'r> {
        let mut scan = Scan {
            reader,
            range,
            view,
            parts: VecDeque::new(),
            table: None,
            block: BlockBuf::default(),
            group: GroupBuf::default(),
            loaded: Loaded::Nothing,
            next: 0,
            end: 0,
            last: None,
            window: Window::default(),
        };
        scan.plan();
        scan
    }

    /// Lists the parts that may hold entries of the range, in the order of the scan.
    fn plan(&mut self) {
        let ScanRange { from_lsn, to_lsn, from_ns, to_ns, reverse } = self.range;
        let touches = |first: Lsn, last: Lsn, min_ns: u64, max_ns: u64| {
            first <= to_lsn && last >= from_lsn && min_ns <= to_ns && max_ns >= from_ns
        };
        let tables = self.view.manifest.tables.iter();
        let tables = tables
            .filter(|meta| touches(meta.first_lsn, meta.last_lsn, meta.min_timestamp_ns, meta.max_timestamp_ns))
            .map(|meta| Part::Table(meta.clone()));
        let mut log = Vec::new();
        let mut wounds = self.view.damage.iter().enumerate().peekable();
        for part in &self.view.parts {
            let (first, last) = part.lsns();
            while let Some((number, _)) = wounds.next_if(|(_, wound)| wound.lsns.is_some_and(|lsns| lsns.0 <= first)) {
                log.push((number, None));
            }
            let (min_ns, max_ns) = part.times_ns();
            if touches(first, last, min_ns, max_ns) {
                log.push((0, Some(*part)));
            }
        }
        log.extend(wounds.map(|(number, _)| (number, None)));
        let beyond = self.view.last_lsn < to_lsn;
        let is_asked_for = |number: usize| match self.view.damage[number].lsns {
            Some((first, last)) => first <= to_lsn && last >= from_lsn,
            // Nothing tells which entries a lost manifest would have named.
            None => beyond || self.view.damage[number].kind == survey::Kind::Manifest,
        };
        let log = log.into_iter().filter_map(|(number, part)| match part {
            Some(part) => Some(Part::Log(part)),
            None => is_asked_for(number).then_some(Part::Damage(number)),
        });
        self.parts = tables.chain(log).collect();
        if reverse {
            self.parts.make_contiguous().reverse();
        }
        self.table = None;
        (self.loaded, self.next, self.end) = (Loaded::Nothing, 0, 0);
    }

    /// The next entry; `None` at the end. After an error the scan goes on behind what cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<EntryRef<'_>>> {
        Ok(self.find_next()?.map(|at| self.entry_ref(at)))
    }

    /// As [`Scan::next_entry`], with the name of the entry's source.
    #[cfg(feature = "cli")]
    pub(crate) fn next_named(&mut self) -> Result<Option<(EntryRef<'_>, Option<&str>)>> {
        let found = self.find_next()?;
        Ok(found.map(|at| {
            let entry = self.entry_ref(at);
            (entry, self.source_name(entry.source))
        }))
    }

    /// The name of the source with this number ([`EntryRef::source`]); `None` for 0, which is no source, and where the
    /// record of the name cannot be read.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options, Reader, ScanRange};
    /// # let log = Log::open(&dir, Options::default())?;
    /// # log.append(b"TXN-001")?;
    /// # log.close()?;
    /// # let reader = Reader::open(&dir)?;
    /// # let mut scan = reader.scan(ScanRange::default())?;
    /// let source = scan.next_entry()?.expect("there is one").source;
    /// assert_eq!(scan.source_name(source), None, "it was appended by a program, not by a source of kifa daemon");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn source_name(&self, source: u16) -> Option<&str> {
        self.view.names.get(&source).map(String::as_str)
    }

    /// The names of all sources that the store knows.
    #[cfg(feature = "cli")]
    pub(crate) fn source_names(&self) -> impl Iterator<Item = &str> {
        self.view.names.values().map(String::as_str)
    }

    /// Largest LSN that the scan returns, if nothing else bounds it.
    #[cfg(feature = "cli")]
    pub(crate) fn end_lsn(&self) -> Lsn {
        self.view.last_lsn
    }

    /// Loads what holds the next entry, and counts it as returned; its place among the loaded ones.
    pub(super) fn find_next(&mut self) -> Result<Option<usize>> {
        loop {
            while self.next < self.end {
                let at = if self.range.reverse { self.end - 1 } else { self.next };
                if self.range.reverse {
                    self.end -= 1;
                } else {
                    self.next += 1;
                }
                if self.is_wanted(&self.entry(at)) {
                    self.last = Some(self.entry(at).lsn);
                    return Ok(Some(at));
                }
            }
            if !self.load()? {
                return Ok(None);
            }
        }
    }

    pub(super) fn entry_ref(&self, at: usize) -> EntryRef<'_> {
        self.entry(at).into()
    }

    fn entry(&self, at: usize) -> Entry<'_> {
        match self.loaded {
            Loaded::Block => self.block.entry(at),
            Loaded::Group => self.group.entry(at),
            Loaded::Nothing => unreachable!("nothing is loaded, so nothing is left of it"),
        }
    }

    fn is_wanted(&self, entry: &Entry<'_>) -> bool {
        let range = &self.range;
        let behind_last = self.last.is_none_or(|last| if range.reverse { entry.lsn < last } else { entry.lsn > last });
        behind_last
            && (range.from_lsn..=range.to_lsn.min(self.view.last_lsn)).contains(&entry.lsn)
            && (range.from_ns..=range.to_ns).contains(&entry.timestamp_ns)
    }

    /// Loads the next block or group; `false` at the end.
    fn load(&mut self) -> Result<bool> {
        loop {
            if let Some((table, path, blocks)) = &mut self.table {
                let block = if self.range.reverse { blocks.pop_back() } else { blocks.pop_front() };
                let Some(block) = block else {
                    self.table = None;
                    continue;
                };
                (self.loaded, self.next, self.end) = (Loaded::Nothing, 0, 0);
                table.read_block(block, &mut self.block).map_err(|cause| {
                    let Span { first_lsn, last_lsn, .. } = table.block_at(block).span;
                    cause.about(first_lsn, last_lsn).into_error(path)
                })?;
                self.loaded = Loaded::Block;
                self.next = self.block.position(self.range.from_lsn);
                self.end = self.block.position(Lsn(self.range.to_lsn.0.saturating_add(1)));
                return Ok(true);
            }
            match self.parts.pop_front() {
                None => return Ok(false),
                Some(Part::Damage(number)) => return Err(self.view.damage[number].to_error()),
                Some(Part::Table(meta)) => self.open_table(&meta)?,
                Some(Part::Log(survey::log::Part::Group(group))) => {
                    if self.load_group(&group)? {
                        return Ok(true);
                    }
                }
                Some(Part::Log(survey::log::Part::Entry(lone))) => {
                    self.load_entry(&lone)?;
                    return Ok(true);
                }
            }
        }
    }

    fn open_table(&mut self, meta: &TableMeta) -> Result<()> {
        let path = sstable::path(meta.id);
        let (path, file) = match sstable::open_file(&*self.reader.vfs, meta.id) {
            Ok(opened) => opened,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let what = format!(
                    "the manifest names it, and it is missing; LSNs {} to {} cannot be read",
                    meta.first_lsn, meta.last_lsn
                );
                return self.look_again(Error::corrupt(&path, 0, Some(meta.first_lsn), what));
            }
            Err(cause) => return Err(Error::io("open", &path, cause)),
        };
        let store = self.view.manifest.store;
        file.read_ahead(false);
        match Table::open(file, Some(meta), store) {
            Ok(table) => {
                self.begin_table(table, path);
                Ok(())
            }
            Err(cause) => {
                // Its good blocks follow the error.
                let tolerant = Tolerant::new(&*self.reader.vfs, Unreadable::default());
                let file = tolerant.open(&path).map_err(|cause| Error::io("open", &path, cause))?;
                if let Ok(table) = Table::salvage(file, meta.id, Some(meta), store) {
                    self.begin_table(table, path.clone());
                }
                let (first, last) = (meta.first_lsn, meta.last_lsn);
                let more = format!("; of LSNs {first} to {last} only what lies in its good blocks can be read");
                Err(cause.with(&more).into_error(&path))
            }
        }
    }

    fn begin_table(&mut self, table: Table, path: String) {
        let ScanRange { from_lsn, to_lsn, from_ns, to_ns, .. } = self.range;
        let blocks: VecDeque<usize> = table.blocks(from_lsn..=to_lsn, from_ns..=to_ns).collect();
        table.read_ahead(blocks.len() > FEW_BLOCKS);
        self.table = Some((table, path, blocks));
    }

    /// Reads an entry that was saved from a damaged range.
    fn load_entry(&mut self, lone: &LoneEntry) -> Result<()> {
        let place = place(&self.view.files, self.view.manifest.store, lone.file, 0, lone.seed.offset);
        let bytes = self.window.get(place.path, place.file, lone.seed.offset, lone.bytes)?;
        if !entry::decode(bytes, lone.seed).is_ok_and(|entry| entry.lsn == lone.lsn) {
            let what = "an entry that was valid a moment ago fails its checks";
            return Err(Error::corrupt(place.path, lone.seed.offset, Some(lone.lsn), what));
        }
        self.group.bytes.clear();
        self.group.bytes.extend_from_slice(bytes);
        self.group.starts.clear();
        self.group.starts.push(0);
        (self.loaded, self.next, self.end) = (Loaded::Group, 0, 1);
        Ok(())
    }

    /// Reads the group again; `false` where the store has moved on and the scan with it.
    fn load_group(&mut self, group: &GroupRef) -> Result<bool> {
        let place = place(&self.view.files, self.view.manifest.store, group.file, group.segment, group.offset);
        let is_it = |header: &GroupHeader| header.salt == group.salt;
        let mut read = read_group(&mut self.window, &place)?;
        let mut found = read.as_ref().is_ok_and(|found| is_it(&found.header));
        if !found {
            // Damage is found twice before it is believed.
            place.file.forget();
            self.window.clear();
            read = read_group(&mut self.window, &place)?;
            found = read.as_ref().is_ok_and(|found| is_it(&found.header));
        }
        if !found {
            let what = "a group that was valid a moment ago fails its checks";
            let damage = Error::corrupt(place.path, group.offset, Some(group.first_lsn), what);
            self.look_again(damage)?;
            return Ok(false);
        }
        if let Ok(found) = read {
            self.group.load(&found);
        }
        (self.loaded, self.next, self.end) = (Loaded::Group, 0, self.group.len());
        Ok(true)
    }

    /// Something is gone. If the store has a newer manifest, the scan goes on by that one, behind the last entry it
    /// returned; if not, it is damage.
    fn look_again(&mut self, damage: Error) -> Result<()> {
        let view = self.reader.view_up_to(self.range.to_ns)?;
        if view.manifest.generation == self.view.manifest.generation {
            return Err(damage);
        }
        // What the scan promised at its start stays the most it returns; the log may have grown since.
        let last_lsn = self.view.last_lsn;
        self.view = view;
        self.view.last_lsn = self.view.last_lsn.min(last_lsn);
        self.window.clear();
        match (self.last, self.range.reverse) {
            (Some(last), false) => self.range.from_lsn = self.range.from_lsn.max(last.next()),
            (Some(last), true) => self.range.to_lsn = self.range.to_lsn.min(last.prev()),
            (None, _) => {}
        }
        self.plan();
        Ok(())
    }

    /// Whether the range goes below the floor, and the scan got there.
    fn expired_notice(&self) -> Option<Notice> {
        let (floor_lsn, until_ns) = (self.view.manifest.floor_lsn, self.view.manifest.expired.until_ns);
        let is_asked_for = self.range.from_lsn < floor_lsn && floor_lsn > Lsn(1);
        // A floor of unknown time may be of any.
        let is_in_time = until_ns == 0 || self.range.from_ns <= until_ns;
        let is_to_come = self.next < self.end || self.table.is_some() || !self.parts.is_empty();
        (is_asked_for && is_in_time && !(self.range.reverse && is_to_come))
            .then_some(Notice::Expired { floor_lsn, until_ns })
    }

    /// What the caller should tell its user about the range.
    pub fn notices(&self) -> Vec<Notice> {
        let ScanRange { from_lsn, to_lsn, from_ns, to_ns, .. } = self.range;
        let stepped = self.view.clock_steps.iter().filter(|step| {
            let (low, high) = (step.from_ns.min(step.to_ns), step.from_ns.max(step.to_ns));
            (from_lsn..=to_lsn).contains(&step.lsn) && low <= to_ns && high >= from_ns
        });
        let gaps = self.view.gaps.iter().filter(|gap| gap.first <= to_lsn && gap.last >= from_lsn);
        let expired = self.expired_notice();
        let unconfirmed = self.view.unconfirmed.filter(|&first| first <= to_lsn).map(Notice::Unconfirmed);
        expired
            .into_iter()
            .chain(gaps.copied().map(Notice::Gap))
            .chain(stepped.copied().map(Notice::ClockStepped))
            .chain(unconfirmed)
            .collect()
    }
}
