//! Where the threads of a log run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kifa::{CpuAffinity, Error, Log};

use crate::child::command;
use crate::helper::*;

/// The list of processors that a thread may run on, by its directory in /proc.
fn cpus_of(task: &Path) -> String {
    let status = fs::read_to_string(task.join("status")).expect("it can be read");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.expect("the kernel tells").trim().to_owned()
}

/// The same, of the thread of this process that has this name.
fn cpus_of_named(name: &str) -> String {
    let mut tasks = fs::read_dir("/proc/self/task").expect("it can be listed").flatten().map(|task| task.path());
    let is_named = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|text| text.trim() == name);
    cpus_of(&tasks.find(|task| is_named(task)).unwrap_or_else(|| panic!("there is no thread {name}")))
}

/// Catches an option that is not heeded, one that reaches the caller's thread, and helpers that keep off a processor while
/// the log stands still.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "threads are pinned on Linux only")]
fn the_reactor_has_the_processor_that_was_asked_for_and_helpers_have_others() {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    if all < 2 || !fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("Cpus_allowed_list:\t0-"))
    {
        return println!("SKIPPED: this process may not run on processors 0 and 1");
    }
    let dir = temp();
    let status = command("pinned", &dir.path().join("store"), dir.path(), 0).status().expect("it runs");
    assert!(status.success(), "{status}");
}

/// In a process of its own: threads are told by their names.
pub(crate) fn pinned(dir: &Path, cpu: u64) {
    let own = Path::new("/proc/thread-self");
    let before = cpus_of(own);
    let mut options = tiny();
    options.cpu_affinity = CpuAffinity::Reactor(cpu as usize);
    let log = open(dir, options);
    assert_eq!(cpus_of_named("kifa-reactor"), cpu.to_string());
    wait_until("a table is built elsewhere", Duration::from_secs(20), || {
        append(&log, 0..100, 1000);
        !cpus_of_named("kifa-flush").starts_with(&cpu.to_string())
    });
    wait_until("it has all where appends wait for it", Duration::from_secs(20), || {
        fill(&log, 0..1000, 1000);
        cpus_of_named("kifa-flush") == before
    });
    assert_eq!(cpus_of(own), before, "the caller's thread is left alone");
}

/// Also where no thread can be pinned at all.
#[test]
fn a_processor_that_is_not_there_is_refused_and_nothing_is_lost() {
    let dir = temp();
    open(dir.path(), tiny()).append(b"x").expect("it is confirmed");
    let mut options = tiny();
    options.cpu_affinity = CpuAffinity::Reactor(1 << 20);
    let refusal = Log::open(dir.path(), options).expect_err("there is no such processor");
    assert!(matches!(refusal, Error::InvalidOption(_)), "{refusal:?}");
    let text = refusal.to_string();
    assert!(text.contains("cpu_affinity is processor 1048576, and the reactor cannot run there"), "{text}");
    assert_eq!(open(dir.path(), tiny()).append(b"y").expect("it is confirmed").0, 2);
}

#[test]
fn where_threads_run_changes_nothing_that_is_stored() {
    for affinity in [CpuAffinity::Auto, CpuAffinity::Off] {
        let dir = temp();
        let mut options = tiny();
        options.cpu_affinity = affinity;
        let log = open(dir.path(), options);
        fill(&log, 0..2000, 1000);
        log.close().expect("it goes on until then");
        assert_eq!(payloads(dir.path()), (0..2000).map(|id| payload(id, 1000)).collect::<Vec<_>>(), "{affinity:?}");
    }
}
