//! Running the program: a store in a temporary directory, commands on it, and what they came to.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

/// How long something that must happen soon may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ran { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

impl Ran {
    /// Asserts the exit code, showing stderr otherwise.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is UTF-8")
    }
}

/// The program without any configuration of whoever runs the tests.
pub(crate) fn kifa(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kifa"));
    for (name, _) in std::env::vars_os() {
        // A backend that the whole test suite is forced to stays.
        if name.to_string_lossy().starts_with("KIFA_") && name != "KIFA_IO_BACKEND" {
            command.env_remove(name);
        }
    }
    for name in ["JOURNAL_STREAM", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "PAGER", "LESS"] {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

#[track_caller]
pub(crate) fn run(args: &[&str]) -> Ran {
    kifa(args).output().expect("the program starts").into()
}

/// A place for a store, with room beside it.
pub(crate) struct Place {
    temporary: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { temporary: tempfile::tempdir().unwrap() }
    }

    /// A store that holds these lines.
    #[track_caller]
    pub(crate) fn with_lines(lines: &[&str]) -> Place {
        let place = Place::new();
        let mut input = lines.join("\n").into_bytes();
        input.push(b'\n');
        place.daemon(&input, &[]).expect(0);
        place
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.temporary.path().join("data")
    }

    pub(crate) fn dir(&self) -> &str {
        self.temporary.path().to_str().unwrap()
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// `kifa COMMAND -d STORE ARGS…`, ready to run.
    pub(crate) fn command(&self, command: &str, args: &[&str]) -> Command {
        let mut kifa = kifa(&[command, "-d", self.store().to_str().unwrap()]);
        kifa.args(args);
        kifa
    }

    #[track_caller]
    pub(crate) fn run(&self, command: &str, args: &[&str]) -> Ran {
        self.command(command, args).output().expect("the program starts").into()
    }

    /// Runs a daemon over this input to its end.
    #[track_caller]
    pub(crate) fn daemon(&self, input: &[u8], args: &[&str]) -> Ran {
        let mut command = self.command("daemon", &["--stdin"]);
        feed(command.args(args), input)
    }

    /// Starts a daemon on standard input.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command("daemon", &["--stdin"]);
        spawn(command.args(args))
    }

    /// The payloads of the store, in order.
    #[track_caller]
    pub(crate) fn payloads(&self) -> Vec<String> {
        let ran = self.run("query", &["-o", "json"]);
        assert!(matches!(ran.code, Some(0 | 1)), "stderr: {}", ran.stderr);
        ran.text().lines().map(|line| json(line)["data"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until a reader sees this many entries.
    #[track_caller]
    pub(crate) fn wait_for_entries(&self, entries: usize) {
        wait_until("the entries can be read", || {
            let ran = self.run("query", &["-o", "hex"]);
            ran.code == Some(0) && ran.text().lines().count() >= entries
        });
    }

    /// Everything in the store: name, length, time of change.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, (u64, SystemTime)> {
        let mut files = BTreeMap::new();
        list(&self.store(), &mut files);
        files
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// Makes a directory that only its owner may write to, whatever the umask of whoever runs the tests: one that a store may
/// be made in.
pub(crate) fn make_private_dir(path: &Path) {
    fs::create_dir_all(path).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

/// Runs the command to its end with this input.
#[track_caller]
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = spawn(command);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that ends early closes its end: its exit code tells, not ours.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ran = child.wait_with_output().unwrap().into();
    writer.join().unwrap();
    ran
}

fn list(dir: &Path, files: &mut BTreeMap<PathBuf, (u64, SystemTime)>) {
    let metadata = fs::metadata(dir).unwrap();
    files.insert(dir.to_owned(), (0, metadata.modified().unwrap()));
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            list(&path, files);
        } else {
            files.insert(path, (metadata.len(), metadata.modified().unwrap()));
        }
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
pub(crate) fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}
