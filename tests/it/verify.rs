//! `kifa verify`: what is sound passes, what is damaged is named, and nothing is changed.

use std::fs;
use std::path::PathBuf;

use crate::program::{Place, Ran, json, kifa, run};

/// Three hundred entries: two tables, and a log behind them.
pub(crate) fn store_with_tables() -> Place {
    let place = Place::new();
    let line = |number: u64| format!("{{\"number\":{number},\"noise\":\"{}\"}}\n", noise(number));
    let args = ["--memtable-threshold-mib", "1", "--segment-size-mib", "1", "--no-compaction"];
    for from in [0, 100, 200] {
        let input: String = (from..from + 100).map(line).collect();
        place.daemon(input.as_bytes(), &args).expect(0);
    }
    assert!(files(&place, "sst").len() >= 2, "{:?}", files(&place, "sst"));
    place
}

/// Twenty kilobytes that do not compress, so that tables hold them as they are.
fn noise(number: u64) -> String {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..20_000).map(|_| char::from(DIGITS[(next() >> 40) as usize % DIGITS.len()])).collect()
}

pub(crate) fn files(place: &Place, dir: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(place.store().join(dir)).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found
}

/// The newest manifest, alone: one that it superseded may have been left by a daemon that ended just then.
pub(crate) fn manifest(place: &Place) -> PathBuf {
    let is_manifest = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("MANIFEST-") && !name.ends_with(".tmp")
    };
    let mut found: Vec<PathBuf> = files(place, "").into_iter().filter(is_manifest).collect();
    let newest = found.pop().expect("a store has a manifest");
    found.iter().for_each(|older| fs::remove_file(older).unwrap());
    newest
}

/// Inverts a byte in the middle of the entry with this number; returns the file, relative to the store. `dir` is where the
/// entry counts: the newest are in the log, whether or not a table that nobody has adopted has them, too.
pub(crate) fn damage_entry(place: &Place, dir: &str, number: u64) -> String {
    let needle = noise(number).into_bytes();
    for path in files(place, dir) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(64).position(|window| window == &needle[..64]) {
            bytes[at + 30] ^= 1;
            fs::write(&path, bytes).unwrap();
            return path.strip_prefix(place.store()).unwrap().to_str().unwrap().to_owned();
        }
    }
    panic!("entry {number} lies in no file");
}

#[test]
fn a_sound_store_passes_and_nothing_is_changed() {
    let place = store_with_tables();
    let before = place.snapshot();
    for args in [&[][..], &["--deep"]] {
        let ran = place.run("verify", args).expect(0);
        assert!(ran.text().contains("Result: no damage") && ran.stderr.is_empty(), "{ran:?}");
        let ran = place.run("verify", &[args, &["--format", "json"]].concat()).expect(0);
        let report = json(ran.text());
        assert_eq!((report["clean"].as_bool(), report["entries"].as_u64()), (Some(true), Some(300)));
        assert!(report["damage"].as_array().unwrap().is_empty() && report["missing"].as_array().unwrap().is_empty());
        assert!(["direct", "dropped", "cached"].contains(&report["read_path"].as_str().unwrap()));
    }
    assert_eq!(place.snapshot(), before);
}

#[test]
fn it_works_beside_a_daemon() {
    let place = store_with_tables();
    let mut daemon = place.start(&[]);
    std::io::Write::write_all(daemon.stdin.as_mut().unwrap(), b"one more\n").unwrap();
    place.wait_for_entries(301);
    let ran = place.run("verify", &["--deep"]).expect(0);
    assert!(ran.text().contains("Writer:   running"), "{}", ran.text());
    drop(daemon.stdin.take());
    Ran::from(daemon.wait_with_output().unwrap()).expect(0);
}

#[test]
fn damage_is_named_with_place_numbers_meaning_and_remedy() {
    let place = store_with_tables();
    let last = damage_entry(&place, "wal", 299);
    let table = files(&place, "sst").remove(0);
    let mut bytes = fs::read(&table).unwrap();
    bytes[50_000] ^= 1;
    fs::write(&table, bytes).unwrap();
    let before = place.snapshot();
    let ran = place.run("verify", &[]).expect(1);
    for part in ["Damage 1 of 2: sst/", &format!("Damage 2 of 2: {last}"), "Meaning:", "kifa recover", "300"] {
        assert!(ran.text().contains(part), "{part}: {}", ran.text());
    }
    let report = json(place.run("verify", &["-o", "json"]).expect(1).text());
    let damage = report["damage"].as_array().unwrap();
    assert_eq!((damage[0]["kind"].as_str(), damage[1]["kind"].as_str()), (Some("table_block"), Some("log_range")));
    assert!(damage[0]["offset"].as_u64().unwrap() <= 50_000 && damage[0]["end"].as_u64().unwrap() > 50_000);
    let missing = report["missing"].as_array().unwrap();
    assert_eq!(missing.last().unwrap()["first_lsn"], 300);
    let lost: u64 = missing
        .iter()
        .map(|range| range["last_lsn"].as_u64().unwrap() - range["first_lsn"].as_u64().unwrap() + 1)
        .sum();
    assert_eq!(report["entries"].as_u64(), Some(300 - lost));
    assert_eq!(place.snapshot(), before);
}

#[test]
fn a_lost_manifest_does_not_keep_it_from_looking() {
    let place = store_with_tables();
    let manifest = manifest(&place);
    let bytes = fs::read(&manifest).unwrap();
    for harm in [&b""[..], &bytes[..100], b"MANIFEST"] {
        fs::write(&manifest, harm).unwrap();
        let report = json(place.run("verify", &["-o", "json"]).expect(1).text());
        assert_eq!(report["damage"][0]["kind"], "manifest");
        assert_eq!((report["damage"].as_array().unwrap().len(), report["entries"].as_u64()), (1, Some(300)));
    }
    fs::remove_file(&manifest).unwrap();
    let report = json(place.run("verify", &["-o", "json"]).expect(1).text());
    assert_eq!((report["damage"][0]["kind"].as_str(), report["entries"].as_u64()), (Some("manifest"), Some(300)));
}

#[test]
fn strange_and_left_over_files_are_named_and_are_no_damage() {
    let place = store_with_tables();
    let table = files(&place, "sst").remove(0);
    fs::write(place.store().join("notes.txt"), "x").unwrap();
    fs::write(place.store().join("wal/0000000777.wal"), "x").unwrap();
    fs::copy(&table, place.store().join("sst/0000000778.sst")).unwrap();
    fs::write(place.store().join("sst/0000000779.sst.tmp"), "x").unwrap();
    let ran = place.run("verify", &[]).expect(0);
    for name in ["notes.txt", "wal/0000000777.wal", "sst/0000000778.sst", "sst/0000000779.sst.tmp"] {
        assert!(ran.text().contains(&format!("Note: {name} ")), "{name}: {}", ran.text());
    }
}

#[test]
fn what_is_no_store_is_trouble_and_not_damage() {
    let place = Place::new();
    let ran = place.run("verify", &[]).expect(2);
    assert!(ran.stderr.contains("is not a kifa store") && ran.stdout.is_empty(), "{ran:?}");
    fs::create_dir(place.store()).unwrap();
    fs::write(place.store().join("letter.txt"), "Dear Sir").unwrap();
    place.run("verify", &[]).expect(2);
    place.run("verify", &["--format", "xml"]).expect(2);
    assert!(run(&["verify"]).expect(2).stderr.contains("KIFA_DATA_DIR"));
    assert!(kifa(&["verify", "--help"]).output().unwrap().status.success());
}
