//! A writer that does not wait for anybody: rotation, truncation and kills in the middle of it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::{Daemon, Writer, check_lines, count, stored};
use crate::program::{Place, wait_until};

#[test]
fn rotation_by_renaming_under_load_loses_and_doubles_nothing() {
    let place = Place::new();
    let path = place.beside("a.log");
    let mut writer = Writer::new(&path);
    let daemon = Daemon::follow(&place, &path);
    daemon.wait_for("is read from byte 0 on");
    for round in 0..60 {
        for _ in 0..200 {
            writer.line();
        }
        if round % 3 == 0 {
            thread::sleep(Duration::from_millis(15));
        }
        writer.rotate(round % 4);
    }
    writer.line();
    let payloads = stored(&place, daemon, writer.written as usize);
    check_lines(&payloads, writer.written, true);
}

#[test]
fn copytruncate_under_load_loses_and_doubles_nothing_that_is_in_the_copies() {
    let place = Place::new();
    let path = place.beside("a.log");
    let mut writer = Writer::new(&path);
    let daemon = Daemon::follow(&place, &path);
    daemon.wait_for("is read from byte 0 on");
    for round in 0..30 {
        for _ in 0..300 {
            writer.line();
        }
        if round % 3 == 0 {
            thread::sleep(Duration::from_millis(15));
        }
        writer.copy_truncate();
    }
    writer.line();
    let payloads = stored(&place, daemon, writer.written as usize);
    check_lines(&payloads, writer.written, false);
}

#[test]
fn a_hundred_kills_while_tailing_lose_and_double_nothing() {
    const KILLS: usize = 100;
    let place = Place::new();
    let path = place.beside("a.log");
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, count_written) = (Arc::clone(&stop), Arc::clone(&written));
    // What the store has not heard of when it is rotated away was never its business.
    let mut writer = Writer::new(&path);
    writer.line();
    writer.line();
    let daemon = Daemon::follow(&place, &path);
    place.wait_for_entries(1);
    daemon.kill();
    let writer = thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            for _ in 0..20 {
                writer.line();
            }
            count_written.store(writer.written, Ordering::SeqCst);
            // Also while no daemon runs.
            if writer.written.is_multiple_of(2000) {
                writer.rotate(3);
            }
            thread::sleep(Duration::from_millis(2));
        }
        writer.written
    });
    let mut runs_with_entries = 0;
    for run in 0..KILLS {
        let daemon = Daemon::follow(&place, &path);
        let (before, messages) = (written.load(Ordering::SeqCst), daemon.messages().len());
        wait_until("the daemon reads", || {
            daemon.messages()[messages.min(daemon.messages().len())..].contains("is read from")
        });
        thread::sleep(Duration::from_millis([0, 5, 11, 23, 37][run % 5]));
        daemon.kill();
        runs_with_entries += usize::from(written.load(Ordering::SeqCst) > before);
    }
    stop.store(true, Ordering::SeqCst);
    let lines = writer.join().unwrap();
    let daemon = Daemon::follow(&place, &path);
    let payloads = stored(&place, daemon, lines as usize);
    check_lines(&payloads, lines, true);
    assert!(runs_with_entries > KILLS / 2, "the kills hit a daemon at work");
}

#[test]
fn a_signal_under_load_stores_what_was_taken_and_the_next_run_the_rest() {
    let place = Place::new();
    let path = place.beside("a.log");
    let lines: String = (1..=400_000).map(|number| format!("line {number}\n")).collect();
    fs::write(&path, lines).unwrap();
    let daemon = Daemon::follow(&place, &path);
    wait_until("it is at work", || count(&place) > 0);
    let messages = daemon.stop();
    let told = messages.lines().rev().find_map(|line| line.split_once("stopped by SIGTERM: ")).unwrap().1;
    let told: usize = told.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(count(&place), told);
    let daemon = Daemon::follow(&place, &path);
    wait_until("the rest is stored", || count(&place) >= 400_000);
    daemon.stop();
    check_lines(&place.payloads(), 400_000, true);
}
