//! One test per rule of the model. Each rule was taken out once to see its test fail.

mod campaign;
mod conformance;
mod cuts;
mod faults;
mod names;
mod queue;
mod refusal;
mod retention;
mod teeth;
mod writes;

use std::io;

use super::campaign::run_seed;
use super::report::{Depth, Report};
use super::{CutChoice, Grain, NameCut, SimDisk};
use crate::format::BLOCK_BYTES;
use crate::io::{AlignedBuf, Backend, Completion, Durability, FileId, Op, OpId};

/// Runs the campaign on workloads that must keep the promise, and that the depth has found cases in.
fn run_seeds(seeds: impl Iterator<Item = u64>, depth: &Depth) -> Report {
    let mut report = Report::default();
    seeds.for_each(|seed| report.add(run_seed(seed, depth)));
    println!("{report}");
    assert!(report.violations.is_empty(), "{}", report.violations_text());
    assert!(report.cases > report.seeds, "{report}");
    report
}

/// A backend driven by hand.
struct Hand {
    disk: SimDisk,
    backend: Box<dyn Backend + Send>,
    next: u64,
}

impl Hand {
    fn new(disk: &SimDisk) -> Hand {
        Hand { disk: disk.clone(), backend: disk.backend(), next: 1 }
    }

    fn submit(&mut self, op: Op) -> OpId {
        let id = OpId(self.next);
        self.next += 1;
        self.backend.submit(id, op);
        id
    }

    /// Polls until nothing is in flight.
    fn finish(&mut self) -> Vec<Completion> {
        let mut done = Vec::new();
        while self.disk.in_flight() > 0 && !self.disk.powered_off() {
            self.backend.poll(None, &mut done);
        }
        done
    }

    /// Submits one operation and waits for all.
    fn run(&mut self, op: Op) -> io::Result<u64> {
        let id = self.submit(op);
        let done = self.finish().into_iter().find(|done| done.id == id);
        done.expect("the machine has power").outcome
    }

    fn ok(&mut self, op: Op) -> u64 {
        self.run(op).expect("the operation succeeds")
    }

    fn create(&mut self, path: &str) -> FileId {
        FileId(self.ok(Op::Create { path: path.into() }))
    }

    /// A file with a durable name and durable blocks full of the given bytes.
    fn durable(&mut self, path: &str, fill: &[u8]) -> FileId {
        let file = self.create(path);
        self.ok(write(file, 0, fill, Durability::File));
        let (parent, _) = path.rsplit_once('/').unwrap_or(("", path));
        self.sync_dir(parent);
        file
    }

    fn sync_dir(&mut self, path: &str) {
        self.ok(Op::SyncDir { path: path.into() });
    }
}

/// A write of one block per byte of `fill`, starting at block `block`.
fn write(file: FileId, block: u64, fill: &[u8], durability: Durability) -> Op {
    let buf = AlignedBuf::from_bytes(&blocks(fill));
    let len = buf.len();
    Op::Write { file, offset: block * BLOCK_BYTES as u64, buf, len, durability }
}

/// One block per byte of `fill`.
fn blocks(fill: &[u8]) -> Vec<u8> {
    fill.iter().flat_map(|&byte| [byte; BLOCK_BYTES]).collect()
}

/// What a file holds after a cut that drops everything that is not durable.
fn dropped(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.cut(CutChoice::DropAll).read_file(path)
}

fn kept(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.cut(CutChoice::KeepAll).read_file(path)
}

/// The machines that every combination of surviving units leaves; there must be few.
fn every_cut(disk: &SimDisk, grain: Grain, names: NameCut) -> Vec<SimDisk> {
    let count = disk.cut_count(grain, names).expect("few units are volatile");
    let cuts: Vec<SimDisk> = disk.cut_variants(grain, names, 0).map(|choice| disk.cut(choice)).collect();
    assert_eq!(cuts.len() as u64, count);
    cuts
}
