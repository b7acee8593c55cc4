//! A mounted `kifa-lazyfs` of its own for a test, as another program would start it, and its commands.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

/// A running file system; it ends when this is dropped, also when a test fails, or is killed.
pub(crate) struct Lazy {
    base: TempDir,
    point: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
}

/// Says why a test cannot run here, also where the test runner keeps the output of tests that pass to itself.
pub(crate) fn or_skip<T>(what: Result<T, String>) -> Option<T> {
    static SKIPPED: AtomicU64 = AtomicU64::new(0);
    let skip = |why: String| {
        let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let line = format!("SKIPPED {test}: {why} ({count} of this program so far)\n");
        io::stderr().write_all(line.as_bytes()).expect("stderr can be written");
    };
    what.map_err(skip).ok()
}

impl Lazy {
    /// Mounts an empty directory; an error says what is missing on this machine.
    pub(crate) fn start() -> Result<Lazy, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        if let Err(error) = File::options().read(true).write(true).open("/dev/fuse") {
            return Err(format!("/dev/fuse cannot be opened: {error}"));
        }
        let base = tempfile::tempdir().unwrap();
        for name in ["backing", "mount"] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        let place = |name: &str| base.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kifa-lazyfs"));
        command.arg("--root").arg(place("backing")).arg("--mount").arg(place("mount"));
        command.arg("--fifo").arg(place("fifo")).arg("--fifo-completed").arg(place("completed"));
        command.arg("--until-stdin-ends").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let stdin = child.stdin.take();
        let point = place("mount");
        let lazy = Lazy { point, child, stdin, base };
        if line == "mounted\n" { Ok(lazy) } else { Err("the kernel refuses to mount FUSE here".to_owned()) }
    }

    pub(crate) fn point(&self) -> &Path {
        &self.point
    }

    pub(crate) fn backing(&self) -> PathBuf {
        self.path("backing")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// Carries a command out; what it printed.
    #[track_caller]
    pub(crate) fn command(&self, line: &str) -> Vec<String> {
        let answers = File::options().read(true).write(true).open(self.path("completed")).unwrap();
        let mut commands = File::options().write(true).open(self.path("fifo")).unwrap();
        commands.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut lines = Vec::new();
        for answer in BufReader::new(answers).lines() {
            let answer = answer.unwrap();
            assert!(!answer.starts_with("failed::"), "{line}: {answer}");
            if answer.starts_with("finished::") {
                break;
            }
            lines.push(answer);
        }
        lines
    }

    /// A number of the report.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let lines = self.command("kifa::report");
        let value = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.expect("the report has it").parse().unwrap()
    }

    /// Lets it go as if this process were gone.
    pub(crate) fn end(&mut self) {
        self.stdin = None;
        self.child.wait().unwrap();
    }
}

impl Drop for Lazy {
    fn drop(&mut self) {
        self.end();
    }
}
