//! `kifa daemon --file`: rotation and truncation under load, kills, restarts, and what is refused. Every line once.

mod load;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Place, Ran, json, wait_until};

const MIB: usize = 1 << 20;

/// A daemon that follows files; what it says goes to a file.
struct Daemon {
    child: Child,
    messages: PathBuf,
}

impl Daemon {
    fn start(place: &Place, args: &[&str]) -> Daemon {
        Daemon::start_with(place, args, &[])
    }

    fn start_with(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Daemon {
        let messages = place.beside("messages");
        let stderr = OpenOptions::new().append(true).create(true).open(&messages).unwrap();
        let mut command = place.command("daemon", args);
        command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(stderr);
        Daemon { child: command.spawn().expect("the program starts"), messages }
    }

    /// Follows one file of the place.
    fn follow(place: &Place, path: &Path) -> Daemon {
        Daemon::start(place, &["--file", path.to_str().unwrap()])
    }

    fn messages(&self) -> String {
        fs::read_to_string(&self.messages).unwrap()
    }

    #[track_caller]
    fn wait_for(&self, message: &str) {
        wait_until(message, || self.messages().contains(message));
    }

    /// Ends it by SIGKILL, as dropping does.
    fn kill(self) {}

    /// Stops it by SIGTERM; returns what it said.
    #[track_caller]
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(143), "{}", self.messages());
        self.messages()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Where it has ended there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes.as_ref()).unwrap();
}

/// How many entries the store has; a store that is just being made has none.
fn count(place: &Place) -> usize {
    let ran = place.run("stats", &["-o", "json"]);
    if ran.code == Some(0) { json(ran.text())["entries"].as_u64().unwrap() as usize } else { 0 }
}

/// Whether these are the lines with the numbers up to `last`, each once; a short account of what they are otherwise.
#[track_caller]
fn check_lines(payloads: &[String], last: u64, is_ordered: bool) {
    let mut times = vec![0; last as usize + 1];
    let numbers: Vec<u64> = payloads.iter().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
    numbers.iter().for_each(|&number| times[number as usize] += 1);
    let with = |right: &dyn Fn(i32) -> bool| -> Vec<usize> {
        (1..=last as usize).filter(|&number| right(times[number])).take(5).collect()
    };
    let (missing, doubled) = (with(&|times| times == 0), with(&|times| times > 1));
    assert!(missing.is_empty() && doubled.is_empty(), "of {last}: missing {missing:?} …, doubled {doubled:?} …");
    if is_ordered && let Some(at) = numbers.windows(2).position(|pair| pair[0] > pair[1]) {
        panic!("out of order: {:?}", &numbers[at.saturating_sub(2)..(at + 4).min(numbers.len())]);
    }
}

/// Waits until the daemon has stored as much, stops it and returns what is in the store: perhaps more.
#[track_caller]
fn stored(place: &Place, daemon: Daemon, entries: usize) -> Vec<String> {
    wait_until("everything is stored", || count(place) >= entries);
    daemon.stop();
    place.payloads()
}

fn numbered(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

#[test]
fn lines_are_bytes_and_a_restart_goes_on_where_the_last_run_ended() {
    let place = Place::new();
    let path = place.beside("a.log");
    fs::write(&path, b"\n\r\na\r\n b \n\x00\xff\xfe\nunfin").unwrap();
    let daemon = Daemon::follow(&place, &path);
    place.wait_for_entries(2);
    daemon.stop();
    let hex = |place: &Place| -> Vec<String> {
        let printed = place.run("query", &["-o", "hex"]).expect(0);
        printed.text().lines().map(|line| line[34..].to_owned()).collect()
    };
    assert_eq!(hex(&place), ["61", "206220", "00fffe"], "the last line waits for its end");
    append(&path, "ished\nlast\n");
    let daemon = Daemon::follow(&place, &path);
    place.wait_for_entries(4);
    append(&path, "more\n");
    assert_eq!(stored(&place, daemon, 6).len(), 6);
    let printed = hex(&place);
    assert_eq!(printed[3..], ["756e66696e6973686564", "6c617374", "6d6f7265"]);
    let sources = place.run("query", &["--source", &format!("file:{}", path.display())]).expect(0);
    assert_eq!(sources.text().lines().count(), 6);
}

#[test]
fn a_file_that_appears_later_is_read_from_its_beginning() {
    let place = Place::new();
    let path = place.beside("later.log");
    let daemon = Daemon::start(&place, &["--file", path.to_str().unwrap(), "--file-from", "end"]);
    daemon.wait_for("later.log is not there yet; it is read once it is");
    append(&path, "line 1\nline 2\n");
    assert_eq!(stored(&place, daemon, 2), numbered(1..=2));
}

#[test]
fn what_was_skipped_stays_skipped_after_a_kill_before_the_first_entry() {
    let place = Place::new();
    let path = place.beside("a.log");
    append(&path, "old 1\nold 2\nbegun");
    let daemon = Daemon::start(&place, &["--file", path.to_str().unwrap(), "--file-from", "end"]);
    daemon.wait_for("a.log is read from byte 12 on");
    // What comes later is durable later: so the position is.
    place.run("append", &["by hand"]).expect(0);
    daemon.kill();
    append(&path, " and ended\nnew\n");
    // From the beginning, if nobody knew better.
    let daemon = Daemon::follow(&place, &path);
    assert_eq!(stored(&place, daemon, 3), ["by hand", "begun and ended", "new"]);
}

#[test]
fn a_line_that_is_too_long_is_refused_with_file_and_offset() {
    let place = Place::new();
    let path = place.beside("a.log");
    let mut input = b"first\n".to_vec();
    input.resize(input.len() + MIB, b'x');
    input.extend_from_slice(b"\r\n");
    let offset = input.len();
    input.resize(input.len() + MIB + 1, b'y');
    input.extend_from_slice(b"\nlast\n");
    fs::write(&path, &input).unwrap();
    let daemon = Daemon::follow(&place, &path);
    let refused = format!("a line of {} (from byte {offset} on) is refused", path.display());
    daemon.wait_for(&refused);
    let payloads = stored(&place, daemon, 3);
    assert_eq!(payloads.iter().map(String::len).collect::<Vec<_>>(), [5, MIB, 4]);
}

/// Appends numbered lines and rotates; returns how many it wrote.
struct Writer {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Writer {
    fn new(path: &Path) -> Writer {
        Writer { path: path.to_owned(), file: Writer::open(path), written: 0 }
    }

    fn open(path: &Path) -> File {
        OpenOptions::new().append(true).create(true).open(path).unwrap()
    }

    fn line(&mut self) {
        self.written += 1;
        self.file.write_all(format!("line {}\n", self.written).as_bytes()).unwrap();
    }

    fn name(&self, number: usize) -> PathBuf {
        PathBuf::from(format!("{}.{number}", self.path.display()))
    }

    fn shift(&self) {
        let last = (1..).find(|&number| !self.name(number).exists()).unwrap();
        for number in (1..last).rev() {
            fs::rename(self.name(number), self.name(number + 1)).unwrap();
        }
    }

    /// By renaming; some lines still go to the old file.
    fn rotate(&mut self, late: usize) {
        self.shift();
        fs::rename(&self.path, self.name(1)).unwrap();
        for _ in 0..late {
            self.line();
        }
        self.file = Writer::open(&self.path);
    }

    fn copy_truncate(&mut self) {
        self.shift();
        fs::copy(&self.path, self.name(1)).unwrap();
        self.file.set_len(0).unwrap();
    }
}

/// A store that has read these lines of `a.log`, and the file's path.
fn read_before(lines: u64) -> (Place, PathBuf) {
    let place = Place::new();
    let path = place.beside("a.log");
    append(&path, numbered(1..=lines).join("\n") + "\n");
    let daemon = Daemon::follow(&place, &path);
    assert_eq!(stored(&place, daemon, lines as usize).len(), lines as usize);
    (place, path)
}

#[test]
fn another_file_under_the_old_number_is_read_from_its_beginning() {
    let (place, path) = read_before(3);
    let number = fs::metadata(&path).unwrap().ino();
    let mut is_reused = false;
    for attempt in 0..50 {
        fs::remove_file(&path).unwrap();
        append(&path, format!("another file, {attempt}, which is longer than the first was\n"));
        is_reused = fs::metadata(&path).unwrap().ino() == number;
        if is_reused {
            break;
        }
    }
    if !is_reused {
        println!("SKIPPED: this file system does not give the number of a removed file to the next one");
        return;
    }
    let daemon = Daemon::follow(&place, &path);
    daemon.wait_for("was truncated, or its content replaced, after byte 21");
    let payloads = stored(&place, daemon, 4);
    assert_eq!(payloads.len(), 4);
    assert!(payloads[3].starts_with("another file"));
}

#[test]
fn a_file_that_was_truncated_and_grew_again_is_read_from_its_beginning() {
    let (place, path) = read_before(3);
    fs::write(&path, "line 4\nline 5\nline 6\nline 7\n").unwrap();
    let daemon = Daemon::follow(&place, &path);
    daemon.wait_for("was truncated, or its content replaced, after byte 21");
    assert_eq!(stored(&place, daemon, 7), numbered(1..=7));
}

#[test]
fn a_file_that_came_back_shorter_is_read_on_from_its_end() {
    let (place, path) = read_before(300);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(1500).unwrap();
    let daemon = Daemon::follow(&place, &path);
    daemon.wait_for("has only 1500 bytes now, with the same beginning");
    append(&path, "line 301\n");
    assert_eq!(stored(&place, daemon, 301), numbered(1..=301));
}

#[test]
fn files_rotated_while_nobody_looked_are_read_and_compressed_ones_are_reported() {
    let (place, path) = read_before(2);
    let mut writer = Writer::new(&path);
    writer.written = 2;
    for _ in 0..3 {
        writer.line();
        writer.rotate(1);
    }
    writer.line();
    let daemon = Daemon::follow(&place, &path);
    assert_eq!(stored(&place, daemon, 9), numbered(1..=9));
    // The file at the path and the one after it are rotated, and the former compressed.
    writer.rotate(0);
    writer.line();
    writer.rotate(0);
    fs::write(place.beside("a.log.2.gz"), "packed").unwrap();
    fs::remove_file(writer.name(2)).unwrap();
    writer.line();
    let daemon = Daemon::follow(&place, &path);
    daemon.wait_for("is not there any more, nor beside it");
    daemon.wait_for("a.log.2.gz is a rotated file of");
    assert_eq!(stored(&place, daemon, 11), numbered(1..=11));
}

#[test]
fn a_file_that_was_removed_is_read_to_its_end_and_the_next_one_from_its_beginning() {
    let place = Place::new();
    let path = place.beside("a.log");
    let mut writer = Writer::new(&path);
    writer.line();
    let daemon = Daemon::follow(&place, &path);
    daemon.wait_for("is read from byte 0 on");
    fs::remove_file(&path).unwrap();
    writer.line();
    daemon.wait_for("a.log was removed");
    writer.line();
    writer.file = Writer::open(&path);
    writer.line();
    assert_eq!(stored(&place, daemon, 4), numbered(1..=4));
}

#[test]
fn looking_now_and_then_does_where_nothing_is_notified() {
    let place = Place::new();
    let path = place.beside("a.log");
    let mut writer = Writer::new(&path);
    let variables = [("KIFA_FILE_WATCH", "poll"), ("KIFA_FILE_RESCAN", "30ms")];
    let daemon = Daemon::start_with(&place, &["--file", path.to_str().unwrap()], &variables);
    daemon.wait_for("is read from byte 0 on");
    for _ in 0..5 {
        writer.line();
        thread::sleep(Duration::from_millis(50));
        writer.rotate(1);
    }
    writer.line();
    assert_eq!(stored(&place, daemon, 11), numbered(1..=11));
}

#[test]
fn a_pattern_takes_new_files_follows_renames_within_it_and_leaves_compressed_ones_alone() {
    let place = Place::new();
    let logs = place.beside("logs");
    fs::create_dir(&logs).unwrap();
    append(&logs.join("a.log"), "line 1\n");
    append(&logs.join("old.log.gz"), "packed");
    let config = place.beside("kifa.toml");
    fs::write(&config, format!("[sources]\nfiles = [\"{}/*.log*\"]\n", logs.display())).unwrap();
    let daemon = Daemon::start(&place, &["-c", config.to_str().unwrap()]);
    daemon.wait_for("old.log.gz matches a pattern and is not read: it is compressed");
    append(&logs.join("b.log"), "line 2\n");
    wait_until("the new file is read", || count(&place) >= 1);
    fs::rename(logs.join("a.log"), logs.join("a.log.1")).unwrap();
    append(&logs.join("a.log.1"), "line 3\n");
    append(&logs.join("a.log"), "line 4\n");
    let mut payloads = stored(&place, daemon, 4);
    payloads.sort();
    assert_eq!(payloads, numbered(1..=4));
    let of_b = place.run("query", &["--source", "file:*b.log"]).expect(0);
    assert!(of_b.text().ends_with("line 2\n"), "{}", of_b.text());
}

#[test]
fn what_cannot_be_followed_is_an_error_at_start() {
    let place = Place::new();
    let refused = |path: &Path, expected: &str| {
        let ran: Ran = place.run("daemon", &["--file", path.to_str().unwrap()]);
        assert!(ran.code.is_some_and(|code| code != 0) && ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
        place.run("query", &[]).expect(1);
    };
    refused(&place.beside("nowhere/a.log"), "nowhere cannot be used (No such file or directory");
    refused(Path::new(place.dir()), "it is a directory");
    refused(Path::new("/dev/null"), "it is a device, not a file");
    let pipe = place.beside("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    refused(&pipe, "it is a pipe, not a file");
    refused(&place.store().join("own.log"), "it lies in the data directory");
    let link = place.beside("link.log");
    std::os::unix::fs::symlink(place.store().join("LOCK"), &link).unwrap();
    refused(&link, "it lies in the data directory");
    let secret = place.beside("secret.log");
    append(&secret, "");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&secret).is_ok() {
        println!("SKIPPED: a file without permissions (this user may read everything)");
    } else {
        refused(&secret, "Permission denied");
    }
}

#[test]
fn more_files_than_the_limit_are_an_error_at_start() {
    let place = Place::new();
    let logs = place.beside("logs");
    fs::create_dir(&logs).unwrap();
    for name in ["1.log", "2.log", "3.log"] {
        append(&logs.join(name), "");
    }
    let config = place.beside("kifa.toml");
    let toml = format!("[sources]\nfiles = [\"{}/*.log\"]\n[ingester]\nfiles_max = 2\n", logs.display());
    fs::write(&config, toml).unwrap();
    let ran = place.run("daemon", &["-c", config.to_str().unwrap()]);
    assert!(ran.code != Some(0) && ran.stderr.contains("more than 2 files to follow"), "{}", ran.stderr);
}
