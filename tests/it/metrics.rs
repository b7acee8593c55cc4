//! The page of metrics and the check of health, over plain sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::lifecycle::Daemon;
use crate::program::{PATIENCE, Place, json, kifa, wait_until};

/// Sends bytes and returns everything that comes back until the other side closes.
#[track_caller]
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be answered and closed before all of it is sent.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Status and body of a page; the length that is announced must be that of the body.
#[track_caller]
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(address, format!("GET {path} HTTP/1.1\r\nHost: till\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    (status(&answer), body.to_owned())
}

#[track_caller]
fn status(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.unwrap_or_else(|| panic!("no status: {answer:?}")).parse().unwrap()
}

/// A page that obeys the text format: samples by name and labels, and the kind of each family.
struct Page {
    samples: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Page {
    #[track_caller]
    fn of(address: SocketAddr) -> Page {
        let (status, text) = get(address, "/metrics");
        assert_eq!(status, 200);
        Page::parse(&text)
    }

    /// What `promtool check metrics` would complain of fails.
    #[track_caller]
    fn parse(text: &str) -> Page {
        let mut page = Page { samples: BTreeMap::new(), kinds: BTreeMap::new() };
        let mut helped = BTreeSet::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a kind");
                assert!(helped.contains(name), "{name} has no help text");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(name.starts_with("kifa_") && !name.contains("__"), "{line}");
                assert!(page.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                let name = series.split('{').next().unwrap();
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                assert!(series == name || series.ends_with("\"}"), "{line}");
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let family = family.filter(|family| page.kinds.get(*family).is_some_and(|kind| kind == "histogram"));
                assert!(page.kinds.contains_key(family.unwrap_or(name)), "{name} has no kind");
                assert!(page.samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        page
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("{series} is not among {:?}", self.samples.keys()))
    }
}

#[test]
fn the_page_tells_what_was_stored_and_by_whom() {
    let place = Place::new();
    let daemon = place.serve(&["--tcp", "127.0.0.1:0", "--confirm", "--metrics", "127.0.0.1:0"]);
    let address = daemon.address("metrics");
    let mut client = daemon.tcp();
    client.send(b"0123456789\n".repeat(10).as_slice());
    client.send(&[b"x".repeat((1 << 20) + 1).as_slice(), b"\n"].concat());
    let answers: Vec<String> = (0..11).map(|_| client.line()).collect();
    assert!(answers[9].starts_with("OK 10") && answers[10].starts_with("ERR"), "{answers:?}");
    drop(client);

    // The reactor tells its numbers at the end of a turn, which may come behind the confirmation.
    wait_until("the numbers are there", || Page::of(address).value("kifa_appended_entries_total") == 10.0);
    let page = Page::of(address);
    let tcp = "{source=\"tcp:127.0.0.1:0\"}";
    assert_eq!(page.value("kifa_appended_bytes_total"), 100.0);
    assert_eq!(page.value(&format!("kifa_source_accepted_entries_total{tcp}")), 10.0);
    assert_eq!(page.value(&format!("kifa_source_confirmed_entries_total{tcp}")), 10.0);
    assert_eq!(page.value(&format!("kifa_source_refused_total{tcp}")), 1.0);
    assert_eq!(page.value(&format!("kifa_source_dropped_entries_total{tcp}")), 0.0);
    assert_eq!((page.value("kifa_confirmed_lsn"), page.value("kifa_durable_lsn")), (10.0, 10.0));
    assert_eq!(page.value("kifa_flush_mode{mode=\"cautious\"}"), 1.0);
    assert_eq!(page.value("kifa_flush_mode{mode=\"normal\"}"), 0.0);
    assert_eq!((page.value("kifa_failed"), page.value("kifa_oldest_unconfirmed_seconds")), (0.0, 0.0));
    assert_eq!((page.value("kifa_queue_batches"), page.value("kifa_queue_batches_max")), (0.0, 1024.0));
    let groups = page.value("kifa_groups_total");
    assert!((1.0..=10.0).contains(&groups) && page.value("kifa_wal_written_bytes_total") >= 4096.0 * groups);
    let (syncs, slowest) = ("kifa_sync_duration_seconds_count", "kifa_sync_duration_seconds_bucket{le=\"+Inf\"}");
    assert!(page.value(syncs) >= 1.0 && page.value(syncs) == page.value(slowest));
    assert!(page.value("kifa_sync_duration_seconds_sum") > 0.0);
    assert!(page.value("kifa_store_bytes") >= f64::from(16 << 20), "a segment at least");
    assert!(page.value("kifa_disk_free_bytes") > 0.0 && page.value("kifa_disk_bytes") > 0.0);
    assert!(page.samples.keys().any(|series| series.starts_with("kifa_build_info{version=\"0.")));
    assert!(page.samples.keys().any(|series| series.starts_with("kifa_io_info{backend=\"")));

    daemon.control().send(b"FLUSH-MODE emergency\n");
    wait_until("the mode is shown", || Page::of(address).value("kifa_flush_mode{mode=\"emergency\"}") == 1.0);
    daemon.stop();
}

#[test]
fn what_retention_has_deleted_is_counted() {
    let place = crate::vacuum::grown();
    let daemon = place.serve(&["--tcp", "127.0.0.1:0", "--no-compaction", "--metrics", "127.0.0.1:0"]);
    let address = daemon.address("metrics");
    let before = Page::of(address);
    assert_eq!((before.value("kifa_floor_lsn"), before.value("kifa_expired_entries_total")), (1.0, 0.0));
    let done = place.run("vacuum", &["--older-than", "now", "-o", "json"]).expect(0);
    let deleted = json(done.text())["deleted_entries"].as_f64().unwrap();
    assert!(deleted > 0.0, "{}", done.text());
    wait_until("it is counted", || Page::of(address).value("kifa_expired_entries_total") == deleted);
    let page = Page::of(address);
    assert_eq!(page.value("kifa_floor_lsn"), page.value("kifa_expired_entries_total") + 1.0);
    assert!(page.value("kifa_expired_bytes_total") > 1024.0 * page.value("kifa_expired_entries_total"));
    daemon.stop();
}

#[test]
fn the_documentation_lists_what_the_page_shows() {
    let place = Place::new();
    let daemon = place.serve(&["--tcp", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let kinds = Page::of(daemon.address("metrics")).kinds;
    let shown: BTreeSet<&str> = kinds.keys().map(String::as_str).collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `kifa_")?.split('`').next());
    let listed: BTreeSet<String> = rows.map(|rest| format!("kifa_{}", rest.split('{').next().unwrap())).collect();
    assert_eq!(listed.iter().map(String::as_str).collect::<BTreeSet<_>>(), shown);
    daemon.stop();
}

#[test]
fn only_get_and_head_of_two_pages_are_answered() {
    let place = Place::new();
    let daemon = place.serve(&["--tcp", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let address = daemon.address("metrics");
    assert_eq!(get(address, "/healthz"), (200, "the log can commit\n".to_owned()));
    assert_eq!(get(address, "/healthz?from=probe").0, 200);
    assert_eq!(get(address, "/").0, 404);
    let head = exchange(address, b"HEAD /metrics HTTP/1.0\r\n\r\n");
    assert_eq!(status(&head), 200);
    assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    let body = "x".repeat(1000);
    let post = exchange(
        address,
        format!("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{body}").as_bytes(),
    );
    assert_eq!(status(&post), 405);
    assert!(post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
    assert_eq!(status(&exchange(address, b"GET /metrics HTTP/1.1\r\n\r\n")), 400, "without a Host field");
    assert_eq!(status(&exchange(address, b"\x16\x03\x01\x02\x00\x01")), 400, "TLS");
    let long = format!("GET /metrics HTTP/1.0\r\nCookie: {}", "x".repeat(100_000));
    assert_eq!(status(&exchange(address, long.as_bytes())), 431);
    let many = format!("GET /metrics HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(100));
    assert_eq!(status(&exchange(address, many.as_bytes())), 431);
    daemon.stop();
}

#[test]
fn neither_the_slow_nor_the_many_keep_anybody_out() {
    let place = Place::new();
    let daemon = place.serve(&["--tcp", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let address = daemon.address("metrics");
    let mut slow = TcpStream::connect(address).unwrap();
    slow.write_all(b"GET /metr").unwrap();
    let began = Instant::now();
    assert_eq!(get(address, "/healthz").0, 200, "beside one who is slow");
    let mut answer = String::new();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), 408);
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());

    let before_kib = daemon.resident_kib();
    let idle: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
    let began = Instant::now();
    assert_eq!(get(address, "/healthz").0, 200, "beside many who say nothing");
    assert_eq!(get(address, "/metrics").0, 200);
    assert!(began.elapsed() < Duration::from_secs(9), "it waited for their time to end");
    assert!(daemon.resident_kib() < before_kib + 8192);
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap().count();
    assert!(descriptors < 100, "{descriptors} descriptors: connections beyond the limit are kept");
    // Nor do they keep the daemon from ending.
    daemon.stop();
    drop(idle);
}

#[test]
fn it_is_off_unless_it_is_asked_for_and_keeps_no_daemon_running() {
    let place = Place::new();
    let mut daemon =
        Daemon::start(place.command("daemon", &["--stdin", "--metrics", "127.0.0.1:0"]).env("KIFA_METRICS", "off"));
    let line = daemon.wait_for("listening on metrics:");
    let address: SocketAddr = line.rsplit_once("metrics:").unwrap().1.parse().unwrap();
    assert_eq!(get(address, "/healthz").0, 200);
    daemon.close_stdin();
    daemon.end().expect(0);

    let served = place.serve_config("[daemon]\nmetrics = \"127.0.0.1:0\"\n[sources]\ntcp = [\"127.0.0.1:0\"]\n");
    assert_eq!(get(served.address("metrics"), "/healthz").0, 200);
    served.stop();

    let ran = crate::program::feed(&mut place.command("daemon", &["--stdin"]), b"one\n").expect(0);
    assert!(!ran.stderr.contains("metrics"), "{}", ran.stderr);
}

#[test]
fn an_address_is_checked_and_one_that_others_reach_is_warned_of() {
    let place = Place::new();
    for (value, why) in [("9464", "the port is missing"), (":9464", "name an address"), ("::1:9464", "brackets")] {
        let ran = place.run("daemon", &["--stdin", "--metrics", value]).expect(64);
        assert!(ran.stderr.contains("--metrics") && ran.stderr.contains(why), "{}", ran.stderr);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = place.run("daemon", &["--stdin", "--metrics", &address]).expect(74);
    assert!(
        ran.stderr.contains(&format!("cannot listen on metrics:{address}: the address is in use")),
        "{}",
        ran.stderr
    );
    let ran = crate::program::feed(&mut place.command("daemon", &["--stdin", "--metrics", "0.0.0.0:0"]), b"").expect(0);
    assert!(ran.stderr.contains("metrics:0.0.0.0:0 can be reached from other machines"), "{}", ran.stderr);
}

/// A daemon on a small volume, with metrics.
#[cfg(target_os = "linux")]
fn on_volume(volume: &crate::volume::Volume) -> (Daemon, SocketAddr) {
    let store = volume.mountpoint.join("data");
    let mut command = kifa(&["daemon", "--stdin", "--metrics", "127.0.0.1:0", "-d", store.to_str().unwrap()]);
    let mut daemon = Daemon::start(command.args(["--segment-size-mib", "1", "--memtable-threshold-mib", "1"]));
    let line = daemon.wait_for("listening on metrics:");
    (daemon, line.rsplit_once("metrics:").unwrap().1.parse().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_commit_is_not_healthy_and_the_page_still_tells_why() {
    let place = Place::new();
    let Some(volume) = crate::volume::Volume::new(&place) else { return };
    let (mut daemon, address) = on_volume(&volume);
    daemon.write(b"one\n");
    wait_until("one entry is stored", || Page::of(address).value("kifa_confirmed_lsn") == 1.0);
    assert_eq!(get(address, "/healthz").0, 200);
    // A device that does not come back: every write waits.
    volume.freeze("-f");
    daemon.write(b"two\n");
    let began = Instant::now();
    // An answer of a moment ago may still stand. Nothing may fail before the volume is thawed: the daemon could not be ended.
    let mut answer = (200, String::new());
    while answer.0 == 200 && began.elapsed() < PATIENCE {
        answer = std::panic::catch_unwind(|| get(address, "/healthz")).unwrap_or_default();
    }
    let page = std::panic::catch_unwind(|| Page::of(address));
    volume.freeze("-u");
    let ((status, sentence), page) = (answer, page.unwrap());
    assert_eq!(status, 503, "healthy while nothing can be written");
    assert!(sentence.contains("has not answered for 5 s") && sentence.ends_with("(dmesg)\n"), "{sentence}");
    assert!(page.value("kifa_oldest_unconfirmed_seconds") >= 4.0, "{}", page.value("kifa_oldest_unconfirmed_seconds"));
    assert_eq!((page.value("kifa_confirmed_lsn"), page.value("kifa_queue_batches")), (1.0, 1.0));
    wait_until("it is healthy again", || get(address, "/healthz").0 == 200);
    daemon.close_stdin();
    daemon.end().expect(0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_not_healthy() {
    let place = Place::new();
    let Some(volume) = crate::volume::Volume::new(&place) else { return };
    let (mut daemon, address) = on_volume(&volume);
    let ballast = volume.fill();
    let mut stdin = daemon.take_stdin();
    let writer = std::thread::spawn(move || stdin.write_all(format!("{:01000}\n", 7).repeat(8000).as_bytes()));
    wait_until("the disk is full", || Page::of(address).value("kifa_waiting_for_space") == 1.0);
    let mut sentence = String::new();
    wait_until("it is not healthy", || {
        let (status, body) = get(address, "/healthz");
        sentence = body;
        status == 503
    });
    assert!(sentence.contains("waits for space"), "{sentence}");
    std::fs::remove_file(&ballast).unwrap();
    writer.join().unwrap().unwrap();
    wait_until("it is healthy again", || get(address, "/healthz").0 == 200);
    assert_eq!(Page::of(address).value("kifa_failed"), 0.0);
    daemon.end().expect(0);
}
