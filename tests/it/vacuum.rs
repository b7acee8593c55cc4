//! `kifa vacuum` and `[retention]`: what is deleted, who is told, and who does it.

use std::fs;

use kifa::{Compression, Options};

use crate::program::{Place, json, run, wait_until};
use crate::standin::Daemon;

/// A store of a dozen tables of about a MiB each, without merging; entries are a KiB that does not compress.
pub(crate) fn grown() -> Place {
    let place = Place::new();
    let mut options = Options::default();
    options.memtable_bytes = 1 << 20;
    options.segment_bytes = 1 << 20;
    options.compaction_enabled = false;
    options.compression = Compression::None;
    let log = kifa::Log::open(place.store(), options).unwrap();
    let mut word = 1_u64;
    for _ in 0..120 {
        let mut batch = kifa::Batch::new();
        for _ in 0..100 {
            let payload: Vec<u8> = (0..128)
                .flat_map(|_| {
                    word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                    word.to_le_bytes()
                })
                .collect();
            batch.push(&payload).unwrap();
        }
        log.submit(&batch).unwrap().wait().unwrap();
    }
    log.close().unwrap();
    place
}

fn stats(place: &Place) -> serde_json::Value {
    json(place.run("stats", &["-o", "json"]).expect(0).text())
}

#[test]
fn without_a_daemon_it_deletes_under_the_lock_and_queries_say_expired() {
    let place = grown();
    let before = stats(&place);
    assert_eq!((&before["retention"]["floor_lsn"], &before["retention"]["expired_until"]), (&1.into(), &().into()));
    let planned = place.run("vacuum", &["--to-size", "8", "--dry-run"]).expect(0);
    assert!(planned.text().starts_with("would delete "), "{}", planned.text());
    assert_eq!(stats(&place)["entries"], before["entries"]);
    let done = place.run("vacuum", &["--to-size", "8"]).expect(0);
    assert!(done.text().starts_with("deleted "), "{}", done.text());

    let after = stats(&place);
    let retention = &after["retention"];
    let floor = retention["floor_lsn"].as_u64().unwrap();
    assert!(floor > 1 && retention["deleted_entries"] == floor - 1 && retention["expired_until_ms"].is_u64());
    assert_eq!(after["entries"], 12_000 - (floor - 1));
    assert!(after["disk_bytes"].as_u64() < before["disk_bytes"].as_u64());
    let text = place.run("stats", &[]).expect(0);
    assert!(text.text().contains(&format!("Retention:\n  Floor: LSN {floor} (what came until 20")), "{}", text.text());

    let below = place.run("query", &["--to-lsn", "5"]).expect(1);
    let expired = format!("note: entries below LSN {floor}, taken until 20");
    assert!(below.stderr.contains(&expired) && below.stderr.contains("have expired"), "{}", below.stderr);
    let newest = place.run("query", &["-n", "3", "-r"]).expect(0);
    assert!(!newest.stderr.contains("expired"), "nobody asked for them: {}", newest.stderr);
    let exported = place.beside("all.jsonl");
    let export = place.run("export", &["-o", exported.to_str().unwrap()]).expect(0);
    assert!(export.stderr.contains(&expired), "{}", export.stderr);
    assert_eq!(fs::read(exported).unwrap().iter().filter(|&&byte| byte == b'\n').count() as u64, 12_001 - floor);
    place.run("verify", &["--deep"]).expect(0);
    assert!(place.run("vacuum", &["--to-size", "8"]).expect(0).text().starts_with("nothing to delete"));
}

#[test]
fn the_running_daemon_does_it_when_it_is_asked() {
    let place = grown();
    let daemon = Daemon::start(&place, &["--no-compaction"]);
    let done = place.run("vacuum", &["--older-than", "now", "-o", "json"]).expect(0);
    let done = json(done.text());
    let floor = done["floor_lsn"].as_u64().unwrap();
    assert!(done["dry_run"] == false && done["deleted_entries"] == floor - 1 && floor > 1_000, "{done}");
    let stats = stats(&place);
    assert_eq!((&stats["daemon"]["floor_lsn"], &stats["retention"]["floor_lsn"]), (&floor.into(), &floor.into()));
    place.run("append", &["behind it"]).expect(0);
    place.run("verify", &[]).expect(0);
    daemon.stop();
    assert_eq!(place.run("query", &["--from-lsn", "12001", "-o", "json"]).expect(0).text().lines().count(), 1);
}

#[test]
fn a_limit_of_size_is_kept_by_the_daemon() {
    let place = grown();
    let tables = || fs::read_dir(place.store().join("sst")).unwrap().count();
    let before = tables();
    let daemon = Daemon::start(&place, &["--no-compaction", "--max-size-mib", "8"]);
    wait_until("the oldest tables are gone", || tables() < before);
    wait_until("the floor is told", || stats(&place)["retention"]["deleted_tables"].as_u64() > Some(0));
    daemon.stop();
    place.run("verify", &[]).expect(0);
}

#[test]
fn it_wants_to_be_told_what_and_never_makes_a_store() {
    let place = Place::new();
    place.run("vacuum", &["--to-size", "1"]).expect(66);
    assert!(!place.store().exists());
    for wrong in [&[][..], &["--dry-run"], &["--older-than", "soon"], &["--to-size", "-1"]] {
        place.run("vacuum", wrong).expect(64);
    }
    let help = run(&["vacuum", "--help"]).expect(0);
    assert!(["Examples:", "Exit codes:"].iter().all(|part| help.text().contains(part)));
}
