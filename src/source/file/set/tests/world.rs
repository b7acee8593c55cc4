//! A directory with a writer, a log in memory, and the set between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::config::sources::{FileSource, FileStart};
use crate::error::Result;
use crate::format::facts::Checkpoints;
use crate::source::file::follow::CHUNK_BYTES;
use crate::source::file::outlet::Outlet;
use crate::source::file::path::{SETTLE, SETTLE_MOVED};
use crate::source::file::report::Report;
use crate::source::file::set::{Progress, Set};

/// What became durable together.
#[derive(Clone, Default, Debug)]
struct Group {
    lines: Vec<Vec<u8>>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A log in memory.
#[derive(Default)]
struct Memory {
    groups: Vec<Group>,
    batch: Group,
    names: Vec<String>,
    lines_max: usize,
    /// So many more batches are taken.
    room: usize,
}

impl Outlet for Memory {
    fn source(&mut self, name: &str) -> Result<usize, String> {
        let known = self.names.iter().position(|held| held == name);
        Ok(known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        }))
    }

    fn reserve(&mut self, _bytes: usize) -> bool {
        self.batch.lines.len() < self.lines_max
    }

    fn push(&mut self, _source: usize, line: &[u8]) -> bool {
        let has_room = self.batch.lines.len() < self.lines_max;
        if has_room {
            self.batch.lines.push(line.to_vec());
        }
        has_room
    }

    fn checkpoint(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.batch.records.retain(|(held, _)| held != key);
        self.batch.records.push((key.to_vec(), value.to_vec()));
        true
    }

    fn submit(&mut self) -> Result<bool> {
        if self.is_empty() {
            return Ok(true);
        }
        if self.room == 0 {
            return Ok(false);
        }
        self.room -= 1;
        self.groups.push(std::mem::take(&mut self.batch));
        Ok(true)
    }

    fn is_empty(&self) -> bool {
        self.batch.lines.is_empty() && self.batch.records.is_empty()
    }

    fn age(&self) -> u64 {
        self.groups.len() as u64
    }
}

impl Memory {
    fn checkpoints(&self) -> Checkpoints {
        let mut checkpoints = Checkpoints::new();
        for (key, value) in self.groups.iter().flat_map(|group| &group.records) {
            crate::format::facts::apply(&mut checkpoints, key.clone(), value.clone());
        }
        checkpoints
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.groups.iter().flat_map(|group| &group.lines);
        lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

/// How rotated files are called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Naming {
    /// `a.log.1` is the youngest.
    Shifted,
    /// `a.log-00000007` is younger than `a.log-00000006`.
    Dated,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(usize),
    /// A line without its end, which the next writing brings.
    Partial,
    Rotate,
    /// The next lines go to where they went before, until it reopens.
    RotateLate,
    Reopen,
    CopyTruncate,
    /// One scan, one piece.
    Look,
    /// As long as there is something to read.
    Read,
    Wait,
    /// The log takes so many batches and no more, for a while.
    Room(usize),
    /// Killed; what was handed over last is not in the log.
    Kill {
        groups_lost: usize,
    },
    // What loses lines, and must be reported.
    Truncate,
    Remove,
    /// A power cut of the writer's file system, and of the daemon.
    Shorten {
        bytes: usize,
    },
}

pub(super) struct World {
    dir: tempfile::TempDir,
    data_dir: tempfile::TempDir,
    sources: Vec<FileSource>,
    naming: Naming,
    pub(super) writer: Option<File>,
    written: usize,
    partial: Option<String>,
    pub(super) set: Set,
    memory: Memory,
    now: Duration,
    pub(super) reports: Vec<Report>,
    chunk: Vec<u8>,
    ticks: u64,
    /// Lines up to here were in their file when somebody looked.
    looked_at: usize,
    /// Nobody has the writer's file open.
    is_unknown: bool,
    /// The store knows nothing of the path.
    is_unheard_of: bool,
    /// Groups that cannot get lost any more.
    floor: usize,
    /// First line of the file at the path.
    first: usize,
    /// The writer's file has no name, and no daemon has it open.
    is_out_of_reach: bool,
    /// Lines that are in no file that has a name.
    removed: BTreeSet<usize>,
    /// Lines that came and went between two looks: nobody can know of them.
    pub(super) unseen: BTreeSet<usize>,
}

impl World {
    pub(super) fn new(naming: Naming, pattern: Option<&str>, lines_max: usize) -> World {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(pattern.unwrap_or("a.log"));
        let sources = vec![FileSource { path, is_pattern: pattern.is_some(), start: FileStart::Beginning, name: None }];
        let mut memory = Memory { lines_max, room: usize::MAX, ..Memory::default() };
        let set = Set::open(&sources, 100, data_dir.path(), &memory.checkpoints(), &mut memory).unwrap();
        let mut world = World {
            dir,
            data_dir,
            sources,
            naming,
            writer: None,
            written: 0,
            partial: None,
            set,
            memory,
            now: Duration::ZERO,
            reports: Vec::new(),
            chunk: vec![0; CHUNK_BYTES],
            ticks: 0,
            looked_at: 0,
            is_unknown: false,
            is_unheard_of: false,
            floor: 1,
            first: 1,
            is_out_of_reach: false,
            removed: BTreeSet::new(),
            unseen: BTreeSet::new(),
        };
        world.reopen();
        // From here on the path is known to the store.
        world.read();
        world
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn reopen(&mut self) {
        self.complete();
        if !self.path("a.log").exists() {
            self.first = self.written + 1;
            self.is_unknown = true;
            self.is_unheard_of = self.memory.checkpoints().is_empty();
            if self.is_unheard_of {
                self.unseen.extend(self.first..=self.written);
            }
        }
        self.is_out_of_reach = false;
        let is_new = !self.path("a.log").exists();
        self.writer = Some(File::options().append(true).create(true).open(self.path("a.log")).unwrap());
        if is_new {
            self.tick();
        }
    }

    /// Gives the writer's file a time behind all others.
    fn tick(&mut self) {
        self.ticks += 1;
        if self.naming == Naming::Dated {
            // Their order is that of time: real rotations are further apart than a tick of the file system's clock.
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000 + self.ticks);
            self.writer.as_ref().unwrap().set_modified(time).unwrap();
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut writer = self.writer.as_ref().unwrap();
        writer.write_all(bytes).unwrap();
        if self.is_out_of_reach || self.is_unheard_of {
            self.unseen.insert(self.written);
        }
        if self.links() == 0 {
            self.removed.insert(self.written);
        }
        self.tick();
    }

    fn links(&self) -> u64 {
        std::os::unix::fs::MetadataExt::nlink(&self.writer.as_ref().unwrap().metadata().unwrap())
    }

    fn complete(&mut self) {
        if let Some(rest) = self.partial.take() {
            self.write(rest.as_bytes());
        }
    }

    fn line(&mut self) -> String {
        self.written += 1;
        format!("{:06} {}\n", self.written, "x".repeat(self.written * 7919 % 200))
    }

    pub(super) fn append(&mut self, lines: usize) {
        self.complete();
        for _ in 0..lines {
            let line = self.line();
            self.write(line.as_bytes());
        }
    }

    /// Makes room for a rotated file and returns its name.
    fn rotated_name(&mut self) -> PathBuf {
        if self.naming == Naming::Dated {
            self.ticks += 1;
            return self.path(&format!("a.log-{:08}", self.ticks));
        }
        let name = |number: usize| self.path(&format!("a.log.{number}"));
        let last = (1..).find(|&number| !name(number).exists()).unwrap();
        for number in (1..last).rev() {
            fs::rename(name(number), name(number + 1)).unwrap();
        }
        name(1)
    }

    fn rotate(&mut self) {
        self.complete();
        if self.path("a.log").exists() {
            let to = self.rotated_name();
            fs::rename(self.path("a.log"), to).unwrap();
        }
    }

    fn open_set(&mut self) {
        let checkpoints = self.memory.checkpoints();
        self.now = Duration::ZERO;
        self.set = Set::open(&self.sources, 100, self.data_dir.path(), &checkpoints, &mut self.memory).unwrap();
    }

    fn kill(&mut self, groups_lost: usize) {
        self.collect();
        self.memory.batch = Group::default();
        // The first group made the path known, and what was there when the log was opened is durable.
        self.floor = self.memory.groups.len().saturating_sub(groups_lost).max(self.floor);
        self.memory.groups.truncate(self.floor);
        // Of a file of which nothing was read, nothing but its number is known.
        let is_known = self.memory.lines().iter().any(|line| line[..6].parse::<usize>().unwrap() >= self.first);
        self.looked_at = if is_known { self.written } else { 0 };
        self.is_out_of_reach = self.links() == 0;
        self.is_unknown = true;
        self.is_unheard_of = self.memory.checkpoints().is_empty();
        if self.is_unheard_of {
            self.unseen.extend(self.first..=self.written);
        }
        // What a killed daemon had seen, and no file has, the next one cannot know: of a file of which nothing was stored it
        // knows the number, and that is given to another.
        self.unseen.append(&mut self.removed);
        self.open_set();
    }

    fn collect(&mut self) {
        self.reports.extend(self.set.take_reports().into_iter().map(|(_, report)| report));
    }

    fn look(&mut self) {
        self.now += Duration::from_millis(1);
        if !self.set.persist(&mut self.memory).unwrap() || !self.set.submit(&mut self.memory).unwrap() {
            return;
        }
        self.set.scan(self.now, &mut self.memory);
        self.looked_at = self.written;
        (self.is_unknown, self.is_unheard_of) = (false, false);
        if self.set.persist(&mut self.memory).unwrap() {
            self.set.read(self.now, &mut self.chunk, &mut self.memory).unwrap();
        }
        self.collect();
    }

    fn read(&mut self) {
        // More than once: with too many rotated files at once, some wait for the next scan.
        for _ in 0..4 {
            self.look();
            for piece in 0.. {
                assert!(piece < 10_000, "it reads for ever");
                self.now += Duration::from_micros(1);
                if !self.set.persist(&mut self.memory).unwrap() {
                    break;
                }
                match self.set.read(self.now, &mut self.chunk, &mut self.memory).unwrap() {
                    Progress::Busy => {}
                    Progress::Idle => {
                        self.set.submit(&mut self.memory).unwrap();
                        break;
                    }
                    Progress::Blocked => break,
                }
            }
        }
        self.collect();
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(lines) => self.append(lines),
            Step::Partial => {
                self.complete();
                let line = self.line();
                let (front, rest) = line.split_at(line.len() / 2);
                self.write(front.as_bytes());
                self.partial = Some(rest.to_owned());
            }
            Step::Rotate => {
                self.rotate();
                self.reopen();
            }
            Step::RotateLate => self.rotate(),
            Step::Reopen => self.reopen(),
            Step::CopyTruncate => self.copy_truncate(),
            Step::Look => self.look(),
            Step::Read => self.read(),
            Step::Wait => {
                self.complete();
                self.read();
                self.now += SETTLE_MOVED + SETTLE;
                self.read();
                // By now a removed file was let go.
                self.is_out_of_reach |= self.links() == 0;
            }
            Step::Room(batches) => self.memory.room = batches,
            Step::Kill { groups_lost } => self.kill(groups_lost),
            Step::Truncate => {
                self.complete();
                self.unseen.extend(self.looked_at + 1..=self.written);
                self.removed.extend(self.first..=self.written);
                self.first = self.written + 1;
                self.writer.as_ref().unwrap().set_len(0).unwrap();
            }
            Step::Remove => {
                self.complete();
                self.unseen.extend(self.looked_at + 1..=self.written);
                if fs::remove_file(self.path("a.log")).is_ok() {
                    self.removed.extend(self.first..=self.written);
                    self.is_out_of_reach |= self.is_unknown;
                }
            }
            Step::Shorten { bytes } => {
                self.complete();
                // A line that was not read and lost its end is torn in the file, too: that is nobody's fault here.
                self.memory.room = usize::MAX;
                self.read();
                let last = format!("{:06} ", self.written);
                if !self.memory.lines().iter().any(|line| line.starts_with(&last)) {
                    return;
                }
                self.kill(0);
                let file = self.writer.as_ref().unwrap();
                let len = file.metadata().unwrap().len();
                // With fewer bytes nobody can tell.
                file.set_len(len.saturating_sub(bytes as u64).max(64).min(len)).unwrap();
                // A file that was cut and has grown again beyond the offset cannot be told from one that began anew.
                self.read();
                self.floor = self.memory.groups.len();
            }
        }
    }

    pub(super) fn copy_truncate(&mut self) {
        self.complete();
        // Only the file at the path is copied.
        self.reopen();
        let to = self.rotated_name();
        fs::copy(self.path("a.log"), &to).unwrap();
        if self.naming == Naming::Dated {
            let time = self.writer.as_ref().unwrap().metadata().unwrap().modified().unwrap();
            File::options().append(true).open(to).unwrap().set_modified(time).unwrap();
        }
        self.first = self.written + 1;
        self.writer.as_ref().unwrap().set_len(0).unwrap();
    }

    /// Reads everything there is; returns how often each line is in the log.
    pub(super) fn conclude(&mut self) -> BTreeMap<usize, usize> {
        self.complete();
        self.memory.room = usize::MAX;
        for _ in 0..4 {
            self.read();
        }
        self.now += SETTLE_MOVED + SETTLE;
        self.read();
        let mut seen: BTreeMap<usize, usize> = (1..=self.written).map(|number| (number, 0)).collect();
        for line in self.memory.lines() {
            let number: usize = line[..6].parse().unwrap();
            assert_eq!(line.len() + 1, 8 + number * 7919 % 200, "line {number} is whole");
            *seen.get_mut(&number).unwrap() += 1;
        }
        seen
    }

    pub(super) fn is_loss(report: &Report) -> bool {
        matches!(
            report,
            Report::Truncated { .. }
                | Report::Away { .. }
                | Report::TakenForCopy { .. }
                | Report::Shortened { .. }
                | Report::TakenBack { .. }
                | Report::Lost { .. }
                | Report::WrittenLate { .. }
                | Report::Compressed { .. }
                | Report::Refused { .. }
                | Report::Unfinished { .. }
                | Report::Failing { .. }
        )
    }
}
