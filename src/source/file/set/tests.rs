//! A writer that does everything writers and rotators do, a daemon that is killed and finds an older position, and the rule:
//! every line once, or a report that says why not.

mod world;

use std::fs;

use proptest::prelude::*;

use super::super::position::FILES_MAX;
use super::super::report::Report;
use world::{Naming, Step, World};

fn faithful_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..12).prop_map(Step::Append),
        2 => Just(Step::Partial),
        3 => Just(Step::Rotate),
        2 => Just(Step::RotateLate),
        2 => Just(Step::Reopen),
        3 => Just(Step::Look),
        3 => Just(Step::Read),
        1 => Just(Step::Wait),
        1 => (0usize..3).prop_map(Step::Room),
        1 => Just(Step::Room(usize::MAX)),
        3 => (0usize..6).prop_map(|groups_lost| Step::Kill { groups_lost }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => faithful_step(),
        2 => Just(Step::CopyTruncate),
        1 => Just(Step::Truncate),
        1 => Just(Step::Remove),
        1 => (1usize..600).prop_map(|bytes| Step::Shorten { bytes }),
    ]
}

fn naming() -> impl Strategy<Value = Naming> {
    prop_oneof![Just(Naming::Shifted), Just(Naming::Dated)]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(300) })]

    /// Nothing is taken away from under us: every line once, and nothing to complain of.
    #[test]
    fn rotation_kills_and_a_full_log_neither_lose_nor_double_a_line(
        naming in naming(), lines_max in 1usize..9, steps in proptest::collection::vec(faithful_step(), 0..40),
    ) {
        let mut world = World::new(naming, None, lines_max);
        for step in &steps {
            world.step(step);
        }
        for (line, times) in world.conclude() {
            prop_assert_eq!(times, 1, "line {}", line);
        }
        let complaints: Vec<_> = world.reports.iter().filter(|report| World::is_loss(report)).collect();
        prop_assert!(complaints.is_empty(), "{:?}", complaints);
    }

    /// The same, where rotated files are followed, too.
    #[test]
    fn a_pattern_that_matches_rotated_files_reads_each_line_once(
        naming in naming(), lines_max in 1usize..9, steps in proptest::collection::vec(faithful_step(), 0..40),
    ) {
        let mut world = World::new(naming, Some("a.log*"), lines_max);
        for step in &steps {
            world.step(step);
        }
        for (line, times) in world.conclude() {
            prop_assert_eq!(times, 1, "line {}", line);
        }
    }

    /// With copies that are complete, nothing is lost, either; that a file was truncated is told.
    #[test]
    fn copytruncate_loses_nothing_that_is_in_the_copy(
        naming in naming(),
        lines_max in 1usize..9,
        steps in proptest::collection::vec(prop_oneof![
            6 => (1usize..12).prop_map(Step::Append),
            1 => Just(Step::Partial),
            3 => Just(Step::CopyTruncate),
            3 => Just(Step::Look),
            3 => Just(Step::Read),
            1 => Just(Step::Wait),
            2 => (0usize..6).prop_map(|groups_lost| Step::Kill { groups_lost }),
        ], 0..40),
    ) {
        let mut world = World::new(naming, None, lines_max);
        for step in &steps {
            world.step(step);
        }
        for (line, times) in world.conclude() {
            prop_assert_eq!(times, 1, "line {}", line);
        }
    }

    /// Whatever happens: no line twice, and where one is missing, somebody was told.
    #[test]
    fn a_line_is_never_doubled_and_never_lost_in_silence(
        naming in naming(), lines_max in 1usize..9, steps in proptest::collection::vec(any_step(), 0..40),
    ) {
        let mut world = World::new(naming, None, lines_max);
        for step in &steps {
            world.step(step);
        }
        let seen = world.conclude();
        let doubled: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
        prop_assert!(doubled.is_empty(), "{:?}", doubled);
        let missing: Vec<_> =
            seen.iter().filter(|(line, times)| **times == 0 && !world.unseen.contains(line)).collect();
        let is_told = world.reports.iter().any(World::is_loss);
        prop_assert!(missing.is_empty() || is_told, "missing {:?}; told {:?}", missing, world.reports);
    }
}

/// Each line once, and how it went is told.
#[track_caller]
fn assert_each_once(world: &mut World) {
    let wrong: Vec<_> = world.conclude().into_iter().filter(|(_, times)| *times != 1).collect();
    assert!(wrong.is_empty(), "{wrong:?}; {:?}", world.reports);
}

#[test]
fn more_rotations_than_a_record_holds_and_a_truncation_while_nobody_looks() {
    let mut world = World::new(Naming::Shifted, None, 4);
    for _ in 0..FILES_MAX + 2 {
        world.append(3);
        world.step(&Step::Partial);
        world.step(&Step::Look);
        world.step(&Step::Rotate);
    }
    world.append(2);
    world.step(&Step::Read);
    world.step(&Step::Kill { groups_lost: 0 });
    world.append(2);
    world.copy_truncate();
    world.append(2);
    assert_each_once(&mut world);
}

/// The path that gains a file has as many as it can have, and the oldest of them is another path's to gain.
#[test]
fn files_go_from_path_to_path_in_a_ring_though_one_is_full() {
    let mut world = World::new(Naming::Shifted, Some("?.log"), 4);
    world.append(1);
    for _ in 1..FILES_MAX {
        world.step(&Step::Read);
        world.step(&Step::Rotate);
        world.append(1);
    }
    fs::write(world.path("b.log"), "").unwrap();
    world.step(&Step::Read);
    assert_eq!(world.set.followers[0].tails.len(), FILES_MAX);
    let oldest = world.path(&format!("a.log.{}", FILES_MAX - 1));
    fs::rename(oldest, world.path("c.log")).unwrap();
    fs::rename(world.path("a.log"), world.path("a.log.0")).unwrap();
    fs::rename(world.path("b.log"), world.path("a.log")).unwrap();
    assert_each_once(&mut world);
}

/// As above, and the path that is to gain the oldest has as many as it can have, too.
#[test]
fn files_go_from_path_to_path_though_both_are_full() {
    let mut world = World::new(Naming::Shifted, Some("?.log"), 4);
    world.append(1);
    fs::write(world.path("c.log"), "").unwrap();
    for number in 1..FILES_MAX {
        world.step(&Step::Read);
        world.step(&Step::Rotate);
        world.append(1);
        fs::rename(world.path("c.log"), world.path(&format!("c.log.{number}"))).unwrap();
        fs::write(world.path("c.log"), "").unwrap();
    }
    fs::write(world.path("b.log"), "").unwrap();
    world.step(&Step::Read);
    let full = world.set.followers.iter().filter(|follower| follower.tails.len() == FILES_MAX).count();
    assert_eq!(full, 2);
    let oldest = world.path(&format!("a.log.{}", FILES_MAX - 1));
    fs::rename(world.path("c.log"), world.path("c.log.0")).unwrap();
    fs::rename(oldest, world.path("c.log")).unwrap();
    fs::rename(world.path("a.log"), world.path("a.log.0")).unwrap();
    fs::rename(world.path("b.log"), world.path("a.log")).unwrap();
    assert_each_once(&mut world);
}

#[test]
fn a_copy_that_is_written_over_by_the_next_is_no_file_that_begins_anew() {
    let mut world = World::new(Naming::Shifted, None, 4);
    for _ in 0..4 {
        world.append(9);
        world.step(&Step::Read);
        world.append(3);
        fs::copy(world.path("a.log"), world.path("a.log.1")).unwrap();
        world.writer.as_ref().unwrap().set_len(0).unwrap();
        world.step(&Step::Read);
    }
    assert_each_once(&mut world);
}

#[test]
fn links_beside_a_path_are_nobodys_files() {
    let mut world = World::new(Naming::Shifted, None, 4);
    for target in ["a.log", "nowhere", "/"] {
        let link = world.path(&format!("a.{}", target.len()));
        std::os::unix::fs::symlink(target, link).unwrap();
    }
    world.append(3);
    world.step(&Step::Rotate);
    world.append(3);
    assert_each_once(&mut world);
}

#[test]
fn a_copy_that_was_compressed_before_it_was_read_is_named() {
    let mut world = World::new(Naming::Shifted, None, 4);
    world.append(3);
    world.step(&Step::Read);
    world.append(3);
    fs::copy(world.path("a.log"), world.path("a.log.1.gz")).unwrap();
    world.writer.as_ref().unwrap().set_len(0).unwrap();
    world.append(1);
    world.conclude();
    assert!(world.reports.iter().any(|report| matches!(report, Report::Compressed { .. })), "{:?}", world.reports);
}

#[test]
fn a_start_that_cannot_open_the_path_leaves_its_position() {
    let mut world = World::new(Naming::Shifted, None, 4);
    world.append(5);
    world.step(&Step::Read);
    world.append(5);
    world.copy_truncate();
    world.append(2);
    world.step(&Step::Kill { groups_lost: 0 });
    let follower = &mut world.set.followers[0];
    let stored = follower.stored.clone();
    assert!(!stored.is_empty());
    let path = std::mem::replace(&mut follower.path, "/proc/self/mem/a.log".into());
    assert!(follower.restore(&|_| false).is_err());
    assert!(follower.stored == stored && follower.tails.is_empty() && !follower.is_dirty);
    follower.path = path;
    assert_each_once(&mut world);
}
