//! A reader beside a writer takes the daemon's word, and nobody else's is worth more than what validates.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use kifa::{Log, Options};

use crate::program::Place;
use crate::standin::{Server, StandIn};

#[test]
fn a_query_shows_what_was_just_confirmed() {
    let place = Place::new();
    let daemon = StandIn::start(&place.store(), Options::default());
    for number in 1..=50 {
        daemon.log.append(b"an entry").unwrap();
        assert_eq!(place.payloads().len(), number);
    }
    daemon.stop();
}

#[test]
fn a_socket_that_lies_hangs_or_babbles_changes_nothing_but_what_validates() {
    let place = Place::new();
    let log = Log::open(place.store(), Options::default()).unwrap();
    for _ in 0..5 {
        log.append(b"an entry").unwrap();
    }
    // Everything is proven within a second.
    place.wait_for_entries(5);
    let query = || place.payloads().len();
    for lie in [
        "OK 18446744073709551615\n",
        "OK 0\n",
        "OK x\n",
        "OK 99999999999999999999\n",
        "ERR stopped no\n",
        "\n",
        "hello\n",
    ] {
        let _server = Server::start(&place.store(), move |mut stream| {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(lie.as_bytes());
        });
        assert_eq!(query(), 5, "{lie:?}");
    }
    for endless in [true, false] {
        let _server = Server::start(&place.store(), move |mut stream| {
            while endless && stream.write_all(&[b'x'; 4096]).is_ok() {}
            let _ = stream.read(&mut [0; 4096]);
            std::thread::sleep(Duration::from_secs(3));
        });
        let begin = Instant::now();
        assert_eq!(query(), 5);
        assert!(begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
    }
    log.close().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn the_daemon_itself_listens_in_a_directory_whose_name_is_too_long_for_a_socket() {
    let place = Place::new();
    let long = place.beside(&"d".repeat(200));
    let dir = long.to_str().unwrap();
    let mut command = crate::program::kifa(&["daemon", "--stdin", "-d", dir]);
    let mut daemon = command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    crate::program::wait_until("it listens", || long.join("kifa.sock").exists());
    assert_eq!(crate::program::run(&["append", "-d", dir, "x"]).expect(0).text(), "1\n");
    assert!(crate::program::run(&["query", "-d", dir]).expect(0).text().ends_with(" x\n"));
    drop(daemon.stdin.take());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_whose_name_is_too_long_for_a_socket_is_served_all_the_same() {
    let place = Place::new();
    let deep = place.beside(&"d".repeat(120)).join("e".repeat(60));
    std::fs::create_dir_all(&deep).unwrap();
    // Bound where the name is short enough, and then moved with its store.
    let daemon = StandIn::start(&place.store(), Options::default());
    let store = deep.join("data");
    std::fs::rename(place.store(), &store).unwrap();
    let dir = store.to_str().unwrap();
    assert_eq!(crate::program::run(&["append", "-d", dir, "x"]).expect(0).text(), "1\n");
    assert!(crate::program::run(&["query", "-d", dir]).expect(0).text().ends_with(" x\n"));
    crate::program::run(&["ctl", "-d", dir, "sync"]).expect(0);
    daemon.stop();
}
