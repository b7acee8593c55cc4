//! A small file system of its own that fills up and is freed, again and again, under the daemon.
//!
//! It needs root for a loop mount. `KIFA_FULL_ROUNDS=1000 cargo test --release --test it full_disk` goes on for as many rounds;
//! a few are run otherwise.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{PATIENCE, Place, json, kifa, wait_until};
use crate::volume::{FileSystem, Volume};

/// A daemon with a TCP listener that confirms; killed when it is dropped.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(store: &Path, address: &str) -> Daemon {
        let mut command = kifa(&["daemon", "--tcp", address, "--confirm", "--on-full", "refuse", "-d"]);
        command.arg(store).args(["--segment-size-mib", "1", "--memtable-threshold-mib", "1", "--max-size-mib", "24"]);
        let child = command.stderr(Stdio::null()).spawn().expect("the program starts");
        Daemon { child, address: address.to_owned() }
    }

    fn connect(&self) -> Client {
        let end = Instant::now() + PATIENCE;
        let stream = loop {
            match TcpStream::connect(&self.address) {
                Ok(stream) => break stream,
                Err(cause) => assert!(Instant::now() < end, "the daemon listens: {cause}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { answers: BufReader::new(stream.try_clone().unwrap()), stream, noise: 1 }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
    noise: u64,
}

impl Client {
    /// One entry of some ten KiB that does not compress; the LSN, or `None` where it is refused because the disk is full.
    fn append(&mut self) -> Option<u64> {
        let mut line = String::new();
        while line.len() < 10_000 {
            self.noise = self.noise.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            line.push_str(&format!("{:016x}", self.noise));
        }
        line.push('\n');
        self.stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("every entry is answered, also on a full disk");
        match answer.trim_end().split_once(' ') {
            Some(("OK", lsn)) => Some(lsn.parse().unwrap()),
            Some(("ERR", why)) if why.starts_with("full ") => None,
            _ => panic!("{answer:?}"),
        }
    }
}

fn run(store: &Path, args: &[&str]) -> crate::program::Ran {
    let mut command = kifa(&args[..1]);
    command.arg("-d").arg(store).args(&args[1..]);
    command.output().expect("the program starts").into()
}

/// Every entry from the floor to `last` is there.
fn assert_whole(store: &Path, last: u64, round: u64) {
    let stats = || json(run(store, &["stats", "-o", "json"]).expect(0).text());
    // A daemon whose control socket found no room vouches for nothing: the newest entry is proven when it has been idle.
    wait_until("the newest entry is proven durable", || stats()["last_lsn"].as_u64() >= Some(last));
    let stats = stats();
    let floor = stats["retention"]["floor_lsn"].as_u64().unwrap();
    assert_eq!(stats["last_lsn"], last, "round {round}");
    assert_eq!(stats["entries"], last + 1 - floor, "round {round}");
}

#[test]
fn a_disk_that_fills_up_and_is_freed_costs_nothing_that_was_confirmed() {
    fill_and_free(FileSystem::Ext4);
}

#[test]
fn an_xfs_that_fills_up_and_is_freed_costs_nothing_that_was_confirmed() {
    fill_and_free(FileSystem::Xfs);
}

#[test]
fn a_btrfs_that_fills_up_and_is_freed_costs_nothing_that_was_confirmed() {
    fill_and_free(FileSystem::Btrfs);
}

fn fill_and_free(file_system: FileSystem) {
    let place = Place::new();
    let Some(volume) = Volume::on(file_system, &place, 64) else { return };
    let rounds = std::env::var("KIFA_FULL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let store = volume.mountpoint.join("data");
    // A port that was free a moment ago: the daemon is started again and again on the same one.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut daemon = Daemon::start(&store, &address);
    let mut client = daemon.connect();
    let mut last = 0;
    for round in 0..rounds {
        let end = Instant::now() + PATIENCE;
        // Appending has resumed by itself; some of it, so that tables grow and are deleted.
        let mut stored = 0;
        while stored < 40 {
            assert!(Instant::now() < end, "round {round}: appending resumes");
            match client.append() {
                Some(lsn) => {
                    assert!(lsn > last, "round {round}: {lsn} behind {last}");
                    (last, stored) = (lsn, stored + 1);
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        let ballast = volume.fill();
        while let Some(lsn) = client.append() {
            last = lsn;
            assert!(Instant::now() < end, "round {round}: the disk is full");
        }
        assert_whole(&store, last, round);
        match round % 4 {
            1 => {
                kill_process(Pid::from_child(&daemon.child), Signal::KILL).unwrap();
                daemon.child.wait().unwrap();
                // It opens and serves on the full disk, and has what was confirmed.
                daemon = Daemon::start(&store, &address);
                client = daemon.connect();
                let _ = client.append().inspect(|lsn| last = *lsn);
            }
            3 => drop(run(&store, &["vacuum", "--to-size", "6"]).expect(0)),
            _ => {}
        }
        fs::remove_file(ballast).unwrap();
    }
    drop(client);
    drop(daemon);
    run(&store, &["verify", "--deep"]).expect(0);
    println!("{rounds} rounds, {last} entries");
}
