//! How deep a campaign goes, and what it has done and found.

use std::fmt;

use super::rule::{Rule, Violation};
use crate::planted::chosen;

/// How much of a workload's cases are run.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Crash points of each workload; more are sampled.
    pub points: u64,
    /// Cuts at each crash point; more are sampled.
    pub cuts: usize,
    /// Cases of each other kind (kills, failing operations, full disks, rot) of each workload; more are sampled.
    pub others: u64,
}

/// A broken promise. `Display` says what, by which rule, and how to see it again.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The workload.
    pub seed: u64,
    /// Its end; empty for the undisturbed workload.
    pub case: String,
    /// The rule that is broken.
    pub(super) rule: Rule,
    /// How.
    pub what: String,
}

impl Broken {
    /// The name of the rule.
    pub fn rule_name(&self) -> String {
        self.rule.to_string()
    }

    pub(super) fn new(seed: u64, case: &str, violation: Violation) -> Broken {
        let Violation { rule, what } = violation;
        Broken { seed, case: case.to_owned(), rule, what }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { seed, case, rule, what } = self;
        writeln!(f, "seed {seed}, {case}: {what} (rule: {rule})")?;
        write!(f, "    cargo run --release --features sim --example simulate -- --seeds {seed}..{}", seed + 1)?;
        if let Some(bug) = chosen() {
            write!(f, " --plant {}", bug.name())?;
        }
        match case.as_str() {
            "" => f.write_str(" --points 0 --others 0"),
            case => write!(f, " --case '{case}'"),
        }
    }
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
    /// Crash states: what power cuts and kills left to recover from, later lives included.
    pub states: u64,
    /// Power cuts among them.
    pub cuts: u64,
    /// Openings whose recovery was checked, or that ended within recovery.
    pub openings: u64,
    /// Broken promises.
    pub violations: Vec<Broken>,
    /// What happened on the disk, of [`super::campaign::run_case`] only.
    pub trace: String,
}

impl Report {
    /// Adds what another part found.
    pub fn add(&mut self, other: Report) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        self.cases += other.cases;
        self.states += other.states;
        self.cuts += other.cuts;
        self.openings += other.openings;
        self.violations.extend(other.violations);
    }

    /// All violations, one after the other.
    pub fn violations_text(&self) -> String {
        self.violations.iter().flat_map(|broken| [broken.to_string(), "\n".to_owned()]).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seeds, operations, cases, states, cuts, openings, violations, .. } = self;
        let found = violations.len();
        write!(f, "{seeds} seeds, {operations} operations, {cases} cases, {states} crash states ({cuts} cuts), ")?;
        write!(f, "{openings} openings, {found} violations")
    }
}
