//! The crash campaign: `cargo run --release --features sim --example simulate -- --seeds 0..1000`.
//!
//! `--points N` and `--cuts N` bound the crash points of each workload and the cuts at each (default: all of them),
//! `--others N` the cases of every other kind: kills, failing operations, full disks, wrong bits (default 20). `--case '…'`
//! runs one case of the first seed again and prints what happened on the disk. Ends with status 1 if the promise was
//! broken.
//!
//! `--plant NAME` gives the log a bug and runs until it is caught: status 0 then, 1 if the seeds run out first.

use std::ops::Range;
use std::process::ExitCode;

use kifa::{Depth, Report, bug_names, plant_bug, run_case, run_seed};

fn main() -> ExitCode {
    let mut depth = Depth { points: u64::MAX, cuts: usize::MAX, others: 20 };
    let (mut seeds, mut case, mut bug) = (0..100, None, None);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_default();
        let number = || value.parse::<u64>().unwrap_or_else(|_| usage(&name));
        match name.as_str() {
            "--seeds" => {
                let ends = value.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
                seeds = ends.unwrap_or_else(|| usage(&name));
            }
            "--points" => depth.points = number(),
            "--cuts" => depth.cuts = number() as usize,
            "--others" => depth.others = number(),
            "--case" => case = Some(value),
            "--plant" if plant_bug(&value) => bug = Some(value),
            "--plant" => {
                eprintln!("--plant: there is no bug \"{value}\"; the bugs are {}", bug_names().join(", "));
                return ExitCode::from(64);
            }
            _ => usage(&name),
        }
    }
    match (case, bug) {
        (Some(case), _) => again(seeds.start, &case),
        (None, Some(bug)) => catch(&bug, seeds, &depth),
        (None, None) => campaign(seeds, &depth),
    }
}

/// Runs one case and shows all of it.
fn again(seed: u64, case: &str) -> ExitCode {
    let report = run_case(seed, case);
    println!("{}", report.trace);
    report.violations.iter().for_each(|violation| println!("{violation}"));
    end(&report)
}

fn campaign(seeds: Range<u64>, depth: &Depth) -> ExitCode {
    let mut report = Report::default();
    for seed in seeds {
        let found = run_seed(seed, depth);
        found.violations.iter().for_each(|violation| println!("{violation}"));
        report.add(found);
        if report.seeds.is_multiple_of(100) {
            println!("{report}");
        }
    }
    println!("{report}");
    end(&report)
}

/// Runs until the bug is caught.
fn catch(bug: &str, seeds: Range<u64>, depth: &Depth) -> ExitCode {
    let mut report = Report::default();
    for seed in seeds {
        report.add(run_seed(seed, depth));
        if let Some(violation) = report.violations.first() {
            println!(
                "{bug} is caught by the rule \"{}\" after {} seeds\n{violation}",
                violation.rule_name(),
                report.seeds
            );
            return ExitCode::SUCCESS;
        }
    }
    println!("{bug} is not caught: {report}");
    ExitCode::FAILURE
}

fn end(report: &Report) -> ExitCode {
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage(name: &str) -> ! {
    eprintln!("{name}: not an option, or not its value; see the top of examples/simulate.rs");
    std::process::exit(64)
}
