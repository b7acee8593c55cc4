//! The campaign against the promise: runs a workload, ends it at every operation in every way the model knows, recovers,
//! goes on, ends it again, and asks the oracle each time it is opened.
//!
//! A [`Case`] is one end of one workload with everything that follows; its seed and its text name it completely, so that
//! `cargo run --example simulate` can run exactly that again. The same case gives the same trace, byte for byte.
//!
//! The ends are those of [`super::case`]. After each come one to three lives, some cut while they recover, each ended by a
//! cut or a kill, and two openings.
//!
//! Proof: `tests::campaign`; the faults planted in the engine to see it fail are listed there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::case::{Case, FAULTS};
use super::driver::{Driver, Stop, look, try_open};
use super::oracle::Oracle;
use super::report::{Broken, Depth, Report};
use super::rule::{Rule, Violation, ensure};
use super::workload::{Action, Plan};
use super::{CutChoice, Fault, FaultKind, Grain, NameCut, OpClass, Rng, SimDisk, refusal, retention};
use crate::error::Error;
use crate::io::Env;
#[cfg(feature = "sim")]
use crate::planted::{Bug, plant};

/// Of the life after a cut, as many operations of a class are made to fail. The first dozen or two are those of whoever
/// looks before the log is opened.
const RECOVERY_OPS: u64 = 24;
/// Of an opening, as many operations of a class are made to fail: manifest, headers and groups of a log as small as these
/// are read within them.
const OPENING_OPS: u64 = 16;
/// Most wrong bits tried on one log at rest.
const ROT_MAX: u64 = 1000;
/// Where a segment's header says that it is a spare (1).
const SPARE_AT: usize = 137;

/// One workload under attack.
struct Attack {
    seed: u64,
    plan: Plan,
    report: Report,
    traced: bool,
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

/// Plants a bug in every log of this thread from now on; whether there is one of that name.
#[cfg(feature = "sim")]
pub fn plant_bug(name: &str) -> bool {
    let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
    plant(bug);
    bug.is_some()
}

/// The names of the bugs that can be planted.
#[cfg(feature = "sim")]
pub fn bug_names() -> Vec<&'static str> {
    Bug::ALL.map(Bug::name).to_vec()
}

/// Runs one case again: its text is what a violation prints.
///
/// # Panics
/// If the text names no case.
pub fn run_case(seed: u64, text: &str) -> Report {
    let mut attack = Attack { traced: true, ..Attack::new(seed) };
    let case = Case::parse(text).expect("the text is one that a violation printed");
    attack.case(case, None);
    attack.report
}

impl Attack {
    fn new(seed: u64) -> Attack {
        let mut plan = Plan::first(&mut Rng::new(seed));
        if retention::is_in(seed) {
            retention::plan(&mut Rng::new(seed).fork(73), &mut plan);
        }
        if refusal::is_in(seed) {
            refusal::plan(&mut Rng::new(seed).fork(74), &mut plan);
        }
        Attack { seed, plan, report: Report::default(), traced: false }
    }

    /// Turns a violation or a panic into a line of the report.
    fn guarded<T>(&mut self, case: &str, run: impl FnOnce(&mut Attack) -> Result<T, Violation>) -> Option<T> {
        let violation = match catch_unwind(AssertUnwindSafe(|| run(self))) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(violation)) => violation,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied());
                Violation::new(Rule::Assertion, format!("panic: {}", text.unwrap_or("(no text)")))
            }
        };
        self.report.violations.push(Broken::new(self.seed, case, violation));
        None
    }

    /// The workload without any fault, twice: the same trace, everything confirmed, and closed; and once more with a slow
    /// reader beside it all the time.
    fn whole(&mut self) -> Result<SimDisk, Violation> {
        let (first, second) = (self.undisturbed()?, self.undisturbed()?);
        let watched = self.plan.actions.iter().flat_map(|action| [action.clone(), Action::Watch]).collect();
        let watched = Plan { actions: watched, ..self.plan.clone() };
        self.life(&SimDisk::new(self.seed), &watched, &mut Oracle::new())?;
        if first.trace_hash() != second.trace_hash() {
            return Err(Violation::new(Rule::Trace, "the same seed gives another trace"));
        }
        self.report.operations += first.ops_total();
        Ok(first)
    }

    fn undisturbed(&mut self) -> Result<SimDisk, Violation> {
        let disk = SimDisk::new(self.seed);
        let mut plan = self.plan.clone();
        plan.actions.extend([Action::Await, Action::Look, Action::CloseAndOpen]);
        self.life(&disk, &plan, &mut Oracle::new())?;
        Ok(disk)
    }

    fn rng(&self, text: &str) -> Rng {
        Rng::new(self.seed).fork(u64::from(crc32fast::hash(text.as_bytes())))
    }

    fn cuts(&mut self, depth: &Depth, ops_total: u64) {
        let mut rng = self.rng("points");
        let points = which(ops_total, depth.points, &mut rng);
        for at in points {
            let stopped = self.guarded(&format!("cut {at} drop-all"), |attack| attack.stop_at(at));
            let Some((disk, oracle)) = stopped else { continue };
            for choice in choices(&disk, depth.cuts, &mut rng) {
                self.case(Case::Cut { at, choice }, Some((disk.clone(), oracle.clone())));
            }
        }
    }

    /// Cases of every other kind: of kills and faults each one there is, where they are few, else a sample.
    fn others(&mut self, depth: &Depth, whole: &SimDisk) {
        let mut rng = self.rng("others");
        let (ops_total, max) = (whole.ops_total(), depth.others);
        for at in which(ops_total, max, &mut rng) {
            self.case(Case::Kill { at, seed: rng.below(1000) }, None);
        }
        for (kind, class, at) in faults(max, |class| whole.ops(class), &mut rng) {
            self.case(Case::Fault { kind, class, at }, None);
        }
        // A life after a cut opens with a handful of reads; what comes later is the first life's.
        for (kind, class, nth) in faults(max, |_| RECOVERY_OPS, &mut rng) {
            self.case(Case::Recovering { at: 1 + rng.below(ops_total), kind, class, nth }, None);
        }
        for before in which(self.plan.actions.len() as u64, max, &mut rng) {
            self.case(Case::Full { before: before - 1, blocks_left: rng.below(3) }, None);
        }
        for _ in 0..max.min(ROT_MAX) {
            self.case(Case::Rot { seed: rng.below(1000) }, None);
        }
        for (kind, class, nth) in faults(max, |_| OPENING_OPS, &mut rng) {
            self.case(Case::Opening { at: 1 + rng.below(ops_total), kind, class, nth }, None);
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
        let mut oracle = Oracle::new();
        self.life(&disk, &self.plan.clone(), &mut oracle)?;
        Ok((disk, oracle))
    }

    /// The first life on a machine; `excuses` are the failures that what was planted explains.
    fn first_life(
        &mut self,
        disk: &SimDisk,
        plan: &Plan,
        excuses: impl FnOnce(&Error) -> bool,
    ) -> Result<(SimDisk, Oracle), Violation> {
        let mut oracle = Oracle::new();
        self.excused_life(disk, plan, None, &mut oracle, excuses)?;
        Ok((disk.clone(), oracle))
    }

    /// A life in which nothing fails but the power.
    fn life(&mut self, disk: &SimDisk, plan: &Plan, oracle: &mut Oracle) -> Result<(), Violation> {
        self.excused_life(disk, plan, None, oracle, |_| false)
    }

    /// A life in which `fault` meets the log while it opens.
    fn excused_life(
        &mut self,
        disk: &SimDisk,
        plan: &Plan,
        fault: Option<Fault>,
        oracle: &mut Oracle,
        excuses: impl FnOnce(&Error) -> bool,
    ) -> Result<(), Violation> {
        self.report.openings += 1;
        let outcome = Driver::live_behind(disk, plan, fault, oracle);
        if self.traced {
            self.report.trace += &disk.trace_text();
        }
        match outcome {
            Ok(()) | Err(Stop::PowerOff) => Ok(()),
            Err(Stop::Failed(cause)) if excuses(&cause) => Ok(()),
            Err(Stop::Failed(cause)) => {
                Err(Violation::new(Rule::Failure, format!("without a fault the log fails: {cause}")))
            }
            Err(Stop::Damaged(cause)) => Err(Violation::new(Rule::Damage, format!("nothing is damaged, but: {cause}"))),
            Err(Stop::Broken(violation)) => Err(violation),
        }
    }

    fn follow(&mut self, case: Case, stopped: Option<(SimDisk, Oracle)>) -> Result<(), Violation> {
        let mut rng = self.rng(&case.to_string());
        let (disk, mut oracle) = match (case, stopped) {
            (_, Some(stopped)) => stopped,
            (Case::Rot { .. }, None) => return self.rot(&mut rng),
            (
                Case::Cut { at, .. } | Case::Kill { at, .. } | Case::Recovering { at, .. } | Case::Opening { at, .. },
                None,
            ) => self.stop_at(at)?,
            (Case::Fault { kind, class, at }, None) => {
                let disk = SimDisk::new(self.seed);
                disk.fail(Fault::nth(class, at, kind));
                let plan = with_end(&self.plan, Action::Await);
                self.first_life(&disk, &plan, |_| kind != FaultKind::FlipBit)?
            }
            (Case::Full { before, blocks_left }, None) => {
                let mut plan = with_end(&self.plan, Action::Await);
                plan.actions.insert(before as usize, Action::FillDisk { blocks_left });
                // Only a group that extends its segment needs room at once; everything else waits for it.
                let may_fail = plan.has_large_batch();
                self.first_life(&SimDisk::new(self.seed), &plan, |cause| may_fail && is_full(cause))?
            }
        };
        if !matches!(case, Case::Full { .. }) {
            // Whether a log opens without room is asked where that is the case's subject.
            disk.set_space_bytes(None);
        }
        let next = match case {
            Case::Cut { choice, .. } => self.end(&disk, &mut oracle, Ending::Cut(choice)),
            Case::Kill { seed, .. } => {
                let next = self.end(&disk, &mut oracle, Ending::Kill(seed));
                let mut apart = self.rng(&case.to_string()).fork(1);
                if apart.coin() { self.kill_again(next, &mut oracle, &mut apart)? } else { next }
            }
            Case::Fault { .. } | Case::Rot { .. } => self.any_end(&disk, &mut oracle, &mut rng),
            Case::Recovering { kind, class, nth, .. } => {
                let next = self.any_end(&disk, &mut oracle, &mut rng);
                let fault = Fault::nth(class, nth, kind);
                // What cannot be read cannot be read again at once.
                let again = kind == FaultKind::Eio && class == OpClass::Read;
                next.fail(if again { fault.and_next() } else { fault });
                let plan = with_end(&self.plan.later(&mut rng), Action::Look);
                self.excused_life(&next, &plan, None, &mut oracle, |_| kind != FaultKind::FlipBit)?;
                self.any_end(&next, &mut oracle, &mut rng)
            }
            Case::Opening { kind, class, nth, .. } => {
                let next = self.any_end(&disk, &mut oracle, &mut rng);
                let fault = Fault::nth(class, nth, kind);
                // However often the log tries: the device is gone.
                let fault = if kind == FaultKind::Eio { fault.and_after() } else { fault };
                let plan = with_end(&self.plan.later(&mut rng), Action::Look);
                let excuses = |_: &Error| kind != FaultKind::FlipBit;
                self.excused_life(&next, &plan, Some(fault), &mut oracle, excuses)?;
                self.any_end(&next, &mut oracle, &mut rng)
            }
            Case::Full { .. } => {
                let next = self.any_end(&disk, &mut oracle, &mut rng);
                self.recover_on_full_disk(next, &mut oracle)?
            }
        };
        self.aftermath(next, oracle, rng)
    }

    /// A process that is killed while it recovers: what it wrote last is seen and volatile, like what it found.
    fn kill_again(&mut self, disk: SimDisk, oracle: &mut Oracle, rng: &mut Rng) -> Result<SimDisk, Violation> {
        disk.power_off_at(4 + rng.below(12));
        self.life(&disk, &self.plan.idle(), oracle)?;
        let next = self.end(&disk, oracle, Ending::Kill(rng.below(1000)));
        let mut plan = self.plan.idle();
        plan.actions = vec![Action::Submit { producer: 0, sizes: vec![10] }, Action::Await];
        self.life(&next, &plan, oracle)?;
        Ok(self.end(&next, oracle, Ending::Cut(CutChoice::DropAll)))
    }

    /// Recovery fits into the prepared segment that is kept for it.
    fn recover_on_full_disk(&mut self, disk: SimDisk, oracle: &mut Oracle) -> Result<SimDisk, Violation> {
        let is_spare = |path: &String| {
            path.ends_with(".wal") && disk.read_file(path).is_some_and(|bytes| bytes.get(SPARE_AT) == Some(&1))
        };
        let may_fail = !disk.files().iter().any(is_spare) || self.plan.has_large_batch();
        let mut idle = self.plan.idle();
        if refusal::is_in(self.seed) {
            // Whoever is not refused does not wait for room that may never come.
            idle.actions = vec![Action::Submit { producer: 0, sizes: vec![100] }, Action::Await];
        }
        self.excused_life(&disk, &idle, None, oracle, |cause| may_fail && is_full(cause))?;
        let next = self.end(&disk, oracle, Ending::Cut(CutChoice::DropAll));
        next.set_space_bytes(None);
        Ok(next)
    }

    /// One wrong bit in a log whose every entry is provably durable: whoever reads it is told, or finds everything. A log
    /// that refuses to open changes nothing.
    fn rot(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let mut plan = self.plan.clone();
        plan.actions.push(Action::Submit { producer: 0, sizes: vec![100] });
        plan.actions.push(Action::Await);
        plan.actions.push(if rng.coin() { Action::Close } else { Action::Idle(Duration::from_secs(3)) });
        let (disk, mut oracle) = self.first_life(&SimDisk::new(self.seed), &plan, |_| false)?;
        let disk = self.end(&disk, &mut oracle, Ending::Cut(CutChoice::DropAll));
        // Without the marker of a clean close normal mode may have lost something.
        oracle.set_may_gap(true);
        let files = disk.files();
        let used = |path: &String| {
            let bytes = disk.read_file(path).unwrap_or_default();
            (0..bytes.len()).filter(|&at| bytes[at] != 0).collect::<Vec<usize>>()
        };
        ensure!(Durable, !files.iter().all(|path| used(path).is_empty()), "all was durable, and no byte is left");
        let (path, at) = loop {
            let path = &files[rng.below(files.len() as u64) as usize];
            let used = used(path);
            if !used.is_empty() {
                break (path, used[rng.below(used.len() as u64) as usize]);
            }
        };
        disk.flip_bit(path, at as u64, rng.below(8) as u8);
        disk.note(&format!("{path} rots at {at}"));
        let wrong = |what: &str| Err(Violation::new(Rule::Damage, format!("{path} is damaged at {at}: {what}")));
        match look(&disk, false) {
            Ok(seen) => oracle.check_at_rest(seen.as_ref())?,
            Err(Error::Corrupt(_)) => {}
            Err(cause) => return wrong(&format!("a reader says: {cause}")),
        }
        self.report.openings += 1;
        let (copy, contents) =
            (disk.copy_tree(), |disk: &SimDisk| files.iter().map(|path| disk.read_file(path)).collect());
        let before: Vec<_> = contents(&disk);
        match try_open(&copy, &plan.options) {
            Err(Error::Corrupt(_)) if copy.files() == files && contents(&copy) == before => return Ok(()),
            Err(Error::Corrupt(_)) => return wrong("the log refuses to open and changes files"),
            Err(cause) => return wrong(&format!("the log does not open: {cause}")),
            Ok(()) => {}
        }
        match Driver::live(&disk, &self.plan.idle(), &mut oracle) {
            Ok(()) | Err(Stop::Damaged(_)) => Ok(()),
            Err(stop) => wrong(&format!("{stop:?}")),
        }
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

    /// Opening costs no space, however a log that got no entry ends.
    fn open_often(&mut self, mut disk: SimDisk, mut oracle: Oracle, rng: &mut Rng) -> Result<(), Violation> {
        let mut plan = self.plan.idle();
        let mut sizes = Vec::new();
        for _ in 0..16 {
            plan.actions = match rng.below(3) {
                0 => vec![Action::Turn(30), Action::Close],
                1 => vec![Action::Idle(Duration::from_secs(2))],
                _ => Vec::new(),
            };
            self.life(&disk, &plan, &mut oracle)?;
            disk = self.any_end(&disk, &mut oracle, rng);
            sizes.push(disk.files().len());
        }
        // What was under way when it was opened first may be finished: a table, a spare or two.
        let most = |sizes: &[usize]| sizes.iter().max().copied().unwrap_or(0);
        let grown = most(&sizes[8..]) > most(&sizes[..8]) + 4;
        ensure!(Space, !grown, "opening again and again leaves files: {sizes:?}");
        Ok(())
    }

    fn end(&mut self, disk: &SimDisk, oracle: &mut Oracle, ending: Ending) -> SimDisk {
        self.report.states += 1;
        let now_ns = disk.env().mono_ns();
        match ending {
            Ending::Cut(choice) => {
                self.report.cuts += 1;
                oracle.ended(now_ns);
                disk.cut(choice)
            }
            Ending::Kill(seed) => {
                oracle.ended(now_ns);
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
            // No program can make a name durable in a directory that is stuck: the machine must boot first.
            2 | 3 if !disk.is_stuck() => Ending::Kill(seed),
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

/// The numbers from 1 to `total`, if there are at most `max`; else `max` of them, drawn.
fn which(total: u64, max: u64, rng: &mut Rng) -> Vec<u64> {
    if total <= max { (1..=total).collect() } else { (0..max).map(|_| 1 + rng.below(total)).collect() }
}

/// Which operation fails how: each there is, if there are at most `max`; else `max` of them, every kind as often.
fn faults(max: u64, ops: impl Fn(OpClass) -> u64, rng: &mut Rng) -> Vec<(FaultKind, OpClass, u64)> {
    if FAULTS.iter().map(|&(_, class)| ops(class)).sum::<u64>() <= max {
        return FAULTS.iter().flat_map(|&(kind, class)| (1..=ops(class)).map(move |at| (kind, class, at))).collect();
    }
    let draw = |_| {
        let (kind, class) = FAULTS[rng.below(FAULTS.len() as u64) as usize];
        (kind, class, 1 + rng.below(ops(class).max(1)))
    };
    (0..max).map(draw).collect()
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
