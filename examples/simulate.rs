//! The crash campaign: `cargo run --release --features sim --example simulate -- --seeds 0..1000`.
//!
//! `--points N` and `--cuts N` bound the crash points of each workload and the cuts at each (default: all of them),
//! `--others N` is the number of kills, faults and full disks of each (default 20), `--case '…'` runs one case of the
//! first seed again and prints what happened on the disk. Ends with status 1 if the promise was broken.

use std::process::ExitCode;

use kifa::{Depth, Report, run_case, run_seed};

fn main() -> ExitCode {
    let mut depth = Depth { points: u64::MAX, cuts: usize::MAX, others: 20 };
    let (mut seeds, mut case) = (0..100, None);
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
            _ => usage(&name),
        }
    }
    if let Some(case) = case {
        let report = run_case(seeds.start, &case);
        println!("{}", report.trace);
        report.violations.iter().for_each(|violation| println!("{violation}"));
        return end(&report);
    }
    let mut report = Report::default();
    for seed in seeds {
        let found = run_seed(seed, &depth);
        found.violations.iter().for_each(|violation| println!("{violation}"));
        report.add(found);
        if report.seeds.is_multiple_of(100) {
            println!("{report}");
        }
    }
    println!("{report}");
    end(&report)
}

fn end(report: &Report) -> ExitCode {
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage(name: &str) -> ! {
    eprintln!("{name}: not an option, or not its value; see the top of examples/simulate.rs");
    std::process::exit(64)
}
