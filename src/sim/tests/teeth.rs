//! Each bug of [`crate::planted`] must be caught by a bounded campaign, and by a rule of the promise: an assertion of the
//! log's own would not be there to help against a bug that nobody thought of.

use super::super::campaign::run_seed;
use super::super::report::{Broken, Depth, Report};
use super::super::rule::Rule;
use crate::planted::{Bug, plant};

/// Workloads within which every bug must be caught; the worst of today takes 500, for the salt is one of several guards.
const SEEDS_MAX: u64 = 1000;

/// Runs workloads until one breaks the promise; also says how many it took.
fn catch(bug: Bug) -> Option<(Broken, Report)> {
    struct Clean;
    impl Drop for Clean {
        fn drop(&mut self) {
            plant(None);
        }
    }
    let _clean = Clean;
    plant(Some(bug));
    let depth = Depth { points: 2, cuts: 1, others: 1 };
    let mut report = Report::default();
    for seed in 0..SEEDS_MAX {
        report.add(run_seed(seed, &depth));
        let by_promise = |broken: &&Broken| ![Rule::Assertion, Rule::Trace].contains(&broken.rule);
        if let Some(broken) = report.violations.iter().find(by_promise) {
            return Some((broken.clone(), report));
        }
    }
    None
}

fn must_be_caught(bug: Bug) {
    let (broken, report) =
        catch(bug).unwrap_or_else(|| panic!("{} is not caught by {SEEDS_MAX} workloads", bug.name()));
    println!(
        "{}: rule \"{}\", {} workloads, {} crash states",
        bug.name(),
        broken.rule_name(),
        report.seeds,
        report.states
    );
    println!("    {}", broken.what);
}

#[test]
fn every_planted_bug_is_caught_by_a_rule_of_the_promise() {
    Bug::ALL.into_iter().for_each(must_be_caught);
}

#[test]
fn without_a_bug_nothing_is_planted() {
    for bug in Bug::ALL {
        assert!(!crate::planted::planted(bug), "{}", bug.name());
    }
}
