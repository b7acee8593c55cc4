//! One writer: a second one learns who the first is and changes nothing; readers do not care.

use kifa::{Error, Log};

use crate::child::Running;
use crate::helper::*;

fn assert_locked(outcome: kifa::Result<Log>, pid: u32) {
    match outcome {
        Err(Error::Locked { pid: Some(found), .. }) => assert_eq!(found, pid),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_log_in_the_same_process_is_refused() {
    let dir = temp();
    let log = open(dir.path(), options());
    log.append(b"first").unwrap();
    let before = settle_wholly(dir.path());
    assert_locked(Log::open(dir.path(), tiny()), std::process::id());
    assert_unchanged(&before, dir.path());
    log.append(b"second").unwrap();
    log.close().unwrap();
    assert_eq!(payloads(dir.path()), [&b"first"[..], b"second"]);
    open(dir.path(), options()).close().unwrap();
}

#[test]
fn a_log_in_another_process_is_respected_until_it_is_killed() {
    let dir = temp();
    let (store, out) = (dir.path().join("store"), dir.path().join("out"));
    let mut child = Running::start("hold", &store, &out, 10);
    child.wait_for(&out, 5);
    let before = settle_wholly(&store);
    assert_locked(Log::open(&store, options()), child.0.id());
    let message = Log::open(&store, options()).unwrap_err().to_string();
    assert!(message.contains(&format!("locked by process {}", child.0.id())), "{message}");
    assert_eq!(payloads(&store).len(), 10, "readers work meanwhile");
    assert_unchanged(&before, &store);

    child.kill(&store);
    assert_eq!(payloads(&store).len(), 10);
    let log = open(&store, options());
    assert!(!log.stats().unwrap().recovery.clean);
    assert_eq!(log.append(&payload(10, 500)).unwrap().0, 11);
    log.close().unwrap();
    assert!(read_all(&store).iter().map(|entry| id_of(&entry.payload)).eq(0..11));
}

#[test]
fn readers_neither_take_the_lock_nor_hinder_a_writer() {
    let dir = temp();
    open(dir.path(), options()).append(b"x").unwrap();
    let reader = kifa::Reader::open(dir.path()).unwrap();
    let mut scan = reader.scan(Default::default()).unwrap();
    let log = open(dir.path(), options());
    log.append(b"y").unwrap();
    log.close().unwrap();
    assert_eq!(scan.next_entry().unwrap().unwrap().payload, b"x");
    assert!(scan.next_entry().unwrap().is_none(), "a scan sees the store as it was when it began");
}
