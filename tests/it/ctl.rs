//! `kifa ctl`, and what `stats` learns from a running daemon.

use std::io::Write as _;

use kifa::{FlushMode, Options};

use crate::program::{Place, json, kifa};
use crate::standin::{Daemon, Server, StandIn};

#[test]
fn requests_and_their_answers_for_people_and_for_scripts() {
    let place = Place::new();
    let daemon = StandIn::start(&place.store(), Options::default());
    let ctl = |args: &[&str]| place.run("ctl", args).expect(0).text().to_owned();
    assert_eq!(ctl(&["flush-mode", "emergency"]), "flush mode: emergency (before: cautious)\n");
    assert_eq!(daemon.log.flush_mode(), FlushMode::Emergency);
    assert_eq!(ctl(&["flush-mode", "emergency"]), "flush mode: emergency (as before)\n");
    assert!(place.run("stats", &[]).expect(0).text().contains("  Flush mode: Emergency (configured: Cautious)\n"));
    assert_eq!(json(&ctl(&["-o", "json", "flush-mode", "default"]))["new"], "cautious");
    daemon.log.append(b"x").unwrap();
    assert_eq!(ctl(&["sync"]), "durable up to LSN 1\n");
    assert_eq!(json(&ctl(&["sync", "--format", "json"]))["durable_lsn"], 1);
    assert_eq!(ctl(&["forget-client", "till-7"]), "forgotten: till-7\n");
    assert_eq!(json(&ctl(&["forget-client", "till-7", "-o", "json"]))["forgotten"], "till-7");
    let status = ctl(&["status"]);
    for part in ["Daemon:\n  Flush mode: Cautious\n", "  Process: ", "  Durable up to LSN: 1\n", "  append "] {
        assert!(status.contains(part), "{part}: {status}");
    }
    assert_eq!(json(&ctl(&["status", "--format", "json"]))["pid"], std::process::id());

    let refused = place.run("ctl", &["forget-client", "till-8"]).expect(1);
    assert!(refused.stderr.contains("no such client"), "{}", refused.stderr);
    for wrong in
        [&["flush-mode", "fast"][..], &["forget-client", "two words"], &["forget-client", ""], &["reboot"], &[]]
    {
        place.run("ctl", wrong).expect(64);
    }
    let socket = place.store().join("kifa.sock");
    let by_socket = ["ctl", "--socket", socket.to_str().unwrap(), "sync"];
    assert_eq!(kifa(&by_socket).output().unwrap().status.code(), Some(0));
    daemon.stop();
    let absent = place.run("ctl", &["status"]).expect(69);
    assert!(absent.stderr.contains("no daemon is running for"), "{}", absent.stderr);
}

#[test]
fn the_daemon_itself_obeys() {
    let place = Place::new();
    let daemon = Daemon::start(&place, &[]);
    let ctl = |args: &[&str]| place.run("ctl", args).expect(0).text().to_owned();
    assert_eq!(ctl(&["flush-mode", "normal"]), "flush mode: normal (before: cautious)\n");
    assert!(place.run("stats", &[]).expect(0).text().contains("  Flush mode: Normal (configured: Cautious)\n"));
    assert_eq!(ctl(&["flush-mode", "default"]), "flush mode: cautious (before: normal)\n");
    place.run("append", &["x"]).expect(0);
    assert_eq!(ctl(&["sync"]), "durable up to LSN 1\n");
    let stats = place.run("stats", &[]).expect(0);
    for part in ["\nDaemon:\n  Process: ", "  Durable up to LSN: 1\n", "\n  append "] {
        assert!(stats.text().contains(part), "{part}: {}", stats.text());
    }
    assert_eq!(json(&ctl(&["status", "-o", "json"]))["pid"], daemon.child.id());
    let refused = place.run("ctl", &["forget-client", "till-8"]).expect(1);
    assert!(refused.stderr.contains("till-8 is not known"), "{}", refused.stderr);
    daemon.stop();
    place.run("ctl", &["sync"]).expect(69);
}

#[test]
fn stats_show_the_daemon_and_its_sources_and_without_one_what_the_files_tell() {
    let place = Place::new();
    let daemon = StandIn::start(&place.store(), Options::default());
    daemon.log.append(b"x").unwrap();
    let text = place.run("stats", &[]).expect(0);
    assert!(text.text().contains("\nDaemon:\n  Process: ") && text.text().contains("\n  append "), "{}", text.text());
    assert_eq!(json(place.run("stats", &["-o", "json"]).expect(0).text())["daemon"]["sources"][0]["stored"], 7);
    daemon.stop();
    let text = place.run("stats", &[]).expect(0);
    assert!(!text.text().contains("Daemon:"), "{}", text.text());
    assert!(json(place.run("stats", &["-o", "json"]).expect(0).text())["daemon"].is_null());
}

#[test]
fn who_is_no_daemon_is_called_that_and_cannot_drive_the_terminal() {
    let place = Place::new();
    std::fs::create_dir(place.store()).unwrap();
    let _server = Server::start(&place.store(), |stream| {
        let _ = (&stream).write_all(b"220 \x1b]0;mail\x07 ready\n");
    });
    let ran = place.run("ctl", &["status"]).expect(69);
    assert!(ran.stderr.contains("is not a kifa daemon") && !ran.stderr.contains('\x1b'), "{}", ran.stderr);
}
