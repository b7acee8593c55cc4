//! The campaign on workloads that refuse appends on a full disk.

use std::ops::Range;

use super::super::driver::Driver;
use super::super::oracle::Oracle;
use super::super::refusal::{is_in, plan};
use super::super::report::Depth;
use super::super::workload::{Action, Plan};
use super::super::{Rng, SimDisk};
use super::run_seeds;

fn run(seeds: Range<u64>, depth: &Depth) {
    run_seeds(seeds.filter(|&seed| is_in(seed)), depth);
}

#[test]
fn the_promise_holds_beside_refusals() {
    run(0..800, &Depth { points: 8, cuts: 2, others: 3 });
}

#[test]
fn the_promise_holds_beside_refusals_at_every_operation_of_a_few_workloads() {
    run(2000..2032, &Depth { points: u64::MAX, cuts: 1, others: 4 });
}

/// Workloads in which nothing is refused would prove nothing; nor would those in which nothing is accepted again.
#[test]
fn in_most_of_the_workloads_something_is_refused_and_something_accepted_behind_it() {
    let (mut refused, mut resumed) = (0, 0);
    for seed in (0..640).filter(|&seed| is_in(seed)) {
        let mut first = Plan::first(&mut Rng::new(seed));
        plan(&mut Rng::new(seed).fork(74), &mut first);
        first.actions.push(Action::Await);
        let disk = SimDisk::new(seed);
        Driver::live(&disk, &first, &mut Oracle::new()).unwrap_or_else(|stop| panic!("seed {seed}: {stop:?}"));
        let text = disk.trace_text();
        let is_refusal = |line: &str| line.ends_with("= refused");
        refused += u64::from(text.lines().any(is_refusal));
        let behind = text.lines().skip_while(|line| !is_refusal(line)).skip_while(|line| !line.contains("= Idle"));
        resumed += u64::from(behind.clone().any(|line| line.contains("= Submit")) && !behind.clone().any(is_refusal));
    }
    assert!(refused >= 30 && resumed >= 10, "of 40 workloads {refused} refused, and {resumed} resumed");
}
