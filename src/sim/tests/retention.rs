//! The campaign on workloads with retention, and what its oracle says of a log that deletes too much.

use std::ops::Range;

use super::super::driver::Driver;
use super::super::oracle::Oracle;
use super::super::report::Depth;
use super::super::retention::{Asked, is_in, plan};
use super::super::workload::{Action, Plan};
use super::super::{Rng, SimDisk};
use super::run_seeds;
use crate::format::Lsn;
use crate::query::Reader;
use crate::retention::Deleted;

fn run(seeds: Range<u64>, depth: &Depth) {
    run_seeds(seeds.filter(|&seed| is_in(seed)), depth);
}

#[test]
fn the_promise_holds_beside_retention() {
    run(0..1200, &Depth { points: 8, cuts: 2, others: 3 });
}

#[test]
fn the_promise_holds_beside_retention_at_every_operation_of_a_few_workloads() {
    run(2000..2064, &Depth { points: u64::MAX, cuts: 2, others: 4 });
}

/// Workloads in which nothing expires would prove nothing.
#[test]
fn in_many_of_the_workloads_something_expires() {
    let mut expired = 0;
    for seed in (0..640).filter(|&seed| is_in(seed)) {
        let mut first = Plan::first(&mut Rng::new(seed));
        plan(&mut Rng::new(seed).fork(73), &mut first);
        first.actions.push(Action::Await);
        let disk = SimDisk::new(seed);
        Driver::live(&disk, &first, &mut Oracle::new()).unwrap_or_else(|stop| panic!("seed {seed}: {stop:?}"));
        let disk = disk.cut(super::super::CutChoice::KeepAll);
        let stats = Reader::of(disk.vfs(), false).stats().expect("the store is sound");
        expired += u64::from(stats.expired.tables > 0);
    }
    assert!(expired >= 10, "in {expired} of 40");
}

fn asked() -> Asked {
    let mut asked = Asked::default();
    (1..=10).for_each(|lsn| asked.submitted(lsn, 100 * lsn));
    asked
}

fn deleted(entries: u64, floor: u64) -> Deleted {
    Deleted { tables: 1, entries, floor_lsn: Lsn(floor), ..Deleted::default() }
}

#[test]
fn the_oracle_knows_what_was_asked_for() {
    let mut some = asked();
    assert_eq!(some.ask(4), 700);
    assert!(some.may_expire(6) && !some.may_expire(7));
    assert!(some.answered(&deleted(7, 8), 7).is_err(), "one too many");
    assert!(some.answered(&deleted(4, 6), 5).is_err(), "one is not told of");
    let mut some = asked();
    some.ask(4);
    assert!(some.answered(&deleted(5, 6), 5).is_ok());
    assert!(some.check_first(6).is_ok() && some.check_first(5).is_err(), "it does not come back");
    assert!(some.answered(&deleted(0, 5), 4).is_err(), "nor does the floor fall");
    assert!(!asked().may_expire(1), "nothing was asked for");
}
