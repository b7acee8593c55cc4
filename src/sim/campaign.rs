//! The campaign against the promise: runs a workload, ends it at every operation in every way the model knows, recovers,
//! goes on, ends it again, and asks the oracle each time it is opened.
//!
//! A [`Case`] is one end of one workload with everything that follows; its seed and its text name it completely, so that
//! `cargo run --example simulate` can run exactly that again. The same case gives the same trace, byte for byte.
//!
//! | end | what happens at mutating operation `n` | then |
//! |---|---|---|
//! | `cut n …` | the power fails | a boot on what the choice lets survive |
//! | `kill n s` | the process is killed | a start on the same machine, cut later |
//! | `fault … n …` | it fails: error, short write, full disk; the log latches or goes on | a kill and a later cut, or a cut at once |
//! | `full n …` | the disk is full before action `n`, for five seconds | the log goes on, or a start on the full disk |
//!
//! After each come one to three lives, some cut while they recover, each ended by a cut or a kill, and two openings.
//!
//! Proof: `tests::campaign`; the faults planted in the engine to see it fail are listed there.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::cut::CutChoice;
use super::disk::SimDisk;
use super::driver::{Driver, Stop};
use super::fault::{Fault, FaultKind, OpClass};
use super::image::Grain;
use super::names::NameCut;
use super::oracle::{End, Oracle, Violation};
use super::rng::Rng;
use super::workload::{Action, Plan};
use crate::error::Error;
use crate::io::Env;

/// How much of a workload's cases are run.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Crash points of each workload; more are sampled.
    pub points: u64,
    /// Cuts at each crash point; more are sampled.
    pub cuts: usize,
    /// Kills, and faults, of each workload.
    pub others: u64,
}

/// What a campaign did and found.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Workloads.
    pub seeds: u64,
    /// Mutating operations of the workloads: the crash points there are.
    pub operations: u64,
    /// Ends of workloads that were followed up.
    pub cases: u64,
    /// Power cuts and kills, later lives included.
    pub ends: u64,
    /// Openings whose recovery was checked, or that ended within recovery.
    pub openings: u64,
    /// Broken promises, each with the command that shows it again.
    pub violations: Vec<String>,
}

impl Report {
    /// Adds what another part found.
    pub fn add(&mut self, other: Report) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        self.cases += other.cases;
        self.ends += other.ends;
        self.openings += other.openings;
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seeds, operations, cases, ends, openings, violations } = self;
        let found = violations.len();
        write!(
            f,
            "{seeds} seeds, {operations} operations, {cases} cases, {ends} cuts and kills, {openings} openings, "
        )?;
        write!(f, "{found} violations")
    }
}

/// How the first life of a workload ends. `Display` names it completely.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Case {
    Cut { at: u64, choice: CutChoice },
    Kill { at: u64, seed: u64 },
    Fault { kind: FaultKind, class: OpClass, at: u64 },
    Full { before: u64, blocks_left: u64 },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Cut { at, choice } => write!(f, "cut {at} {choice}"),
            Case::Kill { at, seed } => write!(f, "kill {at} {seed}"),
            Case::Fault { kind, class, at } => write!(f, "fault {kind:?} {class:?} {at}"),
            Case::Full { before, blocks_left } => write!(f, "full {before} {blocks_left}"),
        }
    }
}

impl Case {
    /// Reads what `Display` wrote.
    fn parse(text: &str) -> Option<Case> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().ok();
        Some(match words[..] {
            ["cut", at, "drop-all"] => Case::Cut { at: number(at)?, choice: CutChoice::DropAll },
            ["cut", at, "keep-all"] => Case::Cut { at: number(at)?, choice: CutChoice::KeepAll },
            ["cut", at, how, grain, names, which] => {
                let grain = [Grain::Sector, Grain::Block].into_iter().find(|one| format!("{one:?}") == grain)?;
                let names = [NameCut::Ordered, NameCut::Any].into_iter().find(|one| format!("{one:?}") == names)?;
                let which = number(which)?;
                let choice = match how {
                    "variant" => CutChoice::Variant { grain, names, index: which },
                    "sampled" => CutChoice::Sampled { grain, names, seed: which },
                    _ => return None,
                };
                Case::Cut { at: number(at)?, choice }
            }
            ["kill", at, seed] => Case::Kill { at: number(at)?, seed: number(seed)? },
            ["fault", kind, class, at] => {
                let known = FAULTS.into_iter();
                let (kind, class) = known
                    .into_iter()
                    .find(|(one, other)| format!("{one:?}") == kind && format!("{other:?}") == class)?;
                Case::Fault { kind, class, at: number(at)? }
            }
            ["full", before, blocks] => Case::Full { before: number(before)?, blocks_left: number(blocks)? },
            _ => return None,
        })
    }
}

/// What is planted at the n-th operation of a class.
const FAULTS: [(FaultKind, OpClass); 6] = [
    (FaultKind::Eio, OpClass::Mutating),
    (FaultKind::Eio, OpClass::Sync),
    (FaultKind::Eio, OpClass::Write),
    (FaultKind::ShortWrite, OpClass::Write),
    (FaultKind::NoSpace, OpClass::Mutating),
    (FaultKind::Eio, OpClass::SyncDir),
];

/// One workload under attack.
struct Attack {
    seed: u64,
    plan: Plan,
    report: Report,
}

/// Runs one workload, and the cases of it that `depth` asks for.
pub fn run_seed(seed: u64, depth: &Depth) -> Report {
    let mut attack = Attack::new(seed);
    attack.report.seeds = 1;
    let whole = attack.guarded("", |attack| attack.whole());
    if let Some(whole) = whole {
        attack.cuts(depth, whole.ops_total());
        attack.others(depth, &whole);
    }
    attack.report
}

/// Runs one case again: its text is what a violation prints.
///
/// # Panics
/// If the text names no case.
pub fn run_case(seed: u64, text: &str) -> Report {
    let mut attack = Attack::new(seed);
    let case = Case::parse(text).expect("the text is one that a violation printed");
    attack.case(case, None);
    attack.report
}

impl Attack {
    fn new(seed: u64) -> Attack {
        let plan = Plan::first(&mut Rng::new(seed));
        Attack { seed, plan, report: Report::default() }
    }

    /// Turns a violation or a panic into a line of the report.
    fn guarded<T>(&mut self, case: &str, run: impl FnOnce(&mut Attack) -> Result<T, Violation>) -> Option<T> {
        let what = match catch_unwind(AssertUnwindSafe(|| run(self))) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(Violation(what))) => what,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied());
                format!("panic: {}", text.unwrap_or("(no text)"))
            }
        };
        let seed = self.seed;
        let command = format!(
            "cargo run --release --features sim --example simulate -- --seeds {seed}..{}{}",
            seed + 1,
            if case.is_empty() { " --points 0 --others 0".to_owned() } else { format!(" --case '{case}'") }
        );
        self.report.violations.push(format!("seed {seed}, {case}: {what}\n    {command}"));
        None
    }

    /// The workload without any fault, twice: the same trace, everything confirmed, and closed.
    fn whole(&mut self) -> Result<SimDisk, Violation> {
        let first = self.undisturbed()?;
        let second = self.undisturbed()?;
        if first.trace_hash() != second.trace_hash() {
            return Err(Violation("the same seed gives another trace".to_owned()));
        }
        self.report.operations += first.ops_total();
        Ok(first)
    }

    fn undisturbed(&mut self) -> Result<SimDisk, Violation> {
        let disk = SimDisk::new(self.seed);
        let mut oracle = Oracle::new();
        let mut plan = self.plan.clone();
        plan.actions.extend([Action::Await, Action::Look, Action::CloseAndOpen]);
        self.report.openings += 1;
        match Driver::live(&disk, &plan, &mut oracle) {
            Ok(()) => Ok(disk),
            Err(stop) => Err(unexpected(stop)),
        }
    }

    fn rng(&self, text: &str) -> Rng {
        Rng::new(self.seed).fork(u64::from(crc32fast::hash(text.as_bytes())))
    }

    fn cuts(&mut self, depth: &Depth, ops_total: u64) {
        let mut rng = self.rng("points");
        let points: Vec<u64> = if ops_total <= depth.points {
            (1..=ops_total).collect()
        } else {
            (0..depth.points).map(|_| 1 + rng.below(ops_total)).collect()
        };
        for at in points {
            let stopped = self.guarded(&format!("cut {at} drop-all"), |attack| attack.stop_at(at));
            let Some((disk, oracle)) = stopped else { continue };
            for choice in choices(&disk, depth.cuts, &mut rng) {
                self.case(Case::Cut { at, choice }, Some((disk.clone(), oracle.clone())));
            }
        }
    }

    fn others(&mut self, depth: &Depth, whole: &SimDisk) {
        let mut rng = self.rng("others");
        for _ in 0..depth.others {
            let at = 1 + rng.below(whole.ops_total());
            self.case(Case::Kill { at, seed: rng.below(1000) }, None);
            let (kind, class) = FAULTS[rng.below(FAULTS.len() as u64) as usize];
            let at = 1 + rng.below(whole.ops(class).max(1));
            self.case(Case::Fault { kind, class, at }, None);
            let before = rng.below(self.plan.actions.len() as u64);
            self.case(Case::Full { before, blocks_left: rng.below(3) }, None);
        }
    }

    fn case(&mut self, case: Case, stopped: Option<(SimDisk, Oracle)>) {
        self.report.cases += 1;
        self.guarded(&case.to_string(), |attack| attack.follow(case, stopped));
    }

    /// The first life, up to a power failure at operation `at`.
    fn stop_at(&mut self, at: u64) -> Result<(SimDisk, Oracle), Violation> {
        let disk = SimDisk::new(self.seed);
        disk.power_off_at(at);
        self.first_life(&disk, &self.plan.clone(), |_| false)
    }

    /// Lives the first life on a machine; `excuses` are the failures that what was planted explains.
    fn first_life(
        &mut self,
        disk: &SimDisk,
        plan: &Plan,
        excuses: impl FnOnce(&Error) -> bool,
    ) -> Result<(SimDisk, Oracle), Violation> {
        let mut oracle = Oracle::new();
        self.report.openings += 1;
        match Driver::live(disk, plan, &mut oracle) {
            Ok(()) | Err(Stop::PowerOff) => {}
            Err(Stop::Failed(cause)) if excuses(&cause) => {}
            Err(stop) => return Err(unexpected(stop)),
        }
        Ok((disk.clone(), oracle))
    }

    fn follow(&mut self, case: Case, stopped: Option<(SimDisk, Oracle)>) -> Result<(), Violation> {
        let mut rng = self.rng(&case.to_string());
        let (disk, mut oracle) = match (case, stopped) {
            (_, Some(stopped)) => stopped,
            (Case::Cut { at, .. } | Case::Kill { at, .. }, None) => self.stop_at(at)?,
            (Case::Fault { kind, class, at }, None) => {
                let disk = SimDisk::new(self.seed);
                disk.fail(Fault::nth(class, at, kind));
                let plan = with_end(&self.plan, Action::Await);
                self.first_life(&disk, &plan, |cause| !matches!(cause, Error::Corrupt(_)))?
            }
            (Case::Full { before, blocks_left }, None) => {
                let mut plan = with_end(&self.plan, Action::Await);
                plan.actions.insert(before as usize, Action::FillDisk { blocks_left });
                self.first_life(&SimDisk::new(self.seed), &plan, is_full)?
            }
        };
        let next = match case {
            Case::Cut { choice, .. } => self.end(&disk, &mut oracle, Ending::Cut(choice)),
            Case::Kill { seed, .. } => self.end(&disk, &mut oracle, Ending::Kill(seed)),
            Case::Fault { .. } | Case::Full { .. } => self.any_end(&disk, &mut oracle, &mut rng),
        };
        self.aftermath(next, oracle, rng)
    }

    /// Later lives, each checked when it opens.
    fn aftermath(&mut self, mut disk: SimDisk, mut oracle: Oracle, mut rng: Rng) -> Result<(), Violation> {
        for _ in 0..1 + rng.below(3) {
            let plan = self.plan.later(&mut rng);
            match rng.below(6) {
                0 | 1 => disk.power_off_at(1 + rng.below(12)),
                2 | 3 => disk.power_off_at(1 + rng.below(60)),
                _ => {}
            }
            self.life(&disk, &plan, &mut oracle)?;
            disk = self.any_end(&disk, &mut oracle, &mut rng);
        }
        let idle = self.plan.idle();
        for _ in 0..2 {
            self.life(&disk, &idle, &mut oracle)?;
            disk = self.end(&disk, &mut oracle, Ending::Cut(CutChoice::DropAll));
        }
        if rng.chance(1, 8) { self.open_often(disk, oracle, &mut rng) } else { Ok(()) }
    }

    /// A life without planted faults, but on a disk that may be full.
    fn life(&mut self, disk: &SimDisk, plan: &Plan, oracle: &mut Oracle) -> Result<(), Violation> {
        self.report.openings += 1;
        match Driver::live(disk, plan, oracle) {
            Ok(()) | Err(Stop::PowerOff) => Ok(()),
            Err(stop) => Err(unexpected(stop)),
        }
    }

    /// Opening costs no space, however a log that got no entry ends.
    fn open_often(&mut self, mut disk: SimDisk, mut oracle: Oracle, rng: &mut Rng) -> Result<(), Violation> {
        let mut plan = self.plan.idle();
        let mut sizes = Vec::new();
        for _ in 0..8 {
            plan.actions = match rng.below(3) {
                0 => vec![Action::Turn(30), Action::Close],
                1 => vec![Action::Idle(Duration::from_secs(2))],
                _ => Vec::new(),
            };
            self.life(&disk, &plan, &mut oracle)?;
            disk = self.any_end(&disk, &mut oracle, rng);
            sizes.push((disk.files().len(), disk.space_used_bytes()));
        }
        let grown = sizes[4..].iter().any(|&(files, bytes)| files > sizes[3].0 + 2 || bytes > sizes[3].1 * 3 / 2);
        if grown { Err(Violation(format!("opening again and again costs space: {sizes:?}"))) } else { Ok(()) }
    }

    fn end(&mut self, disk: &SimDisk, oracle: &mut Oracle, ending: Ending) -> SimDisk {
        self.report.ends += 1;
        let now_ns = disk.env().mono_ns();
        match ending {
            Ending::Cut(choice) => {
                oracle.ended(End::Cut, now_ns);
                disk.cut(choice)
            }
            Ending::Kill(seed) => {
                oracle.ended(End::Kill, now_ns);
                disk.kill(seed)
            }
        }
    }

    fn any_end(&mut self, disk: &SimDisk, oracle: &mut Oracle, rng: &mut Rng) -> SimDisk {
        let seed = rng.below(1 << 20);
        let grain = if rng.coin() { Grain::Sector } else { Grain::Block };
        let names = if rng.chance(3, 4) { NameCut::Ordered } else { NameCut::Any };
        let ending = match rng.below(8) {
            0 => Ending::Cut(CutChoice::DropAll),
            1 => Ending::Cut(CutChoice::KeepAll),
            2 | 3 => Ending::Kill(seed),
            _ => Ending::Cut(CutChoice::Sampled { grain, names, seed }),
        };
        self.end(disk, oracle, ending)
    }
}

#[derive(Clone, Copy)]
enum Ending {
    Cut(CutChoice),
    Kill(u64),
}

fn with_end(plan: &Plan, action: Action) -> Plan {
    let mut plan = plan.clone();
    plan.actions.push(action);
    plan
}

fn is_full(cause: &Error) -> bool {
    matches!(cause, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
}

fn unexpected(stop: Stop) -> Violation {
    match stop {
        Stop::Broken(violation) => violation,
        Stop::Failed(cause) => Violation(format!("without a fault the log fails: {cause}")),
        Stop::PowerOff => Violation("the power failed by itself".to_owned()),
    }
}

/// The cuts to try at a crash point: every combination where they are few, else a sample of all kinds.
fn choices(disk: &SimDisk, max: usize, rng: &mut Rng) -> Vec<CutChoice> {
    let kinds = [
        (Grain::Sector, NameCut::Ordered),
        (Grain::Block, NameCut::Ordered),
        (Grain::Sector, NameCut::Any),
        (Grain::Block, NameCut::Any),
    ];
    let mut all = vec![CutChoice::DropAll, CutChoice::KeepAll];
    for (grain, names) in kinds {
        let few = disk.cut_count(grain, names).is_some_and(|count| count <= 32);
        if few {
            all.extend(disk.cut_variants(grain, names, 0));
        } else {
            all.extend((0..4).map(|_| CutChoice::Sampled { grain, names, seed: rng.below(1 << 20) }));
        }
    }
    while all.len() > max {
        all.swap_remove(rng.below(all.len() as u64) as usize);
    }
    all
}
